//! Bad input: the right code, one sentence, and nobody else is harmed.

use chorus_proto::v1::{self, ErrorCode};
use tempfile::TempDir;
use tokio::{io::AsyncWriteExt as _, net::TcpStream};
use tonic::{Code, codegen::http::uri::PathAndQuery};

use crate::{
    harness::{
        Attached, Worker, draw, each, failure, feed, ids, next, nothing, open, soon, targets, top, values,
    },
    models::{self, VOCABULARY},
};

fn ask_rows(rows: i32) -> v1::feed::Ask {
    v1::feed::Ask::Logits(v1::AskLogits { rows, format: 0 })
}

#[tokio::test]
async fn every_bad_operation_is_refused_and_the_session_goes_on() {
    let worker = Worker::start_with(|config| config.max_feed_tokens = 20).await;
    let mut stream = worker.attach().await;
    stream.send([open(1)]);
    let good = stream.ask(feed(1, 1, &[3, 1, 4], next())).await;
    let no_ask = v1::Feed { step: 2, tokens: vec![1], ask: None, ..v1::Feed::default() };
    let no_ask = v1::Operation { session: 1, operation: Some(v1::operation::Operation::Feed(no_ask)) };
    let no_operation = v1::Operation { session: 1, operation: None };
    let outside = VOCABULARY as u32;
    let table = [
        (feed(1, 2, &[outside], next()), ErrorCode::InvalidArgument, "feed.tokens[0] is 30, but"),
        (feed(1, 2, &[1, u32::MAX], nothing()), ErrorCode::InvalidArgument, "feed.tokens[1] is 4294967295"),
        (feed(1, 2, &[1; 21], targets()), ErrorCode::InvalidArgument, "feed.tokens has 21 tokens"),
        (feed(1, 2, &[1], ask_rows(0)), ErrorCode::InvalidArgument, "feed.logits.rows is 0"),
        (feed(1, 2, &[1], ask_rows(-3)), ErrorCode::InvalidArgument, "feed.logits.rows is -3"),
        (feed(1, 2, &[1], top(v1::Rows::Next, 31, None)), ErrorCode::InvalidArgument, "feed.top.k is 31"),
        (feed(1, 2, &[1], ids(&[2, 1])), ErrorCode::InvalidArgument, "feed.ids.ids[1] is not above"),
        (feed(1, 2, &[1], draw(1.5)), ErrorCode::InvalidArgument, "feed.draw.uniform is 1.5"),
        (no_ask, ErrorCode::InvalidArgument, "feed.ask is missing"),
        (no_operation, ErrorCode::InvalidArgument, "operation is missing"),
        (feed(1, 0, &[1], next()), ErrorCode::InvalidArgument, "feed.step is 0"),
        (
            feed(1, 3, &[1], next()),
            ErrorCode::StepOutOfOrder,
            "feed.step of session 1 is 3, allowed are 1 (repeated) and 2",
        ),
        (
            feed(1, u64::MAX, &[1], next()),
            ErrorCode::StepOutOfOrder,
            "feed.step of session 1 is 18446744073709551615",
        ),
        (feed(9, 1, &[1], next()), ErrorCode::UnknownSession, "session 9 is not open on this stream"),
    ];
    for (operation, code, message) in table {
        let answer = stream.ask(operation.clone()).await;
        let found = failure(&answer);
        assert_eq!(found.0, code, "{operation:?}");
        assert!(found.1.starts_with(message), "{}", found.1);
        assert_eq!(answer.session, operation.session);
    }
    assert_eq!(stream.ask(feed(1, 1, &[3, 1, 4], next())).await, good, "the step can still be repeated");
    let answer = stream.ask(feed(1, 2, &[1], next())).await;
    assert_eq!(values(&answer, 1).len(), VOCABULARY);
}

#[tokio::test]
async fn a_session_too_many_is_refused_until_there_is_room() {
    let worker = Worker::start_with(|config| config.max_sessions = 2).await;
    let mut stream = worker.attach().await;
    stream.send([open(1), open(2), open(3)]);
    let answer = stream.answer().await;
    assert_eq!((answer.session, answer.step), (3, 0));
    assert_eq!(failure(&answer).0, ErrorCode::ResourceExhausted);
    stream.send([crate::harness::close(1), open(3)]);
    assert_eq!(values(&stream.ask(feed(3, 1, &[1], next())).await, 1).len(), VOCABULARY);
}

#[tokio::test]
async fn rows_that_do_not_fit_into_a_message_are_refused() {
    let directory = TempDir::new().unwrap();
    models::write(directory.path(), models::config(20_000));
    let worker = Worker::start_on(directory, |_| {}).await;
    let mut stream = worker.attach().await;
    let card = soon(worker.client().await.describe(v1::DescribeRequest {})).await.unwrap().into_inner();
    let most = card.limits.unwrap().max_answer_rows as usize;
    assert!((300..=320).contains(&most), "{most} rows of 20,000 logits");
    stream.send([open(1)]);
    let answer = stream.ask(feed(1, 1, &vec![1; most + 1], each())).await;
    assert_eq!(failure(&answer).0, ErrorCode::InvalidArgument);
    let answer = stream.ask(feed(1, 1, &vec![1; most], each())).await;
    let Some(v1::answer::Answer::Logits(logits)) = answer.answer else { panic!("logits were asked for") };
    assert_eq!((logits.norms.unwrap().count(), logits.values.len()), (Some(most), most * 20_000 * 4));
}

#[tokio::test]
async fn a_model_that_overflows_fails_the_session_and_says_so() {
    let directory = TempDir::new().unwrap();
    let last = VOCABULARY as u32 - 1;
    models::write_overflowing(directory.path(), last..=last);
    let worker = Worker::start_on(directory, |_| {}).await;
    let mut stream = worker.attach().await;
    stream.send([open(1)]);
    assert_eq!(values(&stream.ask(feed(1, 1, &[1], next())).await, 1).len(), VOCABULARY);
    let answer = stream.ask(feed(1, 2, &[last], next())).await;
    assert_eq!(failure(&answer).0, ErrorCode::NotFinite);
    assert_eq!(failure(&stream.ask(feed(1, 3, &[1], next())).await).0, ErrorCode::UnknownSession);
}

#[tokio::test]
async fn bytes_that_are_no_frame_end_their_stream_and_no_other() {
    let worker = Worker::start().await;
    let mut client = worker.client().await;
    let mut bystander = Attached::on(&mut client).await;
    bystander.send([open(1)]);

    let mut grpc = tonic::client::Grpc::new(worker.channel().await);
    soon(grpc.ready()).await.unwrap();
    // A length-delimited field 1, as in a frame of operations, but with something else inside.
    let noise = v1::TokenizerChunk { data: vec![0xff; 40].into() };
    let codec = tonic_prost::ProstCodec::<v1::TokenizerChunk, v1::AnswerFrame>::default();
    let path = PathAndQuery::from_static("/chorus.v1.Worker/Attach");
    let requests = tonic::Request::new(tokio_stream::iter([noise]));
    let mut answers = soon(grpc.streaming(requests, path, codec)).await.unwrap().into_inner();
    assert_eq!(soon(answers.message()).await.unwrap_err().code(), Code::Internal);

    assert_eq!(values(&bystander.ask(feed(1, 1, &[1], next())).await, 1).len(), VOCABULARY);
}

#[tokio::test]
async fn half_a_request_harms_nobody() {
    let worker = Worker::start().await;
    let mut bystander = worker.attach().await;
    bystander.send([open(1)]);
    let whole = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0\0\x40\0\x01\x04";
    for length in [1, 20, whole.len()] {
        let mut connection = TcpStream::connect(worker.address).await.unwrap();
        connection.write_all(&whole[..length]).await.unwrap();
        drop(connection);
    }
    let mut stays_open = TcpStream::connect(worker.address).await.unwrap();
    stays_open.write_all(whole).await.unwrap();
    assert_eq!(values(&bystander.ask(feed(1, 1, &[1], next())).await, 1).len(), VOCABULARY);
}
