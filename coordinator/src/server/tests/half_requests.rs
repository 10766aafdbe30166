//! Requests that end too early, never end, or are packed in a way that nobody offered.

use bytes::Bytes;
use futures::{StreamExt as _, stream};
use http_body_util::StreamBody;
use http_body_util::combinators::BoxBody;
use tonic::codec::CompressionEncoding;
use tonic_types::StatusExt as _;
use tower::{Service as _, ServiceExt as _};

use super::*;

const METHODS: [&str; 2] = ["chorus.v1.Ensemble/Score", "inference.GRPCInferenceService/ModelInfer"];

/// A call with these bytes of a body, which ends there or goes on in silence.
async fn call_with(
    coordinator: &Coordinator,
    method: &str,
    bytes: &'static [u8],
    ends: bool,
) -> tonic::Status {
    let frame = http_body::Frame::data(Bytes::from_static(bytes));
    let frames = stream::iter([Ok::<_, tonic::Status>(frame)]);
    let body: BoxBody<Bytes, tonic::Status> = match ends {
        true => BoxBody::new(StreamBody::new(frames)),
        false => BoxBody::new(StreamBody::new(frames.chain(stream::pending()))),
    };
    let request = http::Request::post(format!("http://{}/{method}", coordinator.address))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(tonic::body::Body::new(body))
        .unwrap();
    let mut channel = coordinator.channel().await;
    let response = channel.ready().await.unwrap().call(request).await.unwrap();
    tonic::Status::from_header_map(response.headers()).expect("a status and nothing else")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_a_request_is_the_callers_mistake_and_is_not_waited_for_for_ever() {
    let worker = ScriptedWorker::start(&vocabulary(), 1, Manner::Faithful);
    let coordinator = coordinator(&[&worker], "[limits]\nread_timeout_ms = 200").await;
    until(&mut coordinator.health("").await, ServingStatus::Serving).await;
    // A frame has a flag, four bytes of length, and a message: here field 1 with a text inside.
    let half = b"\0\0\0\0\x20\x0a\x06\x0a\x04ab";
    for (what, bytes, ends, code, words) in [
        ("nothing", &b""[..], true, Code::InvalidArgument, "there is none"),
        ("half a header", &b"\0\0\0"[..], true, Code::InvalidArgument, "exactly one whole message"),
        ("half a message", half, true, Code::InvalidArgument, "exactly one whole message"),
        ("an unknown flag", b"\x05\0\0\0\x02\x0a\0", true, Code::InvalidArgument, "flag"),
        ("a packed message", b"\x01\0\0\0\x02\x0a\0", true, Code::InvalidArgument, "compress"),
        ("half a message and silence", half, false, Code::DeadlineExceeded, "limits.read_timeout_ms"),
        ("a header and silence", b"\0\0\0\0\x20", false, Code::DeadlineExceeded, "limits.read_timeout_ms"),
    ] {
        for method in METHODS {
            let status = call_with(&coordinator, method, bytes, ends).await;
            assert_eq!(status.code(), code, "{method}, {what}: {status}");
            assert!(status.message().starts_with("request: "), "{method}, {what}: {status}");
            assert!(status.message().contains(words), "{method}, {what}: {status}");
            assert_eq!(status.get_details_error_info().unwrap().domain, "chorus", "{method}, {what}");
            if code == Code::InvalidArgument {
                let violations = status.get_details_bad_request().unwrap().field_violations;
                assert_eq!(violations[0].field, "request", "{method}, {what}");
            }
        }
    }
    let mut client = EnsembleClient::new(coordinator.channel().await);
    assert_eq!(rest(client.generate(request(3)).await.unwrap().into_inner()).await.len(), 4);
    coordinator.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deadline_of_the_caller_ends_a_stream_too() {
    let worker = ScriptedWorker::start(&vocabulary(), 1, Manner::Silent);
    let coordinator = coordinator(&[&worker], "").await;
    until(&mut coordinator.health("").await, ServingStatus::Serving).await;
    // The header alone: a client's own clock must not be what ends the call.
    let call = |timeout: &str| {
        let mut call = tonic::Request::new(request(3));
        call.metadata_mut().insert("grpc-timeout", timeout.parse().unwrap());
        call
    };
    let mut client = EnsembleClient::new(coordinator.channel().await);
    let mut stream = client.generate(call("3S")).await.unwrap().into_inner();
    let error = stream.message().await.unwrap_err();
    assert_eq!(error.code(), Code::DeadlineExceeded);
    assert!(error.message().contains("grpc-timeout"), "{error}");
    coordinator.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failure_says_to_programs_which_field_is_at_fault() {
    let worker = ScriptedWorker::start(&vocabulary(), 1, Manner::Faithful);
    let coordinator = coordinator(&[&worker], "").await;
    let mut client = EnsembleClient::new(coordinator.channel().await);
    until_all_are_up(&mut client).await;
    let refusal = client.complete(request(0)).await.unwrap_err();
    let violations = refusal.get_details_bad_request().unwrap().field_violations;
    assert_eq!(violations[0].field, "max_tokens");
    assert_eq!(refusal.message(), format!("max_tokens: {}", violations[0].description));
    let info = refusal.get_details_error_info().unwrap();
    assert_eq!((info.reason.as_str(), info.metadata["field"].as_str()), ("INVALID_ARGUMENT", "max_tokens"));
    coordinator.stop().await;
}

/// A few kilobytes that unpack to far more than a request may have are not unpacked further than that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_is_as_long_as_it_is_unpacked() {
    let worker = ScriptedWorker::start(&vocabulary(), 1, Manner::Faithful);
    let coordinator = coordinator(&[&worker], "[connections]\ncompression = 'zstd'").await;
    for encoding in [CompressionEncoding::Gzip, CompressionEncoding::Zstd] {
        let client = EnsembleClient::new(coordinator.channel().await);
        let mut client = client.send_compressed(encoding).accept_compressed(encoding);
        until_all_are_up(&mut client).await;
        let prompt = |bytes: usize| {
            let input = input::Input::Text("a".repeat(bytes));
            GenerateRequest { prompt: Some(Input { input: Some(input) }), ..request(3) }
        };
        assert_eq!(rest(client.generate(prompt(9)).await.unwrap().into_inner()).await.len(), 4);
        let refusal = client.generate(prompt(64 << 20)).await.unwrap_err();
        assert_eq!(refusal.code(), Code::InvalidArgument, "{refusal}");
        assert!(refusal.message().starts_with("request: it is too long to be read"), "{refusal}");
    }
    coordinator.stop().await;
}
