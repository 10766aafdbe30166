//! Exponents of `log_linear`. Knows nothing about how they are written or shown.

use std::error::Error;
use std::ops::{ControlFlow, Range};

use anyhow::Context as _;
use chorus_tune::log_linear::{self, DenseRows};
use chorus_tune::{Progress, equal_shares, surviving_sets};

use super::args::{Learning, TuneArgs};
use super::learned::{Learned, Perplexities, Quality, Set};
use super::{spinner, warn_of_left_out};
use crate::learn::{HeldOut, ROWS, Rows, RunningEnsemble, collect_rows};

/// The rows of some members.
struct Chosen<'a> {
    rows: &'a Rows,
    /// Their places.
    members: &'a [usize],
}

impl DenseRows for Chosen<'_> {
    fn members(&self) -> usize {
        self.members.len()
    }

    fn vocab_size(&self) -> usize {
        self.rows.vocabulary_size()
    }

    fn tokens(&self) -> usize {
        self.rows.tokens()
    }

    fn read(
        &self,
        tokens: Range<usize>,
        rows: &mut [f32],
        targets: &mut [u32],
    ) -> Result<(), Box<dyn Error + Send + Sync>> {
        let size = self.rows.vocabulary_size();
        let mut all = vec![0.0; self.rows.members() * size];
        let chunks = rows.chunks_exact_mut(self.members.len() * size);
        for ((token, rows), target) in tokens.zip(chunks).zip(targets) {
            *target = self.rows.read(token, &mut all)?;
            for (row, member) in rows.chunks_exact_mut(size).zip(self.members) {
                row.copy_from_slice(all.get(member * size..(member + 1) * size).ok_or("no such member")?);
            }
        }
        Ok(())
    }
}

pub(super) async fn learn(
    arguments: &TuneArgs,
    learning: Learning,
    ensemble: &RunningEnsemble,
    text: &HeldOut,
) -> anyhow::Result<Learned> {
    let cache = arguments.collect.cache(ROWS, text, ensemble)?;
    let collecting = arguments.collect.collecting(ensemble, &cache, text, "asking for whole distributions");
    let collected = collect_rows(&collecting, text.parts.clone()).await?;
    warn_of_left_out(&collected);
    let rows = Rows::open(&cache, &collected.parts, ensemble.vocabulary.len() as usize)?;
    of_rows(learning, ensemble.identity.names(), &rows, &text.origin)
}

fn of_rows(learning: Learning, names: Vec<String>, rows: &Rows, origin: &str) -> anyhow::Result<Learned> {
    let bar = spinner("learning")?;
    let all: Vec<usize> = (0..names.len()).collect();
    let whole = Chosen { rows, members: &all };
    let mut sets = Vec::new();
    let mut best = None;
    let survivors = surviving_sets(names.len());
    let count = survivors.len();
    for (number, members) in survivors.into_iter().enumerate() {
        let mut observer = |progress: &Progress| {
            bar.set_message(format!(
                "learning: set {} of {count}, pass {}, {:.6} nats a token",
                number + 1,
                progress.passes,
                -progress.best
            ));
            bar.tick();
            ControlFlow::Continue(())
        };
        let chosen = Chosen { rows, members: &members };
        let (weights, mean_log_prob) = if members.len() == 1 {
            (vec![1.0], log_linear::mean_log_prob(&chosen, &[1.0])?)
        } else {
            let learned = log_linear::learn(&chosen, &learning.method, &mut observer)?;
            let found = (learned.weights.clone(), learned.mean_log_prob);
            best.get_or_insert(learned);
            found
        };
        let perplexity = (-mean_log_prob).exp();
        sets.push(Set { members, weights, value: Some(perplexity).filter(|value| value.is_finite()) });
    }
    let mut observer = |progress: &Progress| {
        bar.set_message(format!(
            "learning: fold {} of {}, pass {}",
            progress.part + 1,
            progress.parts,
            progress.passes
        ));
        bar.tick();
        ControlFlow::Continue(())
    };
    let folds = learning
        .folds
        .map(|folds| log_linear::cross_validate(&whole, &learning.method, folds, &mut observer));
    let folds = folds.transpose().with_context(|| format!("{origin} can't be cut into folds"))?;
    bar.finish_and_clear();
    let equal = (-log_linear::mean_log_prob(&whole, &equal_shares(names.len()))?).exp();
    let (weights, learned, duality_gap) = match &best {
        Some(best) => (best.weights.clone(), best.perplexity, best.duality_gap),
        // One member has nothing to share.
        None => (vec![1.0], equal, 0.0),
    };
    let alone = |member: usize| sets.iter().find(|set| set.members == [member]).and_then(|set| set.value);
    let perplexities = Perplexities {
        members: all.iter().map(|member| alone(*member).unwrap_or(f64::INFINITY)).collect(),
        equal,
        learned,
        duality_gap,
        folds,
        values: None,
    };
    Ok(Learned {
        method: learning.name(),
        tokens: rows.tokens(),
        members: names,
        weights,
        sets,
        quality: Quality::Perplexity(Box::new(perplexities)),
    })
}
