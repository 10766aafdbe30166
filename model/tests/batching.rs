//! A batch equals its rows one by one; chunks equal the whole; an error changes nothing.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::num::NonZeroUsize;

use chorus_model::{
    Config, ForwardError, LanguageModel, Output, Precision, Row, Start, State, Want, evaluate,
    evaluate_in_lanes, log_sum_exp,
};

use common::{config, difference, model, tokens};

/// Sums in another order differ by a few units in the last place.
const TOLERANCE: f32 = 2e-5;

fn configs() -> Vec<Config> {
    let tied =
        Config { tied: true, embedding_size: Some(9), lstm_bias: false, output_bias: false, ..config() };
    let one_hot = Config { embedding_size: None, layers: 3, start: Start::ZeroState, ..config() };
    let wide = Config { hidden_size: 70, embedding_size: Some(33), layers: 1, ..config() };
    vec![config(), tied, one_hot, wide]
}

fn forward(model: &LanguageModel, state: &mut State, tokens: &[u32], want: Want) -> Output {
    model.forward(&mut [Row { state, tokens, want }]).unwrap().remove(0)
}

/// A state somewhere in the middle of a text.
fn state(model: &LanguageModel, seed: usize) -> State {
    let mut state = model.fresh_state().unwrap();
    let before = tokens(seed, seed % 5, model.config().vocab_size);
    forward(model, &mut state, &before, Want::Nothing);
    state
}

#[test]
fn a_ragged_batch_with_mixed_wants_equals_its_rows_one_by_one() {
    for model in configs().into_iter().map(model) {
        let vocab_size = model.config().vocab_size;
        let lengths = [3, 0, 1, 7, 0, 0, 3, 1, 12, 1];
        let wants =
            [Want::Each, Want::Next, Want::Nothing, Want::Next, Want::Each, Want::Nothing, Want::Next];
        let requests: Vec<(Vec<u32>, Want)> = (0..lengths.len())
            .map(|row| (tokens(row, lengths[row], vocab_size), wants[row % wants.len()]))
            .collect();
        let mut together: Vec<State> = (0..lengths.len()).map(|row| state(&model, row)).collect();
        let mut alone = together.clone();
        let mut rows: Vec<Row<'_>> = together
            .iter_mut()
            .zip(&requests)
            .map(|(state, (tokens, want))| Row { state, tokens, want: *want })
            .collect();
        let outputs = model.forward(&mut rows).unwrap();
        for (index, (tokens, want)) in requests.iter().enumerate() {
            let expected = forward(&model, &mut alone[index], tokens, *want);
            let rows = match want {
                Want::Nothing => 0,
                Want::Next => 1,
                Want::Each => tokens.len(),
            };
            assert_eq!(outputs[index].logits.len(), rows * vocab_size);
            assert!(difference(&outputs[index].logits, &expected.logits) <= TOLERANCE, "row {index}");
            assert!(
                difference(&model.values(&together[index]).unwrap(), &model.values(&alone[index]).unwrap())
                    <= TOLERANCE,
                "row {index}"
            );
        }
    }
}

/// Other programs' rows in the same batch, and how a text is cut, must not show in a model's answers.
#[test]
fn a_row_has_the_same_bits_alone_and_in_a_batch_of_any_size() {
    let sizes = [(1, 3), (2, 3), (9, 11), (128, 70), (650, 5), (650, 70), (1030, 3)];
    let untied = sizes.map(|(hidden_size, vocab_size)| Config { hidden_size, vocab_size, ..config() });
    // Quantised blocks need longer rows of the embedding, too.
    let tied = [(192, 70), (650, 90)].map(|(hidden_size, vocab_size)| Config {
        hidden_size,
        embedding_size: Some(hidden_size),
        tied: true,
        vocab_size,
        ..config()
    });
    let long = Config { embedding_size: Some(224), ..tied[0].clone() };
    let long = Config { tied: false, ..long };
    for config in untied.into_iter().chain(tied).chain([long]) {
        let (hidden_size, vocab_size) = (config.hidden_size, config.vocab_size);
        for (form, model) in common::in_every_form(&config) {
            let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
            let text = tokens(1, 3, vocab_size);
            let mut alone = state(&model, 0);
            let expected = forward(&model, &mut alone, &text, Want::Each);
            // Token by token: a call with one step goes another way than one with several.
            let mut stepwise = state(&model, 0);
            let steps = text.iter().flat_map(|token| {
                forward(&model, &mut stepwise, std::slice::from_ref(token), Want::Each).logits
            });
            assert!(
                bits(&steps.collect::<Vec<_>>()) == bits(&expected.logits),
                "{form} {hidden_size} {vocab_size}"
            );
            assert!(
                bits(&model.values(&stepwise).unwrap()) == bits(&model.values(&alone).unwrap()),
                "{form} {hidden_size} {vocab_size}"
            );
            for size in [2, 5, 7, 16, 64, 65, 100] {
                let mut states: Vec<State> = (0..size).map(|row| state(&model, row * 5)).collect();
                // The row in question in the middle, beside rows that end before it and after it.
                let mine = size / 2;
                states.swap(0, mine);
                let mut others: Vec<Vec<u32>> =
                    (0..size).map(|row| tokens(row + 1, 1 + row % 5, vocab_size)).collect();
                others[mine].clone_from(&text);
                let rows = states.iter_mut().zip(&others);
                let mut rows: Vec<Row<'_>> =
                    rows.map(|(state, tokens)| Row { state, tokens, want: Want::Each }).collect();
                let outputs = model.forward(&mut rows).unwrap();
                let place = format!("{form} {hidden_size} {vocab_size} {size}");
                assert!(bits(&outputs[mine].logits) == bits(&expected.logits), "{place}");
                assert!(
                    bits(&model.values(&states[mine]).unwrap()) == bits(&model.values(&alone).unwrap()),
                    "{place}"
                );
            }
        }
    }
}

/// The first layer's table is made by the kernel that it replaces; above its size the embedding is projected.
#[test]
fn a_vocabulary_too_large_for_the_table_gives_the_same_logits() {
    // 4 · 500 · 4 bytes a token: 17,000 tokens are more than 128 MiB, 16,000 are not.
    let config = |vocab_size| Config {
        vocab_size,
        hidden_size: 500,
        embedding_size: Some(3),
        layers: 1,
        start: Start::ZeroState,
        ..config()
    };
    let large = common::parts(config(17_000));
    let mut small = common::parts(config(16_000));
    for (name, tensor) in &mut small.tensors {
        let rows = tensor.dim(0).unwrap();
        *tensor = large.tensors[name].narrow(0, 0, rows).unwrap().contiguous().unwrap();
    }
    let device = candle_core::Device::Cpu;
    let [large, small] =
        [large, small].map(|parts| LanguageModel::from_parts(parts, &device, Precision::F32).unwrap());
    assert!(large.weight_bytes() < small.weight_bytes(), "only the small one has a table");
    let text = tokens(3, 5, 16_000);
    for text in [&text[..], &text[..1]] {
        let [large, small] = [&large, &small]
            .map(|model| forward(model, &mut model.fresh_state().unwrap(), text, Want::Next).logits);
        assert!(large[..16_000] == small);
    }
}

#[test]
fn a_text_in_chunks_equals_the_text_at_once() {
    for model in configs().into_iter().map(model) {
        let text = tokens(5, 40, model.config().vocab_size);
        let mut whole = model.fresh_state().unwrap();
        let expected = forward(&model, &mut whole, &text, Want::Each).logits;
        let mut state = model.fresh_state().unwrap();
        let mut logits = Vec::new();
        for chunk in [&text[..1], &text[1..1], &text[1..8], &text[8..39], &text[39..]] {
            logits.extend(forward(&model, &mut state, chunk, Want::Each).logits);
        }
        assert!(difference(&logits, &expected) <= TOLERANCE);
        assert!(difference(&model.values(&state).unwrap(), &model.values(&whole).unwrap()) <= TOLERANCE);
    }
}

#[test]
fn next_is_what_each_says_of_the_following_token() {
    for model in configs().into_iter().map(model) {
        let text = tokens(9, 6, model.config().vocab_size);
        let each = forward(&model, &mut model.fresh_state().unwrap(), &text, Want::Each).logits;
        let next = forward(&model, &mut model.fresh_state().unwrap(), &text[..5], Want::Next).logits;
        assert!(difference(&next, &each[5 * model.config().vocab_size..]) <= TOLERANCE);
    }
}

#[test]
fn a_zero_state_start_predicts_the_output_bias() {
    let parts = common::parts(Config { start: Start::ZeroState, ..config() });
    let bias: Vec<f32> = parts.tensors["linear.bias"].to_vec1().unwrap();
    let model = LanguageModel::from_parts(parts, &candle_core::Device::Cpu, Precision::F32).unwrap();
    let mut state = model.fresh_state().unwrap();
    assert_eq!(forward(&model, &mut state, &[], Want::Next).logits, bias);
}

#[test]
fn a_failing_row_changes_no_state() {
    let model = model(config());
    let (mut good, mut bad) = (state(&model, 1), state(&model, 2));
    let before = (good.clone(), bad.clone());
    let mut rows = [
        Row { state: &mut good, tokens: &[1, 2], want: Want::Next },
        Row { state: &mut bad, tokens: &[3, 11], want: Want::Next },
    ];
    let error = model.forward(&mut rows).unwrap_err();
    assert_eq!(error.to_string(), "token 11 of row 1 is not in the vocabulary, whose largest id is 10");
    assert_eq!((good, bad), before);
}

#[test]
fn states_are_restored_from_their_numbers_only_where_they_fit() {
    let model = model(config());
    let state = state(&model, 3);
    assert_eq!(model.restore(&model.values(&state).unwrap()).unwrap(), state);
    assert!(matches!(model.restore(&[0.0; 5]), Err(ForwardError::StateSize { found: 5, expected: 36 })));
    let mut broken = model.values(&state).unwrap().into_owned();
    broken[7] = f32::NAN;
    assert!(matches!(model.restore(&broken), Err(ForwardError::StateNotFinite { index: 7, .. })));
    let mut foreign = common::model(Config { layers: 1, ..config() }).fresh_state().unwrap();
    let rows = &mut [Row { state: &mut foreign, tokens: &[1], want: Want::Next }];
    assert!(matches!(model.forward(rows), Err(ForwardError::StateSize { found: 18, expected: 36 })));
}

#[test]
fn nothing_to_do_is_no_error() {
    let model = model(config());
    assert_eq!(model.forward(&mut []).unwrap(), []);
    let empty = evaluate(&model, &[], |_| {}).unwrap();
    assert_eq!((empty.tokens, empty.nats, empty.perplexity()), (0, 0.0, None));
}

#[test]
fn evaluation_is_the_chain_rule_over_the_whole_text() {
    let model = model(config());
    let text = tokens(4, 600, 11);
    let each = forward(&model, &mut model.fresh_state().unwrap(), &text, Want::Each).logits;
    let cost = |(row, token): (&[f32], &u32)| log_sum_exp(row) - f64::from(row[*token as usize]);
    let expected: f64 = each.chunks(11).zip(&text).map(cost).sum();
    let mut heard = Vec::new();
    let evaluation = evaluate(&model, &text, |done| heard.push(done)).unwrap();
    assert_eq!(evaluation.tokens, 600);
    assert!((evaluation.nats - expected).abs() < 1e-3, "{} against {expected}", evaluation.nats);
    assert_eq!(heard, [256, 512, 600]);
}

#[test]
fn lanes_are_evaluated_as_texts_of_their_own_after_their_first_token() {
    let model = model(config());
    let text = tokens(4, 1303, 11);
    let cost = |text: &[u32]| evaluate(&model, text, |_| {}).unwrap().nats;
    for lanes in [1, 2, 300] {
        let length = 1303 / lanes;
        let parts = text.chunks_exact(length).take(lanes);
        let expected: f64 = parts.map(|lane| cost(lane) - cost(&lane[..1])).sum();
        let mut heard = 0;
        let number = NonZeroUsize::new(lanes).unwrap();
        let evaluation = evaluate_in_lanes(&model, &text, number, |done| heard = done).unwrap();
        assert_eq!((evaluation.tokens, heard), ((lanes * (length - 1)) as u64, (lanes * length) as u64));
        assert!((evaluation.nats - expected).abs() < 1e-3, "{} against {expected}", evaluation.nats);
    }
    for short in [0, 1, 2, 3] {
        let number = NonZeroUsize::new(2).unwrap();
        assert_eq!(evaluate_in_lanes(&model, &text[..short], number, |_| {}).unwrap().tokens, 0);
    }
}
