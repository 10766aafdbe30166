//! Sessions that branch in real workers: what searches and rankings say is what one request for each sequence says.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use chorus_proto::v1::{
    BeamOptions, GenerateRequest, Hypothesis, Input, RankCandidate, RankRequest, SamplingOptions,
    ScoreRequest, TokenIds, input,
};
use chorus_tests::clients::EnsembleClient;
use chorus_tests::{Chorus, Ensemble, PATIENT, text_input};
use serde_json::{Value, json};

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

/// What several lists say together is what each says alone, whatever is in progress beside it; and a list may be long.
#[tokio::test]
async fn lists_of_candidates_are_ranked_one_by_one() {
    let ensemble = Ensemble::demo(PATIENT).await;
    let folder = tempfile::tempdir().unwrap();
    let address = format!("--addr={}", ensemble.address);
    let run = |words: &[&str]| {
        let ended = Chorus::run([words, &[address.as_str()]].concat());
        assert!(ended.status.success(), "{words:?}: {}", ended.stderr);
        ended.stdout
    };
    let alone = |context: &str, candidates: &[String]| {
        let path = folder.path().join("alone.txt");
        std::fs::write(&path, candidates.join("\n")).unwrap();
        let said = run(&["rank", path.to_str().unwrap(), "--context", context, "--json"]);
        serde_json::from_str::<Value>(&said).unwrap()
    };
    // Three letters each, so that thousands share what they begin with.
    let letters = "abdeghiklmnoprstuvwy";
    let words = letters.chars().flat_map(|one| {
        letters.chars().flat_map(move |two| letters.chars().map(move |three| format!("{one}{two}{three}")))
    });
    let words: Vec<String> = words.step_by(3).collect();
    let few = CANDIDATES.map(str::to_owned).to_vec();
    assert!(words.len() > 2500, "{}", words.len());
    let lists = [("To ", &words), (CONTEXT, &few), ("JULIET:\n", &few)];
    let written = lists
        .map(|(context, candidates)| json!({ "context": context, "candidates": candidates }).to_string());
    let path = folder.path().join("lists.jsonl");
    std::fs::write(&path, written.join("\n")).unwrap();
    let path = path.to_str().unwrap();
    let together = run(&["rank", "--lists", path, "--in-flight", "3", "--json"]);
    let together: Vec<Value> = together.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(together.len(), lists.len());
    for ((context, candidates), found) in lists.iter().zip(&together) {
        assert_eq!(found["context"], *context);
        let texts = |ranking: &Value| {
            let of = |candidate: &Value| (candidate["text"].clone(), candidate["log_prob"].as_f64().unwrap());
            ranking["candidates"].as_array().unwrap().iter().map(of).collect::<Vec<_>>()
        };
        assert_eq!(texts(found), texts(&alone(context, candidates)));
        assert_eq!(texts(found).len(), candidates.len());
    }
    let read = |key: &str| together[0][key].as_u64().unwrap();
    assert!(2 * read("computed_tokens") < read("total_tokens"), "{}", together[0]);
    let best = run(&["rank", "--lists", path]);
    let first = together.iter().map(|found| found["candidates"][0]["text"].as_str().unwrap());
    assert_eq!(best.lines().collect::<Vec<_>>(), first.collect::<Vec<_>>());
}

/// What a search found is what its n-best list is ranked by: the same log-probabilities, and the likeliest first.
#[tokio::test]
async fn n_best_lists_of_searches_are_lists_to_rank() {
    let ensemble = Ensemble::demo(PATIENT).await;
    let folder = tempfile::tempdir().unwrap();
    let address = format!("--addr={}", ensemble.address);
    let path = folder.path().join("lines");
    std::fs::write(&path, "ROMEO: I\nJULIET: My\n").unwrap();
    let path = path.to_str().unwrap();
    let search = ["--beam", "6", "--n-best", "6", "--max-tokens", "8", "--json"];
    let found = Chorus::run([&["generate", "--lines", path, &address][..], &search].concat());
    assert!(found.status.success(), "{}", found.stderr);
    let found: Vec<Value> = found.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let lists = found.iter().map(|found| {
        let candidate = |found: &Value| json!({ "text": found["text"], "tokens": found["tokens"] });
        let candidates: Vec<Value> =
            found["end"]["hypotheses"].as_array().unwrap().iter().map(candidate).collect();
        json!({ "context": found["prompt"], "candidates": candidates }).to_string() + "\n"
    });
    std::fs::write(path, lists.collect::<String>()).unwrap();
    let ranked = Chorus::run(["rank", "--lists", path, "--json", &address]);
    assert!(ranked.status.success(), "{}", ranked.stderr);
    assert_eq!((ranked.stdout.lines().count(), found.len()), (2, 2));
    for (line, found) in ranked.stdout.lines().zip(&found) {
        let ranked: Value = serde_json::from_str(line).unwrap();
        let likeliest = found["end"]["hypotheses"].as_array().unwrap().iter();
        let of = |one: &&Value| one["log_prob"].as_f64().unwrap();
        let likeliest = likeliest.max_by(|one, other| of(one).total_cmp(&of(other))).unwrap();
        assert_eq!(ranked["candidates"][0]["text"], likeliest["text"]);
        let numbers = |list: &Value| -> Vec<f64> {
            list.as_array().unwrap().iter().map(|one| one["log_prob"].as_f64().unwrap()).collect()
        };
        let mut searched = numbers(&found["end"]["hypotheses"]);
        searched.sort_by(|one, other| other.total_cmp(one));
        let ranked = numbers(&ranked["candidates"]);
        assert_eq!(ranked.len(), 6);
        for (ranked, searched) in ranked.iter().zip(&searched) {
            assert!((ranked - searched).abs() < 1e-9, "{ranked} {searched}");
        }
    }
}

#[test]
fn lists_that_are_none_are_refused_before_anybody_is_asked() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("lists.jsonl");
    std::fs::write(&path, "{\"candidates\": [\"a\"]}\nle chat\n").unwrap();
    let refused = Chorus::run(["rank", "--lists", path.to_str().unwrap(), "--addr=127.0.0.1:9"]);
    assert!(
        !refused.status.success() && refused.stderr.contains("line 2: column 1: expected value"),
        "{}",
        refused.stderr
    );
    let both = Chorus::run(["rank", "--lists", "a", "b", "--addr=127.0.0.1:9"]);
    assert_eq!(both.status.code(), Some(2), "{}", both.stderr);
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
