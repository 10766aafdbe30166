//! The life of `up`: start the workers, then the coordinator, wait, and stop in the opposite order.
//!
//! Knows nothing about how one process is kept running.

use std::{env, future::Future, io::Write as _, net::SocketAddr, time::Duration};

use anyhow::{Context as _, anyhow};

use super::{
    UpArgs,
    group::{Group, Listening},
    models::{self, ModelDirectory},
    ready::until_ready,
    specs::{coordinator_spec, worker_spec},
    summary::{program, summary},
};
use crate::{
    client::Address,
    failure::{Interrupted, note},
    shutdown::Shutdown,
};

/// Workers listen on loopback, at a port that the system chooses.
const WORKER_LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

/// Runs the command until it is told to stop.
///
/// # Errors
/// There are no models, a process died before it listened, or the ensemble did not serve in time.
pub(crate) async fn run(arguments: UpArgs) -> anyhow::Result<()> {
    arguments.compute.check_devices()?;
    let mut models = models::find(arguments.models.as_deref())?;
    let fallback = models::fallback(arguments.fallback.as_deref(), &models)?;
    // It is hosted as the members are, and comes last.
    let members = models.len();
    models.extend(fallback);
    let shutdown = Shutdown::on_signals()?;
    let mut workers = Group::new(&shutdown);
    let mut coordinators = Group::new(&shutdown);
    let lived = live(&arguments, (&models, members), &mut workers, &mut coordinators, &shutdown).await;
    if lived.is_ok() {
        show("stopping the coordinator, then the workers (Ctrl-C again kills them)\n");
    }
    // Requests in progress need their members to finish, so the members go last.
    let coordinators_stopped = coordinators.stop().await;
    let workers_stopped = workers.stop().await;
    if shutdown.kill.is_cancelled() {
        note("killed");
        return Err(Interrupted.into());
    }
    lived.and(coordinators_stopped).and(workers_stopped)
}

/// From the first start to the wish to stop.
async fn live(
    arguments: &UpArgs,
    (models, member_count): (&[ModelDirectory], usize),
    workers: &mut Group,
    coordinators: &mut Group,
    shutdown: &Shutdown,
) -> anyhow::Result<()> {
    let program_path = env::current_exe().context("can't find this program's own file")?;
    let replicas = arguments.replicas.get();
    let each = if replicas == 1 { "a worker".to_owned() } else { format!("{replicas} workers") };
    show(&format!("starting a coordinator and {each} for each of: {}\n", names(models)));
    let named = named_replicas(models, replicas);
    let listening: Vec<Listening> = named
        .iter()
        .enumerate()
        .map(|(index, (name, model))| {
            let spec = worker_spec(arguments, name, model, (index, named.len()), &program_path);
            workers.start(spec, WORKER_LISTEN)
        })
        .collect();
    let starting = async {
        let found = workers.all_listening(listening).await?;
        let workers_at: Vec<SocketAddr> = found.into_iter().map(|worker| worker.address).collect();
        let hosted: Vec<(&str, &[SocketAddr])> =
            models.iter().map(|model| model.name.as_str()).zip(workers_at.chunks(replicas)).collect();
        let (members, fallback) = hosted.split_at(member_count.min(hosted.len()));
        let spec = coordinator_spec(arguments, members, fallback.first().copied(), &program_path);
        let listening = coordinators.start(spec, arguments.listen);
        let ensemble_at = coordinators.all_listening(vec![listening]).await?;
        let ensemble_at = *ensemble_at.first().context("the coordinator listens nowhere")?;
        until_ready(&Address::from(ensemble_at.address)).await?;
        Ok((ensemble_at, workers_at))
    };
    let Some((ensemble_at, workers_at)) = in_time(starting, arguments, shutdown).await? else {
        return Ok(());
    };
    let lines: Vec<_> = named
        .into_iter()
        .zip(workers_at)
        .map(|((name, model), address)| (name, address, model.path.display().to_string()))
        .collect();
    show(&summary(
        (ensemble_at.address, ensemble_at.page),
        arguments.admin,
        member_count,
        &lines,
        &program(),
    ));
    tokio::select! {
        () = shutdown.drain.cancelled() => Ok(()),
        failed = workers.failed() => Err(failed),
        failed = coordinators.failed() => Err(failed),
    }
}

/// The replicas of each model one after the other, with their processes' names.
fn named_replicas(models: &[ModelDirectory], replicas: usize) -> Vec<(String, &ModelDirectory)> {
    let name_of = move |model: &ModelDirectory, number| match replicas {
        1 => model.name.clone(),
        _ => format!("{}-{number}", model.name),
    };
    let of_model = |model| (1..=replicas).map(move |number| (name_of(model, number), model));
    models.iter().flat_map(of_model).collect()
}

/// A start within its time; nothing where the user did not wait for it.
async fn in_time<T>(
    starting: impl Future<Output = anyhow::Result<T>>,
    arguments: &UpArgs,
    shutdown: &Shutdown,
) -> anyhow::Result<Option<T>> {
    let limit = Duration::from_secs(arguments.start_timeout);
    tokio::select! {
        // A failure at the same moment as a signal is still worth its line.
        biased;
        started = tokio::time::timeout(limit, starting) => match started {
            Ok(started) => started.map(Some),
            Err(_) => Err(anyhow!("the ensemble does not serve after {} s; -v shows more", limit.as_secs())),
        },
        () = shutdown.drain.cancelled() => Ok(None),
    }
}

fn names(models: &[ModelDirectory]) -> String {
    let names: Vec<&str> = models.iter().map(|model| model.name.as_str()).collect();
    names.join(", ")
}

/// Prints on stdout, in colours on a terminal.
fn show(text: &str) {
    // Nobody has to read it.
    let mut stdout = anstream::stdout().lock();
    let _shown = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
}
