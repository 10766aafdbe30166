//! What fusing rows and choosing a token costs, by the size of the vocabulary: the coordinator's work for one token of the
//! dense plan, on one thread.
//!
//! `cargo bench -p chorus-coordinator` prints medians; `cargo bench -p chorus-coordinator -- top_p` those of one case. The
//! rows stand in the caches, as they do when an answer has just been read.

#![allow(clippy::unwrap_used)]

use bytes::BytesMut;
use chorus_coordinator::fusion::{Fused, Fusion, Norm, Row, Rule, Scratch, fuse};
use chorus_coordinator::sampling::Sampling;
use chorus_proto::v1::{Logits, Norms, RowFormat};
use chorus_proto::{native_rows, put_values};
use chorus_simd::norm;
use divan::{Bencher, black_box};

const SIZES: [usize; 4] = [256, 10_000, 33_278, 100_000];
const PLAIN: Sampling = Sampling { temperature: 1.0, top_k: 0, top_p: 1.0 };
const GREEDY: Sampling = Sampling { temperature: 0.0, ..PLAIN };

fn main() {
    divan::main();
}

/// Rows as language models give them: a Zipfian head that the members agree about, and noise of their own.
fn rows(members: usize, vocabulary_size: usize) -> Vec<(Vec<f32>, Norm)> {
    let mix = |value: u64| {
        let mixed = (value ^ (value >> 31)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        (mixed ^ (mixed >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9) >> 32
    };
    let unit = |value: u64| mix(value) as f32 / u32::MAX as f32;
    let row = |member: u64| -> Vec<f32> {
        let logit = |id: u64| {
            let rank = 1.0 + unit(id) * vocabulary_size as f32;
            unit(id + (member << 32)) - 1.3 * rank.ln()
        };
        (0..vocabulary_size as u64).map(logit).collect()
    };
    let rows = (1..=members as u64).map(row);
    rows.map(|row| (norm(&row), row)).map(|(norm, row)| (row, norm)).collect()
}

fn run(bencher: Bencher<'_, '_>, members: usize, vocabulary_size: usize, rule: Rule, sampling: Sampling) {
    let rows = rows(members, vocabulary_size);
    let rows = rows.iter().map(|(logits, norm)| (1.0, Row::new(logits, *norm, vocabulary_size).unwrap()));
    let rows: Vec<(f64, Row<'_>)> = rows.collect();
    let fusion = Fusion { rule, threshold: 0.1 };
    let (mut token, mut scratch) = (0, Scratch::default());
    bencher.bench_local(|| {
        token += 1;
        match fuse(&fusion, black_box(&rows), &mut scratch).unwrap() {
            Fused::Distribution(mut distribution) => {
                sampling.choose(&mut distribution, f64::from(token % 1000) / 1000.0)
            }
            Fused::Winner(winner) => winner.id,
        }
    });
}

#[divan::bench(args = SIZES)]
fn greedy(bencher: Bencher<'_, '_>, vocabulary_size: usize) {
    run(bencher, 3, vocabulary_size, Rule::WeightedAverage, GREEDY);
}

#[divan::bench(args = SIZES)]
fn plain(bencher: Bencher<'_, '_>, vocabulary_size: usize) {
    run(bencher, 3, vocabulary_size, Rule::WeightedAverage, PLAIN);
}

#[divan::bench(args = SIZES)]
fn top_p(bencher: Bencher<'_, '_>, vocabulary_size: usize) {
    run(bencher, 3, vocabulary_size, Rule::WeightedAverage, Sampling { top_p: 0.9, ..PLAIN });
}

#[divan::bench(args = SIZES)]
fn top_k(bencher: Bencher<'_, '_>, vocabulary_size: usize) {
    run(bencher, 3, vocabulary_size, Rule::WeightedAverage, Sampling { top_k: 40, ..PLAIN });
}

#[divan::bench(args = SIZES)]
fn temperature(bencher: Bencher<'_, '_>, vocabulary_size: usize) {
    run(bencher, 3, vocabulary_size, Rule::WeightedAverage, Sampling { temperature: 0.8, ..PLAIN });
}

#[divan::bench(args = SIZES)]
fn log_linear_greedy(bencher: Bencher<'_, '_>, vocabulary_size: usize) {
    run(bencher, 3, vocabulary_size, Rule::LogLinear, GREEDY);
}

#[divan::bench(args = SIZES)]
fn vote(bencher: Bencher<'_, '_>, vocabulary_size: usize) {
    run(bencher, 3, vocabulary_size, Rule::ThresholdVote, GREEDY);
}

#[divan::bench(args = [10_000])]
fn greedy_of_64_members(bencher: Bencher<'_, '_>, vocabulary_size: usize) {
    run(bencher, 64, vocabulary_size, Rule::WeightedAverage, GREEDY);
}

/// What is checked of a row where it is read.
#[divan::bench(args = SIZES)]
fn check(bencher: Bencher<'_, '_>, vocabulary_size: usize) {
    let rows = rows(1, vocabulary_size);
    let (logits, norm) = &rows[0];
    bencher.bench_local(|| Row::new(black_box(logits), *norm, vocabulary_size).is_ok());
}

/// One member draws from its own row.
#[divan::bench(args = SIZES)]
fn draw_of_one(bencher: Bencher<'_, '_>, vocabulary_size: usize) {
    let rows = rows(1, vocabulary_size);
    let (logits, norm) = &rows[0];
    bencher.bench_local(|| chorus_simd::draw(black_box(logits), *norm, 0.7));
}

/// Rows of f16 and bf16 are widened where they are read.
#[divan::bench(args = [RowFormat::F16, RowFormat::Bf16])]
fn widen_10_000(bencher: Bencher<'_, '_>, format: RowFormat) {
    let (logits, _) = rows(1, 10_000).remove(0);
    let mut bytes = Vec::new();
    put_values(&mut bytes, logits.into_iter(), format);
    let norms = Some(Norms { largest: vec![0.0], log_sum: vec![0.5] });
    let (message, mut spare) = (Logits { values: bytes.into(), norms }, BytesMut::new());
    bencher.bench_local(|| native_rows(&message, format, 1, 10_000, &mut spare).unwrap().len());
}
