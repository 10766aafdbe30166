//! A network link of a worker is taken down under generations, at either end, and up again.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::time::Instant;

use chorus_tests::{
    Ensemble, MemberProcess, Running,
    clients::recovery,
    models,
    namespace::{self, End, Link},
    running::{Noticed, texts},
};
use tokio::runtime::Builder;

const TOOLS: [&str; 3] = ["ip", "nsenter", "sh"];

/// Tokens of a generation: more than come before the link is down, and enough that it is noticed.
const TOKENS: u32 = 600;

/// One worker behind a link, the others on loopback.
async fn ensemble(replicas: usize) -> (Ensemble, Link) {
    namespace::command("ip link set lo up");
    let (link, worker) = Link::to_worker(models::DEMO[0]);
    let mut workers = vec![MemberProcess::of(models::DEMO[0], &models::demo(models::DEMO[0]), worker)];
    let others = models::DEMO.into_iter().cycle().take(3 * replicas).skip(1);
    workers.extend(others.map(|name| MemberProcess::start(name, &models::demo(name))));
    let ensemble = Ensemble::over(workers, "");
    ensemble.until_replicas_up(3 * replicas).await;
    (ensemble, link)
}

fn block_on(scenario: impl Future<Output = ()>) {
    Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(scenario);
}

/// Takes the link down at one end under generations and up again; what their callers noticed, after all are up again.
async fn without_link(ensemble: &Ensemble, link: &Link, end: End) -> Noticed {
    let mut client = ensemble.client().await;
    let replicas = ensemble.members.len();
    let before = recovery(&mut client).await;
    let mut running = Running::start(&client, TOKENS);
    running.until_each_has(30).await;
    link.set(end, false);
    let noticed = running.finish().await;
    let after = recovery(&mut client).await;
    let went_elsewhere = after.takeovers + after.hedges > before.takeovers + before.hedges;
    assert!(went_elsewhere || noticed.degraded > 0, "a link was down: {after:?}");
    link.set(end, true);
    let up = Instant::now();
    ensemble.until_replicas_up(replicas).await;
    let (whole, noticed_of_it) = (up.elapsed(), noticed.summary());
    println!(
        "{replicas} workers, link down at its {end:?} end: {noticed_of_it}, whole {whole:.1?} after it is up"
    );
    noticed
}

#[test]
fn a_link_that_goes_down_costs_no_request_and_no_token_where_there_is_another_replica() {
    let name = "a_link_that_goes_down_costs_no_request_and_no_token_where_there_is_another_replica";
    namespace::run(name, &TOOLS, || {
        block_on(async {
            let (ensemble, link) = ensemble(2).await;
            let expected = texts(&ensemble.client().await, TOKENS).await;
            for end in [End::Near, End::Far] {
                without_link(&ensemble, &link, end).await.assert_whole(&expected);
            }
        });
    });
}

#[test]
fn a_link_that_goes_down_costs_no_request_where_the_quorum_holds() {
    let name = "a_link_that_goes_down_costs_no_request_where_the_quorum_holds";
    namespace::run(name, &TOOLS, || {
        block_on(async {
            let (ensemble, link) = ensemble(1).await;
            for end in [End::Near, End::Far] {
                let noticed = without_link(&ensemble, &link, end).await;
                assert!(noticed.degraded > 0, "the only link was down");
                // Everybody takes part again.
                texts(&ensemble.client().await, 20).await;
            }
        });
    });
}
