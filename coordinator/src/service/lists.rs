//! Whether a generation's members are asked for their likeliest tokens first, or for whole rows at once: where short lists were
//! in vain step after step, as where everything is about as likely as everything else, each of them costs a question more.
//!
//! Knows nothing about what is asked or answered. What a step comes to is the same either way, to the bit.

/// Steps in a row that short lists leave open before rows are asked for at once. One such step says nothing: language has
/// them now and then.
const PATIENCE: u32 = 3;
/// Steps until lists are tried again, at most: a text may become predictable.
const LONGEST_PAUSE: u32 = 64;

/// What became of the lists of one generation.
#[derive(Debug, Default)]
pub(super) struct Lists {
    /// Steps in a row that they left open.
    in_vain: u32,
    /// Steps that are still to be made by rows.
    pause: u32,
}

impl Lists {
    /// Whether the next step is to begin with them; to be asked once for each step.
    pub(super) fn are_due(&mut self) -> bool {
        let are_due = self.pause == 0;
        self.pause = self.pause.saturating_sub(1);
        are_due
    }

    /// Takes in whether a step that began with them was decided without longer ones.
    pub(super) fn were_enough(&mut self, enough: bool) {
        self.in_vain = if enough { 0 } else { self.in_vain.saturating_add(1) };
        if let Some(beyond) = self.in_vain.checked_sub(PATIENCE) {
            self.pause = 4_u32.saturating_mul(1 << beyond.min(8)).min(LONGEST_PAUSE);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Which of so many steps begin with lists, that are enough where it says.
    fn with_lists(steps: usize, enough: impl Fn(usize) -> bool) -> Vec<usize> {
        let mut lists = Lists::default();
        let due = (0..steps).filter(|step| {
            let are_due = lists.are_due();
            if are_due {
                lists.were_enough(enough(*step));
            }
            are_due
        });
        due.collect()
    }

    #[test]
    fn lists_that_are_always_in_vain_are_tried_ever_less_often() {
        let tried = with_lists(400, |_| false);
        assert_eq!(tried, [0, 1, 2, 7, 16, 33, 66, 131, 196, 261, 326, 391]);
    }

    #[test]
    fn lists_that_are_in_vain_now_and_then_are_asked_for_at_every_step() {
        for enough in [|step| step % 3 == 0, |step| step % 7 != 0, |_| true] {
            assert_eq!(with_lists(100, enough).len(), 100);
        }
    }

    #[test]
    fn lists_that_are_enough_again_are_asked_for_again() {
        let tried = with_lists(200, |step| step >= 100);
        // The first attempt after the change is at 131, and all that follow.
        assert_eq!(tried.iter().filter(|step| **step >= 100).count(), 200 - 131);
    }
}
