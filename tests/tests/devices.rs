//! Workers on a device behind a coordinator: an emulated one, whose kernels are those of a GPU. The ensemble answers what it answers on
//! processors, and both kinds of workers take sessions over from each other.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use chorus_proto::v1::{GenerateRequest, SamplingOptions};
use chorus_tests::{
    Chorus, Ensemble, MemberProcess, PATIENT, Running,
    clients::{EnsembleClient, recovery},
    generate, joined_text, models,
    running::texts,
    score_text, text_input,
};

/// An emulated device takes seconds where a machine has much else to do.
const SLOW: &str = "[limits]\nstep_timeout_ms = 120000\n";

/// A worker of a demo member on a device.
fn worker(name: &str, device: &str) -> MemberProcess {
    let model = models::demo(name);
    let started = Chorus::start([
        "worker".as_ref(),
        "--model".as_ref(),
        model.as_os_str(),
        "--device".as_ref(),
        device.as_ref(),
        "--stuck-after".as_ref(),
        "120".as_ref(),
    ]);
    MemberProcess::of(name, &model, started)
}

async fn ensemble(devices: [&str; 3]) -> Ensemble {
    let workers = models::DEMO.into_iter().zip(devices).map(|(name, device)| worker(name, device));
    let ensemble = Ensemble::over(workers.collect(), &[PATIENT, SLOW].concat());
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

/// Of every kind that asks a member for something else, side by side: while a device is at some, others are answered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_generations_at_once_are_those_of_processors() {
    let (processors, devices) = (ensemble(["cpu"; 3]).await, ensemble(["emulated", "cpu", "cpu"]).await);
    let (expected, found) = (processors.client().await, devices.client().await);
    let kinds = [
        SamplingOptions { temperature: Some(0.0), ..SamplingOptions::default() },
        SamplingOptions::default(),
        SamplingOptions { temperature: Some(0.8), top_p: Some(0.9), ..SamplingOptions::default() },
        SamplingOptions { top_k: Some(5), repetition_penalty: Some(1.2), ..SamplingOptions::default() },
    ];
    let ask = async |client: &EnsembleClient| {
        let generations = (0..16_usize).map(|number| {
            let seed = Some(number as u64);
            let asked = GenerateRequest {
                prompt: text_input(&"ROMEO: But soft, what light"[..6 + number]),
                max_tokens: Some(8 + number as u32 % 5),
                sampling: Some(SamplingOptions { seed, ..kinds[number % kinds.len()].clone() }),
                ..GenerateRequest::default()
            };
            let mut client = client.clone();
            async move { text(&mut client, asked).await }
        });
        futures::future::join_all(generations).await
    };
    let (found, expected) = (ask(&found).await, ask(&expected).await);
    for (number, (found, expected)) in found.iter().zip(&expected).enumerate() {
        assert_eq!(found, expected, "generation {number}");
    }
}

/// Generations that are on a device, since nobody else is there; then a processor comes, and the device is lost: nobody notices.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_processor_goes_on_where_a_device_was_lost() {
    const TOKENS: u32 = 500;
    let undisturbed = ensemble(["cpu"; 3]).await;
    let expected = texts(&undisturbed.client().await, TOKENS).await;
    let mut spare = worker("alto", "cpu");
    spare.kill();
    let others = ["bass", "tenor"].map(|name| worker(name, "cpu"));
    let workers = [worker("alto", "emulated"), spare].into_iter().chain(others).collect();
    // A session that a busy machine has hedged is on the processor before the device is lost.
    let mut ensemble = Ensemble::over(workers, &[PATIENT, "hedge_share = 0.0\n", SLOW].concat());
    ensemble.until_up(3).await;
    let mut client = ensemble.client().await;
    let mut running = Running::start(&client, TOKENS);
    running.until_each_has(2).await;
    ensemble.members[1].start_again();
    ensemble.until_replicas_up(4).await;
    ensemble.members[0].kill();
    running.finish().await.assert_whole(&expected);
    assert!(recovery(&mut client).await.takeovers > 0, "the sessions went on elsewhere");
}
