//! One history: hosts, callers, faults, and what came of it.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    path::PathBuf,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use chorus_coordinator::config::{Config, Overrides};
use chorus_load::null::Liar;
use chorus_proto::v1::worker_server::WorkerServer;
use chorus_tests::models;
use chorus_worker::WorkerConfig;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use serde::{Deserialize, Serialize};
use tempfile::TempDir;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use turmoil::Sim;

use super::{
    audit::Auditor,
    calls::{Answer, Caller},
    faults::{self, Fault},
    network,
    reference::Reference,
};

const MEMBERS: [&str; 3] = ["alto", "bass", "tenor"];
const WEIGHTS: [f64; 3] = [2.0, 1.0, 3.0];
const LIMITS: &str = "
    [limits]
    step_timeout_ms = 400
    connect_timeout_ms = 500
    [resilience]
    silence_ms = 60
    degrade_after_ms = 150
    snapshot_tokens = 4
";

/// Models of a few tokens, and of so many that other plans than whole rows are worth it.
pub(crate) struct World {
    models: [Models; 2],
    _directory: TempDir,
}

struct Models {
    paths: Vec<PathBuf>,
    tokenizer: String,
    reference: Arc<Reference>,
}

/// Where a history's lines are told (as a target of tracing).
pub(crate) const HISTORY: &str = "history";

/// What happened, in the order in which it did.
#[derive(Clone, Default)]
pub(crate) struct Diary {
    outcome: Rc<RefCell<Outcome>>,
}

/// What came of one history, or of many.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Outcome {
    pub(crate) calls: u64,
    pub(crate) answered: u64,
    pub(crate) failed: u64,
    pub(crate) cancelled: u64,
    pub(crate) degraded: u64,
    pub(crate) faults: u64,
    pub(crate) takeovers: u64,
}

/// Something that the director does.
#[derive(Debug, Clone, Copy)]
enum Action {
    Begin(Fault),
    Start,
    StartOnceStopped(Duration),
    Repair,
    Release,
}

impl World {
    pub(crate) fn new() -> Self {
        let directory = TempDir::new().unwrap();
        let few: String = "abcdefghijkl".to_owned();
        let many: String = ('\u{4e00}'..).take(1100).collect();
        let models = [("few", few), ("many", many)].map(|(name, text)| {
            let write = |(number, member): (u64, &str)| {
                let path = directory.path().join(name).join(member);
                models::random(&path, &text, number);
                path
            };
            let paths: Vec<PathBuf> = (1..).zip(MEMBERS).map(write).collect();
            let tokenizer = std::fs::read_to_string(paths[0].join("tokenizer.json")).unwrap();
            let members = MEMBERS.iter().zip(WEIGHTS).zip(&paths);
            let members = members.map(|((name, weight), path)| (*name, weight, path.as_path()));
            let reference = Arc::new(Reference::load(members));
            Models { paths, tokenizer, reference }
        });
        Self { models, _directory: directory }
    }

    /// The history of a seed.
    ///
    /// # Panics
    /// An invariant does not hold.
    pub(crate) fn run(&self, seed: u64) -> Outcome {
        let mut random = StdRng::seed_from_u64(seed);
        // Delays before another attempt are drawn from this one.
        fastrand::seed(seed);
        let models = &self.models[usize::from(random.random_bool(0.4))];
        let diary = Diary::default();
        let mut sim = turmoil::Builder::new()
            .rng_seed(seed)
            .simulation_duration(Duration::from_secs(120))
            .min_message_latency(Duration::from_micros(300))
            .max_message_latency(Duration::from_millis(random.random_range(1..12)))
            .tcp_capacity(1 << 16)
            .build();
        let cast = Cast::choose(&mut random, models);
        let stops = cast.start_workers(&mut sim, models, seed);
        let coordinators: Vec<String> =
            (0..random.random_range(1..3)).map(|number| format!("coordinator-{number}")).collect();
        for coordinator in &coordinators {
            cast.start_coordinator(&mut sim, coordinator);
        }
        let spared = random.random_bool(0.7).then(|| random.random_range(0..cast.workers.len()));
        let name_of = |worker: usize| cast.workers[worker].0.as_str();
        diary.note_at(
            Duration::ZERO,
            &format!("members {:?}, spared {:?}", cast.members, spared.map(name_of)),
        );
        let callers = Rc::new(Cell::new(0));
        let count = random.random_range(2..6);
        let plan_of_callers = faults::plan_of_callers(&mut random, count);
        let plan_of_coordinators = faults::plan_of_coordinators(&mut random, coordinators.len());
        for number in 0..count {
            let on_its_way = faults::of(number, &plan_of_callers);
            let mut of_its_coordinator = faults::of(number % coordinators.len(), &plan_of_coordinators);
            of_its_coordinator.extend(&on_its_way);
            let cuts_off = |fault: &Fault| matches!(fault, Fault::Crash(_) | Fault::Partition(_));
            let may_be_cut_off = of_its_coordinator.iter().any(cuts_off);
            let caller = Caller {
                name: name_of_caller(number),
                coordinator: coordinators[number % coordinators.len()].clone(),
                seed: random.random(),
                reference: Arc::clone(&models.reference),
                diary: diary.clone(),
                may_be_unavailable: spared.is_none(),
                may_be_cut_off,
                lateness: Duration::from_millis(match may_be_cut_off {
                    true => 3000,
                    false if on_its_way.is_empty() => 50,
                    false => 1000,
                }),
            };
            callers.set(callers.get() + 1);
            let left = Rc::clone(&callers);
            sim.client(caller.name.clone(), async move {
                caller.run().await?;
                left.set(left.get() - 1);
                Ok(())
            });
        }
        let auditor = Auditor {
            coordinators: coordinators.clone(),
            workers: cast.workers.iter().map(|(name, _)| name.clone()).collect(),
            callers,
            runtimes: Rc::clone(&cast.runtimes),
            diary: diary.clone(),
        };
        sim.client("auditor", auditor.run());
        let mut hosts: Vec<String> = cast.workers.iter().map(|(name, _)| name.clone()).collect();
        let mut plan = faults::plan(&mut random, hosts.len(), spared);
        let others = [
            (plan_of_coordinators, coordinators.clone()),
            (plan_of_callers, (0..count).map(name_of_caller).collect()),
        ];
        for (of_others, names) in others {
            plan.extend(of_others.into_iter().map(|(at, host, fault)| (at, hosts.len() + host, fault)));
            hosts.extend(names);
        }
        let mut director =
            Director { hosts, coordinators, stops, due: BTreeMap::new(), acts: 0, diary: diary.clone() };
        for (at, host, fault) in plan {
            director.plan(at, host, Action::Begin(fault));
        }
        director.direct(&mut sim);
        drop(sim);
        diary.outcome.take()
    }
}

/// Who is on the stage.
struct Cast {
    /// Hosts of workers that do not lie, each with the place of its member.
    workers: Vec<(String, usize)>,
    /// A replica of a member that lies.
    hostile: Option<usize>,
    members: Vec<Vec<String>>,
    runtimes: Runtimes,
}

/// What runs the tasks of each host.
pub(crate) type Runtimes = Rc<RefCell<BTreeMap<String, Handle>>>;

/// For each worker that runs: cancelled, it stops in order.
type Stops = Rc<RefCell<BTreeMap<String, CancellationToken>>>;

impl Cast {
    fn choose(random: &mut StdRng, models: &Models) -> Self {
        assert_eq!(models.paths.len(), MEMBERS.len());
        let (mut workers, mut members) = (Vec::new(), Vec::new());
        for (place, member) in MEMBERS.iter().enumerate() {
            let replicas = random.random_range(1..3);
            let names: Vec<String> = (0..replicas).map(|number| format!("{member}-{number}")).collect();
            workers.extend(names.iter().map(|name| (name.clone(), place)));
            members.push(names);
        }
        let hostile = random.random_bool(0.3).then(|| random.random_range(0..MEMBERS.len()));
        if let Some(member) = hostile {
            members[member].push("liar".to_owned());
        }
        Self { workers, hostile, members, runtimes: Runtimes::default() }
    }

    fn start_workers(&self, sim: &mut Sim<'_>, models: &Models, seed: u64) -> Stops {
        let stops = Stops::default();
        for (name, member) in &self.workers {
            let (name, path, stops) = (name.clone(), models.paths[*member].clone(), Rc::clone(&stops));
            let runtimes = Rc::clone(&self.runtimes);
            sim.host(name.clone(), move || {
                let (path, stop) = (path.clone(), CancellationToken::new());
                stops.borrow_mut().insert(name.clone(), stop.clone());
                runtimes.borrow_mut().insert(name.clone(), Handle::current());
                async move {
                    let loaded = chorus_worker::load(WorkerConfig::new(path))?;
                    let incoming = network::listen(50061).await?;
                    Ok(chorus_worker::serve_on(loaded, incoming, stop.cancelled_owned()).await?)
                }
            });
        }
        if let Some(member) = self.hostile {
            let loaded = chorus_worker::load(WorkerConfig::new(&models.paths[member])).unwrap();
            let (card, tokenizer) = (loaded.card().clone(), models.tokenizer.clone());
            sim.host("liar", move || {
                let liar = Liar::new(card.clone(), tokenizer.clone(), seed);
                async move {
                    let incoming = network::listen(50061).await?;
                    let server = tonic::transport::Server::builder().add_service(WorkerServer::new(liar));
                    Ok(server.serve_with_incoming(incoming).await?)
                }
            });
        }
        stops
    }

    fn start_coordinator(&self, sim: &mut Sim<'_>, name: &str) {
        let members = MEMBERS.iter().zip(WEIGHTS).zip(&self.members).map(|((name, weight), replicas)| {
            let addresses: Vec<String> = replicas.iter().map(|host| format!("http://{host}:50061")).collect();
            format!("{name}@{weight}={}", addresses.join(",")).parse().unwrap()
        });
        let flags = Overrides { members: members.collect(), ..Overrides::default() };
        let config = Config::new(Some(LIMITS), flags).unwrap();
        let (host, runtimes) = (name.to_owned(), Rc::clone(&self.runtimes));
        sim.host(name, move || {
            let config = config.clone();
            runtimes.borrow_mut().insert(host.clone(), Handle::current());
            async move {
                let incoming = network::listen(50051).await?;
                let network = Arc::new(network::Simulated);
                Ok(chorus_coordinator::run_on(network, config, incoming, futures::future::pending()).await?)
            }
        });
    }
}

fn name_of_caller(number: usize) -> String {
    format!("caller-{number}")
}

/// Does what is planned when it is due.
struct Director {
    /// Those that something happens to: workers, then coordinators, then callers.
    hosts: Vec<String>,
    coordinators: Vec<String>,
    stops: Stops,
    /// By time, and of one time in the order in which it was planned.
    due: BTreeMap<(Duration, u64), (usize, Action)>,
    acts: u64,
    diary: Diary,
}

impl Director {
    fn plan(&mut self, at: Duration, host: usize, action: Action) {
        self.due.insert((at, self.acts), (host, action));
        self.acts += 1;
    }

    fn direct(&mut self, sim: &mut Sim<'_>) {
        loop {
            while let Some(next) = self.due.first_entry()
                && next.key().0 <= sim.elapsed()
            {
                let (host, action) = next.remove();
                self.act(sim, host, action);
            }
            if sim.step().unwrap_or_else(|error| panic!("{error}")) {
                return;
            }
        }
    }

    fn act(&mut self, sim: &mut Sim<'_>, host: usize, action: Action) {
        let (name, now) = (self.hosts[host].clone(), sim.elapsed());
        if !matches!(action, Action::StartOnceStopped(_)) {
            self.diary.note_at(now, &format!("{name}: {action:?}"));
        }
        match action {
            Action::Begin(fault) => {
                self.diary.outcome.borrow_mut().faults += 1;
                self.begin(sim, host, &name, fault);
            }
            Action::Start if !sim.is_host_running(name.as_str()) => sim.bounce(name.as_str()),
            Action::Start => {}
            Action::StartOnceStopped(pause) if sim.is_host_running(name.as_str()) => {
                self.plan(now + Duration::from_millis(20), host, Action::StartOnceStopped(pause));
            }
            Action::StartOnceStopped(pause) => self.plan(now + pause, host, Action::Start),
            Action::Repair => {
                self.coordinators.iter().for_each(|other| sim.repair(name.as_str(), other.as_str()));
            }
            Action::Release => {
                self.coordinators.iter().for_each(|other| sim.release(name.as_str(), other.as_str()));
            }
        }
    }

    fn begin(&mut self, sim: &mut Sim<'_>, host: usize, name: &str, fault: Fault) {
        let now = sim.elapsed();
        match fault {
            Fault::Crash(lasts) => {
                if sim.is_host_running(name) {
                    sim.crash(name);
                }
                self.plan(now + lasts, host, Action::Start);
            }
            Fault::Restart(pause) => {
                if let Some(stop) = self.stops.borrow().get(name) {
                    stop.cancel();
                }
                self.plan(now, host, Action::StartOnceStopped(pause));
            }
            Fault::Partition(lasts) => {
                self.coordinators.iter().for_each(|other| sim.partition(name, other.as_str()));
                self.plan(now + lasts, host, Action::Repair);
            }
            Fault::Delay(lasts) => {
                self.coordinators.iter().for_each(|other| sim.hold(name, other.as_str()));
                self.plan(now + lasts, host, Action::Release);
            }
        }
    }
}

impl Diary {
    pub(crate) fn note(&self, line: &str) {
        self.note_at(turmoil::sim_elapsed().unwrap_or_default(), line);
    }

    fn note_at(&self, now: Duration, line: &str) {
        tracing::info!(target: HISTORY, "{now:?} {line}");
    }

    pub(crate) fn answered(&self, answer: &Answer) {
        let mut outcome = self.outcome.borrow_mut();
        outcome.calls += 1;
        outcome.answered += 1;
        outcome.degraded += answer.degraded;
    }

    pub(crate) fn recovered(&self, takeovers: u64) {
        self.outcome.borrow_mut().takeovers += takeovers;
    }

    pub(crate) fn failed(&self) {
        let mut outcome = self.outcome.borrow_mut();
        outcome.calls += 1;
        outcome.failed += 1;
    }

    pub(crate) fn cancelled(&self) {
        let mut outcome = self.outcome.borrow_mut();
        outcome.calls += 1;
        outcome.cancelled += 1;
    }
}

impl Outcome {
    pub(crate) fn add(&mut self, other: &Self) {
        self.calls += other.calls;
        self.answered += other.answered;
        self.failed += other.failed;
        self.cancelled += other.cancelled;
        self.degraded += other.degraded;
        self.faults += other.faults;
        self.takeovers += other.takeovers;
    }

    /// For a program to read.
    pub(crate) fn line(&self) -> String {
        serde_json::to_string(self).unwrap()
    }

    /// What [`Self::line`] wrote; none for any other line.
    pub(crate) fn parse(line: &str) -> Option<Self> {
        serde_json::from_str(line).ok()
    }

    pub(crate) fn summary(&self) -> String {
        let Self { calls, answered, failed, cancelled, degraded, faults, takeovers } = self;
        format!(
            "{calls} calls, {answered} answered, {failed} refused, {cancelled} given up, {degraded} degraded tokens, \
             {faults} faults, {takeovers} takeovers"
        )
    }
}
