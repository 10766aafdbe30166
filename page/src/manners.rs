//! What holds for every answer and every caller: headers by which a browser lets nothing in or out but this page, and who is
//! turned away before anything is read.
//!
//! Knows nothing about what is asked.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::header::{
    CONTENT_SECURITY_POLICY, HOST, HeaderName, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use http::{HeaderMap, HeaderValue, StatusCode, Uri};

use crate::failure::Failure;

/// Nothing but this server's own files, and nobody else's frame around them.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const HEADERS: [(HeaderName, &str); 6] = [
    (CONTENT_SECURITY_POLICY, POLICY),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (X_FRAME_OPTIONS, "DENY"),
    (REFERRER_POLICY, "no-referrer"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
];

/// From where a request may come.
#[derive(Debug, Clone)]
pub(crate) struct Manners {
    /// The names by which the page may be asked for, beside `localhost` and addresses: another name may be somebody else's that was made
    /// to point here, which would make another site's script one of this origin. Nothing where TLS says who is meant.
    pub(crate) hosts: Option<Arc<[String]>>,
}

/// Turns strangers away, and adds the headers to every answer.
pub(crate) async fn keep(State(manners): State<Manners>, request: Request, next: Next) -> Response {
    let mut response = match manners.check(request.headers(), request.uri()) {
        Ok(()) => next.run(request).await,
        Err(failure) => failure.into_response(),
    };
    for (name, value) in HEADERS {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

impl Manners {
    fn check(&self, headers: &HeaderMap, uri: &Uri) -> Result<(), Failure> {
        if let Some(hosts) = &self.hosts
            && !is_known(hosts, headers, uri)
        {
            return Err(Failure::of_http(
                StatusCode::MISDIRECTED_REQUEST,
                "host: this page does not go by that name; allowed: localhost, an address, or a name of http_hosts",
            ));
        }
        if uri.path().starts_with("/api/") && is_of_another_site(headers) {
            return Err(Failure::of_http(
                StatusCode::FORBIDDEN,
                "origin: the request comes from another site's page; allowed: this page itself, and programs",
            ));
        }
        Ok(())
    }
}

fn is_known(hosts: &[String], headers: &HeaderMap, uri: &Uri) -> bool {
    let host = uri.authority().map(|authority| authority.as_str());
    let host = host.or_else(|| headers.get(HOST)?.to_str().ok());
    let Some(host) = host else {
        return false;
    };
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let name = name.trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
    // A name with its root, as some resolvers are asked for it.
    let rootless = |name: &str| name.strip_suffix('.').unwrap_or(name).to_owned();
    let name = rootless(&name);
    let is_listed = hosts.iter().any(|host| rootless(host).eq_ignore_ascii_case(&name));
    // Nobody can make an address point elsewhere.
    is_listed || name == "localhost" || name.ends_with(".localhost") || name.parse::<IpAddr>().is_ok()
}

/// Browsers say where a script that asks comes from; programs say nothing.
fn is_of_another_site(headers: &HeaderMap) -> bool {
    let site = headers.get("sec-fetch-site").map(HeaderValue::as_bytes);
    matches!(site, Some(b"cross-site" | b"same-site"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(
        hosts: Option<&str>,
        path: &str,
        headers: &[(&'static str, &'static str)],
    ) -> Option<StatusCode> {
        let headers = headers
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        let hosts = hosts.map(|hosts| hosts.split_whitespace().map(str::to_owned).collect());
        let checked = Manners { hosts }.check(&headers.collect(), &path.parse().unwrap());
        checked.err().and_then(|failure| failure.http)
    }

    #[test]
    fn only_names_that_are_its_own_are_served_over_plain_text() {
        let misdirected = Some(StatusCode::MISDIRECTED_REQUEST);
        for host in [
            "localhost",
            "localhost:8080",
            "127.0.0.1:1",
            "127.8.9.1",
            "[::1]:80",
            "[::1]",
            "a.LOCALHOST:2",
            "10.0.0.1:8080",
        ] {
            assert_eq!(check(Some(""), "/", &[("host", host)]), None, "{host}");
        }
        for host in
            ["evil.example", "evil.example:8080", "localhost.evil.example", "127.0.0.1.evil.example", ""]
        {
            assert_eq!(check(Some(""), "/", &[("host", host)]), misdirected, "{host}");
            assert_eq!(check(None, "/", &[("host", host)]), None, "TLS knows: {host}");
        }
        assert_eq!(check(Some("a.example chorus"), "/", &[("host", "Chorus:8080")]), None);
        assert_eq!(check(Some("a.example. chorus"), "/", &[("host", "a.example")]), None);
        assert_eq!(check(Some("a.example"), "/", &[("host", "a.example.:80")]), None);
        assert_eq!(check(Some("a.example chorus"), "/", &[("host", "b.example")]), misdirected);
        assert_eq!(check(Some(""), "/", &[]), misdirected);
    }

    #[test]
    fn other_sites_scripts_are_not_answered() {
        for (site, refused) in
            [("same-origin", false), ("none", false), ("same-site", true), ("cross-site", true)]
        {
            let status = refused.then_some(StatusCode::FORBIDDEN);
            assert_eq!(check(None, "/api/status", &[("sec-fetch-site", site)]), status, "{site}");
            assert_eq!(check(None, "/", &[("sec-fetch-site", site)]), None, "links to the page are fine");
        }
    }
}
