//! `chorus distill` on the demo ensemble: it asks once, resumes as `chorus train` does, and its student answers as a fallback.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use chorus_model::train::load_taught_text;
use chorus_model::{LanguageModel, Precision, evaluate, open_device};
use chorus_proto::v1::{GenerateRequest, Input, SamplingOptions, TokenIds, input};
use chorus_tests::{Chorus, Ensemble, PATIENT, generate};
use serde_json::Value;
use tempfile::TempDir;

/// A network that learns little, quickly.
const SMALL: [&str; 12] =
    ["--embedding", "8", "--hidden", "12", "--epochs", "2", "--batch", "4", "--bptt", "16", "--top-k", "8"];

struct Stage {
    ensemble: Ensemble,
    folder: TempDir,
}

impl Stage {
    /// The demo ensemble and a text that it has written itself.
    async fn new(tokens: &str) -> Self {
        let stage = Self { ensemble: Ensemble::demo(PATIENT).await, folder: TempDir::new().unwrap() };
        let ended = stage.command(&["generate", "ROMEO:\n", "--seed", "5", "--max-tokens", tokens]).wait();
        fs::write(stage.path("text.txt"), ended.stdout).unwrap();
        stage
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, arguments: &[&str]) -> Chorus {
        let mut command = Command::new(chorus_tests::binary());
        command.current_dir(self.folder.path()).args(arguments);
        command.args(["--addr", &self.ensemble.address.to_string()]);
        Chorus::start_command(command, Stdio::null())
    }

    fn distill(&self, out: &str, more: &[&str]) -> Chorus {
        let files = ["distill", "--data", "text.txt", "--valid", "text.txt", "--out", out];
        self.command(&[&files[..], &SMALL, more].concat())
    }

    fn json(&self, running: Chorus) -> Value {
        let ended = running.wait();
        assert!(ended.status.success(), "{}", ended.stderr);
        serde_json::from_str(&ended.stdout).unwrap_or_else(|error| panic!("{error}: {}", ended.stdout))
    }

    /// Tokens that the members have read for whole rows.
    fn asked(&self) -> u64 {
        let status = self.json(self.command(&["status", "--json"]));
        let members = status["members"].as_array().unwrap().iter();
        let traffic = members.flat_map(|member| member["traffic"].as_array().unwrap().clone());
        let dense = traffic.filter(|traffic| traffic["plan"] == "dense");
        dense.map(|traffic| traffic["tokens"].as_u64().unwrap()).sum()
    }
}

fn weights(directory: &Path) -> Vec<u8> {
    fs::read(directory.join("model.safetensors")).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_student_learns_what_the_ensemble_said_and_is_compared_with_it() {
    let stage = Stage::new("600").await;
    let compared = stage.json(stage.distill("student", &["--json"]));
    let asked = stage.asked();
    let model =
        LanguageModel::load_as(&stage.path("student"), &open_device("cpu").unwrap(), Precision::F32, None)
            .unwrap();
    let text = fs::read_to_string(stage.path("text.txt")).unwrap();
    let tokens = model.vocabulary().encode(&text).unwrap();
    let nats = evaluate(&model, &tokens, |_| {}).unwrap().nats_per_token().unwrap();
    let found = compared["student"]["nats_per_token"].as_f64().unwrap();
    assert!((found - nats).abs() < 1e-9, "{found} {nats}");
    fs::write(stage.path("text.copy"), &text).unwrap();
    let scored = stage.json(stage.command(&["score", "text.txt", "--json"]));
    let of = |value: &Value| value.as_f64().unwrap();
    assert!((of(&compared["ensemble"]["perplexity"]) / of(&scored["perplexity"]) - 1.0).abs() < 1e-9);
    for member in scored["members"].as_array().unwrap() {
        let name = member["name"].as_str().unwrap();
        assert!((of(&compared["members"][name]) / of(&member["perplexity"]) - 1.0).abs() < 1e-9);
    }
    let taught = load_taught_text(&stage.path("student.teacher")).unwrap();
    assert_eq!(taught.tokens, tokens);

    // Another student of the same teacher asks nothing; and the same command gives the same student.
    stage.json(stage.distill("twin", &["--json", "--teacher", "student.teacher"]));
    assert_eq!(stage.asked(), asked);
    assert_eq!(weights(&stage.path("student")), weights(&stage.path("twin")));
    let dense = stage.distill("dense", &["--temperature", "2", "--hard-weight", "0"]);
    let refused = dense.wait();
    assert!(refused.status.success(), "{}", refused.stderr);
    let table = refused.stdout;
    for part in
        ["student (dense)", "best member (", "ensemble", "of the way from the best member to the ensemble"]
    {
        assert!(table.contains(part), "{part}: {table}");
    }
    // What is kept is not taken for what another question would be answered.
    let other = stage.distill("other", &["--teacher", "student.teacher", "--temperature", "3"]).wait();
    assert!(!other.status.success() && other.stderr.contains("temperature"), "{}", other.stderr);

    // When the quorum is gone the student answers.
    let worker = ["worker", "--model", stage.path("student").to_str().unwrap(), "--listen", "127.0.0.1:0"]
        .map(str::to_owned);
    let mut worker = Chorus::start(worker);
    let fallback = format!("--fallback=student=http://{}", worker.listening());
    let mut words = vec!["coordinator".to_owned(), "--listen=127.0.0.1:0".to_owned(), fallback];
    words.extend(stage.ensemble.members.iter().map(|member| {
        // Nobody is there.
        format!("--member={}=http://127.0.0.1:9", member.name)
    }));
    let mut alone = Chorus::start(&words);
    let address = alone.listening().to_string();
    let score = || {
        let arguments = ["score", stage.path("text.txt").to_str().unwrap(), "--json", "--addr", &address]
            .map(str::to_owned);
        Chorus::run(arguments)
    };
    let mut ended = score();
    while !ended.status.success() {
        ended = score();
    }
    let scored: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert!((of(&scored["perplexity"]).ln() / nats - 1.0).abs() < 1e-5, "{scored} {nats}");
    assert_eq!(scored["fallback"]["name"], "student");
    let words = ["score", stage.path("text.txt").to_str().unwrap(), "--addr", &address].map(str::to_owned);
    let told = Chorus::run(words).stderr;
    assert!(told.contains("answered by the fallback student alone, without alto"), "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_was_killed_goes_on_where_it_was() {
    let stage = Stage::new("900").await;
    let parts = ["--part-tokens", "32", "--context-tokens", "16"];
    let whole = stage.distill("whole", &parts).wait();
    assert!(whole.status.success(), "{}", whole.stderr);

    // While it asks.
    let pieces = |teacher: &str| {
        let files = fs::read_dir(stage.path(teacher)).map(|files| files.count()).unwrap_or_default();
        // One is the manifest.
        files.saturating_sub(1)
    };
    let mut asking = stage.distill("killed", &parts);
    while pieces("killed.teacher") < 3 && asking.is_running() {
        std::thread::yield_now();
    }
    asking.signal(nix::sys::signal::Signal::SIGKILL);
    asking.wait();
    // While it trains.
    let mut training = stage.distill("killed", &[&parts[..], &["--checkpoint-every", "1"]].concat());
    while !stage.path("killed/checkpoint/checkpoint.safetensors").exists() && training.is_running() {
        std::thread::yield_now();
    }
    training.signal(nix::sys::signal::Signal::SIGKILL);
    training.wait();
    let again = stage.distill("killed", &parts).wait();
    assert!(!again.status.success() && again.stderr.contains("--resume goes on"), "{}", again.stderr);
    let resumed = stage.distill("killed", &[&parts[..], &["--resume"]].concat()).wait();
    assert!(resumed.status.success(), "{}", resumed.stderr);
    assert_eq!(weights(&stage.path("whole")), weights(&stage.path("killed")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_student_learns_from_a_text_that_the_ensemble_writes() {
    let stage = Stage::new("300").await;
    let synthetic = |cache: &'static str| ["--synthetic", "1550", "--passage-tokens", "8", "--cache", cache];
    let whole = stage.distill("whole", &synthetic("one")).wait();
    assert!(whole.status.success(), "{}", whole.stderr);
    let text = |student: &str| load_taught_text(&stage.path(&format!("{student}.teacher"))).unwrap().tokens;
    let model = LanguageModel::load(&stage.path("whole"), &open_device("cpu").unwrap()).unwrap();
    let data = model.vocabulary().encode(&fs::read_to_string(stage.path("text.txt")).unwrap()).unwrap();
    let written = text("whole");
    assert_eq!(written.len(), 96 * 16);
    for passage in written.chunks(16) {
        assert!(data.windows(8).any(|tokens| tokens == &passage[..8]), "{passage:?}");
    }
    // What comes after a passage is what anybody's generation of that seed says.
    let mut client = stage.ensemble.client().await;
    for number in [0, 5, 95] {
        let passage = &written[16 * number..][..16];
        let ids = passage[..8].iter().map(|token| i64::from(*token)).collect();
        let request = GenerateRequest {
            prompt: Some(Input { input: Some(input::Input::Tokens(TokenIds { ids })) }),
            max_tokens: Some(8),
            // The run's own seed is 1.
            sampling: Some(SamplingOptions {
                seed: Some(0x9E37_79B9_7F4A_7C15 + number as u64),
                ..SamplingOptions::default()
            }),
            ..GenerateRequest::default()
        };
        let replies = generate(&mut client, request).await.unwrap();
        let ids: Vec<u32> = replies.iter().filter_map(|reply| Some(reply.token.as_ref()?.id)).collect();
        assert_eq!(ids, passage[8..], "passage {number}");
    }

    // What was written before a kill is there afterwards; and nobody writes it twice.
    let parts = |cache: &str| {
        let folders = fs::read_dir(stage.path(cache)).into_iter().flatten();
        let files = folders.flat_map(|folder| fs::read_dir(folder.unwrap().path()).unwrap());
        let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.starts_with("part-")).count()
    };
    let mut killed = stage.distill("killed", &synthetic("two"));
    while parts("two") < 2 && killed.is_running() {
        std::thread::yield_now();
    }
    killed.signal(nix::sys::signal::Signal::SIGKILL);
    killed.wait();
    let again = stage.distill("again", &synthetic("two")).wait();
    assert!(again.status.success(), "{}", again.stderr);
    assert_eq!((parts("one"), parts("two")), (6, 6));
    assert_eq!(text("again"), written);
    assert_eq!(weights(&stage.path("again")), weights(&stage.path("whole")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_can_t_be_is_said_before_anything_is_asked() {
    let stage = Stage::new("60").await;
    fs::write(stage.path("empty.txt"), "").unwrap();
    let with = |data: &str, more: &[&str]| {
        let files = ["distill", "--data", data, "--valid", "text.txt", "--out", "student"];
        let ended = stage.command(&[&files[..], &SMALL, more].concat()).wait();
        assert!(!ended.status.success());
        ended.stderr
    };
    for (data, more, said) in [
        ("nowhere.txt", &[][..], "can't read nowhere.txt"),
        ("empty.txt", &[], "empty.txt has no token"),
        ("text.txt", &["--hard-weight", "2"], "--hard-weight is 2; allowed: 0 to 1"),
        ("text.txt", &["--temperature", "99"], "--temperature is 99; allowed: 0.1 to 20"),
        ("text.txt", &["--synthetic", "127"], "--synthetic is 127; allowed: at least 128"),
        (
            "text.txt",
            &["--synthetic", "9999", "--passage-tokens", "4000"],
            "fewer than the 4000 of a passage",
        ),
        ("text.txt", &["--passage-tokens", "4"], "--synthetic <N>"),
        ("text.txt", &["--tied"], "the student can't be made"),
        ("text.txt", &["--start", "nonsense"], "is no token of the vocabulary"),
    ] {
        let stderr = with(data, more);
        assert!(stderr.contains(said), "{more:?}: {stderr}");
    }
    assert_eq!(stage.asked(), 0);
}
