//! Sessions that one worker leaves and another goes on with.

use chorus_proto::v1::{self, ErrorCode};
use chorus_worker::Precision;
use tonic::Code;

use crate::harness::{Worker, assert_same, failure, feed, next, nothing, open, soon, values};

pub(crate) fn open_at(session: u64, snapshot: v1::Snapshot) -> v1::Operation {
    let open = v1::Open { from: Some(v1::open::From::Snapshot(snapshot)) };
    v1::Operation { session, operation: Some(v1::operation::Operation::Open(open)) }
}

pub(crate) fn with_snapshot(mut operation: v1::Operation) -> v1::Operation {
    if let Some(v1::operation::Operation::Feed(feed)) = &mut operation.operation {
        feed.snapshot = true;
    }
    operation
}

#[tokio::test]
async fn another_worker_goes_on_from_a_snapshot_with_the_same_bits() {
    let (first, second) = (Worker::start().await, Worker::start().await);
    let (mut first, mut second) = (first.attach().await, second.attach().await);
    first.send([open(1)]);
    let answer = first.ask(with_snapshot(feed(1, 1, &[3, 4, 5], nothing()))).await;
    let snapshot = answer.snapshot.unwrap();
    assert_eq!((snapshot.position, snapshot.state.len()), (3, 2 * 2 * 8 * 4), "h and c of two layers");
    second.send([open_at(7, snapshot)]);
    let there = second.ask(feed(7, 1, &[6], next())).await;
    let here = first.ask(feed(1, 2, &[6], next())).await;
    assert_eq!(values(&there, 1), values(&here, 1));
}

#[tokio::test]
async fn a_worker_that_stops_hands_its_sessions_over_after_the_last_answer() {
    let (first, second) = (Worker::start().await, Worker::start().await);
    let mut leaving = first.attach().await;
    leaving.send([open(1), open(2), open(3), feed(1, 1, &[3, 4, 5], nothing()), feed(2, 1, &[9], next())]);
    leaving.answer().await;
    leaving.answer().await;
    let stopped = tokio::spawn(first.stop());
    let status = leaving.try_answer().await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::Unavailable, "the worker is stopping"));
    soon(stopped).await.unwrap().unwrap();
    let handovers = leaving.handovers;
    assert_eq!(handovers.iter().map(|one| one.session).collect::<Vec<_>>(), [1, 2], "3 has read nothing");

    let mut taking = second.attach().await;
    taking.send([open_at(1, handovers[0].snapshot.clone().unwrap()), open(2)]);
    let from_snapshot = taking.ask(feed(1, 1, &[6], next())).await;
    let from_start = taking.ask(feed(2, 1, &[3, 4, 5, 6], next())).await;
    assert_same(&values(&from_snapshot, 1), &values(&from_start, 1));
}

#[tokio::test]
async fn a_snapshot_of_other_arithmetic_is_another_model_s() {
    let (exact, coarse) =
        (Worker::start().await, Worker::start_with(|config| config.precision = Precision::Int8).await);
    let (mut exact, mut coarse) = (exact.attach().await, coarse.attach().await);
    exact.send([open(1)]);
    let snapshot = exact.ask(with_snapshot(feed(1, 1, &[3], nothing()))).await.snapshot.unwrap();
    let answer = coarse.ask(open_at(1, snapshot)).await;
    let (code, message) = failure(&answer);
    assert_eq!(code, ErrorCode::InvalidArgument);
    assert!(message.contains("f32") && message.contains("int8"), "{message}");
}

#[tokio::test]
async fn a_damaged_snapshot_is_refused() {
    let worker = Worker::start().await;
    let mut stream = worker.attach().await;
    stream.send([open(1)]);
    let sound = stream.ask(with_snapshot(feed(1, 1, &[3], nothing()))).await.snapshot.unwrap();
    // A checksum that fits, over numbers that are no state.
    for state in [vec![0; 5], vec![0; 4], [f32::NAN.to_le_bytes(); 32].concat()] {
        let checksum = crc32fast::hash(&state);
        let snapshot = v1::Snapshot { state: state.into(), checksum, ..sound.clone() };
        let answer = stream.ask(open_at(2, snapshot)).await;
        assert_eq!(failure(&answer).0, ErrorCode::InvalidArgument, "{answer:?}");
    }
}
