//! What nobody sees from outside: who waits for what, and what is left when a device fails.
#![allow(clippy::unwrap_used)]

use candle_core::Device;
use chorus_simd::{Reduced, Reduction, Room};

use super::launcher::{Lane, emulated::Emulated};
use crate::fuzz::{config, parts_of};
use crate::language_model::{Backend, lock};
use crate::{
    Answer, Capacity, Config, ForwardError, LanguageModel, ModelParts, Precision, Row, Start, State, Want,
};

const VOCABULARY: usize = 4;
const CAPACITY: Capacity = Capacity { states: 4, tokens: 16, logits: 16 * VOCABULARY };

fn model() -> LanguageModel {
    LanguageModel::on_device(parts(), &Device::Cpu, Precision::F32, CAPACITY).unwrap()
}

fn parts() -> ModelParts {
    parts_of(Config { layers: 2, start: Start::ZeroState, ..config() })
}

/// Does something with the emulation below a model.
fn emulation<T>(model: &LanguageModel, with: impl FnOnce(&Emulated) -> T) -> T {
    match &model.backend {
        Backend::Device(engine) => with(lock(engine).launcher.emulation()),
        Backend::Engine(_) => panic!("it is on a device"),
    }
}

fn submit(model: &LanguageModel, state: &mut State, reduction: Reduction<'_>) -> Result<(), ForwardError> {
    let row = Row { state, tokens: &[1, 2], want: Want::Next };
    assert!(model.submit(&mut [row], &[reduction])?);
    Ok(())
}

/// The norm after two tokens, computed as a whole.
fn expected() -> f64 {
    let model = model();
    let mut state = model.fresh_state().unwrap();
    let mut norm = 0.0;
    let row = Row { state: &mut state, tokens: &[1, 2], want: Want::Next };
    model.predict(&mut [row], &mut |prediction| norm = prediction.norm.log_sum_exp()).unwrap();
    norm
}

fn collect(model: &LanguageModel) -> Result<f64, ForwardError> {
    let mut norm = f64::NAN;
    model.collect(&mut |answer| norm = answer.norm.log_sum_exp())?;
    Ok(norm)
}

#[test]
fn the_numbers_of_a_state_wait_for_the_call_that_makes_it_alone() {
    let model = model();
    emulation(&model, |device| device.be_late());
    let waiting = || emulation(&model, |device| device.launches_waiting());
    let fresh = model.fresh_state().unwrap();
    let (mut one, mut other) = (fresh.clone(), fresh.clone());
    submit(&model, &mut one, Reduction::Norm).unwrap();
    collect(&model).unwrap();
    submit(&model, &mut other, Reduction::Row).unwrap();
    let before = waiting();
    assert!(before > 0);
    let numbers = model.values(&one).unwrap().into_owned();
    model.values(&fresh).unwrap();
    assert_eq!(waiting(), before, "the call under way has not run");
    assert_eq!(model.values(&other).unwrap(), numbers);
    assert_eq!(waiting(), 0);
    collect(&model).unwrap();
}

#[test]
fn waiting_is_for_everything_that_was_submitted() {
    let model = model();
    emulation(&model, |device| device.be_late());
    let mut state = model.fresh_state().unwrap();
    submit(&model, &mut state, Reduction::Norm).unwrap();
    submit(&model, &mut state, Reduction::Norm).unwrap();
    model.wait().unwrap();
    assert_eq!(emulation(&model, |device| device.launches_waiting()), 0);
}

/// Whatever fails, and whenever: those who wait for it hear of it, and whoever comes later is served.
#[test]
fn a_failure_of_the_device_is_heard_and_leaves_nothing_behind() {
    let expected = expected();
    let lanes = [None, Some(Lane::Rows), Some(Lane::States)];
    let mut failures = [0; 3];
    for (lane, failures) in lanes.into_iter().zip(&mut failures) {
        for good in 0..24 {
            let model = model();
            let fresh = model.fresh_state().unwrap();
            let mut other_than_zero = fresh.clone();
            submit(&model, &mut other_than_zero, Reduction::Norm).unwrap();
            collect(&model).unwrap();
            emulation(&model, |device| device.fail(good, lane));
            let (mut one, mut other) = (fresh.clone(), fresh.clone());
            let mut hear = |result: Result<(), ForwardError>| match result {
                Ok(()) => {}
                Err(ForwardError::Compute(error)) => {
                    let sentence = error.to_string();
                    let expected = ["scripted failure", "the device failed while"];
                    assert!(expected.iter().any(|expected| sentence.contains(expected)), "{sentence}");
                    *failures += 1;
                }
                Err(error) => panic!("{error}"),
            };
            hear(submit(&model, &mut one, Reduction::Row));
            hear(submit(&model, &mut other, Reduction::Row));
            hear(model.values(&other_than_zero).map(drop));
            hear(model.wait());
            for _ in 0..2 {
                match collect(&model) {
                    Ok(norm) => assert!((norm - expected).abs() < 1e-5, "what goes well is right"),
                    Err(ForwardError::NothingSubmitted) => {}
                    Err(error) => hear(Err(error)),
                }
            }
            emulation(&model, |device| device.fail(usize::MAX, lane));
            // What was on its way is in nobody's way.
            let numbers: Vec<f32> =
                (0..model.config().state_size()).map(|place| place as f32 / 8.0).collect();
            let restored = model.restore(&numbers);
            let restored = restored.or_else(|_| model.restore(&numbers)).unwrap();
            assert_eq!(model.values(&restored).unwrap(), numbers);
            let mut state = model.restore(&vec![0.0; numbers.len()]).unwrap();
            submit(&model, &mut state, Reduction::Row).unwrap();
            assert!((collect(&model).unwrap() - expected).abs() < 1e-5, "{lane:?} after {good}");
            let mut norm = 0.0;
            let row = Row { state: &mut state, tokens: &[1], want: Want::Next };
            model.predict(&mut [row], &mut |prediction| norm = prediction.norm.log_sum_exp()).unwrap();
            assert!(norm.is_finite());
        }
    }
    assert!(failures.iter().all(|failures| *failures > 0), "{failures:?}");
}

/// Rows of logits come in pieces, and among those who want none.
#[test]
fn whole_rows_arrive_whatever_comes_before_them() {
    let (device, cpu) = (model(), LanguageModel::from_parts(parts(), &Device::Cpu, Precision::F32).unwrap());
    for rows in [1, 2, 3, 9, 16] {
        let tokens: Vec<[u32; 1]> = (0..rows).map(|row| [row % VOCABULARY as u32]).collect();
        let reductions: Vec<_> =
            (0..rows).map(|row| if row % 5 == 1 { Reduction::Norm } else { Reduction::Row }).collect();
        let found = |model: &LanguageModel| {
            let mut states = vec![model.fresh_state().unwrap(); rows as usize];
            let mut rows: Vec<Row<'_>> = states
                .iter_mut()
                .zip(&tokens)
                .map(|(state, tokens)| Row { state, tokens, want: Want::Next })
                .collect();
            let mut found = vec![vec![]; rows.len()];
            let receive = &mut |answer: Answer<'_>| match answer.found {
                Reduced::Row(row) => found[answer.row] = row.to_vec(),
                _ => found[answer.row] = vec![answer.norm.log_sum_exp() as f32],
            };
            model.answer(&mut rows, &reductions, &mut Room::default(), receive).unwrap();
            found
        };
        for (one, other) in found(&cpu).iter().flatten().zip(found(&device).iter().flatten()) {
            assert!((one - other).abs() < 1e-5, "{rows} rows");
        }
    }
}

#[test]
fn more_rows_than_a_side_has_room_for_are_for_a_whole_call() {
    let model = model();
    let submit = |rows: usize| {
        let mut states = vec![model.fresh_state().unwrap(); rows];
        let mut rows: Vec<Row<'_>> =
            states.iter_mut().map(|state| Row { state, tokens: &[1], want: Want::Next }).collect();
        // Who wants no whole row needs no room, wherever it stands.
        let mut reductions = vec![Reduction::Row; rows.len()];
        reductions[rows.len() / 2] = Reduction::Norm;
        model.submit(&mut rows, &reductions).unwrap()
    };
    assert!(!submit(10));
    assert!(submit(9));
    let mut rows = 0;
    model.collect(&mut |answer| rows += usize::from(matches!(answer.found, Reduced::Row(_)))).unwrap();
    assert_eq!(rows, 8);
}
