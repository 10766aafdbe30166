//! A part of a call: as many of its wanted distributions as fit into a side of the host's memory, the first one with the block
//! of tokens that is fed. What it tells the device, and that its launches are made. Knows nothing about which launches those
//! are, nor who waits for them.

use std::ops::Range;

use super::call::Words;
use super::engine::{DeviceEngine, Part};
use super::launches::Launches;
use super::output::{OutputPlaces, slot_source};
use super::recording::{Recording, Selection};
use super::recurrence::{BlockPlaces, is_few};
use super::side::{Asked, Side};
use super::slots::Slot;
use crate::block::{Block, Source, Wanted};
use crate::forward_error::ForwardError;
use crate::packing::Packing;
use crate::row::Want;
use chorus_kernels::AskKind;
use chorus_simd::Reduction;

/// Tokens of a sequence that are fed together.
#[derive(Debug, Clone)]
pub(super) struct Fed<'a> {
    /// Which row of the call.
    pub(super) row: usize,
    pub(super) from: Slot,
    pub(super) tokens: &'a [u32],
    pub(super) want: Want,
    pub(super) reduction: Reduction<'a>,
    /// Of the row's distributions the first that these tokens want.
    pub(super) offset: usize,
}

impl DeviceEngine {
    /// Takes in a block. Those who want whole rows come last, so that these stand one behind the other.
    pub(super) fn fill(&mut self, fed: &[Fed<'_>]) {
        self.block.fill(fed.iter().map(|fed| (fed.tokens, fed.want)));
        self.block.wanted.sort_by_key(|wanted| matches!(fed[wanted.row].reduction, Reduction::Row));
    }

    /// Takes as many wanted distributions, from one of the block's on, as fit into a side. How many those are.
    pub(super) fn ask(&mut self, fed: &[Fed<'_>], start: usize, side: usize) -> usize {
        let vocabulary = self.weights.sizes.vocabulary;
        let Self { sides, block, .. } = self;
        let side = &mut sides[side];
        side.clear();
        for wanted in &block.wanted[start..] {
            let row = &fed[wanted.row];
            let target = row.tokens.get(wanted.offset).copied().filter(|_| row.want == Want::Each);
            let (offset, reduction) = (row.offset + wanted.offset, row.reduction);
            if !side.ask(Asked { row: row.row, offset, reduction, target }, vocabulary) {
                break;
            }
        }
        side.asks.asks.len()
    }

    /// Makes the launches of what a side asks, of these wanted distributions; the first part's with those of the block.
    pub(super) fn launch(
        &mut self,
        fed: &[Fed<'_>],
        to: &[Slot],
        wanted: Range<usize>,
        side: usize,
        is_first: bool,
    ) -> Result<(), ForwardError> {
        let Self { launcher, weights, regions, memory, block, sides, .. } = self;
        let answer_places = sides[side].answer_places();
        let Side { words: host_words, asks, .. } = &mut sides[side];
        let packing = &block.packing;
        let has_block = is_first && !block.order.is_empty();
        let mut words = Words::new(host_words.numbers_mut::<u32>());
        let block_places = has_block.then(|| BlockPlaces {
            tokens: words.list(block.tokens.iter().copied()),
            offsets: words.list(
                (0..packing.steps())
                    .map(|step| packing.span(step).start as u32)
                    .chain([packing.rows() as u32]),
            ),
            from: words.list(block.order.iter().map(|&index| fed[index].from.index())),
            to: words.list(to.iter().map(Slot::index)),
        });
        let has_hidden = !block.order.is_empty() && !is_few(weights.kind, packing);
        let wanted = &block.wanted[wanted];
        let sources = wanted.iter().map(|wanted| source(wanted, fed, block, to));
        let output_places = (!wanted.is_empty()).then(|| OutputPlaces {
            sources: words.list(sources.clone()),
            asks: words.asks(&asks.asks),
            ids: words.list(asks.ids.iter().copied()),
            rows: wanted.len(),
            selection: if has_hidden && are_in_order(wanted, packing) {
                Selection::Block
            } else if sources.clone().all(|source| source & chorus_kernels::IS_SLOT != 0) {
                Selection::Slots
            } else {
                Selection::Mixed
            },
            are_read_again: asks.asks.iter().any(|ask| matches!(ask.kind, AskKind::Top | AskKind::Draw)),
        });
        let used = words.used();
        let source = host_words.address();
        // The launches of a step without ids are the same whenever it has as many rows on this side, of which as much is wanted.
        let is_step = is_first && packing.steps() == 1 && asks.ids.is_empty();
        let recording = is_step.then_some(Recording {
            rows: packing.batch(),
            wanted: output_places.map(|places| (places.rows, places.selection, places.are_read_again)),
            side,
        });
        let properties = launcher.properties();
        memory.write("lstm", |memory| {
            let launches = Launches { launcher, properties, weights, regions, memory, side };
            launcher.run(recording, &|| {
                launches.begin(source, used)?;
                block_places.map_or(Ok(()), |places| launches.block(packing, places))?;
                output_places.map_or(Ok(()), |places| launches.output(places, answer_places))
            })
        })?;
        Ok(())
    }
}

/// Where the hidden vector of a wanted distribution stands: states of sequences are in their slots.
fn source(wanted: &Wanted, fed: &[Fed<'_>], block: &Block, to: &[Slot]) -> u32 {
    match wanted.source {
        Source::Before => slot_source(fed[wanted.row].from.index()),
        Source::After { step, place } if step + 1 == block.packing.length(place) => {
            slot_source(to[place].index())
        }
        Source::After { step, place } => block.packing.row(step, place) as u32,
    }
}

/// Whether these are of the block's hidden vectors the first ones, one after the other.
fn are_in_order(wanted: &[Wanted], packing: &Packing) -> bool {
    wanted.iter().enumerate().all(|(index, wanted)| match wanted.source {
        Source::Before => false,
        Source::After { step, place } => packing.row(step, place) == index,
    })
}

/// What a block feeds of each row: these of its tokens.
pub(super) fn fed<'a>(
    parts: &'a [Part<'_>],
    first: usize,
    states: &[Slot],
    Range { start, end }: Range<usize>,
) -> Vec<Fed<'a>> {
    let fed = (first..).zip(parts).zip(states).filter_map(|((row, part), from)| {
        let is_last = end >= part.tokens.len();
        // Whoever has no tokens at all is in the first block.
        if start > 0 && start >= part.tokens.len() {
            return None;
        }
        let want = match part.want {
            Want::Next if !is_last => Want::Nothing,
            want => want,
        };
        let tokens = part.tokens.get(start..end.min(part.tokens.len())).unwrap_or(&[]);
        let offset = if part.want == Want::Each { start } else { 0 };
        Some(Fed { row, from: from.clone(), tokens, want, reduction: part.reduction, offset })
    });
    fed.collect()
}
