//! [`Telemetry`]: where what is seen of the process goes, beside its logs and metrics. Knows nothing about how it gets there.

use http::Uri;
use serde::{Deserialize, Serialize};

/// Where traces go.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Telemetry {
    /// The collector, which speaks OTLP over gRPC, for whoever sends traces there; nowhere where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub otlp: Option<String>,
}

/// An address that no collector can have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "telemetry.otlp: {0:?} is not allowed; allowed: http://host:port or https://host:port of a collector that speaks OTLP over gRPC"
)]
pub struct TelemetryError(pub String);

impl Telemetry {
    /// Whether traces can be sent there.
    ///
    /// # Errors
    /// An address that is none.
    pub fn check(&self) -> Result<(), TelemetryError> {
        match &self.otlp {
            Some(url) if !is_address(url) => Err(TelemetryError(url.clone())),
            _ => Ok(()),
        }
    }
}

fn is_address(url: &str) -> bool {
    url.parse::<Uri>().is_ok_and(|uri| {
        let is_all = uri.path() == "/" && uri.query().is_none();
        matches!(uri.scheme_str(), Some("http" | "https")) && uri.port_u16().is_some() && is_all
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_collector_has_an_address() {
        let check = |otlp: &str| Telemetry { otlp: Some(otlp.to_owned()) }.check();
        assert_eq!(Telemetry::default().check(), Ok(()));
        for address in ["http://127.0.0.1:4317", "http://collector:4317/", "http://[::1]:1", "https://c:4317"]
        {
            assert_eq!(check(address), Ok(()), "{address}");
        }
        for other in ["", "collector", "collector:4317", "ftp://c:4317", "http://c", "http://c:1/v1/traces"] {
            assert_eq!(check(other), Err(TelemetryError(other.to_owned())));
        }
    }
}
