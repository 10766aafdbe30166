//! `chorus coordinator`: an ensemble of members behind the public service.

use std::num::NonZeroUsize;

use anyhow::Context as _;
use chorus_coordinator::Coordinator;
use tokio_util::task::AbortOnDropHandle;
use tonic::transport::server::TcpIncoming;

use super::configuration::{ConfigurationArgs, config, has_files, source, warn_of_misspelt};
use super::tls::warn_of_plain_text;
use super::{
    ADMIN_LISTENING, announce, announce_as, listen, page, process::ProcessArgs, reload::Hangups,
    until_drained,
};
use crate::compute::threads;

const EXAMPLES: &str = "\
Examples:
  chorus coordinator --member alto=http://127.0.0.1:50061 \\
                     --member bass@2=http://127.0.0.1:50062 --rule log_linear
  chorus coordinator --config ensemble.toml --listen 0.0.0.0:50051

A configuration file; CHORUS_* variables override it, and flags override both
(`chorus config --help`); unknown keys are refused:
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
    #[command(flatten)]
    configuration: ConfigurationArgs,
    /// Serve the page on 127.0.0.1:8080, or another port where that is taken, where nothing says where
    #[arg(long, hide = true)]
    http_anywhere: bool,
    /// Threads that serve; one is the fastest until it is busy all the time (default: 1)
    #[arg(long, value_name = "N", value_parser = threads, env = "CHORUS_THREADS")]
    threads: Option<NonZeroUsize>,
    #[command(flatten)]
    process: ProcessArgs,
}

impl CoordinatorArgs {
    /// How many threads serve.
    pub(crate) fn threads(&self) -> NonZeroUsize {
        self.threads.unwrap_or(NonZeroUsize::MIN)
    }
}

/// Runs the command until it is told to stop.
///
/// # Errors
/// The configuration or the address can't be used, or serving failed.
pub(crate) async fn run(arguments: CoordinatorArgs) -> anyhow::Result<()> {
    let (process, http_anywhere) = (arguments.process.clone(), arguments.http_anywhere);
    let (file, flags) = arguments.configuration.split().context("can't tell the current directory")?;
    let config = config(file.as_deref(), flags.clone())?;
    let mut process = process.start("chorus-coordinator", config.telemetry.otlp.as_deref())?;
    let shutdown = process.shutdown.clone();
    // Before anything is counted.
    process.serve_metrics(config.metrics).await?;
    warn_of_plain_text(&config);
    warn_of_misspelt();
    let listener = listen(config.listen).await?;
    let (admin, http, http_hosts) = (config.admin, config.http, config.http_hosts.clone());
    let mut coordinator = Coordinator::new(config)?;
    if let Some(address) = admin {
        let listener = listen(address).await?;
        announce_as(ADMIN_LISTENING, "", &listener)?;
        coordinator = coordinator.with_admin(listener);
    }
    // Where there is no file, a hangup ends the process as it ends others.
    let mut _reloading = None;
    if file.is_some() || has_files(&flags) {
        coordinator = coordinator.with_source(source(file, flags));
        let reloading = Hangups::new()?.reload(coordinator.handle());
        _reloading = Some(AbortOnDropHandle::new(tokio::spawn(reloading)));
    }
    let page = page::serve(&coordinator, http, &http_hosts, http_anywhere, shutdown.drain.clone()).await?;
    announce(&listener)?;
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let server = coordinator.serve(incoming, shutdown.drain.clone().cancelled_owned());
    let served = until_drained(server, &shutdown).await;
    page.end().await;
    served
}
