//! `chorus train` as a process: killed with -9 in the middle and resumed, it ends with the same model, byte for byte.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{fs, path::Path, time::SystemTime};

use chorus_tests::{Chorus, models};
use nix::sys::signal::Signal;
use tempfile::TempDir;

/// In steps, of which each reads 8 lanes of 16 tokens.
const CHECKPOINT_EVERY: u64 = 40;
const STEP: u64 = 8 * 16;

fn arguments(folder: &Path, out: &str) -> Vec<String> {
    let path = |name: &str| folder.join(name).display().to_string();
    let (data, valid, out) = (path("train.txt"), path("valid.txt"), path(out));
    let text = format!(
        "train --data {data} --valid {valid} --out {out} --name small --tokenizer characters --embedding 16 --hidden 96 \
         --layers 2 --dropout 0.3 --batch 8 --bptt 16 --epochs 12 --seed 5 --metrics-every 1 --checkpoint-every {CHECKPOINT_EVERY}"
    );
    text.split_whitespace().map(str::to_owned).collect()
}

fn model_files(folder: &Path, out: &str) -> Vec<Vec<u8>> {
    ["config.json", "tokenizer.json", "model.safetensors"]
        .iter()
        .map(|f| fs::read(folder.join(out).join(f)).unwrap())
        .collect()
}

/// metrics.jsonl without what the clock decides.
fn learning_curve(folder: &Path, out: &str) -> Vec<serde_json::Value> {
    let text = fs::read_to_string(folder.join(out).join("metrics.jsonl")).unwrap();
    let mut lines: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for line in &mut lines {
        line.as_object_mut().unwrap().retain(|key, _| !key.contains("second"));
    }
    lines
}

/// When the run wrote its last checkpoint, if it did.
fn written(folder: &Path, out: &str) -> Option<SystemTime> {
    let checkpoint = folder.join(out).join("checkpoint/checkpoint.safetensors");
    fs::metadata(checkpoint).and_then(|file| file.modified()).ok()
}

/// Complete lines of the metrics: one for each step that was done.
fn lines(folder: &Path, out: &str) -> usize {
    let text = fs::read_to_string(folder.join(out).join("metrics.jsonl")).unwrap_or_default();
    text.matches('\n').count()
}

/// Tokens that a run has trained on, by the last whole line of its metrics.
fn trained(folder: &Path, out: &str) -> u64 {
    let text = fs::read_to_string(folder.join(out).join("metrics.jsonl")).unwrap();
    let line = text.rsplit_once('\n').unwrap().0.lines().next_back().unwrap();
    serde_json::from_str::<serde_json::Value>(line).unwrap()["tokens"].as_u64().unwrap()
}

/// The tokens that a resumed run has not to train on again: "N parameters, at most N tokens, N of them done".
fn kept(stderr: &str) -> u64 {
    let words = stderr.split(" of them done").next().unwrap();
    words.rsplit(' ').next().unwrap().parse().unwrap_or_else(|_| panic!("{stderr}"))
}

#[test]
fn a_run_that_was_killed_and_resumed_equals_one_that_was_not() {
    let folder = TempDir::new().unwrap();
    let folder = folder.path();
    fs::write(folder.join("train.txt"), models::nonsense(1, 20_000)).unwrap();
    fs::write(folder.join("valid.txt"), models::nonsense(2, 2_000)).unwrap();

    let ended = Chorus::run(arguments(folder, "whole"));
    assert!(ended.status.success(), "{}", ended.stderr);

    // kill -9 some steps after a checkpoint, again and again, and then a run that comes through.
    let mut before = 0;
    for kill in 0..4 {
        let mut arguments = arguments(folder, "killed");
        if kill > 0 {
            arguments.push("--resume".into());
        }
        let seen = written(folder, "killed");
        let mut run = Chorus::start(arguments);
        if kill < 3 {
            while run.is_running() && written(folder, "killed") == seen {
                std::thread::yield_now();
            }
            let at_checkpoint = lines(folder, "killed");
            while run.is_running() && lines(folder, "killed") < at_checkpoint + 5 {
                std::thread::yield_now();
            }
            assert!(run.is_running(), "it was to be killed in the middle");
            run.signal(Signal::SIGKILL);
        }
        let ended = run.wait();
        assert_eq!(ended.status.success(), kill == 3, "{}", ended.stderr);
        let kept = kept(&ended.stderr);
        // The last step of an epoch has its line only after the validation, but its checkpoint before.
        assert!(
            kept <= before + STEP && before <= kept + CHECKPOINT_EVERY * STEP,
            "{before}: {}",
            ended.stderr
        );
        before = trained(folder, "killed");
        assert!(before > kept, "it went on");
    }
    assert_eq!(model_files(folder, "whole"), model_files(folder, "killed"), "same weights to the bit");
    assert_eq!(learning_curve(folder, "whole"), learning_curve(folder, "killed"));
    assert!(fs::read_to_string(folder.join("killed/learning-curve.svg")).unwrap().contains("<svg"));
}

#[test]
fn interrupted_training_stops_with_a_checkpoint_and_other_settings_are_refused() {
    let folder = TempDir::new().unwrap();
    let folder = folder.path();
    fs::write(folder.join("train.txt"), models::nonsense(1, 20_000)).unwrap();
    fs::write(folder.join("valid.txt"), models::nonsense(2, 2_000)).unwrap();
    let mut long = arguments(folder, "out");
    for (flag, value) in [("--epochs", "500"), ("--checkpoint-every", "1000000")] {
        let at = long.iter().position(|a| a == flag).unwrap();
        long[at + 1] = value.into();
    }

    let mut run = Chorus::start(long.clone());
    while run.is_running() && lines(folder, "out") < 2 {
        std::thread::yield_now();
    }
    let before = written(folder, "out");
    run.signal(Signal::SIGINT);
    let ended = run.wait();
    assert_eq!(ended.status.code(), Some(130), "{}", ended.stderr);
    // There is one of step 0 from the beginning.
    assert!(written(folder, "out") > before, "{}", ended.stderr);
    assert!(ended.stderr.contains("--resume"), "it says how to go on: {}", ended.stderr);

    let again = Chorus::run(long.clone());
    assert!(!again.status.success() && again.stderr.contains("--resume"), "{}", again.stderr);

    let hidden = long.iter().position(|a| a == "--hidden").unwrap();
    long[hidden + 1] = "32".into();
    long.push("--resume".into());
    let other = Chorus::run(long);
    assert!(!other.status.success() && other.stderr.contains("hidden"), "{}", other.stderr);
}

#[test]
fn lines_are_learned_and_evaluated_by_one_rule() {
    let folder = TempDir::new().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    // A word and its letters backwards.
    let words = ["stressed", "drawer", "loop", "straw", "reward", "lager", "parts"];
    let pairs: String =
        words.iter().map(|word| format!("{word}\t{}\n", word.chars().rev().collect::<String>())).collect();
    fs::write(path("pairs.tsv"), pairs.repeat(10)).unwrap();
    fs::write(path("valid.tsv"), format!("\n{pairs}")).unwrap();
    let train = format!(
        "train --data {} --valid {} --out {} --tokenizer characters --lines --loss-after \\t --context-weight 0.5 \
         --embedding 8 --hidden 24 --batch 5 --epochs 4 --learning-rate 0.02",
        path("pairs.tsv"),
        path("valid.tsv"),
        path("model")
    );
    let trained = Chorus::run(train.split_whitespace().collect::<Vec<_>>());
    assert!(trained.status.success(), "{}", trained.stderr);
    let validations = learning_curve(folder.path(), "model");
    let validations = validations.iter().filter_map(|line| line["valid_perplexity"].as_f64());
    let best = validations.fold(f64::INFINITY, f64::min);
    let evaluate =
        format!("eval --model {} {} --lines --loss-after \\t --json", path("model"), path("valid.tsv"));
    let evaluated = Chorus::run(evaluate.split_whitespace().collect::<Vec<_>>());
    assert!(evaluated.status.success(), "{}", evaluated.stderr);
    let report: serde_json::Value = serde_json::from_str(&evaluated.stdout).unwrap();
    assert!((report["perplexity"].as_f64().unwrap() / best - 1.0).abs() < 1e-4, "{report} {best}");
    // The letters after the tab, and each line's end.
    let letters: usize = words.iter().map(|word| word.len() + 1).sum();
    assert_eq!((&report["lines"], &report["tokens"]), (&words.len().into(), &letters.into()));
    // A line without a tab is named.
    fs::write(path("valid.tsv"), "loop\tpool\nloop\n").unwrap();
    let refused = Chorus::run(evaluate.split_whitespace().collect::<Vec<_>>());
    assert!(refused.stderr.contains("line 2 of") && refused.stderr.contains("has no"), "{}", refused.stderr);
}
