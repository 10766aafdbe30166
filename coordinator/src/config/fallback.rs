//! Who answers when the quorum is gone, in a file or as a flag. Knows nothing about the members.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::addresses::Addresses;
use super::member::{MemberConfig, MemberFlagError};

/// The `[fallback]` table, or `--fallback name=http://host:port[,...]`: one model that answers by itself, marked as such.
///
/// ```
/// use chorus_coordinator::config::FallbackConfig;
///
/// let fallback: FallbackConfig = "student=http://127.0.0.1:50064".parse()?;
/// assert_eq!(fallback.name, "student");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FallbackConfig {
    /// What answers call it: as the name of a member, and nobody's.
    pub name: String,
    /// Where its replicas listen: as those of a member.
    pub address: Addresses,
}

/// Why a flag is no fallback.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FallbackFlagError {
    /// It answers alone.
    #[error("a fallback has no weight, since it answers alone; allowed: name=http://host:port[,http://...]")]
    Weight,
    /// As for a member.
    #[error(transparent)]
    Member(#[from] MemberFlagError),
}

impl FallbackConfig {
    /// What is connected to in the same way.
    pub(crate) fn as_member(&self) -> MemberConfig {
        MemberConfig { name: self.name.clone(), weight: 1.0, address: self.address.clone() }
    }
}

impl FromStr for FallbackConfig {
    type Err = FallbackFlagError;

    fn from_str(flag: &str) -> Result<Self, FallbackFlagError> {
        if flag.split('=').next().is_some_and(|name| name.contains('@')) {
            return Err(FallbackFlagError::Weight);
        }
        let MemberConfig { name, address, .. } = flag.parse()?;
        Ok(Self { name, address })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fallback_has_a_name_and_addresses_and_no_weight() {
        let fallback: FallbackConfig = "student=http://one:1,http://two:1".parse().unwrap();
        assert_eq!(fallback.as_member(), "student=http://one:1,http://two:1".parse().unwrap());
        let error = |flag: &str| flag.parse::<FallbackConfig>().unwrap_err().to_string();
        assert_eq!(
            error("student@2=http://one:1"),
            "a fallback has no weight, since it answers alone; allowed: name=http://host:port[,http://...]"
        );
        assert!(error("student").contains("has no '='"));
    }
}
