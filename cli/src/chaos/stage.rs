//! The processes of a campaign: workers, with a relay before one of them, a coordinator, and now and then a liar. Knows nothing
//! about load or about what is measured.

use std::{env, net::SocketAddr, path::PathBuf, time::Duration};

use anyhow::{Context as _, anyhow, bail};
use chorus_coordinator::config::Resilience;
use chorus_load::null::{Liar, LyingWorker};
use chorus_proto::v1::{
    DescribeRequest, Recovery, StatusReply, StatusRequest, member_status::Health, worker_client::WorkerClient,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::relay::Relay;
use crate::{
    client::{Address, connect, dialer},
    compute::ComputeArgs,
    up::{ModelDirectory, Process, ProcessSpec, UpArgs, worker_spec},
};

const ANY_PORT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

/// How often the ensemble is asked whether it is whole.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

pub(super) struct Stage {
    /// Model after model, all replicas of one.
    workers: Vec<Worker>,
    replicas: usize,
    /// Before the last worker.
    relay: Relay,
    /// Where a liar may listen, as one more replica of the first member.
    liar_at: SocketAddr,
    tokenizer: PathBuf,
    coordinator: Process,
    address: Address,
}

struct Worker {
    spec: ProcessSpec,
    address: SocketAddr,
    process: Process,
}

/// The time in which the coordinator notices a silent worker.
pub(super) fn silence_ms() -> u32 {
    Resilience::default().silence_ms
}

impl Stage {
    /// # Errors
    /// A process can't be started, or ended before it listened.
    pub(super) async fn start(
        models: &[ModelDirectory],
        replicas: usize,
        compute: &ComputeArgs,
    ) -> anyhow::Result<Self> {
        let program = env::current_exe().context("can't find this program's own file")?;
        let arguments = UpArgs::at_any_port(compute.clone());
        let count = models.len() * replicas;
        let mut started = Vec::new();
        for model in models {
            for number in 1..=replicas {
                let name = format!("{}-{number}", model.name);
                let spec = worker_spec(&arguments, &name, model, (started.len(), count), &program);
                started.push((Process::start(&spec, ANY_PORT)?, spec));
            }
        }
        let mut workers = Vec::new();
        for (mut process, spec) in started {
            let address = listening(&mut process, &spec.name).await?;
            workers.push(Worker { spec, address, process });
        }
        let last = workers.last().context("there are no models")?;
        let relay = Relay::start(last.address).await.context("no port for a relay")?;
        let liar_at = free_port()?;
        let tokenizer = models.first().context("there are no models")?.path.join("tokenizer.json");
        let flags =
            models.iter().zip(workers.chunks(replicas)).enumerate().map(|(place, (model, workers))| {
                let mut addresses: Vec<SocketAddr> = workers.iter().map(|worker| worker.address).collect();
                if place + 1 == models.len()
                    && let Some(last) = addresses.last_mut()
                {
                    *last = relay.address();
                }
                addresses.extend((place == 0).then_some(liar_at));
                let addresses: Vec<String> =
                    addresses.iter().map(|address| format!("http://{address}")).collect();
                format!("--member={}={}", model.name, addresses.join(","))
            });
        let words = ["coordinator", "--log", "error"].map(str::to_owned).into_iter().chain(flags);
        let name = "coordinator".to_owned();
        let spec = ProcessSpec { name, program, arguments: words.map(Into::into).collect() };
        let mut coordinator = Process::start(&spec, ANY_PORT)?;
        let address = Address::from(listening(&mut coordinator, "coordinator").await?);
        let stage = Self { workers, replicas, relay, liar_at, tokenizer, coordinator, address };
        stage.until_whole().await;
        Ok(stage)
    }

    pub(super) fn address(&self) -> &Address {
        &self.address
    }

    pub(super) fn workers(&self) -> usize {
        self.workers.len()
    }

    /// The first worker of each member.
    pub(super) fn first_of_each(&self) -> Vec<usize> {
        (0..self.workers.len()).step_by(self.replicas).collect()
    }

    /// All workers of the first member.
    pub(super) fn all_of_first(&self) -> Vec<usize> {
        (0..self.replicas).collect()
    }

    /// Kills workers all at once, then starts them again.
    pub(super) async fn kill(&mut self, workers: &[usize]) -> anyhow::Result<()> {
        for worker in workers {
            self.signal(*worker, Signal::SIGKILL)?;
        }
        for worker in workers {
            self.start_again(*worker).await?;
        }
        Ok(())
    }

    pub(super) fn freeze(&self, worker: usize) -> anyhow::Result<()> {
        self.signal(worker, Signal::SIGSTOP)
    }

    pub(super) fn thaw(&self, worker: usize) -> anyhow::Result<()> {
        self.signal(worker, Signal::SIGCONT)
    }

    /// Asks a worker to stop, and starts it again once it has.
    pub(super) async fn restart(&mut self, worker: usize) -> anyhow::Result<()> {
        self.signal(worker, Signal::SIGTERM)?;
        self.start_again(worker).await
    }

    pub(super) fn cut_off(&self, is_cut: bool) {
        self.relay.cut(is_cut);
    }

    /// One more replica of the first member, that lies until it is dropped.
    pub(super) async fn start_liar(&self) -> anyhow::Result<LyingWorker> {
        let honest = self.workers.first().context("there are no workers")?;
        let channel = dialer(&Address::from(honest.address))?.connect().await?;
        let card = WorkerClient::new(channel).describe(DescribeRequest {}).await?.into_inner();
        let tokenizer = tokio::fs::read(&self.tokenizer).await.context("can't read the tokenizer")?;
        LyingWorker::start(self.liar_at, Liar::new(card, tokenizer, 1)).context("the liar can't be started")
    }

    /// Waits until every worker is up at the coordinator.
    pub(super) async fn until_whole(&self) {
        while !self.status().await.is_ok_and(|status| self.is_whole(&status)) {
            sleep(LOOK_AGAIN).await;
        }
    }

    /// What was done so far at all members together.
    pub(super) async fn recovery(&self) -> anyhow::Result<Recovery> {
        let mut sum = Recovery::default();
        for of_one in self.status().await?.members.iter().filter_map(|member| member.recovery) {
            sum.takeovers += of_one.takeovers;
            sum.recomputed_tokens += of_one.recomputed_tokens;
            sum.hedges += of_one.hedges;
            sum.hedges_won += of_one.hedges_won;
        }
        Ok(sum)
    }

    /// Drains the coordinator, then the workers.
    pub(super) async fn stop(self, kill: &CancellationToken) -> anyhow::Result<()> {
        self.coordinator.stop(kill).await.context("the coordinator can't be stopped")?;
        for worker in self.workers {
            worker.process.stop(kill).await.context("a worker can't be stopped")?;
        }
        Ok(())
    }

    fn is_whole(&self, status: &StatusReply) -> bool {
        let liar = format!("http://{}", self.liar_at);
        let replicas = status.members.iter().flat_map(|member| &member.replicas);
        let honest = replicas.filter(|replica| replica.address != liar);
        honest.filter(|replica| replica.health() == Health::Up).count() == self.workers.len()
    }

    async fn status(&self) -> anyhow::Result<StatusReply> {
        Ok(connect(&self.address).await?.status(StatusRequest {}).await?.into_inner())
    }

    fn signal(&self, worker: usize, signal: Signal) -> anyhow::Result<()> {
        let worker = self.workers.get(worker).context("there is no such worker")?;
        let id = worker.process.id().ok_or_else(|| anyhow!("{} has ended", worker.spec.name))?;
        kill(Pid::from_raw(i32::try_from(id)?), signal)
            .with_context(|| format!("{signal} can't be sent to {}", worker.spec.name))
    }

    async fn start_again(&mut self, worker: usize) -> anyhow::Result<()> {
        let Some(Worker { spec, address, process }) = self.workers.get_mut(worker) else {
            bail!("there is no such worker");
        };
        process.ended().await?;
        *process = Process::start(spec, *address)?;
        listening(process, &spec.name).await.map(drop)
    }
}

/// A port that nobody has now.
fn free_port() -> anyhow::Result<SocketAddr> {
    let listener = std::net::TcpListener::bind(ANY_PORT).context("there is no free port")?;
    Ok(listener.local_addr()?)
}

async fn listening(process: &mut Process, name: &str) -> anyhow::Result<SocketAddr> {
    match process.listening().await? {
        Some(address) => Ok(address),
        None => bail!("{name}: {}", process.ended().await?),
    }
}
