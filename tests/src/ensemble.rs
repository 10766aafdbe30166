//! A whole ensemble of processes: one worker for each member and a coordinator before them.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use nix::sys::signal::Signal;
use tempfile::TempDir;
use tonic::transport::Channel;

use crate::{clients::EnsembleClient, metrics::metrics_listening, models, process::Chorus};

/// Of a configuration: nobody is left out of an answer for being slow, as a member may be on a machine that has other work.
pub const PATIENT: &str = "[resilience]\nearly_decision = false\ndegrade_after_ms = 60000\n";

/// A worker process of a member, and what it takes to start it again in the same place.
pub struct MemberProcess {
    pub name: String,
    pub model: PathBuf,
    pub address: SocketAddr,
    pub weight: f64,
    process: Chorus,
}

impl MemberProcess {
    pub fn start(name: &str, model: &Path) -> Self {
        Self::of(name, model, start_worker(model, "127.0.0.1:0"))
    }

    /// A worker that was started somewhere.
    pub fn of(name: &str, model: &Path, mut process: Chorus) -> Self {
        let address = process.listening();
        Self { name: name.to_owned(), model: model.to_owned(), address, weight: 1.0, process }
    }

    pub fn weighing(self, weight: f64) -> Self {
        Self { weight, ..self }
    }

    /// Ends the worker the hard way: it has no chance to say goodbye.
    pub fn kill(&mut self) {
        self.process.signal(Signal::SIGKILL);
        while self.process.is_running() {
            std::thread::yield_now();
        }
    }

    /// Stops the process without ending it: connections stay open and nothing answers.
    pub fn freeze(&self) {
        self.process.signal(Signal::SIGSTOP);
    }

    pub fn thaw(&self) {
        self.process.signal(Signal::SIGCONT);
    }

    /// Asks the worker to stop and waits until it has.
    pub fn stop(&mut self) {
        self.process.signal(Signal::SIGTERM);
        while self.process.is_running() {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Starts it again on the port that it had.
    pub fn start_again(&mut self) {
        self.process = start_worker(&self.model, &self.address.to_string());
        assert_eq!(self.process.listening(), self.address);
    }
}

fn start_worker(model: &Path, listen: &str) -> Chorus {
    Chorus::start([
        "worker".as_ref(),
        "--model".as_ref(),
        model.as_os_str(),
        "--listen".as_ref(),
        listen.as_ref(),
    ])
}

/// Members in member order and their coordinator. Workers of the same name are replicas of one member.
pub struct Ensemble {
    pub members: Vec<MemberProcess>,
    pub address: SocketAddr,
    pub coordinator: Chorus,
    /// Where the coordinator says what it counts.
    pub metrics: SocketAddr,
    config: TempDir,
}

/// A coordinator, where its metrics are and where it listens.
fn start_coordinator(config: &Path) -> (Chorus, SocketAddr, SocketAddr) {
    let mut coordinator = Chorus::start(["coordinator".as_ref(), "--config".as_ref(), config.as_os_str()]);
    let metrics = metrics_listening(&mut coordinator);
    let address = coordinator.listening();
    (coordinator, metrics, address)
}

/// What a coordinator over these workers is configured with, and whatever else.
fn config_text(workers: &[MemberProcess], extra: &str) -> String {
    let mut text = String::from("listen = \"127.0.0.1:0\"\nmetrics = \"127.0.0.1:0\"\n");
    for (place, first) in workers.iter().enumerate() {
        let is_same = |worker: &&MemberProcess| worker.name == first.name;
        if workers[..place].iter().any(|worker| is_same(&worker)) {
            continue;
        }
        let addresses = workers.iter().filter(is_same).map(|worker| format!("http://{}", worker.address));
        let (addresses, weight) = (addresses.collect::<Vec<_>>(), first.weight);
        text += &format!(
            "[[members]]\nname = \"{}\"\nweight = {weight:?}\naddress = {addresses:?}\n",
            first.name
        );
    }
    text + extra
}

impl Ensemble {
    /// The demo members, with whatever else the ensemble's TOML shall say (`[quorum]`, `[limits]`, ...).
    pub async fn demo(extra: &str) -> Self {
        Self::demo_with_weights([1.0; 3], extra).await
    }

    /// The demo members with weights of their own.
    pub async fn demo_with_weights(weights: [f64; 3], extra: &str) -> Self {
        let members = models::DEMO.into_iter().zip(weights);
        let members =
            members.map(|(name, weight)| MemberProcess::start(name, &models::demo(name)).weighing(weight));
        let ensemble = Self::over(members.collect(), extra);
        ensemble.until_up(ensemble.members.len()).await;
        ensemble
    }

    /// The demo members with two replicas each: first one of every member, then the others.
    pub async fn demo_in_twos(extra: &str) -> Self {
        let names = models::DEMO.into_iter().chain(models::DEMO);
        let workers = names.map(|name| MemberProcess::start(name, &models::demo(name)));
        let ensemble = Self::over(workers.collect(), extra);
        ensemble.until_replicas_up(ensemble.members.len()).await;
        ensemble
    }

    /// Starts workers, then the coordinator, and waits until every member is up.
    pub async fn start<'a>(members: impl IntoIterator<Item = (&'a str, &'a Path)>, extra: &str) -> Self {
        let members: Vec<_> =
            members.into_iter().map(|(name, model)| MemberProcess::start(name, model)).collect();
        let ensemble = Self::over(members, extra);
        ensemble.until_up(ensemble.members.len()).await;
        ensemble
    }

    /// A coordinator over members that are started already, without waiting for anything.
    pub fn over(members: Vec<MemberProcess>, extra: &str) -> Self {
        let config = TempDir::new().expect("a temporary directory");
        let path = config.path().join("ensemble.toml");
        fs::write(&path, config_text(&members, extra)).expect("the config is written");
        let (coordinator, metrics, address) = start_coordinator(&path);
        Self { members, address, coordinator, metrics, config }
    }

    /// Another coordinator over the same workers, with the same configuration.
    pub fn second_coordinator(&self) -> (Chorus, SocketAddr) {
        let (coordinator, _, address) = start_coordinator(&self.config.path().join("ensemble.toml"));
        (coordinator, address)
    }

    pub async fn channel(&self) -> Channel {
        Channel::from_shared(format!("http://{}", self.address))
            .expect("an address")
            .connect()
            .await
            .expect("it listens")
    }

    pub async fn client(&self) -> EnsembleClient {
        EnsembleClient::new(self.channel().await)
    }

    /// Waits until Status counts `count` members as up.
    pub async fn until_up(&self, count: usize) {
        let client = self.client().await;
        crate::until(&format!("{count} members up"), || {
            let mut client = client.clone();
            async move { crate::clients::members_up(&mut client).await == count }
        })
        .await;
    }

    /// Waits until Status counts `count` workers as up.
    pub async fn until_replicas_up(&self, count: usize) {
        let client = self.client().await;
        crate::until(&format!("{count} replicas up"), || {
            let mut client = client.clone();
            async move { crate::clients::replicas_up(&mut client).await == count }
        })
        .await;
    }
}
