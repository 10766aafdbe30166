//! A running coordinator's members and weights are changed under generations, by command and by SIGHUP, and none fails.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{fmt::Write as _, fs, net::SocketAddr};

use chorus_proto::v1::{GenerateReply, GenerateRequest, SamplingOptions, StatusReply, StatusRequest};
use chorus_tests::{
    Chorus, MemberProcess,
    clients::{EnsembleClient, members_up},
    generate, models,
    process::Ended,
    text_input,
};
use nix::sys::signal::Signal;
use serde_json::Value;
use tempfile::TempDir;
use tokio::{sync::watch, task::JoinHandle};
use tonic::transport::Channel;

const CALLERS: u64 = 6;

/// The demo members behind a coordinator with a file and an admin service.
struct Stage {
    workers: Vec<MemberProcess>,
    coordinator: Chorus,
    admin: SocketAddr,
    client: EnsembleClient,
    folder: TempDir,
}

impl Stage {
    async fn new() -> Self {
        let workers: Vec<_> =
            models::DEMO.iter().map(|name| MemberProcess::start(name, &models::demo(name))).collect();
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("ensemble.toml");
        fs::write(&path, file(&workers, "")).unwrap();
        let mut coordinator = Chorus::start(["coordinator".as_ref(), "--config".as_ref(), path.as_os_str()]);
        let admin = coordinator.read_until("line that says where it is administered", |line| {
            line.strip_prefix("admin listening on ").and_then(|address| address.parse().ok())
        });
        let address = coordinator.listening();
        let channel = Channel::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap();
        let client = EnsembleClient::new(channel);
        chorus_tests::until("three members up", || {
            let mut client = client.clone();
            async move { members_up(&mut client).await == 3 }
        })
        .await;
        Self { workers, coordinator, admin, client, folder }
    }

    fn members(&self, words: &[&str]) -> Ended {
        let admin = format!("--admin={}", self.admin);
        Chorus::run([&["members"], words, &[admin.as_str()]].concat())
    }

    /// The configuration after a command that has to succeed.
    fn changed(&self, words: &[&str]) -> Value {
        let ended = self.members(&[words, &["--json"]].concat());
        assert!(ended.status.success(), "{words:?}: {}", ended.stderr);
        serde_json::from_str(&ended.stdout).unwrap()
    }

    async fn status(&self) -> StatusReply {
        self.client.clone().status(StatusRequest {}).await.unwrap().into_inner()
    }

    /// Writes the file and has it read again.
    fn reload(&self, text: &str) {
        fs::write(self.folder.path().join("ensemble.toml"), text).unwrap();
        self.coordinator.signal(Signal::SIGHUP);
    }
}

fn file(workers: &[MemberProcess], extra: &str) -> String {
    let mut text = "listen = '127.0.0.1:0'\nadmin = '127.0.0.1:0'\n".to_owned();
    for worker in workers {
        let (name, address) = (&worker.name, worker.address);
        writeln!(text, "[[members]]\nname = '{name}'\naddress = 'http://{address}'").unwrap();
    }
    text + extra
}

fn request(seed: u64) -> GenerateRequest {
    GenerateRequest {
        prompt: text_input("ROMEO:\n"),
        max_tokens: Some(60),
        sampling: Some(SamplingOptions { seed: Some(seed), ..Default::default() }),
        log_probs: seed.is_multiple_of(2),
        ..Default::default()
    }
}

/// Every token of a generation has the same participants, and nobody is missing.
fn assert_undisturbed(replies: &[GenerateReply]) {
    let of = |reply: &GenerateReply| reply.participation.clone().expect("named");
    for reply in replies {
        assert!(of(reply).missing.is_empty(), "{:?}", of(reply));
        assert_eq!(of(reply).participants, of(&replies[0]).participants);
    }
}

/// Callers who generate one text after the other.
struct Callers {
    stop: watch::Sender<bool>,
    /// How many texts there are, over all callers.
    texts: watch::Sender<usize>,
    tasks: Vec<JoinHandle<()>>,
}

impl Callers {
    fn start(client: &EnsembleClient) -> Self {
        let (stop, texts) = (watch::Sender::new(false), watch::Sender::new(0));
        let call = |caller| {
            let (mut client, stop, texts) = (client.clone(), stop.subscribe(), texts.clone());
            tokio::spawn(async move {
                for text in 0.. {
                    if *stop.borrow() {
                        return;
                    }
                    let replies = generate(&mut client, request(caller + CALLERS * text)).await;
                    assert_undisturbed(&replies.expect("no generation fails"));
                    texts.send_modify(|texts| *texts += 1);
                }
            })
        };
        let tasks = (0..CALLERS).map(call).collect();
        Self { stop, texts, tasks }
    }

    /// Waits until all that runs now, and what came after it, is done.
    async fn go_on(&self) {
        let mut texts = self.texts.subscribe();
        let now = *texts.borrow();
        texts.wait_for(|texts| *texts >= now + 2 * CALLERS as usize).await.unwrap();
    }

    async fn stop(self) {
        self.stop.send_replace(true);
        for task in self.tasks {
            task.await.expect("no generation failed");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_and_weights_change_under_generations_and_none_fails() {
    let stage = Stage::new().await;
    let callers = Callers::start(&stage.client);
    callers.go_on().await;
    let tenor = format!("tenor=http://{}", stage.workers[2].address);

    let list = stage.changed(&["list"]);
    assert_eq!((&list["revision"], &list["members"][2]["name"]), (&1.into(), &"tenor".into()));
    for (revision, words) in [
        (2, &["weight", "alto=3", "bass=0.5"][..]),
        (3, &["remove", "tenor"]),
        (4, &["add", &tenor]),
        (5, &["reload"]),
    ] {
        let changed = stage.changed(words);
        assert_eq!(changed["revision"], revision, "{words:?}: {changed}");
        callers.go_on().await;
    }
    assert_eq!(stage.changed(&["list"])["members"][0]["weight"], 1.0, "the file says so");

    let nobody = stage.members(&["add", "tuba=http://127.0.0.1:9"]);
    assert_eq!(nobody.status.code(), Some(1));
    assert!(nobody.stderr.contains("member \"tuba\" is not up: unreachable"), "{}", nobody.stderr);
    let unknown = stage.members(&["remove", "tuba"]);
    assert_eq!(unknown.status.code(), Some(2));
    assert!(unknown.stderr.contains("there are: alto, bass, tenor"), "{}", unknown.stderr);
    let kept = stage.members(&["weight", "alto=2"]);
    assert!(kept.stdout.contains("alto") && kept.stderr.contains("write it into the file"), "{kept:?}");
    callers.stop().await;
    assert_eq!(stage.status().await.revision, 6);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sighup_reads_the_file_again_and_a_broken_one_changes_nothing() {
    let stage = Stage::new().await;
    let callers = Callers::start(&stage.client);
    callers.go_on().await;
    let until_revision = async |revision| {
        let what = format!("revision {revision}");
        chorus_tests::until(&what, || async { stage.status().await.revision == revision }).await;
    };
    stage.reload(&file(&stage.workers[..2], "[fusion]\nrule = 'log_linear'\n"));
    until_revision(2).await;
    assert_eq!(stage.status().await.members.len(), 2);
    callers.go_on().await;
    stage.reload(&file(&stage.workers, ""));
    until_revision(3).await;

    stage.reload(&file(&stage.workers[..1], "[quorum]\nmembers = 2\n"));
    callers.go_on().await;
    // Changes are made one after the other: what this one finds, the broken file has left.
    let after = stage.members(&["reload"]);
    assert!(after.stderr.contains("quorum.members: 2 is not allowed"), "{}", after.stderr);
    assert_eq!(stage.status().await.revision, 3);
    callers.stop().await;

    let Stage { coordinator, workers, .. } = stage;
    coordinator.signal(Signal::SIGTERM);
    let ended = coordinator.wait();
    assert!(ended.status.success(), "{}", ended.stderr);
    let refusals = ended.stderr.lines().filter(|line| line.contains("the configuration stays as it is"));
    assert!(refusals.clone().count() == 1, "{}", ended.stderr);
    assert!(refusals.clone().all(|line| line.contains("quorum.members: 2")), "{}", ended.stderr);
    drop(workers);
}
