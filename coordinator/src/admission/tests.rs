//! The shell: what tasks that wait hear, and what is counted of it.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::future::pending;

use metrics_exporter_prometheus::PrometheusBuilder;
use tonic::transport::server::TcpConnectInfo;
use tonic::{Code, Request};

use super::*;

fn admission(max_sessions: u32, max_waiting: u32) -> Arc<Admission> {
    let limits = Limits { max_sessions, max_waiting, ..Limits::default() };
    Admission::new(&limits, CancellationToken::new())
}

fn caller(address: &str) -> Caller {
    let mut request = Request::new(());
    let remote_addr = Some(format!("{address}:1").parse().unwrap());
    request.extensions_mut().insert(TcpConnectInfo { local_addr: None, remote_addr });
    Caller::of(&request)
}

#[tokio::test]
async fn a_request_is_displaced_while_it_is_still_being_checked() {
    let admission = admission(1, 2);
    let _running = admission.arrive(caller("192.0.2.1")).unwrap().enter(1).await.unwrap();
    let mut flood = [1, 2].map(|_| admission.arrive(caller("192.0.2.1")).unwrap());
    let [first, second] = &mut flood;
    let checks = async {
        tokio::select! {
            _ = first.checked(pending::<Result<(), Status>>()) => panic!("the older one stays"),
            displaced = second.checked(pending::<Result<(), Status>>()) => displaced.unwrap_err(),
        }
    };
    let newcomer = async {
        tokio::task::yield_now().await;
        admission.arrive(caller("192.0.2.2")).unwrap()
    };
    let (error, _newcomer) = tokio::join!(checks, newcomer);
    assert_eq!(error.code(), Code::ResourceExhausted);
    assert!(error.message().contains("most of them of this caller"), "{}", error.message());
    // Its end changes nothing for those that are left.
    drop(flood);
    assert_eq!((admission.in_progress(), admission.waiting()), (1, 1));
}

#[tokio::test]
async fn a_place_that_was_given_to_somebody_who_hangs_up_goes_to_the_next() {
    let admission = admission(1, 2);
    let running = admission.arrive(caller("192.0.2.1")).unwrap().enter(1).await.unwrap();
    let mut gone = Box::pin(admission.arrive(caller("192.0.2.1")).unwrap().enter(1));
    let mut next = Box::pin(admission.arrive(caller("192.0.2.1")).unwrap().enter(1));
    assert!(futures::poll!(&mut gone).is_pending() && futures::poll!(&mut next).is_pending());
    drop(running);
    // It has been told, and hangs up before it hears it.
    drop(gone);
    let place = next.await.unwrap();
    assert_eq!((admission.in_progress(), admission.waiting()), (1, 0));
    drop(place);
    admission.idle().await;
}

#[tokio::test]
async fn who_waits_and_who_is_turned_away_is_counted() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let admission = metrics::with_local_recorder(&recorder, || admission(1, 1));
    let _running = admission.arrive(caller("192.0.2.1")).unwrap().enter(7).await.unwrap();
    let _waiting = admission.arrive(caller("192.0.2.1")).unwrap();
    for _ in 0..2 {
        assert!(admission.arrive(caller("192.0.2.1")).is_err());
    }
    admission.draining.cancel();
    assert!(admission.arrive(caller("192.0.2.1")).is_err());
    let rendered = recorder.handle().render();
    for line in [
        "chorus_requests_in_progress 1",
        "chorus_tokens_in_progress 7",
        "chorus_requests_waiting 1",
        "chorus_request_wait_seconds_count 1",
        "chorus_requests_refused_total{reason=\"line_full\"} 2",
        "chorus_requests_refused_total{reason=\"displaced\"} 0",
        "chorus_requests_refused_total{reason=\"draining\"} 1",
    ] {
        assert!(rendered.lines().any(|rendered| rendered == line), "{line} in {rendered}");
    }
}
