//! How the loss of a replica is kept from showing. Knows nothing about who does it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Snapshots, patience with silent replicas, and hedging.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Resilience {
    /// A worker hands out a snapshot of a session after this many tokens at the latest, so that another replica has to read
    /// no more than these; 0: none, and it reads everything.
    pub snapshot_tokens: u32,
    /// Milliseconds. A replica from which nothing has come for so long while something is waited for is taken for dead, if
    /// another one is up.
    pub silence_ms: u32,
    /// Milliseconds. A step goes on without a member (where the quorum holds and the request allows it) when nothing has come
    /// from any of its replicas for so long while something is waited for; it comes back when it is heard of.
    pub degrade_after_ms: u32,
    /// The share of feeds that may be sent to a second replica because the first one takes longer than 95 in 100 feeds
    /// did; 0: none.
    pub hedge_share: f64,
    /// Whether a vote, or a greedy choice under the weighted average, is answered without members that take more than twice
    /// as long as the others where these can't change it any more.
    pub early_decision: bool,
    /// Milliseconds between two lookups of a member's name.
    pub dns_refresh_ms: u32,
}

/// A value that can't be.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("resilience.{key}: {value} is not allowed; allowed: {allowed}")]
pub struct ResilienceError {
    /// Which key.
    pub key: &'static str,
    /// What was given.
    pub value: f64,
    /// What may be given.
    pub allowed: &'static str,
}

impl Default for Resilience {
    fn default() -> Self {
        Self {
            snapshot_tokens: 16,
            silence_ms: 200,
            degrade_after_ms: 1000,
            hedge_share: 0.05,
            early_decision: true,
            dns_refresh_ms: 5000,
        }
    }
}

impl Resilience {
    /// How long a replica may be silent.
    pub fn silence(&self) -> Duration {
        Duration::from_millis(self.silence_ms.into())
    }

    /// How long a member may be silent.
    pub fn degrade_after(&self) -> Duration {
        Duration::from_millis(self.degrade_after_ms.into())
    }

    /// How long between two lookups of a name.
    pub fn dns_refresh(&self) -> Duration {
        Duration::from_millis(self.dns_refresh_ms.into())
    }

    pub(super) fn check(&self) -> Result<(), ResilienceError> {
        let times = [
            ("silence_ms", self.silence_ms),
            ("degrade_after_ms", self.degrade_after_ms),
            ("dns_refresh_ms", self.dns_refresh_ms),
        ];
        for (key, value) in times {
            if value == 0 {
                return Err(ResilienceError { key, value: 0.0, allowed: "at least 1" });
            }
        }
        if !(0.0..=1.0).contains(&self.hedge_share) {
            let value = self.hedge_share;
            return Err(ResilienceError {
                key: "hedge_share",
                value,
                allowed: "0 to 1, a share of the feeds",
            });
        }
        Ok(())
    }
}
