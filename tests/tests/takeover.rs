//! Members with two replicas: workers are killed, frozen and restarted under generations, and nothing of it shows.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use chorus_tests::{
    Ensemble, Running,
    clients::{EnsembleClient, recovery},
    metrics::total,
    running::texts,
    score_text,
};
use tonic::transport::Channel;

/// Without hedges, nor by silence where the machine is busy with something else, so that what is counted is what was lost.
const NO_HEDGES: &str = "[resilience]\nhedge_share = 0.0\nsilence_ms = 60000\n";
const SNAPSHOT_TOKENS: u64 = 16;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_replica_changes_no_token_and_costs_a_few() {
    let mut ensemble = Ensemble::demo_in_twos(NO_HEDGES).await;
    let mut client = ensemble.client().await;
    let expected = texts(&client, 300).await;
    let mut running = Running::start(&client, 300);
    running.until_each_has(30).await;
    // One replica of every member.
    ensemble.members[..3].iter_mut().for_each(chorus_tests::MemberProcess::kill);
    running.finish().await.assert_whole(&expected);

    let recovery = recovery(&mut client).await;
    assert!(recovery.takeovers >= 3, "{recovery:?}");
    assert!(recovery.recomputed_tokens < recovery.takeovers * SNAPSHOT_TOKENS, "{recovery:?}");
    let counted = total(ensemble.metrics, "chorus_member_takeovers_total").await;
    assert_eq!(counted, recovery.takeovers as f64);
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
    running.finish().await.assert_whole(&expected);
    let recovery = recovery(&mut client).await;
    assert!(recovery.hedges_won >= 1, "{recovery:?}");
    let counted = total(ensemble.metrics, "chorus_member_hedges_won_total").await;
    assert!(counted >= recovery.hedges_won as f64, "{counted} after {recovery:?}");
    let hedges = total(ensemble.metrics, "chorus_member_hedges_total").await;
    assert!(hedges >= counted, "{hedges} hedges, {counted} of them won");
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
    running.finish().await.assert_whole(&expected);
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
    assert_eq!(here, there);
}
