//! Reaching an ensemble, and saying in one sentence why that failed. Knows nothing about what is asked of it.

use std::{error::Error as StdError, time::Duration};

use anyhow::{Context as _, anyhow};
use chorus_coordinator::config::Compression;
use chorus_net::{Dialer, Wire, endpoint_at};
use chorus_proto::{MAX_MESSAGE_BYTES, v1::ensemble_client::EnsembleClient};
use tonic::{Code, Status};

use super::{
    address::{Address, Secret},
    security::SecurityArgs,
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
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:50051", env = "CHORUS_CLIENT_ADDR")]
    pub(crate) addr: Address,
    #[command(flatten)]
    pub(crate) security: SecurityArgs,
    /// Pack requests, and take answers packed where the server packs them: none, gzip or zstd
    #[arg(
        long,
        value_name = "HOW",
        default_value = "none",
        value_parser = compression,
        env = "CHORUS_CLIENT_COMPRESSION"
    )]
    pub(crate) compression: Compression,
    /// Print JSON instead of text
    #[arg(long)]
    pub(crate) json: bool,
}

impl ConnectArgs {
    /// The ensemble, as all of the flags have it.
    ///
    /// # Errors
    /// As [`Address::secured_by`].
    pub(crate) fn server(&self) -> anyhow::Result<Address> {
        let address = self.addr.secured_by(&self.security)?;
        Ok(Address { compression: self.compression, ..address })
    }
}

fn compression(word: &str) -> Result<Compression, String> {
    match word {
        "none" => Ok(Compression::None),
        "gzip" => Ok(Compression::Gzip),
        "zstd" => Ok(Compression::Zstd),
        _ => Err("allowed are none, gzip and zstd".to_owned()),
    }
}

/// How an address is connected to.
///
/// # Errors
/// A host of which no certificate can be, or a token that can't be sent.
pub(crate) fn dialer(address: &Address) -> anyhow::Result<Dialer> {
    let endpoint = endpoint_at(address.uri.clone())
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .keep_alive_while_idle(true);
    let dialer = match &address.tls {
        None => Dialer::plain(endpoint),
        Some(tls) => {
            let host = address.uri.host().unwrap_or_default();
            Dialer::secure(endpoint, tls.client.clone(), tls.name.as_deref().unwrap_or(host))?
        }
    };
    match &address.token {
        None => Ok(dialer),
        Some(Secret(token)) => dialer.with_bearer(token).context("the token can't be sent"),
    }
}

/// Connects to whatever listens at an address.
///
/// # Errors
/// The reason in few words.
pub(super) async fn channel(address: &Address) -> Result<Wire, String> {
    let dialer = dialer(address).map_err(|error| error.to_string())?;
    dialer.connect().await.map_err(|error| reason_of(&error))
}

/// Connects to the ensemble at an address.
///
/// # Errors
/// Nothing listens there; the sentence names the address, the reason and what to do.
pub(crate) async fn connect(address: &Address) -> anyhow::Result<EnsembleClient<Wire>> {
    let channel = channel(address).await.map_err(|reason| match address.tls {
        Some(_) => anyhow!("no ensemble answers at {address}: {reason}{}", hint(&reason)),
        None => anyhow!("no ensemble answers at {address}: {reason}; start one with \"chorus up\""),
    })?;
    // Per-token scores of a long text are larger than the default limit.
    let client = EnsembleClient::new(channel).max_decoding_message_size(MAX_MESSAGE_BYTES);
    Ok(match address.compression.encoding() {
        Some(encoding) => client.send_compressed(encoding).accept_compressed(encoding),
        None => client,
    })
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
        let reason = reason_of(status);
        return anyhow!("the connection to {address} broke: {reason}{}", hint(&reason));
    }
    match status.message() {
        "" => anyhow!("the ensemble refused: {}", status.code().description()),
        message => anyhow!("{message}"),
    }
}

/// What to do about what TLS says.
fn hint(reason: &str) -> &'static str {
    if reason.contains("the server speaks TLS") {
        "; use https://HOST:PORT, or --tls-ca FILE"
    } else if reason.contains("does not speak TLS") {
        "; use http://HOST:PORT, without --tls-ca"
    } else if reason.contains("the server's certificate is of an unknown CA") {
        "; --tls-ca FILE names the CA"
    } else if reason.contains("the server wants a certificate") {
        "; show one with --tls-cert FILE and --tls-key FILE"
    } else {
        ""
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
