//! Whether an ensemble serves with all replicas of all its members, asked until it does. Knows nothing about processes.

use std::time::Duration;

use anyhow::bail;
use backon::{ExponentialBuilder, Retryable as _};
use chorus_proto::v1::{StatusReply, StatusRequest, member_status::Health};

use crate::client::{Address, connect};

/// What a status says about starting up.
#[derive(Debug, PartialEq, Eq)]
enum Readiness {
    Ready,
    /// Not yet: the members that are awaited.
    Waiting(Vec<String>),
    /// Never: a member that can't be one, and why.
    Refused(String),
}

/// Waits until the ensemble serves with all its members. Without a limit of its own.
///
/// # Errors
/// A member can't be one (another vocabulary, ...), which waiting does not change.
pub(crate) async fn until_ready(address: &Address) -> anyhow::Result<()> {
    let ask_often = ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(20))
        .with_max_delay(Duration::from_millis(500))
        .without_max_times();
    let readiness = (|| ask(address)).retry(ask_often).when(|error| error.is::<NotYet>()).await?;
    match readiness {
        Readiness::Refused(reason) => bail!(reason),
        Readiness::Ready | Readiness::Waiting(_) => Ok(()),
    }
}

/// Asking again may help.
#[derive(Debug)]
struct NotYet(String);

impl std::fmt::Display for NotYet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl std::error::Error for NotYet {}

async fn ask(address: &Address) -> anyhow::Result<Readiness> {
    let not_yet = |reason: String| NotYet(reason);
    let mut client = connect(address).await.map_err(|error| not_yet(error.to_string()))?;
    let status = client.status(StatusRequest {}).await.map_err(|status| not_yet(status.to_string()))?;
    match readiness(status.get_ref()) {
        Readiness::Waiting(members) => Err(not_yet(members.join(", ")).into()),
        decided => Ok(decided),
    }
}

fn readiness(status: &StatusReply) -> Readiness {
    let refused = status.members.iter().find_map(|member| {
        let mut replicas = member.replicas.iter();
        let replica = replicas.find(|replica| replica.health() == Health::Refused)?;
        Some(format!("{}: {}", member.name, replica.reason))
    });
    if let Some(reason) = refused {
        return Readiness::Refused(reason);
    }
    let awaited: Vec<String> = status
        .members
        .iter()
        .filter(|member| member.replicas.iter().any(|replica| replica.health() != Health::Up))
        .map(|member| member.name.clone())
        .collect();
    if status.serving && awaited.is_empty() {
        return Readiness::Ready;
    }
    Readiness::Waiting(awaited)
}

#[cfg(test)]
mod tests {
    use chorus_proto::v1::{MemberStatus, ReplicaStatus};

    use super::*;

    fn status(serving: bool, members: &[(&str, Health)]) -> StatusReply {
        let members = members.iter().map(|(name, health)| MemberStatus {
            name: (*name).to_owned(),
            replicas: vec![ReplicaStatus {
                health: (*health).into(),
                reason: "another vocabulary".to_owned(),
                ..ReplicaStatus::default()
            }],
            ..MemberStatus::default()
        });
        StatusReply { members: members.collect(), serving, ..StatusReply::default() }
    }

    #[test]
    fn an_ensemble_is_ready_when_it_serves_with_all_members() {
        let up = [("alto", Health::Up), ("bass", Health::Up)];
        assert_eq!(readiness(&status(true, &up)), Readiness::Ready);
        assert_eq!(readiness(&status(false, &up)), Readiness::Waiting(vec![]));
        let one = [("alto", Health::Up), ("bass", Health::Connecting)];
        assert_eq!(readiness(&status(true, &one)), Readiness::Waiting(vec!["bass".to_owned()]));
    }

    #[test]
    fn a_refused_member_is_the_end_of_waiting() {
        let refused = [("alto", Health::Connecting), ("bass", Health::Refused)];
        assert_eq!(
            readiness(&status(false, &refused)),
            Readiness::Refused("bass: another vocabulary".to_owned())
        );
    }
}
