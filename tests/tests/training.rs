//! `chorus train` as a process: killed with -9 in the middle and resumed, it ends with the same model, byte for byte.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    fs,
    path::{Path, PathBuf},
    time::SystemTime,
};

use chorus_tests::{Chorus, models};
use nix::sys::signal::Signal;
use tempfile::TempDir;

fn arguments(folder: &Path, out: &str) -> Vec<String> {
    let path = |name: &str| folder.join(name).display().to_string();
    let (data, valid, out) = (path("train.txt"), path("valid.txt"), path(out));
    let text = format!(
        "train --data {data} --valid {valid} --out {out} --name small --tokenizer characters --embedding 16 --hidden 96 \
         --layers 2 --dropout 0.3 --batch 8 --bptt 16 --epochs 12 --seed 5 --checkpoint-every 5"
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

/// When the killed run wrote its last checkpoint, if it did.
fn written(folder: &Path) -> Option<SystemTime> {
    fs::metadata(checkpoint(folder, "killed").join("checkpoint.safetensors"))
        .and_then(|file| file.modified())
        .ok()
}

fn checkpoint(folder: &Path, out: &str) -> PathBuf {
    folder.join(out).join("checkpoint")
}

#[test]
fn a_run_that_was_killed_and_resumed_equals_one_that_was_not() {
    let folder = TempDir::new().unwrap();
    let folder = folder.path();
    fs::write(folder.join("train.txt"), models::nonsense(1, 20_000)).unwrap();
    fs::write(folder.join("valid.txt"), models::nonsense(2, 2_000)).unwrap();

    let ended = Chorus::run(arguments(folder, "whole"));
    assert!(ended.status.success(), "{}", ended.stderr);

    // kill -9 as soon as there is a checkpoint, again and again until a run comes through.
    let mut kills = 0;
    loop {
        let mut arguments = arguments(folder, "killed");
        if written(folder).is_some() {
            arguments.push("--resume".into());
        }
        let seen = written(folder);
        let mut run = Chorus::start(arguments);
        if kills < 3 {
            let newer = || written(folder) != seen;
            while run.is_running() && !newer() {
                std::thread::yield_now();
            }
            assert!(run.is_running(), "it was to be killed in the middle");
            run.signal(Signal::SIGKILL);
            run.wait();
            kills += 1;
        } else {
            let ended = run.wait();
            assert!(ended.status.success(), "{}", ended.stderr);
            break;
        }
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
    let epochs = long.iter().position(|a| a == "--epochs").unwrap();
    long[epochs + 1] = "500".into();

    let mut run = Chorus::start(long.clone());
    while run.is_running() && !folder.join("out/metrics.jsonl").exists() {
        std::thread::yield_now();
    }
    run.signal(Signal::SIGINT);
    let ended = run.wait();
    assert_eq!(ended.status.code(), Some(130), "{}", ended.stderr);
    assert!(checkpoint(folder, "out").exists(), "{}", ended.stderr);
    assert!(ended.stderr.contains("--resume"), "it says how to go on: {}", ended.stderr);

    let again = Chorus::run(long.clone());
    assert!(!again.status.success() && again.stderr.contains("--resume"), "{}", again.stderr);

    let hidden = long.iter().position(|a| a == "--hidden").unwrap();
    long[hidden + 1] = "32".into();
    long.push("--resume".into());
    let other = Chorus::run(long);
    assert!(!other.status.success() && other.stderr.contains("hidden"), "{}", other.stderr);
}
