//! One configured member, in a file or as a flag. Knows nothing about the other members.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::addresses::{Addresses, AddressesError};

/// One `[[members]]` table, or one `--member name[@weight]=http://host:port[,...]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MemberConfig {
    /// What the ensemble calls it: 1 to 64 of a-z, 0-9, _ and -.
    pub name: String,
    /// Its weight before renormalisation: finite, not negative.
    #[serde(default = "default_weight")]
    pub weight: f64,
    /// Where its replicas listen: `http://host:port`, several of these, or `dns://name:port`.
    pub address: Addresses,
}

/// Why a member can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MemberError {
    /// A name that would not be safe in flags, logs and metrics.
    #[error("the name is {0:?}; allowed: 1 to 64 characters of a-z, 0-9, _ and -")]
    Name(String),
    /// No replicas can be there.
    #[error(transparent)]
    Addresses(#[from] AddressesError),
}

/// Why a flag is no member.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MemberFlagError {
    /// Nothing separates name and address.
    #[error("{0:?} has no '='; allowed: name[@weight]=http://host:port[,http://...]")]
    NoAddress(String),
    /// What follows the @ is no weight.
    #[error("the weight is {0:?}; allowed: a finite number of at least 0")]
    Weight(String),
    /// A part is there but can't be used.
    #[error(transparent)]
    Member(#[from] MemberError),
}

fn default_weight() -> f64 {
    1.0
}

impl MemberConfig {
    /// Name and address; the weight is checked with those of all members.
    pub(super) fn check(&self) -> Result<(), MemberError> {
        let allowed = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-');
        if !(1..=64).contains(&self.name.len()) || !self.name.bytes().all(allowed) {
            return Err(MemberError::Name(self.name.clone()));
        }
        self.address.location()?;
        Ok(())
    }
}

impl FromStr for MemberConfig {
    type Err = MemberFlagError;

    fn from_str(flag: &str) -> Result<Self, MemberFlagError> {
        let (left, address) =
            flag.split_once('=').ok_or_else(|| MemberFlagError::NoAddress(flag.to_owned()))?;
        let (name, weight) = match left.split_once('@') {
            Some((name, weight)) => (name, parse_weight(weight)?),
            None => (left, default_weight()),
        };
        let address = Addresses::new(address.split(',').map(str::to_owned));
        let member = Self { name: name.to_owned(), weight, address };
        member.check()?;
        Ok(member)
    }
}

fn parse_weight(weight: &str) -> Result<f64, MemberFlagError> {
    let parsed = weight.parse().ok();
    let sound = parsed.filter(|value: &f64| value.is_finite() && *value >= 0.0);
    sound.ok_or_else(|| MemberFlagError::Weight(weight.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flag_has_a_name_an_optional_weight_and_an_address() {
        let member: MemberConfig = "alto-2@0.5=http://[::1]:50061".parse().unwrap();
        assert_eq!((member.name.as_str(), member.weight), ("alto-2", 0.5));
        assert_eq!(member.address, Addresses::new(["http://[::1]:50061".to_owned()]));
        let member: MemberConfig = "bass=http://one:1,http://two:1".parse().unwrap();
        let two = ["http://one:1", "http://two:1"].map(str::to_owned);
        assert_eq!((member.weight, member.address), (1.0, Addresses::new(two)));
    }

    #[test]
    fn a_wrong_flag_says_what_is_allowed() {
        let cases = [
            ("alto", "\"alto\" has no '='; allowed: name[@weight]=http://host:port[,http://...]"),
            ("=http://h:1", "the name is \"\"; allowed: 1 to 64 characters of a-z, 0-9, _ and -"),
            ("Alto=http://h:1", "the name is \"Alto\"; allowed: 1 to 64 characters of a-z, 0-9, _ and -"),
            ("alto@=http://h:1", "the weight is \"\"; allowed: a finite number of at least 0"),
            ("alto@-1=http://h:1", "the weight is \"-1\"; allowed: a finite number of at least 0"),
            ("alto@nan=http://h:1", "the weight is \"nan\"; allowed: a finite number of at least 0"),
            ("alto@inf=http://h:1", "the weight is \"inf\"; allowed: a finite number of at least 0"),
            ("alto@two=http://h:1", "the weight is \"two\"; allowed: a finite number of at least 0"),
        ];
        for (flag, message) in cases {
            assert_eq!(flag.parse::<MemberConfig>().unwrap_err().to_string(), message);
        }
    }
}
