//! The service for those who serve it in this process in another form than gRPC: behind the same gate as the clients' port, which a
//! call does not pass otherwise.
//!
//! Knows nothing about how requests are answered.

use chorus_proto::v1::{
    ClassifyReply, ClassifyRequest, CompleteReply, DistributionsRequest, GenerateRequest, PredictReply,
    PredictRequest, RankReply, RankRequest, ScoreReply, ScoreRequest, StatusReply, StatusRequest,
    TokenizerRequest, ensemble_server,
};
use tonic::{Request, Response, Status};

use super::EnsembleService;
use crate::security::Gate;

/// Every call brings its credentials as metadata.
#[derive(Clone)]
pub(crate) struct GuardedService {
    service: EnsembleService,
    gate: Gate,
}

impl GuardedService {
    pub(crate) fn new(service: EnsembleService, gate: Gate) -> Self {
        Self { service, gate }
    }
}

#[tonic::async_trait]
impl ensemble_server::Ensemble for GuardedService {
    type GenerateStream = <EnsembleService as ensemble_server::Ensemble>::GenerateStream;
    type DistributionsStream = <EnsembleService as ensemble_server::Ensemble>::DistributionsStream;
    type TokenizerStream = <EnsembleService as ensemble_server::Ensemble>::TokenizerStream;

    async fn generate(
        &self,
        request: Request<GenerateRequest>,
    ) -> Result<Response<Self::GenerateStream>, Status> {
        self.service.generate(self.gate.pass(request)?).await
    }

    async fn distributions(
        &self,
        request: Request<DistributionsRequest>,
    ) -> Result<Response<Self::DistributionsStream>, Status> {
        self.service.distributions(self.gate.pass(request)?).await
    }

    async fn complete(&self, request: Request<GenerateRequest>) -> Result<Response<CompleteReply>, Status> {
        self.service.complete(self.gate.pass(request)?).await
    }

    async fn score(&self, request: Request<ScoreRequest>) -> Result<Response<ScoreReply>, Status> {
        self.service.score(self.gate.pass(request)?).await
    }

    async fn predict(&self, request: Request<PredictRequest>) -> Result<Response<PredictReply>, Status> {
        self.service.predict(self.gate.pass(request)?).await
    }

    async fn rank(&self, request: Request<RankRequest>) -> Result<Response<RankReply>, Status> {
        self.service.rank(self.gate.pass(request)?).await
    }

    async fn classify(&self, request: Request<ClassifyRequest>) -> Result<Response<ClassifyReply>, Status> {
        self.service.classify(self.gate.pass(request)?).await
    }

    async fn tokenizer(
        &self,
        request: Request<TokenizerRequest>,
    ) -> Result<Response<Self::TokenizerStream>, Status> {
        self.service.tokenizer(self.gate.pass(request)?).await
    }

    async fn status(&self, request: Request<StatusRequest>) -> Result<Response<StatusReply>, Status> {
        self.service.status(self.gate.pass(request)?).await
    }
}
