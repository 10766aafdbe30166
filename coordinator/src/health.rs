//! `grpc.health.v1`: SERVING while enough members are up, or the fallback.
//!
//! Knows nothing about requests.

use std::sync::Arc;

use chorus_proto::v1::ensemble_server::{Ensemble as EnsembleRpc, EnsembleServer};
use futures::future::{FutureExt, select_all};
use tokio::sync::watch;
use tonic::server::NamedService;
use tonic_health::ServingStatus;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::server::HealthReporter;

use crate::ensemble::Ensemble;

/// A reporter that says NOT_SERVING until [`report`] knows better, and its service. The library's own says SERVING of the
/// whole server from the beginning.
pub(crate) async fn reporter() -> (HealthReporter, HealthServer<impl Health>) {
    let (reporter, service) = tonic_health::server::health_reporter();
    set(&reporter, false).await;
    (reporter, service)
}

/// Reports until the server drains, at every change of a member's presence or of the configuration that changes what is to be
/// said: whoever watches hears nothing twice.
pub(crate) async fn report(mut in_force: watch::Receiver<Arc<Ensemble>>, reporter: HealthReporter) {
    let mut said = false;
    loop {
        let ensemble = Arc::clone(&in_force.borrow_and_update());
        let fallback = ensemble.fallback.iter().flat_map(|fallback| &fallback.roster.members);
        let changes = ensemble.roster.members.iter().chain(fallback).map(|member| member.changed().boxed());
        let changes = select_all(changes.collect::<Vec<_>>());
        let draining = &ensemble.common.draining;
        let serving = ensemble.can_answer().is_ok() && !draining.is_cancelled();
        if serving != said {
            set(&reporter, serving).await;
            said = serving;
        }
        ensemble.common.settings.serving(serving);
        ensemble.common.settings.to_spare(ensemble.roster.to_spare());
        tokio::select! {
            // Once the server drains, members do not matter any more.
            biased;
            () = draining.cancelled() => break,
            // Without anybody who could change it, what is in force stays.
            Ok(()) = in_force.changed() => {}
            _ = changes => {}
        }
    }
    in_force.borrow().common.settings.serving(false);
    if said {
        set(&reporter, false).await;
    }
}

async fn set(reporter: &HealthReporter, serving: bool) {
    let status = if serving { ServingStatus::Serving } else { ServingStatus::NotServing };
    reporter.set_service_status("", status).await;
    reporter.set_service_status(service_name::<crate::service::EnsembleService>(), status).await;
    reporter.set_service_status(chorus_inference::SERVICE_NAME, status).await;
}

fn service_name<S: EnsembleRpc>() -> &'static str {
    <EnsembleServer<S> as NamedService>::NAME
}
