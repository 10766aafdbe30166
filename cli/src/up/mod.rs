//! `chorus up`: a whole ensemble on this machine, one worker process for each model directory and a coordinator.
//!
//! Starts, supervises and stops processes of this same program; knows nothing about what they compute.

mod group;
mod models;
mod process;
mod ready;
mod restart;
mod run;
mod specs;
mod summary;
mod supervisor;

use std::{net::SocketAddr, num::NonZeroUsize, path::PathBuf};

use chorus_coordinator::fusion::Rule;

use crate::{
    client::rule_parser,
    compute::ComputeArgs,
    values::{known_socket_address, number, socket_address},
};

pub(crate) use models::{ModelDirectory, find as find_models};
pub(crate) use process::{Process, ProcessSpec};
pub(crate) use ready::until_ready;
pub(crate) use run::run as up;
pub(crate) use specs::worker_spec;

const EXAMPLES: &str = "\
Examples:
  chorus up
  chorus up --models my-models --listen 127.0.0.1:50052 --rule log_linear
  chorus up --replicas 2
  chorus up --models my-models --weights weights.toml --fallback student
  chorus up --config ensemble.toml -v

Each model directory is a member with the directory's name and a process of its
own, or --replicas of them. It prints where the ensemble listens, and where its
page for browsers is. The threads that compute (--threads, or one for each
processor) are shared out among the workers. A process that dies is started
again, after a wait that doubles with every death. Ctrl-C (or SIGTERM) drains
the coordinator, then the workers, and stops everything; a second Ctrl-C kills.
Nothing stays behind, even if `chorus up` itself is killed. CHORUS_* variables
are for workers and coordinators that run by themselves, and for none of these.";

/// Start a whole ensemble on this machine: a worker for each model, and a coordinator
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct UpArgs {
    /// A folder of model directories, or one model directory (default: the demo members, deploy/demo)
    #[arg(long, value_name = "DIR")]
    models: Option<PathBuf>,
    /// Where the ensemble listens; port 0 lets the system choose
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:50051", value_parser = socket_address)]
    listen: SocketAddr,
    /// Where `chorus members` changes the members while they serve (default: nowhere)
    #[arg(long, value_name = "IP:PORT", value_parser = known_socket_address)]
    admin: Option<SocketAddr>,
    /// Where a page for browsers is served: members, charts and a playground (default: where --config says, or
    /// 127.0.0.1:8080, or another port where that is taken)
    #[arg(long, value_name = "IP:PORT", value_parser = socket_address)]
    http: Option<SocketAddr>,
    /// A name by which browsers may reach the page over plain text, beside localhost and addresses; can be repeated
    #[arg(long = "http-host", value_name = "NAME")]
    http_hosts: Vec<String>,
    /// Where the coordinator serves metrics for Prometheus, as plain HTTP (default: nowhere)
    #[arg(long, value_name = "IP:PORT", value_parser = known_socket_address)]
    metrics: Option<SocketAddr>,
    /// A configuration file for the coordinator (see `chorus coordinator --help`); its members are replaced
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Weights that `chorus tune` learned, in place of the members' own
    #[arg(long, value_name = "FILE")]
    weights: Option<PathBuf>,
    /// A model directory that answers alone, marked as such, when the quorum is gone
    #[arg(long, value_name = "DIR")]
    fallback: Option<PathBuf>,
    /// How the members' answers become one, where a request does not say
    #[arg(long, value_parser = rule_parser())]
    rule: Option<Rule>,
    /// Threshold of threshold_vote, in [0, 1), where a request does not say
    #[arg(long, value_name = "T", value_parser = number, allow_negative_numbers = true)]
    threshold: Option<f64>,
    /// Worker processes for each model; with two or more, one that dies is not missed
    #[arg(long, value_name = "N", default_value_t = NonZeroUsize::MIN)]
    replicas: NonZeroUsize,
    /// Seconds until the ensemble has to serve
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    start_timeout: u64,
    /// Show the processes' log lines from info on; twice: from debug on (default: warnings)
    #[arg(short, long, action = clap::ArgAction::Count)]
    verbose: u8,
    // Of every worker.
    #[command(flatten)]
    compute: ComputeArgs,
}

impl UpArgs {
    /// What `chorus up` is with these flags and no others, but at a port that the system chooses.
    pub(crate) fn at_any_port(compute: ComputeArgs) -> Self {
        Self {
            models: None,
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            admin: None,
            http: None,
            http_hosts: Vec::new(),
            metrics: None,
            config: None,
            weights: None,
            fallback: None,
            rule: None,
            threshold: None,
            replicas: NonZeroUsize::MIN,
            start_timeout: 120,
            verbose: 0,
            compute,
        }
    }
}
