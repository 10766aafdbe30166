//! What generic tools rely on: health and reflection over gRPC, on both kinds of server.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use chorus_tests::{Chorus, Ensemble};
use tonic::transport::Channel;
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};

async fn health(channel: &Channel, service: &str) -> ServingStatus {
    let request = HealthCheckRequest { service: service.to_owned() };
    HealthClient::new(channel.clone()).check(request).await.expect("health is served").into_inner().status()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_follows_the_quorum() {
    let mut ensemble = Ensemble::demo("[quorum]\nmembers = 3\n").await;
    let channel = ensemble.channel().await;
    for service in ["", "chorus.v1.Ensemble", "inference.GRPCInferenceService"] {
        assert_eq!(health(&channel, service).await, ServingStatus::Serving);
    }
    let worker = Channel::from_shared(format!("http://{}", ensemble.members[0].address)).unwrap();
    let worker = worker.connect().await.unwrap();
    for service in ["", "chorus.v1.Worker"] {
        assert_eq!(health(&worker, service).await, ServingStatus::Serving);
    }
    ensemble.members[1].kill();
    chorus_tests::until("not serving below quorum", || {
        let channel = channel.clone();
        async move { health(&channel, "chorus.v1.Ensemble").await == ServingStatus::NotServing }
    })
    .await;
    ensemble.members[1].start_again();
    chorus_tests::until("serving again", || {
        let channel = channel.clone();
        async move { health(&channel, "").await == ServingStatus::Serving }
    })
    .await;
}

/// What supervisors run that know only exit codes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_health_command_ends_as_the_health_is() {
    let mut ensemble = Ensemble::demo("[quorum]\nmembers = 3\n").await;
    let (coordinator, worker) = (ensemble.address.to_string(), ensemble.members[1].address.to_string());
    let health = |address: &str, arguments: &[&str]| {
        let ended = Chorus::run(["health", "--addr", address].iter().chain(arguments));
        (ended.status.code(), ended.stdout, ended.stderr)
    };
    let serving = (Some(0), "SERVING\n".to_owned(), String::new());
    assert_eq!(health(&coordinator, &["--service", "chorus.v1.Ensemble"]), serving);
    assert_eq!(health(&worker, &["--service", "chorus.v1.Worker"]), serving);
    assert_eq!(health(&worker, &["--wait", "60"]), serving);
    let (_, json, _) = health(&worker, &["--json"]);
    assert_eq!(
        json,
        format!("{{\"address\":\"http://{worker}\",\"service\":\"\",\"status\":\"SERVING\"}}\n")
    );

    let (code, _, sentence) = health(&worker, &["--service", "chorus.v1.Ensemble"]);
    assert_eq!(code, Some(1));
    assert!(
        sentence.ends_with(&format!("chorus.v1.Ensemble at http://{worker} knows no such service\n")),
        "{sentence}"
    );

    ensemble.members[1].kill();
    let (code, _, sentence) = health(&worker, &[]);
    assert_eq!(code, Some(1));
    assert!(sentence.contains("does not answer: connection refused"), "{sentence}");
    chorus_tests::until("the command says that it does not serve", || {
        let (code, _, sentence) = health(&coordinator, &["--service", "chorus.v1.Ensemble"]);
        async move { code == Some(1) && sentence.contains("is NOT_SERVING") }
    })
    .await;
    ensemble.members[1].start_again();
    assert_eq!(health(&coordinator, &["--wait", "60"]), serving, "it waits until the quorum is back");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reflection_describes_the_public_service() {
    let ensemble = Ensemble::demo("").await;
    let ask = |message_request| ServerReflectionRequest {
        host: String::new(),
        message_request: Some(message_request),
    };
    let requests = tokio_stream::iter([
        ask(MessageRequest::ListServices(String::new())),
        ask(MessageRequest::FileContainingSymbol("chorus.v1.Ensemble".to_owned())),
    ]);
    let mut client = ServerReflectionClient::new(ensemble.channel().await);
    let mut replies = client.server_reflection_info(requests).await.unwrap().into_inner();
    let Some(MessageResponse::ListServicesResponse(list)) =
        replies.message().await.unwrap().unwrap().message_response
    else {
        panic!("no list of services");
    };
    let names: Vec<&str> = list.service.iter().map(|service| service.name.as_str()).collect();
    for served in ["chorus.v1.Ensemble", "inference.GRPCInferenceService", "grpc.health.v1.Health"] {
        assert!(names.contains(&served), "{names:?}");
    }
    assert!(!names.contains(&"chorus.v1.Worker"), "what is listed can be called: {names:?}");
    let Some(MessageResponse::FileDescriptorResponse(file)) =
        replies.message().await.unwrap().unwrap().message_response
    else {
        panic!("no descriptor");
    };
    assert!(!file.file_descriptor_proto.is_empty());
}
