//! Whole runs on small sources: entropy rate, determinism, resumption, refusals.

use std::fs;
use std::ops::ControlFlow;
use std::path::Path;

use super::checkpoint::Tensors;
use super::random::{Purpose, generator, uniform};
use super::trainer::Trainer;
use super::*;
use crate::config::Start;
use crate::weights::WeightType;

/// A chain of order 1 over three tokens.
pub(super) const TRANSITIONS: [[f32; 3]; 3] = [[0.8, 0.15, 0.05], [0.1, 0.1, 0.8], [0.3, 0.6, 0.1]];

pub(super) fn markov(tokens: usize, seed: u64) -> Vec<u32> {
    let mut generator = generator(seed, Purpose::Order, 0);
    let mut present = 0usize;
    let mut draw = || {
        let number = uniform(&mut generator);
        let [first, second, _] = TRANSITIONS[present];
        present = usize::from(number >= first) + usize::from(number >= first + second);
        present as u32
    };
    (0..tokens).map(|_| draw()).collect()
}

/// -Σ π_a P(b|a) log P(b|a), the stationary distribution π by repeated application of the chain.
fn entropy_rate() -> f64 {
    let mut stationary = [1.0 / 3.0; 3];
    for _ in 0..200 {
        let next = |to: usize| (0..3).map(|from| stationary[from] * f64::from(TRANSITIONS[from][to])).sum();
        stationary = [next(0), next(1), next(2)];
    }
    let entropy = |row: &[f32; 3]| -> f64 { row.iter().map(|&p| -f64::from(p) * f64::from(p).ln()).sum() };
    stationary.iter().zip(&TRANSITIONS).map(|(weight, row)| weight * entropy(row)).sum()
}

pub(super) fn options() -> TrainingOptions {
    TrainingOptions {
        name: "chain".to_owned(),
        tokenizer: "none".to_owned(),
        embedding_size: 4,
        hidden_size: 8,
        layers: 1,
        tied: false,
        start: Start::Token(0),
        forget_bias: None,
        dropout: 0.2,
        batch: 4,
        bptt: 8,
        optimizer: OptimizerKind::Adam,
        learning_rate: 0.01,
        decay: Decay::Cosine,
        clip: 1.0,
        epochs: 3,
        patience: 3,
        seed: 1,
        order: DataOrder::Text,
        lines: None,
        distillation: None,
        weight_type: WeightType::F32,
    }
}

pub(super) fn texts() -> Texts {
    Texts { training: markov(400, 1), validation: markov(200, 2), vocab_size: 3 }
}

pub(super) fn settings(directory: &Path) -> RunSettings {
    RunSettings {
        directory: directory.to_owned(),
        tokenizer_json: "{}".to_owned(),
        resume: false,
        checkpoint_every: CheckpointInterval::Steps(5),
        metrics_every: 3,
    }
}

fn run(options: &TrainingOptions, settings: &RunSettings) -> Result<Outcome, TrainError> {
    train(options.clone(), texts(), settings, &mut |_| ControlFlow::Continue(()))
}

#[test]
fn two_runs_do_not_write_into_one_directory() {
    let root = tempfile::tempdir().unwrap();
    let directory = root.path().join("out");
    let mut refusals = Vec::new();
    train(options(), texts(), &settings(&directory), &mut |_| {
        let second = run(&options(), &RunSettings { resume: true, ..settings(&directory) });
        refusals.push(second.unwrap_err().to_string());
        ControlFlow::Continue(())
    })
    .unwrap();
    assert!(refusals.iter().all(|refusal| refusal.ends_with("another run writes into this directory")));
    assert!(!refusals.is_empty());
}

/// Weights, moments and state after `steps` steps, epochs' ends included.
fn after(steps: usize, options: &TrainingOptions) -> Tensors {
    let mut trainer = Trainer::new(options.clone(), texts()).unwrap();
    (0..steps).for_each(|_| advance(&mut trainer));
    trainer.tensors().unwrap()
}

pub(super) fn advance(trainer: &mut Trainer) {
    if trainer.epoch_is_done() {
        trainer.end_epoch().unwrap();
    }
    trainer.step().unwrap();
}

/// The bits of every tensor, since equal means equal to the bit here (and NaN would equal nothing).
pub(super) fn bits(tensors: &Tensors) -> std::collections::BTreeMap<&String, Vec<u32>> {
    tensors.iter().map(|(name, (_, values))| (name, values.iter().map(|v| v.to_bits()).collect())).collect()
}

/// A line of the metrics without the one number that is measured by the clock.
pub(super) fn timeless(directory: &Path) -> Vec<MetricsLine> {
    let lines = read_metrics(&directory.join("metrics.jsonl")).unwrap();
    lines.into_iter().map(|line| MetricsLine { tokens_per_second: 0.0, ..line }).collect()
}

#[test]
fn a_markov_source_is_learned_to_its_entropy_rate() {
    let directory = tempfile::tempdir().unwrap();
    let texts = Texts { training: markov(40_000, 1), validation: markov(20_000, 2), vocab_size: 3 };
    let options = TrainingOptions { dropout: 0.0, batch: 20, bptt: 20, epochs: 4, ..options() };
    let outcome =
        train(options, texts, &settings(&directory.path().join("out")), &mut |_| ControlFlow::Continue(()));
    let Ok(Outcome::Finished { perplexity, .. }) = outcome else { panic!("{outcome:?}") };
    let (nats, entropy) = (perplexity.ln(), entropy_rate());
    // A unigram model would be at 1.03, this chain's entropy rate is 0.69; a sample of 20,000 tokens is itself
    // within about one per cent of it.
    assert!((nats / entropy - 1.0).abs() < 0.02, "{nats} nats per token, the entropy rate is {entropy}");
}

#[test]
fn the_same_seed_gives_the_same_bits_and_another_seed_others() {
    let same = after(20, &options());
    assert_eq!(bits(&same), bits(&after(20, &options())));
    assert_ne!(bits(&same), bits(&after(20, &TrainingOptions { seed: 2, ..options() })));
}

#[test]
fn a_run_that_is_stopped_and_resumed_equals_one_that_is_not() {
    let passages = DataOrder::Passages;
    let (adam, sgd) = (OptimizerKind::Adam, OptimizerKind::Sgd);
    for options in [
        TrainingOptions { optimizer: adam, order: passages, layers: 2, ..options() },
        TrainingOptions {
            optimizer: sgd,
            decay: Decay::Plateau { factor: 0.5 },
            learning_rate: 0.5,
            ..options()
        },
    ] {
        let root = tempfile::tempdir().unwrap();
        let (whole, parts) = (root.path().join("whole"), root.path().join("parts"));
        let outcome = run(&options, &settings(&whole)).unwrap();
        // Stops after 7 steps, then at the first epoch's last step, before its validation, then in the second epoch,
        // then runs to the end.
        let mut resumed = settings(&parts);
        let mut trained = 0;
        for steps in [7, 6, 8] {
            let mut left = steps;
            let stopped = train(options.clone(), texts(), &resumed, &mut |event| {
                match event {
                    Event::Started { done, .. } => assert_eq!(done, trained, "nothing is done again"),
                    Event::Step { tokens, .. } => (left, trained) = (left - 1, tokens),
                    Event::Validation { .. } => {}
                }
                if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            });
            assert_eq!(stopped.unwrap(), Outcome::Stopped);
            resumed.resume = true;
        }
        assert_eq!(run(&options, &resumed).unwrap(), outcome);
        let read = |directory: &Path, file: &str| fs::read(directory.join(file)).unwrap();
        for file in ["model.safetensors", "config.json", "tokenizer.json"] {
            assert!(read(&whole, file) == read(&parts, file), "{file} differs");
        }
        let state = |directory: &Path| {
            checkpoint::read(&directory.join("checkpoint/checkpoint.safetensors")).unwrap()
        };
        let ((whole_header, whole_tensors), (parts_header, parts_tensors)) = (state(&whole), state(&parts));
        assert_eq!(whole_header.progress, parts_header.progress);
        assert_eq!(bits(&whole_tensors), bits(&parts_tensors));
        assert_eq!(timeless(&whole), timeless(&parts));
    }
}

#[test]
fn a_run_that_is_killed_after_its_last_checkpoint_equals_one_that_is_not() {
    let root = tempfile::tempdir().unwrap();
    let (whole, killed) = (root.path().join("whole"), root.path().join("killed"));
    run(&options(), &settings(&whole)).unwrap();
    // Nothing can be done at kill -9, so the run is left by unwinding in its 17th step, after the checkpoint at the
    // first epoch's end (step 13), with metrics already written for later steps and a partial file beside it.
    let died = std::panic::catch_unwind(|| {
        let mut steps = 0;
        let settings = settings(&killed);
        train(options(), texts(), &RunSettings { metrics_every: 1, ..settings }, &mut |event| {
            steps += usize::from(matches!(event, Event::Step { .. }));
            assert!(steps < 17, "killed");
            ControlFlow::Continue(())
        })
    });
    assert!(died.is_err());
    fs::write(killed.join("checkpoint/.chorus-torn"), b"torn").unwrap();
    let mut repeated = Vec::new();
    train(options(), texts(), &RunSettings { resume: true, ..settings(&killed) }, &mut |event| {
        if let Event::Step { tokens, .. } = event {
            repeated.push(tokens);
        }
        ControlFlow::Continue(())
    })
    .unwrap();
    // The first epoch has 400 tokens, a step 32.
    assert_eq!(repeated.first(), Some(&(400 + 32)), "step 14 is the first to be done again");
    let model = |directory: &Path| fs::read(directory.join("model.safetensors")).unwrap();
    assert!(model(&whole) == model(&killed));
    let steps: Vec<u64> = timeless(&killed).iter().map(|line| line.step).collect();
    assert!(steps.is_sorted_by(|a, b| a < b), "{steps:?}");
}

#[test]
fn a_run_that_is_killed_while_it_begins_leaves_a_directory_that_can_be_used() {
    let root = tempfile::tempdir().unwrap();
    let whole = root.path().join("whole");
    run(&options(), &settings(&whole)).unwrap();
    // The places where it can die before its first checkpoint: what is there besides an empty checkpoint/.
    let begun: [&[&str]; 6] = [
        &[],
        &["metrics.jsonl"],
        &["metrics.jsonl", ".chorus-torn"],
        &["metrics.jsonl", "config.json"],
        &["metrics.jsonl", "config.json", "tokenizer.json"],
        &["metrics.jsonl", "config.json", "tokenizer.json", "checkpoint/.chorus-torn"],
    ];
    for (case, files) in begun.into_iter().enumerate() {
        let directory = root.path().join(case.to_string());
        fs::create_dir_all(directory.join("checkpoint")).unwrap();
        files.iter().for_each(|file| fs::write(directory.join(file), b"").unwrap());
        run(&options(), &settings(&directory)).unwrap();
        for file in ["config.json", "tokenizer.json", "model.safetensors"] {
            let read = |directory: &Path| fs::read(directory.join(file)).unwrap();
            assert!(read(&whole) == read(&directory), "{files:?}: {file} differs");
        }
        assert!(!directory.join(".chorus-torn").exists());
        assert!(!directory.join("checkpoint/.chorus-torn").exists());
    }
}

#[test]
fn files_that_no_beginning_run_has_left_are_not_overwritten() {
    for files in [&["config.json", "tokenizer.json"][..], &["metrics.jsonl", "model.safetensors"], &["notes"]]
    {
        let root = tempfile::tempdir().unwrap();
        files.iter().for_each(|file| fs::write(root.path().join(file), b"").unwrap());
        let error = run(&options(), &settings(root.path())).unwrap_err();
        assert!(matches!(error, TrainError::OutputNotEmpty { .. }), "{files:?}: {error}");
    }
}

#[test]
fn another_run_is_neither_overwritten_nor_resumed_as_this_one() {
    let root = tempfile::tempdir().unwrap();
    let directory = root.path().join("out");
    let refusal =
        |options: &TrainingOptions, settings: &RunSettings| run(options, settings).unwrap_err().to_string();
    let resume = RunSettings { resume: true, ..settings(&directory) };
    assert!(refusal(&options(), &resume).contains("has no checkpoint, so there is no run to resume"));
    run(&options(), &settings(&directory)).unwrap();
    assert!(refusal(&options(), &settings(&directory)).contains("is not empty: resume the run in it"));
    let changed = TrainingOptions { learning_rate: 0.02, ..options() };
    assert_eq!(
        refusal(&changed, &resume),
        "learning rate is 0.02, but the run to resume has 0.01: a run is resumed with what it began with"
    );
    let other = Texts { training: markov(400, 9), ..texts() };
    let error = train(options(), other, &resume, &mut |_| ControlFlow::Continue(())).unwrap_err();
    assert!(error.to_string().starts_with("training text is one whose tokens have the hash"), "{error}");
}

#[test]
fn a_torn_checkpoint_is_an_error_that_names_it() {
    let root = tempfile::tempdir().unwrap();
    let directory = root.path().join("out");
    run(&options(), &settings(&directory)).unwrap();
    let path = directory.join("checkpoint/checkpoint.safetensors");
    let content = fs::read(&path).unwrap();
    for torn in [&content[..4], &content[..content.len() / 2], b"".as_slice()] {
        fs::write(&path, torn).unwrap();
        let error = run(&options(), &RunSettings { resume: true, ..settings(&directory) }).unwrap_err();
        assert!(matches!(error, TrainError::Checkpoint { .. }), "{error}");
    }
}

#[test]
fn early_stopping_keeps_the_best_epoch() {
    let root = tempfile::tempdir().unwrap();
    // A rate this small learns nothing measurable after a rate this large has spoilt the weights.
    let options = TrainingOptions {
        learning_rate: 30.0,
        optimizer: OptimizerKind::Sgd,
        clip: 1000.0,
        decay: Decay::Epochs { factor: 1e-9, after: 1 },
        epochs: 50,
        patience: 2,
        ..options()
    };
    let outcome = run(&options, &settings(root.path())).unwrap();
    let validations: Vec<f64> =
        timeless(root.path()).iter().filter_map(|line| line.valid_perplexity).collect();
    let best = validations.iter().copied().fold(f64::INFINITY, f64::min);
    let best_epoch = validations.iter().position(|&perplexity| perplexity == best).unwrap() + 1;
    let Outcome::Finished { best_epoch: kept, perplexity } = outcome else { panic!("{outcome:?}") };
    assert_eq!(kept, best_epoch);
    // JSON's numbers are read back to one unit in the last place.
    assert!((perplexity / best - 1.0).abs() < 1e-12, "{perplexity} {best}");
    assert_eq!(validations.len(), best_epoch + 2, "{validations:?}");
    // What is saved are that epoch's weights: those of a run that ends with it.
    let shorter = tempfile::tempdir().unwrap();
    run(&TrainingOptions { epochs: best_epoch, ..options }, &settings(shorter.path())).unwrap();
    let model = |directory: &Path| fs::read(directory.join("model.safetensors")).unwrap();
    assert!(model(root.path()) == model(shorter.path()), "the best epoch's weights are saved");
}

#[test]
fn options_outside_their_ranges_and_texts_that_do_not_fit_are_refused() {
    let refusal =
        |options: TrainingOptions, texts: Texts| Trainer::new(options, texts).err().unwrap().to_string();
    let dropout = TrainingOptions { dropout: 1.0, ..options() };
    assert_eq!(refusal(dropout, texts()), "dropout is 1, allowed is 0 to below 1");
    let rate = TrainingOptions { learning_rate: f64::NAN, ..options() };
    assert_eq!(refusal(rate, texts()), "learning rate is NaN, allowed is a number above 0");
    let outside = Texts { validation: vec![0, 1, 3], ..texts() };
    assert_eq!(
        refusal(options(), outside),
        "the validation text has token 3, but the vocabulary has 3 tokens"
    );
    let passages = TrainingOptions { order: DataOrder::Passages, start: Start::ZeroState, ..options() };
    assert!(refusal(passages, texts()).starts_with("the order by passages needs a start token"));
}
