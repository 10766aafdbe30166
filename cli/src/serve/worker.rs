//! `chorus worker`: one model directory behind the Worker protocol.

use std::{net::SocketAddr, num::NonZeroUsize, path::PathBuf, time::Duration};

use anyhow::Context as _;
use chorus_worker::{BatchLimits, WorkerConfig, WorkerError};
use tokio_util::task::AbortOnDropHandle;

use super::{announce, listen, process::ProcessArgs, reload::Hangups, tls::ServerTlsArgs, until_drained};
use crate::{compute::ComputeArgs, failure::UsageError, values::socket_address};

const EXAMPLES: &str = "\
Examples:
  chorus worker --model deploy/demo/alto --listen 127.0.0.1:50061
  chorus worker --model alto --device cuda:1 --listen 0.0.0.0:50061
  chorus worker --model alto --threads 4 --precision int8
  chorus worker --model alto --quantize q4k
  chorus worker --model alto --log debug --log-format json
  chorus worker --model alto --tls-cert alto.pem --tls-key alto.key \\
                --tls-client-ca coordinators-ca.pem
  chorus worker --model alto --metrics 127.0.0.1:9465 \\
                --otlp http://127.0.0.1:4317

Prints one line on stdout once it serves (`listening on 127.0.0.1:50061`), and
before it, with --metrics, `metrics listening on 127.0.0.1:9465`.
With --tls-cert SIGHUP reads the certificates again.
SIGINT and SIGTERM let it answer what was asked and end; a second one ends it
at once.";

/// Host one model on one device
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct WorkerArgs {
    /// The model directory: config.json, model.safetensors or model.gguf, tokenizer.json
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// Where it listens; port 0 lets the system choose
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:0", value_parser = socket_address)]
    listen: SocketAddr,
    /// Where metrics are served for Prometheus, as plain HTTP (default: nowhere)
    #[arg(long, value_name = "IP:PORT", value_parser = socket_address)]
    metrics: Option<SocketAddr>,
    #[command(flatten)]
    compute: ComputeArgs,
    /// Threads of the lowest priority that help the one of --threads 1 while nothing waits behind it, on processors that
    /// nobody else uses: for workers with a single thread each, of several
    #[arg(long, value_name = "N", default_value_t = 0, help_heading = "Computing")]
    spare_threads: usize,
    #[command(flatten)]
    limits: LimitArgs,
    #[command(flatten)]
    tls: ServerTlsArgs,
    #[command(flatten)]
    process: ProcessArgs,
}

/// What is absent stays at the worker's default.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Limits")]
struct LimitArgs {
    /// Sessions held at a time, over all coordinators (default: 1024)
    #[arg(long, value_name = "N")]
    max_sessions: Option<u32>,
    /// Tokens in one operation (default: 4096)
    #[arg(long, value_name = "N")]
    max_feed_tokens: Option<u32>,
    /// Seconds after which an idle session is dropped (default: 300)
    #[arg(long, value_name = "SECONDS")]
    session_ttl: Option<u64>,
    /// Milliseconds that a forward should take, about: how much longer a next token waits because of other work
    /// (default: 20)
    #[arg(long, value_name = "MS")]
    batch_duration: Option<u64>,
    /// Tokens of one session in one forward (default: 32), on a GPU (default: 256)
    #[arg(long, value_name = "N")]
    chunk_tokens: Option<usize>,
    /// Tokens of all sessions in one forward, however fast the model is: more share nothing, and wait longer
    /// (default: 192), on a GPU (default: 4096)
    #[arg(long, value_name = "N")]
    batch_tokens: Option<usize>,
    /// Seconds between two looks at the device, which has to compute what is known; 0 looks only after something went
    /// wrong (default: 10)
    #[arg(long, value_name = "SECONDS")]
    probe_interval: Option<u64>,
    /// Seconds after which a forward that does not end is stuck (default: 10)
    #[arg(long, value_name = "SECONDS")]
    stuck_after: Option<u64>,
    /// Seconds that a shutdown waits for answers to be read (default: 5)
    #[arg(long, value_name = "SECONDS")]
    drain_timeout: Option<u64>,
}

/// Runs the command until it is told to stop.
///
/// # Errors
/// The configuration, the model or the address can't be used, or serving failed.
pub(crate) async fn run(arguments: WorkerArgs) -> anyhow::Result<()> {
    let mut process = arguments.process.start("chorus-worker", None)?;
    let shutdown = process.shutdown.clone();
    // A taken address is found before time goes into loading.
    let listener = listen(arguments.listen).await?;
    let config = config(&arguments);
    config.validate().map_err(in_terms_of_flags)?;
    check_spare_threads(&arguments)?;
    let tls = arguments.tls.tls()?;
    arguments.compute.start()?;
    // Before anything is counted.
    process.serve_metrics(arguments.metrics).await?;
    let load = move || chorus_worker::load(config).map_err(anyhow::Error::from);
    let loading = tokio::task::spawn_blocking(load);
    let mut loaded = tokio::select! {
        loaded = loading => loaded.context("loading the model failed")??,
        () = shutdown.drain.cancelled() => return Ok(()),
    };
    // Without TLS a hangup ends the process as it ends others.
    let mut _renewing = None;
    if let Some(tls) = tls {
        loaded = loaded.with_tls(tls.clone());
        let hangups = Hangups::new()?;
        _renewing = Some(AbortOnDropHandle::new(tokio::spawn(async move {
            arguments.tls.renew(tls, hangups).await;
        })));
    }
    announce(&listener)?;
    let server = chorus_worker::serve(loaded, listener, shutdown.drain.clone().cancelled_owned());
    until_drained(server, &shutdown).await
}

/// Spare threads are beside a single one, which has no processor to itself.
fn check_spare_threads(arguments: &WorkerArgs) -> Result<(), UsageError> {
    match (arguments.spare_threads, arguments.compute.threads) {
        (0, _) | (_, Some(NonZeroUsize::MIN)) => Ok(()),
        (spare, threads) => {
            let found =
                threads.map_or_else(|| "one for each processor".to_owned(), |threads| threads.to_string());
            Err(UsageError(format!("--spare-threads {spare} needs --threads 1, and --threads is {found}")))
        }
    }
}

/// The fields of the worker's config under the names of their flags.
fn in_terms_of_flags(error: WorkerError) -> anyhow::Error {
    let WorkerError::Config { field, found, allowed } = error else {
        return error.into();
    };
    let flag = match field {
        "spare_threads" => "--spare-threads",
        "max_sessions" => "--max-sessions",
        "max_feed_tokens" => "--max-feed-tokens",
        "session_ttl in seconds" => "--session-ttl",
        "batch.duration in milliseconds" => "--batch-duration",
        "batch.chunk_tokens" => "--chunk-tokens",
        "batch.tokens" => "--batch-tokens",
        "probe_interval in seconds" => "--probe-interval",
        "stuck_after in seconds" => "--stuck-after",
        // Without a flag.
        other => other,
    };
    UsageError(format!("{flag} is {found}, allowed is {allowed}")).into()
}

fn config(arguments: &WorkerArgs) -> WorkerConfig {
    let limits = &arguments.limits;
    let mut config = WorkerConfig::new(&arguments.model);
    config.device.clone_from(&arguments.compute.device);
    config.batch = BatchLimits::on(&config.device);
    config.precision = arguments.compute.precision;
    config.quantize = arguments.compute.quantize;
    config.spare_threads = arguments.spare_threads;
    config.max_sessions = limits.max_sessions.unwrap_or(config.max_sessions);
    config.max_feed_tokens = limits.max_feed_tokens.unwrap_or(config.max_feed_tokens);
    config.session_ttl = limits.session_ttl.map_or(config.session_ttl, Duration::from_secs);
    config.batch.duration = limits.batch_duration.map_or(config.batch.duration, Duration::from_millis);
    config.batch.chunk_tokens = limits.chunk_tokens.unwrap_or(config.batch.chunk_tokens);
    config.batch.tokens = limits.batch_tokens.unwrap_or(config.batch.tokens);
    config.probe_interval = limits.probe_interval.map_or(config.probe_interval, Duration::from_secs);
    config.stuck_after = limits.stuck_after.map_or(config.stuck_after, Duration::from_secs);
    config.drain_timeout = limits.drain_timeout.map_or(config.drain_timeout, Duration::from_secs);
    config
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(Debug, clap::Parser)]
    struct CommandLine {
        #[command(flatten)]
        arguments: WorkerArgs,
    }

    fn parsed(arguments: &[&str]) -> WorkerConfig {
        let line = ["worker", "--model", "alto"].iter().chain(arguments);
        config(&CommandLine::try_parse_from(line).unwrap().arguments)
    }

    #[test]
    fn without_flags_the_workers_defaults_hold() {
        assert_eq!(parsed(&[]), WorkerConfig::new("alto"));
    }

    #[test]
    fn every_flag_reaches_its_field() {
        let config = parsed(&[
            "--device=cuda:1",
            "--precision=int8",
            "--max-sessions=2",
            "--max-feed-tokens=3",
            "--session-ttl=4",
            "--batch-duration=9",
            "--chunk-tokens=5",
            "--batch-tokens=6",
            "--probe-interval=0",
            "--stuck-after=8",
            "--drain-timeout=7",
            "--spare-threads=10",
        ]);
        assert_eq!((config.device.as_str(), config.max_sessions), ("cuda:1", 2));
        assert_eq!(config.precision, chorus_worker::Precision::Int8);
        assert_eq!((config.max_feed_tokens, config.session_ttl.as_secs()), (3, 4));
        assert_eq!((config.batch.chunk_tokens, config.batch.tokens), (5, 6));
        assert_eq!(config.batch.duration.as_millis(), 9);
        assert_eq!((config.probe_interval.as_secs(), config.stuck_after.as_secs()), (0, 8));
        assert_eq!((config.drain_timeout.as_secs(), config.spare_threads), (7, 10));
    }

    #[test]
    fn spare_threads_are_beside_a_single_one() {
        let checked = |flags: &[&str]| {
            let line = ["worker", "--model", "alto"].iter().chain(flags);
            check_spare_threads(&CommandLine::try_parse_from(line).unwrap().arguments)
        };
        assert!(checked(&["--threads=1", "--spare-threads=3"]).is_ok());
        assert!(checked(&["--threads=4"]).is_ok() && checked(&[]).is_ok());
        let refused = |flags| checked(flags).unwrap_err().to_string();
        let expected = "--spare-threads 3 needs --threads 1, and --threads is ";
        assert_eq!(refused(&["--spare-threads=3", "--threads=2"]), format!("{expected}2"));
        assert_eq!(refused(&["--spare-threads=3"]), format!("{expected}one for each processor"));
    }

    #[test]
    fn weights_are_quantised_or_in_a_precision() {
        let config = parsed(&["--quantize=q6k"]);
        assert_eq!(config.quantize, Some(chorus_worker::Quantization::Q6K));
        config.validate().unwrap();
        let line = ["worker", "--model", "alto", "--quantize=q4k", "--precision=int8"];
        let error = CommandLine::try_parse_from(line).unwrap_err().to_string();
        assert!(error.contains("--quantize") && error.contains("--precision"), "{error}");
        let line = ["worker", "--model", "alto", "--quantize=q5"];
        let error = CommandLine::try_parse_from(line).unwrap_err().to_string();
        assert!(error.contains("allowed are q8_0, q6k and q4k"), "{error}");
    }

    #[test]
    fn a_number_out_of_its_range_is_named_by_its_flag() {
        for flag in [
            "--batch-duration",
            "--max-sessions",
            "--max-feed-tokens",
            "--session-ttl",
            "--chunk-tokens",
            "--batch-tokens",
            "--stuck-after",
        ] {
            let error = in_terms_of_flags(parsed(&[&format!("{flag}=0")]).validate().unwrap_err());
            assert!(error.is::<UsageError>());
            assert!(error.to_string().starts_with(&format!("{flag} is 0, allowed is 1 to ")), "{error}");
        }
    }

    #[test]
    fn defaults_in_the_help_are_the_workers() {
        let defaults = WorkerConfig::new("alto");
        let mut command = <CommandLine as clap::CommandFactory>::command();
        let help = command.render_long_help().to_string();
        for number in [
            u64::from(defaults.max_sessions),
            u64::from(defaults.max_feed_tokens),
            defaults.session_ttl.as_secs(),
            defaults.batch.duration.as_millis() as u64,
            defaults.batch.chunk_tokens as u64,
            defaults.batch.tokens as u64,
            BatchLimits::on("cuda").chunk_tokens as u64,
            BatchLimits::on("cuda").tokens as u64,
            defaults.probe_interval.as_secs(),
            defaults.stuck_after.as_secs(),
            defaults.drain_timeout.as_secs(),
        ] {
            assert!(help.contains(&format!("(default: {number})")), "{number} in {help}");
        }
    }
}
