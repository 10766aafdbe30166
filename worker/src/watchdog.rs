//! A look at the model's turns from outside: one that does not end is a device that is stuck, and the model's thread can't
//! say so itself.
//!
//! Turns are told apart by a count, and the looks are counted too, not the time: a process that was stopped for a while
//! and goes on has missed looks, and its device is not stuck. Knows nothing about models or streams.

use std::time::Duration;

use tokio::time::MissedTickBehavior;

use crate::{condition::Board, model_thread::Commands};

/// Looks at one and the same turn after which it is stuck.
const LOOKS: u32 = 10;

/// What the looks so far have shown.
#[derive(Debug, Default)]
struct Looks {
    /// The turn that was under way at the last look.
    turn: Option<u64>,
    /// How often it was seen since the first time.
    again: u32,
}

impl Looks {
    /// One look at the turn that is under way, if any; whether it is stuck.
    fn look(&mut self, turn: Option<u64>) -> bool {
        if turn.is_some() && turn == self.turn {
            self.again += 1;
        } else {
            *self = Self { turn, again: 0 };
        }
        self.again >= LOOKS
    }
}

/// Looks again and again, and condemns a device that is busy with one turn for longer than `stuck_after`. Never resolves.
pub(crate) async fn watch(commands: Commands, board: Board, stuck_after: Duration) {
    let mut looks = Looks::default();
    let mut ticks = tokio::time::interval(stuck_after / LOOKS);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if !looks.look(commands.turn_under_way()) {
            continue;
        }
        let seconds = stuck_after.as_secs_f64();
        let reason = format!("the device has been busy with one forward for {seconds} s");
        if board.condemn(&reason) {
            tracing::error!(reason, "the device is not sound");
            // Where the turn ended in this very moment, the model hears of it now.
            commands.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_turn_that_does_not_end_is_stuck() {
        let mut looks = Looks::default();
        assert!((0..100).all(|_| !looks.look(None)), "nobody asks anything");
        assert!((0..100).all(|turn| !looks.look(Some(turn))), "busy all the time");
        let seen: Vec<bool> = (0..LOOKS + 3).map(|_| looks.look(Some(100))).collect();
        assert_eq!(seen.iter().position(|stuck| *stuck), Some(LOOKS as usize));
        assert!(seen[LOOKS as usize..].iter().all(|stuck| *stuck), "it stays stuck");
        assert!(!looks.look(Some(101)) && !looks.look(None));
    }
}
