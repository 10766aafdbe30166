//! Loading, health and stopping.

use chorus_worker::{WorkerConfig, WorkerError};
use tempfile::TempDir;
use tonic::Code;
use tonic_health::{
    ServingStatus,
    pb::{HealthCheckRequest, health_check_response, health_client::HealthClient},
};

use crate::{
    harness::{Worker, soon},
    models,
};

fn request(service: &str) -> HealthCheckRequest {
    HealthCheckRequest { service: service.to_owned() }
}

#[tokio::test]
async fn a_loaded_worker_is_serving() {
    let worker = Worker::start().await;
    let mut health = HealthClient::new(worker.channel().await);
    for service in ["", "chorus.v1.Worker"] {
        let answer = soon(health.check(request(service))).await.unwrap().into_inner();
        assert_eq!(answer.status(), health_check_response::ServingStatus::Serving, "{service:?}");
    }
    let status = soon(health.check(request("chorus.v1.Nobody"))).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
}

#[tokio::test]
async fn whoever_watches_the_health_hears_of_the_stop_and_does_not_delay_it() {
    let worker =
        Worker::start_with(|config| config.drain_timeout = std::time::Duration::from_secs(3600)).await;
    let mut health = HealthClient::new(worker.channel().await);
    let mut watch = soon(health.watch(request("chorus.v1.Worker"))).await.unwrap().into_inner();
    let first = soon(watch.message()).await.unwrap().unwrap();
    assert_eq!(first.status, ServingStatus::Serving as i32);
    let stopped = tokio::spawn(worker.stop());
    let second = soon(watch.message()).await.unwrap().unwrap();
    assert_eq!(second.status, ServingStatus::NotServing as i32);
    soon(stopped).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_stopped_worker_has_closed_its_port() {
    let worker = Worker::start().await;
    let _stream = worker.attach().await;
    let address = worker.address;
    worker.stop().await.unwrap();
    tokio::net::TcpStream::connect(address).await.unwrap_err();
}

#[test]
fn what_can_not_be_loaded_is_one_clear_line() {
    let directory = TempDir::new().unwrap();
    let missing = directory.path().join("nowhere");
    let error = chorus_worker::load(WorkerConfig::new(&missing)).unwrap_err();
    assert!(matches!(error, WorkerError::Load(_)), "{error}");
    assert!(error.to_string().contains("nowhere"), "{error}");

    models::write(directory.path(), models::config(models::VOCABULARY));
    let config = WorkerConfig { device: "tpu".to_owned(), ..WorkerConfig::new(directory.path()) };
    let error = chorus_worker::load(config).unwrap_err();
    assert_eq!(error.to_string(), r#"device "tpu" is unknown, allowed are cpu, cuda and cuda:N (N from 0)"#);

    let config = WorkerConfig { max_sessions: 0, ..WorkerConfig::new(directory.path()) };
    let error = chorus_worker::load(config).unwrap_err();
    assert_eq!(error.to_string(), "max_sessions is 0, allowed is 1 to 1000000");

    // It would be up and lost at every step.
    let overflowing = TempDir::new().unwrap();
    models::write_overflowing(overflowing.path(), 0..=u32::MAX);
    let error = chorus_worker::load(WorkerConfig::new(overflowing.path())).unwrap_err();
    assert!(error.to_string().contains("its logits are not finite at position 1"), "{error}");
}
