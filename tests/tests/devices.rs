//! Workers on a device behind a coordinator: an emulated one, whose kernels are those of a GPU. The ensemble answers what it answers on
//! processors, and both kinds of workers take sessions over from each other.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use chorus_proto::v1::{GenerateRequest, SamplingOptions};
use chorus_tests::{
    Chorus, Ensemble, MemberProcess, PATIENT, clients::EnsembleClient, generate, joined_text, models,
    score_text, text_input,
};

/// A worker of a demo member on a device.
fn worker(name: &str, device: &str) -> MemberProcess {
    let model = models::demo(name);
    let started = Chorus::start([
        "worker".as_ref(),
        "--model".as_ref(),
        model.as_os_str(),
        "--device".as_ref(),
        device.as_ref(),
    ]);
    MemberProcess::of(name, &model, started)
}

async fn ensemble(devices: [&str; 3]) -> Ensemble {
    let workers = models::DEMO.into_iter().zip(devices).map(|(name, device)| worker(name, device));
    let ensemble = Ensemble::over(workers.collect(), PATIENT);
    ensemble.until_up(3).await;
    ensemble
}

fn request(greedy: bool, max_tokens: u32) -> GenerateRequest {
    let sampling = if greedy {
        SamplingOptions { temperature: Some(0.0), ..SamplingOptions::default() }
    } else {
        SamplingOptions { seed: Some(7), ..SamplingOptions::default() }
    };
    GenerateRequest {
        prompt: text_input("ROMEO: But soft, what"),
        max_tokens: Some(max_tokens),
        sampling: Some(sampling),
        ..GenerateRequest::default()
    }
}

async fn text(client: &mut EnsembleClient, request: GenerateRequest) -> String {
    joined_text(&generate(client, request).await.unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ensemble_on_devices_answers_what_it_answers_on_processors() {
    let (processors, devices) = (ensemble(["cpu"; 3]).await, ensemble(["emulated"; 3]).await);
    let (mut expected, mut found) = (processors.client().await, devices.client().await);
    for greedy in [true, false] {
        let asked = request(greedy, 16);
        assert_eq!(text(&mut found, asked.clone()).await, text(&mut expected, asked).await);
    }
    let scored = "O Romeo, Romeo! wherefore art thou Romeo?";
    let (expected, found) =
        (score_text(&mut expected, scored).await.unwrap(), score_text(&mut found, scored).await.unwrap());
    assert!((found.log_prob.unwrap() / expected.log_prob.unwrap() - 1.0).abs() < 1e-5, "{found:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_processor_goes_on_where_a_device_was_lost() {
    let undisturbed = ensemble(["cpu"; 3]).await;
    let expected = text(&mut undisturbed.client().await, request(true, 60)).await;
    let others = ["bass", "tenor"].map(|name| worker(name, "cpu"));
    let workers = [worker("alto", "emulated"), worker("alto", "cpu")].into_iter().chain(others).collect();
    let mut ensemble = Ensemble::over(workers, PATIENT);
    ensemble.until_replicas_up(4).await;
    let mut client = ensemble.client().await;
    let mut stream = client.generate(request(true, 60)).await.unwrap().into_inner();
    let mut found = String::new();
    while let Some(reply) = stream.message().await.unwrap() {
        assert!(reply.participation.unwrap().missing.is_empty(), "nobody is missed");
        found += &reply.text;
        if found.len() > 20 {
            // The one that has the session, or the one that does not: once each way is enough of both.
            ensemble.members[0].kill();
        }
    }
    assert_eq!(found, expected);
}
