//! Reaching an ensemble, and saying in one sentence why that failed. Knows nothing about what is asked of it.

use std::{error::Error as StdError, str::FromStr, time::Duration};

use anyhow::anyhow;
use chorus_proto::{MAX_MESSAGE_BYTES, v1::ensemble_client::EnsembleClient};
use tonic::{
    Code, Status,
    transport::{Channel, Endpoint, Uri},
};

use crate::failure::sentence_of_io_error;

/// How long a TCP connection may take to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A server whose process hangs or whose machine is gone is found by these two together. One that is busy answers them.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// What every client command takes.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Ensemble and output")]
pub(crate) struct ConnectArgs {
    /// Where the ensemble listens
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:50051")]
    pub(crate) addr: Address,
    /// Print JSON instead of text
    #[arg(long)]
    pub(crate) json: bool,
}

/// The address of an ensemble: `host:port`, with or without `http://`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Address(Uri);

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let url = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
        let uri: Uri = url.parse().map_err(|_| wrong_address())?;
        if uri.scheme_str() == Some("https") {
            return Err("this build speaks http only; put a TLS proxy in front where https is needed".into());
        }
        let only_authority = uri.path() == "/" && uri.query().is_none();
        if uri.scheme_str() != Some("http") || uri.port_u16().is_none() || !only_authority {
            return Err(wrong_address());
        }
        Ok(Self(uri))
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0.to_string().trim_end_matches('/'))
    }
}

impl From<std::net::SocketAddr> for Address {
    fn from(address: std::net::SocketAddr) -> Self {
        // A socket address is always a valid authority.
        Self(Uri::try_from(format!("http://{address}")).unwrap_or_default())
    }
}

fn wrong_address() -> String {
    "expected HOST:PORT or http://HOST:PORT".to_owned()
}

/// How an address is connected to.
pub(crate) fn endpoint(address: &Address) -> Endpoint {
    Endpoint::from(address.0.clone())
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
}

/// Connects to whatever listens at an address.
///
/// # Errors
/// The reason in few words.
pub(super) async fn channel(address: &Address) -> Result<Channel, String> {
    endpoint(address).connect().await.map_err(|error| reason_of(&error))
}

/// Connects to the ensemble at an address.
///
/// # Errors
/// Nothing listens there; the sentence names the address, the reason and what to do.
pub(crate) async fn connect(address: &Address) -> anyhow::Result<EnsembleClient<Channel>> {
    let channel = channel(address).await.map_err(|reason| {
        anyhow!("no ensemble answers at {address}: {reason}; start one with \"chorus up\"")
    })?;
    // Per-token scores of a long text are larger than the default limit.
    Ok(EnsembleClient::new(channel).max_decoding_message_size(MAX_MESSAGE_BYTES))
}

/// A gRPC status as the sentence that a user should read.
pub(crate) fn sentence_of_status(status: &Status, address: &Address) -> anyhow::Error {
    if status.code() == Code::Unimplemented {
        return anyhow!(
            "the server at {address} is not a Chorus ensemble (it doesn't know chorus.v1.Ensemble)"
        );
    }
    // A status with a source was made on this side, by a connection that broke.
    if status.source().is_some() {
        return anyhow!("the connection to {address} broke: {}", reason_of(status));
    }
    match status.message() {
        "" => anyhow!("the ensemble refused: {}", status.code().description()),
        message => anyhow!("{message}"),
    }
}

/// The innermost cause in few words: "connection refused", not "transport error".
fn reason_of(error: &(dyn StdError + 'static)) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    match innermost.downcast_ref::<std::io::Error>() {
        Some(error) => sentence_of_io_error(error),
        None => innermost.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_host_and_port_with_or_without_a_scheme() {
        for (given, shown) in [
            ("127.0.0.1:50051", Some("http://127.0.0.1:50051")),
            ("http://127.0.0.1:50051/", Some("http://127.0.0.1:50051")),
            ("[::1]:7", Some("http://[::1]:7")),
            ("gpu-3.internal:50051", Some("http://gpu-3.internal:50051")),
            ("127.0.0.1", None),
            ("https://127.0.0.1:1", None),
            ("ftp://127.0.0.1:1", None),
            ("127.0.0.1:1/path", None),
            ("127.0.0.1:99999", None),
            ("", None),
        ] {
            let parsed = given.parse::<Address>().ok().map(|address| address.to_string());
            assert_eq!(parsed.as_deref(), shown, "{given:?}");
        }
    }

    #[tokio::test]
    async fn nobody_at_an_address_is_one_sentence_that_says_what_to_do() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let error = connect(&Address::from(address)).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "no ensemble answers at http://{address}: connection refused; start one with \"chorus up\""
            )
        );
    }

    #[test]
    fn a_status_is_shown_as_its_sentence() {
        let address: Address = "127.0.0.1:1".parse().unwrap();
        for (status, shown) in [
            (
                Status::invalid_argument("max_tokens must be 1..=4096, got 0"),
                "max_tokens must be 1..=4096, got 0",
            ),
            (Status::cancelled(""), "the ensemble refused: The operation was cancelled"),
            (
                Status::unimplemented(""),
                "the server at http://127.0.0.1:1 is not a Chorus ensemble (it doesn't know chorus.v1.Ensemble)",
            ),
        ] {
            assert_eq!(sentence_of_status(&status, &address).to_string(), shown);
        }
    }
}
