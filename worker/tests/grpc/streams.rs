//! Streams begin, end, break and stall without harm to others.

use chorus_proto::v1::ErrorCode;
use tempfile::TempDir;
use tonic::Code;

use crate::{
    harness::{Attached, Worker, each, failure, feed, log_probs, next, nothing, open, soon, targets, values},
    models::{self, ON_DEVICE, VOCABULARY, tokens},
};

/// Opens session 1 on the stream as soon as there is room for it.
async fn open_when_there_is_room(stream: &mut Attached) {
    soon(async {
        loop {
            stream.send([open(1), feed(1, 1, &[1], nothing())]);
            let answer = stream.answer().await;
            if answer.step == 1 {
                return;
            }
            assert_eq!(failure(&answer).0, ErrorCode::ResourceExhausted);
            assert_eq!(failure(&stream.answer().await).0, ErrorCode::UnknownSession);
        }
    })
    .await;
}

#[tokio::test]
async fn a_stream_that_is_cancelled_frees_its_sessions() {
    let worker = Worker::start_with(|config| config.max_sessions = 1).await;
    let mut first = worker.attach().await;
    first.send([open(1)]);
    first.ask(feed(1, 1, &[1], nothing())).await;
    let mut second = worker.attach().await;
    assert_eq!(failure(&second.ask(open(1)).await).0, ErrorCode::ResourceExhausted);
    drop(first);
    open_when_there_is_room(&mut second).await;
}

#[tokio::test]
async fn a_stream_whose_requests_end_gets_its_answers_then_ends_and_frees_its_sessions() {
    let worker = Worker::start_with(|config| config.max_sessions = 1).await;
    let stream = worker.attach().await;
    stream.send([open(1), feed(1, 1, &tokens(1, 1000), targets())]);
    let mut stream = stream.finish();
    assert_eq!(log_probs(&stream.answer().await).len(), 1000);
    assert_eq!(stream.try_answer().await.unwrap(), None);
    open_when_there_is_room(&mut worker.attach().await).await;
}

#[tokio::test]
async fn the_same_session_number_on_two_streams_of_one_connection_is_two_sessions() {
    let worker = Worker::start().await;
    let mut client = worker.client().await;
    let (mut one, mut other) = (Attached::on(&mut client).await, Attached::on(&mut client).await);
    one.send([open(1), feed(1, 1, &[3, 1, 4], nothing()), feed(1, 2, &[], next())]);
    other.send([open(1), feed(1, 1, &[2, 7, 1], nothing()), feed(1, 2, &[], next())]);
    one.answer().await;
    other.answer().await;
    assert_ne!(values(&one.answer().await, 1), values(&other.answer().await, 1));
}

/// A worker with answers of 6 MB, and a stream that has asked for 120 MB and reads nothing.
async fn worker_with_a_stream_that_never_reads() -> (Worker, Attached) {
    let directory = TempDir::new().unwrap();
    models::write(directory.path(), models::config(3000));
    let worker = Worker::start_on(directory, |config| {
        config.drain_timeout = std::time::Duration::from_millis(200);
    })
    .await;
    let stream = worker.attach().await;
    stream.send((1..=20).flat_map(|session| [open(session), feed(session, 1, &[1; 500], each())]));
    (worker, stream)
}

#[tokio::test]
async fn a_stream_that_never_reads_stalls_itself_and_no_other() {
    let (worker, mut stalled) = worker_with_a_stream_that_never_reads().await;
    let mut other = worker.attach().await;
    other.send([open(1)]);
    for step in 1..=30 {
        assert_eq!(log_probs(&other.ask(feed(1, step, &[1], targets())).await).len(), 1);
    }
    let mut sessions = Vec::new();
    for _ in 1..=20 {
        sessions.push(stalled.answer().await.session);
    }
    sessions.sort_unstable();
    assert_eq!(sessions, (1..=20).collect::<Vec<_>>(), "nothing is lost once it reads");
}

#[tokio::test]
async fn a_shutdown_does_not_wait_for_a_stream_that_never_reads() {
    let (worker, _stalled) = worker_with_a_stream_that_never_reads().await;
    let mut other = worker.attach().await;
    other.send([open(1)]);
    other.ask(feed(1, 1, &[1], nothing())).await;
    worker.stop().await.unwrap();
}

#[tokio::test]
async fn a_shutdown_answers_what_was_asked_before_it_ends_the_streams() {
    let worker = Worker::start().await;
    let mut stream = worker.attach().await;
    // The emulation of a device takes its time, of which a stop allows seconds.
    let long = if ON_DEVICE { 200 } else { 4000 };
    stream.send([open(1), feed(1, 1, &[1], next()), feed(1, 2, &tokens(1, long), targets())]);
    assert_eq!(values(&stream.answer().await, 1).len(), VOCABULARY);
    worker.shut_down();
    assert_eq!(log_probs(&stream.answer().await).len(), long);
    let status = stream.try_answer().await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::Unavailable, "the worker is stopping"));
    worker.stop().await.unwrap();
}
