//! A call from its beginning to its end: cut into blocks of tokens, and these into parts of wanted distributions. While the
//! host takes in one part, the device computes the next. Knows nothing about what a part tells the device.

use std::ops::Range;

use super::engine::{DeviceEngine, Part};
use super::launcher::{Lane, Mark};
use super::part::{Fed, fed};
use super::side::Receive;
use super::slots::Slot;
use super::weights::Sizes;
use crate::forward_error::ForwardError;
use crate::row::{Place, State};

/// Bytes of whole rows that are copied at a time, about: the first are taken in while the others are on their way. In tests of
/// this crate two rows are a piece.
const PIECE_BYTES: usize = if cfg!(test) { 32 } else { 8 << 20 };

/// A part that was launched.
struct Pending {
    computed: Mark,
    side: usize,
}

impl DeviceEngine {
    /// Feeds every part's tokens and hands over what each wants: in order for each row, in any order between rows. On an
    /// error no state has changed.
    pub(crate) fn forward(
        &mut self,
        parts: &mut [Part<'_>],
        receive: Receive<'_>,
    ) -> Result<(), ForwardError> {
        if !self.submitted.is_empty() {
            return Err(ForwardError::UnderWay);
        }
        let mut states: Vec<Slot> =
            parts.iter().map(|part| self.own(part.state)).collect::<Result<_, _>>()?;
        let most = self.capacity.tokens.max(1);
        let mut first = 0;
        while first < parts.len() {
            let count = most.min(parts.len() - first);
            let group = first..first + count;
            self.group(&parts[group.clone()], first, &mut states[group], receive)?;
            first += count;
        }
        for (part, slot) in parts.iter_mut().zip(states) {
            *part.state = State(Place::Slot(slot));
        }
        Ok(())
    }

    /// Rows that are no more than tokens of a block, in as many blocks as their tokens take.
    fn group(
        &mut self,
        parts: &[Part<'_>],
        first: usize,
        states: &mut [Slot],
        receive: Receive<'_>,
    ) -> Result<(), ForwardError> {
        let total: usize = parts.iter().map(|part| part.tokens.len()).sum();
        let longest = parts.iter().map(|part| part.tokens.len()).max().unwrap_or(0);
        let each = if total <= self.capacity.tokens { longest } else { self.capacity.tokens / parts.len() };
        let mut start = 0;
        loop {
            let end = start + each.max(1);
            let fed = fed(parts, first, states, start..end);
            for (row, slot) in self.run(&fed, receive)? {
                states[row - first] = slot;
            }
            if end >= longest {
                return Ok(());
            }
            start = end;
        }
    }

    /// One block; returns the new state of every row that was fed.
    fn run(&mut self, fed: &[Fed<'_>], receive: Receive<'_>) -> Result<Vec<(usize, Slot)>, ForwardError> {
        self.settle()?;
        self.fill(fed);
        let to = self.block.order.iter().map(|_| self.take()).collect::<Result<Vec<_>, _>>()?;
        self.is_unfinished = true;
        self.compute(fed, &to, receive)?;
        self.is_unfinished = false;
        Ok(self.block.order.iter().map(|&index| fed[index].row).zip(to).collect())
    }

    /// The block, and the wanted distributions part by part.
    fn compute(&mut self, fed: &[Fed<'_>], to: &[Slot], receive: Receive<'_>) -> Result<(), ForwardError> {
        let mut pending: Option<Pending> = None;
        let (mut start, mut side) = (0, 0);
        loop {
            let is_first = start == 0;
            let count = self.ask(fed, start, side);
            if count > 0 || is_first {
                self.launch(fed, to, start..start + count, side, is_first)?;
            }
            let before = pending.replace(Pending { computed: self.launcher.mark()?, side });
            if let Some(before) = before {
                self.deliver(&before, receive)?;
            }
            start += count;
            if start >= self.block.wanted.len() {
                break;
            }
            side = 1 - side;
        }
        match pending {
            Some(last) => self.deliver(&last, receive),
            None => Ok(()),
        }
    }

    /// Hands over what was found, once the device is there.
    fn deliver(&mut self, pending: &Pending, receive: Receive<'_>) -> Result<(), ForwardError> {
        self.launcher.wait(&pending.computed)?;
        let asks = &self.sides[pending.side].asks;
        let (rows, count) = (asks.rows(), asks.asks.len());
        self.sides[pending.side].hand_over(0..rows.start, receive);
        self.deliver_rows(rows.clone(), pending, receive)?;
        self.sides[pending.side].hand_over(rows.end..count, receive);
        Ok(())
    }

    /// The same with whole rows: one copy is on its way while the rows of the last one are taken in.
    fn deliver_rows(
        &mut self,
        range: Range<usize>,
        Pending { computed, side }: &Pending,
        receive: Receive<'_>,
    ) -> Result<(), ForwardError> {
        let Sizes { outputs, vocabulary, .. } = self.weights.sizes;
        let room = self.sides[0].rows.numbers::<f32>().len() / outputs;
        let most = (PIECE_BYTES / (outputs * size_of::<f32>())).clamp(1, room.max(1));
        let pieces: Vec<Range<usize>> =
            range.clone().step_by(most).map(|first| first..(first + most).min(range.end)).collect();
        let mut copies: Vec<Mark> = Vec::with_capacity(pieces.len());
        for step in 0..=pieces.len() {
            if let Some(piece) = pieces.get(step) {
                copies.push(self.copy_rows(computed, *side, step % 2, piece.clone())?);
            }
            let Some(last) = step.checked_sub(1) else { continue };
            let (Some(piece), Some(copied)) = (pieces.get(last), copies.get(last)) else { continue };
            self.launcher.wait(copied)?;
            let copy = self.sides[last % 2].rows.numbers::<f32>();
            for (index, row) in piece.clone().zip(copy.chunks_exact(outputs)) {
                self.sides[*side].hand_over_row(index, &row[..vocabulary], receive);
            }
        }
        Ok(())
    }

    /// Starts to copy rows of a side's logits, once those are computed, to where one of the sides has room for rows.
    pub(super) fn copy_rows(
        &mut self,
        computed: &Mark,
        side: usize,
        to: usize,
        rows: Range<usize>,
    ) -> Result<Mark, ForwardError> {
        let row_bytes = self.weights.sizes.outputs * size_of::<f32>();
        let Self { launcher, regions, memory, sides, .. } = self;
        let copied = memory.write("copy-rows", |memory| {
            let from = regions.logits[side].at(memory).plus(rows.start * row_bytes);
            // SAFETY: the logits of this part stand there, until the side is used again; so does what they are copied to.
            unsafe {
                let rows = (&mut sides[to].rows, rows.len() * row_bytes);
                launcher.copy_out(Lane::Rows, Some(computed), from, rows.0, rows.1)
            }
        })?;
        Ok(copied)
    }
}
