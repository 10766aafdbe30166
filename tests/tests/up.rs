//! `chorus up`: one command, five processes, and nothing left of them afterwards.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::Path,
};

use chorus_proto::v1::StatusRequest;
use chorus_tests::{
    Chorus, clients,
    clients::EnsembleClient,
    models,
    process::{Ended, children, is_alive, kill_process},
};
use nix::sys::signal::Signal;
use tempfile::TempDir;
use tonic::transport::Channel;

/// An ensemble that `up` started, ready to serve.
struct Up {
    process: Chorus,
    address: String,
    /// Where its page is: host and port.
    page: String,
    try_it: String,
}

impl Up {
    fn start() -> Self {
        let folder = models::demo("alto").parent().unwrap().to_owned();
        let mut process =
            Chorus::start(["up", "--listen", "127.0.0.1:0", "--models", folder.to_str().unwrap()]);
        let address = process.read_until("address of the ensemble", |line| {
            let (name, rest) = line.trim().split_once(' ')?;
            (name == "ensemble").then(|| rest.trim().to_owned())
        });
        let page = process.read_until("address of the page", |line| {
            let rest = line.trim().strip_prefix("page")?.trim().strip_prefix("http://")?;
            rest.split(' ').next().map(str::to_owned)
        });
        let try_it = process
            .read_until("line to try", |line| line.contains(" generate ").then(|| line.trim().to_owned()));
        Self { process, address, page, try_it }
    }

    async fn client(&self) -> EnsembleClient {
        EnsembleClient::new(Channel::from_shared(self.address.clone()).unwrap().connect().await.unwrap())
    }

    /// What its page's server says to a `GET`.
    fn get(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(&self.page).expect("the page is served");
        let request = format!("GET {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n", self.page);
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    fn stop(self) -> Ended {
        self.process.signal(Signal::SIGINT);
        self.process.wait()
    }
}

async fn until_gone(processes: &[i32]) {
    chorus_tests::until("all processes gone", || {
        let gone = processes.iter().all(|pid| !is_alive(*pid));
        async move { gone }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_serves_what_it_prints_and_ctrl_c_leaves_nothing() {
    let up = Up::start();
    let family = children(up.process.pid().as_raw());
    assert_eq!(family.len(), 4, "three workers and a coordinator");
    // The printed line, typed as a user types it: its last words are this binary's arguments.
    let (program, arguments) = up.try_it.split_once(" generate ").unwrap();
    assert!(program.ends_with("chorus-under-test"), "{program}");
    let (prompt, rest) = arguments.strip_prefix('"').unwrap().split_once('"').unwrap();
    let ended = Chorus::run(["generate", prompt].into_iter().chain(rest.split_whitespace()));
    assert!(ended.status.success(), "{}", ended.stderr);
    assert!(ended.stdout.len() > 100, "some text: {}", ended.stdout);
    assert!(up.get("/").contains("<title>Chorus</title>"));
    assert!(up.get("/api/status").contains("\"serving\":true"));

    let ended = up.stop();
    assert!(ended.status.success(), "{}", ended.stderr);
    for pid in family {
        assert!(!is_alive(pid), "process {pid} was left running");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_worker_is_started_again_and_takes_part_again() {
    let up = Up::start();
    let mut client = up.client().await;
    let before = children(up.process.pid().as_raw());
    // The coordinator was started last.
    kill_process(before[1]);
    chorus_tests::until("another process in its place", || {
        let now = children(up.process.pid().as_raw());
        let replaced = now.len() == 4 && !now.contains(&before[1]);
        async move { replaced }
    })
    .await;
    chorus_tests::until("three members up", || {
        let mut client = client.clone();
        async move { clients::members_up(&mut client).await == 3 }
    })
    .await;
    let reply = clients::score_text(&mut client, "What news?").await.unwrap();
    assert_eq!(reply.participation.unwrap().participants.len(), 3);
    assert!(up.stop().status.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_itself_it_leaves_nothing_running() {
    let up = Up::start();
    let family = children(up.process.pid().as_raw());
    up.process.signal(Signal::SIGKILL);
    let ended = up.process.wait();
    assert!(!ended.status.success());
    until_gone(&family).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_generation_that_runs_when_ctrl_c_comes_is_finished() {
    let up = Up::start();
    let mut client = up.client().await;
    let request = chorus_proto::v1::GenerateRequest {
        prompt: chorus_tests::text_input("ROMEO:"),
        max_tokens: Some(300),
        ..Default::default()
    };
    let mut stream = client.generate(request).await.unwrap().into_inner();
    stream.message().await.unwrap().expect("a first token");
    up.process.signal(Signal::SIGINT);
    let mut end = None;
    while let Some(reply) = stream.message().await.expect("drained, not cut") {
        end = reply.end;
    }
    assert_eq!(end.expect("it ran to its end").generated_tokens, 300);
    assert!(up.process.wait().status.success());
    assert!(client.status(StatusRequest {}).await.is_err());
}

/// Everything that is wrong at start: non-zero, one clear line that names it, nothing left.
fn refused(arguments: &[&str], words: &[&str]) {
    let ended = Chorus::run(arguments);
    assert!(!ended.status.success(), "{arguments:?} succeeded");
    let errors: Vec<&str> = ended.stderr.lines().filter(|line| line.starts_with("error: ")).collect();
    assert_eq!(errors.len(), 1, "one clear line, not: {}", ended.stderr);
    for word in words {
        assert!(errors[0].contains(word), "'{}' does not say '{word}'", errors[0]);
    }
    assert!(!ended.stderr.contains("panicked"), "{}", ended.stderr);
}

fn copy_of_demo(folder: &Path) {
    for name in models::DEMO {
        fs::create_dir(folder.join(name)).unwrap();
        for entry in fs::read_dir(models::demo(name)).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() {
                fs::copy(&path, folder.join(name).join(path.file_name().unwrap())).unwrap();
            }
        }
    }
}

#[test]
fn what_is_wrong_at_start_is_one_clear_line() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let demo = models::demo("alto").parent().unwrap().display().to_string();
    refused(&["up", "--listen", &taken, "--models", &demo], &[&taken, "in use"]);

    let folder = TempDir::new().unwrap();
    let path = folder.path().to_str().unwrap().to_owned();
    let up = ["up", "--listen", "127.0.0.1:0", "--models", &path];
    refused(&up, &["no models", &path]);
    refused(&["up", "--models", "not/here"], &["not/here"]);

    copy_of_demo(folder.path());
    fs::remove_file(folder.path().join("bass/model.safetensors")).unwrap();
    refused(&up, &["bass", "model.safetensors"]);

    fs::write(folder.path().join("bass/model.safetensors"), [0xff; 64]).unwrap();
    refused(&up, &["bass", "model.safetensors"]);

    fs::copy(models::demo("bass").join("model.safetensors"), folder.path().join("bass/model.safetensors"))
        .unwrap();
    let config = fs::read_to_string(folder.path().join("tenor/config.json")).unwrap();
    fs::write(folder.path().join("tenor/config.json"), config.replacen('{', "{\"colour\": \"red\",", 1))
        .unwrap();
    refused(&up, &["tenor", "config.json", "colour"]);
}

#[test]
fn members_with_different_vocabularies_are_no_ensemble() {
    let folder = TempDir::new().unwrap();
    copy_of_demo(folder.path());
    fs::remove_dir_all(folder.path().join("tenor")).unwrap();
    models::characters(&folder.path().join("tenor"), "abc \n");
    refused(
        &["up", "--listen", "127.0.0.1:0", "--models", folder.path().to_str().unwrap()],
        &["tenor: it has another vocabulary", "sha256:"],
    );
}
