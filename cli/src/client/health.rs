//! `chorus health`: asks a worker or a coordinator whether it serves, for supervisors that know only exit codes.
//!
//! Knows nothing about what health means: the server says it.

use std::time::{Duration, Instant};

use anyhow::anyhow;
use serde::Serialize;
use tokio::time::{sleep, timeout};
use tonic::{Code, Status};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use super::{
    address::Address,
    connect::{ConnectArgs, channel},
    format::{print, print_json},
};

/// How long one answer may take: a worker that still loads its model takes connections, and answers later.
const PATIENCE: Duration = Duration::from_secs(4);

/// Between two tries of `--wait`.
const PAUSE: Duration = Duration::from_millis(200);

const EXAMPLES: &str = "\
Examples:
  chorus health
  chorus health --addr 10.0.0.7:50061 --service chorus.v1.Worker
  chorus health --addr 127.0.0.1:50061 --wait 120

Exit codes: 0 it serves, 1 it does not, or did not answer within 4 seconds
(within --wait, where that is longer), 2 wrong usage.

Services: \"\" for the process as a whole, chorus.v1.Worker of a worker (its
device computes what is known), chorus.v1.Ensemble of a coordinator (the members
that are up make the quorum).

With --json one object with the keys address, service and status, where it
serves.";

/// Ask a worker or a coordinator whether it serves
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct HealthArgs {
    /// The service that is asked about (default: the process as a whole)
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    service: String,
    /// Ask again until it serves, for so long at most (default: ask once)
    #[arg(long, value_name = "SECONDS")]
    wait: Option<u32>,
    #[command(flatten)]
    connect: ConnectArgs,
}

#[derive(Serialize)]
struct Healthy<'a> {
    address: String,
    service: &'a str,
    status: &'a str,
}

/// Runs the command.
///
/// # Errors
/// The server does not serve, or does not answer.
pub(crate) async fn run(arguments: HealthArgs) -> anyhow::Result<()> {
    let HealthArgs { service, wait, connect } = arguments;
    let server = connect.server()?;
    let until = Instant::now() + Duration::from_secs(wait.unwrap_or_default().into());
    while let Err(reason) = check(&server, &service).await {
        if Instant::now() + PAUSE > until {
            return Err(anyhow!("{}{server} {reason}", shown(&service)));
        }
        sleep(PAUSE).await;
    }
    let status = ServingStatus::Serving.as_str_name();
    if connect.json {
        return print_json(&Healthy { address: server.to_string(), service: &service, status });
    }
    print(&format!("{status}\n"))
}

/// Asks once.
///
/// # Errors
/// What the server is or does instead of serving, as the end of a sentence about it.
async fn check(address: &Address, service: &str) -> Result<(), String> {
    let asked = async {
        let channel = channel(address).await.map_err(|reason| format!("does not answer: {reason}"))?;
        let request = HealthCheckRequest { service: service.to_owned() };
        match HealthClient::new(channel).check(request).await {
            Ok(reply) => Ok(reply.into_inner().status()),
            Err(status) if status.code() == Code::NotFound => Err("knows no such service".to_owned()),
            Err(status) => Err(format!("does not answer: {}", reason(&status))),
        }
    };
    let unanswered = || format!("does not answer within {} seconds", PATIENCE.as_secs());
    match timeout(PATIENCE, asked).await.map_err(|_| unanswered())?? {
        ServingStatus::Serving => Ok(()),
        other => Err(format!("is {}", other.as_str_name())),
    }
}

/// A failure in few words.
fn reason(status: &Status) -> &str {
    if status.message().is_empty() { status.code().description() } else { status.message() }
}

/// The service, in a sentence.
fn shown(service: &str) -> String {
    if service.is_empty() { String::new() } else { format!("{service} at ") }
}
