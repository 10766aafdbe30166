//! [`Collector`]: who takes spans, and how it is connected to. In TLS as everywhere else here, with the certificates that
//! OpenTelemetry's own variables name.
//!
//! Knows nothing about spans.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use chorus_coordinator::config::Telemetry;
use chorus_net::{ClientSettings, ClientTls, Dialer, endpoint_at};
use http::Uri;
use http::uri::Scheme;
use tonic::transport::Channel;

use crate::client::{identity, read_pem};

/// What OpenTelemetry has where nothing says how long an export may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Between two pings of a connection on which nothing is said.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// The port of https where an address has none.
const HTTPS: u16 = 443;

/// Its address.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Collector(pub(super) String);

/// Reads a flag.
pub(super) fn address(url: &str) -> Result<String, String> {
    let telemetry = Telemetry { otlp: Some(url.to_owned()) };
    telemetry
        .check()
        .map(|()| url.to_owned())
        .map_err(|_| "expected http://HOST:PORT or https://HOST:PORT".to_owned())
}

/// What a variable of the environment says, the one for traces alone before that for everything; nothing where it is empty.
fn of_traces(what: &str, variable: impl Fn(&str) -> Option<String>) -> Option<String> {
    let names = [format!("OTEL_EXPORTER_OTLP_TRACES_{what}"), format!("OTEL_EXPORTER_OTLP_{what}")];
    names.iter().filter_map(|name| variable(name)).find(|value| !value.is_empty())
}

impl Collector {
    /// A flag counts more than the environment, and that more than a file. None where nobody says one, or the environment that
    /// there shall be none.
    pub(super) fn chosen(
        flag: Option<&str>,
        of_file: Option<&str>,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Option<Self> {
        let is =
            |name: &str, value: &str| variable(name).is_some_and(|given| given.eq_ignore_ascii_case(value));
        if is("OTEL_SDK_DISABLED", "true") || is("OTEL_TRACES_EXPORTER", "none") {
            return None;
        }
        let of_environment = || of_traces("ENDPOINT", &variable);
        flag.map(str::to_owned).or_else(of_environment).or_else(|| of_file.map(str::to_owned)).map(Self)
    }

    /// A channel where TLS is spoken; in plain text the exporter has its own.
    ///
    /// # Errors
    /// A certificate that can't be used, or an address that is none.
    pub(super) fn channel(
        &self,
        variable: impl Fn(&str) -> Option<String>,
    ) -> anyhow::Result<Option<Channel>> {
        let Self(url) = self;
        let uri: Uri = url.parse().with_context(|| format!("traces can't be sent to {url:?}"))?;
        if uri.scheme() != Some(&Scheme::HTTPS) {
            return Ok(None);
        }
        let said = |what| of_traces(what, &variable);
        let ca = said("CERTIFICATE").map(|file| read_pem(Path::new(&file))).transpose()?;
        let identity = match (said("CLIENT_CERTIFICATE"), said("CLIENT_KEY")) {
            (Some(certificate), Some(key)) => Some(identity(Path::new(&certificate), Path::new(&key))?),
            (None, None) => None,
            _ => anyhow::bail!(
                "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE and OTEL_EXPORTER_OTLP_CLIENT_KEY belong together; allowed: both or none"
            ),
        };
        let setup = ClientSettings { ca, identity }.prepare();
        let setup = setup.with_context(|| format!("traces can't be sent to {url}"))?;
        let name = uri.host().unwrap_or_default().to_owned();
        // A collector that takes a connection and never answers must not hold the exporter's thread for good.
        let timeout =
            said("TIMEOUT").and_then(|given| given.parse().ok()).map_or(TIMEOUT, Duration::from_millis);
        let endpoint = endpoint_at(with_port(uri)?).timeout(timeout).connect_timeout(timeout);
        let endpoint = endpoint.http2_keep_alive_interval(KEEP_ALIVE).keep_alive_timeout(timeout);
        let dialer = Dialer::secure(endpoint, ClientTls::new(setup), &name)?;
        Ok(Some(dialer.connect_lazily()))
    }
}

/// The address with the port of its scheme, where it has none.
fn with_port(uri: Uri) -> anyhow::Result<Uri> {
    if uri.port().is_some() {
        return Ok(uri);
    }
    let mut parts = uri.into_parts();
    let authority =
        parts.authority.take().map(|authority| format!("{authority}:{HTTPS}")).unwrap_or_default();
    parts.authority = Some(authority.parse()?);
    Ok(Uri::from_parts(parts)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(flag: Option<&str>, file: Option<&str>, environment: &[(&str, &str)]) -> Option<String> {
        let collector = Collector::chosen(flag, file, |name| {
            let variable = environment.iter().find(|(of, _)| *of == name);
            variable.map(|(_, value)| (*value).to_owned())
        });
        collector.map(|Collector(url)| url)
    }

    #[test]
    fn a_flag_counts_more_than_the_environment_and_that_more_than_a_file() {
        let at = |url: &str| Some(url.to_owned());
        let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4317");
        let of_traces = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://t:4317");
        assert_eq!(chosen(None, None, &[]), None);
        assert_eq!(chosen(None, None, &[("OTEL_EXPORTER_OTLP_ENDPOINT", "")]), None);
        assert_eq!(chosen(None, Some("http://f:1"), &[]), at("http://f:1"));
        assert_eq!(chosen(None, Some("http://f:1"), &[endpoint]), at("http://c:4317"));
        assert_eq!(chosen(None, None, &[endpoint, of_traces]), at("http://t:4317"));
        assert_eq!(chosen(Some("http://a:1"), Some("http://f:1"), &[endpoint]), at("http://a:1"));
        for off in [("OTEL_SDK_DISABLED", "true"), ("OTEL_TRACES_EXPORTER", "none")] {
            assert_eq!(chosen(Some("http://a:1"), None, &[endpoint, off]), None);
        }
    }

    #[test]
    fn plain_text_is_the_exporters_and_a_certificate_that_is_not_there_is_named() {
        let plain = Collector("http://c:4317".to_owned());
        assert!(plain.channel(|_| None).unwrap().is_none());
        let secure = Collector("https://c:4317".to_owned());
        let missing =
            |name: &str| (name == "OTEL_EXPORTER_OTLP_CERTIFICATE").then(|| "nowhere.pem".to_owned());
        let error = secure.channel(missing).unwrap_err();
        assert!(error.to_string().contains("nowhere.pem"), "{error}");
        let half = |name: &str| (name == "OTEL_EXPORTER_OTLP_CLIENT_KEY").then(|| "me.key".to_owned());
        let error = secure.channel(half).unwrap_err();
        assert!(error.to_string().contains("belong together"), "{error}");
    }

    #[test]
    fn an_address_without_a_port_has_that_of_https() {
        let with = |url: &str| with_port(url.parse().unwrap()).unwrap().to_string();
        assert_eq!(with("https://otel.example.com"), "https://otel.example.com:443/");
        assert_eq!(with("https://[::1]:4317/"), "https://[::1]:4317/");
        assert_eq!(with("https://[::1]/"), "https://[::1]:443/");
    }
}
