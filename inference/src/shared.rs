//! [`Shared`]: what all calls have in common: the ensemble, its models, requests that are counted.
//!
//! Knows nothing about answers.

use std::sync::Arc;

use chorus_proto::Failure;
use chorus_proto::v1::ensemble_server::Ensemble;
use chorus_proto::v1::{ErrorCode, StatusRequest};
use tokio::time::Instant;
use tonic::Status;

use crate::caller::Caller;
use crate::catalogue::{Catalogue, Model};
use crate::job::Job;
use crate::pb::ModelInferRequest;
use crate::statistics::Statistics;

/// What all calls share.
#[derive(Debug)]
pub(crate) struct Shared<E> {
    pub(crate) ensemble: Arc<E>,
    pub(crate) statistics: Arc<Statistics>,
}

impl<E> Clone for Shared<E> {
    fn clone(&self) -> Self {
        Self { ensemble: Arc::clone(&self.ensemble), statistics: Arc::clone(&self.statistics) }
    }
}

impl<E> Shared<E> {
    pub(crate) fn new(ensemble: E) -> Self {
        Self { ensemble: Arc::new(ensemble), statistics: Arc::default() }
    }
}

impl<E: Ensemble> Shared<E> {
    pub(crate) async fn catalogue(&self, caller: &Caller) -> Result<Catalogue, Status> {
        let status = self.ensemble.status(caller.request(StatusRequest {})).await?;
        Ok(Catalogue::of(status.get_ref()))
    }

    pub(crate) async fn model(&self, caller: &Caller, name: &str, version: &str) -> Result<Model, Status> {
        self.catalogue(caller).await?.find(name, version).cloned()
    }

    /// A request that can be carried out.
    ///
    /// # Errors
    /// NOT_FOUND, where there is no such model; UNAVAILABLE, where it is a member that is not up; INVALID_ARGUMENT.
    pub(crate) async fn job(&self, caller: &Caller, request: ModelInferRequest) -> Result<Arc<Job>, Status> {
        let model = self.model(caller, &request.model_name, &request.model_version).await?;
        let job = Job::new(request, model)?;
        match &job.model.obstacle {
            Some(obstacle) if job.model.is_member => {
                let message = format!("model '{}' is not ready: {obstacle}", job.model.name);
                Err(Failure::new(ErrorCode::Unavailable, message).into())
            }
            // The ensemble says itself why it can't answer, or has its fallback do it.
            _ => Ok(Arc::new(job)),
        }
    }

    /// Work on a request, within its time, and counted.
    pub(crate) async fn counted<T>(
        &self,
        job: &Job,
        work: impl Future<Output = Result<T, Status>>,
    ) -> Result<T, Status> {
        let started = Instant::now();
        let done = match job.timeout {
            None => work.await,
            Some(timeout) => tokio::time::timeout(timeout, work).await.unwrap_or_else(|_| {
                let message =
                    "timeout: the time that the request allows (its parameter, in microseconds) has passed";
                Err(Failure::new(ErrorCode::DeadlineExceeded, message).into())
            }),
        };
        let elements = job.prompts.layout.elements();
        self.statistics.record(&job.model, elements, started.elapsed(), done.is_ok());
        done
    }
}
