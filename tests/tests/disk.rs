//! A disk runs full under a training run and beside an ensemble that serves from it: what was written before stays whole, the run
//! says what is wrong and goes on once there is room, and nobody who is served notices.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    fs::{self, File},
    io::{ErrorKind, Write},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use chorus_tests::{Chorus, Ensemble, MemberProcess, Running, models, namespace, running::texts};
use tempfile::TempDir;
use tokio::runtime::Builder;

/// A whole run needs 5 MB with its temporary files.
const DISK: u64 = 12 << 20;
const TOKENS: u32 = 600;

fn training(folder: &Path, out: &Path, metrics_every: u32) -> Vec<String> {
    let path = |name: &str| folder.join(name).display().to_string();
    let (data, valid, out) = (path("train.txt"), path("valid.txt"), out.display().to_string());
    let text = format!(
        "train --data {data} --valid {valid} --out {out} --name small --tokenizer characters --embedding 16 --hidden 128 \
         --layers 2 --batch 8 --bptt 16 --epochs 3 --seed 5 --metrics-every {metrics_every} --checkpoint-every 20"
    );
    text.split_whitespace().map(str::to_owned).collect()
}

/// Writes to a disk until nothing fits any more.
fn fill(disk: &Path) -> PathBuf {
    let path = disk.join("filler");
    let mut file = File::create(&path).unwrap();
    for size in [1 << 16, 1 << 10, 1] {
        while file.write_all(&vec![7; size]).is_ok() {}
    }
    let error = fs::write(disk.join("one-more"), [7]).expect_err("it is full");
    assert_eq!(error.kind(), ErrorKind::StorageFull);
    fs::remove_file(disk.join("one-more")).ok();
    path
}

fn model_files(out: &Path) -> Vec<Vec<u8>> {
    ["config.json", "tokenizer.json", "model.safetensors"]
        .map(|name| fs::read(out.join(name)).unwrap())
        .into()
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort_unstable();
    names
}

#[test]
fn a_training_run_on_a_full_disk_keeps_its_checkpoint_and_goes_on_once_there_is_room() {
    let name = "a_training_run_on_a_full_disk_keeps_its_checkpoint_and_goes_on_once_there_is_room";
    namespace::run(name, &["mount"], || {
        let folder = TempDir::new().unwrap();
        let (folder, disk) = (folder.path(), folder.path().join("disk"));
        fs::create_dir(&disk).unwrap();
        namespace::small_disk(&disk, DISK);
        fs::write(folder.join("train.txt"), models::nonsense(1, 20_000)).unwrap();
        fs::write(folder.join("valid.txt"), models::nonsense(2, 2_000)).unwrap();
        // First a line of the metrics is the first thing that finds no room, then a checkpoint is.
        for metrics_every in [1, 1_000_000] {
            let whole = folder.join(format!("whole-{metrics_every}"));
            let ended = Chorus::run(training(folder, &whole, metrics_every));
            assert!(ended.status.success(), "{}", ended.stderr);

            let out = disk.join(format!("full-{metrics_every}"));
            let checkpoint = out.join("checkpoint/checkpoint.safetensors");
            let written = || fs::metadata(&checkpoint).and_then(|file| file.modified()).ok();
            let arguments = training(folder, &out, metrics_every);
            let mut run = Chorus::start(&arguments);
            // One of step 0 is there from the beginning.
            let mut seen = None;
            for _ in 0..3 {
                while run.is_running() && written() == seen {
                    std::thread::yield_now();
                }
                seen = written();
            }
            let filler = fill(&disk);
            let ended = run.wait();
            assert_eq!(ended.status.code(), Some(1), "{}", ended.stderr);
            assert!(ended.stderr.contains(&*out.to_string_lossy()), "which file: {}", ended.stderr);
            assert!(ended.stderr.contains("No space left"), "and why: {}", ended.stderr);
            assert_eq!(names(&out.join("checkpoint")), ["checkpoint.safetensors"], "no part of another one");

            let resume = || [&arguments[..], &["--resume".to_owned()]].concat();
            let before = fs::read(&checkpoint).unwrap();
            let again = Chorus::run(resume());
            assert_eq!(again.status.code(), Some(1), "there is still no room: {}", again.stderr);
            assert!(fs::read(&checkpoint).unwrap() == before, "it is as it was");

            fs::remove_file(filler).unwrap();
            let ended = Chorus::run(resume());
            assert!(ended.status.success(), "{}", ended.stderr);
            assert!(model_files(&out) == model_files(&whole), "the same weights as without all that");
        }
    });
}

#[test]
fn workers_on_a_full_disk_serve_and_start_again() {
    let name = "workers_on_a_full_disk_serve_and_start_again";
    namespace::run(name, &["mount", "ip"], || {
        namespace::command("ip link set lo up");
        let directory = TempDir::new().unwrap();
        let disk = directory.path();
        namespace::small_disk(disk, DISK);
        for member in models::DEMO {
            let (from, to) = (models::demo(member), disk.join(member));
            fs::create_dir(&to).unwrap();
            for file in names(&from) {
                fs::copy(from.join(&file), to.join(file)).unwrap();
            }
        }
        fill(disk);
        let scenario = async {
            let twice = models::DEMO.into_iter().chain(models::DEMO);
            let workers = twice.map(|member| MemberProcess::start(member, &disk.join(member)));
            let mut ensemble = Ensemble::over(workers.collect(), "");
            ensemble.until_replicas_up(6).await;
            let client = ensemble.client().await;
            let expected = texts(&client, TOKENS).await;
            let mut running = Running::start(&client, TOKENS);
            running.until_each_has(30).await;
            let killed = Instant::now();
            for worker in &mut ensemble.members[..3] {
                worker.kill();
                worker.start_again();
            }
            ensemble.until_replicas_up(6).await;
            let whole: Duration = killed.elapsed();
            let noticed = running.finish().await;
            noticed.assert_whole(&expected);
            println!("three workers killed on a full disk: {}, whole after {whole:.1?}", noticed.summary());
        };
        Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(scenario);
    });
}
