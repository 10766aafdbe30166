//! Workers whose weights are quantised: on the way, or before.

use std::{error::Error, iter::successors};

use chorus_model::{ModelParts, WeightType};
use chorus_proto::v1::ErrorCode;
use chorus_worker::{Precision, Quantization, WorkerConfig};
use tempfile::TempDir;

use crate::{
    handover::{open_at, with_snapshot},
    harness::{Worker, failure, feed, next, nothing, open, values},
    models,
};

/// A small model with rows that are long enough for q8_0.
fn original() -> TempDir {
    let directory = TempDir::new().unwrap();
    let sizes = models::config(models::VOCABULARY);
    models::write(
        directory.path(),
        chorus_model::Config { embedding_size: Some(32), hidden_size: 64, ..sizes },
    );
    directory
}

fn quantized() -> TempDir {
    let (original, directory) = (original(), TempDir::new().unwrap());
    let parts = ModelParts::load(original.path()).unwrap().quantize(Quantization::Q8_0).unwrap();
    parts.save(directory.path(), WeightType::F32).unwrap();
    directory
}

/// Only the CPU has kernels for blocks.
fn on_the_cpu(config: &mut WorkerConfig) {
    config.device = "cpu".to_owned();
}

/// The error with its causes, as the command line prints it.
fn refusal(config: WorkerConfig) -> String {
    let error = chorus_worker::load(config).unwrap_err();
    let causes = successors(Some(&error as &dyn Error), |error| (*error).source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// Replicas of one member may be of both kinds.
#[tokio::test]
async fn quantised_on_the_way_or_before_it_is_the_same_model() {
    let on_the_way = Worker::start_on(original(), |config| config.quantize = Some(Quantization::Q8_0)).await;
    let before = Worker::start_on(quantized(), on_the_cpu).await;
    let (mut first, mut second) = (on_the_way.attach().await, before.attach().await);
    first.send([open(1)]);
    let snapshot = first.ask(with_snapshot(feed(1, 1, &[3, 4, 5], nothing()))).await.snapshot.unwrap();
    assert!(snapshot.model_fingerprint.ends_with(" q8_0"), "{}", snapshot.model_fingerprint);
    second.send([open_at(7, snapshot)]);
    let there = second.ask(feed(7, 1, &[6], next())).await;
    let here = first.ask(feed(1, 2, &[6], next())).await;
    assert_eq!(values(&there, 1), values(&here, 1));
}

#[tokio::test]
async fn the_original_is_another_model() {
    let (exact, coarse) =
        (Worker::start_on(original(), on_the_cpu).await, Worker::start_on(quantized(), on_the_cpu).await);
    let (mut exact, mut coarse) = (exact.attach().await, coarse.attach().await);
    exact.send([open(1)]);
    let snapshot = exact.ask(with_snapshot(feed(1, 1, &[3], nothing()))).await.snapshot.unwrap();
    let answer = coarse.ask(open_at(1, snapshot)).await;
    let (code, message) = failure(&answer);
    assert_eq!(code, ErrorCode::InvalidArgument);
    assert!(message.contains("f32") && message.contains("q8_0"), "{message}");
}

#[test]
fn the_card_tells_people_how_it_is_quantised() {
    let (original, quantized) = (original(), quantized());
    let device = |config| chorus_worker::load(config).unwrap().card().device.clone();
    assert_eq!(device(WorkerConfig::new(original.path())), "cpu");
    assert_eq!(device(WorkerConfig::new(quantized.path())), "cpu (q8_0)");
}

#[test]
fn what_fits_no_quantised_model_is_refused_with_the_reason() {
    let (original, quantized) = (original(), quantized());
    let config = WorkerConfig { quantize: Some(Quantization::Q4K), ..WorkerConfig::new(original.path()) };
    let message = refusal(config);
    assert!(message.contains("rows of 64 numbers; q4k has blocks of 256"), "{message}");
    assert!(message.ends_with("Possible for this model: q8_0, f16, bf16"), "{message}");
    let config = WorkerConfig { quantize: Some(Quantization::Q8_0), ..WorkerConfig::new(quantized.path()) };
    assert!(refusal(config).ends_with("the model is quantised already, as q8_0: quantise the original"));
    let config = WorkerConfig { precision: Precision::Int8, ..WorkerConfig::new(quantized.path()) };
    let message = refusal(config);
    assert!(message.contains("its weights are quantised as q8_0, so precision int8 has none"), "{message}");
}
