//! Metrics of this process for Prometheus, at `http://IP:PORT/metrics`.
//!
//! Knows nothing about what is counted, but how finely: a histogram has fixed bounds. Without them the exporter would make it a
//! summary, whose quantiles can't be added up over processes.

use std::{net::SocketAddr, time::Duration};

use anyhow::Context as _;
use axum::{Router, http::header::CONTENT_TYPE, routing::get};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tokio::time::{MissedTickBehavior, interval};

use super::{announce_as, background::Background, listen};

/// What stands before the address of the metrics, in a line before the one that says where the server listens.
const METRICS_LISTENING: &str = "metrics listening on ";

/// Bounds of every histogram of seconds. A step of a small ensemble takes 50 µs and a forward less, a request in the line up to
/// a minute: four in a decade where steps are, two where requests are.
const SECONDS: [f64; 21] = [
    0.000_025, 0.000_05, 0.000_1, 0.000_2, 0.000_35, 0.000_6, 0.001, 0.002, 0.003_5, 0.006, 0.01, 0.02,
    0.035, 0.06, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 60.0,
];
/// Of sizes of snapshots: a demo member has 3.5 KiB, an LSTM with two layers of 1,500 units 24 KiB.
const BYTES: [f64; 11] =
    [256.0, 1024.0, 2048.0, 4096.0, 8192.0, 16_384.0, 32_768.0, 65_536.0, 131_072.0, 262_144.0, 1_048_576.0];
/// Of sessions and tokens in a forward: one, and up to the default's 192.
const BATCHES: [f64; 12] = [1.0, 2.0, 4.0, 6.0, 8.0, 12.0, 16.0, 32.0, 64.0, 96.0, 192.0, 512.0];
/// Of members that take part.
const MEMBERS: [f64; 11] = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 12.0, 16.0, 32.0];
/// Of what a missing member costs: 1 is nothing.
const RATIOS: [f64; 12] = [0.99, 1.0, 1.005, 1.01, 1.02, 1.05, 1.1, 1.2, 1.5, 2.0, 5.0, 10.0];

/// Samples wait in memory until somebody looks at them; this often they become counts at the latest.
const UPKEEP: Duration = Duration::from_secs(5);

/// Counts from now on, and serves what is counted on threads where that holds up no step.
///
/// # Errors
/// The address can't be listened on.
pub(super) async fn serve(address: SocketAddr, background: &Background) -> anyhow::Result<()> {
    let listener = listen(address).await.context("can't serve metrics")?;
    announce_as(METRICS_LISTENING, "", &listener)?;
    let listener = listener.into_std().context("can't serve metrics")?;
    let metrics = install()?;
    background.spawn(async move {
        let served = match tokio::net::TcpListener::from_std(listener) {
            Ok(listener) => axum::serve(listener, router(metrics.clone())).await,
            Err(error) => Err(error),
        };
        if let Err(error) = served {
            tracing::error!(%error, "metrics are not served any more");
        }
    });
    Ok(())
}

fn install() -> anyhow::Result<PrometheusHandle> {
    builder()?.install_recorder().context("can't count metrics")
}

fn builder() -> anyhow::Result<PrometheusBuilder> {
    let exact = |name: &str| Matcher::Full(name.to_owned());
    let mut builder = PrometheusBuilder::new();
    for (metrics, bounds) in [
        (Matcher::Suffix("_seconds".to_owned()), &SECONDS[..]),
        (Matcher::Suffix("_bytes".to_owned()), &BYTES),
        (Matcher::Suffix("_ratio".to_owned()), &RATIOS),
        (Matcher::Prefix("chorus_worker_batch_".to_owned()), &BATCHES),
        (exact("chorus_participants"), &MEMBERS),
    ] {
        builder = builder.set_buckets_for_metric(metrics, bounds).context("bounds of a histogram")?;
    }
    Ok(builder)
}

fn router(metrics: PrometheusHandle) -> Router {
    let upkeep = metrics.clone();
    tokio::spawn(async move {
        let mut ticks = interval(UPKEEP);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            upkeep.run_upkeep();
        }
    });
    let render = move || {
        let text = metrics.render();
        async move { ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text) }
    };
    Router::new().route("/metrics", get(render))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_ascend_and_every_histogram_of_the_program_has_some() {
        for bounds in [&SECONDS[..], &BYTES, &BATCHES, &MEMBERS, &RATIOS] {
            assert!(bounds.is_sorted_by(|one, next| one < next));
        }
        let recorder = builder().unwrap().build_recorder();
        let names = [
            "chorus_step_seconds",
            "chorus_member_snapshot_bytes",
            "chorus_expected_perplexity_ratio",
            "chorus_worker_batch_rows",
            "chorus_worker_batch_tokens",
            "chorus_participants",
        ];
        metrics::with_local_recorder(&recorder, || {
            names.into_iter().for_each(|name| metrics::histogram!(name).record(1.0));
        });
        let rendered = recorder.handle().render();
        for name in names {
            assert!(rendered.contains(&format!("# TYPE {name} histogram")), "{name} in {rendered}");
        }
    }
}
