//! Which key of a configuration an error is about. Knows nothing about how it is told.

use super::ConfigError;

impl ConfigError {
    /// The path of the key at fault, as the file and requests have it; absent where it is none in particular.
    pub fn key(&self) -> Option<String> {
        let key = match self {
            Self::Toml(_) | Self::Variable(_) => return None,
            Self::NoMembers | Self::Member { .. } | Self::DuplicateMember { .. } | Self::Weights(_) => {
                "members"
            }
            Self::Fallback(_) | Self::FallbackIsMember(_) => "fallback",
            Self::LearnedWeights(_) | Self::OtherEnsemble(_) => "weights",
            Self::Threshold(_) => "fusion.threshold",
            Self::QuorumMembers { .. } => "quorum.members",
            Self::QuorumWeight(_) => "quorum.weight",
            Self::Limits(error) => return Some(format!("limits.{}", error.key)),
            Self::Connections(error) => return Some(format!("connections.{}", error.key)),
            Self::Security(_) => "worker_tls",
            Self::Resilience(_) => "resilience",
            Self::PrefixCache(_) => "prefix_cache.min_tokens",
            Self::Telemetry(_) => "telemetry.otlp",
            Self::Host(_) => "http_hosts",
        };
        Some(key.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use crate::config::{Config, Overrides};

    #[test]
    fn an_error_is_about_a_key() {
        let member = "[[members]]\nname = 'alto'\naddress = 'http://h:1'";
        for (toml, key) in [
            ("", Some("members")),
            (&format!("{member}\n{member}"), Some("members")),
            (&format!("{member}\n[quorum]\nmembers = 2"), Some("quorum.members")),
            (&format!("{member}\n[limits]\nmax_top_n = 0"), Some("limits.max_top_n")),
            ("colour = 1", None),
        ] {
            let error = Config::new(Some(toml), Overrides::default()).unwrap_err();
            assert_eq!(error.key().as_deref(), key, "{error}");
        }
    }
}
