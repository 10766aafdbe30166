//! Traces: one of a client's goes through coordinator and workers to a collector that speaks OTLP; and what serving does where
//! the collector is not there.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    collections::BTreeMap,
    net::{SocketAddr, TcpListener},
    process::{Command, Stdio},
    sync::{Arc, Mutex},
};

use chorus_net::testing::{Authority, Validity};
use chorus_net::{ServerSettings, ServerTls, secured_connections};
use chorus_proto::v1::{GenerateRequest, SamplingOptions};
use chorus_tests::{
    Chorus, MemberProcess, binary,
    clients::{EnsembleClient, generate, joined_text, members_up, text_input, until},
    models,
};
use nix::sys::signal::Signal;
use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    common::v1::{KeyValue, any_value::Value},
    trace::v1::{Span, span::SpanKind},
};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{
    Request, Response, Status,
    transport::{Channel, Server},
};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CLIENT: &str = "b7ad6b7169203331";

/// A span, and the service that it came from.
#[derive(Debug, Clone)]
struct Received {
    service: String,
    span: Span,
}

/// A collector in this process.
#[derive(Debug, Clone, Default)]
struct Collector(Arc<Mutex<Vec<Received>>>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let mut received = self.0.lock().unwrap();
        for of_resource in request.into_inner().resource_spans {
            let service = text(&of_resource.resource.unwrap_or_default().attributes, "service.name");
            let spans = of_resource.scope_spans.into_iter().flat_map(|of_scope| of_scope.spans);
            received.extend(spans.map(|span| Received { service: service.clone(), span }));
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Collector {
    async fn start() -> (Self, SocketAddr) {
        Self::start_secured(None).await
    }

    async fn start_secured(tls: Option<ServerTls>) -> (Self, SocketAddr) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let collector = Self::default();
        let server = Server::builder().add_service(TraceServiceServer::new(collector.clone()));
        let incoming = secured_connections(TcpListenerStream::new(listener), tls);
        tokio::spawn(server.serve_with_incoming(incoming));
        (collector, address)
    }

    fn received(&self) -> Vec<Received> {
        self.0.lock().unwrap().clone()
    }

    /// The spans of a name that a service sent.
    fn of(&self, service: &str, name: &str) -> Vec<Span> {
        let received = self.received().into_iter();
        received
            .filter(|received| received.service == service && received.span.name == name)
            .map(|received| received.span)
            .collect()
    }
}

fn text(attributes: &[KeyValue], key: &str) -> String {
    let attribute = attributes.iter().find(|attribute| attribute.key == key);
    let value = attribute.and_then(|attribute| attribute.value.as_ref()?.value.as_ref());
    match value {
        Some(Value::StringValue(text)) => text.clone(),
        Some(Value::IntValue(number)) => number.to_string(),
        other => panic!("{key} is {other:?} in {attributes:?}"),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Two members and their coordinator, all of which send their spans there.
struct Traced {
    members: Vec<MemberProcess>,
    coordinator: Chorus,
    address: SocketAddr,
}

impl Traced {
    async fn start(otlp: &str) -> Self {
        let members: Vec<MemberProcess> = ["alto", "bass"]
            .into_iter()
            .map(|name| {
                let model = models::demo(name);
                let flags = ["worker".as_ref(), "--model".as_ref(), model.as_os_str()];
                let mut command = soon(flags);
                command.env("OTEL_EXPORTER_OTLP_ENDPOINT", otlp);
                MemberProcess::of(name, &model, Chorus::start_command(command, Stdio::null()))
            })
            .collect();
        let flags =
            members.iter().map(|member| format!("--member={}=http://{}", member.name, member.address));
        let flags = ["coordinator".to_owned()].into_iter().chain(flags);
        let mut command = soon(flags);
        command.args(["--listen=127.0.0.1:0", "--otlp", otlp, "--log=info", "--log-format=json"]);
        let mut coordinator = Chorus::start_command(command, Stdio::null());
        let address = coordinator.listening();
        let traced = Self { members, coordinator, address };
        let client = traced.client().await;
        until("both are up", || {
            let mut client = client.clone();
            async move { members_up(&mut client).await == 2 }
        })
        .await;
        traced
    }

    async fn client(&self) -> EnsembleClient {
        let endpoint = Channel::from_shared(format!("http://{}", self.address)).unwrap();
        EnsembleClient::new(endpoint.connect().await.unwrap())
    }

    /// Drains the coordinator, then the workers; what the coordinator said on stderr.
    fn stop(self) -> String {
        self.coordinator.signal(Signal::SIGTERM);
        let ended = self.coordinator.wait();
        assert!(ended.status.success(), "{}", ended.stderr);
        for mut member in self.members {
            member.stop();
        }
        ended.stderr
    }
}

/// A process that sends its spans soon: nobody here waits for five seconds.
fn soon<S: AsRef<std::ffi::OsStr>>(arguments: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(binary());
    command.args(arguments).env("OTEL_BSP_SCHEDULE_DELAY", "20");
    command
}

fn request(max_tokens: u32) -> GenerateRequest {
    GenerateRequest {
        prompt: text_input("ROMEO:\n"),
        max_tokens: Some(max_tokens),
        sampling: Some(SamplingOptions { seed: Some(7), ..Default::default() }),
        ..Default::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spans_go_over_tls_to_a_collector_that_is_known_and_to_no_other() {
    let authority = Authority::new("collectors");
    let settings =
        ServerSettings { identity: authority.vouch(&["127.0.0.1"], Validity::Now), client_ca: None };
    let tls = ServerTls::new(settings.prepare().unwrap());
    let (collector, address) = Collector::start_secured(Some(tls)).await;
    let folder = tempfile::TempDir::new().unwrap();
    let model = models::demo("alto");
    let mut worker = MemberProcess::start("alto", &model);
    for (name, authority, taken) in [("ours", authority, true), ("theirs", Authority::new("others"), false)] {
        let file = folder.path().join(name);
        std::fs::write(&file, authority.pem()).unwrap();
        let mut command = soon(["coordinator", "--listen=127.0.0.1:0"]);
        command.arg(format!("--member=alto=http://{}", worker.address));
        command.env("OTEL_EXPORTER_OTLP_ENDPOINT", format!("https://{address}"));
        command.env("OTEL_EXPORTER_OTLP_CERTIFICATE", &file).env("OTEL_SERVICE_NAME", name);
        let mut coordinator = Chorus::start_command(command, Stdio::null());
        let endpoint = Channel::from_shared(format!("http://{}", coordinator.listening())).unwrap();
        let client = EnsembleClient::new(endpoint.connect().await.unwrap());
        until("it is up", || {
            let mut client = client.clone();
            async move { members_up(&mut client).await == 1 }
        })
        .await;
        client.clone().complete(request(3)).await.expect("whoever takes spans, or does not, it answers");
        coordinator.signal(Signal::SIGTERM);
        let ended = coordinator.wait();
        assert!(ended.status.success(), "{}", ended.stderr);
        assert_eq!(collector.of(name, "request").len(), usize::from(taken), "{name}: {}", ended.stderr);
    }
    worker.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clients_trace_goes_through_the_coordinator_to_every_worker() {
    let (collector, address) = Collector::start().await;
    let traced = Traced::start(&format!("http://{address}")).await;
    // What is not sampled costs nothing and says nothing.
    let mut unsampled = Request::new(request(5));
    unsampled.metadata_mut().insert("traceparent", format!("00-{TRACE}-{CLIENT}-00").parse().unwrap());
    traced.client().await.complete(unsampled).await.unwrap();

    let mut command = soon(["generate", "ROMEO:", "--max-tokens=40", "--seed=7"]);
    command.arg(format!("--addr={}", traced.address)).env("TRACEPARENT", format!("00-{TRACE}-{CLIENT}-01"));
    let ended = Chorus::start_command(command, Stdio::null()).wait();
    assert!(ended.status.success(), "{}", ended.stderr);
    // Spans that wait are sent when a process stops.
    traced.stop();

    let received = collector.received();
    let strangers: Vec<_> =
        received.iter().filter(|received| hex(&received.span.trace_id) != TRACE).collect();
    assert!(strangers.is_empty(), "{strangers:?}");
    let [request] = &collector.of("chorus-coordinator", "request")[..] else {
        panic!("one request was sampled: {received:?}");
    };
    assert_eq!((hex(&request.parent_span_id).as_str(), request.kind()), (CLIENT, SpanKind::Server));
    for (key, value) in [
        ("method", "generate"),
        ("rule", "weighted_average"),
        ("plan", "drawn"),
        ("tokens", "40"),
        ("participants", "alto,bass"),
        ("missing", ""),
        ("code", "ok"),
    ] {
        assert_eq!(text(&request.attributes, key), value, "{key}");
    }
    let steps = collector.of("chorus-coordinator", "step");
    let indices: Vec<String> = steps.iter().map(|step| text(&step.attributes, "token")).collect();
    let expected: Vec<String> = (0..=16).chain([32]).map(|index| index.to_string()).collect();
    assert_eq!(indices, expected, "the first ones, then one in a while");
    assert!(steps.iter().all(|step| step.parent_span_id == request.span_id));
    let of_steps = by_id(&steps);
    let feeds = collector.of("chorus-coordinator", "feed");
    for member in ["alto", "bass"] {
        let of_member = feeds.iter().filter(|feed| text(&feed.attributes, "member") == member).count();
        assert_eq!(of_member, steps.len(), "{member} was asked in every step");
    }
    assert!(feeds.iter().all(|feed| of_steps.contains_key(&feed.parent_span_id)), "{feeds:?}");
    assert!(feeds.iter().all(|feed| feed.kind() == SpanKind::Client));
    let of_feeds = by_id(&feeds);
    let at_workers = collector.of("chorus-worker", "feed");
    assert_eq!(at_workers.len(), feeds.len());
    for feed in &at_workers {
        let asked = of_feeds.get(&feed.parent_span_id).expect("a child of the coordinator's");
        assert!(asked.start_time_unix_nano <= feed.start_time_unix_nano, "{asked:?} {feed:?}");
        assert!(feed.end_time_unix_nano <= asked.end_time_unix_nano, "{asked:?} {feed:?}");
    }
    let of_workers = by_id(&at_workers);
    for name in ["queue", "forward"] {
        let spans = collector.of("chorus-worker", name);
        assert!(spans.len() >= at_workers.len(), "{name}: {}", spans.len());
        assert!(spans.iter().all(|span| of_workers.contains_key(&span.parent_span_id)), "{name}");
    }
}

fn by_id(spans: &[Span]) -> BTreeMap<Vec<u8>, &Span> {
    spans.iter().map(|span| (span.span_id.clone(), span)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn log_lines_of_a_request_name_it_and_its_trace() {
    let (collector, address) = Collector::start().await;
    let mut traced = Traced::start(&format!("http://{address}")).await;
    let client = traced.client().await;
    let mut call = Request::new(GenerateRequest { max_tokens: Some(4000), ..request(1) });
    call.metadata_mut().insert("x-request-id", "mine-7".parse().unwrap());
    let mut stream = client.clone().generate(call).await.unwrap();
    assert_eq!(stream.metadata().get("x-request-id").unwrap(), "mine-7");
    stream.get_mut().message().await.unwrap().expect("a token");
    // Of a member that is lost on the way a line is logged, or that it is back.
    traced.members[1].kill();
    traced.members[1].start_again();
    // It can't go on by much while nobody reads.
    until("bass is up again", || {
        let mut client = client.clone();
        async move { members_up(&mut client).await == 2 }
    })
    .await;
    let mut rejoined = false;
    while let Some(message) = stream.get_mut().message().await.unwrap() {
        rejoined |= message.participation.is_some_and(|participation| !participation.rejoined.is_empty());
    }
    assert!(rejoined, "4000 tokens are enough to come back in");
    let [_request] = &until_request(&collector).await[..] else { panic!("one request") };
    let log = traced.stop();
    let lines: Vec<serde_json::Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect();
    for line in &lines {
        for key in ["timestamp", "level", "target", "fields"] {
            assert!(line.get(key).is_some(), "{key} in {line}");
        }
    }
    let request = |line: &serde_json::Value| {
        let spans = line["spans"].as_array().cloned().unwrap_or_default();
        spans.into_iter().find(|span| span["name"] == "request" && span["request_id"] == "mine-7")
    };
    let of_request = lines.iter().filter_map(|line| Some((request(line)?, &line["fields"])));
    let back = of_request.into_iter().find(|(_, fields)| fields["message"] == "back in the session");
    let (span, fields) = back.unwrap_or_else(|| panic!("{log}"));
    let sent = &collector.of("chorus-coordinator", "request")[0];
    assert_eq!(span["trace_id"], hex(&sent.trace_id));
    assert_eq!((&span["method"], &fields["member"]), (&"generate".into(), &"bass".into()));
    assert_eq!(text(&sent.attributes, "request_id"), "mine-7");
}

async fn until_request(collector: &Collector) -> Vec<Span> {
    until("the request's span has come", || {
        let collector = collector.clone();
        async move { !collector.of("chorus-coordinator", "request").is_empty() }
    })
    .await;
    collector.of("chorus-coordinator", "request")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_that_takes_nothing_holds_nobody_up() {
    // It accepts connections, as the system does for it, and never says a word.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let nowhere = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut texts = Vec::new();
    for collector in [silent.local_addr().unwrap(), nowhere] {
        let traced = Traced::start(&format!("http://{collector}")).await;
        let mut client = traced.client().await;
        // Many times as many spans as wait at most.
        for _ in 0..100 {
            texts.push(joined_text(&generate(&mut client, request(40)).await.unwrap()));
        }
        let begun = std::time::Instant::now();
        traced.stop();
        let took = begun.elapsed();
        assert!(took.as_secs() < 30, "three processes took {took:?} to stop");
    }
    assert!(texts.iter().all(|text| *text == texts[0] && !text.is_empty()));
}
