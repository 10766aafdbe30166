//! What happens to workers, one kind after the other. Knows nothing about callers or what is measured.

use std::time::Duration;

use tokio::time::sleep;

use super::stage::Stage;

/// Something that happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    Nothing,
    KillOne,
    KillOneOfEach,
    KillMember,
    Freeze,
    CutOff,
    Restart,
    Lie,
}

impl Fault {
    /// All that make sense with so many replicas of each member.
    pub(super) fn all(replicas: usize) -> impl Iterator<Item = Self> {
        let all = [
            Self::Nothing,
            Self::KillOne,
            Self::KillOneOfEach,
            Self::Freeze,
            Self::CutOff,
            Self::Restart,
            Self::Lie,
            Self::KillMember,
        ];
        // Where a member has one worker, one of each are all of them, and nobody is left.
        all.into_iter().filter(move |fault| replicas > 1 || *fault != Self::KillOneOfEach)
    }

    /// In the table.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Nothing => "none",
            Self::KillOne => "kill -9, one worker",
            Self::KillOneOfEach => "kill -9, one of each member",
            Self::KillMember => "kill -9, all of one member",
            Self::Freeze => "SIGSTOP, one worker",
            Self::CutOff => "packets vanish, one worker",
            Self::Restart => "rolling restart of all",
            Self::Lie => "a worker that lies",
        }
    }

    /// While it happens.
    pub(super) fn sentence(self) -> &'static str {
        match self {
            Self::Nothing => "nothing happens",
            Self::KillOne => "killing one worker (kill -9)",
            Self::KillOneOfEach => "killing one worker of each member at once (kill -9)",
            Self::KillMember => "killing all workers of one member (kill -9)",
            Self::Freeze => "freezing one worker (SIGSTOP)",
            Self::CutOff => "cutting one worker off: what is sent to it and by it vanishes",
            Self::Restart => "restarting every worker in order, one after the other (SIGTERM)",
            Self::Lie => "a worker joins that answers lies",
        }
    }

    /// Lets it happen; what lasts, lasts for half of `each`. Afterwards everybody runs again, and may need time to be back.
    pub(super) async fn strike(self, stage: &mut Stage, each: Duration) -> anyhow::Result<()> {
        match self {
            Self::Nothing => {}
            Self::KillOne => stage.kill(&[0]).await?,
            Self::KillOneOfEach => stage.kill(&stage.first_of_each()).await?,
            Self::KillMember => stage.kill(&stage.all_of_first()).await?,
            Self::Freeze => {
                stage.freeze(0)?;
                sleep(each / 2).await;
                stage.thaw(0)?;
            }
            Self::CutOff => {
                stage.cut_off(true);
                sleep(each / 2).await;
                stage.cut_off(false);
            }
            Self::Restart => {
                for worker in 0..stage.workers() {
                    stage.restart(worker).await?;
                    stage.until_whole().await;
                }
            }
            Self::Lie => {
                let liar = stage.start_liar().await?;
                sleep(each / 2).await;
                drop(liar);
            }
        }
        Ok(())
    }
}
