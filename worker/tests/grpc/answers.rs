//! What a worker answers is what its model computes.

use chorus_model::{LanguageModel, Row, State, Want};
use chorus_proto::v1::{Drawn, RowFormat, Rows, answer::Answer as Kind};

use crate::{
    harness::{
        Worker, assert_norm_of, assert_same, close, draw, each, feed, ids, log_probs, next, next_in, norms,
        nothing, open, soon, targets, top, values,
    },
    models::{ON_DEVICE, VOCABULARY, device, tokens},
};

fn forward(model: &LanguageModel, state: &mut State, tokens: &[u32], want: Want) -> Vec<f32> {
    let mut outputs = model.forward(&mut [Row { state, tokens, want }]).unwrap();
    outputs.remove(0).logits
}

#[tokio::test]
async fn a_session_equals_the_model_to_the_bit() {
    let worker = Worker::start().await;
    let model = worker.model();
    let mut stream = worker.attach().await;
    let mut state = model.fresh_state().unwrap();

    stream.send([open(1)]);
    let answer = stream.ask(feed(1, 1, &[], next())).await;
    let row = forward(&model, &mut state, &[], Want::Next);
    assert_same(&values(&answer, 1), &row);
    assert_norm_of(norms(&answer)[0], &row);

    let answer = stream.ask(feed(1, 2, &[3, 1, 4], next())).await;
    let row = forward(&model, &mut state, &[3, 1, 4], Want::Next);
    assert_same(&values(&answer, 1), &row);

    let answer = stream.ask(feed(1, 3, &[1, 5, 9, 2], each())).await;
    let rows = forward(&model, &mut state, &[1, 5, 9, 2], Want::Each);
    assert_same(&values(&answer, 4), &rows);
    // A feed's first row is what the last one ended with.
    assert_same(&rows[..VOCABULARY], &row);

    let answer = stream.ask(feed(1, 4, &[6, 5], targets())).await;
    let rows = forward(&model, &mut state, &[6, 5], Want::Each);
    let log_prob = |(row, token): (&[f32], usize)| chorus_simd::norm(row).log_prob(row[token]);
    let expected: Vec<f64> = rows.chunks(VOCABULARY).zip([6, 5]).map(log_prob).collect();
    let near =
        |(found, expected): (&f64, &f64)| (found - expected).abs() <= if ON_DEVICE { 1e-5 } else { 0.0 };
    assert!(log_probs(&answer).len() == 2 && log_probs(&answer).iter().zip(&expected).all(near));

    stream.ask(feed(1, 5, &[3, 5], nothing())).await;
    forward(&model, &mut state, &[3, 5], Want::Nothing);
    let answer = stream.ask(feed(1, 6, &[], next())).await;
    assert_same(&values(&answer, 1), &forward(&model, &mut state, &[], Want::Next));
}

fn f32_values(bytes: &[u8]) -> Vec<f32> {
    chorus_proto::values_of(bytes, RowFormat::F32)
}

#[tokio::test]
async fn what_is_asked_about_a_part_of_a_row_is_that_part_of_it() {
    let worker = Worker::start().await;
    let model = worker.model();
    let mut stream = worker.attach().await;
    let mut state = model.fresh_state().unwrap();
    stream.send([open(1)]);

    let fed = [3, 1, 4];
    let rows = forward(&model, &mut state, &fed, Want::Each);
    let threshold = 0.04_f64.ln();
    let answer = stream.ask(feed(1, 1, &fed, top(Rows::Each, 2, Some(threshold)))).await;
    let Some(Kind::Top(tops)) = answer.answer else { panic!("{answer:?}") };
    let (logits, targets) = (f32_values(&tops.logits), f32_values(&tops.target_logits));
    let mut rest = tops.ids.iter().zip(&logits);
    for (index, row) in rows.chunks(VOCABULARY).enumerate() {
        let norm = chorus_simd::norm(row);
        assert_norm_of(tops.norms.as_ref().unwrap().iter().nth(index).unwrap(), row);
        assert_same(&[targets[index]], &[row[fed[index] as usize]]);
        let mut likeliest: Vec<u32> = (0..VOCABULARY as u32).collect();
        likeliest.sort_by(|a, b| row[*b as usize].total_cmp(&row[*a as usize]));
        let above = likeliest.iter().filter(|id| norm.log_prob(row[**id as usize]) > threshold).count();
        likeliest.truncate(above.max(2));
        likeliest.sort_unstable();
        let expected: Vec<(u32, f32)> = likeliest.iter().map(|id| (*id, row[*id as usize])).collect();
        let found: Vec<(u32, f32)> =
            rest.by_ref().take(tops.counts[index] as usize).map(|(id, logit)| (*id, *logit)).collect();
        assert_eq!(found, expected);
    }
    assert_eq!(rest.next(), None);

    // A second question about the same position, and a third.
    let row = forward(&model, &mut state, &[], Want::Next);
    let norm = chorus_simd::norm(&row);
    let answer = stream.ask(feed(1, 2, &[], ids(&[0, 7, 29]))).await;
    let Some(Kind::Ids(of_ids)) = answer.answer else { panic!("{answer:?}") };
    assert_eq!(f32_values(&of_ids.logits), [row[0], row[7], row[29]]);
    assert_norm_of(of_ids.norms.unwrap().iter().next().unwrap(), &row);
    for (step, uniform) in (3..).zip([0.0, 0.31, 0.99]) {
        let answer = stream.ask(feed(1, step, &[], draw(uniform))).await;
        let id = chorus_simd::draw(&row, norm, uniform) as u32;
        assert_eq!(answer.answer, Some(Kind::Drawn(Drawn { id })));
        let again = stream.ask(feed(1, step, &[], draw(uniform))).await;
        assert_eq!(again.answer, Some(Kind::Drawn(Drawn { id })), "a repeated step");
    }
}

#[tokio::test]
async fn rows_in_two_bytes_are_near_the_row_and_sum_to_one() {
    let worker = Worker::start().await;
    let model = worker.model();
    let row = forward(&model, &mut model.fresh_state().unwrap(), &[5], Want::Next);
    let norm = chorus_simd::norm(&row);
    let mut stream = worker.attach().await;
    for (session, format, off) in [(1, RowFormat::F16, 2e-3), (2, RowFormat::Bf16, 2e-2)] {
        stream.send([open(session)]);
        let answer = stream.ask(feed(session, 1, &[5], next_in(format))).await;
        let Some(Kind::Logits(logits)) = &answer.answer else { panic!("{answer:?}") };
        assert_eq!(logits.values.len(), 2 * VOCABULARY);
        let values = chorus_proto::logits_to_values(logits, format, 1, VOCABULARY).unwrap();
        let (largest, log_sum) = norms(&answer)[0];
        let log_prob = |value: f32| f64::from(value) - f64::from(largest) - log_sum;
        let sum: f64 = values.iter().map(|value| log_prob(*value).exp()).sum();
        assert!((sum - 1.0).abs() < 1e-6, "{sum}");
        for (value, logit) in values.iter().zip(&row) {
            assert!((log_prob(*value) - norm.log_prob(*logit)).abs() < off);
        }
    }
}

#[tokio::test]
async fn many_sessions_in_one_batch_equal_each_alone() {
    const SESSIONS: u64 = 40;
    let worker = Worker::start().await;
    let model = worker.model();
    let mut stream = worker.attach().await;
    let prompt = |session: u64| tokens(session as u32, (session % 9) as usize);
    stream.send((0..SESSIONS).flat_map(|session| {
        let each_token = feed(session, 2, &tokens(99, 3), each());
        [open(session), feed(session, 1, &prompt(session), next()), each_token]
    }));
    let mut answered = 0;
    while answered < 2 * SESSIONS {
        let answer = stream.answer().await;
        let mut state = model.fresh_state().unwrap();
        let row = forward(&model, &mut state, &prompt(answer.session), Want::Next);
        if answer.step == 1 {
            assert_same(&values(&answer, 1), &row);
        } else {
            let rows = forward(&model, &mut state, &tokens(99, 3), Want::Each);
            assert_same(&values(&answer, 3), &rows);
        }
        answered += 1;
    }
}

#[tokio::test]
async fn a_long_feed_that_is_computed_in_chunks_equals_one_forward() {
    let worker = Worker::start_with(|config| config.batch.chunk_tokens = 7).await;
    let model = worker.model();
    let mut stream = worker.attach().await;
    let long = tokens(5, 100);
    stream.send([1, 2].map(open));
    stream.send([feed(1, 1, &long, each()), feed(2, 1, &long, next())]);
    let (mut one, mut other) = (stream.answer().await, stream.answer().await);
    if one.session == 2 {
        std::mem::swap(&mut one, &mut other);
    }
    let mut state = model.fresh_state().unwrap();
    assert_same(&values(&one, 100), &forward(&model, &mut state, &long, Want::Each));
    assert_same(&values(&other, 1), &forward(&model, &mut state, &[], Want::Next));
}

#[tokio::test]
async fn a_text_is_scored_in_one_frame() {
    let worker = Worker::start().await;
    let model = worker.model();
    let mut stream = worker.attach().await;
    let text = tokens(8, 50);
    stream.send([open(1), feed(1, 1, &text, targets()), close(1)]);
    let answer = stream.answer().await;
    let rows = forward(&model, &mut model.fresh_state().unwrap(), &text, Want::Each);
    let log_prob =
        |(row, &token): (&[f32], &u32)| f64::from(row[token as usize]) - chorus_simd::log_sum_exp(row);
    let expected: f64 = rows.chunks(VOCABULARY).zip(&text).map(log_prob).sum();
    assert!((log_probs(&answer).iter().sum::<f64>() - expected).abs() < 1e-4);
}

#[tokio::test]
async fn the_card_and_the_tokenizer_are_those_of_the_directory() {
    let worker = Worker::start_with(|config| config.max_sessions = 5).await;
    let model = worker.model();
    let mut client = worker.client().await;
    let card = soon(client.describe(chorus_proto::v1::DescribeRequest {})).await.unwrap().into_inner();
    assert_eq!((card.name.as_str(), card.architecture.as_str()), ("small", "lstm 2x8"));
    assert_eq!(card.vocabulary_size, VOCABULARY as u32);
    assert_eq!(card.vocabulary_fingerprint, model.vocabulary().fingerprint());
    assert_eq!(card.start.unwrap().start, Some(chorus_proto::v1::start::Start::Token(2)));
    assert_eq!((card.end_token, card.device.as_str()), (Some(1), device().as_str()));
    assert_eq!(card.parameters, model.config().parameters());
    let limits = card.limits.unwrap();
    assert_eq!((limits.max_sessions, limits.max_feed_tokens, limits.session_ttl_seconds), (5, 4096, 300));
    assert_eq!(limits.max_answer_rows, 4096, "rows of 30 logits are small");

    let request = chorus_proto::v1::TokenizerRequest {};
    let mut pieces = soon(client.tokenizer(request)).await.unwrap().into_inner();
    let mut tokenizer = Vec::new();
    while let Some(piece) = soon(pieces.message()).await.unwrap() {
        tokenizer.extend_from_slice(&piece.data);
    }
    assert_eq!(tokenizer, std::fs::read(worker.directory().join("tokenizer.json")).unwrap());

    let other = chorus_worker::load(chorus_worker::WorkerConfig::new(worker.directory())).unwrap();
    assert_ne!(other.card().incarnation, card.incarnation);
}
