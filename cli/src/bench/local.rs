//! Processes of this program on loopback, to be measured: a coordinator, over workers or null workers.
//!
//! Unlike under `chorus up`, nothing is started again: a process that dies ends a measurement. Knows nothing about load.

use std::{env, net::SocketAddr, path::Path};

use anyhow::{Context as _, anyhow, bail};
use chorus_load::null::{NullWorkers, synthetic_vocabulary};
use tokio_util::sync::CancellationToken;

use crate::{
    client::Address,
    compute::ComputeArgs,
    up::{ModelDirectory, Process, ProcessSpec, UpArgs, until_ready, worker_spec},
};

const ANY_PORT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

/// A coordinator with its members, ready to serve.
pub(super) struct LocalEnsemble {
    /// Where the coordinator listens.
    pub(super) address: Address,
    /// Where the members listen, in member order.
    pub(super) members: Vec<SocketAddr>,
    coordinator: Process,
    workers: Vec<Process>,
    _null_workers: Option<NullWorkers>,
}

impl LocalEnsemble {
    /// A worker process for each model directory, as `chorus up` starts them.
    ///
    /// # Errors
    /// A process can't be started, or ended before it listened.
    pub(super) async fn of_models(models: &[ModelDirectory], compute: &ComputeArgs) -> anyhow::Result<Self> {
        let program = this_program()?;
        let arguments = UpArgs::at_any_port(compute.clone());
        // All are started before the first is waited for: loading takes its time.
        let specs = models.iter().enumerate().map(|(index, model)| {
            worker_spec(&arguments, &model.name, model, (index, models.len()), &program)
        });
        let mut workers =
            specs.map(|spec| Process::start(&spec, ANY_PORT)).collect::<anyhow::Result<Vec<Process>>>()?;
        let mut members = Vec::new();
        for (worker, model) in workers.iter_mut().zip(models) {
            members.push(listening(worker, &model.name).await?);
        }
        let names: Vec<String> = models.iter().map(|model| model.name.clone()).collect();
        let (coordinator, address) = coordinator(&program, &names, &members).await?;
        Ok(Self { address, members, coordinator, workers, _null_workers: None })
    }

    /// Null workers in this process, which share a vocabulary of a size.
    ///
    /// # Errors
    /// A thread or the coordinator's process can't be started.
    pub(super) async fn of_null_workers(members: usize, vocabulary: u32) -> anyhow::Result<Self> {
        let vocabulary = synthetic_vocabulary(vocabulary).context("the vocabulary can't be made")?;
        let null_workers =
            NullWorkers::start(members, &vocabulary).context("the null workers can't be started")?;
        let names: Vec<String> = (0..members).map(|member| format!("null-{member}")).collect();
        let members = null_workers.addresses().to_vec();
        let (coordinator, address) = coordinator(&this_program()?, &names, &members).await?;
        Ok(Self { address, members, coordinator, workers: Vec::new(), _null_workers: Some(null_workers) })
    }

    /// The coordinator's process id, by which its processor time is known.
    ///
    /// # Errors
    /// It has ended.
    pub(super) fn coordinator_id(&self) -> anyhow::Result<u32> {
        self.coordinator.id().ok_or_else(|| anyhow!("the coordinator has ended"))
    }

    /// Drains the coordinator, then the workers.
    ///
    /// # Errors
    /// A process can't be waited for.
    pub(super) async fn stop(self, kill: &CancellationToken) -> anyhow::Result<()> {
        let Self { coordinator, workers, .. } = self;
        coordinator.stop(kill).await.context("the coordinator can't be stopped")?;
        for worker in workers {
            worker.stop(kill).await.context("a worker can't be stopped")?;
        }
        Ok(())
    }
}

fn this_program() -> anyhow::Result<std::path::PathBuf> {
    env::current_exe().context("can't find this program's own file")
}

async fn coordinator(
    program: &Path,
    names: &[String],
    members: &[SocketAddr],
) -> anyhow::Result<(Process, Address)> {
    let flags = names.iter().zip(members).map(|(name, address)| format!("--member={name}=http://{address}"));
    // As many as growth may ask for: what a session costs is to be measured, not the line.
    let words = ["coordinator", "--log", "warn", "--max-sessions", "1024"]
        .map(str::to_owned)
        .into_iter()
        .chain(flags);
    let spec = ProcessSpec {
        name: "coordinator".to_owned(),
        program: program.to_owned(),
        arguments: words.map(Into::into).collect(),
    };
    let mut process = Process::start(&spec, ANY_PORT)?;
    let address = Address::from(listening(&mut process, "coordinator").await?);
    tokio::select! {
        ready = until_ready(&address) => ready?,
        ended = process.ended() => bail!("coordinator: {}", ended?),
    }
    Ok((process, address))
}

async fn listening(process: &mut Process, name: &str) -> anyhow::Result<SocketAddr> {
    match process.listening().await? {
        Some(address) => Ok(address),
        None => bail!("{name}: {}", process.ended().await?),
    }
}
