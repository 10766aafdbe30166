//! The configuration of a coordinator: a file, what the environment says over it, and flags over that, with all the files that these
//! name.
//!
//! Knows nothing about what is done with it.

use std::{
    env, fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::Context as _;
use chorus_coordinator::{
    Source,
    config::{Config, ConfigError, FallbackConfig, MemberConfig, Overrides, Variables},
    fusion::Rule,
};

use super::tls::{ServerTlsArgs, WorkerTlsArgs, from_here};
use crate::client::{read_pem, rule_parser};
use crate::failure::{UsageError, one_line, warn};
use crate::text_file::{self, Text};
use crate::values::{number, socket_address};

/// Where the configuration is, and what stands over it.
#[derive(Debug, clap::Args)]
pub(crate) struct ConfigurationArgs {
    /// Read the configuration from a TOML file
    #[arg(long, value_name = "FILE", env = "CHORUS_CONFIG")]
    config: Option<PathBuf>,
    /// A member and its workers, in member order; replaces all of the file's
    #[arg(long = "member", value_name = "NAME[@WEIGHT]=URL[,URL]")]
    members: Vec<MemberConfig>,
    /// Weights that `chorus tune` learned, in place of the members' own
    #[arg(long, value_name = "FILE")]
    weights: Option<PathBuf>,
    /// Who answers, marked as such, when the quorum is gone: one model, for example from `chorus distill`
    #[arg(long, value_name = "NAME=URL[,URL]")]
    fallback: Option<FallbackConfig>,
    /// Where clients are served; port 0 lets the system choose (default: 127.0.0.1:50051)
    #[arg(long, value_name = "IP:PORT", value_parser = socket_address)]
    listen: Option<SocketAddr>,
    /// Where metrics are served for Prometheus, as plain HTTP (default: nowhere)
    #[arg(long, value_name = "IP:PORT", value_parser = socket_address)]
    metrics: Option<SocketAddr>,
    /// Where `chorus members` changes the members while it serves (default: nowhere)
    #[arg(long, value_name = "IP:PORT", value_parser = socket_address)]
    admin: Option<SocketAddr>,
    /// Where a page for browsers is served: members, charts and a playground (default: nowhere)
    #[arg(long, value_name = "IP:PORT", value_parser = socket_address)]
    http: Option<SocketAddr>,
    /// A name by which browsers may reach the page over plain text, beside localhost and addresses; can be repeated
    #[arg(long = "http-host", value_name = "NAME")]
    http_hosts: Vec<String>,
    /// How the members' answers become one, where a request does not say (default: weighted_average)
    #[arg(long, value_parser = rule_parser())]
    rule: Option<Rule>,
    /// Threshold of threshold_vote, in [0, 1), where a request does not say (default: 0.1)
    #[arg(long, value_name = "T", value_parser = number, allow_negative_numbers = true)]
    threshold: Option<f64>,
    /// The least number of members with which it answers (default: 1)
    #[arg(long, value_name = "N")]
    quorum_members: Option<usize>,
    /// The least share of the total weight with which it answers, in [0, 1] (default: 0)
    #[arg(long, value_name = "SHARE", value_parser = number, allow_negative_numbers = true)]
    quorum_weight: Option<f64>,
    /// Requests in progress at a time; the others wait (default: 128)
    #[arg(long, value_name = "N")]
    max_sessions: Option<u32>,
    #[command(flatten)]
    tls: ServerTlsArgs,
    #[command(flatten)]
    worker_tls: WorkerTlsArgs,
    /// Let in whoever has one of the tokens in this TOML file, for what it is for
    #[arg(long, value_name = "FILE", help_heading = "Tokens")]
    auth_tokens: Option<PathBuf>,
}

impl ConfigurationArgs {
    /// The file, and what overrides it.
    pub(crate) fn split(self) -> io::Result<(Option<PathBuf>, Overrides)> {
        let flags = Overrides {
            variables: variables(),
            listen: self.listen,
            metrics: self.metrics,
            admin: self.admin,
            http: self.http,
            http_hosts: self.http_hosts,
            weights_file: self.weights,
            fallback: self.fallback,
            tls: self.tls.config()?,
            worker_tls: self.worker_tls.config()?,
            auth_tokens: self.auth_tokens.as_deref().map(from_here).transpose()?,
            members: self.members,
            rule: self.rule,
            threshold: self.threshold,
            quorum_members: self.quorum_members,
            quorum_weight: self.quorum_weight,
            max_sessions: self.max_sessions,
        };
        Ok((self.config, flags))
    }
}

/// Whether there is something to read again without a configuration file.
pub(crate) fn has_files(flags: &Overrides) -> bool {
    let Overrides { variables, weights_file, tls, worker_tls, auth_tokens, .. } = flags;
    let by_flag = weights_file.is_some() || tls.is_some() || worker_tls.is_some() || auth_tokens.is_some();
    by_flag || variables.name_files()
}

/// Reads the files again, with the flags of the start.
pub(crate) fn source(file: Option<PathBuf>, flags: Overrides) -> Source {
    Arc::new(move || config(file.as_deref(), flags.clone()).map_err(|error| one_line(&error)))
}

/// The largest file of learned weights: more than 64 members have sets.
const LARGEST_WEIGHTS: u64 = 16 * 1024 * 1024;

/// The configuration with all the files that belong to it.
pub(crate) fn config(file: Option<&Path>, flags: Overrides) -> anyhow::Result<Config> {
    let by_flag = flags.weights_file.is_some();
    let mut config = without_weights(file, flags)?;
    // What the file says is meant from where it lies; what flags say is absolute.
    let folder = file.and_then(Path::parent).unwrap_or(Path::new(""));
    let read = |path: &Path| read_pem(&folder.join(path)).map_err(|error| one_line(&error));
    config.read_secrets(read)?;
    if let Some(path) = config.weights_file.clone() {
        // What a file says is meant from where it lies.
        let folder = file.filter(|_| !by_flag).and_then(Path::parent).unwrap_or(Path::new(""));
        let path = folder.join(path);
        let Text { text, origin } = text_file::read(&path, LARGEST_WEIGHTS)?;
        config.learn(&text).context(origin)?;
    }
    Ok(config)
}

fn without_weights(file: Option<&Path>, flags: Overrides) -> anyhow::Result<Config> {
    let shown = file.map(|path| path.display().to_string());
    let toml = match (file, &shown) {
        (Some(path), Some(shown)) => {
            Some(fs::read_to_string(path).with_context(|| format!("can't read {shown}"))?)
        }
        _ => None,
    };
    let toml = toml.as_deref();
    let variables = flags.variables.clone();
    Config::new(toml, flags).map_err(|error| {
        let is_same = |others: Overrides| {
            Config::new(toml, others).is_err_and(|other| other.to_string() == error.to_string())
        };
        // What the file says of itself is wrong with and without what stands over it, and so with variables and flags. Where there
        // is no file, who has no members lacks flags.
        if let Some(shown) = shown.as_ref().filter(|_| is_same(Overrides::default())) {
            return anyhow::Error::from(error).context(shown.clone());
        }
        let of_variables = Overrides { variables: variables.clone(), ..Overrides::default() };
        if variables != Variables::default()
            && is_same(of_variables)
            && let Some(blamed) = blamed(&variables, &error)
        {
            return wrong(&anyhow::Error::from(error).context(blamed));
        }
        wrong(&error.into())
    })
}

/// The variables that say what is wrong.
fn blamed(variables: &Variables, error: &ConfigError) -> Option<String> {
    let key = error.key()?;
    let names: Vec<&str> = variables.of_key(&key).collect();
    (!names.is_empty()).then(|| names.join(", "))
}

fn wrong(error: &anyhow::Error) -> anyhow::Error {
    UsageError(one_line(error)).into()
}

/// What the environment says.
fn variables() -> Variables {
    let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
        Some((name.into_string().ok()?, value.into_string().ok()?))
    };
    let absolute = |path: &Path| from_here(path).unwrap_or_else(|_| path.to_owned());
    Variables::new(env::vars_os().filter_map(text), absolute)
}

/// So many wrong letters are a slip. What a cluster sets by itself differs by more.
const SLIP: usize = 2;

/// Warns of variables that are nearly those of a key, and so of no effect.
pub(crate) fn warn_of_misspelt() {
    let names = env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    for (name, meant) in misspelt(names) {
        warn(&format!("{name} in the environment is of no effect; did you mean {meant}?"));
    }
}

/// Names that are nearly those of a key, each with that.
fn misspelt(names: impl Iterator<Item = String>) -> Vec<(String, String)> {
    let known: Vec<String> = Variables::known().into_iter().map(|(name, _)| name).collect();
    let ours = names.filter(|name| name.starts_with("CHORUS_") && !known.contains(name));
    let nearest = |name: String| {
        let distances = known.iter().map(|known| (strsim::osa_distance(&name, known), known));
        let (_, meant) = distances.filter(|(distance, _)| *distance <= SLIP).min()?;
        Some((name, meant.clone()))
    };
    ours.filter_map(nearest).collect()
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(Debug, clap::Parser)]
    struct CommandLine {
        #[command(flatten)]
        arguments: ConfigurationArgs,
    }

    fn error(arguments: &[&str]) -> anyhow::Error {
        let line = ["coordinator"].iter().chain(arguments);
        let (file, flags) = CommandLine::try_parse_from(line).unwrap().arguments.split().unwrap();
        config(file.as_deref(), flags).unwrap_err()
    }

    #[test]
    fn a_wrong_flag_is_not_blamed_on_the_file_and_a_wrong_file_is() {
        let folder = tempfile::tempdir().unwrap();
        let (good, bad) = (folder.path().join("good.toml"), folder.path().join("bad.toml"));
        let members = "[[members]]\nname = 'a'\naddress = 'http://127.0.0.1:9'\n";
        fs::write(&good, members).unwrap();
        fs::write(&bad, format!("{members}[fusion]\nthreshold = 3.0\n")).unwrap();
        let (good, bad) = (good.to_str().unwrap(), bad.to_str().unwrap());

        let of_flag = error(&["--config", good, "--threshold", "2"]);
        assert!(
            of_flag.is::<UsageError>() && of_flag.to_string().contains("fusion.threshold: 2"),
            "{of_flag:#}"
        );
        assert!(!one_line(&of_flag).contains("good.toml"), "{of_flag:#}");
        for flags in [&["--config", bad][..], &["--config", bad, "--quorum-members", "1"]] {
            let of_file = error(flags);
            assert!(!of_file.is::<UsageError>(), "{of_file:#}");
            assert!(one_line(&of_file).contains("bad.toml: fusion.threshold: 3"), "{of_file:#}");
        }
        assert!(error(&[]).is::<UsageError>(), "an ensemble without members");
    }

    #[test]
    fn slips_are_found_and_what_a_cluster_sets_is_none() {
        let names = [
            "CHORUS_FUSION_RULLE",
            "CHORUS_LIMIT_MAX_SESSIONS",
            "CHORUS_FUSION_RULE",
            "CHORUS_SERVICE_HOST",
            "CHORUS_SERVICE_PORT_GRPC",
            "CHORUS_PORT",
            "CHORUS_PORT_50051_TCP_ADDR",
            "CHORUS_WORKER_LISTEN",
            "CHORUS_CLIENT_ADMIN",
            "CHORUS_CONFIG",
            "CHORUS_THREADS",
            "CHORUS_LOG_FORMAT",
            "PATH",
        ];
        let found = misspelt(names.iter().map(|name| (*name).to_owned()));
        let expected = [
            ("CHORUS_FUSION_RULLE", "CHORUS_FUSION_RULE"),
            ("CHORUS_LIMIT_MAX_SESSIONS", "CHORUS_LIMITS_MAX_SESSIONS"),
        ];
        assert_eq!(found, expected.map(|(name, meant)| (name.to_owned(), meant.to_owned())));
    }

    #[test]
    fn learned_weights_are_read_from_where_they_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let learned = "format = 1\nvocabulary = 'v'\nmembers = [{name = 'a', model = 'm'}]\n\
                       [rules.weighted_average]\nmethod = 'em'\ntokens = 7\nsets = [{members = ['a'], weights = [1.0]}]";
        let (weights, file) = (folder.path().join("weights.toml"), folder.path().join("ensemble.toml"));
        fs::write(&weights, learned).unwrap();
        fs::write(
            &file,
            "weights = 'weights.toml'\n[[members]]\nname = 'a'\naddress = 'http://127.0.0.1:9'\n",
        )
        .unwrap();
        let of_file = config(Some(&file), Overrides::default()).unwrap();
        assert!(of_file.learned.is_some(), "a file names it from where it lies");
        let flags = |members: &str| Overrides {
            weights_file: Some(weights.clone()),
            members: vec![members.parse().unwrap()],
            ..Overrides::default()
        };
        assert!(config(None, flags("a=http://127.0.0.1:9")).unwrap().learned.is_some());
        let other = config(None, flags("b=http://127.0.0.1:9")).unwrap_err();
        let other = one_line(&other);
        assert!(
            other.contains(
                "weights.toml: weights: the learned weights are of another ensemble: they know nothing of"
            ),
            "{other}"
        );
        fs::remove_file(&weights).unwrap();
        let missing = one_line(&config(Some(&file), Overrides::default()).unwrap_err());
        assert!(missing.contains("can't read") && missing.contains("weights.toml"), "{missing}");
    }
}
