//! What differs between two configurations, and what of that a running process can't change. Knows nothing about how a change
//! comes about.

use toml::{Table, Value};

use super::{Config, FallbackConfig, Location, MemberConfig};

/// Tables of the file that may change while the coordinator runs; all others are fixed for the process.
const CHANGEABLE: [&str; 5] = ["members", "fusion", "quorum", "weights", "fallback"];

/// A key that a running process can't change.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {wanted} is not allowed while the coordinator runs; allowed: {in_force}, or a restart")]
pub struct Frozen {
    /// The first such key.
    pub key: String,
    /// Its value, as it is.
    pub in_force: String,
    /// Its value, as it was asked for.
    pub wanted: String,
}

/// What becomes of a member when the configuration changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It has the same replicas as before, whatever its weight or its place.
    Stays,
    /// It has these replicas from now on; those that it had before stay connected.
    Moves(Vec<String>),
    /// It was no member before, or one that is found in another way.
    Enrolls,
}

impl Config {
    /// Whether a process with this configuration can go over to the next one.
    ///
    /// # Errors
    /// The first key that would have to change and can't.
    pub fn may_become(&self, next: &Self) -> Result<(), Frozen> {
        let tables = (self.fixed(), next.fixed());
        match first_difference("", &tables.0, &tables.1) {
            Some(frozen) => Err(frozen),
            None => Ok(()),
        }
    }

    /// What changes with the next configuration, a sentence each; empty where nothing does.
    pub fn changes(&self, next: &Self) -> Vec<String> {
        let mut changes = Vec::new();
        for member in &self.members {
            if next.member(&member.name).is_none() {
                changes.push(format!("{} is removed", member.name));
            }
        }
        for member in &next.members {
            changes.extend(self.changes_of(member));
        }
        let staying = |config: &Self, other: &Self| -> Vec<String> {
            config.member_names().into_iter().filter(|name| other.member(name).is_some()).collect()
        };
        if staying(self, next) != staying(next, self) {
            changes.push(format!("the order is {}", next.member_names().join(", ")));
        }
        changes.extend(self.change_of_learned(next));
        changes.extend(self.changes_of_secrets(next));
        for key in ["fusion", "quorum", "fallback"] {
            let of = |config: &Self| table(config).remove(key).unwrap_or_else(|| Value::Table(Table::new()));
            if let (Value::Table(ours), Value::Table(theirs)) = (of(self), of(next)) {
                let prefix = format!("{key}.");
                let differing = differences(&prefix, &ours, &theirs);
                changes.extend(differing.map(|Frozen { key, in_force, wanted }| {
                    format!("{key} is {wanted} instead of {in_force}")
                }));
            }
        }
        changes
    }

    /// What becomes of a member of the next configuration. Both were checked.
    pub(crate) fn fate(&self, next: &MemberConfig) -> Fate {
        let fallback = self.fallback.as_ref().map(FallbackConfig::as_member);
        let fallback = fallback.as_ref().filter(|fallback| fallback.name == next.name);
        let Some(member) = self.member(&next.name).or(fallback) else {
            return Fate::Enrolls;
        };
        match (member.address.location(), next.address.location()) {
            (Ok(before), Ok(after)) if before == after => Fate::Stays,
            (Ok(Location::Fixed(_)), Ok(Location::Fixed(addresses))) => Fate::Moves(addresses),
            _ => Fate::Enrolls,
        }
    }

    fn member(&self, name: &str) -> Option<&MemberConfig> {
        self.members.iter().find(|member| member.name == name)
    }

    fn changes_of(&self, next: &MemberConfig) -> Vec<String> {
        let name = &next.name;
        let Some(member) = self.member(name) else {
            return vec![format!("{name} is added with weight {}", next.weight)];
        };
        let mut changes = Vec::new();
        if member.weight != next.weight {
            changes.push(format!("{name} has weight {} instead of {}", next.weight, member.weight));
        }
        if member.address != next.address {
            changes.push(format!("{name} is at {} instead of {}", next.address, member.address));
        }
        changes
    }

    /// Whatever can't be changed, as the file has it.
    fn fixed(&self) -> Table {
        let mut table = table(self);
        table.retain(|key, _| !CHANGEABLE.contains(&key));
        table
    }
}

/// As the file has it.
pub(super) fn table(config: &Config) -> Table {
    // A configuration can always be written; the tests read every key.
    Table::try_from(config).unwrap_or_default()
}

fn first_difference(prefix: &str, ours: &Table, theirs: &Table) -> Option<Frozen> {
    differences(prefix, ours, theirs).next()
}

/// Every key below `prefix` whose values differ, those of ours first.
fn differences<'a>(
    prefix: &'a str,
    ours: &'a Table,
    theirs: &'a Table,
) -> Box<dyn Iterator<Item = Frozen> + 'a> {
    let new = theirs.keys().filter(|key| !ours.contains_key(*key));
    Box::new(
        ours.keys().chain(new).flat_map(move |key| difference(prefix, key, ours.get(key), theirs.get(key))),
    )
}

fn difference(prefix: &str, key: &str, ours: Option<&Value>, theirs: Option<&Value>) -> Vec<Frozen> {
    match (ours, theirs) {
        (Some(Value::Table(ours)), Some(Value::Table(theirs))) => {
            differences(&format!("{prefix}{key}."), ours, theirs).collect()
        }
        _ if ours == theirs => Vec::new(),
        _ => {
            vec![Frozen { key: format!("{prefix}{key}"), in_force: shown(ours), wanted: shown(theirs) }]
        }
    }
}

fn shown(value: Option<&Value>) -> String {
    value.map_or_else(|| "none".to_owned(), ToString::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Overrides;

    const FILE: &str = "[[members]]\nname = 'alto'\naddress = 'http://h:1'\n[[members]]\nname = 'bass'\naddress = 'dns://b:2'\n[[members]]\nname = 'cello'\naddress = ['http://h:3', 'http://h:4']\n";

    fn config(toml: &str) -> Config {
        Config::new(Some(toml), Overrides::default()).unwrap()
    }

    fn with(keys: &str) -> Config {
        config(&format!("{keys}\n{FILE}"))
    }

    #[test]
    fn what_the_process_was_started_with_can_t_change() {
        let ours = with("");
        for (keys, sentence) in [
            (
                "listen = '127.0.0.1:1'",
                "listen: \"127.0.0.1:1\" is not allowed while the coordinator runs; allowed: \"127.0.0.1:50051\", or a restart",
            ),
            (
                "metrics = '127.0.0.1:1'",
                "metrics: \"127.0.0.1:1\" is not allowed while the coordinator runs; allowed: none, or a restart",
            ),
            ("admin = '127.0.0.1:1'", "admin: \"127.0.0.1:1\" is not"),
            ("http = '127.0.0.1:1'", "http: \"127.0.0.1:1\" is not"),
            (
                "[limits]\nmax_sessions = 7",
                "limits.max_sessions: 7 is not allowed while the coordinator runs; allowed: 128, or a restart",
            ),
            ("[tls]\ncertificate = 'a'\nkey = 'b'", "tls: { certificate = \"a\", key = \"b\" } is not"),
            ("[worker_tls]\nca = 'a'", "worker_tls: { ca = \"a\" } is not"),
            ("[connections]\ncompression = 'zstd'", "connections.compression: \"zstd\" is not"),
            ("[auth]\ntokens = 'a'", "auth: { open_reflection = false, tokens = \"a\" } is not"),
            ("[resilience]\nhedge_share = 0.5", "resilience.hedge_share: 0.5 is not"),
        ] {
            let refusal = ours.may_become(&with(keys)).unwrap_err().to_string();
            assert!(refusal.starts_with(sentence), "{refusal}");
            assert!(with(keys).may_become(&ours).is_err(), "nor can it be taken away: {keys}");
        }
    }

    #[test]
    fn members_rule_and_quorum_may() {
        let ours = with("[fusion]\nthreshold = 0.5");
        assert_eq!(ours.changes(&ours), [""; 0]);
        let next = config(
            "[fusion]\nrule = 'log_linear'\nthreshold = 0.5\n[quorum]\nmembers = 2\n[[members]]\nname = 'cello'\naddress = 'http://h:4'\n\
             [[members]]\nname = 'alto'\nweight = 2.5\naddress = 'http://h:1'\n[[members]]\nname = 'drum'\naddress = 'http://h:5'",
        );
        assert_eq!(ours.may_become(&next), Ok(()));
        assert_eq!(
            ours.changes(&next),
            [
                "bass is removed",
                "cello is at http://h:4 instead of http://h:3, http://h:4",
                "alto has weight 2.5 instead of 1",
                "drum is added with weight 1",
                "the order is cello, alto, drum",
                "fusion.rule is \"log_linear\" instead of \"weighted_average\"",
                "quorum.members is 2 instead of 1",
            ]
        );
    }

    #[test]
    fn a_member_that_is_found_as_before_keeps_what_it_has() {
        let ours = with("");
        let fate = |flag: &str| ours.fate(&flag.parse().unwrap());
        assert_eq!(fate("alto@9=http://h:1"), Fate::Stays);
        assert_eq!(fate("bass=dns://b:2"), Fate::Stays);
        let two = ["http://h:1", "http://h:2"].map(str::to_owned);
        assert_eq!(fate("alto=http://h:1,http://h:2"), Fate::Moves(two.to_vec()));
        for enrolled in ["alto=dns://h:1", "bass=http://b:2", "bass=dns://b:3", "drum=http://h:1"] {
            assert_eq!(fate(enrolled), Fate::Enrolls, "{enrolled}");
        }
    }
}
