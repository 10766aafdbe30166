//! Sessions that branch in real workers: what searches and rankings say is what one request for each sequence says.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use chorus_proto::v1::{
    BeamOptions, GenerateRequest, Hypothesis, Input, RankCandidate, RankRequest, SamplingOptions,
    ScoreRequest, TokenIds, input,
};
use chorus_tests::clients::EnsembleClient;
use chorus_tests::{Chorus, Ensemble, PATIENT, text_input};
use serde_json::Value;

const CONTEXT: &str = "ROMEO:\nI ";
const CANDIDATES: [&str; 6] = ["love thee", "love thee not", "love", "am dead", "am", "x"];

async fn log_prob(client: &EnsembleClient, input: Input) -> f64 {
    let request = ScoreRequest { input: Some(input), ..ScoreRequest::default() };
    client.clone().score(request).await.unwrap().into_inner().log_prob.unwrap()
}

async fn tokens(client: &EnsembleClient, text: &str) -> Vec<i64> {
    let request = ScoreRequest { input: text_input(text), per_token: true, ..ScoreRequest::default() };
    let scores = client.clone().score(request).await.unwrap().into_inner().token_scores;
    scores.into_iter().map(|token| i64::from(token.id)).collect()
}

fn ids(ids: Vec<i64>) -> Input {
    Input { input: Some(input::Input::Tokens(TokenIds { ids })) }
}

async fn search(client: &EnsembleClient, beam: BeamOptions, max_tokens: u32) -> Vec<Hypothesis> {
    let request = GenerateRequest {
        prompt: text_input(CONTEXT),
        max_tokens: Some(max_tokens),
        beam: Some(beam),
        ..GenerateRequest::default()
    };
    client.clone().complete(request).await.unwrap().into_inner().end.unwrap().hypotheses
}

#[tokio::test]
async fn every_candidate_has_the_log_probability_that_its_whole_text_adds() {
    let ensemble = Ensemble::demo(PATIENT).await;
    let client = ensemble.client().await;
    let candidate = |text: &&str| RankCandidate { continuation: text_input(text), score: None };
    let request = RankRequest {
        context: text_input(CONTEXT),
        candidates: CANDIDATES.iter().map(candidate).collect(),
        ..RankRequest::default()
    };
    let reply = client.clone().rank(request).await.unwrap().into_inner();
    assert_eq!(reply.candidates.len(), CANDIDATES.len());
    assert!(reply.candidates.is_sorted_by(|one, next| one.score >= next.score));
    assert!(reply.computed_tokens < reply.total_tokens, "{reply:?}");
    let context = tokens(&client, CONTEXT).await;
    let of_context = log_prob(&client, ids(context.clone())).await;
    for ranked in &reply.candidates {
        let more = tokens(&client, CANDIDATES[ranked.index as usize]).await;
        let whole = log_prob(&client, ids([context.clone(), more].concat())).await;
        assert!((ranked.log_prob - (whole - of_context)).abs() < 1e-9, "{ranked:?} {whole} {of_context}");
    }
}

#[tokio::test]
async fn what_a_search_finds_has_the_log_probability_that_it_says() {
    let ensemble = Ensemble::demo(PATIENT).await;
    let client = ensemble.client().await;
    let context = tokens(&client, CONTEXT).await;
    let of_context = log_prob(&client, ids(context.clone())).await;
    let found = search(&client, BeamOptions { size: 5, length_penalty: None, n_best: Some(5) }, 12).await;
    assert_eq!(found.len(), 5);
    for found in &found {
        let more: Vec<i64> = found.tokens.iter().map(|id| i64::from(*id)).collect();
        let whole = log_prob(&client, ids([context.clone(), more].concat())).await;
        assert!((found.log_prob - (whole - of_context)).abs() < 1e-9, "{found:?} {whole} {of_context}");
    }
    let greedy = GenerateRequest {
        prompt: text_input(CONTEXT),
        max_tokens: Some(12),
        sampling: Some(SamplingOptions { temperature: Some(0.0), ..SamplingOptions::default() }),
        ..GenerateRequest::default()
    };
    let greedy = client.clone().complete(greedy).await.unwrap().into_inner().text;
    let alone = search(&client, BeamOptions { size: 1, length_penalty: None, n_best: None }, 12).await;
    assert_eq!(alone[0].text, greedy, "a beam of one is greedy");
    assert!(found[0].log_prob >= alone[0].log_prob, "{found:?} {alone:?}");
}

#[tokio::test]
async fn commands_rank_and_classify() {
    let ensemble = Ensemble::demo(PATIENT).await;
    let folder = tempfile::tempdir().unwrap();
    let put = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let address = format!("--addr={}", ensemble.address);
    let run = |words: &[&str]| {
        let ended = Chorus::run([words, &[address.as_str(), "--json"]].concat());
        assert!(ended.status.success(), "{words:?}: {}", ended.stderr);
        let lines: Vec<Value> =
            ended.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        lines
    };
    let file = put("nbest.tsv", "-100\tlove thee\n0\tzzqx\n");
    let by_score = run(&["rank", &file, "--context", CONTEXT, "--scores"]);
    assert_eq!(by_score[0]["candidates"][0]["text"], "zzqx", "what is added counts");
    let file = put("candidates.txt", "love thee\nzzqx\n");
    let by_model = run(&["rank", &file, "--context", CONTEXT, "--by", "per-token", "--top-n", "1"]);
    assert_eq!(by_model[0]["candidates"].as_array().unwrap().len(), 1);
    assert_eq!(by_model[0]["candidates"][0]["text"], "love thee");

    let labels = put(
        "labels.toml",
        "[[labels]]\nname = 'speech'\ntemplate = 'KING: {text}'\n[[labels]]\nname = 'noise'\ntemplate = 'zzqx {text}'\n",
    );
    let texts = put("texts.tsv", "I am thy father\tspeech\nand this is my hand\tspeech\n");
    let learned = folder.path().join("learned.toml").display().to_string();
    run(&["classify", "--labels", &labels, "--learn", &texts, "--out", &learned]);
    let counted = run(&["classify", "--labels", &learned, "--test", &texts]);
    assert_eq!((&counted[0]["texts"], &counted[0]["accuracy"]), (&Value::from(2), &Value::from(1.0)));
    let again =
        Chorus::run(["classify", "--labels", &labels, "--learn", &texts, "--out", &learned, &address]);
    assert!(!again.status.success() && again.stderr.contains("is there already"), "{}", again.stderr);
    let one = run(&["classify", "I am thy father", "--labels", &labels]);
    assert_eq!(one[0]["labels"][0]["name"], "speech");
    assert_eq!(one[0]["members"].as_array().unwrap().len(), 3);
}
