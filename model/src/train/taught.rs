//! Whole runs with a teacher, and runs that begin with a model: what is learned, resumption, refusals.

use std::fs;
use std::ops::ControlFlow;
use std::path::Path;

use candle_core::{Device, Tensor};
use chorus_text::Vocabulary;

use super::checkpoint::Header;
use super::tests::{TRANSITIONS, advance, bits, markov, options, settings, texts, timeless};
use super::trainer::Trainer;
use super::*;
use crate::config::Start;
use crate::directory::ModelParts;

const DISTILLATION: Distillation = Distillation { hard_weight: 0.3, temperature: 2.0 };

/// What somebody says of a text of [`markov`] who knows the source, at the temperature of [`DISTILLATION`] or another.
fn source(tokens: &[u32], form: TargetForm, temperature: f64) -> SoftTargets {
    let mut targets = SoftTargets::new(form, 3, temperature).unwrap();
    for position in 0..tokens.len() {
        let before = position.checked_sub(1).map_or(0, |before| tokens[before]);
        let powers = TRANSITIONS[before as usize].map(|p| p.powf(1.0 / temperature as f32));
        let log_probs = powers.map(|power| (power / powers.iter().sum::<f32>()).ln());
        let mut ids = [0, 1, 2];
        ids.sort_by(|a: &u32, b| log_probs[*b as usize].total_cmp(&log_probs[*a as usize]));
        match form {
            TargetForm::TopK(most) => {
                let listed: Vec<f32> = ids[..most].iter().map(|&id| log_probs[id as usize]).collect();
                targets.push_list(&ids[..most], &listed).unwrap();
            }
            TargetForm::Dense => targets.push_dense(&log_probs).unwrap(),
        }
    }
    targets
}

fn material(form: TargetForm, temperature: f64) -> Material {
    let teacher = Some(source(&texts().training, form, temperature));
    Material { teacher, ..texts().into() }
}

fn run(options: &TrainingOptions, material: Material, settings: &RunSettings) -> Result<Outcome, TrainError> {
    train(options.clone(), material, settings, &mut |_| ControlFlow::Continue(()))
}

/// By how much the best epoch's cross entropy with the validation text is above that of the source itself, in nats per token.
fn excess(options: &TrainingOptions, material: Material) -> f64 {
    let TrainingData::Text(Texts { validation: text, .. }) = &material.data else { unreachable!() };
    let text = text.clone();
    let mut trainer = Trainer::new(options.clone(), material).unwrap();
    let mut best = f64::INFINITY;
    while !trainer.is_over() {
        while !trainer.epoch_is_done() {
            trainer.step().unwrap();
        }
        best = best.min(trainer.end_epoch().unwrap().nats);
    }
    let before = std::iter::once(0).chain(text.iter().copied());
    let logarithms = before.zip(&text).map(|(a, &b)| f64::from(TRANSITIONS[a as usize][b as usize]).ln());
    best + logarithms.sum::<f64>() / text.len() as f64
}

#[test]
fn a_small_text_teaches_more_with_the_distributions_that_it_was_drawn_from() {
    let texts = Texts { training: markov(300, 1), validation: markov(1000, 2), vocab_size: 3 };
    let alone = TrainingOptions {
        dropout: 0.0,
        bptt: 16,
        epochs: 40,
        patience: 40,
        learning_rate: 0.02,
        ..options()
    };
    let taught = |form, temperature, hard_weight| {
        let distillation = Some(Distillation { hard_weight, temperature });
        let teacher = Some(source(&texts.training, form, temperature));
        excess(
            &TrainingOptions { distillation, ..alone.clone() },
            Material { teacher, ..texts.clone().into() },
        )
    };
    let whole = taught(TargetForm::Dense, 1.0, 0.0);
    let warm = taught(TargetForm::Dense, 2.0, 0.0);
    let list = taught(TargetForm::TopK(2), 1.0, 0.0);
    // A list of one says nothing of how the two others share the rest: that is the text's part of the lesson.
    let mixed = taught(TargetForm::TopK(1), 1.0, 0.3);
    let alone = excess(&alone, texts.clone().into());
    println!("{alone:.5} {whole:.5} {warm:.5} {list:.5} {mixed:.5}");
    for taught in [whole, warm, list] {
        assert!(taught < 0.1 * alone && taught > -0.005, "{taught} with a teacher, {alone} without");
    }
    assert!(mixed < 0.9 * alone, "{mixed} with a teacher, {alone} without");
}

#[test]
fn a_run_with_a_teacher_that_is_stopped_and_resumed_equals_one_that_is_not() {
    let order = DataOrder::Passages;
    let options = TrainingOptions { distillation: Some(DISTILLATION), ..options() };
    for (options, form) in [
        (TrainingOptions { order, layers: 2, ..options.clone() }, TargetForm::TopK(2)),
        (TrainingOptions { start: Start::ZeroState, ..options }, TargetForm::Dense),
    ] {
        let root = tempfile::tempdir().unwrap();
        let (whole, parts) = (root.path().join("whole"), root.path().join("parts"));
        let material = material(form, 2.0);
        let outcome = run(&options, material.clone(), &settings(&whole)).unwrap();
        let mut resumed = settings(&parts);
        for steps in [7, 6, 8] {
            let mut left = steps;
            let stopped = train(options.clone(), material.clone(), &resumed, &mut |event| {
                left -= usize::from(matches!(event, Event::Step { .. }));
                if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            });
            assert_eq!(stopped.unwrap(), Outcome::Stopped);
            resumed.resume = true;
        }
        assert_eq!(run(&options, material, &resumed).unwrap(), outcome);
        let model = |directory: &Path| fs::read(directory.join("model.safetensors")).unwrap();
        assert!(model(&whole) == model(&parts));
        assert_eq!(timeless(&whole), timeless(&parts));
        assert!(timeless(&whole).iter().all(|line| line.soft_nats.is_some_and(|nats| nats > 0.0)));
    }
}

#[test]
fn the_weights_of_the_losses_are_those_of_the_options() {
    let after = |distillation, form: Option<TargetForm>| {
        let options = TrainingOptions { distillation, ..options() };
        let teacher = form.map(|form| source(&texts().training, form, 2.0));
        let mut trainer = Trainer::new(options, Material { teacher, ..texts().into() }).unwrap();
        (0..20).for_each(|_| advance(&mut trainer));
        trainer.tensors().unwrap()
    };
    let alone = after(None, None);
    let whole = Some(TargetForm::Dense);
    // With λ = 1 the teacher has no say; with less it has.
    let unheard = after(Some(Distillation { hard_weight: 1.0, ..DISTILLATION }), whole);
    for (name, (_, values)) in &alone {
        for (alone, unheard) in values.iter().zip(&unheard[name].1) {
            assert!((alone - unheard).abs() < 1e-5, "{name}: {alone} {unheard}");
        }
    }
    let heard = after(Some(DISTILLATION), whole);
    assert_ne!(bits(&alone), bits(&heard));
    assert_ne!(bits(&heard), bits(&after(Some(DISTILLATION), Some(TargetForm::TopK(1)))));
}

#[test]
fn a_teacher_of_something_else_is_refused() {
    let distillation = Some(DISTILLATION);
    let refusal = |distillation, teacher| {
        let options = TrainingOptions { distillation, ..options() };
        Trainer::new(options, Material { teacher, ..texts().into() }).err().unwrap().to_string()
    };
    let teacher = |tokens: usize, temperature| {
        Some(source(&texts().training[..tokens], TargetForm::TopK(2), temperature))
    };
    assert!(refusal(distillation, None).contains("there are no distributions of a teacher"));
    assert!(refusal(None, teacher(400, 2.0)).contains("the options have no distillation"));
    assert_eq!(
        refusal(distillation, teacher(399, 2.0)),
        "the teacher's number of tokens is 399, but that of this run is 400"
    );
    assert_eq!(
        refusal(distillation, teacher(400, 1.0)),
        "the teacher's temperature is 1, but that of this run is 2"
    );
    let mut larger = SoftTargets::new(TargetForm::TopK(1), 4, 2.0).unwrap();
    (0..400).for_each(|_| larger.push_list(&[], &[]).unwrap());
    assert!(refusal(distillation, Some(larger)).starts_with("the teacher's vocabulary size is 4"));
    for (changed, expected) in [
        (Distillation { hard_weight: 1.5, ..DISTILLATION }, "hard weight is 1.5, allowed is 0 to 1"),
        (Distillation { temperature: f64::NAN, ..DISTILLATION }, "temperature is NaN, allowed is 0.1 to 20"),
    ] {
        assert_eq!(refusal(Some(changed), teacher(400, 2.0)), expected);
    }
}

#[test]
fn a_run_is_not_resumed_with_another_teacher_or_beginning() {
    let root = tempfile::tempdir().unwrap();
    let options = TrainingOptions { distillation: Some(DISTILLATION), epochs: 1, ..options() };
    let form = TargetForm::TopK(2);
    run(&options, material(form, 2.0), &settings(root.path())).unwrap();
    let resume = RunSettings { resume: true, ..settings(root.path()) };
    let refusal =
        |options: &TrainingOptions, material| run(options, material, &resume).unwrap_err().to_string();
    let other = refusal(&options, material(TargetForm::TopK(1), 2.0));
    assert!(other.starts_with("teacher is one whose distributions have the hash"), "{other}");
    let hard = refusal(&TrainingOptions { distillation: None, ..options.clone() }, texts().into());
    assert!(hard.starts_with("distillation is null, but the run to resume has {"), "{hard}");
    let warmer = Distillation { hard_weight: 0.4, ..DISTILLATION };
    let warmer = TrainingOptions { distillation: Some(warmer), ..options.clone() };
    assert!(refusal(&warmer, material(form, 2.0)).starts_with("distillation is {\"hard_weight\":0.4"));
    let begun = Material { initial: Some(model(&options)), ..material(form, 2.0) };
    let begun = Trainer::new(options.clone(), begun).unwrap();
    let (header, tensors) = (begun.header(0), begun.tensors().unwrap());
    let mut trainer = Trainer::new(options.clone(), material(form, 2.0)).unwrap();
    let error = trainer.restore(header, tensors, |reason| panic!("{reason}")).unwrap_err().to_string();
    assert!(
        error
            .starts_with("initial model is none, but the run to resume has one with the fingerprint sha256:"),
        "{error}"
    );
    assert_eq!(
        run(&options, material(form, 2.0), &resume).unwrap(),
        run(&options, material(form, 2.0), &resume).unwrap()
    );
}

#[test]
fn a_checkpoint_from_before_there_were_teachers_is_resumed() {
    let begun = Trainer::new(options(), texts()).unwrap();
    let mut header = serde_json::to_value(begun.header(0)).unwrap();
    for (place, field) in
        [("", "teacher"), ("", "initial_model"), ("/options", "distillation"), ("/progress", "soft_nats")]
    {
        let fields = header.pointer_mut(place).unwrap().as_object_mut().unwrap();
        assert!(fields.remove(field).is_some(), "{field}");
    }
    let header: Header = serde_json::from_value(header).unwrap();
    let mut trainer = Trainer::new(options(), texts()).unwrap();
    trainer.restore(header, begun.tensors().unwrap(), |reason| panic!("{reason}")).unwrap();
}

fn vocabulary(text: &str) -> Vocabulary {
    Vocabulary::train_characters(text).unwrap()
}

/// A model of the options' shape with weights of its own.
fn model(options: &TrainingOptions) -> ModelParts {
    let config = options.config(3).unwrap();
    let tensor = |(name, shape): (String, Vec<usize>)| {
        let values: Vec<f32> =
            (0..shape.iter().product()).map(|place| (7 * place % 13) as f32 / 40.0 - 0.15).collect();
        (name, Tensor::from_vec(values, shape, &Device::Cpu).unwrap())
    };
    let tensors = config.tensor_shapes().into_iter().map(tensor).collect();
    ModelParts { config, vocabulary: vocabulary("abc"), tensors, quantized: None }
}

#[test]
fn a_run_begins_with_the_weights_of_a_model_and_leaves_them_as_they_were() {
    let model = model(&options());
    let begun = Material { initial: Some(model.clone()), ..texts().into() };
    let mut trainer = Trainer::new(options(), begun).unwrap();
    let values = |tensor: &Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let weights = trainer.tensors().unwrap();
    for (name, tensor) in &model.tensors {
        assert_eq!(weights[&format!("weights.{name}")], (tensor.dims().to_vec(), values(tensor)));
    }
    let fingerprint = model.fingerprint().unwrap();
    (0..5).for_each(|_| advance(&mut trainer));
    assert_ne!(bits(&weights), bits(&trainer.tensors().unwrap()));
    assert_eq!(model.fingerprint().unwrap(), fingerprint);
}

#[test]
fn a_run_does_not_begin_with_a_model_of_another_shape_or_vocabulary() {
    let refusal = |options: &TrainingOptions, tokenizer: &Vocabulary| {
        let root = tempfile::tempdir().unwrap();
        let tokenizer_json = tokenizer.to_json().to_owned();
        let settings = RunSettings { tokenizer_json, ..settings(&root.path().join("out")) };
        let begun = Material { initial: Some(model(&tests::options())), ..texts().into() };
        run(options, begun, &settings).map_err(|error| chorus_fuzz::sentence(&error))
    };
    let same = vocabulary("abc");
    let larger = TrainingOptions { hidden_size: 9, ..options() };
    let found = refusal(&larger, &same).unwrap_err();
    assert!(found.starts_with("the run can't begin with a model of another shape: tensor"), "{found}");
    let deeper = TrainingOptions { layers: 2, ..options() };
    let found = refusal(&deeper, &same).unwrap_err();
    assert!(found.contains("\"rnn.bias_hh_l1\" is missing"), "{found}");
    let other = refusal(&options(), &vocabulary("abd")).unwrap_err();
    assert_eq!(other, "the run can't begin with a model of another vocabulary");
    assert!(refusal(&options(), &same).is_ok());
}
