//! `chorus coordinator`: an ensemble of members behind the public service.

use std::{
    fs, io,
    net::SocketAddr,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::Context as _;
use chorus_coordinator::{
    Coordinator, Source,
    config::{Config, FallbackConfig, MemberConfig, Overrides},
    fusion::Rule,
};
use tokio_util::task::AbortOnDropHandle;
use tonic::transport::server::TcpIncoming;

use super::tls::{ServerTlsArgs, WorkerTlsArgs, from_here, warn_of_plain_text};
use super::{
    ADMIN_LISTENING, announce, announce_as, listen, page, process::ProcessArgs, reload::Hangups,
    until_drained,
};
use crate::client::{read_pem, rule_parser};
use crate::compute::threads;
use crate::failure::{UsageError, one_line};
use crate::text_file::{self, Text};
use crate::values::{number, socket_address};

const EXAMPLES: &str = "\
Examples:
  chorus coordinator --member alto=http://127.0.0.1:50061 \\
                     --member bass@2=http://127.0.0.1:50062 --rule log_linear
  chorus coordinator --config ensemble.toml --listen 0.0.0.0:50051

A configuration file; flags override it, unknown keys are refused:
  listen = \"127.0.0.1:50051\"
  metrics = \"127.0.0.1:9464\"
  admin = \"127.0.0.1:50052\"
  http = \"127.0.0.1:8080\"
  weights = \"weights.toml\"
  [tls]
  certificate = \"server.pem\"
  key = \"server.key\"
  [fallback]
  name = \"student\"
  address = \"http://127.0.0.1:50064\"
  [fusion]
  rule = \"weighted_average\"
  threshold = 0.1
  [quorum]
  members = 1
  weight = 0.0
  [limits]
  max_generated_tokens = 4096
  [telemetry]
  otlp = \"http://127.0.0.1:4317\"
  [[members]]
  name = \"alto\"
  weight = 2.0
  address = \"http://127.0.0.1:50061\"

Prints one line on stdout once it listens (`listening on 127.0.0.1:50051`), and
before it, with --metrics, `metrics listening on 127.0.0.1:9464`, with --admin
`admin listening on 127.0.0.1:50052`, and with --http `page listening on
127.0.0.1:8080`. With --admin `chorus members` changes members and weights while
it serves. SIGHUP reads the file again: what can't be used is refused whole,
with a line in the log. SIGINT and SIGTERM let it finish what is in progress and
end; a second one ends it at once.";

/// Serve an ensemble: fan out, fuse, answer
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct CoordinatorArgs {
    /// Read the configuration from a TOML file
    #[arg(long, value_name = "FILE")]
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
    /// Serve the page on 127.0.0.1:8080, or another port where that is taken, where nothing says where
    #[arg(long, hide = true)]
    http_anywhere: bool,
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
    /// Threads that serve; one is the fastest until it is busy all the time (default: 1)
    #[arg(long, value_name = "N", value_parser = threads)]
    threads: Option<NonZeroUsize>,
    #[command(flatten)]
    tls: ServerTlsArgs,
    #[command(flatten)]
    worker_tls: WorkerTlsArgs,
    /// Let in whoever has one of the tokens in this TOML file, for what it is for
    #[arg(long, value_name = "FILE", help_heading = "Tokens")]
    auth_tokens: Option<PathBuf>,
    #[command(flatten)]
    process: ProcessArgs,
}

impl CoordinatorArgs {
    /// How many threads serve.
    pub(crate) fn threads(&self) -> NonZeroUsize {
        self.threads.unwrap_or(NonZeroUsize::MIN)
    }

    /// The file, and what overrides it.
    fn split(self) -> io::Result<(Option<PathBuf>, Overrides)> {
        let flags = Overrides {
            listen: self.listen,
            metrics: self.metrics,
            admin: self.admin,
            http: self.http,
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

/// Runs the command until it is told to stop.
///
/// # Errors
/// The configuration or the address can't be used, or serving failed.
pub(crate) async fn run(arguments: CoordinatorArgs) -> anyhow::Result<()> {
    let (process, http_anywhere) = (arguments.process.clone(), arguments.http_anywhere);
    let (file, flags) = arguments.split().context("can't tell the current directory")?;
    let config = config(file.as_deref(), flags.clone())?;
    let mut process = process.start("chorus-coordinator", config.telemetry.otlp.as_deref())?;
    let shutdown = process.shutdown.clone();
    // Before anything is counted.
    process.serve_metrics(config.metrics).await?;
    warn_of_plain_text(&config);
    let listener = listen(config.listen).await?;
    let (admin, http) = (config.admin, config.http);
    // Who wants TLS has not asked for a port without it.
    let http_anywhere = http_anywhere && config.tls.is_none();
    let mut coordinator = Coordinator::new(config)?;
    if let Some(address) = admin {
        let listener = listen(address).await?;
        announce_as(ADMIN_LISTENING, &listener)?;
        coordinator = coordinator.with_admin(listener);
    }
    // Where there is no file, a hangup ends the process as it ends others.
    let mut _reloading = None;
    if file.is_some() || has_files(&flags) {
        coordinator = coordinator.with_source(source(file, flags));
        let reloading = Hangups::new()?.reload(coordinator.handle());
        _reloading = Some(AbortOnDropHandle::new(tokio::spawn(reloading)));
    }
    let page = page::serve(&coordinator, http, http_anywhere, shutdown.drain.clone()).await?;
    announce(&listener)?;
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let server = coordinator.serve(incoming, shutdown.drain.clone().cancelled_owned());
    let served = until_drained(server, &shutdown).await;
    page.end().await;
    served
}

/// Whether there is something to read again without a configuration file.
fn has_files(flags: &Overrides) -> bool {
    let Overrides { weights_file, tls, worker_tls, auth_tokens, .. } = flags;
    weights_file.is_some() || tls.is_some() || worker_tls.is_some() || auth_tokens.is_some()
}

/// Reads the files again, with the flags of the start.
fn source(file: Option<PathBuf>, flags: Overrides) -> Source {
    Arc::new(move || config(file.as_deref(), flags.clone()).map_err(|error| one_line(&error)))
}

/// The largest file of learned weights: more than 64 members have sets.
const LARGEST_WEIGHTS: u64 = 16 * 1024 * 1024;

/// The configuration with all the files that belong to it.
fn config(file: Option<&Path>, flags: Overrides) -> anyhow::Result<Config> {
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
    let Some(path) = file else {
        return Config::new(None, flags).map_err(|error| wrong_flags(&error.into()));
    };
    let path_shown = path.display();
    let toml = fs::read_to_string(path).with_context(|| format!("can't read {path_shown}"))?;
    Config::new(Some(&toml), flags).map_err(|error| {
        // What the file says of itself is wrong with and without flags.
        match Config::new(Some(&toml), Overrides::default()) {
            Err(of_file) if of_file.to_string() == error.to_string() => {
                anyhow::Error::from(error).context(path_shown.to_string())
            }
            _ => wrong_flags(&error.into()),
        }
    })
}

fn wrong_flags(error: &anyhow::Error) -> anyhow::Error {
    UsageError(one_line(error)).into()
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(Debug, clap::Parser)]
    struct CommandLine {
        #[command(flatten)]
        arguments: CoordinatorArgs,
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
