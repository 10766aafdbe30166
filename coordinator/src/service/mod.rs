//! The public service `chorus.v1.Ensemble` over gRPC.
//!
//! Knows nothing about links to members or about how the process is started and stopped.

mod asked;
mod call;
mod choose;
mod classify;
mod complete;
mod decided;
mod distribution_rows;
mod distributions;
mod drawn;
mod evidence;
mod fallback;
mod forest;
mod generate;
mod guarded;
mod leaders;
mod lists;
mod opening;
mod participation;
mod predict;
mod prompt;
mod rank;
mod replies;
mod score;
mod score_columns;
mod search;
mod seen;
mod sound;
mod status;
mod stream;
mod telling;
mod text;
mod unreadable;

#[cfg(test)]
mod tests;

pub(crate) use guarded::GuardedService;
pub(crate) use unreadable::explain;

use std::sync::Arc;

use chorus_proto::v1::{
    ClassifyReply, ClassifyRequest, CompleteReply, DistributionsReply, DistributionsRequest, GenerateReply,
    GenerateRequest, PredictReply, PredictRequest, RankReply, RankRequest, ScoreReply, ScoreRequest,
    StatusReply, StatusRequest, TokenizerChunk, TokenizerRequest, ensemble_server,
};
use chorus_text::Vocabulary;
use futures::{StreamExt, stream::BoxStream};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};
use tracing::{Instrument, Span};

use asked::Asked;
use call::Call;

use crate::admission::{Place, shutting_down};
use crate::ensemble::Ensemble;
use crate::failure::refused;
use crate::request::{
    Classification, Costs, Distributions, Generation, Prediction, Ranking, RequestError, Scoring, Terms,
};

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
    async fn answer_once<Q: Asked + Send + 'static, C: Costs + Send + 'static, R, W>(
        &self,
        request: Request<Q>,
        check: fn(Q, &Terms<'_>) -> Result<C, RequestError>,
        work: fn(Arc<Ensemble>, C, Vocabulary, Call) -> W,
    ) -> Result<Response<R>, Status>
    where
        W: Future<Output = Result<R, Status>>,
    {
        let call = Call::of(&request);
        let all = self.ensemble();
        let answer = async {
            let Admitted { _place, ensemble, checked, vocabulary } =
                admit(&all, call, request, check).await?;
            work(ensemble, checked, vocabulary, call).await
        };
        in_time(&all, call, answer).await.map(Response::new)
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
        let call = Call::of(&request);
        let all = self.ensemble();
        let admitted = in_time(&all, call, admit(&all, call, request, Generation::new)).await?;
        let (replies, stream) = mpsc::channel(REPLIES + 1);
        let work = stream::generation(admitted, replies, call);
        tokio::spawn(work.instrument(Span::current()));
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn distributions(
        &self,
        request: Request<DistributionsRequest>,
    ) -> Result<Response<Self::DistributionsStream>, Status> {
        let call = Call::of(&request);
        let all = self.ensemble();
        let admitted = in_time(&all, call, admit(&all, call, request, Distributions::new)).await?;
        let (replies, stream) = mpsc::channel(LARGE_REPLIES + 1);
        let work = stream::distributions(admitted, replies, call);
        tokio::spawn(work.instrument(Span::current()));
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn complete(&self, request: Request<GenerateRequest>) -> Result<Response<CompleteReply>, Status> {
        self.answer_once(request, Generation::new, complete::complete).await
    }

    async fn score(&self, request: Request<ScoreRequest>) -> Result<Response<ScoreReply>, Status> {
        let reply = self.answer_once(request, Scoring::new, score::score).await?;
        self.ensemble().common.activity.scored(reply.get_ref().tokens as usize);
        Ok(reply)
    }

    async fn predict(&self, request: Request<PredictRequest>) -> Result<Response<PredictReply>, Status> {
        self.answer_once(request, Prediction::new, predict::predict).await
    }

    async fn rank(&self, request: Request<RankRequest>) -> Result<Response<RankReply>, Status> {
        self.answer_once(request, Ranking::new, rank::rank).await
    }

    async fn classify(&self, request: Request<ClassifyRequest>) -> Result<Response<ClassifyReply>, Status> {
        self.answer_once(request, Classification::new, classify::classify).await
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

/// A request that may run.
struct Admitted<C> {
    /// Held while it runs.
    _place: Place,
    /// Whom it asks.
    ensemble: Arc<Ensemble>,
    checked: C,
    /// Of its tokens.
    vocabulary: Vocabulary,
}

/// Lets a request in when it is checked and its turn has come.
async fn admit<Q: Asked + Send + 'static, C: Costs + Send + 'static>(
    all: &Arc<Ensemble>,
    call: Call,
    request: Request<Q>,
    check: fn(Q, &Terms<'_>) -> Result<C, RequestError>,
) -> Result<Admitted<C>, Status> {
    let mut visitor = all.common.admission.arrive(call.caller())?;
    let request = request.into_inner();
    let (ensemble, bytes) =
        (all.of(request.members()).map_err(|error| refused(&error))?, request.text_bytes());
    let checked = visitor.checked(ensemble.check(request, bytes, check)).await;
    let (checked, vocabulary) = checked?;
    let _place = visitor.enter(checked.cost()).await?;
    Ok(Admitted { _place, ensemble, checked, vocabulary })
}

/// Ends work early when its caller's deadline has passed or the server has to stop. When the caller hangs up this future is
/// dropped, and with it the sessions.
async fn in_time<T>(
    ensemble: &Ensemble,
    call: Call,
    work: impl Future<Output = Result<T, Status>>,
) -> Result<T, Status> {
    tokio::select! {
        // A result that is there goes out, even in the last moment.
        biased;
        result = work => result,
        status = call.passed() => Err(status),
        () = ensemble.common.stop.cancelled() => Err(shutting_down()),
    }
}
