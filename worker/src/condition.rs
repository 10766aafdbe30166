//! Whether the device can be relied on, and the board on which everybody reads it: streams, readers, the health. Knows
//! nothing about how it is found out.

use std::sync::Arc;

use chorus_proto::v1;
use tokio::sync::watch;

/// What is known of the device.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum Condition {
    /// What it computes is right, as far as is known.
    #[default]
    Sound,
    /// Nothing that it computes is of use.
    Unsound {
        /// What was found, for people.
        reason: Arc<str>,
    },
}

/// Where the condition is written and read.
#[derive(Debug, Clone)]
pub(crate) struct Board(watch::Sender<Condition>);

/// One reader's place at the board: what it was told last.
#[derive(Debug)]
pub(crate) struct News {
    changes: watch::Receiver<Condition>,
    told: Condition,
    /// Keeps the changes coming.
    _board: Board,
}

impl Condition {
    /// Why it is not sound; none where it is.
    pub(crate) fn reason(&self) -> Option<&Arc<str>> {
        match self {
            Self::Sound => None,
            Self::Unsound { reason } => Some(reason),
        }
    }

    /// As it travels.
    pub(crate) fn to_wire(&self) -> v1::Condition {
        let reason = self.reason().map(ToString::to_string).unwrap_or_default();
        v1::Condition { sound: self.reason().is_none(), reason }
    }
}

impl Default for Board {
    /// Sound until something else is found.
    fn default() -> Self {
        Self(watch::Sender::new(Condition::Sound))
    }
}

impl Board {
    /// Makes this the condition.
    pub(crate) fn publish(&self, next: &Condition) {
        self.0.send_if_modified(|condition| {
            let changed = condition != next;
            if changed {
                *condition = next.clone();
            }
            changed
        });
    }

    /// Says that the device is not sound, where nobody said so before. True if so.
    pub(crate) fn condemn(&self, reason: &str) -> bool {
        self.0.send_if_modified(|condition| {
            let changed = *condition == Condition::Sound;
            if changed {
                *condition = Condition::Unsound { reason: reason.into() };
            }
            changed
        })
    }

    /// Why it is not sound now; none where it is.
    pub(crate) fn reason(&self) -> Option<Arc<str>> {
        self.0.borrow().reason().cloned()
    }

    /// A place from which a sound device is no news.
    pub(crate) fn news(&self) -> News {
        let mut changes = self.0.subscribe();
        changes.mark_changed();
        News { changes, told: Condition::Sound, _board: self.clone() }
    }
}

impl News {
    /// The condition, if it is another than the one that was taken last.
    pub(crate) fn take(&mut self) -> Option<Condition> {
        if !self.changes.has_changed().unwrap_or(false) {
            return None;
        }
        let condition = self.changes.borrow_and_update().clone();
        if condition == self.told {
            return None;
        }
        self.told = condition.clone();
        Some(condition)
    }

    /// Resolves with the next condition that is another than the one that was taken last.
    pub(crate) async fn next(&mut self) -> Condition {
        loop {
            if let Some(condition) = self.take() {
                return condition;
            }
            if self.changes.changed().await.is_err() {
                // Not while there is a board.
                std::future::pending::<()>().await;
            }
            self.changes.mark_changed();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    fn unsound(reason: &str) -> Condition {
        Condition::Unsound { reason: reason.into() }
    }

    #[test]
    fn only_a_change_is_news() {
        let board = Board::default();
        let mut early = board.news();
        assert_eq!(early.take(), None, "sound is what everybody expects");
        board.publish(&unsound("stuck"));
        assert_eq!((early.take(), early.take()), (Some(unsound("stuck")), None));
        assert_eq!(board.news().take(), Some(unsound("stuck")), "whoever comes later hears it first of all");
        board.publish(&Condition::Sound);
        board.publish(&unsound("stuck"));
        assert_eq!(early.take(), None, "what was told holds again");
        board.publish(&Condition::Sound);
        assert_eq!(early.take(), Some(Condition::Sound));
        assert_eq!(board.news().next().now_or_never(), None);
    }

    #[tokio::test]
    async fn whoever_waits_hears_of_a_change() {
        let board = Board::default();
        let mut news = board.news();
        let mut next = Box::pin(news.next());
        assert_eq!(next.as_mut().now_or_never(), None);
        assert!(board.condemn("stuck"));
        assert_eq!(next.await, unsound("stuck"));
    }

    #[test]
    fn the_first_reason_stays() {
        let board = Board::default();
        assert!(board.condemn("first") && !board.condemn("second"));
        assert_eq!(board.reason().as_deref(), Some("first"));
        assert_eq!(unsound("first").to_wire(), v1::Condition { sound: false, reason: "first".to_owned() });
        assert_eq!(Condition::Sound.to_wire(), v1::Condition { sound: true, reason: String::new() });
    }
}
