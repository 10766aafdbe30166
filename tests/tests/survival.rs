//! Workers are killed for real, hang for real and come back; answers go on and say who took part.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::time::Duration;

use chorus_proto::v1::{GenerateReply, GenerateRequest, SamplingOptions, generation_end::Reason};
use chorus_tests::{Ensemble, clients::EnsembleClient, generate, score_text, text_input};
use futures::future::join_all;
use tokio::sync::mpsc;
use tonic::Code;

const GENERATIONS: u64 = 50;

fn request(seed: u64, max_tokens: u32) -> GenerateRequest {
    GenerateRequest {
        prompt: text_input("ROMEO:\n"),
        max_tokens: Some(max_tokens),
        sampling: Some(SamplingOptions { seed: Some(seed), ..Default::default() }),
        ..Default::default()
    }
}

fn participants(reply: &GenerateReply) -> &[String] {
    &reply.participation.as_ref().expect("every message names its participants").participants
}

/// Runs a generation and tells how many tokens have come so far.
async fn watched(
    mut client: EnsembleClient,
    request: GenerateRequest,
    progress: mpsc::UnboundedSender<u64>,
) -> Vec<GenerateReply> {
    let seed = request.sampling.as_ref().and_then(|sampling| sampling.seed).unwrap_or_default();
    let mut stream = client.generate(request).await.expect("accepted").into_inner();
    let mut replies = Vec::new();
    while let Some(reply) = stream.message().await.expect("no generation fails") {
        replies.push(reply);
        progress.send(seed).ok();
    }
    replies
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_killed_under_fifty_generations_fails_none_and_is_taken_back_in() {
    let mut ensemble = Ensemble::demo("").await;
    let client = ensemble.client().await;
    let (progress, mut seen) = mpsc::unbounded_channel();
    let running = (0..GENERATIONS).map(|seed| {
        // Long enough that the killed worker is back before the last of them ends.
        tokio::spawn(watched(client.clone(), request(seed, 1500), progress.clone()))
    });
    let running: Vec<_> = running.collect();

    // Every generation is in the middle of its text when the worker dies.
    let mut counts = vec![0; GENERATIONS as usize];
    while counts.iter().any(|count| *count < 5) {
        let seed = seen.recv().await.expect("generations go on");
        counts[seed as usize] += 1;
    }
    let lost = ensemble.members[1].name.clone();
    ensemble.members[1].kill();
    ensemble.members[1].start_again();

    let finished: Vec<_> = join_all(running).await.into_iter().map(|task| task.expect("no panic")).collect();
    for replies in &finished {
        let end = replies.last().and_then(|reply| reply.end.as_ref()).expect("a last message that ends");
        assert_eq!((end.reason(), end.generated_tokens), (Reason::MaxTokens, 1500));
        let indices: Vec<u32> =
            replies.iter().filter_map(|reply| reply.token.as_ref()).map(|t| t.index).collect();
        assert_eq!(indices, (0..1500).collect::<Vec<u32>>(), "no token is lost or sent twice");

        let whole = |reply: &&GenerateReply| participants(reply).len() == 3;
        let tokens: Vec<_> = replies.iter().filter(|reply| reply.token.is_some()).collect();
        let before = tokens.iter().take_while(|reply| whole(reply)).count();
        let without = tokens[before..].iter().take_while(|reply| !whole(reply)).count();
        assert!(before >= 5, "all three took part at first");
        assert!(without >= 1, "the loss shows in the messages");
        for reply in &tokens[before..before + without] {
            assert!(!participants(reply).contains(&lost));
            let missing = &reply.participation.as_ref().expect("present").missing;
            assert_eq!(missing.iter().map(|m| m.name.as_str()).collect::<Vec<_>>(), [lost.as_str()]);
            assert!(!missing[0].reason.is_empty(), "the reason is said");
        }
        assert!(before + without < tokens.len(), "the member took part again before the end");
        assert!(whole(&tokens[tokens.len() - 1]));
    }
    ensemble.until_up(3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn below_quorum_the_answer_is_unavailable_and_names_who_is_missing() {
    let mut ensemble = Ensemble::demo("[quorum]\nmembers = 2\n").await;
    let mut client = ensemble.client().await;
    ensemble.members[0].kill();
    let reply = score_text(&mut client, "Speak, speak.").await.expect("two of three are a quorum");
    assert_eq!(reply.participation.expect("named").participants.len(), 2);

    ensemble.members[2].kill();
    let error = score_text(&mut client, "Speak, speak.").await.expect_err("one of three is none");
    assert_eq!(error.code(), Code::Unavailable);
    for index in [0, 2] {
        assert!(error.message().contains(&ensemble.members[index].name), "{}", error.message());
    }
    let error = generate(&mut client, request(1, 4)).await.expect_err("nor for a generation");
    assert_eq!(error.code(), Code::Unavailable);

    ensemble.members[0].start_again();
    ensemble.members[2].start_again();
    ensemble.until_up(3).await;
    let reply = score_text(&mut client, "Speak, speak.").await.expect("it serves again");
    assert_eq!(reply.participation.expect("named").participants.len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_generation_that_falls_below_quorum_ends_with_unavailable() {
    let mut ensemble = Ensemble::demo("[quorum]\nmembers = 3\n").await;
    let mut client = ensemble.client().await;
    let mut stream = client.generate(request(1, 4000)).await.expect("accepted").into_inner();
    stream.message().await.expect("it goes on").expect("a first token");
    ensemble.members[1].kill();
    let error = loop {
        match stream.message().await {
            Ok(reply) => assert!(reply.expect("it does not end well").end.is_none()),
            Err(error) => break error,
        }
    };
    assert_eq!(error.code(), Code::Unavailable);
    assert!(error.message().contains(&ensemble.members[1].name), "{}", error.message());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_hangs_is_left_out_after_the_step_deadline() {
    leaves_out_a_worker_that_hangs("[limits]\nstep_timeout_ms = 300\n", "no answer within").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_of_which_nothing_is_heard_is_left_out_long_before_the_step_deadline() {
    let config = "[limits]\nstep_timeout_ms = 60_000\n[resilience]\ndegrade_after_ms = 300\n";
    leaves_out_a_worker_that_hangs(config, "nothing has come from it for").await;
}

async fn leaves_out_a_worker_that_hangs(config: &str, expected_reason: &str) {
    let ensemble = Ensemble::demo(config).await;
    let mut client = ensemble.client().await;
    let mut stream = client.generate(request(3, 400)).await.expect("accepted").into_inner();
    stream.message().await.expect("it goes on").expect("a first token");
    ensemble.members[0].freeze();
    let (mut is_over, mut reasons) = (false, Vec::new());
    while let Some(reply) = stream.message().await.expect("the generation goes on") {
        is_over = reply.end.is_some();
        let missing = reply.participation.expect("named").missing;
        let frozen = missing.into_iter().filter(|member| member.name == ensemble.members[0].name);
        reasons.extend(frozen.map(|member| member.reason));
    }
    assert!(is_over);
    assert!(reasons.iter().any(|reason| reason.contains(expected_reason)), "{:?}", reasons.first());

    ensemble.members[0].thaw();
    ensemble.until_up(3).await;
    tokio::time::timeout(Duration::from_secs(60), async {
        while score_text(&mut client, "Peace!")
            .await
            .expect("served")
            .participation
            .expect("named")
            .participants
            .len()
            < 3
        {}
    })
    .await
    .expect("the member takes part again");
}
