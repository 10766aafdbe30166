//! The service in this process, behind its gate: its calls are seen as those are that come in over gRPC.

use chorus_proto::v1::ensemble_server::Ensemble as _;
use metrics_exporter_prometheus::PrometheusBuilder;

use super::*;
use crate::security::{Scope, Security};
use crate::service::GuardedService;
use crate::telemetry::Requests;

#[tokio::test]
async fn its_calls_are_counted_by_method_and_code() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let _recording = metrics::set_default_local_recorder(&recorder);
    let stage = Stage::new("").await;
    let gate = Security::default().gate(Scope::Read);
    let guarded = GuardedService::new(stage.service.clone(), gate, Arc::new(Requests::new()));
    let scoring = ScoreRequest { input: ids(&[1, 2, 3]), ..ScoreRequest::default() };
    guarded.score(Request::new(scoring)).await.unwrap();
    guarded.score(Request::new(ScoreRequest::default())).await.unwrap_err();
    let stream = guarded.generate(Request::new(request(&[1], 3, 7))).await.unwrap().into_inner();
    let replies: Vec<_> = stream.collect().await;
    assert_eq!(replies.len(), 4);
    let rendered = recorder.handle().render();
    for (method, code) in [("score", "ok"), ("score", "invalid_argument"), ("generate", "ok")] {
        let line = format!("chorus_request_seconds_count{{method=\"{method}\",code=\"{code}\"}} 1");
        assert!(rendered.contains(&line), "{line} in {rendered}");
    }
}
