//! Frames as a hostile coordinator sends them, and what happens between two of them.

use chorus_fuzz::{Encoded, any_count, any_f64, any_number, mutated};
use proptest::prelude::*;
use prost::Message as _;

use crate::{engine::scripted::MODEL, snapshot};
use chorus_proto::v1::{
    self, AskDraw, AskIds, AskLogits, AskNothing, AskTargets, AskTop, OperationFrame, feed::Ask,
    operation::Operation,
};

pub(super) const STREAMS: u64 = 3;

/// What happens to a worker.
#[derive(Debug, Clone)]
pub(super) enum Event {
    Frame {
        stream: u64,
        frame: Encoded,
    },
    /// One forward.
    Batch,
    /// Forwards until there is nothing to do.
    Idle,
    Later {
        milliseconds: u32,
    },
    Expire,
    End {
        stream: u64,
    },
}

pub(super) fn script() -> impl Strategy<Value = Vec<Event>> {
    let stream = 0..STREAMS;
    let event = prop_oneof![
        12 => (stream.clone(), mutated(frame(), &[])).prop_map(|(stream, frame)| Event::Frame { stream, frame }),
        3 => Just(Event::Batch),
        1 => Just(Event::Idle),
        1 => prop_oneof![0..20_u32, Just(11_000)].prop_map(|milliseconds| Event::Later { milliseconds }),
        1 => Just(Event::Expire),
        1 => stream.prop_map(|stream| Event::End { stream }),
    ];
    prop::collection::vec(event, 1..20)
}

/// Mostly a session's life as it should be, so that what is changed in it meets something.
fn frame() -> impl Strategy<Value = Vec<u8>> + Clone {
    let life = (0..3_u64, open(), prop::collection::vec(feed(), 0..5), prop::option::of(any::<bool>()));
    let life = life.prop_map(|(session, open, feeds, close)| {
        let feeds = (1..).zip(feeds).map(|(step, feed)| Operation::Feed(v1::Feed { step, ..feed }));
        let close = close.map(|discard| Operation::Close(v1::Close { discard }));
        let all = [Operation::Open(open)].into_iter().chain(feeds).chain(close);
        all.map(|operation| v1::Operation { session, operation: Some(operation) }).collect()
    });
    let anything = prop_oneof![
        1 => open().prop_map(Operation::Open),
        6 => feed().prop_map(Operation::Feed),
        1 => any::<bool>().prop_map(|discard| Operation::Close(v1::Close { discard })),
    ];
    let anything = (any_number(), prop::option::weighted(0.9, anything))
        .prop_map(|(session, operation)| v1::Operation { session: session % 5, operation });
    prop_oneof![life, prop::collection::vec(anything, 0..6)]
        .prop_map(|operations: Vec<v1::Operation>| OperationFrame { operations }.encode_to_vec())
        .boxed()
}

fn open() -> impl Strategy<Value = v1::Open> + Clone {
    let tokens = prop::collection::vec(any_count(), 0..4);
    let sealed = (any_number(), tokens).prop_map(|(position, tokens)| {
        let state: Vec<u8> = tokens.iter().flat_map(|token| token.to_le_bytes()).collect();
        snapshot::seal(MODEL, position, state.into())
    });
    let from = prop_oneof![
        3 => sealed.prop_map(v1::open::From::Snapshot),
        2 => (0..5_u64).prop_map(v1::open::From::ForkOf),
    ];
    prop::option::weighted(0.5, from).prop_map(|from| v1::Open { from })
}

fn feed() -> impl Strategy<Value = v1::Feed> + Clone {
    let tokens = prop_oneof![9 => prop::collection::vec(0..8_u32, 0..7), 1 => prop::collection::vec(any_count(), 0..12)];
    let step = prop_oneof![4 => 1..4_u64, 1 => any_number()];
    (
        step,
        tokens,
        prop::option::weighted(0.97, ask()),
        any::<bool>(),
        prop::option::weighted(0.3, any_count()),
        prop_oneof![9 => Just(String::new()), 1 => ".{0,200}"],
    )
        .prop_map(|(step, tokens, ask, snapshot, timeout_ms, traceparent)| v1::Feed {
            step,
            tokens,
            ask,
            snapshot,
            timeout_ms,
            traceparent,
        })
        .boxed()
}

fn ask() -> impl Strategy<Value = Ask> + Clone {
    let rows = || prop_oneof![9 => 1..3_i32, 1 => any::<i32>()];
    let format = prop_oneof![9 => 0..3_i32, 1 => any::<i32>()];
    let uniform = prop_oneof![3 => 0.0..1.0, 1 => any_f64()];
    let ids = prop_oneof![
        3 => prop::collection::btree_set(0..8_u32, 1..6).prop_map(|ids| ids.into_iter().collect()),
        1 => prop::collection::vec(any_count(), 0..6),
    ];
    prop_oneof![
        Just(Ask::Nothing(AskNothing {})),
        Just(Ask::Targets(AskTargets {})),
        (rows(), format).prop_map(|(rows, format)| Ask::Logits(AskLogits { rows, format })),
        (rows(), any_count(), prop::option::of(any_f64()))
            .prop_map(|(rows, k, log_threshold)| Ask::Top(AskTop { rows, k, log_threshold })),
        ids.prop_map(|ids| Ask::Ids(AskIds { ids })),
        uniform.prop_map(|uniform| Ask::Draw(AskDraw { uniform })),
    ]
    .boxed()
}
