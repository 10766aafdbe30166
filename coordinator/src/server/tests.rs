//! The whole coordinator over scripted workers and real sockets: start, serve, lose, find again, drain.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod half_requests;
mod members;
mod pings;
mod security;
mod wire;

use std::net::SocketAddr;
use std::time::Duration;

use chorus_proto::v1::ensemble_client::EnsembleClient;
use chorus_proto::v1::{GenerateReply, GenerateRequest, Input, StatusRequest, input, member_status::Health};
use chorus_text::Vocabulary;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tonic::transport::Channel;
use tonic::{Code, Streaming};
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse, health_check_response::ServingStatus};
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

use crate::config::{Config, Overrides};
use crate::run_error::RunError;
use crate::server::run;
use crate::testing::scripted_worker::{Manner, ScriptedWorker};

struct Coordinator {
    address: SocketAddr,
    shutdown: oneshot::Sender<()>,
    running: JoinHandle<Result<(), RunError>>,
}

async fn coordinator(workers: &[&ScriptedWorker], toml: &str) -> Coordinator {
    let flags = workers.iter().zip(["alto", "bass", "cello", "drum", "flute"]);
    let flags = flags.map(|(worker, name)| format!("{name}={}", worker.url()).parse().unwrap());
    let overrides = Overrides { members: flags.collect(), ..Overrides::default() };
    let config = Config::new(Some(toml), overrides).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (shutdown, asked) = oneshot::channel();
    let running = tokio::spawn(run(config, listener, async move {
        asked.await.unwrap();
    }));
    Coordinator { address, shutdown, running }
}

impl Coordinator {
    async fn channel(&self) -> Channel {
        let endpoint = Channel::from_shared(format!("http://{}", self.address)).unwrap();
        endpoint.connect().await.unwrap()
    }

    async fn health(&self, service: &str) -> Streaming<HealthCheckResponse> {
        let request = HealthCheckRequest { service: service.to_owned() };
        let mut client = HealthClient::new(self.channel().await);
        client.watch(request).await.unwrap().into_inner()
    }

    async fn stop(self) {
        self.shutdown.send(()).unwrap();
        self.running.await.unwrap().unwrap();
    }
}

async fn until(health: &mut Streaming<HealthCheckResponse>, status: ServingStatus) {
    let reached =
        async { while health.message().await.unwrap().expect("a watch goes on").status() != status {} };
    tokio::time::timeout(Duration::from_secs(60), reached).await.expect("it never came to that");
}

/// One is a quorum already, so health says nothing about the others.
async fn until_all_are_up(client: &mut EnsembleClient<Channel>) {
    let all = async {
        loop {
            let status = client.status(StatusRequest {}).await.unwrap().into_inner();
            if status.members.iter().all(|member| member.health() == Health::Up) {
                return;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), all).await.expect("it never came to that");
}

fn vocabulary() -> Vocabulary {
    Vocabulary::train_characters("abcdefgh").unwrap()
}

fn request(max_tokens: u32) -> GenerateRequest {
    GenerateRequest {
        prompt: Some(Input { input: Some(input::Input::Text("abba".to_owned())) }),
        max_tokens: Some(max_tokens),
        ..GenerateRequest::default()
    }
}

async fn rest(mut stream: Streaming<GenerateReply>) -> Vec<GenerateReply> {
    let mut replies = Vec::new();
    while let Some(reply) = stream.message().await.unwrap() {
        replies.push(reply);
    }
    replies
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_serves_while_a_quorum_is_up_and_survives_its_workers() {
    let mut alto = ScriptedWorker::start(&vocabulary(), 1, Manner::Faithful);
    let mut bass = ScriptedWorker::start(&vocabulary(), 2, Manner::Faithful);
    let coordinator = coordinator(&[&alto, &bass], "").await;
    let mut overall = coordinator.health("").await;
    let mut health = coordinator.health("chorus.v1.Ensemble").await;
    until(&mut health, ServingStatus::Serving).await;
    until(&mut overall, ServingStatus::Serving).await;
    let mut client = EnsembleClient::new(coordinator.channel().await);

    until_all_are_up(&mut client).await;
    let mut stream = client.generate(request(3000)).await.unwrap().into_inner();
    stream.message().await.unwrap().unwrap();
    alto.kill();
    let replies = rest(stream).await;
    let last = replies.last().unwrap();
    assert_eq!(last.end.as_ref().unwrap().generated_tokens, 3000);
    let lost = replies[replies.len() - 2].participation.as_ref().unwrap();
    assert_eq!(lost.participants, ["bass"]);
    assert_eq!(lost.missing[0].name, "alto");

    bass.kill();
    until(&mut health, ServingStatus::NotServing).await;
    until(&mut overall, ServingStatus::NotServing).await;
    let error = client.generate(request(1)).await.unwrap().into_inner().message().await.unwrap_err();
    assert_eq!(error.code(), Code::Unavailable);
    assert!(error.message().contains("alto") && error.message().contains("bass"), "{error}");
    assert!(!client.status(StatusRequest {}).await.unwrap().into_inner().serving);

    alto.start_again(Manner::Faithful);
    until(&mut health, ServingStatus::Serving).await;
    let replies = rest(client.generate(request(3)).await.unwrap().into_inner()).await;
    assert_eq!(replies[0].participation.as_ref().unwrap().participants, ["alto"]);
    alto.until_open(0).await;
    coordinator.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shutdown_lets_what_runs_finish_and_closes_every_session() {
    let worker = ScriptedWorker::start(&vocabulary(), 1, Manner::Faithful);
    let coordinator = coordinator(&[&worker], "").await;
    until(&mut coordinator.health("").await, ServingStatus::Serving).await;
    let mut client = EnsembleClient::new(coordinator.channel().await);
    let mut stream = client.generate(request(500)).await.unwrap().into_inner();
    stream.message().await.unwrap().unwrap();
    let address = coordinator.address;
    let (stopped, replies) = tokio::join!(coordinator.stop(), rest(stream));
    let () = stopped;
    assert_eq!(replies.last().unwrap().end.as_ref().unwrap().generated_tokens, 500);
    worker.until_open(0).await;
    assert!(tokio::net::TcpStream::connect(address).await.is_err(), "nobody listens any more");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_hangs_up_ends_the_work_at_the_workers() {
    let worker = ScriptedWorker::start(&vocabulary(), 1, Manner::Faithful);
    let coordinator = coordinator(&[&worker], "[limits]\nmax_generated_tokens = 4000000000").await;
    until(&mut coordinator.health("").await, ServingStatus::Serving).await;
    let mut client = EnsembleClient::new(coordinator.channel().await);
    let mut stream = client.generate(request(4_000_000_000)).await.unwrap().into_inner();
    stream.message().await.unwrap().unwrap();
    worker.until_open(1).await;
    drop(stream);
    worker.until_open(0).await;
    coordinator.stop().await;
}

#[tokio::test]
async fn reflection_names_the_services() {
    let worker = ScriptedWorker::start(&vocabulary(), 1, Manner::Faithful);
    let coordinator = coordinator(&[&worker], "").await;
    let mut client = ServerReflectionClient::new(coordinator.channel().await);
    let request = tonic_reflection::pb::v1::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let requests = futures::stream::iter([request]);
    let mut replies = client.server_reflection_info(requests).await.unwrap().into_inner();
    let reply = replies.message().await.unwrap().unwrap().message_response.unwrap();
    let MessageResponse::ListServicesResponse(services) = reply else { panic!("a list was asked for") };
    let names: Vec<_> = services.service.into_iter().map(|service| service.name).collect();
    for name in ["chorus.v1.Ensemble", "grpc.health.v1.Health"] {
        assert!(names.iter().any(|known| known == name), "{names:?}");
    }
    drop(replies);
    coordinator.stop().await;
}
