//! Hostile snapshots against a real model: one that is taken gives a session that answers, one that is not leaves everything
//! as it was.

use std::cell::RefCell;

use candle_core::{Device, Tensor};
use chorus_fuzz::{Encoded, Verdict, any_f32, any_number, fuzz, mutated};
use chorus_model::{Config, FORMAT, LanguageModel, ModelParts, Start};
use chorus_proto::{logits_to_values, v1::RowFormat};
use chorus_text::Vocabulary;
use proptest::prelude::*;
use prost::Message as _;

use super::super::{
    scripted::{MODEL, TTL, next, only},
    *,
};
use super::LONGEST_MESSAGE;
use crate::hosted_model::HostedModel;
use chorus_fuzz::assert_one_line;
use v1::answer::Answer as Kind;

const VOCABULARY: usize = 6;
const KEY: SessionKey = SessionKey { stream: 1, session: 1 };

fn model() -> HostedModel {
    let config = Config {
        format: FORMAT,
        name: "small".to_owned(),
        vocab_size: VOCABULARY,
        embedding_size: Some(3),
        hidden_size: 4,
        layers: 1,
        tied: false,
        lstm_bias: true,
        output_bias: true,
        start: Start::ZeroState,
        end: None,
    };
    let tensor = |(name, shape): (String, Vec<usize>)| {
        let values: Vec<f32> =
            (0..shape.iter().product()).map(|place| (7 * place % 13) as f32 / 8.0 - 0.75).collect();
        (name, Tensor::from_vec(values, shape, &Device::Cpu).unwrap())
    };
    let tensors = config.tensor_shapes().into_iter().map(tensor).collect();
    let vocabulary = Vocabulary::train_characters("abcdef").unwrap();
    let parts = ModelParts::new(config, vocabulary, tensors);
    HostedModel::new(LanguageModel::from_parts(parts, &Device::Cpu, chorus_model::Precision::F32).unwrap())
        .unwrap()
}

fn apply(engine: &mut Engine<HostedModel>, operation: Operation) -> Vec<v1::Answer> {
    let (now, mut replies) = (Instant::now(), Vec::new());
    engine.apply(KEY, operation, Credit::default(), now, &mut replies);
    while engine.has_work() {
        engine.run_batch(now, &mut replies);
    }
    replies.into_iter().map(|reply| reply.answer).collect()
}

fn feed(step: u64, tokens: &[u32]) -> Operation {
    Operation::Feed(Feed { snapshot: true, ..Feed::new(step, tokens.to_vec(), next()) })
}

/// A state of the right size, or nearly, whose numbers may be anything, sealed as it should be.
fn sealed() -> impl Strategy<Value = Vec<u8>> + Clone {
    let number = prop_oneof![9 => -1.0..1.0_f32, 1 => any_f32()];
    let numbers =
        prop_oneof![9 => prop::collection::vec(number.clone(), 8), 1 => prop::collection::vec(number, 0..20)];
    (any_number(), numbers).prop_map(|(position, numbers)| {
        let state: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
        snapshot::seal(MODEL, position, state.into()).encode_to_vec()
    })
}

#[test]
fn a_snapshot_gives_a_session_that_answers_or_leaves_everything_as_it_was() {
    let engine = Engine::new(model(), MODEL.to_owned(), 4, TTL, BatchLimits::default());
    let engine = RefCell::new(engine);
    fuzz("worker: snapshots", mutated(sealed(), &[MODEL]), |Encoded(bytes)| {
        let Ok(snapshot) = v1::Snapshot::decode(bytes.as_slice()) else {
            return Verdict::Refused;
        };
        let engine = &mut *engine.borrow_mut();
        assert_eq!(apply(engine, Operation::Open(Origin::Start)), []);
        let before = only(apply(engine, feed(1, &[1, 2])));
        let (position, numbers) = (snapshot.position, snapshot.state.clone());
        let refused = apply(engine, Operation::Open(Origin::Snapshot(Box::new(snapshot))));
        assert_eq!(engine.open_sessions().load(Ordering::Relaxed), 1);
        if let [answer] = refused.as_slice() {
            let Some(Kind::Failure(failure)) = &answer.answer else { panic!("{answer:?}") };
            assert_eq!((answer.step, failure.code()), (0, ErrorCode::InvalidArgument));
            assert_one_line(&failure.message, LONGEST_MESSAGE);
            assert_eq!(only(apply(engine, feed(1, &[1, 2]))), before, "the session stands where it stood");
            return Verdict::Refused;
        }
        assert_eq!(numbers.len(), 32);
        let answer = only(apply(engine, feed(1, &[3])));
        match answer.answer {
            Some(Kind::Logits(logits)) => {
                let logits = logits_to_values(&logits, RowFormat::F32, 1, VOCABULARY).unwrap();
                assert!(logits.iter().all(|logit| logit.is_finite()));
                assert_eq!(answer.snapshot.unwrap().position, position + 1);
            }
            // Numbers so large that what is computed from them is none.
            Some(Kind::Failure(failure)) => assert_eq!(failure.code(), ErrorCode::NotFinite),
            other => panic!("{other:?}"),
        }
        Verdict::Accepted
    });
}
