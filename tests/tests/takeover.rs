//! Members with two replicas: workers are killed, frozen and restarted under generations, and nothing of it shows.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use chorus_proto::v1::{GenerateReply, GenerateRequest, SamplingOptions};
use chorus_tests::{
    Ensemble,
    clients::{EnsembleClient, recovery},
    generate, joined_text, score_text, text_input,
};
use futures::future::join_all;
use tokio::{sync::mpsc, task::JoinHandle};
use tonic::transport::Channel;

const GENERATIONS: u64 = 24;
/// Without hedges, nor by silence where the machine is busy with something else, so that what is counted is what was lost.
const NO_HEDGES: &str = "[resilience]\nhedge_share = 0.0\nsilence_ms = 60000\n";
const SNAPSHOT_TOKENS: u64 = 16;

/// Whole distributions are fused for half of the seeds, and one member draws for the others.
fn request(seed: u64, max_tokens: u32) -> GenerateRequest {
    GenerateRequest {
        prompt: text_input("ROMEO:\n"),
        max_tokens: Some(max_tokens),
        sampling: Some(SamplingOptions { seed: Some(seed), ..Default::default() }),
        log_probs: seed.is_multiple_of(2),
        ..Default::default()
    }
}

/// Every member took part in every token.
fn assert_whole(replies: &[GenerateReply]) {
    for reply in replies {
        let participation = reply.participation.as_ref().expect("named");
        assert!(participation.missing.is_empty(), "{participation:?}");
    }
}

/// What every seed generates.
async fn texts(client: &EnsembleClient, max_tokens: u32) -> Vec<String> {
    let each = (0..GENERATIONS).map(|seed| {
        let mut client = client.clone();
        async move {
            let replies = generate(&mut client, request(seed, max_tokens)).await.expect("served");
            assert_whole(&replies);
            joined_text(&replies)
        }
    });
    join_all(each).await
}

/// Compares texts without printing all of them.
fn assert_same(texts: &[String], expected: &[String]) {
    for (seed, (text, expected)) in texts.iter().zip(expected).enumerate() {
        let same = text.bytes().zip(expected.bytes()).take_while(|(one, other)| one == other).count();
        let length = expected.len();
        assert!(text == expected, "seed {seed}: only the first {same} bytes of {length} are the same");
    }
}

/// Generations in progress, each of which tells its seed with every token.
struct Running {
    tasks: Vec<JoinHandle<Vec<GenerateReply>>>,
    progress: mpsc::UnboundedReceiver<u64>,
}

impl Running {
    fn start(client: &EnsembleClient, max_tokens: u32) -> Self {
        let (tell, progress) = mpsc::unbounded_channel();
        let task = |seed| {
            let (mut client, tell) = (client.clone(), tell.clone());
            tokio::spawn(async move {
                let request = request(seed, max_tokens);
                let mut stream = client.generate(request).await.expect("accepted").into_inner();
                let mut replies = Vec::new();
                while let Some(reply) = stream.message().await.expect("no generation fails") {
                    replies.push(reply);
                    tell.send(seed).ok();
                }
                replies
            })
        };
        Self { tasks: (0..GENERATIONS).map(task).collect(), progress }
    }

    /// Waits until every generation has come so many tokens further.
    async fn until_each_has(&mut self, tokens: usize) {
        let mut counts = [0; GENERATIONS as usize];
        while counts.iter().any(|count| *count < tokens) {
            counts[self.progress.recv().await.expect("they go on") as usize] += 1;
        }
    }

    /// Waits until all are done.
    async fn texts(self) -> Vec<String> {
        let mut texts = Vec::new();
        for task in self.tasks {
            let replies = task.await.expect("no panic");
            assert_whole(&replies);
            texts.push(joined_text(&replies));
        }
        texts
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_replica_changes_no_token_and_costs_a_few() {
    let mut ensemble = Ensemble::demo_in_twos(NO_HEDGES).await;
    let mut client = ensemble.client().await;
    let expected = texts(&client, 300).await;
    let mut running = Running::start(&client, 300);
    running.until_each_has(30).await;
    // One replica of every member.
    ensemble.members[..3].iter_mut().for_each(chorus_tests::MemberProcess::kill);
    assert_same(&running.texts().await, &expected);

    let recovery = recovery(&mut client).await;
    assert!(recovery.takeovers >= 3, "{recovery:?}");
    assert!(recovery.recomputed_tokens < recovery.takeovers * SNAPSHOT_TOKENS, "{recovery:?}");
    ensemble.members[..3].iter_mut().for_each(chorus_tests::MemberProcess::start_again);
    ensemble.until_replicas_up(6).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_replica_changes_no_token() {
    let ensemble = Ensemble::demo_in_twos("").await;
    let mut client = ensemble.client().await;
    let expected = texts(&client, 300).await;
    let mut running = Running::start(&client, 300);
    running.until_each_has(30).await;
    ensemble.members[1].freeze();
    assert_same(&running.texts().await, &expected);
    assert!(recovery(&mut client).await.hedges_won >= 1);
    ensemble.members[1].thaw();
    ensemble.until_replicas_up(6).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_of_every_worker_fails_nothing_and_computes_nothing_twice() {
    let mut ensemble = Ensemble::demo_in_twos(NO_HEDGES).await;
    let mut client = ensemble.client().await;
    let expected = texts(&client, 1500).await;
    let mut running = Running::start(&client, 1500);
    running.until_each_has(20).await;
    for worker in 0..6 {
        ensemble.members[worker].stop();
        ensemble.members[worker].start_again();
        ensemble.until_replicas_up(6).await;
        score_text(&mut client, "Speak, speak.").await.expect("it serves all the time");
    }
    assert_same(&running.texts().await, &expected);
    let recovery = recovery(&mut client).await;
    assert!(recovery.takeovers >= 6, "{recovery:?}");
    assert_eq!(recovery.recomputed_tokens, 0, "{recovery:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn coordinators_that_share_workers_do_not_know_of_each_other() {
    let ensemble = Ensemble::demo_in_twos("").await;
    let (_second, address) = ensemble.second_coordinator();
    let channel = Channel::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap();
    let (first, second) = (ensemble.client().await, EnsembleClient::new(channel));
    let up = || {
        let mut second = second.clone();
        async move { chorus_tests::clients::replicas_up(&mut second).await == 6 }
    };
    chorus_tests::until("the second coordinator is up", up).await;
    let (here, there) = tokio::join!(texts(&first, 200), texts(&second, 200));
    assert_same(&here, &there);
}
