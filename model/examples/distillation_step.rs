//! What a teacher costs: the time of a whole training step with the text alone, with lists of its likeliest tokens and with
//! whole distributions.
//!
//! `cargo run --release -p chorus-model --example distillation_step -- [k] [V] [H] [B] [T]`

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use chorus_model::train::{
    CheckpointInterval, DataOrder, Decay, Distillation, Event, Material, OptimizerKind, RunSettings,
    SoftTargets, TargetForm, Texts, TrainingOptions, train,
};
use chorus_model::{Start, WeightType};

type Failure = Box<dyn std::error::Error>;

/// Interleaved, so that what else the machine does falls on all alike.
const ROUNDS: usize = 5;
const STEPS: usize = 8;

fn main() -> Result<(), Failure> {
    let numbers: Vec<usize> =
        std::env::args().skip(1).map(|number| number.parse()).collect::<Result<_, _>>()?;
    let number = |index: usize, default: usize| numbers.get(index).copied().unwrap_or(default);
    let (k, vocab_size) = (number(0, 32), number(1, 512));
    let (hidden_size, batch, bptt) = (number(2, 448), number(3, 32), number(4, 64));
    let tokens = batch * bptt * STEPS;
    let text: Vec<u32> = (0..tokens).map(|place| (place * 31 % vocab_size) as u32).collect();
    let forms = [None, Some(TargetForm::TopK(k)), Some(TargetForm::Dense)];
    let mut times = forms.map(|_| Vec::new());
    for _ in 0..ROUNDS {
        for (form, times) in forms.iter().zip(&mut times) {
            let options = options(form.is_some(), hidden_size, batch, bptt);
            let teacher = form.map(|form| teacher(form, tokens, vocab_size)).transpose()?;
            let texts = Texts { training: text.clone(), validation: text.clone(), vocab_size };
            times.extend(steps(options, Material { teacher, ..texts.into() })?);
        }
    }
    let medians = times.map(|mut times| {
        times.sort();
        times[times.len() / 2]
    });
    for (form, median) in forms.iter().zip(medians) {
        let name = form.map_or("text alone".to_owned(), |form| form.to_string());
        let ratio = median.as_secs_f64() / medians[0].as_secs_f64();
        println!("{name:12} {median:9.1?} a step, {ratio:.3} times that of the text alone");
    }
    Ok(())
}

fn options(taught: bool, hidden_size: usize, batch: usize, bptt: usize) -> TrainingOptions {
    TrainingOptions {
        name: "step".to_owned(),
        tokenizer: "none".to_owned(),
        embedding_size: 256,
        hidden_size,
        layers: 1,
        tied: false,
        start: Start::Token(0),
        forget_bias: None,
        dropout: 0.3,
        batch,
        bptt,
        optimizer: OptimizerKind::Adam,
        learning_rate: 0.003,
        decay: Decay::None,
        clip: 1.0,
        epochs: 1,
        patience: 1,
        seed: 1,
        order: DataOrder::Text,
        lines: None,
        distillation: taught.then_some(Distillation { hard_weight: 0.5, temperature: 1.0 }),
        weight_type: WeightType::F32,
    }
}

/// Each token half as likely as the one before it, from another one on at every position.
fn teacher(form: TargetForm, tokens: usize, vocab_size: usize) -> Result<SoftTargets, Failure> {
    let mut targets = SoftTargets::new(form, vocab_size, 1.0)?;
    let log_prob = |rank: usize| -(rank.min(100) as f32 + 1.0) * std::f32::consts::LN_2;
    for position in 0..tokens {
        let first = position * 7 % vocab_size;
        match form {
            TargetForm::TopK(k) => {
                let ids: Vec<u32> = (first..first + k).map(|id| (id % vocab_size) as u32).collect();
                targets.push_list(&ids, &(0..k).map(log_prob).collect::<Vec<_>>())?;
            }
            TargetForm::Dense => {
                let ranks = (0..vocab_size).map(|id| (id + vocab_size - first) % vocab_size);
                targets.push_dense(&ranks.map(log_prob).collect::<Vec<_>>())?;
            }
        }
    }
    Ok(targets)
}

/// The times of all steps but the first, which comes after the checkpoint of the beginning.
fn steps(options: TrainingOptions, material: Material) -> Result<Vec<Duration>, Failure> {
    let directory = tempfile::tempdir()?;
    let settings = RunSettings {
        directory: directory.path().join("run"),
        tokenizer_json: "{}".to_owned(),
        resume: false,
        checkpoint_every: CheckpointInterval::Steps(u64::MAX),
        metrics_every: u64::MAX,
    };
    let (mut last, mut times) = (Instant::now(), Vec::new());
    train(options, material, &settings, &mut |event| {
        let now = Instant::now();
        if matches!(event, Event::Step { .. }) {
            times.push(now - last);
        }
        last = now;
        // The epoch's end would validate.
        if times.len() + 1 < STEPS { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    Ok(times.split_off(1))
}
