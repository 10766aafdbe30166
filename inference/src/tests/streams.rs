//! Many requests on one stream.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::{StreamExt as _, stream};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Status};

use super::{Asking, output, said, service, texts};
use crate::caller::Caller;
use crate::pb::infer_parameter::ParameterChoice::{BoolParam, Int64Param};
use crate::pb::{ModelInferRequest, ModelInferResponse};
use crate::responses::{Response, WAITING};
use crate::shared::Shared;
use crate::stream::{MOST_IN_PROGRESS, start};

use super::scripted::Scripted;

type Answers = ReceiverStream<Response>;

/// What comes back for requests that are there already, while the stream of them stays open.
fn opened(shared: &Shared<Scripted>, requests: Vec<Asking>) -> Answers {
    let requests: Vec<ModelInferRequest> = requests.into_iter().map(|asking| asking.0).collect();
    let requests = stream::iter(requests.into_iter().map(Ok)).chain(stream::pending());
    let (caller, ()) = Caller::of(Request::new(()));
    start(shared.clone(), caller, requests)
}

fn named(id: &str, asking: Asking) -> Asking {
    let mut asking = asking;
    asking.0.id = id.to_owned();
    asking
}

async fn next(answers: &mut Answers) -> ModelInferResponse {
    let answer = answers.next().await.unwrap().unwrap();
    assert_eq!(answer.error_message, "");
    answer.infer_response.unwrap()
}

fn shared() -> (Shared<Scripted>, Arc<Scripted>) {
    let (service, ensemble) = service();
    (service.shared(), ensemble)
}

#[tokio::test]
async fn a_generation_comes_token_by_token_where_that_is_asked_for() {
    let (shared, _) = shared();
    let asking =
        Asking::of("ensemble").text("a").with("max_tokens", Int64Param(2)).with("stream", BoolParam(true));
    let asking = asking.output("generated_text").output("finish_reason").output("logprobs");
    let mut answers = opened(&shared, vec![named("one", asking)]);
    for text in ["b", "c"] {
        let response = next(&mut answers).await;
        assert_eq!(response.id, "one");
        assert_eq!(texts(output(&response, "generated_text").1), [text]);
        assert_eq!(response.outputs.len(), 1, "no reason before the end");
        assert_eq!(said(&response, "triton_final_response"), BoolParam(false));
        assert!(response.parameters.contains_key("participants"));
    }
    let last = next(&mut answers).await;
    assert_eq!(texts(output(&last, "finish_reason").1), ["max_tokens"]);
    assert_eq!(output(&last, "logprobs").0, [1]);
    assert_eq!(said(&last, "triton_final_response"), BoolParam(true));
}

#[tokio::test]
async fn whoever_takes_an_empty_last_answer_gets_tokens_and_one() {
    let (shared, _) = shared();
    let asking = Asking::of("ensemble").text("a").output("generated_text").output("generated_tokens");
    let asking = asking.with("triton_enable_empty_final_response", BoolParam(true));
    let mut answers = opened(&shared, vec![asking]);
    for _ in 0..3 {
        assert_eq!(output(&next(&mut answers).await, "generated_tokens").0, [1]);
    }
    let last = next(&mut answers).await;
    assert!(last.outputs.is_empty());
    assert_eq!(said(&last, "triton_final_response"), BoolParam(true));
}

#[tokio::test]
async fn a_request_has_one_answer_where_it_does_not_say() {
    let (shared, _) = shared();
    let mut answers = opened(&shared, vec![Asking::of("ensemble").text("a").output("generated_text")]);
    let response = next(&mut answers).await;
    assert_eq!(texts(output(&response, "generated_text").1), ["bcd"]);
    assert_eq!(said(&response, "triton_final_response"), BoolParam(true));
}

#[tokio::test]
async fn a_request_that_fails_does_not_end_the_stream() {
    let (shared, _) = shared();
    let wrong = named("wrong", Asking::of("ensemble").text(""));
    let mut answers = opened(&shared, vec![wrong]);
    let failed = answers.next().await.unwrap().unwrap();
    assert!(failed.error_message.starts_with("text: the text is empty"), "{}", failed.error_message);
    assert_eq!(failed.infer_response.unwrap().id, "wrong");

    let unknown = named("unknown", Asking::of("viola").text("a"));
    let mut answers = opened(&shared, vec![unknown, named("good", Asking::of("alto").text("a"))]);
    let mut ids = Vec::new();
    for _ in 0..2 {
        let answer = answers.next().await.unwrap().unwrap();
        ids.push((answer.infer_response.unwrap().id, answer.error_message.is_empty()));
    }
    ids.sort();
    assert_eq!(ids, [("good".to_owned(), true), ("unknown".to_owned(), false)]);
}

#[tokio::test]
async fn so_many_are_in_progress_and_no_more() {
    let (shared, ensemble) = shared();
    let count = MOST_IN_PROGRESS + 20;
    let requests = (0..count).map(|id| named(&id.to_string(), Asking::of("ensemble").text("wait"))).collect();
    let mut answers = opened(&shared, requests);
    while ensemble.waiting.load(Ordering::SeqCst) < MOST_IN_PROGRESS {
        tokio::task::yield_now().await;
    }
    ensemble.gate.0.add_permits(count);
    let mut ids = Vec::new();
    for _ in 0..count {
        ids.push(next(&mut answers).await.id.parse::<usize>().unwrap());
    }
    ids.sort_unstable();
    assert!(ids.into_iter().eq(0..count), "each is answered once");
    assert_eq!(ensemble.most_waiting.load(Ordering::SeqCst), MOST_IN_PROGRESS);
}

#[tokio::test]
async fn whoever_hangs_up_ends_what_is_in_progress() {
    let (shared, ensemble) = shared();
    let answers = opened(&shared, vec![Asking::of("ensemble").text("wait")]);
    while ensemble.waiting.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    drop(answers);
    while ensemble.waiting.load(Ordering::SeqCst) > 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn what_can_t_be_read_ends_the_stream_as_the_callers_mistake() {
    let (shared, _) = shared();
    let (caller, ()) = Caller::of(Request::new(()));
    let too_long = Status::out_of_range("Error, decoded message length too large: found 9 bytes");
    let mut answers = start(shared, caller, stream::iter([Err(too_long)]));
    let failure = answers.next().await.unwrap().unwrap_err();
    assert_eq!(failure.code(), Code::InvalidArgument);
    assert!(failure.message().starts_with("request: ") && failure.message().contains("9 bytes"), "{failure}");
    assert!(answers.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn whoever_reads_nothing_for_a_minute_has_a_last_word() {
    let (shared, _) = shared();
    let requests = (0..WAITING + 5).map(|_| Asking::of("ensemble").text("a")).collect();
    let mut answers = opened(&shared, requests);
    tokio::time::sleep(Duration::from_secs(61)).await;
    for _ in 0..WAITING {
        next(&mut answers).await;
    }
    let failure = answers.next().await.unwrap().unwrap_err();
    assert_eq!(
        (failure.code(), failure.message()),
        (Code::DeadlineExceeded, "the client read no message for 60 s")
    );
    assert!(answers.next().await.is_none());
}
