//! What generic tools rely on: health and reflection over gRPC, on both kinds of server, and metrics over HTTP.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::net::{SocketAddr, TcpListener};

use chorus_tests::{Chorus, Ensemble, MemberProcess, models};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
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

/// A coordinator over one member that serves metrics. It can't say where, so that is an address that was free a moment ago.
fn coordinator_with_metrics(member: &MemberProcess) -> (Chorus, SocketAddr) {
    let metrics = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let coordinator = Chorus::start([
        "coordinator".to_owned(),
        format!("--member=alto=http://{}", member.address),
        format!("--metrics={metrics}"),
        "--listen=127.0.0.1:0".to_owned(),
    ]);
    (coordinator, metrics)
}

async fn get(address: SocketAddr, path: &str) -> String {
    let mut connection = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    connection.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_count_what_goes_over_a_members_link() {
    let member = MemberProcess::start("alto", &models::demo("alto"));
    let (mut coordinator, metrics) = coordinator_with_metrics(&member);
    let address = coordinator.listening();
    let channel = Channel::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap();
    let client = chorus_tests::clients::EnsembleClient::new(channel);
    chorus_tests::until("alto is up", || {
        let mut client = client.clone();
        async move { chorus_tests::clients::members_up(&mut client).await == 1 }
    })
    .await;
    chorus_tests::score_text(&mut client.clone(), "To be, or not to be").await.unwrap();
    let text = get(metrics, "/metrics").await;
    assert!(text.starts_with("HTTP/1.1 200 OK"), "{text}");
    let value = |name: &str| -> u64 {
        let start = format!("{name}{{member=\"alto\",plan=\"targets\"}} ");
        let line = text.lines().find_map(|line| line.strip_prefix(&start));
        line.unwrap_or_else(|| panic!("{start} in {text}")).parse().unwrap()
    };
    let tokens = value("chorus_member_tokens_total");
    assert!(tokens > 5 && value("chorus_member_output_rows_total") == tokens);
    assert!(value("chorus_member_received_bytes_total") > 8 * tokens);
    assert!(value("chorus_member_sent_bytes_total") > tokens);
}
