//! An ensemble in TLS: workers, coordinator, operators and clients that know each other, and those that do not.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use chorus_net::{
    Identity,
    testing::{Authority, Validity},
};
use chorus_tests::{
    Chorus, PATIENT, models,
    process::Ended,
    python::{Python, scripts, succeed},
};
use nix::sys::signal::Signal;
use serde_json::Value;
use tempfile::TempDir;

/// Everybody listens here.
const HERE: [&str; 1] = ["127.0.0.1"];

/// A folder with certificates.
struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn put(&self, name: &str, bytes: impl AsRef<[u8]>) {
        fs::write(self.path(name), bytes).unwrap();
    }

    /// `NAME.pem` and `NAME.key`.
    fn put_identity(&self, name: &str, identity: &Identity) {
        self.put(&format!("{name}.pem"), &identity.certificate);
        self.put(&format!("{name}.key"), &identity.key);
    }

    /// A flag with the path of a file.
    fn flag(&self, flag: &str, name: &str) -> String {
        format!("--{flag}={}", self.path(name).display())
    }

    /// A worker with this identity, that refuses whoever does not know `ca.pem`.
    fn worker(&self, model: &str, identity: &str) -> (Chorus, SocketAddr) {
        let mut worker = Chorus::start([
            "worker".to_owned(),
            format!("--model={}", models::demo(model).display()),
            self.flag("tls-cert", &format!("{identity}.pem")),
            self.flag("tls-key", &format!("{identity}.key")),
            self.flag("tls-client-ca", "ca.pem"),
        ]);
        let address = worker.listening();
        (worker, address)
    }

    /// A coordinator over workers, with whatever else its file shall say; and where operators reach it.
    fn coordinator(&self, workers: &[SocketAddr], tables: &str) -> (Chorus, SocketAddr, SocketAddr) {
        let members = workers
            .iter()
            .zip(models::DEMO)
            .map(|(address, name)| format!("[[members]]\nname = '{name}'\naddress = 'https://{address}'\n"));
        let listen = "listen = '127.0.0.1:0'\nadmin = '127.0.0.1:0'\n";
        self.put("ensemble.toml", format!("{listen}{tables}{}", members.collect::<String>()));
        let mut coordinator = Chorus::start(["coordinator".to_owned(), self.flag("config", "ensemble.toml")]);
        let admin = coordinator.read_until("line that says where it is administered", |line| {
            line.strip_prefix("admin listening on ").and_then(|address| address.parse().ok())
        });
        let address = coordinator.listening();
        (coordinator, address, admin)
    }
}

fn status_of(arguments: &[String]) -> Value {
    let ended = Chorus::run([&["status".to_owned(), "--json".to_owned()], arguments].concat());
    assert!(ended.status.success(), "{}", ended.stderr);
    serde_json::from_str(&ended.stdout).unwrap()
}

/// Waits until `chorus status` says so of the first member.
async fn until_first(arguments: &[String], what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    let arguments = arguments.to_vec();
    let first = || status_of(&arguments)["members"][0].clone();
    chorus_tests::until(what, || {
        let so = is_so(&first());
        async move { so }
    })
    .await;
    first()
}

fn is_up(member: &Value) -> bool {
    member["health"] == "up"
}

/// One line that says what is wrong.
fn refused(ended: &Ended, words: &str) {
    assert_eq!(ended.status.code(), Some(1), "{}", ended.stderr);
    assert!(ended.stderr.contains(words), "{words:?} in {}", ended.stderr);
    assert_eq!(ended.stderr.trim_end().lines().count(), 1, "{}", ended.stderr);
}

const TABLES: &str = "[tls]\ncertificate = 'server.pem'\nkey = 'server.key'\nclient_ca = 'ca.pem'\n\
                      [worker_tls]\nca = 'ca.pem'\ncertificate = 'us.pem'\nkey = 'us.key'\n";

#[tokio::test]
async fn an_ensemble_in_tls_answers_whom_it_knows_and_tells_others_why_not() {
    let (folder, ca, stranger) = (Folder::new(), Authority::new("ours"), Authority::new("theirs"));
    folder.put("ca.pem", ca.pem());
    folder.put("theirs.pem", stranger.pem());
    for name in ["alto", "bass", "server", "us", "client"] {
        folder.put_identity(name, &ca.vouch(&HERE, Validity::Now));
    }
    folder.put_identity("stranger", &stranger.vouch(&HERE, Validity::Now));
    folder.put_identity("expired", &ca.vouch(&HERE, Validity::Over));
    let workers = [folder.worker("alto", "alto"), folder.worker("bass", "bass")];
    let (coordinator, address, admin) =
        folder.coordinator(&workers.each_ref().map(|worker| worker.1), TABLES);

    let addr = format!("--addr={address}");
    let trust = folder.flag("tls-ca", "ca.pem");
    let of = |name: &str| {
        [folder.flag("tls-cert", &format!("{name}.pem")), folder.flag("tls-key", &format!("{name}.key"))]
    };
    let known = [&[trust.clone()][..], &of("client")].concat();
    let here = [&known[..], std::slice::from_ref(&addr)].concat();
    until_first(&here, "the first member up", is_up).await;

    let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
    let generate = words(&["generate", "ROMEO:", "--max-tokens=5"]);
    let generated = Chorus::run([&generate[..], &here].concat());
    assert!(generated.status.success(), "{}", generated.stderr);
    assert!(!generated.stdout.is_empty());
    let listed = [&words(&["members", "list"])[..], &known, &[format!("--admin=https://{admin}")]].concat();
    let listed = Chorus::run(listed);
    assert!(listed.status.success() && listed.stdout.contains("https://"), "{}", listed.stderr);
    let bench = words(&["bench", "--concurrency=2", "--duration=1s", "--warm-up=0s", "--max-tokens=4"]);
    let measured = Chorus::run([&bench[..], &here].concat());
    assert!(measured.status.success(), "{}", measured.stderr);

    let call = |flags: &[String]| Chorus::run([&generate[..], std::slice::from_ref(&addr), flags].concat());
    refused(&call(&[]), "the server speaks TLS: this is plain text; use https://HOST:PORT, or --tls-ca FILE");
    refused(
        &call(std::slice::from_ref(&trust)),
        "the server wants a certificate from its clients, and none was shown; show",
    );
    let with = |name: &str| call(&[&[trust.clone()][..], &of(name)].concat());
    refused(&with("stranger"), "the server does not accept our certificate: it is of an unknown CA");
    refused(&with("expired"), "the server does not accept our certificate: it has expired");
    let misled = call(&[&[folder.flag("tls-ca", "theirs.pem")][..], &of("client")].concat());
    refused(
        &misled,
        "the server's certificate is of an unknown CA: of none that is trusted here; --tls-ca FILE",
    );
    let elsewhere = call(&[&known[..], &["--tls-server-name=elsewhere".to_owned()]].concat());
    refused(&elsewhere, "the server's certificate is for another name: for 127.0.0.1, not for elsewhere");

    // The server goes over to an expired certificate: what it says of itself is all that changes.
    folder.put_identity("server", &ca.vouch(&HERE, Validity::Over));
    coordinator.signal(Signal::SIGHUP);
    let arguments = [&generate[..], &here].concat();
    chorus_tests::until("the new certificate", || {
        let expired = Chorus::run(&arguments).stderr.contains("the server's certificate has expired");
        async move { expired }
    })
    .await;
}

#[tokio::test]
async fn a_worker_refuses_a_coordinator_that_it_does_not_know_and_status_says_why() {
    let (folder, ca, stranger) = (Folder::new(), Authority::new("ours"), Authority::new("theirs"));
    folder.put("ca.pem", ca.pem());
    folder.put_identity("alto", &stranger.vouch(&HERE, Validity::Now));
    let (worker, address) = folder.worker("alto", "alto");
    let (coordinator, listens, _) = folder.coordinator(&[address], "[worker_tls]\nca = 'ca.pem'\n");
    let here = [format!("--addr={listens}")];
    let reason = |words: &'static str| {
        move |member: &Value| member["reason"].as_str().is_some_and(|reason| reason.contains(words))
    };
    let words = "the server's certificate is of an unknown CA";
    let member = until_first(&here, words, reason(words)).await;
    let said = member["reason"].as_str().unwrap();
    assert!(said.starts_with(&format!("unreachable at https://{address}/: ")), "{said}");

    // The worker's certificates are read again while it runs; the coordinator has none still.
    folder.put_identity("alto", &ca.vouch(&HERE, Validity::Now));
    worker.signal(Signal::SIGHUP);
    let words = "the server wants a certificate from its clients, and none was shown";
    let member = until_first(&here, words, reason(words)).await;
    assert!(!is_up(&member), "{member}");
    drop(coordinator);

    folder.put_identity("us", &ca.vouch(&HERE, Validity::Now));
    let tables = "[worker_tls]\nca = 'ca.pem'\ncertificate = 'us.pem'\nkey = 'us.key'\n";
    let (_coordinator, listens, _) = folder.coordinator(&[address], tables);
    until_first(&[format!("--addr={listens}")], "the member up", is_up).await;
}

#[tokio::test]
async fn tokens_are_for_what_they_are_for() {
    let folder = Folder::new();
    let tokens = "[[tokens]]\nname = 'us'\nscopes = ['read']\ntoken = 'read-read-read-read'\n\
                  [[tokens]]\nname = 'ops'\nscopes = ['read', 'admin']\ntoken = 'ops-ops-ops-ops-ops'\n";
    folder.put("tokens.toml", tokens);
    for (name, token) in
        [("us", "read-read-read-read\n"), ("ops", "ops-ops-ops-ops-ops"), ("nobody", "who-who-who-who-who\n")]
    {
        folder.put(name, token);
    }
    let (_coordinator, address, admin) = folder.coordinator(
        &[],
        "[[members]]\nname = 'alto'\n\
        address = 'http://127.0.0.1:9'\n[auth]\ntokens = 'tokens.toml'\n",
    );
    let status =
        |flags: &[String]| Chorus::run([&["status".to_owned(), format!("--addr={address}")], flags].concat());
    let members = |flags: &[String]| {
        Chorus::run([&["members".to_owned(), "list".to_owned(), format!("--admin={admin}")], flags].concat())
    };
    let with = |name: &str| [folder.flag("token-file", name)];
    refused(
        &status(&[]),
        "authorization: there is no token; allowed: \"Bearer TOKEN\" with a token of the scope",
    );
    refused(&status(&with("nobody")), "authorization: nobody knows this token");
    refused(&status(&with("tokens.toml")), "tokens.toml is no token");
    assert!(status(&with("us")).status.success());
    refused(
        &members(&with("us")),
        "authorization: the token has other scopes; allowed: one with the scope \"admin\"",
    );
    assert!(members(&with("ops")).status.success());
    assert!(status(&with("ops")).status.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tritonclient_and_grpcio_come_with_certificates_and_tokens() {
    let test = "tritonclient_and_grpcio_come_with_certificates_and_tokens";
    let Some(python) = Python::or_skip(test) else { return };
    let (folder, ca) = (Folder::new(), Authority::new("ours"));
    folder.put("ca.pem", ca.pem());
    for name in ["alto", "server", "us", "client"] {
        folder.put_identity(name, &ca.vouch(&HERE, Validity::Now));
    }
    folder.put("tokens.toml", "[[tokens]]\nname = 'us'\nscopes = ['read']\ntoken = 'read-read-read-read'\n");
    folder.put("token", "read-read-read-read");
    let (_worker, worker) = folder.worker("alto", "alto");
    let tables = format!("{TABLES}[auth]\ntokens = 'tokens.toml'\n{PATIENT}");
    let (_coordinator, address, _) = folder.coordinator(&[worker], &tables);
    let here = [
        format!("--addr={address}"),
        folder.flag("tls-ca", "ca.pem"),
        folder.flag("tls-cert", "client.pem"),
        folder.flag("tls-key", "client.key"),
        folder.flag("token-file", "token"),
    ];
    until_first(&here, "the member up", is_up).await;
    let mut script = python.program("python");
    script.arg(scripts().join("secured.py")).arg(address.to_string());
    script.args(["ca.pem", "client.pem", "client.key"].map(|name| folder.path(name)));
    assert_eq!(succeed(script.arg("read-read-read-read")), "all is well\n");
}

#[test]
fn flags_and_files_that_can_t_be_used_are_named() {
    let (folder, ca) = (Folder::new(), Authority::new("ours"));
    folder.put("ca.pem", ca.pem());
    folder.put_identity("one", &ca.vouch(&HERE, Validity::Now));
    folder.put_identity("other", &ca.vouch(&HERE, Validity::Now));
    let member = "--member=alto=http://127.0.0.1:9";
    let coordinator = |flags: &[String]| {
        let words = ["coordinator", member, "--listen=127.0.0.1:0"].map(str::to_owned);
        Chorus::run([&words[..], flags].concat())
    };
    let pair = [folder.flag("tls-cert", "one.pem"), folder.flag("tls-key", "other.key")];
    refused(&coordinator(&pair), "tls.key: it is not that of the certificate");
    let absent = [folder.flag("tls-cert", "one.pem"), folder.flag("tls-key", "absent.key")];
    refused(&coordinator(&absent), "absent.key");
    let secure = Chorus::run(["coordinator", "--member=alto=https://127.0.0.1:9"]);
    assert_eq!(secure.status.code(), Some(2), "{}", secure.stderr);
    assert!(secure.stderr.contains("worker_tls.ca: the address of \"alto\""), "{}", secure.stderr);
    let alone = coordinator(&[folder.flag("tls-cert", "one.pem")]);
    assert_eq!(alone.status.code(), Some(2), "{}", alone.stderr);
    let model = |path: &Path| format!("--model={}", path.display());
    let worker = ["worker".to_owned(), model(&models::demo("alto")), pair[0].clone(), pair[1].clone()];
    refused(&Chorus::run(worker), "--tls-key: it is not that of the certificate");
}
