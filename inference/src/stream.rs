//! `ModelStreamInfer`: many requests on one stream, each answered when it is done, or token by token.
//!
//! Knows nothing about tensors.

use std::slice;
use std::sync::Arc;

use chorus_proto::Failure;
use chorus_proto::v1::ensemble_server::Ensemble;
use chorus_proto::v1::{CompleteReply, ErrorCode, GenerateReply};
use futures::{Stream, StreamExt as _};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};

use crate::caller::Caller;
use crate::columns::Answers;
use crate::error::Refusal;
use crate::infer::{answers, in_own_words, infer, response};
use crate::job::Job;
use crate::outputs::{Output, Task};
use crate::participation::truth;
use crate::pb::model_infer_response::InferOutputTensor;
use crate::pb::{ModelInferRequest, ModelInferResponse, ModelStreamInferResponse};
use crate::responses::{Response, Responses, WAITING};
use crate::shared::Shared;

/// Requests of one stream in progress at a time. Further ones are not read from it.
pub(crate) const MOST_IN_PROGRESS: usize = 64;

/// Whether a response is the last one to its request, by Triton's name.
const FINAL: &str = "triton_final_response";

/// Answers the requests of a stream until they end, and all of them are answered; or until nobody reads the answers.
pub(crate) fn start<E: Ensemble>(
    shared: Shared<E>,
    caller: Caller,
    requests: impl Stream<Item = Result<ModelInferRequest, Status>> + Send + 'static,
) -> ReceiverStream<Response> {
    let (sender, stream) = mpsc::channel(WAITING + 1);
    tokio::spawn(serve(shared, caller, requests, Responses::new(sender)));
    ReceiverStream::new(stream)
}

async fn serve<E: Ensemble>(
    shared: Shared<E>,
    caller: Caller,
    requests: impl Stream<Item = Result<ModelInferRequest, Status>> + Send + 'static,
    responses: Responses,
) {
    let Some(last_word) = responses.last_word().await else { return };
    let mut in_progress = JoinSet::new();
    let mut requests = Box::pin(requests);
    let mut open = true;
    while open || !in_progress.is_empty() {
        tokio::select! {
            // A stream that is gone has no use for anything else. Dropped with this function, what is in progress ends.
            biased;
            () = responses.closed() => return,
            failure = responses.unread() => {
                last_word.send(Err(failure));
                return;
            }
            Some(_) = in_progress.join_next() => {}
            request = requests.next(), if open && in_progress.len() < MOST_IN_PROGRESS => match request {
                Some(Ok(request)) => {
                    let answering = answer(shared.clone(), caller.clone(), request, responses.clone());
                    in_progress.spawn(answering);
                }
                // What can't be read can't be told apart from what follows it.
                Some(Err(failure)) => {
                    last_word.send(Err(explained(failure)));
                    return;
                }
                None => open = false,
            },
        }
    }
}

/// What the codec refuses is the caller's mistake; the library calls it OUT_OF_RANGE, INTERNAL or UNIMPLEMENTED.
fn explained(failure: Status) -> Status {
    match failure.code() {
        Code::OutOfRange | Code::Internal | Code::Unimplemented => {
            let message = format!(
                "it can't be read ({}); allowed: messages of this method, no longer than the server's limit",
                failure.message()
            );
            Refusal::new("request", message).into()
        }
        _ => failure,
    }
}

/// Answers one request; if it fails the stream goes on.
async fn answer<E: Ensemble>(
    shared: Shared<E>,
    caller: Caller,
    request: ModelInferRequest,
    responses: Responses,
) {
    let named = ModelInferResponse {
        id: request.id.clone(),
        model_name: request.model_name.clone(),
        ..ModelInferResponse::default()
    };
    let Err(failure) = answered(&shared, &caller, request, &responses).await else { return };
    let error_message = match failure.message() {
        // Clients take an empty one for a success.
        "" => failure.code().description().to_owned(),
        message => message.to_owned(),
    };
    let failed = ModelStreamInferResponse { error_message, infer_response: Some(finally(named)) };
    responses.send(failed).await;
}

async fn answered<E: Ensemble>(
    shared: &Shared<E>,
    caller: &Caller,
    request: ModelInferRequest,
    responses: &Responses,
) -> Result<(), Status> {
    let job = shared.job(caller, request).await?;
    let work = async {
        if job.comes_in_pieces() {
            return token_by_token(&shared.ensemble, caller, &job, responses).await;
        }
        let response = infer(&shared.ensemble, caller, &job).await?;
        send(responses, finally(response)).await;
        Ok(())
    };
    shared.counted(&job, work).await
}

/// A response for each token, and a last one that has what else was asked for.
async fn token_by_token<E: Ensemble>(
    ensemble: &Arc<E>,
    caller: &Caller,
    job: &Arc<Job>,
    responses: &Responses,
) -> Result<(), Status> {
    let others = answers(ensemble, caller, job, 0, &[Task::Score, Task::Predict]);
    let generation = async {
        let said = |failure: Status| in_own_words(&failure, job, 0);
        let replies = ensemble.generate(caller.request(job.generation(0))).await.map_err(said)?;
        let mut replies = Box::pin(replies.into_inner());
        while let Some(reply) = replies.next().await {
            let reply = reply.map_err(said)?;
            if reply.end.is_some() {
                return Ok(reply);
            }
            let response = piece(job, &Answers { generation: Some(whole(reply)), ..Answers::default() })?;
            send(responses, response).await;
        }
        Err(Failure::new(ErrorCode::Internal, "the generation ended without its last message").into())
    };
    let (others, last) = tokio::try_join!(others, generation)?;
    let mut response = finally(piece(job, &Answers { generation: Some(whole(last)), ..others })?);
    let has_nothing = |outputs: &[InferOutputTensor]| {
        let texts = response.raw_output_contents.iter().zip(outputs);
        texts.filter(|(_, output)| output.name == Output::GeneratedText.name()).all(|(raw, _)| raw.len() <= 4)
            && outputs.iter().all(|output| output.name == Output::GeneratedText.name() || output.shape == [0])
    };
    if job.empty_final && has_nothing(&response.outputs) {
        response.outputs.clear();
        response.raw_output_contents.clear();
    }
    send(responses, response).await;
    Ok(())
}

/// A piece of a generation is a generation of one token at most.
fn whole(reply: GenerateReply) -> CompleteReply {
    let GenerateReply { token, text, participation, end } = reply;
    CompleteReply { tokens: token.into_iter().collect(), text, participation, end }
}

/// The outputs that are there already.
fn piece(job: &Job, answers: &Answers) -> Result<ModelInferResponse, Status> {
    let has_ended = answers.generation.as_ref().is_some_and(|generation| generation.end.is_some());
    let is_there =
        |output: &Output| has_ended || (output.task() == Task::Generate && !output.is_of_the_end());
    let outputs: Vec<Output> = job.wanted.outputs.iter().copied().filter(is_there).collect();
    let mut response = response(job, &outputs, slice::from_ref(answers))?;
    response.parameters.insert(FINAL.to_owned(), truth(false));
    Ok(response)
}

/// The last response to its request.
fn finally(mut response: ModelInferResponse) -> ModelInferResponse {
    response.parameters.insert(FINAL.to_owned(), truth(true));
    response
}

async fn send(responses: &Responses, response: ModelInferResponse) {
    let response = ModelStreamInferResponse { error_message: String::new(), infer_response: Some(response) };
    responses.send(response).await;
}
