//! Whatever a caller sends: the right code, one clear sentence that names the field and what is allowed, and a server
//! that serves the next caller as if nothing had happened.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::HashMap;

use chorus_proto::v1::{
    FusionOptions, GenerateRequest, Input, PredictRequest, Rule, SamplingOptions, ScoreReply, ScoreRequest,
    TokenIds, input,
};
use chorus_tests::{
    Ensemble, Running, clients::EnsembleClient, generate, joined_text, running::texts, score_text, text_input,
};
use tonic::{Code, Status};

fn ids(ids: &[i64]) -> Option<Input> {
    Some(Input { input: Some(input::Input::Tokens(TokenIds { ids: ids.to_vec() })) })
}

fn valid() -> GenerateRequest {
    GenerateRequest { prompt: text_input("KING"), max_tokens: Some(2), ..Default::default() }
}

fn sampling(sampling: SamplingOptions) -> GenerateRequest {
    GenerateRequest { sampling: Some(sampling), ..valid() }
}

fn weights(weights: &[(&str, f64)]) -> FusionOptions {
    let weights: HashMap<_, _> = weights.iter().map(|(name, weight)| ((*name).to_owned(), *weight)).collect();
    FusionOptions { weights, ..Default::default() }
}

fn fusion(fusion: FusionOptions) -> GenerateRequest {
    GenerateRequest { fusion: Some(fusion), ..valid() }
}

/// (what, request, words that the sentence must have: the field first, then what is allowed)
fn generate_table() -> Vec<(&'static str, GenerateRequest, Vec<&'static str>)> {
    let prompt = |prompt| GenerateRequest { prompt, ..valid() };
    let temperature =
        |temperature| sampling(SamplingOptions { temperature: Some(temperature), ..Default::default() });
    let top_p = |top_p| sampling(SamplingOptions { top_p: Some(top_p), ..Default::default() });
    let threshold = |threshold| {
        fusion(FusionOptions {
            rule: Rule::ThresholdVote.into(),
            threshold: Some(threshold),
            ..Default::default()
        })
    };
    let vote = || FusionOptions { rule: Rule::ThresholdVote.into(), ..Default::default() };
    vec![
        ("no prompt", prompt(None), vec!["prompt"]),
        ("a prompt without content", prompt(Some(Input { input: None })), vec!["prompt"]),
        ("an empty prompt", prompt(text_input("")), vec!["prompt"]),
        ("no token ids", prompt(ids(&[])), vec!["prompt"]),
        ("a negative id", prompt(ids(&[3, -1])), vec!["prompt", "-1", "511"]),
        ("an id beyond the vocabulary", prompt(ids(&[512])), vec!["prompt", "512", "511"]),
        ("an id beyond 32 bits", prompt(ids(&[1 << 40])), vec!["prompt", "511"]),
        ("an over-long prompt", prompt(ids(&[1; 2001])), vec!["prompt", "2001", "2000"]),
        ("over-long text", prompt(text_input(&"a".repeat(20_001))), vec!["prompt", "20000"]),
        ("max_tokens 0", GenerateRequest { max_tokens: Some(0), ..valid() }, vec!["max_tokens", "4096"]),
        (
            "huge max_tokens",
            GenerateRequest { max_tokens: Some(u32::MAX), ..valid() },
            vec!["max_tokens", "4096"],
        ),
        ("an empty stop string", GenerateRequest { stop: vec![String::new()], ..valid() }, vec!["stop"]),
        ("a negative temperature", temperature(-0.1), vec!["temperature"]),
        ("temperature NaN", temperature(f64::NAN), vec!["temperature"]),
        ("an infinite temperature", temperature(f64::INFINITY), vec!["temperature"]),
        ("top_p 0", top_p(0.0), vec!["top_p", "more than 0 and at most 1"]),
        ("top_p above 1", top_p(1.01), vec!["top_p", "more than 0 and at most 1"]),
        ("top_p NaN", top_p(f64::NAN), vec!["top_p", "more than 0 and at most 1"]),
        ("threshold 1", threshold(1.0), vec!["threshold", "at least 0 and less than 1"]),
        ("a negative threshold", threshold(-0.5), vec!["threshold", "at least 0 and less than 1"]),
        ("threshold NaN", threshold(f64::NAN), vec!["threshold", "at least 0 and less than 1"]),
        ("an unknown rule", fusion(FusionOptions { rule: 77, ..Default::default() }), vec!["rule", "77"]),
        (
            "a negative weight",
            fusion(weights(&[("alto", 1.0), ("bass", -1.0), ("tenor", 1.0)])),
            vec!["weights", "bass"],
        ),
        (
            "weight NaN",
            fusion(weights(&[("alto", f64::NAN), ("bass", 1.0), ("tenor", 1.0)])),
            vec!["weights", "alto"],
        ),
        (
            "an infinite weight",
            fusion(weights(&[("alto", 1.0), ("bass", 1.0), ("tenor", f64::INFINITY)])),
            vec!["weights", "tenor"],
        ),
        (
            "weights all zero",
            fusion(weights(&[("alto", 0.0), ("bass", 0.0), ("tenor", 0.0)])),
            vec!["weights"],
        ),
        (
            "an unknown member",
            fusion(weights(&[("alto", 1.0), ("bass", 1.0), ("tenor", 1.0), ("viola", 1.0)])),
            vec!["weights", "viola"],
        ),
        (
            "weights for some members only",
            fusion(weights(&[("alto", 1.0)])),
            vec!["weights", "bass", "tenor"],
        ),
        (
            "sampling options with a vote",
            GenerateRequest {
                sampling: Some(SamplingOptions { temperature: Some(0.5), ..Default::default() }),
                ..fusion(vote())
            },
            vec!["temperature", "threshold_vote"],
        ),
        (
            "log-probabilities with a vote",
            GenerateRequest { log_probs: true, ..fusion(vote()) },
            vec!["log_probs", "threshold_vote"],
        ),
    ]
}

fn check(what: &str, error: &Status, words: &[&str]) {
    assert_eq!(error.code(), Code::InvalidArgument, "{what}: {error}");
    for word in words {
        assert!(error.message().contains(word), "{what}: '{}' does not say '{word}'", error.message());
    }
    assert!(!error.message().contains('\n'), "{what}: one sentence, not '{}'", error.message());
}

const LIMITS: &str =
    "[limits]\nmax_input_tokens = 2000\nmax_input_bytes = 20000\nmax_generated_tokens = 4096\n";

async fn healthy_answer(client: &mut EnsembleClient) -> (String, u64) {
    let request = GenerateRequest {
        prompt: text_input("ROMEO:\n"),
        max_tokens: Some(20),
        sampling: Some(SamplingOptions { seed: Some(11), ..Default::default() }),
        ..Default::default()
    };
    let text = joined_text(&generate(client, request).await.expect("a good request is served"));
    let score = score_text(client, "But soft!").await.expect("a good request is served");
    assert_eq!(
        score.participation.expect("named").participants.len(),
        3,
        "nobody was blamed for a caller's mistake"
    );
    (text, score.log_prob.expect("a distribution").to_bits())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_requests_are_refused_clearly_and_harm_nobody() {
    let ensemble = Ensemble::demo(LIMITS).await;
    let mut client = ensemble.client().await;
    let before = healthy_answer(&mut client).await;
    for (what, request, words) in generate_table() {
        let error = generate(&mut client, request).await.expect_err(what);
        check(what, &error, &words);
    }
    for (what, request, words) in [
        ("an empty text", ScoreRequest { input: text_input(""), ..Default::default() }, vec!["input"]),
        (
            "an id beyond the vocabulary",
            ScoreRequest { input: ids(&[700]), ..Default::default() },
            vec!["input", "511"],
        ),
        (
            "an unknown rule",
            ScoreRequest {
                input: text_input("a"),
                fusion: Some(FusionOptions { rule: -3, ..Default::default() }),
                ..Default::default()
            },
            vec!["rule", "-3"],
        ),
    ] {
        check(what, &client.score(request).await.expect_err(what), &words);
    }
    for (what, request, words) in [
        ("an empty prefix", PredictRequest { prefix: text_input(""), ..Default::default() }, vec!["prefix"]),
        (
            "top_n 0",
            PredictRequest { prefix: text_input("a"), top_n: Some(0), ..Default::default() },
            vec!["top_n"],
        ),
        (
            "huge top_n",
            PredictRequest { prefix: text_input("a"), top_n: Some(1 << 30), ..Default::default() },
            vec!["top_n"],
        ),
    ] {
        check(what, &client.predict(request).await.expect_err(what), &words);
    }
    // Too long even to be read: the sentence must not be the library's.
    let endless = ScoreRequest { input: text_input(&"a".repeat(12 << 20)), ..Default::default() };
    check(
        "a request of 12 MiB",
        &client.score(endless).await.expect_err("too long"),
        &["request", "limits.max_input_bytes"],
    );
    assert_eq!(healthy_answer(&mut client).await, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_that_hang_up_or_never_read_leave_nothing_behind() {
    let ensemble = Ensemble::demo("[limits]\nmax_sessions = 8\n").await;
    let mut client = ensemble.client().await;
    let before = healthy_answer(&mut client).await;
    let endless = GenerateRequest { max_tokens: Some(4096), ..valid() };
    for _ in 0..20 {
        // Hangs up after the first token.
        let mut own = ensemble.client().await;
        let mut stream = own.generate(endless.clone()).await.expect("accepted").into_inner();
        stream.message().await.expect("served").expect("a token");
        drop(stream);
        chorus_tests::until("the session is given back", || {
            let mut client = client.clone();
            async move {
                client.status(chorus_proto::v1::StatusRequest {}).await.expect("served").into_inner().sessions
                    == 0
            }
        })
        .await;
    }
    // Never reads: its stream fills up while another caller is served.
    let mut lazy = ensemble.client().await;
    let unread = lazy.generate(endless.clone()).await.expect("accepted").into_inner();
    assert_eq!(healthy_answer(&mut client).await, before);
    drop(unread);
}

/// Calls that begin and never send their message take no place from those that do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_without_their_message_take_no_place() {
    let ensemble = Ensemble::demo("[limits]\nmax_sessions = 2\n").await;
    let mut client = ensemble.client().await;
    let before = healthy_answer(&mut client).await;
    let mut waiting = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let mut call = tonic::client::Grpc::new(ensemble.channel().await);
        waiting.spawn(async move {
            call.ready().await.expect("it listens");
            let silent = tonic::Request::new(futures::stream::pending::<ScoreRequest>());
            let path = "/chorus.v1.Ensemble/Score".parse().expect("a path");
            let codec = tonic_prost::ProstCodec::<ScoreRequest, ScoreReply>::default();
            call.client_streaming(silent, path, codec).await.map(tonic::Response::into_inner)
        });
    }
    for _ in 0..5 {
        assert_eq!(healthy_answer(&mut client).await, before);
    }
    assert!(waiting.try_join_next().is_none(), "they are neither answered nor refused");
}

/// Callers who send nonsense of every kind, again and again, cost those beside them no token.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_requests_beside_a_good_load_change_no_token_of_it() {
    use tokio::{io::AsyncWriteExt as _, net::TcpStream};
    const TOKENS: u32 = 300;
    let ensemble = Ensemble::demo(LIMITS).await;
    let client = ensemble.client().await;
    let expected = texts(&client, TOKENS).await;
    let mut nuisances = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let mut client = ensemble.client().await;
        nuisances.spawn(async move {
            loop {
                for (what, request, words) in generate_table() {
                    check(what, &generate(&mut client, request).await.expect_err(what), &words);
                }
                let endless = ScoreRequest { input: text_input(&"a".repeat(12 << 20)), ..Default::default() };
                client.score(endless).await.expect_err("too long");
                let mut stream = client.generate(valid()).await.expect("accepted").into_inner();
                stream.message().await.expect("served");
            }
        });
    }
    for address in [ensemble.address, ensemble.members[0].address] {
        nuisances.spawn(async move {
            for length in (0..).map(|number| number * 37 % 4096) {
                let mut socket = TcpStream::connect(address).await.expect("it listens");
                // The other end may have seen enough.
                socket.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.ok();
                socket.write_all(&vec![length as u8; length]).await.ok();
            }
        });
    }
    let running = Running::start(&client, TOKENS);
    running.finish().await.assert_whole(&expected);
    assert!(nuisances.try_join_next().is_none(), "each went on to the end and got what it deserves");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_a_request_and_plain_garbage_do_not_harm_the_port() {
    use tokio::{io::AsyncWriteExt as _, net::TcpStream};
    let ensemble = Ensemble::demo("").await;
    let mut client = ensemble.client().await;
    let before = healthy_answer(&mut client).await;
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let garbage: [&[u8]; 4] = [b"", b"GET / HTTP/1.1\r\n\r\n", &[0xff; 4096], &preface[..10]];
    for address in [ensemble.address, ensemble.members[0].address] {
        for bytes in garbage {
            let mut socket = TcpStream::connect(address).await.expect("it listens");
            socket.write_all(bytes).await.expect("it takes the bytes");
            drop(socket);
        }
        // The HTTP/2 preface, then half a frame, then silence and a reset.
        let mut socket = TcpStream::connect(address).await.expect("it listens");
        socket.write_all(preface).await.expect("it takes the preface");
        socket.write_all(&[0, 0, 40, 1, 4, 0, 0]).await.expect("it takes half a frame");
        drop(socket);
    }
    assert_eq!(healthy_answer(&mut client).await, before);
}
