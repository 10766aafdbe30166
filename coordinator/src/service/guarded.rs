//! The service for those who serve it in this process in another form than gRPC: behind the same gate as the clients' port, which a
//! call does not pass otherwise, and seen by operators as calls there are.
//!
//! Knows nothing about how requests are answered.

use std::sync::Arc;

use chorus_proto::v1::{
    ClassifyReply, ClassifyRequest, CompleteReply, DistributionsRequest, GenerateRequest, PredictReply,
    PredictRequest, RankReply, RankRequest, ScoreReply, ScoreRequest, StatusReply, StatusRequest,
    TokenizerRequest, ensemble_server,
};
use tonic::{Request, Response, Status};

use super::EnsembleService;
use crate::security::Gate;
use crate::telemetry::{Method, ObservedStream, Requests, observe_answer, observe_stream};

/// Every call brings its credentials as metadata.
#[derive(Clone)]
pub(crate) struct GuardedService {
    service: EnsembleService,
    gate: Gate,
    requests: Arc<Requests>,
}

impl GuardedService {
    pub(crate) fn new(service: EnsembleService, gate: Gate, requests: Arc<Requests>) -> Self {
        Self { service, gate, requests }
    }
}

#[tonic::async_trait]
impl ensemble_server::Ensemble for GuardedService {
    type GenerateStream = ObservedStream<<EnsembleService as ensemble_server::Ensemble>::GenerateStream>;
    type DistributionsStream =
        ObservedStream<<EnsembleService as ensemble_server::Ensemble>::DistributionsStream>;
    type TokenizerStream = ObservedStream<<EnsembleService as ensemble_server::Ensemble>::TokenizerStream>;

    async fn generate(
        &self,
        request: Request<GenerateRequest>,
    ) -> Result<Response<Self::GenerateStream>, Status> {
        let Self { service, gate, requests } = self;
        let answer = |request| async { service.generate(gate.pass(request)?).await };
        observe_stream(requests, Method::Generate, request, answer).await
    }

    async fn distributions(
        &self,
        request: Request<DistributionsRequest>,
    ) -> Result<Response<Self::DistributionsStream>, Status> {
        let Self { service, gate, requests } = self;
        let answer = |request| async { service.distributions(gate.pass(request)?).await };
        observe_stream(requests, Method::Distributions, request, answer).await
    }

    async fn complete(&self, request: Request<GenerateRequest>) -> Result<Response<CompleteReply>, Status> {
        let Self { service, gate, requests } = self;
        let answer = |request| async { service.complete(gate.pass(request)?).await };
        observe_answer(requests, Method::Complete, request, answer).await
    }

    async fn score(&self, request: Request<ScoreRequest>) -> Result<Response<ScoreReply>, Status> {
        let Self { service, gate, requests } = self;
        let answer = |request| async { service.score(gate.pass(request)?).await };
        observe_answer(requests, Method::Score, request, answer).await
    }

    async fn predict(&self, request: Request<PredictRequest>) -> Result<Response<PredictReply>, Status> {
        let Self { service, gate, requests } = self;
        let answer = |request| async { service.predict(gate.pass(request)?).await };
        observe_answer(requests, Method::Predict, request, answer).await
    }

    async fn rank(&self, request: Request<RankRequest>) -> Result<Response<RankReply>, Status> {
        let Self { service, gate, requests } = self;
        let answer = |request| async { service.rank(gate.pass(request)?).await };
        observe_answer(requests, Method::Rank, request, answer).await
    }

    async fn classify(&self, request: Request<ClassifyRequest>) -> Result<Response<ClassifyReply>, Status> {
        let Self { service, gate, requests } = self;
        let answer = |request| async { service.classify(gate.pass(request)?).await };
        observe_answer(requests, Method::Classify, request, answer).await
    }

    async fn tokenizer(
        &self,
        request: Request<TokenizerRequest>,
    ) -> Result<Response<Self::TokenizerStream>, Status> {
        let Self { service, gate, requests } = self;
        let answer = |request| async { service.tokenizer(gate.pass(request)?).await };
        observe_stream(requests, Method::Tokenizer, request, answer).await
    }

    async fn status(&self, request: Request<StatusRequest>) -> Result<Response<StatusReply>, Status> {
        let Self { service, gate, requests } = self;
        let answer = |request| async { service.status(gate.pass(request)?).await };
        observe_answer(requests, Method::Status, request, answer).await
    }
}
