//! Quantised models on the command line and behind a coordinator.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{ffi::OsStr, fs, path::Path};

use chorus_tests::{Chorus, Ensemble, MemberProcess, models, until};
use serde_json::Value;
use tempfile::TempDir;

fn run<S: AsRef<OsStr>>(arguments: &[S]) -> Value {
    let ended = Chorus::run(arguments);
    assert!(ended.status.success(), "{}", ended.stderr);
    serde_json::from_str(&ended.stdout).unwrap_or_else(|error| panic!("{error}: {}", ended.stdout))
}

fn quantize(model: &Path, out: &Path, to: &str, more: &[&OsStr]) -> Chorus {
    let fixed = [
        "quantize".as_ref(),
        "--model".as_ref(),
        model.as_os_str(),
        "--out".as_ref(),
        out.as_os_str(),
        "--to".as_ref(),
        to.as_ref(),
    ];
    Chorus::start(fixed.iter().chain(more))
}

fn names(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}

/// The figures are those that `eval` has of the directory that was written.
#[test]
fn a_model_becomes_smaller_and_what_that_costs_is_measured() {
    let folder = TempDir::new().unwrap();
    let text = folder.path().join("text.txt");
    fs::write(&text, "JULIET:\nGood night, good night! parting is such sweet sorrow,\n".repeat(8)).unwrap();
    let mut bytes = u64::MAX;
    for (to, file, worst) in [
        ("bf16", "model.safetensors", 1.01),
        ("q8_0", "model.gguf", 1.01),
        ("q6k", "model.gguf", 1.02),
        ("q4k", "model.gguf", 1.1),
    ] {
        let out = folder.path().join(to);
        let more = ["--json".as_ref(), "--text".as_ref(), text.as_os_str()];
        let ended = quantize(&models::demo("alto"), &out, to, &more).wait();
        assert!(ended.status.success(), "{}", ended.stderr);
        let report: Value = serde_json::from_str(&ended.stdout).unwrap();
        let (before, after) = (&report["original"], &report["quantized"]);
        assert_eq!((before["type"].as_str(), after["type"].as_str()), (Some("original"), Some(to)));
        assert_eq!(names(&out), ["config.json", file, "tokenizer.json"]);
        assert_eq!(after["file_bytes"].as_u64(), Some(fs::metadata(out.join(file)).unwrap().len()));
        assert!(after["file_bytes"].as_u64() < Some(bytes));
        bytes = after["file_bytes"].as_u64().unwrap();
        if file == "model.gguf" {
            assert!(after["memory_bytes"].as_u64().unwrap() < before["memory_bytes"].as_u64().unwrap() / 4);
        }
        let perplexity = |side: &Value| side["perplexity"].as_f64().unwrap();
        assert!(perplexity(after) < worst * perplexity(before), "{report}");
        let evaluated =
            run(&["eval".as_ref(), "--json".as_ref(), "--model".as_ref(), out.as_os_str(), text.as_os_str()]);
        assert_eq!(evaluated["perplexity"], after["perplexity"]);
        assert_eq!(evaluated["tokens"], after["tokens"]);
        if file == "model.gguf" {
            let model = models::demo("alto");
            let on_the_way = ["eval", "--json", "--quantize", to, "--model"].map(OsStr::new);
            let evaluated = run(&[&on_the_way[..], &[model.as_os_str(), text.as_os_str()]].concat());
            assert_eq!(evaluated["perplexity"], after["perplexity"], "on the way it is the same model");
        }
    }
}

#[test]
fn what_can_not_be_quantised_is_refused_and_leaves_nothing_behind() {
    let folder = TempDir::new().unwrap();
    let small = folder.path().join("small");
    models::characters(&small, "a small text");
    let taken = folder.path().join("taken");
    fs::create_dir(&taken).unwrap();
    fs::write(taken.join("note"), "mine").unwrap();
    let (alto, out) = (models::demo("alto"), folder.path().join("out"));
    let quantised = folder.path().join("quantised");
    assert!(quantize(&alto, &quantised, "q8_0", &[]).wait().status.success());
    let text = folder.path().join("text.txt");
    fs::write(&text, "\u{1f600}").unwrap();
    let empty = folder.path().join("empty.txt");
    fs::write(&empty, "").unwrap();
    let on = |text: &Path| vec![OsStr::new("--text").to_owned(), text.as_os_str().to_owned()];
    let before = names(folder.path());
    for (model, out, to, more, status, words) in [
        (&alto, &taken, "q4k", vec![], 1, "taken is there already, and not empty"),
        (&small, &small.join("../small"), "q4k", vec![], 2, "is the model that is read"),
        (&small, &out, "q8_0", vec![], 1, "has rows of 8 numbers; q8_0 has blocks of 32"),
        (&quantised, &out, "q4k", vec![], 1, "is quantised already, as q8_0"),
        (&quantised, &out, "f16", vec![], 1, "is quantised already, as q8_0"),
        (&alto, &out, "q5k", vec![], 2, "allowed are q8_0, q6k, q4k, f16 and bf16"),
        (&alto, &text.join("out"), "q4k", vec![], 1, "text.txt"),
        (&folder.path().join("nowhere"), &out, "q4k", vec![], 1, "nowhere"),
        (&small, &out, "f16", on(&text), 1, "can't express the text"),
        (&alto, &out, "q4k", on(&empty), 1, "has no token"),
        (&alto, &out, "q4k", on(&folder.path().join("no.txt")), 1, "no.txt"),
    ] {
        let more: Vec<&OsStr> = more.iter().map(|word: &std::ffi::OsString| word.as_os_str()).collect();
        let ended = quantize(model, out, to, &more).wait();
        assert_eq!(ended.status.code(), Some(status), "{words}: {}", ended.stderr);
        assert!(ended.stderr.contains(words), "'{}' does not say '{words}'", ended.stderr);
        assert_eq!(names(folder.path()), before, "{words}");
    }
    assert_eq!(names(&taken), ["note"]);
}

/// A worker that quantises while it loads and one that hosts what was quantised are replicas of one member; one that hosts
/// the original is none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_serve_quantised_models_and_only_the_same_ones_are_replicas() {
    let folder = TempDir::new().unwrap();
    let (alto, small) = (models::demo("alto"), folder.path().join("alto"));
    assert!(quantize(&alto, &small, "q6k", &[]).wait().status.success());
    let on_the_way = ["worker", "--quantize", "q6k", "--listen", "127.0.0.1:0", "--model"].map(OsStr::new);
    let on_the_way = Chorus::start(on_the_way.iter().chain(&[alto.as_os_str()]));
    let workers = vec![
        MemberProcess::of("alto", &alto, on_the_way),
        MemberProcess::start("alto", &small),
        MemberProcess::start("bass", &models::demo("bass")),
    ];
    let mut ensemble = Ensemble::over(workers, "");
    ensemble.until_replicas_up(3).await;
    let address = ensemble.address.to_string();
    let replicas = || {
        let status = run(&["status", "--json", "--addr", &address]);
        status["members"][0]["replicas"].as_array().unwrap().clone()
    };
    for replica in replicas() {
        assert_eq!(replica["device"], "cpu (q6k)");
    }
    let shown = Chorus::run(["status", "--addr", &address]);
    assert_eq!(shown.stdout.matches("cpu (q6k)").count(), 2, "{}", shown.stdout);
    let generated = Chorus::run(["generate", "ROMEO:", "--max-tokens", "5", "--addr", &address]);
    assert!(generated.status.success(), "{}", generated.stderr);

    ensemble.members[1].stop();
    ensemble.members[1].model.clone_from(&alto);
    ensemble.members[1].start_again();
    let refused = || replicas().into_iter().find(|replica| replica["health"] == "refused");
    until("the original is refused", || {
        let found = refused().is_some();
        async move { found }
    })
    .await;
    let reason = refused().unwrap()["reason"].to_string();
    assert!(reason.contains("it hosts another model") && reason.contains("q6k"), "{reason}");
}
