//! Hostile streams against a link: gRPC frames of answers that are changed anywhere and come in pieces of any size. Every
//! feed that waits is answered or fails, and what the worker hands over of sessions that are not open is not kept.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use chorus_fuzz::{Encoded, Verdict, any_number, assert_one_line, fuzz, mutated};
use chorus_proto::v1::{self, AnswerFrame, Condition, Handover};
use futures::{future::join_all, stream};
use http_body_util::StreamBody;
use proptest::prelude::*;
use prost::Message as _;
use tonic::Streaming;
use tonic::codec::Codec as _;
use tonic_prost::ProstCodec;

use super::LONGEST_SENTENCE;
use super::answers::{VOCABULARY, answer, asks, check, feed};
use crate::doubts::Doubts;
use crate::link::{Attachment, Line};
use crate::plan::Ask;
use crate::traffic::Traffic;

/// Sessions that wait for an answer, each with its own ask.
const SESSIONS: u64 = 3;
/// Frames that say that they are larger are refused before anything is allocated for them.
const LARGEST_FRAME: usize = 64 << 10;

fn frame(asks: Vec<Ask>) -> impl Strategy<Value = AnswerFrame> + Clone {
    let answers: Vec<_> = (1..).zip(asks).map(|(session, ask)| answer(session, 1, ask).boxed()).collect();
    let odd = (any_number(), any_number());
    let failure = (any_number(), any::<i32>(), any::<String>()).prop_map(|(session, code, message)| {
        let failure = v1::answer::Answer::Failure(v1::Failure { code, message });
        v1::Answer { session, step: session % 2, answer: Some(failure), snapshot: None }
    });
    let handover = (any_number(), prop::option::of(any_number())).prop_map(|(session, position)| {
        let snapshot = position.map(|position| v1::Snapshot { position, ..v1::Snapshot::default() });
        Handover { session, snapshot }
    });
    let condition = (any::<bool>(), any::<String>()).prop_map(|(sound, reason)| Condition { sound, reason });
    let some = (answers, prop::collection::vec(failure, 0..2), prop::collection::vec(handover, 0..3), odd);
    let some = (some, prop::option::weighted(0.2, condition));
    some.prop_map(|((mut answers, failures, handovers, (first, rotated)), condition)| {
        // Not all of them, and in any order.
        answers.extend(failures);
        let length = answers.len();
        answers.rotate_left(rotated as usize % length);
        answers.truncate(first as usize % (length + 1));
        AnswerFrame { answers, handovers, condition }
    })
}

/// Messages with the prefixes that gRPC gives them.
fn stream_of(asks: Vec<Ask>) -> impl Strategy<Value = Vec<u8>> + Clone {
    let frames = prop::collection::vec(frame(asks), 0..4);
    let bytes = frames.prop_map(|frames| {
        let mut bytes = Vec::new();
        for frame in frames {
            bytes.push(0);
            bytes.extend_from_slice(&(frame.encoded_len() as u32).to_be_bytes());
            bytes.extend_from_slice(&frame.encode_to_vec());
        }
        bytes
    });
    bytes.boxed()
}

fn answers(bytes: &[u8], piece: usize) -> Streaming<AnswerFrame> {
    let pieces: Vec<_> = bytes.chunks(piece).map(Bytes::copy_from_slice).collect();
    let frames = pieces.into_iter().map(|piece| Ok::<_, Infallible>(http_body::Frame::data(piece)));
    let decoder = ProstCodec::<AnswerFrame, AnswerFrame>::default().decoder();
    let body = StreamBody::new(stream::iter(frames));
    Streaming::new_response(decoder, body, http::StatusCode::OK, None, Some(LARGEST_FRAME))
}

/// Feeds wait, the stream comes and ends; how many of them were answered.
async fn carry(asks: &[Ask], bytes: &[u8], piece: usize) -> usize {
    let line = Line::new("alto", "http://alto:1", Doubts::default());
    let (attachment, _frames) = Attachment::new(VOCABULARY as u32, Arc::new(Traffic::new("alto")));
    (1..=SESSIONS).for_each(|session| drop(line.sessions().insert(session, None)));
    let waiting = (1..).zip(asks).map(|(session, ask)| attachment.feed(feed(session, ask.clone())));
    let carrying = async {
        // The feeds are polled first.
        tokio::task::yield_now().await;
        let (_, reason) = attachment.carry(&mut answers(bytes, piece), &line).await;
        assert_one_line(&reason, LONGEST_SENTENCE);
        attachment.end(&reason);
    };
    let both = async { tokio::join!(biased; join_all(waiting), carrying) };
    let (read, ()) =
        tokio::time::timeout(Duration::from_secs(3600), both).await.expect("a feed waits for ever");
    assert_one_line(line.presence.borrow().reason(), LONGEST_SENTENCE);
    assert_eq!(attachment.silence(), Duration::ZERO, "nobody waits any more");
    let mut open: Vec<_> = line.sessions().keys().copied().collect();
    open.sort_unstable();
    assert_eq!(open, (1..=SESSIONS).collect::<Vec<_>>());
    let mut answered = 0;
    for (ask, read) in asks.iter().zip(read) {
        match read {
            Ok(read) => {
                check(ask, &read.answer);
                answered += 1;
            }
            Err(error) => assert_one_line(&error.to_string(), LONGEST_SENTENCE),
        }
    }
    answered
}

#[test]
fn every_feed_that_waits_is_answered_or_fails_whatever_the_stream_brings() {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let asks = prop::collection::vec(prop::sample::select(asks()), SESSIONS as usize);
    let piece = prop_oneof![1..20_usize, Just(1 << 20)];
    let cases = asks.prop_flat_map(|asks| (Just(asks.clone()), mutated(stream_of(asks), &[])));
    fuzz("coordinator: streams of answers", (cases, piece), |((asks, Encoded(bytes)), piece)| {
        let answered = runtime.block_on(carry(&asks, &bytes, piece));
        Verdict::of(answered > 0)
    });
}
