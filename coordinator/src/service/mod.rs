//! The public service `chorus.v1.Ensemble` over gRPC.
//!
//! Knows nothing about links to members or about how the process is started and stopped.

mod complete;
mod deadline;
mod decided;
mod distribution_rows;
mod distributions;
mod drawn;
mod evidence;
mod fallback;
mod generate;
mod leaders;
mod participation;
mod predict;
mod replies;
mod score;
mod score_columns;
mod sound;
mod status;
mod stream;
mod text;
mod unreadable;

#[cfg(test)]
mod tests;

pub(crate) use unreadable::explain;

use std::sync::Arc;

use chorus_proto::v1::{
    CompleteReply, DistributionsReply, DistributionsRequest, GenerateReply, GenerateRequest, Input,
    PredictReply, PredictRequest, ScoreReply, ScoreRequest, StatusReply, StatusRequest, TokenizerChunk,
    TokenizerRequest, ensemble_server, input,
};
use chorus_text::Vocabulary;
use futures::{StreamExt, stream::BoxStream};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};
use tracing::{Instrument, Span};

use deadline::Deadline;

use crate::admission::{Caller, shutting_down};
use crate::ensemble::Ensemble;
use crate::request::{Costs, Distributions, Generation, Prediction, RequestError, Scoring, Terms};

/// Messages that wait for a slow reader; one more place is kept for the last word.
const REPLIES: usize = 32;
/// The same of messages that are large.
const LARGE_REPLIES: usize = 2;

/// The service that clients speak with.
#[derive(Clone)]
pub(crate) struct EnsembleService {
    in_force: watch::Receiver<Arc<Ensemble>>,
}

impl EnsembleService {
    /// Every request takes the ensemble that is in force when it arrives, and keeps it.
    pub(crate) fn new(in_force: watch::Receiver<Arc<Ensemble>>) -> Self {
        Self { in_force }
    }

    fn ensemble(&self) -> Arc<Ensemble> {
        Arc::clone(&self.in_force.borrow())
    }

    /// A call with one answer: checked by `check`, admitted when its turn has come, and worked on, all within its time.
    /// `text_bytes` says how much of a request there is to tokenize.
    async fn answer_once<Q: Send + 'static, C: Costs + Send + 'static, R, W>(
        &self,
        request: Request<Q>,
        text_bytes: fn(&Q) -> usize,
        check: fn(Q, &Terms<'_>) -> Result<C, RequestError>,
        work: fn(Arc<Ensemble>, C, Vocabulary, Deadline) -> W,
    ) -> Result<Response<R>, Status>
    where
        W: Future<Output = Result<R, Status>>,
    {
        let deadline = Deadline::of_call(request.metadata());
        let ensemble = self.ensemble();
        let mut visitor = ensemble.common.admission.arrive(Caller::of(&request))?;
        let request = request.into_inner();
        let bytes = text_bytes(&request);
        let answer = async {
            let checked = visitor.checked(ensemble.check(request, bytes, check)).await;
            let (checked, vocabulary) = checked?;
            let _place = visitor.enter(checked.cost()).await?;
            work(Arc::clone(&ensemble), checked, vocabulary, deadline).await
        };
        in_time(&ensemble, deadline, answer).await.map(Response::new)
    }
}

#[tonic::async_trait]
impl ensemble_server::Ensemble for EnsembleService {
    type GenerateStream = ReceiverStream<Result<GenerateReply, Status>>;
    type DistributionsStream = ReceiverStream<Result<DistributionsReply, Status>>;
    type TokenizerStream = BoxStream<'static, Result<TokenizerChunk, Status>>;

    async fn generate(
        &self,
        request: Request<GenerateRequest>,
    ) -> Result<Response<Self::GenerateStream>, Status> {
        let deadline = Deadline::of_call(request.metadata());
        let ensemble = self.ensemble();
        let mut visitor = ensemble.common.admission.arrive(Caller::of(&request))?;
        let request = request.into_inner();
        let bytes = text_bytes(request.prompt.as_ref());
        let admitted = async {
            let checked = visitor.checked(ensemble.check(request, bytes, Generation::new)).await;
            let (generation, vocabulary) = checked?;
            Ok((visitor.enter(generation.cost()).await?, generation, vocabulary))
        };
        let (place, generation, vocabulary) = in_time(&ensemble, deadline, admitted).await?;
        let (replies, stream) = mpsc::channel(REPLIES + 1);
        let work = stream::generation(ensemble, generation, vocabulary, replies, deadline, place);
        tokio::spawn(work.instrument(Span::current()));
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn distributions(
        &self,
        request: Request<DistributionsRequest>,
    ) -> Result<Response<Self::DistributionsStream>, Status> {
        let deadline = Deadline::of_call(request.metadata());
        let ensemble = self.ensemble();
        let mut visitor = ensemble.common.admission.arrive(Caller::of(&request))?;
        let request = request.into_inner();
        let bytes = text_bytes(request.input.as_ref());
        let admitted = async {
            let checked = visitor.checked(ensemble.check(request, bytes, Distributions::new)).await;
            let (wanted, vocabulary) = checked?;
            Ok((visitor.enter(wanted.cost()).await?, wanted, vocabulary))
        };
        let (place, wanted, vocabulary) = in_time(&ensemble, deadline, admitted).await?;
        let (replies, stream) = mpsc::channel(LARGE_REPLIES + 1);
        let work = stream::distributions(ensemble, wanted, vocabulary, replies, deadline, place);
        tokio::spawn(work.instrument(Span::current()));
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn complete(&self, request: Request<GenerateRequest>) -> Result<Response<CompleteReply>, Status> {
        let input = |request: &GenerateRequest| text_bytes(request.prompt.as_ref());
        self.answer_once(request, input, Generation::new, complete::complete).await
    }

    async fn score(&self, request: Request<ScoreRequest>) -> Result<Response<ScoreReply>, Status> {
        let input = |request: &ScoreRequest| text_bytes(request.input.as_ref());
        self.answer_once(request, input, Scoring::new, score::score).await
    }

    async fn predict(&self, request: Request<PredictRequest>) -> Result<Response<PredictReply>, Status> {
        let input = |request: &PredictRequest| text_bytes(request.prefix.as_ref());
        self.answer_once(request, input, Prediction::new, predict::predict).await
    }

    async fn tokenizer(
        &self,
        _request: Request<TokenizerRequest>,
    ) -> Result<Response<Self::TokenizerStream>, Status> {
        let vocabulary = self.ensemble().vocabulary()?;
        Ok(Response::new(stream::tokenizer(vocabulary).boxed()))
    }

    async fn status(&self, _request: Request<StatusRequest>) -> Result<Response<StatusReply>, Status> {
        Ok(Response::new(status::status(&self.ensemble())))
    }
}

/// Ends work early when its caller's deadline has passed or the server has to stop. When the caller hangs up this future is
/// dropped, and with it the sessions.
async fn in_time<T>(
    ensemble: &Ensemble,
    deadline: Deadline,
    work: impl Future<Output = Result<T, Status>>,
) -> Result<T, Status> {
    tokio::select! {
        // A result that is there goes out, even in the last moment.
        biased;
        result = work => result,
        status = deadline.passed() => Err(status),
        () = ensemble.common.stop.cancelled() => Err(shutting_down()),
    }
}

/// How much there is to tokenize.
fn text_bytes(input: Option<&Input>) -> usize {
    match input.and_then(|input| input.input.as_ref()) {
        Some(input::Input::Text(text)) => text.len(),
        Some(input::Input::Tokens(_)) | None => 0,
    }
}
