//! What runs on a device has the same answers as the CPU, however a call is made. The device is the one that
//! `CHORUS_TEST_DEVICE` names (`cuda`, `cuda:1`); without it an emulated one, whose kernels run thread by thread on the host.
//! Here is what all of these tests need: models of a few shapes, and how two of them are compared.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../common/mod.rs"]
mod common;

mod calls;
mod halves;
mod picks;
mod refusals;
mod slots;

use candle_core::Device;
use chorus_model::{
    Answer, Capacity, Config, ForwardError, LanguageModel, ModelParts, Precision, Reduced, Reduction, Room,
    Row, Start, State, Want, evaluate, open_device,
};
use proptest::prelude::*;

use common::{config, difference, model, parts, seeded_tensors, tokens};

/// Room for little, so that calls are computed in parts.
const SMALL: Capacity = Capacity { states: 24, tokens: 40, logits: 150 };
/// Room for every call of these tests as a whole.
const LARGE: Capacity = Capacity { states: 24, tokens: 256, logits: 1 << 16 };

fn target() -> Device {
    match std::env::var("CHORUS_TEST_DEVICE") {
        Ok(name) => open_device(&name).unwrap(),
        Err(_) => Device::Cpu,
    }
}

fn device(config: Config, precision: Precision, capacity: Capacity) -> LanguageModel {
    LanguageModel::on_device(parts(config), &target(), precision, capacity).unwrap()
}

/// With weights as large as training begins with: beyond, any rounding grows from step to step.
fn tame(config: Config) -> ModelParts {
    let scale = 1.0 / (config.hidden_size as f64).sqrt();
    let mut parts = parts(config);
    parts.tensors.values_mut().for_each(|tensor| *tensor = (&*tensor * scale).unwrap());
    parts
}

/// How far off a row of logits may be, as a share of the largest.
fn tolerance(precision: Precision) -> f32 {
    match precision {
        Precision::F32 => 1e-5,
        Precision::F16 => 2e-3,
        _ => 1e-2,
    }
}

fn configs() -> Vec<Config> {
    let tied =
        Config { tied: true, embedding_size: Some(9), lstm_bias: false, output_bias: false, ..config() };
    let one_hot = Config { embedding_size: None, layers: 3, start: Start::ZeroState, ..config() };
    let wide = Config { hidden_size: 70, embedding_size: Some(33), layers: 1, vocab_size: 90, ..config() };
    vec![config(), tied, one_hot, wide]
}

/// What is known of every distribution of every row, in the order of rows and offsets, with the states after it.
fn answers(
    model: &LanguageModel,
    states: &mut [State],
    requests: &[(Vec<u32>, Want)],
    reductions: &[Reduction<'_>],
) -> Vec<Told> {
    let rows = states.iter_mut().zip(requests);
    let mut rows: Vec<Row<'_>> =
        rows.map(|(state, (tokens, want))| Row { state, tokens, want: *want }).collect();
    let mut found = Vec::new();
    model
        .answer(&mut rows, reductions, &mut Room::default(), &mut |answer| found.push(told(answer)))
        .unwrap();
    in_order(found, requests)
}

/// Row and offset of an answer, what it is, and its numbers.
type Told = (usize, usize, String, Vec<f32>);

fn told(answer: Answer<'_>) -> Told {
    let mut numbers = vec![answer.norm.largest, answer.norm.log_sum as f32];
    numbers.extend(answer.target);
    let what = match answer.found {
        Reduced::Norm => "norm".to_owned(),
        Reduced::Row(row) => {
            numbers.extend(row);
            "row".to_owned()
        }
        Reduced::Top { ids, logits } => {
            numbers.extend(logits);
            format!("top {ids:?}")
        }
        Reduced::Ids(logits) => {
            numbers.extend(logits);
            "ids".to_owned()
        }
        Reduced::Drawn(token) => format!("drawn {token}"),
    };
    (answer.row, answer.offset, what, numbers)
}

/// In the order of rows; within a row they are in order already.
fn in_order(mut found: Vec<Told>, requests: &[(Vec<u32>, Want)]) -> Vec<Told> {
    let in_order = found.is_sorted_by_key(|(row, offset, ..)| (*row, *offset));
    let mut offsets = vec![0; requests.len()];
    for (row, offset, ..) in &found {
        assert_eq!(*offset, offsets[*row], "in order within a row (all in order: {in_order})");
        offsets[*row] += 1;
    }
    found.sort_by_key(|(row, offset, ..)| (*row, *offset));
    found
}

/// A text that leads to a state, one for each row.
fn states(model: &LanguageModel, count: usize) -> Vec<State> {
    let state = |row: usize| {
        let mut state = model.fresh_state().unwrap();
        let before = tokens(row, row % 5, model.config().vocab_size);
        model.forward(&mut [Row { state: &mut state, tokens: &before, want: Want::Nothing }]).unwrap();
        state
    };
    (0..count).map(state).collect()
}

fn check(config: &Config, precision: Precision, capacity: Capacity, requests: &[(Vec<u32>, Want)]) {
    let is_tame = precision != Precision::F32 || config.hidden_size > 100;
    let parts = if is_tame { tame(config.clone()) } else { parts(config.clone()) };
    check_parts(config, parts, precision, capacity, requests);
}

fn check_parts(
    config: &Config,
    parts: ModelParts,
    precision: Precision,
    capacity: Capacity,
    requests: &[(Vec<u32>, Want)],
) {
    let cpu = LanguageModel::from_parts(parts.clone(), &Device::Cpu, Precision::F32).unwrap();
    let device = LanguageModel::on_device(parts, &target(), precision, capacity).unwrap();
    let tolerance = tolerance(precision);
    let ids: Vec<u32> = (0..config.vocab_size as u32).step_by(2).collect();
    // What is found may not hang on a last bit here: whole rows and norms, then what is picked by other means.
    let kinds = [Reduction::Row, Reduction::Target, Reduction::Norm, Reduction::Ids(&ids)];
    let reductions: Vec<_> = (0..requests.len()).map(|row| kinds[row % kinds.len()]).collect();
    let (mut own, mut others) = (states(&cpu, requests.len()), states(&device, requests.len()));
    let expected = answers(&cpu, &mut own, requests, &reductions);
    let found = answers(&device, &mut others, requests, &reductions);
    assert_eq!(expected.len(), found.len());
    for ((row, offset, what, expected), (other_row, other_offset, other_what, found)) in
        expected.iter().zip(&found)
    {
        assert_eq!((row, offset, what), (other_row, other_offset, other_what));
        let largest = expected.iter().fold(1.0_f32, |largest, number| largest.max(number.abs()));
        let off = difference(expected, found);
        assert!(off <= tolerance * largest, "{precision} row {row} offset {offset}: {off} of {largest}");
    }
    for (row, (own, other)) in own.iter().zip(&others).enumerate() {
        let off = difference(&cpu.values(own).unwrap(), &device.values(other).unwrap());
        assert!(off <= 2.0 * tolerance, "{precision} state of row {row}: {off}");
    }
}

const WANTS: [Want; 3] = [Want::Next, Want::Each, Want::Nothing];
