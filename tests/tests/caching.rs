//! Prompts that real members have read before: what follows them is the same to the bit as where nothing is kept, also after every
//! worker was started again.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use chorus_proto::v1::{
    CompleteReply, FusionOptions, GenerateRequest, PredictRequest, Rule, SamplingOptions, StatusRequest,
};
use chorus_tests::clients::EnsembleClient;
use chorus_tests::metrics::total;
use chorus_tests::{Ensemble, PATIENT, text_input};

const SHARED: &str =
    "First Citizen:\nBefore we proceed any further, hear me speak.\n\nAll:\nSpeak, speak.\n\n";
const ENDS: [&str; 4] = ["First Citizen:\n", "MENENIUS:\nWhy, ", "All:\nResolved.", "First Citizen:\nYou "];

fn asking(prompt: &str, rule: Rule) -> GenerateRequest {
    let draws = rule != Rule::ThresholdVote;
    GenerateRequest {
        prompt: text_input(prompt),
        max_tokens: Some(40),
        fusion: Some(FusionOptions { rule: rule.into(), ..FusionOptions::default() }),
        sampling: draws.then(|| SamplingOptions { seed: Some(7), ..SamplingOptions::default() }),
        log_probs: draws,
        ..GenerateRequest::default()
    }
}

async fn complete(client: &mut EnsembleClient, request: GenerateRequest) -> CompleteReply {
    client.complete(request).await.expect("it completes").into_inner()
}

/// Tokens of the prompt that nobody had to read, and all of them.
fn cached(reply: &CompleteReply) -> (u32, u32) {
    let end = reply.end.as_ref().unwrap();
    (end.cached_prompt_tokens, end.prompt_tokens)
}

/// Both ensembles say the same; gives how much of the prompt nobody had to read where something is kept, and how much it is.
async fn same(
    keeping: &mut EnsembleClient,
    fresh: &mut EnsembleClient,
    request: GenerateRequest,
) -> (u32, u32) {
    let (kept, read) = (complete(keeping, request.clone()).await, complete(fresh, request).await);
    assert_eq!(cached(&read).0, 0);
    assert_eq!((&kept.tokens, &kept.text), (&read.tokens, &read.text));
    cached(&kept)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_follows_a_kept_prompt_is_what_follows_it_to_the_bit() {
    let mut ensemble = Ensemble::demo(PATIENT).await;
    let without = Ensemble::demo(&format!("{PATIENT}[prefix_cache]\nmax_bytes = 0\n")).await;
    let (mut keeping, mut fresh) = (ensemble.client().await, without.client().await);
    let shared = cached(&complete(&mut fresh, asking(SHARED, Rule::WeightedAverage)).await).1;
    for rule in [Rule::WeightedAverage, Rule::ThresholdVote, Rule::LogLinear, Rule::LogitMean, Rule::LogitMax]
    {
        for end in ENDS {
            let prompt = format!("{SHARED}{end}");
            same(&mut keeping, &mut fresh, asking(&prompt, rule)).await;
            let (again, all) = same(&mut keeping, &mut fresh, asking(&prompt, rule)).await;
            assert_eq!(again, all, "{rule:?}");
        }
        let prompt = format!("{SHARED}{rule:?}");
        let (cached, _) = same(&mut keeping, &mut fresh, asking(&prompt, rule)).await;
        // Where it ends, a token may be another one.
        assert!(cached + 2 >= shared, "{cached} of {shared} tokens under {rule:?}");
    }
    // A conversation goes on where its answer ended, or a little before.
    let first = complete(&mut keeping, asking(SHARED, Rule::WeightedAverage)).await;
    let next = format!("{SHARED}{}\n\nAll:\n", first.text);
    let (cached, _) = same(&mut keeping, &mut fresh, asking(&next, Rule::WeightedAverage)).await;
    assert!(cached > shared + 16, "{cached} of {shared} and an answer");

    ensemble.members.iter_mut().for_each(|member| {
        member.stop();
        member.start_again();
    });
    ensemble.until_up(3).await;
    let prompt = format!("{SHARED}{}", ENDS[0]);
    let (cached, all) = same(&mut keeping, &mut fresh, asking(&prompt, Rule::LogLinear)).await;
    assert_eq!(cached, all, "the coordinator keeps it, whoever read it");

    let prefix = || PredictRequest { prefix: text_input(&prompt), ..PredictRequest::default() };
    let kept = keeping.predict(prefix()).await.unwrap().into_inner();
    let read = fresh.predict(prefix()).await.unwrap().into_inner();
    assert_eq!((kept.cached_tokens, read.cached_tokens), (cached, 0));
    assert_eq!((kept.candidates, kept.members), (read.candidates, read.members));

    let status = keeping.status(StatusRequest {}).await.unwrap().into_inner().prefix_cache.unwrap();
    assert!(status.cached_tokens > status.read_tokens && status.entries > 10, "{status:?}");
    let counted = total(ensemble.metrics, "chorus_prefix_cache_tokens_total").await;
    assert_eq!(counted, (status.cached_tokens + status.read_tokens) as f64);
    assert_eq!(
        total(without.metrics, "chorus_prefix_cache_tokens_total").await,
        0.0,
        "nothing is kept there"
    );
}
