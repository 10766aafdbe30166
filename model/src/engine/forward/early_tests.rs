//! What is computed early changes no bit of what is computed then, and is used.

use candle_core::{DType, Device, Result};
use candle_nn::VarBuilder;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use super::tests::{config, network, parts};
use super::*;
use crate::quantization::Quantization;
use crate::row::State;

/// One call, by the states that are in it: what each is fed, and what it wants.
type Call = Vec<(usize, Vec<u32>, Want)>;

/// What happens between two calls.
#[derive(Debug, Clone)]
enum Between {
    /// So many parts are computed early.
    Early(usize),
    /// All of them are.
    AllEarly,
    /// One state becomes a copy of another.
    Copy(usize, usize),
}

const STATES: usize = 9;

fn calls() -> impl Strategy<Value = Vec<(Call, Vec<Between>)>> {
    let want = prop_oneof![5 => Just(Want::Next), 2 => Just(Want::Nothing), 1 => Just(Want::Each)];
    let tokens =
        prop_oneof![4 => prop::collection::vec(0..70u32, 1), 1 => prop::collection::vec(0..70u32, 0..5)];
    let rows = prop::collection::vec(prop::option::weighted(0.7, (tokens, want)), STATES);
    let call = rows.prop_map(|rows| {
        let row =
            |(state, row): (usize, Option<(Vec<u32>, Want)>)| row.map(|(tokens, want)| (state, tokens, want));
        rows.into_iter().enumerate().filter_map(row).collect()
    });
    let between = prop_oneof![
        2 => (0..9usize).prop_map(Between::Early),
        2 => Just(Between::AllEarly),
        1 => (0..STATES, 0..STATES).prop_map(|(one, other)| Between::Copy(one, other)),
    ];
    prop::collection::vec((call, prop::collection::vec(between, 0..3)), 1..8)
}

/// An engine with states, and the bits of everything that it has answered.
struct Reader {
    engine: Engine,
    states: Vec<State>,
    answered: Vec<u32>,
}

impl Reader {
    fn new(engine: Engine, state_size: usize) -> Self {
        Self { engine, states: vec![State::on_host(vec![0.0; state_size]); STATES], answered: Vec::new() }
    }

    fn call(&mut self, call: &Call) -> Result<()> {
        let mut rows = Vec::new();
        for (index, state) in self.states.iter_mut().enumerate() {
            if let Some((_, tokens, want)) = call.iter().find(|(state, ..)| *state == index) {
                rows.push(Row { state, tokens, want: *want });
            }
        }
        let answered = &mut self.answered;
        self.engine.forward(&mut rows, &mut |prediction| {
            answered.extend(prediction.logits.iter().map(|logit| logit.to_bits()));
        })
    }

    fn finish(mut self) -> Vec<u32> {
        let values = self.states.iter().flat_map(|state| state.values());
        self.answered.extend(values.map(|value| value.to_bits()));
        self.answered
    }
}

#[test]
fn what_is_computed_early_changes_no_bit() {
    // With a table, from a layer below, of more than a block's depth.
    for (embedding_size, hidden_size, layers) in [(None, 21, 2), (Some(9), 150, 1), (Some(17), 33, 3)] {
        let config = config(embedding_size, hidden_size, layers);
        let network = network(&config).unwrap();
        for instructions in chorus_simd::all_instructions() {
            for precision in [Precision::F32, Precision::Int8] {
                let engine =
                    || Engine::for_instructions(&network, Numbers::Tensors(precision), instructions).unwrap();
                let mut runner = TestRunner::new(ProptestConfig::with_cases(24));
                let same = runner.run(&(calls(), 1..20_000usize, 1..30usize), |(calls, of_a_part, room)| {
                    let mut early = Reader::new(engine(), config.state_size());
                    early.engine.early = EarlyProducts::new(layers, room).unwrap();
                    early.engine.early.of_a_part = of_a_part;
                    let mut late = Reader::new(engine(), config.state_size());
                    for (call, between) in &calls {
                        early.call(call).unwrap();
                        late.call(call).unwrap();
                        for between in between {
                            match *between {
                                Between::Early(parts) => {
                                    (0..parts).for_each(|_| early.engine.compute_early().unwrap());
                                }
                                Between::AllEarly => all_early(&mut early.engine),
                                Between::Copy(one, other) => {
                                    early.states[one] = early.states[other].clone();
                                    late.states[one] = late.states[other].clone();
                                }
                            }
                        }
                    }
                    prop_assert!(early.finish() == late.finish());
                    Ok(())
                });
                same.unwrap_or_else(|error| panic!("{instructions:?} {precision} {hidden_size}: {error}"));
            }
        }
    }
}

/// Rows whose products are there between others whose are not, over several blocks of rows.
#[test]
fn in_every_form_of_the_weights_known_rows_stand_beside_others() {
    let config = config(Some(192), 256, 1);
    let parts = parts(config.clone()).quantize(Quantization::Q4K).unwrap();
    let tensors = parts.tensors.clone().into_iter().collect();
    let network =
        Network::new(&config, &VarBuilder::from_tensors(tensors, DType::F32, &Device::Cpu)).unwrap();
    let blocks = parts.quantized.as_ref().unwrap();
    let tensors = Numbers::Tensors;
    for numbers in [tensors(Precision::F32), tensors(Precision::Int8), Numbers::Blocks(blocks)] {
        for instructions in chorus_simd::all_instructions() {
            let engine = || Engine::for_instructions(&network, numbers, instructions).unwrap();
            let (mut early, mut late) = (engine(), engine());
            let mut states = vec![State::on_host(vec![0.0; config.state_size()]); 100];
            step(&mut states, &mut early);
            all_early(&mut early);
            for (index, state) in states.iter_mut().enumerate() {
                if index % 7 == 3 || (50..60).contains(&index) {
                    *state = State::on_host(state.values());
                }
            }
            let mut copies = states.clone();
            assert_eq!(step(&mut states, &mut early), step(&mut copies, &mut late), "{instructions:?}");
            assert!(states == copies, "{numbers:?} {instructions:?}");
        }
    }
}

fn all_early(engine: &mut Engine) {
    while engine.has_early_work() {
        engine.compute_early().unwrap();
    }
}

fn step(states: &mut [State], engine: &mut Engine) -> Vec<f32> {
    let mut logits = Vec::new();
    let mut rows: Vec<_> =
        states.iter_mut().map(|state| Row { state, tokens: &[3], want: Want::Next }).collect();
    engine.forward(&mut rows, &mut |prediction| logits.push(prediction.logits[0])).unwrap();
    logits
}

#[test]
fn what_is_kept_is_used_for_the_state_that_it_is_of_and_no_other() {
    let config = config(Some(5), 40, 2);
    let network = network(&config).unwrap();
    let mut engine = Engine::new(&network, Precision::F32).unwrap();
    let zero = State::on_host(vec![0.0; config.state_size()]);
    let mut states = vec![zero.clone(); 2];
    step(&mut states, &mut engine);
    all_early(&mut engine);
    // A copy with the same numbers, of which nobody knows it.
    let restored = State::on_host(states[0].values());
    engine.early.spoil();
    let logits = step(&mut [states[0].clone(), restored.clone(), states[1].clone()], &mut engine);
    assert!(logits[0].is_nan() && logits[2].is_nan(), "it was computed twice: {logits:?}");
    assert!(logits[1].is_finite(), "that is another state");
    // Another engine has other products.
    let mut other = Engine::new(&network, Precision::F32).unwrap();
    step(&mut [zero.clone(), zero], &mut other);
    all_early(&mut other);
    other.early.spoil();
    assert!(step(&mut states, &mut other).iter().all(|logit| logit.is_finite()));
}

#[test]
fn what_is_computed_in_part_is_used_in_part() {
    let config = config(None, 40, 1);
    let network = network(&config).unwrap();
    let mut engine = Engine::new(&network, Precision::F32).unwrap();
    engine.early.of_a_part = 1;
    let mut states = [State::on_host(vec![0.0; config.state_size()])];
    step(&mut states, &mut engine);
    engine.compute_early().unwrap();
    assert!(engine.has_early_work(), "there are more panels");
    engine.early.spoil();
    step(&mut states, &mut engine);
    let not_finite = states[0].values().iter().take_while(|value| value.is_nan()).count();
    assert_eq!(not_finite, engine.weights.lanes.min(40), "the units of the first panel, and no others");
    assert!(states[0].values()[not_finite..40].iter().all(|value| value.is_finite()));
}

/// A part keeps others waiting. Of one sequence it is its weights that take time, of many the multiplications.
#[test]
fn a_part_is_short_for_one_sequence_and_for_many() {
    let config = config(None, 600, 1);
    let mut engine = Engine::new(&network(&config).unwrap(), Precision::F32).unwrap();
    for (sequences, least) in [(1, 600 * 2400 * 4 / (2 << 20)), (100, 100 * 600 * 2400 / (8 << 20))] {
        let mut states = vec![State::on_host(vec![0.0; config.state_size()]); sequences];
        step(&mut states, &mut engine);
        let mut parts = 0;
        while engine.has_early_work() {
            engine.compute_early().unwrap();
            parts += 1;
        }
        assert!(parts > least, "{sequences}: {parts}");
    }
}

#[test]
fn a_text_that_is_scored_is_not_expected_to_go_on() {
    let config = config(None, 16, 1);
    let mut engine = Engine::new(&network(&config).unwrap(), Precision::F32).unwrap();
    let mut state = State::on_host(vec![0.0; config.state_size()]);
    for (tokens, want, is_expected) in [
        (&[1, 2][..], Want::Each, false),
        (&[1, 2], Want::Next, true),
        (&[1, 2], Want::Nothing, false),
        (&[1], Want::Nothing, true),
        (&[], Want::Next, false),
    ] {
        engine.forward(&mut [Row { state: &mut state, tokens, want }], &mut |_| {}).unwrap();
        assert_eq!(engine.has_early_work(), is_expected, "{tokens:?} {want:?}");
    }
}

#[test]
fn of_more_sequences_than_there_is_room_for_some_are_kept() {
    let config = config(None, 16, 1);
    let network = network(&config).unwrap();
    let engine = || Engine::new(&network, Precision::F32).unwrap();
    let mut states = vec![State::on_host(vec![0.0; config.state_size()]); 300];
    let (mut early, mut late) = (engine(), engine());
    for _ in 0..3 {
        let mut copies = states.clone();
        assert_eq!(step(&mut states, &mut early), step(&mut copies, &mut late));
        assert_eq!(states, copies);
        all_early(&mut early);
    }
    early.early.spoil();
    let from_spoilt = step(&mut states, &mut early).iter().filter(|logit| logit.is_nan()).count();
    assert_eq!(from_spoilt, ROOM);
}
