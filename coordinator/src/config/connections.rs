//! How connections with clients are kept and what is packed on them. Knows nothing about who connects.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tonic::codec::CompressionEncoding;

/// The `[connections]` table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Connections {
    /// How answers are packed for clients that can unpack them. What clients send may be packed in any of these ways.
    pub compression: Compression,
    /// Milliseconds between two pings of a client.
    pub keepalive_ms: u32,
    /// Milliseconds that a client has for its answer to one: then it is gone, and its work ends.
    pub keepalive_timeout_ms: u32,
}

/// A way to pack messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// As they are.
    #[default]
    None,
    /// What every gRPC library knows.
    Gzip,
    /// Faster, and smaller.
    Zstd,
}

/// An interval that is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("connections.{key}: 0 is not allowed; allowed: at least 1")]
pub struct ConnectionsError {
    /// Which.
    pub key: &'static str,
}

impl Default for Connections {
    fn default() -> Self {
        Self { compression: Compression::None, keepalive_ms: 20_000, keepalive_timeout_ms: 20_000 }
    }
}

impl Connections {
    /// Between two pings.
    pub fn keepalive(&self) -> Duration {
        Duration::from_millis(self.keepalive_ms.into())
    }

    /// For the answer to one.
    pub fn keepalive_timeout(&self) -> Duration {
        Duration::from_millis(self.keepalive_timeout_ms.into())
    }

    pub(super) fn check(&self) -> Result<(), ConnectionsError> {
        let all = [("keepalive_ms", self.keepalive_ms), ("keepalive_timeout_ms", self.keepalive_timeout_ms)];
        match all.into_iter().find(|(_, value)| *value == 0) {
            Some((key, _)) => Err(ConnectionsError { key }),
            None => Ok(()),
        }
    }
}

impl Compression {
    /// What gRPC calls it.
    pub fn encoding(self) -> Option<CompressionEncoding> {
        match self {
            Self::None => None,
            Self::Gzip => Some(CompressionEncoding::Gzip),
            Self::Zstd => Some(CompressionEncoding::Zstd),
        }
    }
}
