//! [`Variables`]: what the environment says of a configuration, as `CHORUS_LIMITS_MAX_SESSIONS=64` does of `limits.max_sessions`.
//!
//! Pure: knows nothing about the environment of this process, files, or flags.

use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::options::{ConfigOption, options};
use super::{Config, ConfigError, MemberConfig};

/// What all of them begin with.
const PREFIX: &str = "CHORUS_";
/// Of a value that is quoted.
const LONGEST_QUOTE: usize = 100;
/// Those whose values are paths.
const PATHS: [&str; 8] = [
    "weights",
    "tls.certificate",
    "tls.key",
    "tls.client_ca",
    "worker_tls.ca",
    "worker_tls.certificate",
    "worker_tls.key",
    "auth.tokens",
];

/// Variables that name keys, in the order of their keys. Whatever else begins with `CHORUS_` is none of them: a cluster sets
/// some by itself (`CHORUS_SERVICE_HOST`), and other commands have their own.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Variables(Vec<Variable>);

#[derive(Clone, Debug, PartialEq)]
struct Variable {
    name: String,
    option: ConfigOption,
    value: String,
}

/// A variable that can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name}: {problem}")]
pub struct VariableError {
    /// The variable.
    pub name: String,
    /// What was wrong, and what is allowed.
    pub problem: String,
}

impl Variables {
    /// Those that name keys; empty ones are as good as none. `absolute` makes a path one that is meant from anywhere.
    ///
    /// ```
    /// use chorus_coordinator::config::{Config, Overrides, Variables};
    ///
    /// let environment = [("CHORUS_MEMBERS", "alto@2=http://h:1 bass=http://h:2"), ("CHORUS_FUSION_RULE", "log_linear")];
    /// let variables = Variables::new(environment.map(|(name, value)| (name.into(), value.into())), |path| path.into());
    /// let config = Config::new(None, Overrides { variables, ..Overrides::default() })?;
    /// assert_eq!(config.member_names(), ["alto", "bass"]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn new(
        environment: impl IntoIterator<Item = (String, String)>,
        absolute: impl Fn(&Path) -> PathBuf,
    ) -> Self {
        let options = options();
        let given = environment.into_iter().filter_map(|(name, value)| {
            let place = options.iter().position(|option| option.variable() == name)?;
            let option = options.get(place)?.clone();
            let value = match PATHS.contains(&option.key().as_str()) {
                true => absolute(Path::new(&value)).display().to_string(),
                false => value,
            };
            Some((place, Variable { name, option, value }))
        });
        let mut given: Vec<_> = given.filter(|(_, variable)| !variable.value.is_empty()).collect();
        given.sort_by_key(|(place, _)| *place);
        Self(given.into_iter().map(|(_, variable)| variable).collect())
    }

    /// The names of all that there could be, each with its key.
    pub fn known() -> Vec<(String, String)> {
        options().iter().map(|option| (option.variable(), option.key())).collect()
    }

    /// Their names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|variable| variable.name.as_str())
    }

    /// Whether some of them name files.
    pub fn name_files(&self) -> bool {
        self.0.iter().any(|variable| PATHS.contains(&variable.option.key().as_str()))
    }

    /// The names of those that say something of a key, or of what is below it.
    pub fn of_key<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |variable| variable.is_of(key)).map(|variable| variable.name.as_str())
    }

    /// Those of other keys than these and what is below them.
    pub(super) fn without(&self, keys: &[&'static str]) -> Self {
        let is_other = |variable: &&Variable| !keys.iter().any(|key| variable.is_of(key));
        Self(self.0.iter().filter(is_other).cloned().collect())
    }

    /// A file with what the variables say in place of what it says.
    pub(super) fn over(&self, toml: &str) -> Result<Config, ConfigError> {
        let mut table: Table = toml::from_str(toml)?;
        for variable in &self.0 {
            variable.put_into(&mut table)?;
        }
        let config = serde_path_to_error::deserialize(Value::Table(table));
        config.map_err(|error| {
            let (path, problem) = (error.path().to_string(), error.inner().message().to_owned());
            // Every one of them was found to be of its key's kind, and the file by itself was read.
            let culprit = self.0.iter().find(|variable| path.starts_with(&variable.option.key()));
            // What lacks another key of its table has no path of its own.
            let culprit =
                culprit.or_else(|| self.0.iter().find(|variable| variable.option.key().starts_with(&path)));
            let name = culprit.map_or_else(|| format!("{PREFIX}*"), |variable| variable.name.clone());
            ConfigError::Variable(VariableError { name, problem: one_line(&problem) })
        })
    }
}

impl ConfigOption {
    /// As errors and files have it: `limits.max_sessions`.
    fn key(&self) -> String {
        self.path.join(".")
    }

    /// `CHORUS_LIMITS_MAX_SESSIONS`.
    pub(super) fn variable(&self) -> String {
        format!("{PREFIX}{}", self.path.join("_").to_uppercase())
    }
}

impl Variable {
    /// Whether it says something of a key, or of what is below it.
    fn is_of(&self, key: &str) -> bool {
        let own = self.option.key();
        own.strip_prefix(key).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    }

    fn put_into(&self, table: &mut Table) -> Result<(), VariableError> {
        let value = self.value()?;
        let Some((last, tables)) = self.option.path.split_last() else {
            return Ok(());
        };
        let mut table = table;
        for name in tables {
            let inner = table.entry(name.clone()).or_insert_with(|| Value::Table(Table::new()));
            let Value::Table(inner) = inner else {
                return Err(self.error(format!("{name} is no table in the file")));
            };
            table = inner;
        }
        table.insert(last.clone(), value);
        Ok(())
    }

    /// A value of the kind that its key has.
    fn value(&self) -> Result<Value, VariableError> {
        let not = |what: &str| {
            let given = chorus_proto::shortened(&self.value, LONGEST_QUOTE);
            self.error(format!("{given:?} is not allowed; allowed: {what}"))
        };
        match &self.option.sample {
            Value::Integer(_) => {
                let digits = self.value.replace('_', "");
                digits.parse().map(Value::Integer).map_err(|_| not("a whole number"))
            }
            Value::Float(_) => self.value.parse().map(Value::Float).map_err(|_| not("a number")),
            Value::Boolean(_) => self.value.parse().map(Value::Boolean).map_err(|_| not("true or false")),
            Value::Array(some) if some.iter().all(Value::is_str) => {
                Ok(Value::Array(self.value.split_whitespace().map(Value::from).collect()))
            }
            Value::Array(_) => self.members(),
            _ if self.value.contains(',') && self.option.path.last().is_some_and(|key| key == "address") => {
                Ok(Value::Array(self.value.split(',').map(|part| Value::String(part.to_owned())).collect()))
            }
            _ => Ok(Value::String(self.value.clone())),
        }
    }

    /// As `--member` has them, with spaces between them.
    fn members(&self) -> Result<Value, VariableError> {
        let members = self.value.split_whitespace().map(|member| {
            let member: MemberConfig = member
                .parse()
                .map_err(|error| self.error(format!("{error}; several members have spaces between them")))?;
            Value::try_from(member).map_err(|error| self.error(error.to_string()))
        });
        members.collect::<Result<_, _>>().map(Value::Array)
    }

    fn error(&self, problem: String) -> VariableError {
        VariableError { name: self.name.clone(), problem }
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::config::Overrides;
    use crate::fusion::Rule;

    const FILE: &str = "[fusion]\nrule = 'logit_max'\n[[members]]\nname = 'a'\naddress = 'http://h:1'\n";

    fn variables(given: &[(&str, &str)]) -> Variables {
        let given = given.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Variables::new(given, |path| Path::new("/from/here").join(path))
    }

    fn config(toml: &str, given: &[(&str, &str)]) -> Result<Config, ConfigError> {
        Config::new(Some(toml), Overrides { variables: variables(given), ..Overrides::default() })
    }

    fn error(given: &[(&str, &str)]) -> String {
        config(FILE, given).unwrap_err().to_string()
    }

    #[test]
    fn every_key_has_a_variable_of_its_own() {
        let known = Variables::known();
        let names: BTreeSet<&str> = known.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names.len(), known.len());
        for name in
            ["CHORUS_LISTEN", "CHORUS_LIMITS_MAX_SESSIONS", "CHORUS_WORKER_TLS_SERVER_NAME", "CHORUS_MEMBERS"]
        {
            assert!(names.contains(name), "{name}");
        }
        assert!(PATHS.iter().all(|path| known.iter().any(|(_, key)| key == path)));
    }

    #[test]
    fn values_of_every_kind_stand_over_the_file_and_flags_over_them() {
        let given = [
            ("CHORUS_LISTEN", "0.0.0.0:7"),
            ("CHORUS_FUSION_RULE", "log_linear"),
            ("CHORUS_FUSION_THRESHOLD", "0.25"),
            ("CHORUS_LIMITS_MAX_SESSIONS", "1_000"),
            ("CHORUS_RESILIENCE_EARLY_DECISION", "false"),
            ("CHORUS_MEMBERS", "b@2=http://h:2,http://h:3\n c=dns://d:4"),
            ("CHORUS_FALLBACK_ADDRESS", "http://h:5,http://h:6"),
            ("CHORUS_FALLBACK_NAME", "s"),
            ("CHORUS_TELEMETRY_OTLP", "http://h:8"),
            ("CHORUS_AUTH_TOKENS", "tokens.toml"),
        ];
        let config = config(FILE, &given).unwrap();
        assert_eq!(config.listen.to_string(), "0.0.0.0:7");
        assert_eq!((config.fusion.rule, config.fusion.threshold), (Rule::LogLinear, 0.25));
        assert_eq!((config.limits.max_sessions, config.resilience.early_decision), (1000, false));
        assert_eq!(
            (config.member_names(), config.members[0].weight),
            (vec!["b".to_owned(), "c".to_owned()], 2.0)
        );
        assert_eq!(config.fallback.unwrap().address.as_slice().len(), 2);
        assert_eq!(config.auth.unwrap().tokens, Path::new("/from/here/tokens.toml"));
        let flags = Overrides {
            variables: variables(&given),
            max_sessions: Some(3),
            rule: Some(Rule::LogitMean),
            ..Overrides::default()
        };
        let config = Config::new(Some(FILE), flags).unwrap();
        assert_eq!((config.limits.max_sessions, config.fusion.rule), (3, Rule::LogitMean));
        assert_eq!(config.fusion.threshold, 0.25);
    }

    #[test]
    fn what_is_no_key_is_of_no_interest_and_what_is_empty_is_not_there() {
        let given = [
            ("CHORUS_SERVICE_HOST", "10.0.0.1"),
            ("CHORUS_PORT", "tcp://10.0.0.1:50051"),
            ("CHORUS_FUSION_RULLE", "x"),
            ("CHORUS_LISTEN", ""),
            ("LISTEN", "x"),
        ];
        assert_eq!(variables(&given), Variables::default());
        let given = [("CHORUS_TLS_KEY", "key.pem"), ("CHORUS_LISTEN", "x")];
        assert_eq!(variables(&given).names().collect::<Vec<_>>(), ["CHORUS_LISTEN", "CHORUS_TLS_KEY"]);
        assert!(variables(&given).name_files() && !variables(&given[1..]).name_files());
    }

    #[test]
    fn errors_name_the_variable() {
        let many = error(&[("CHORUS_LIMITS_MAX_SESSIONS", "many")]);
        assert_eq!(many, "CHORUS_LIMITS_MAX_SESSIONS: \"many\" is not allowed; allowed: a whole number");
        let negative = error(&[("CHORUS_LISTEN", "127.0.0.1:1"), ("CHORUS_LIMITS_MAX_SESSIONS", "-1")]);
        assert!(negative.starts_with("CHORUS_LIMITS_MAX_SESSIONS: "), "{negative}");
        let rule = error(&[("CHORUS_FUSION_RULE", "vote")]);
        assert!(rule.starts_with("CHORUS_FUSION_RULE: ") && rule.contains("threshold_vote"), "{rule}");
        let alone = error(&[("CHORUS_FALLBACK_NAME", "s")]);
        assert!(alone.starts_with("CHORUS_FALLBACK_NAME: ") && alone.contains("address"), "{alone}");
        let member = error(&[("CHORUS_MEMBERS", "alto")]);
        assert!(member.starts_with("CHORUS_MEMBERS: ") && member.contains("name[@weight]="), "{member}");
        let listen = error(&[("CHORUS_LISTEN", "nowhere")]);
        assert!(listen.starts_with("CHORUS_LISTEN: ") && !listen.contains('\n'), "{listen}");
    }

    #[test]
    fn what_a_flag_replaces_as_a_whole_no_variable_has_a_say_in() {
        let given = [("CHORUS_FALLBACK_NAME", "half"), ("CHORUS_MEMBERS", "no member")];
        let flags = Overrides {
            variables: variables(&given),
            fallback: Some("s=http://h:5".parse().unwrap()),
            members: vec!["b=http://h:2".parse().unwrap()],
            ..Overrides::default()
        };
        let config = Config::new(Some(FILE), flags).unwrap();
        assert_eq!((config.member_names().len(), config.fallback.unwrap().name.as_str()), (1, "s"));
    }

    #[test]
    fn whose_value_is_out_of_range_can_be_said() {
        let given = [
            ("CHORUS_FUSION_THRESHOLD", "2"),
            ("CHORUS_RESILIENCE_SILENCE_MS", "0"),
            ("CHORUS_FUSION_RULE", "logit_mean"),
        ];
        let variables = variables(&given);
        let key = config(FILE, &given).unwrap_err().key().unwrap();
        assert_eq!(variables.of_key(&key).collect::<Vec<_>>(), ["CHORUS_FUSION_THRESHOLD"]);
        assert_eq!(variables.of_key("resilience").collect::<Vec<_>>(), ["CHORUS_RESILIENCE_SILENCE_MS"]);
        assert_eq!(variables.of_key("fusion.rules").count() + variables.of_key("fus").count(), 0);
    }
}
