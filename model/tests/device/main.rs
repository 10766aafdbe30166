//! What runs on a device has the same answers as the CPU, however a call is made. The device is the one that
//! `CHORUS_TEST_DEVICE` names (`cuda`, `cuda:1`); without it an emulated one, whose kernels run thread by thread on the host.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../common/mod.rs"]
mod common;
mod halves;

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

#[test]
fn steps_of_few_and_of_many_rows_are_those_of_the_cpu() {
    for config in configs() {
        for rows in [1, 2, 5, 8, 9, 16, 17, 23] {
            let request = |row| (tokens(row, 1, config.vocab_size), WANTS[row % 2]);
            let requests: Vec<_> = (0..rows).map(request).collect();
            for precision in [Precision::F32, Precision::Bf16, Precision::F16] {
                check(&config, precision, LARGE, &requests);
            }
        }
    }
}

/// On a device of three multiprocessors and 48 KiB of shared memory, as the emulation has: some of a block's weights are kept and
/// some are not, with three rows; with eight there are more cells than threads.
#[test]
fn texts_of_a_layer_too_large_for_a_block_are_those_of_the_cpu() {
    let config = Config { hidden_size: 200, vocab_size: 61, ..config() };
    for rows in [3, 8] {
        let request = |row| (tokens(row, 3 + row % 3, config.vocab_size), WANTS[row % WANTS.len()]);
        let requests: Vec<_> = (0..rows).map(request).collect();
        check(&config, Precision::F32, LARGE, &requests);
    }
}

/// From the third time on they are one graph, where the device has such.
#[test]
fn steps_that_are_made_again_and_again_are_those_of_the_cpu() {
    let config = Config { vocab_size: 61, ..config() };
    let parts = tame(config.clone());
    let cpu = LanguageModel::from_parts(parts.clone(), &Device::Cpu, Precision::F32).unwrap();
    let device = LanguageModel::on_device(parts, &target(), Precision::F32, LARGE).unwrap();
    for rows in [1, 3, 20] {
        let (mut own, mut others) = (states(&cpu, rows), states(&device, rows));
        let mut reductions = vec![Reduction::Top { k: 2, log_threshold: None }; rows];
        for step in 0..8 {
            // What is asked changes from step to step, and so do the slots.
            reductions[0] = if step % 2 == 0 { Reduction::Target } else { Reduction::Draw { uniform: 0.5 } };
            let request = |row| (tokens(row + 100 * step, 1, config.vocab_size), Want::Next);
            let requests: Vec<_> = (0..rows).map(request).collect();
            let expected = answers(&cpu, &mut own, &requests, &reductions);
            let found = answers(&device, &mut others, &requests, &reductions);
            for ((.., what, expected), (.., other, found)) in expected.iter().zip(&found) {
                assert_eq!(what, other, "step {step} of {rows}");
                assert!(difference(expected, found) <= 2e-5, "step {step} of {rows}");
            }
            if step == 4 {
                // A state that is kept aside is not written by the steps that follow.
                let (kept, before) = (others[0].clone(), device.values(&others[0]).unwrap().into_owned());
                answers(&device, &mut others, &requests, &reductions);
                assert_eq!(device.values(&kept).unwrap(), before);
                others[0] = kept;
                others[1..].clone_from_slice(&states_like(&cpu, &device, &own)[1..]);
            }
        }
    }
}

/// The same states on the device.
fn states_like(cpu: &LanguageModel, device: &LanguageModel, states: &[State]) -> Vec<State> {
    states.iter().map(|state| device.restore(&cpu.values(state).unwrap()).unwrap()).collect()
}

#[test]
fn texts_of_all_lengths_are_those_of_the_cpu_in_every_precision() {
    for config in configs() {
        for (index, lengths) in
            [&[3, 0, 1, 7, 0, 0, 3, 1, 12, 1][..], &[6, 2, 0, 9], &[20], &[0, 0]].iter().enumerate()
        {
            let request = |row: usize| {
                (tokens(row, lengths[row], config.vocab_size), WANTS[(row + index) % WANTS.len()])
            };
            let requests: Vec<_> = (0..lengths.len()).map(request).collect();
            for precision in [Precision::F32, Precision::Bf16, Precision::F16] {
                check(&config, precision, LARGE, &requests);
                check(&config, precision, SMALL, &requests);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn any_call_is_the_cpus(
        (vocab_size, hidden_size, layers) in (2_usize..40, 1_usize..30, 1_usize..4),
        embedding_size in prop::option::of(1_usize..20),
        biases in any::<(bool, bool)>(),
        lengths in prop::collection::vec((0_usize..9, 0_usize..3), 1..12),
        (most_tokens, logits) in (1_usize..40, 1_usize..200),
        seed in 0_usize..1_000_000,
    ) {
        let config = Config {
            vocab_size, hidden_size, layers, embedding_size, lstm_bias: biases.0, output_bias: biases.1,
            start: Start::ZeroState, ..config()
        };
        let request = |(row, &(length, want)): (usize, &(usize, usize))| (tokens(seed + row, length, vocab_size), WANTS[want]);
        let requests: Vec<_> = lengths.iter().enumerate().map(request).collect();
        let mut parts = parts(config.clone());
        parts.tensors = seeded_tensors(&config, seed);
        let capacity = Capacity { states: 24, tokens: most_tokens, logits };
        check_parts(&config, parts, Precision::F32, capacity, &requests);
    }
}

/// Picks are compared with the host's picks from the device's own rows: those have the same bits.
#[test]
fn what_is_picked_on_the_device_is_what_the_host_picks_from_its_rows() {
    let config = Config { vocab_size: 61, ..config() };
    let device = device(config.clone(), Precision::F32, SMALL);
    let request = |row: usize| (tokens(row, 1 + row % 4, config.vocab_size), WANTS[row % 2]);
    let requests: Vec<_> = (0..9).map(request).collect();
    let rows = answers(&device, &mut states(&device, 9), &requests, &[Reduction::Row; 9]);
    let ids = [0, 7, 60];
    let asked = [
        Reduction::Top { k: 5, log_threshold: None },
        Reduction::Top { k: 0, log_threshold: Some(-3.0) },
        Reduction::Top { k: 100, log_threshold: Some(-1.0) },
        Reduction::Ids(&ids),
        Reduction::Draw { uniform: 0.3 },
        Reduction::Draw { uniform: 0.0 },
    ];
    for shift in 0..asked.len() {
        let reductions: Vec<_> = (0..9).map(|row| asked[(row + shift) % asked.len()]).collect();
        let found = answers(&device, &mut states(&device, 9), &requests, &reductions);
        assert_eq!(found.len(), rows.len());
        for ((row, _, what, numbers), (.., whole)) in found.iter().zip(&rows) {
            let logits = &whole[whole.len() - config.vocab_size..];
            let (norm, mut room) =
                (chorus_model::Norm { largest: whole[0], log_sum: whole[1].into() }, Room::default());
            let expected = match reductions[*row].of(logits, norm, &mut room) {
                Reduced::Top { ids, logits } => (format!("top {ids:?}"), logits.to_vec()),
                Reduced::Ids(logits) => ("ids".to_owned(), logits.to_vec()),
                Reduced::Drawn(token) => (format!("drawn {token}"), vec![]),
                other => panic!("{other:?}"),
            };
            assert_eq!(*what, expected.0);
            assert!(numbers.ends_with(&expected.1), "{numbers:?} {:?}", expected.1);
        }
    }
}

#[test]
fn a_large_vocabulary_without_a_table_reads_its_embeddings() {
    // A table would have 4 * 70,000 * 1,000 numbers.
    let config =
        Config { vocab_size: 70_000, embedding_size: Some(3), hidden_size: 1_000, layers: 1, ..config() };
    let (cpu, device) = (model(config.clone()), device(config, Precision::F32, SMALL));
    let (mut own, mut other) = (cpu.fresh_state().unwrap(), device.fresh_state().unwrap());
    for text in [&[69_999, 5, 0][..], &[33_333]] {
        let logits = |model: &LanguageModel, state: &mut State| {
            model.forward(&mut [Row { state, tokens: text, want: Want::Next }]).unwrap().remove(0).logits
        };
        let (expected, found) = (logits(&cpu, &mut own), logits(&device, &mut other));
        let largest = expected.iter().fold(1.0_f32, |largest, number| largest.max(number.abs()));
        assert!(difference(&expected, &found) <= 1e-5 * largest);
    }
}

#[test]
fn a_demo_member_has_the_same_perplexity_on_a_device() {
    let directory = std::path::Path::new("../deploy/demo/tenor");
    let text: Vec<u32> = tokens(3, 200, 500);
    let cpu = LanguageModel::load(directory, &Device::Cpu).unwrap();
    let expected = evaluate(&cpu, &text, &mut |_| {}).unwrap().perplexity().unwrap();
    for (precision, tolerance) in [(Precision::F32, 1e-5), (Precision::Bf16, 0.02), (Precision::F16, 2e-3)] {
        let parts = ModelParts::load(directory).unwrap();
        let device = LanguageModel::on_device(parts, &target(), precision, Capacity::default()).unwrap();
        let found = evaluate(&device, &text, &mut |_| {}).unwrap().perplexity().unwrap();
        assert!((found / expected - 1.0).abs() < tolerance, "{precision}: {found}, {expected}");
    }
}

#[test]
fn a_state_is_written_once_and_its_place_is_free_when_it_is_gone() {
    let device = device(config(), Precision::F32, Capacity { states: 2, ..SMALL });
    let places = 3 * 2 + 8;
    let fresh = device.fresh_state().unwrap();
    // A clone takes no place before it is fed.
    let clones: Vec<State> = vec![fresh.clone(); 100];
    let mut fed = Vec::new();
    let error = loop {
        let mut state = fresh.clone();
        match device.forward(&mut [Row { state: &mut state, tokens: &[3], want: Want::Nothing }]) {
            Ok(_) => fed.push(state),
            Err(error) => break error,
        }
    };
    assert_eq!(fed.len(), places - 1);
    assert!(matches!(error, ForwardError::NoSlot { slots } if slots == places), "{error}");
    assert_eq!(error.to_string(), "the device has room for 14 states and no more is free");
    assert!(fed.iter().all(|state| device.values(state).unwrap() == device.values(&fed[0]).unwrap()));
    assert_ne!(device.values(&fresh).unwrap(), device.values(&fed[0]).unwrap());
    fed.truncate(places - 3);
    let mut pair = [fresh.clone(), fresh.clone()];
    let [one, other] = &mut pair;
    let rows = &mut [
        Row { state: one, tokens: &[3], want: Want::Next },
        Row { state: other, tokens: &[3, 4], want: Want::Next },
    ];
    device.forward(rows).unwrap();
    assert_eq!(clones[99], fresh, "and nobody has written the place that they share");
}

#[test]
fn states_go_from_a_device_to_another_and_to_the_cpu() {
    let (cpu, one) = (model(config()), device(config(), Precision::F32, SMALL));
    let other = device(config(), Precision::F32, SMALL);
    let mut state = states(&one, 4).pop().unwrap();
    let values = one.values(&state).unwrap().into_owned();
    let logits = |model: &LanguageModel, state: &mut State| {
        model.forward(&mut [Row { state, tokens: &[1, 2], want: Want::Next }]).unwrap().remove(0).logits
    };
    let expected = logits(&one, &mut state);
    assert_eq!(logits(&other, &mut other.restore(&values).unwrap()), expected, "to the bit");
    assert!(difference(&logits(&cpu, &mut cpu.restore(&values).unwrap()), &expected) < 1e-5);
    for foreign in [&mut cpu.fresh_state().unwrap(), &mut other.fresh_state().unwrap()] {
        let error = one.forward(&mut [Row { state: foreign, tokens: &[1], want: Want::Next }]).unwrap_err();
        assert!(matches!(error, ForwardError::ForeignState), "{error}");
    }
    let error = cpu.forward(&mut [Row { state: &mut state, tokens: &[1], want: Want::Next }]).unwrap_err();
    assert!(matches!(error, ForwardError::StateSize { found: 0, .. }), "{error}");
    assert!(matches!(one.restore(&values[1..]), Err(ForwardError::StateSize { .. })));
}

#[test]
fn ids_that_are_no_tokens_are_refused() {
    let device = device(config(), Precision::F32, SMALL);
    let mut state = device.fresh_state().unwrap();
    let mut refused = |ids: &[u32]| {
        let rows = &mut [Row { state: &mut state, tokens: &[1], want: Want::Next }];
        device
            .answer(rows, &[Reduction::Ids(ids)], &mut Room::default(), &mut |_| panic!())
            .unwrap_err()
            .to_string()
    };
    assert_eq!(refused(&[3, 11]), "token 11 of row 0 is not in the vocabulary, whose largest id is 10");
    assert!(refused(&[3; 12]).starts_with("row 0 asks for the logits of 12 tokens, allowed are at most 11"));
}

#[test]
fn what_a_device_has_no_kernels_for_is_refused() {
    let on_device = |parts, precision| {
        LanguageModel::on_device(parts, &target(), precision, SMALL).unwrap_err().to_string()
    };
    let error = on_device(parts(config()), Precision::Int8);
    assert!(
        error.starts_with("precision int8 is for the CPU; allowed here are f32, bf16 and f16"),
        "{error}"
    );
    let error =
        LanguageModel::from_parts(parts(config()), &Device::Cpu, Precision::Bf16).unwrap_err().to_string();
    assert!(
        error.starts_with("precision bf16 is for CUDA devices; allowed on cpu are f32 and int8"),
        "{error}"
    );
}

#[test]
fn what_does_not_fit_into_the_memory_is_refused_with_the_numbers() {
    let capacity = Capacity { states: 1 << 29, ..SMALL };
    let error = LanguageModel::on_device(parts(config()), &target(), Precision::F32, capacity)
        .unwrap_err()
        .to_string();
    // A state of two layers of 9 units, each filled up to 16 numbers, three times, and a few more.
    assert!(
        error.starts_with(
            "it takes 393217 MiB (weights 1, states 393217, workspace 1) of the device's memory, "
        ),
        "{error}"
    );
    assert!(error.contains("MiB are free: fewer sessions, smaller batches or bf16 take less"), "{error}");
    let device = device(config(), Precision::F32, SMALL);
    let memory = device.device_memory().unwrap();
    assert_eq!(memory.states, (3 * 24 + 8) * 2 * 2 * 16 * 4);
    assert!(memory.weights == device.weight_bytes() && memory.total() < 1 << 20, "{memory}");
    assert_eq!(model(config()).device_memory(), None);
}

/// Of sizes that real models have: on a real device, where that is done at once.
#[test]
#[ignore = "takes a device"]
fn large_shapes_and_batches_are_those_of_the_cpu() {
    let config = Config {
        vocab_size: 10_000,
        embedding_size: Some(650),
        hidden_size: 650,
        start: Start::ZeroState,
        ..config()
    };
    let capacity = Capacity { states: 300, ..Capacity::default() };
    for precision in [Precision::F32, Precision::Bf16, Precision::F16] {
        for rows in [1, 16, 64, 256] {
            let request = |row| (tokens(row, 1, config.vocab_size), Want::Next);
            check(&config, precision, capacity, &(0..rows).map(request).collect::<Vec<_>>());
        }
        for rows in [1, 8, 20] {
            let request = |row: usize| (tokens(row, 40 + row, config.vocab_size), WANTS[row % 2]);
            check(&config, precision, capacity, &(0..rows).map(request).collect::<Vec<_>>());
        }
    }
}

#[test]
fn a_number_that_is_not_finite_is_told_of_its_row_alone() {
    let mut parts = parts(config());
    let embedding = parts.tensors.get_mut("embed.weight").unwrap();
    let mut rows = embedding.to_vec2::<f32>().unwrap();
    rows[4][0] = f32::NAN;
    *embedding = candle_core::Tensor::new(rows, &Device::Cpu).unwrap();
    let device = LanguageModel::on_device(parts, &target(), Precision::F32, SMALL).unwrap();
    let requests = [(vec![1], Want::Next), (vec![4], Want::Next), (vec![5], Want::Next)];
    let reductions = [Reduction::Top { k: 1, log_threshold: None }; 3];
    let mut states = vec![device.fresh_state().unwrap(); 3];
    let found = answers(&device, &mut states, &requests, &reductions);
    let finite: Vec<bool> =
        found.iter().map(|(.., numbers)| numbers.iter().all(|number| number.is_finite())).collect();
    assert_eq!(finite, [true, false, true]);
    assert_eq!(found[1].2, "norm");
}
