//! What is left when all callers are gone and every fault is over: nothing, and everybody is back.

use std::{cell::Cell, ops::RangeInclusive, rc::Rc, time::Duration};

use chorus_proto::v1::{
    StatusReply, StatusRequest, ensemble_client::EnsembleClient, member_status::Health,
    worker_client::WorkerClient,
};
use tokio::time::{Instant, sleep};
use tonic::transport::Channel;

use super::{
    network,
    world::{Diary, Runtimes},
};

/// Long enough for dead connections to be noticed, callers' too, and for patient back-offs.
const QUIET: Duration = Duration::from_secs(60);

/// Long enough for both ends of a connection to know that it is closed.
const SETTLING: Duration = Duration::from_millis(100);
/// Of a connection between a coordinator and a worker, at either end; there is one more for the stream on it.
const TASKS_OF_A_TRANSPORT: usize = 2;

pub(crate) struct Auditor {
    pub(crate) coordinators: Vec<String>,
    /// Those that do not lie.
    pub(crate) workers: Vec<String>,
    pub(crate) callers: Rc<Cell<usize>>,
    pub(crate) runtimes: Runtimes,
    pub(crate) diary: Diary,
}

impl Auditor {
    pub(crate) async fn run(self) -> turmoil::Result {
        while self.callers.get() > 0 {
            sleep(Duration::from_millis(50)).await;
        }
        let deadline = Instant::now() + QUIET;
        loop {
            let found = self.found().await;
            match found {
                Ok(takeovers) => {
                    self.diary.recovered(takeovers);
                    return Ok(());
                }
                Err(left) if Instant::now() > deadline => return Err(format!("left over: {left}").into()),
                Err(_) => sleep(Duration::from_millis(100)).await,
            }
        }
    }

    /// How many sessions were taken over, if nothing is left.
    async fn found(&self) -> Result<u64, String> {
        let (mut takeovers, mut replicas) = (0, 0);
        for coordinator in &self.coordinators {
            let channel = connect(coordinator, 50051).await?;
            let status = EnsembleClient::new(channel).status(StatusRequest {}).await;
            let status = status.map_err(|status| status.to_string())?.into_inner();
            self.check(coordinator, &status)?;
            replicas = status.members.iter().map(|member| member.replicas.len()).sum();
            let recoveries = status.members.iter().filter_map(|member| member.recovery);
            takeovers += recoveries.map(|recovery| recovery.takeovers + recovery.hedges_won).sum::<u64>();
        }
        for worker in &self.workers {
            let mut client = WorkerClient::new(connect(worker, 50061).await?);
            let card = client.describe(chorus_proto::v1::DescribeRequest {}).await;
            let open = card.map_err(|status| status.to_string())?.into_inner().open_sessions;
            if open > 0 {
                return Err(format!("{open} sessions at {worker}"));
            }
        }
        self.check_tasks(replicas).await?;
        Ok(takeovers)
    }

    /// Whether every host has the tasks that it has when nothing ever happened.
    async fn check_tasks(&self, replicas: usize) -> Result<(), String> {
        // The auditor's own connections are closed.
        sleep(SETTLING).await;
        let check = |host: &String, expected: RangeInclusive<usize>| {
            let tasks = self.runtimes.borrow()[host].metrics().num_alive_tasks();
            let is_right = expected.contains(&tasks);
            if is_right { Ok(()) } else { Err(format!("{tasks} tasks at {host}, not {expected:?}")) }
        };
        // To a liar there may be no connection just now.
        let may_lack = if replicas > self.workers.len() { TASKS_OF_A_TRANSPORT } else { 0 };
        let of_coordinator = 2 + replicas * (1 + TASKS_OF_A_TRANSPORT);
        let of_worker = 1 + self.coordinators.len() * (1 + TASKS_OF_A_TRANSPORT);
        self.coordinators
            .iter()
            .try_for_each(|host| check(host, of_coordinator - may_lack..=of_coordinator))?;
        self.workers.iter().try_for_each(|host| check(host, of_worker..=of_worker))
    }

    fn check(&self, coordinator: &str, status: &StatusReply) -> Result<(), String> {
        let nothing = |what: &str, count: u64| match count {
            0 => Ok(()),
            _ => Err(format!("{count} {what} at {coordinator}")),
        };
        nothing("requests", status.sessions.into())?;
        nothing("requests in the line", status.waiting.into())?;
        nothing("tokens in progress", status.tokens_in_progress)?;
        for member in &status.members {
            nothing("sessions of a member", member.sessions.into())?;
            for replica in &member.replicas {
                nothing("sessions of a replica", replica.sessions.into())?;
                let lies = !self.workers.iter().any(|worker| replica.address.contains(worker.as_str()));
                if replica.health() != Health::Up && !lies {
                    return Err(format!("{} is not back: {}", replica.address, replica.reason));
                }
            }
        }
        Ok(())
    }
}

async fn connect(host: &str, port: u16) -> Result<Channel, String> {
    let endpoint = Channel::from_shared(format!("http://{host}:{port}")).unwrap();
    network::connect(endpoint).await.map_err(|error| error.to_string())
}
