//! A call in two halves: launched, and taken in later. Between them the device computes the next call while the host takes in
//! what this one has found, and whole rows are copied beside it. Only what is one block and one part can be cut like that: it
//! has one side of the host's memory for itself until it is taken in. Knows nothing about what a part tells the device.

use super::engine::{DeviceEngine, Part};
use super::part::fed;
use super::side::Receive;
use super::slots::Slot;
use super::submission::Submission;
use crate::forward_error::ForwardError;
use crate::row::{Place, State};

impl DeviceEngine {
    /// Launches a call whose answers are taken in by [`DeviceEngine::collect`]; its states are the new ones at once. False
    /// where it can't be cut in two, or both sides are in use: then nothing has happened.
    pub(crate) fn submit(&mut self, parts: &mut [Part<'_>]) -> Result<bool, ForwardError> {
        let Some(side) = self.submitted.free_side() else { return Ok(false) };
        let tokens: usize = parts.iter().map(|part| part.tokens.len()).sum();
        let most = self.capacity.tokens.max(1);
        if parts.len() > most || tokens > most {
            return Ok(false);
        }
        let states = parts.iter().map(|part| self.own(part.state)).collect::<Result<Vec<_>, _>>()?;
        self.settle()?;
        let longest = parts.iter().map(|part| part.tokens.len()).max().unwrap_or(0);
        let fed = fed(parts, 0, &states, 0..longest.max(1));
        self.fill(&fed);
        let wanted = self.block.wanted.len();
        if self.ask(&fed, 0, side) < wanted {
            return Ok(false);
        }
        let (rows, outputs) = (self.sides[side].asks.rows(), self.weights.sizes.outputs);
        if rows.len() * outputs > self.sides[side].rows.numbers::<f32>().len() {
            return Ok(false);
        }
        let to = self.block.order.iter().map(|_| self.take()).collect::<Result<Vec<_>, _>>()?;
        self.is_unfinished = true;
        self.launch(&fed, &to, 0..wanted, side, true)?;
        let computed = self.launcher.mark()?;
        let copied = match rows.is_empty() {
            true => None,
            false => Some(self.copy_rows(&computed, side, side, rows)?),
        };
        self.is_unfinished = false;
        drop(fed);
        let slots = to.iter().map(Slot::index).collect();
        // What was read is free again: whatever writes there is launched behind this.
        for (&row, slot) in self.block.order.iter().zip(to) {
            *parts[row].state = State(Place::Slot(slot));
        }
        self.submitted.push(Submission { side, slots, computed, copied, is_lost: false });
        Ok(true)
    }

    /// Waits until the device has computed all that was submitted. Whole rows may still be on their way.
    pub(crate) fn wait(&mut self) -> Result<(), ForwardError> {
        let waited = self.submitted.computed().map_or(Ok(()), |computed| self.launcher.wait(computed));
        Ok(self.heed(waited)?)
    }

    /// Hands over what the oldest submitted call has found, once that is there. After an error its states are none.
    pub(crate) fn collect(&mut self, receive: Receive<'_>) -> Result<(), ForwardError> {
        let Submission { side, computed, copied, is_lost, .. } =
            self.submitted.pop().ok_or(ForwardError::NothingSubmitted)?;
        if is_lost {
            return Err(candle_core::Error::msg("the device failed while it was at this call").into());
        }
        let arrived = self.launcher.wait(copied.as_ref().unwrap_or(&computed));
        self.heed(arrived)?;
        let (sizes, side) = (self.weights.sizes, &self.sides[side]);
        let (rows, count) = (side.asks.rows(), side.asks.asks.len());
        let copy = side.rows.numbers::<f32>();
        side.hand_over(0..rows.start, receive);
        for (index, row) in rows.clone().zip(copy.chunks_exact(sizes.outputs)) {
            side.hand_over_row(index, &row[..sizes.vocabulary], receive);
        }
        side.hand_over(rows.end..count, receive);
        Ok(())
    }
}
