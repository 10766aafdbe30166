//! Whole runs over real gRPC against a scripted ensemble: what it answers is what is counted. No figure here depends on how
//! fast anything is.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{net::SocketAddr, sync::Arc, time::Duration};

use chorus_load::{
    Live, Load, Plan, RunError, RunResult,
    measure::Window,
    null::NullEnsemble,
    report::Report,
    run,
    workload::{Delivery, Inputs, Workload, parse_prompts},
};
use chorus_net::Dialer;
use chorus_proto::v1::{
    ClassifyReply, ClassifyRequest, CompleteReply, DistributionsReply, DistributionsRequest, GenerateReply,
    GenerateRequest, GeneratedToken, GenerationEnd, Input, MissingMember, Participation, PredictReply,
    PredictRequest, RankReply, RankRequest, ScoreReply, ScoreRequest, StatusReply, StatusRequest,
    TokenizerChunk, TokenizerRequest,
    ensemble_server::{Ensemble, EnsembleServer},
    input,
};
use futures::{
    StreamExt as _,
    stream::{self, BoxStream},
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request, Response, Status, transport::Endpoint, transport::server::TcpIncoming};

/// Does what a prompt says: fails with a code, answers degraded, breaks off, or hangs.
struct Scripted {
    hanging: CancellationToken,
}

fn text(input: Option<Input>) -> String {
    match input.and_then(|input| input.input) {
        Some(input::Input::Text(text)) => text,
        other => panic!("a text, not {other:?}"),
    }
}

fn participation(prompt: &str) -> Participation {
    let missing =
        MissingMember { name: "bass".to_owned(), reason: "gone".to_owned(), ..MissingMember::default() };
    let missing = if prompt == "degraded" { vec![missing] } else { Vec::new() };
    Participation { participants: vec!["alto".to_owned()], missing, ..Participation::default() }
}

#[tonic::async_trait]
impl Ensemble for Scripted {
    type GenerateStream = BoxStream<'static, Result<GenerateReply, Status>>;
    type TokenizerStream = BoxStream<'static, Result<TokenizerChunk, Status>>;
    type DistributionsStream = BoxStream<'static, Result<DistributionsReply, Status>>;

    async fn generate(
        &self,
        request: Request<GenerateRequest>,
    ) -> Result<Response<Self::GenerateStream>, Status> {
        let request = request.into_inner();
        let prompt = text(request.prompt);
        match prompt.as_str() {
            "unavailable" => return Err(Status::unavailable("below quorum")),
            "invalid" => return Err(Status::invalid_argument("prompt: no")),
            _ => {}
        }
        let token = |index| GenerateReply {
            token: Some(GeneratedToken { index, ..GeneratedToken::default() }),
            participation: Some(participation("")),
            ..GenerateReply::default()
        };
        let tokens: Vec<_> = (0..request.max_tokens.unwrap()).map(|index| Ok(token(index))).collect();
        let last = match prompt.as_str() {
            "broken off" => Vec::new(),
            "exhausted midway" => vec![Err(Status::resource_exhausted("no room"))],
            _ => vec![Ok(GenerateReply {
                participation: Some(participation(&prompt)),
                end: Some(GenerationEnd { prompt_tokens: 4, ..GenerationEnd::default() }),
                ..GenerateReply::default()
            })],
        };
        let replies = stream::iter(tokens).chain(stream::iter(last));
        if prompt == "hang" {
            self.hanging.cancel();
            return Ok(Response::new(replies.chain(stream::pending()).boxed()));
        }
        Ok(Response::new(replies.boxed()))
    }

    async fn complete(&self, _: Request<GenerateRequest>) -> Result<Response<CompleteReply>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn score(&self, request: Request<ScoreRequest>) -> Result<Response<ScoreReply>, Status> {
        let input = text(request.into_inner().input);
        Ok(Response::new(ScoreReply {
            tokens: 20,
            participation: Some(participation(&input)),
            ..ScoreReply::default()
        }))
    }

    async fn predict(&self, _: Request<PredictRequest>) -> Result<Response<PredictReply>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn rank(&self, _: Request<RankRequest>) -> Result<Response<RankReply>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn classify(&self, _: Request<ClassifyRequest>) -> Result<Response<ClassifyReply>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn distributions(
        &self,
        _: Request<DistributionsRequest>,
    ) -> Result<Response<Self::DistributionsStream>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn tokenizer(
        &self,
        _: Request<TokenizerRequest>,
    ) -> Result<Response<Self::TokenizerStream>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<StatusReply>, Status> {
        Err(Status::unimplemented(""))
    }
}

/// A scripted server, and whether a call hangs there.
struct Server {
    address: SocketAddr,
    hanging: CancellationToken,
}

async fn server() -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let hanging = CancellationToken::new();
    let service = EnsembleServer::new(Scripted { hanging: hanging.clone() });
    let serving = tonic::transport::Server::builder().add_service(service);
    tokio::spawn(serving.serve_with_incoming(TcpIncoming::from(listener)));
    Server { address, hanging }
}

/// Many short calls, or one.
fn plan(load: Load, until: Duration) -> Plan {
    Plan {
        load,
        window: Window { from: Duration::ZERO, until },
        drain: Duration::from_secs(60),
        threads: 2,
        connections: 3,
        timeout: None,
        watched: Some(std::process::id()),
    }
}

fn workload(prompts: &str) -> Arc<Workload> {
    Arc::new(Workload {
        mix: "generate".parse().unwrap(),
        inputs: Inputs::Replayed(parse_prompts(prompts).unwrap().into()),
        prompt_tokens: "1".parse().unwrap(),
        max_tokens: "3".parse().unwrap(),
        delivery: Delivery::default(),
        score_tokens: "1".parse().unwrap(),
        sampling: None,
        fusion: None,
        seed: 1,
    })
}

async fn run_on(
    address: SocketAddr,
    plan: &Plan,
    workload: &Arc<Workload>,
    stop: &CancellationToken,
) -> Result<RunResult, RunError> {
    let ensemble = Dialer::plain(Endpoint::from_shared(format!("http://{address}")).unwrap());
    run(plan, workload, &ensemble, &Arc::new(Live::default()), stop).await
}

/// Runs until so many calls have ended.
async fn run_for(ends: u64, load: Load, prompts: &str) -> RunResult {
    let (server, stop) = (server().await, CancellationToken::new());
    let live = Arc::new(Live::default());
    let stopping = async {
        while live.answered_count() + live.failed_count() < ends {
            tokio::task::yield_now().await;
        }
        stop.cancel();
    };
    let plan = plan(load, Duration::from_secs(3600));
    let workload = workload(prompts);
    let ensemble = Dialer::plain(Endpoint::from_shared(format!("http://{}", server.address)).unwrap());
    let (result, ()) = tokio::join!(run(&plan, &workload, &ensemble, &live, &stop), stopping);
    result.unwrap()
}

#[tokio::test]
async fn every_outcome_is_counted_under_its_code() {
    // An odd number of prompts for two threads: each of them comes to all, whichever of the two is faster.
    let prompts = "fine\nunavailable\ndegraded\nexhausted midway\nfine\n";
    let result = run_for(80, Load::Closed { concurrency: 2 }, prompts).await;
    let counts = result.measurements.calls;
    assert!(result.interrupted);
    assert!(counts.answered + counts.failed >= 80 && counts.unfinished() <= 2, "{counts:?}");
    let count = |code: Code| result.measurements.errors[&i32::from(code)].count;
    assert_eq!(counts.failed, count(Code::Unavailable) + count(Code::ResourceExhausted));
    assert!(count(Code::Unavailable) > 0 && count(Code::ResourceExhausted) > 0);
    assert_eq!(result.measurements.errors[&i32::from(Code::Unavailable)].example, "below quorum");
    assert!(counts.degraded > 0 && counts.degraded < counts.answered, "{counts:?}");
    assert_eq!(result.measurements.generate.len(), counts.answered);
    assert!(result.measurements.score.is_empty());
    // Whole answers have three tokens, and so have those that fail midway.
    assert!(result.measurements.volume.generated_tokens >= 3 * counts.answered);
    assert_eq!(result.measurements.volume.prompt_tokens, 4 * counts.answered);
}

#[tokio::test]
async fn an_answer_without_its_last_message_is_a_failure() {
    let result = run_for(4, Load::Closed { concurrency: 1 }, "broken off\n").await;
    assert_eq!(result.measurements.calls.answered, 0);
    let errors = &result.measurements.errors[&i32::from(Code::Unknown)];
    assert!(errors.example.contains("broke off"), "{errors:?}");
}

#[tokio::test]
async fn scorings_are_measured_as_such() {
    let result = run_for(10, Load::Open { rate: 2000.0, most_in_flight: 50 }, "{\"score\": \"x\"}\n").await;
    let measured = &result.measurements;
    assert!(measured.calls.answered > 0);
    assert_eq!(measured.score.len(), measured.calls.answered);
    assert_eq!(measured.volume.scored_tokens, 20 * measured.volume.answers);
    assert!(measured.first_token.is_empty() && measured.generate.is_empty());
}

#[tokio::test]
async fn a_stop_gives_what_was_measured_and_says_what_had_no_end() {
    let server = server().await;
    let plan = plan(Load::Closed { concurrency: 2 }, Duration::from_secs(3600));
    let stop = server.hanging.clone();
    let result = run_on(server.address, &plan, &workload("hang\n"), &stop).await.unwrap();
    assert!(result.interrupted && result.measured < plan.window.length());
    assert_eq!((result.measurements.calls.answered, result.measurements.calls.failed), (0, 0));
    assert!(result.measurements.calls.unfinished() >= 1);
    assert!(Report::new(&plan, &result).cautions().iter().any(|caution| caution.contains("had no end")));
}

#[tokio::test]
async fn the_null_ensemble_answers_whatever_is_asked_and_the_run_knows_its_costs() {
    let server = NullEnsemble::start().unwrap();
    let plan = plan(Load::Closed { concurrency: 5 }, Duration::from_millis(300));
    let workload = Workload {
        inputs: Inputs::Random { vocabulary_size: 100 },
        mix: "generate,score".parse().unwrap(),
        ..(*workload("x")).clone()
    };
    let stop = CancellationToken::new();
    let result = run_on(server.address().unwrap(), &plan, &Arc::new(workload.clone()), &stop).await.unwrap();
    let measured = &result.measurements;
    assert!(!result.interrupted && result.measured == plan.window.length());
    assert_eq!((measured.calls.failed, measured.calls.unfinished(), measured.calls.degraded), (0, 0, 0));
    assert_eq!(measured.calls.answered, measured.generate.len() + measured.score.len());
    assert_eq!(measured.inter_token.len(), 2 * measured.generate.len());
    let whole = Arc::new(Workload { delivery: Delivery::Whole, ..workload });
    let whole = run_on(server.address().unwrap(), &plan, &whole, &stop).await.unwrap().measurements;
    assert!(whole.first_token.is_empty() && whole.inter_token.is_empty() && !whole.generate.is_empty());
    assert_eq!((whole.calls.failed, whole.calls.unfinished()), (0, 0));
    assert_eq!(whole.volume.generated_tokens % 3, 0);
    assert!(whole.volume.generated_tokens > 0 && whole.volume.prompt_tokens > 0);
    if cfg!(target_os = "linux") {
        assert!(result.client.cpu > Duration::ZERO && result.watched_cpu.is_some());
    }
}

#[tokio::test]
async fn nobody_at_an_address_is_an_error_and_no_run() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let plan = plan(Load::Closed { concurrency: 1 }, Duration::from_secs(3600));
    let error = run_on(address, &plan, &workload("x"), &CancellationToken::new()).await.unwrap_err();
    assert!(matches!(error, RunError::Connect(_)), "{error}");
}

#[tokio::test]
async fn a_server_that_goes_away_is_unavailable() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    // As many connections as the plan has are taken, and closed again with the listener.
    tokio::spawn(async move {
        let mut taken = Vec::new();
        for _ in 0..3 {
            taken.push(listener.accept().await.unwrap());
        }
    });
    let (live, stop) = (Arc::new(Live::default()), CancellationToken::new());
    let until_failed = async {
        while live.failed_count() == 0 {
            tokio::task::yield_now().await;
        }
        stop.cancel();
    };
    let plan = plan(Load::Closed { concurrency: 2 }, Duration::from_secs(3600));
    let ensemble = Dialer::plain(Endpoint::from_shared(format!("http://{address}")).unwrap());
    let workload = workload("x");
    let (result, ()) = tokio::join!(run(&plan, &workload, &ensemble, &live, &stop), until_failed);
    let measured = result.unwrap().measurements;
    assert_eq!(measured.calls.answered, 0);
    assert!(measured.errors.contains_key(&i32::from(Code::Unavailable)), "{:?}", measured.errors);
}
