//! What learning weights costs, by method and number of members, on texts of 30,000 tokens.
//!
//! `cargo bench -p chorus-tune` prints medians; `cargo bench -p chorus-tune -- em` those of one method. The tokens are drawn from
//! mixtures with known weights of members that agree about most.

#![allow(clippy::unwrap_used)]

use std::error::Error;
use std::ops::Range;

use chorus_tune::log_linear::{self, DenseRows};
use chorus_tune::synthetic::Conditionals;
use chorus_tune::vote::{Candidates, TokenCandidates};
use chorus_tune::{
    BayesOptions, EmOptions, GradientOptions, LogProbs, Method, cross_validate, learn, learn_sets, unobserved,
};
use divan::Bencher;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

const TOKENS: usize = 30_000;

fn main() {
    divan::main();
}

/// Members of which the first half has all the weight: weights that go to zero are what takes long.
fn text(members: usize) -> LogProbs {
    let mut random = ChaCha8Rng::seed_from_u64(1);
    let source = Conditionals::random([500, members, 50], 2.0, 0.8, &mut random);
    let truth: Vec<f64> =
        (0..members).map(|member| if member < members.div_ceil(2) { 1.0 } else { 0.0 }).collect();
    let truth = chorus_tune::shares(&truth, members).unwrap();
    source.log_probs(&source.draw(&truth, TOKENS, &mut random)).unwrap()
}

#[divan::bench(args = [3, 8])]
fn em(bencher: Bencher<'_, '_>, members: usize) {
    let text = text(members);
    bencher.bench_local(|| learn(&text, &Method::Em(EmOptions::default()), &mut unobserved).unwrap());
}

#[divan::bench(args = [3, 8], sample_count = 10)]
fn gradient(bencher: Bencher<'_, '_>, members: usize) {
    let text = text(members);
    let method = Method::Gradient(GradientOptions::default());
    bencher.bench_local(|| learn(&text, &method, &mut unobserved).unwrap());
}

#[divan::bench(args = [3, 8], sample_count = 10)]
fn bayes(bencher: Bencher<'_, '_>, members: usize) {
    let text = text(members);
    let method = Method::Bayes(BayesOptions::default());
    bencher.bench_local(|| learn(&text, &method, &mut unobserved).unwrap());
}

#[divan::bench(args = [3, 8], sample_count = 10)]
fn ten_folds(bencher: Bencher<'_, '_>, members: usize) {
    let text = text(members);
    bencher.bench_local(|| cross_validate(&text, &Method::default(), 10, &mut unobserved).unwrap());
}

#[divan::bench(args = [3, 8], sample_count = 5)]
fn all_sets(bencher: Bencher<'_, '_>, members: usize) {
    let text = text(members);
    bencher.bench_local(|| learn_sets(&text, &EmOptions::default(), &mut unobserved).unwrap());
}

/// Rows that are made when they are read.
struct Rows {
    vocab_size: usize,
    tokens: usize,
}

impl DenseRows for Rows {
    fn members(&self) -> usize {
        3
    }

    fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    fn tokens(&self) -> usize {
        self.tokens
    }

    fn read(
        &self,
        tokens: Range<usize>,
        rows: &mut [f32],
        targets: &mut [u32],
    ) -> Result<(), Box<dyn Error + Send + Sync>> {
        let mix = |value: u32| (value ^ (value >> 15)).wrapping_mul(0x2C1B_3C6D) >> 8;
        for (place, row) in rows.chunks_exact_mut(self.vocab_size).enumerate() {
            let seed = (tokens.start * 3 + place) as u32;
            let noise = |id: u32| mix(id.wrapping_add(seed.wrapping_mul(7919))) as f32 / (1 << 24) as f32;
            (0..).zip(row).for_each(|(id, value)| *value = 4.0 * noise(id) - 1.0 - (1.0 + id as f32).ln());
        }
        let target = |token: usize| mix(token as u32) % 50;
        tokens.zip(targets).for_each(|(token, id)| *id = target(token));
        Ok(())
    }
}

/// Two thousand tokens of three members: the vocabulary is what costs.
#[divan::bench(args = [256, 10_000], sample_count = 2, sample_size = 1)]
fn log_linear_by_gradient(bencher: Bencher<'_, '_>, vocab_size: usize) {
    let rows = Rows { vocab_size, tokens: 2000 };
    let method = Method::Gradient(GradientOptions::default());
    bencher.bench_local(|| log_linear::learn(&rows, &method, &mut unobserved).unwrap());
}

/// The weights of a vote on texts of which most tokens are decided by votes, and some by weights.
#[divan::bench(args = [3, 8], sample_count = 3)]
fn vote_weights(bencher: Bencher<'_, '_>, members: usize) {
    let mut random = ChaCha8Rng::seed_from_u64(2);
    let source = Conditionals::random([500, members, 8], 2.0, 0.8, &mut random);
    let truth = chorus_tune::equal_shares(members);
    let mut text = Candidates::new(members).unwrap();
    for (context, target) in source.draw(&truth, TOKENS, &mut random) {
        let rows = source.rows(context);
        let log_probs: Vec<f64> = (0..8).flat_map(|id| rows.iter().map(move |row| row[id].ln())).collect();
        let target = target as u32;
        text.push(TokenCandidates { ids: &[0, 1, 2, 3, 4, 5, 6, 7], log_probs: &log_probs, target }).unwrap();
    }
    bencher.bench_local(|| text.learn_weights(0.1, &[], &mut unobserved).unwrap());
}
