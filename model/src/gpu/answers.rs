//! What is asked of wanted distributions, as kernels take it, and what they found, as callers do. Knows nothing about how
//! anything is found.

use std::ops::Range;

use chorus_kernels::{Answer, Ask, AskKind, NO_TOKEN};
use chorus_simd::{Norm, Reduced, Reduction};

/// Asks of a part of the wanted distributions, with what they share: a list of ids, and room for lists.
#[derive(Debug, Default)]
pub(super) struct Asks {
    pub(super) asks: Vec<Ask>,
    pub(super) ids: Vec<u32>,
    /// Words of all lists.
    list_words: usize,
}

/// How much a part may ask for at most.
#[derive(Debug, Clone, Copy)]
pub(super) struct Room {
    pub(super) asks: usize,
    /// Ids, as long as there is more than one ask.
    pub(super) ids: usize,
    /// Words of lists, likewise.
    pub(super) list_words: usize,
}

impl Asks {
    pub(super) fn clear(&mut self) {
        self.asks.clear();
        self.ids.clear();
        self.list_words = 0;
    }

    /// Takes an ask in, unless the part would leave its room by it. The first one always gets in.
    pub(super) fn push(
        &mut self,
        reduction: Reduction<'_>,
        target: Option<u32>,
        vocabulary: usize,
        room: Room,
    ) -> bool {
        let entries = most_entries(reduction, vocabulary);
        let ids: &[u32] = match reduction {
            Reduction::Ids(ids) => ids,
            _ => &[],
        };
        // A list has ids and logits.
        let words = 2 * entries;
        let fits = self.asks.len() < room.asks
            && self.ids.len() + ids.len() <= room.ids
            && self.list_words + words <= room.list_words;
        if !fits && !self.asks.is_empty() {
            return false;
        }
        let (kind, count, number) = match reduction {
            Reduction::Norm | Reduction::Target => (AskKind::Norm, 0, 0.0),
            Reduction::Row => (AskKind::Row, 0, 0.0),
            Reduction::Top { k, log_threshold } => (AskKind::Top, k, log_threshold.unwrap_or(f64::INFINITY)),
            Reduction::Ids(ids) => (AskKind::Ids, ids.len(), 0.0),
            Reduction::Draw { uniform } => (AskKind::Draw, 0, uniform),
        };
        self.asks.push(Ask {
            kind,
            target: target.unwrap_or(NO_TOKEN),
            count: word(count),
            ids: word(self.ids.len()),
            list: word(self.list_words),
            room: word(entries),
            number,
        });
        self.ids.extend(ids);
        self.list_words += words;
        true
    }

    /// From the first to the last ask for a whole row; empty where there is none.
    pub(super) fn rows(&self) -> Range<usize> {
        let wants_row = |ask: &Ask| ask.kind == AskKind::Row;
        let first = self.asks.iter().position(wants_row).unwrap_or(0);
        first..self.asks.iter().rposition(wants_row).map_or(first, |last| last + 1)
    }
}

/// What was found about one distribution, for the caller. `row` is the whole row where that was asked for.
pub(super) fn found<'a>(
    ask: &Ask,
    answer: &Answer,
    lists: &'a [u32],
    row: &'a [f32],
) -> (Norm, Option<f32>, Reduced<'a>) {
    let norm = Norm { largest: answer.largest, log_sum: answer.log_sum };
    let target = (ask.target != NO_TOKEN).then_some(answer.target);
    if !norm.is_finite() {
        // Nothing is known of such a row, but that it is one.
        let reduced = if ask.kind == AskKind::Row { Reduced::Row(row) } else { Reduced::Norm };
        return (norm, None, reduced);
    }
    let (start, room) = (ask.list as usize, ask.room as usize);
    let list =
        |start: usize, count: u32| lists.get(start..start + count.min(ask.room) as usize).unwrap_or(&[]);
    let reduced = match ask.kind {
        AskKind::Norm => Reduced::Norm,
        AskKind::Row => Reduced::Row(row),
        AskKind::Top => Reduced::Top {
            ids: list(start, answer.count),
            logits: bytemuck::cast_slice(list(start + room, answer.count)),
        },
        AskKind::Ids => Reduced::Ids(bytemuck::cast_slice(list(start, ask.count))),
        AskKind::Draw => Reduced::Drawn(answer.drawn),
    };
    (norm, target, reduced)
}

/// Entries of the list that an ask may come to.
pub(super) fn most_entries(reduction: Reduction<'_>, vocabulary: usize) -> usize {
    match reduction {
        Reduction::Norm | Reduction::Target | Reduction::Row | Reduction::Draw { .. } => 0,
        Reduction::Ids(ids) => ids.len(),
        Reduction::Top { k, log_threshold } => {
            // At most 1 / p tokens have a probability above p; a number for rounding.
            let above =
                log_threshold.map_or(0, |threshold| (-threshold).exp().ceil() as usize).saturating_add(1);
            k.max(above).min(vocabulary)
        }
    }
}

fn word(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
