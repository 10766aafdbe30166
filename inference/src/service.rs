//! [`InferenceService`]: the service itself, which has everything from others.
//!
//! Knows nothing about how an ensemble answers.

use chorus_proto::Failure;
use chorus_proto::v1::StatusRequest;
use chorus_proto::v1::ensemble_server::Ensemble;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Response, Status, Streaming};

use crate::caller::Caller;
use crate::catalogue::Model;
use crate::error::Refusal;
use crate::infer::infer;
use crate::pb::grpc_inference_service_server::GrpcInferenceService;
use crate::pb::{self, ModelInferRequest, ModelInferResponse, ModelStreamInferResponse};
use crate::shared::Shared;
use crate::stream;

/// `inference.GRPCInferenceService` over an ensemble.
#[derive(Debug)]
pub struct InferenceService<E> {
    shared: Shared<E>,
}

impl<E> InferenceService<E> {
    /// The ensemble answers everything that is asked, in the name of whoever asks.
    pub fn new(ensemble: E) -> Self {
        Self { shared: Shared::new(ensemble) }
    }

    #[cfg(test)]
    pub(crate) fn shared(&self) -> Shared<E> {
        self.shared.clone()
    }
}

const NO_SHARED_MEMORY: &str = "shared memory is not supported; tensors travel in messages";
const NO_REPOSITORY: &str =
    "models are not loaded or unloaded here; members are changed with `chorus members`";

fn unimplemented<T>(why: &str) -> Result<Response<T>, Status> {
    Err(Failure::of_code(Code::Unimplemented, "UNIMPLEMENTED", why).into())
}

#[tonic::async_trait]
impl<E: Ensemble> GrpcInferenceService for InferenceService<E> {
    type ModelStreamInferStream = ReceiverStream<Result<ModelStreamInferResponse, Status>>;

    async fn server_live(
        &self,
        _request: Request<pb::ServerLiveRequest>,
    ) -> Result<Response<pb::ServerLiveResponse>, Status> {
        Ok(Response::new(pb::ServerLiveResponse { live: true }))
    }

    async fn server_ready(
        &self,
        request: Request<pb::ServerReadyRequest>,
    ) -> Result<Response<pb::ServerReadyResponse>, Status> {
        let (caller, _) = Caller::of(request);
        let status = self.shared.ensemble.status(caller.request(StatusRequest {})).await?;
        Ok(Response::new(pb::ServerReadyResponse { ready: status.get_ref().serving }))
    }

    async fn model_ready(
        &self,
        request: Request<pb::ModelReadyRequest>,
    ) -> Result<Response<pb::ModelReadyResponse>, Status> {
        let (caller, request) = Caller::of(request);
        let model = self.shared.model(&caller, &request.name, &request.version).await?;
        Ok(Response::new(pb::ModelReadyResponse { ready: model.obstacle.is_none() }))
    }

    async fn server_metadata(
        &self,
        request: Request<pb::ServerMetadataRequest>,
    ) -> Result<Response<pb::ServerMetadataResponse>, Status> {
        let (caller, _) = Caller::of(request);
        let status = self.shared.ensemble.status(caller.request(StatusRequest {})).await?;
        Ok(Response::new(pb::ServerMetadataResponse {
            name: "chorus".to_owned(),
            version: status.into_inner().version,
            extensions: ["model_configuration", "statistics", "parameters"].map(str::to_owned).to_vec(),
        }))
    }

    async fn model_metadata(
        &self,
        request: Request<pb::ModelMetadataRequest>,
    ) -> Result<Response<pb::ModelMetadataResponse>, Status> {
        let (caller, request) = Caller::of(request);
        let model = self.shared.model(&caller, &request.name, &request.version).await?;
        Ok(Response::new(model.metadata()))
    }

    async fn model_infer(
        &self,
        request: Request<ModelInferRequest>,
    ) -> Result<Response<ModelInferResponse>, Status> {
        let (caller, request) = Caller::of(request);
        let job = self.shared.job(&caller, request).await?;
        // Some clients say of every request that they take an empty last answer.
        if job.stream == Some(true) {
            let message = "ModelInfer has one answer; allowed: false, or the method ModelStreamInfer";
            return Err(Refusal::new("stream", message).into());
        }
        let work = infer(&self.shared.ensemble, &caller, &job);
        self.shared.counted(&job, work).await.map(Response::new)
    }

    async fn model_stream_infer(
        &self,
        request: Request<Streaming<ModelInferRequest>>,
    ) -> Result<Response<Self::ModelStreamInferStream>, Status> {
        let (caller, requests) = Caller::of(request);
        Ok(Response::new(stream::start(self.shared.clone(), caller.without_deadline(), requests)))
    }

    async fn model_config(
        &self,
        request: Request<pb::ModelConfigRequest>,
    ) -> Result<Response<pb::ModelConfigResponse>, Status> {
        let (caller, request) = Caller::of(request);
        let model = self.shared.model(&caller, &request.name, &request.version).await?;
        Ok(Response::new(pb::ModelConfigResponse { config: Some(model.config()) }))
    }

    async fn model_statistics(
        &self,
        request: Request<pb::ModelStatisticsRequest>,
    ) -> Result<Response<pb::ModelStatisticsResponse>, Status> {
        let (caller, request) = Caller::of(request);
        let catalogue = self.shared.catalogue(&caller).await?;
        let models = match request.name.as_str() {
            "" => catalogue.models().iter().collect(),
            name => vec![catalogue.find(name, &request.version)?],
        };
        let model_stats = models.into_iter().map(|model| self.shared.statistics.of(model)).collect();
        Ok(Response::new(pb::ModelStatisticsResponse { model_stats }))
    }

    async fn repository_index(
        &self,
        request: Request<pb::RepositoryIndexRequest>,
    ) -> Result<Response<pb::RepositoryIndexResponse>, Status> {
        let (caller, request) = Caller::of(request);
        let catalogue = self.shared.catalogue(&caller).await?;
        let listed = |model: &&Model| !request.ready || model.obstacle.is_none();
        let models = catalogue.models().iter().filter(listed).map(Model::index).collect();
        Ok(Response::new(pb::RepositoryIndexResponse { models }))
    }

    async fn repository_model_load(
        &self,
        _request: Request<pb::RepositoryModelLoadRequest>,
    ) -> Result<Response<pb::RepositoryModelLoadResponse>, Status> {
        unimplemented(NO_REPOSITORY)
    }

    async fn repository_model_unload(
        &self,
        _request: Request<pb::RepositoryModelUnloadRequest>,
    ) -> Result<Response<pb::RepositoryModelUnloadResponse>, Status> {
        unimplemented(NO_REPOSITORY)
    }

    async fn system_shared_memory_status(
        &self,
        _request: Request<pb::SystemSharedMemoryStatusRequest>,
    ) -> Result<Response<pb::SystemSharedMemoryStatusResponse>, Status> {
        Ok(Response::new(pb::SystemSharedMemoryStatusResponse::default()))
    }

    async fn system_shared_memory_register(
        &self,
        _request: Request<pb::SystemSharedMemoryRegisterRequest>,
    ) -> Result<Response<pb::SystemSharedMemoryRegisterResponse>, Status> {
        unimplemented(NO_SHARED_MEMORY)
    }

    async fn system_shared_memory_unregister(
        &self,
        _request: Request<pb::SystemSharedMemoryUnregisterRequest>,
    ) -> Result<Response<pb::SystemSharedMemoryUnregisterResponse>, Status> {
        Ok(Response::new(pb::SystemSharedMemoryUnregisterResponse {}))
    }

    async fn cuda_shared_memory_status(
        &self,
        _request: Request<pb::CudaSharedMemoryStatusRequest>,
    ) -> Result<Response<pb::CudaSharedMemoryStatusResponse>, Status> {
        Ok(Response::new(pb::CudaSharedMemoryStatusResponse::default()))
    }

    async fn cuda_shared_memory_register(
        &self,
        _request: Request<pb::CudaSharedMemoryRegisterRequest>,
    ) -> Result<Response<pb::CudaSharedMemoryRegisterResponse>, Status> {
        unimplemented(NO_SHARED_MEMORY)
    }

    async fn cuda_shared_memory_unregister(
        &self,
        _request: Request<pb::CudaSharedMemoryUnregisterRequest>,
    ) -> Result<Response<pb::CudaSharedMemoryUnregisterResponse>, Status> {
        Ok(Response::new(pb::CudaSharedMemoryUnregisterResponse {}))
    }

    async fn trace_setting(
        &self,
        _request: Request<pb::TraceSettingRequest>,
    ) -> Result<Response<pb::TraceSettingResponse>, Status> {
        unimplemented("there are no trace settings to be read or changed here")
    }

    async fn log_settings(
        &self,
        _request: Request<pb::LogSettingsRequest>,
    ) -> Result<Response<pb::LogSettingsResponse>, Status> {
        unimplemented("the log is configured when the process starts (`--log`)")
    }
}
