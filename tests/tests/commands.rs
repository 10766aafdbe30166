//! The command line as a user types it: what it prints, what `--json` says, and how it fails.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{collections::HashMap, fs, num::NonZeroUsize};

use candle_core::{Device, Tensor};
use chorus_model::{LanguageModel, evaluate, evaluate_in_lanes};
use chorus_tests::{Chorus, Ensemble, PATIENT, models};
use serde_json::{Value, json};
use tempfile::TempDir;

fn parse(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn run(arguments: &[&str]) -> String {
    let ended = Chorus::run(arguments);
    assert!(ended.status.success(), "{arguments:?}: {}", ended.stderr);
    // Colours are for terminals.
    assert!(!ended.stdout.contains('\x1b') && !ended.stderr.contains('\x1b'), "{arguments:?}: {ended:?}");
    ended.stdout
}

/// What a command prints that reads `text` from its standard input.
fn run_reading(arguments: &[&str], text: &str) -> String {
    let ended = Chorus::run_reading(arguments, text);
    assert!(ended.status.success(), "{arguments:?}: {}", ended.stderr);
    ended.stdout
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_client_command_answers_in_text_and_in_json() {
    let ensemble = Ensemble::demo(PATIENT).await;
    let address = ensemble.address.to_string();
    let to = ["--addr", address.as_str()];
    let with = |arguments: &[&str]| run(&[arguments, &to].concat());
    let with_json = |arguments: &[&str]| run(&[arguments, &to, &["--json"]].concat());

    let generate = ["generate", "JULIET:\n", "--max-tokens", "30", "--seed", "4"];
    let messages: Vec<Value> = with_json(&generate).lines().map(parse).collect();
    let text: String = messages.iter().map(|message| message["text"].as_str().unwrap()).collect();
    assert_eq!(with(&generate).trim_end(), text.trim_end(), "one seed, one text");
    assert_eq!(messages.last().unwrap()["end"]["reason"], "max_tokens");
    let piped = ["generate", "-", "--max-tokens", "30", "--seed", "4"];
    assert_eq!(run_reading(&[&piped, &to[..]].concat(), "JULIET:\n"), with(&generate));
    for message in &messages {
        assert_eq!(message["participants"], parse(r#"["alto", "bass", "tenor"]"#));
    }

    let folder = TempDir::new().unwrap();
    let file = folder.path().join("text.txt");
    let text = "Good night, good night! parting is such sweet sorrow.\n";
    fs::write(&file, text).unwrap();
    let score = ["score", file.to_str().unwrap()];
    let scored = parse(&with_json(&score));
    let members = scored["members"].as_array().unwrap();
    let names: Vec<&str> = members.iter().map(|member| member["name"].as_str().unwrap()).collect();
    assert_eq!(names, models::DEMO);
    let perplexity = scored["perplexity"].as_f64().unwrap();
    let log_prob = scored["log_prob"].as_f64().unwrap();
    assert!((perplexity - (-log_prob / scored["tokens"].as_f64().unwrap()).exp()).abs() < 1e-9);
    assert_eq!(scored["characters"], text.len());
    // serde_json reads numbers back to one unit in the last place.
    let nats_per_character = scored["nats_per_character"].as_f64().unwrap();
    assert!((nats_per_character * text.len() as f64 / -log_prob - 1.0).abs() < 1e-12);
    let table = with(&score);
    assert_eq!(run_reading(&[&["score", "-"], &to[..]].concat(), text), table);
    for words in ["ensemble", "alto", "bass", "tenor", "perplexity", &format!("{perplexity:.4}")] {
        assert!(table.contains(words), "the table lacks {words}: {table}");
    }

    // Every line of a file is a prompt, and its answer what the prompt by itself has.
    let prompts = ["JULIET: Good", "ROMEO: Alas", "KING HENRY: The"];
    fs::write(&file, prompts.join("\n")).unwrap();
    let greedy = ["--temperature", "0", "--max-tokens", "20", "--stop", "\n"];
    let alone: Vec<String> =
        prompts.iter().map(|prompt| with(&[&["generate", prompt][..], &greedy].concat())).collect();
    let lines = [&["generate", "--lines", file.to_str().unwrap()][..], &greedy].concat();
    assert_eq!(with(&lines), alone.concat());
    let one_at_a_time = [&lines[..], &["--in-flight", "1"]].concat();
    let objects: Vec<Value> = with_json(&one_at_a_time).lines().map(parse).collect();
    for (object, (prompt, alone)) in objects.iter().zip(prompts.iter().zip(&alone)) {
        assert_eq!(
            (&object["prompt"], &object["text"]),
            (&json!(prompt), &json!(alone.trim_end_matches('\n')))
        );
        assert_eq!(object["participants"], json!(models::DEMO));
    }
    assert_eq!(objects.len(), prompts.len());

    let predicted = parse(&with_json(&["predict", "To be, or not to", "--top-n", "3"]));
    assert_eq!(predicted["candidates"].as_array().unwrap().len(), 3);
    let status = parse(&with_json(&["status"]));
    assert_eq!(status["members"].as_array().unwrap().len(), 3);
    assert!(with(&["status"]).contains("alto"));
}

#[test]
fn what_goes_wrong_is_one_sentence_and_a_status() {
    let nobody = ["--addr", "127.0.0.1:9"];
    for (arguments, status, words) in [
        (&["generate", "x"][..], 1, &["no ensemble answers", "chorus up"][..]),
        (&["score", "not/here.txt"], 1, &["not/here.txt"]),
        (&["generate", "x", "--rule", "plurality"], 2, &["plurality", "weighted_average", "logit_max"]),
        (&["generate", "x", "--weight", "alto=much"], 2, &["alto=much"]),
        (&["generate"], 2, &["PROMPT"]),
    ] {
        let ended = Chorus::run(arguments.iter().chain(&nobody));
        assert_eq!(ended.status.code(), Some(status), "{arguments:?}: {}", ended.stderr);
        for word in words {
            assert!(ended.stderr.contains(word), "{arguments:?}: '{}' does not say '{word}'", ended.stderr);
        }
        assert!(!ended.stderr.contains("panicked") && !ended.stderr.contains('\x1b'), "{}", ended.stderr);
    }
    let cuda = Chorus::run(["worker", "--model", models::demo("alto").to_str().unwrap(), "--device", "cuda"]);
    assert!(!cuda.status.success() && cuda.stderr.lines().count() == 1, "{}", cuda.stderr);
    assert!(cuda.stderr.contains("needs a program built with CUDA"), "{}", cuda.stderr);
}

/// What PyTorch users have: weights under other names and a map of characters.
#[test]
fn imported_weights_evaluate_as_the_model_that_they_are() {
    let folder = TempDir::new().unwrap();
    let text = "ho hum, a hat on a hut\n".repeat(40);
    let parts = models::characters(&folder.path().join("original"), &text);
    let renamed: HashMap<String, Tensor> = parts
        .tensors
        .iter()
        .map(|(name, tensor)| {
            (name.replace("embed.", "encoder.").replace("linear.", "decoder."), tensor.clone())
        })
        .collect();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    candle_core::safetensors::save(&renamed, path("weights.safetensors")).unwrap();
    let ids = 0..parts.vocabulary.len();
    let map: serde_json::Map<String, Value> =
        ids.map(|id| (parts.vocabulary.token(id).unwrap(), id.into())).collect();
    fs::write(path("vocab.json"), Value::Object(map).to_string()).unwrap();
    fs::write(path("text.txt"), &text).unwrap();

    run(&[
        "import",
        "--weights",
        &path("weights.safetensors"),
        "--vocab",
        &path("vocab.json"),
        "--out",
        &path("imported"),
    ]);
    let evaluated = parse(&run(&["eval", "--model", &path("imported"), &path("text.txt"), "--json"]));
    let piped = run_reading(&["eval", "--model", &path("imported"), "-", "--json"], &text);
    assert_eq!(parse(&piped), evaluated);

    let original = LanguageModel::load(&folder.path().join("original"), &Device::Cpu).unwrap();
    let tokens = original.vocabulary().encode(&text).unwrap();
    let expected = evaluate(&original, &tokens, |_| {}).unwrap();
    assert_eq!(evaluated["tokens"], tokens.len());
    assert_eq!(evaluated["nats_per_token"].as_f64(), expected.nats_per_token());
    assert_eq!(evaluated["perplexity"].as_f64(), expected.perplexity());

    let in_lanes = ["eval", "--model", &path("imported"), &path("text.txt"), "--lanes", "4", "--json"];
    let expected = evaluate_in_lanes(&original, &tokens, NonZeroUsize::new(4).unwrap(), |_| {}).unwrap();
    let evaluated = parse(&run(&in_lanes));
    assert_eq!((&evaluated["tokens"], &evaluated["lanes"]), (&expected.tokens.into(), &4.into()));
    assert_eq!(evaluated["nats_per_token"].as_f64(), expected.nats_per_token());
}
