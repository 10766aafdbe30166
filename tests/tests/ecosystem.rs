//! The ecosystem's own clients, as PyPI has them: what README says of them is run as it stands there.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    fs,
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    os::unix::fs::symlink,
    path::Path,
    process::Stdio,
};

use chorus_tests::{
    Ensemble, PATIENT,
    python::{Python, scripts, succeed},
    skipped,
};
use tempfile::TempDir;

/// Where README says that the ensemble is.
const ADDRESS: &str = "127.0.0.1:50051";

/// The code blocks of a section of README, with what stands behind their fence.
fn blocks(section: &str) -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let readme = fs::read_to_string(root.join("README.md")).unwrap();
    let start = format!("\n## {section}\n");
    let (_, section) = readme.split_once(&start).unwrap_or_else(|| panic!("README has no '{section}'"));
    let section = section.split("\n## ").next().unwrap();
    let parts: Vec<&str> = section.split("```").collect();
    let blocks = parts.chunks(2).filter_map(|part| part.get(1)?.split_once('\n'));
    blocks.map(|(kind, text)| (kind.to_owned(), text.to_owned())).collect()
}

/// The one block of Python, and the commands of all others, in which the ensemble is at `address`.
fn page(section: &str, address: SocketAddr) -> (String, Vec<String>) {
    let at = |text: &str| text.replace(ADDRESS, &address.to_string());
    let blocks = blocks(section);
    let code: Vec<&String> =
        blocks.iter().filter(|(kind, _)| kind == "python").map(|(_, text)| text).collect();
    assert_eq!(code.len(), 1, "one block of Python in '{section}'");
    assert!(code[0].contains(ADDRESS));
    let commands = blocks.iter().filter(|(kind, _)| kind.is_empty()).flat_map(|(_, text)| {
        let joined = text.replace("\\\n", " ");
        joined.lines().filter_map(|line| line.strip_prefix("$ ")).map(at).collect::<Vec<_>>()
    });
    (at(code[0]), commands.collect())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_about_python_works_as_it_stands_there() {
    let Some(python) = Python::or_skip("the_page_about_python_works_as_it_stands_there") else { return };
    let ensemble = Ensemble::demo(PATIENT).await;
    let folder = TempDir::new().unwrap();
    symlink(Path::new(env!("CARGO_MANIFEST_DIR")).join("../proto"), folder.path().join("proto")).unwrap();
    let (code, commands) = page("From Python", ensemble.address);
    assert!(code.lines().count() <= 10, "ten lines");
    let stubs =
        commands.iter().find(|command| command.contains("grpc_tools.protoc")).expect("a command makes stubs");
    succeed(&mut python.shell(stubs, folder.path()));
    fs::write(folder.path().join("generate.py"), code).unwrap();
    let run = commands.iter().find(|command| command.ends_with("generate.py")).expect("a command runs it");
    let said = succeed(&mut python.shell(run, folder.path()));
    let (text, participants) = said.trim_end().rsplit_once('\n').unwrap();
    assert_eq!(participants, "alto, bass, tenor");
    assert!(text.len() > 60, "sixty tokens: {text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tritonclient_speaks_with_the_ensemble_and_each_member() {
    let Some(python) = Python::or_skip("tritonclient_speaks_with_the_ensemble_and_each_member") else {
        return;
    };
    let ensemble = Ensemble::demo(PATIENT).await;
    let mut script = python.program("python");
    let said = succeed(script.arg(scripts().join("inference.py")).arg(ensemble.address.to_string()));
    assert_eq!(said, "tritonclient: all is well\n");

    let folder = TempDir::new().unwrap();
    let (code, _) = page("Open Inference Protocol", ensemble.address);
    fs::write(folder.path().join("page.py"), code).unwrap();
    let said = succeed(&mut python.shell("python page.py", folder.path()));
    assert!(said.lines().count() > 2, "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn grpcio_status_reads_what_was_wrong_with_a_request() {
    let Some(python) = Python::or_skip("grpcio_status_reads_what_was_wrong_with_a_request") else { return };
    let ensemble = Ensemble::demo(PATIENT).await;
    let mut script = python.program("python");
    let said = succeed(script.arg(scripts().join("rich_errors.py")).arg(ensemble.address.to_string()));
    assert_eq!(said, "all is well\n");
}

/// `just compare-servers` takes long and runs in no test; that it still speaks the protocol is found out here.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_comparison_of_servers_speaks_the_protocol() {
    let Some(python) = Python::or_skip("the_comparison_of_servers_speaks_the_protocol") else { return };
    let ensemble = Ensemble::demo(PATIENT).await;
    let (folder, mut script) = (TempDir::new().unwrap(), python.program("python"));
    script.arg(scripts().join("comparison.py")).arg(ensemble.address.to_string()).arg(folder.path());
    assert_eq!(succeed(&mut script), "all is well\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn perf_analyzer_measures_it() {
    let test = "perf_analyzer_measures_it";
    let Some(python) = Python::or_skip(test) else { return };
    if !python.has("perf_analyzer", "perf-analyzer==2.60.0") {
        skipped(test, "PyPI has no perf_analyzer for this machine (it needs glibc 2.38)");
        return;
    }
    let ensemble = Ensemble::demo(PATIENT).await;
    let folder = TempDir::new().unwrap();
    let (_, commands) = page("Open Inference Protocol", ensemble.address);
    let mut measured = 0;
    for command in commands.iter().filter(|command| !command.starts_with("pip ")) {
        let said = succeed(&mut python.shell(command, folder.path()));
        if command.starts_with("perf_analyzer ") {
            assert!(said.contains("Throughput: ") && said.contains("Successful request count: "), "{said}");
            measured += 1;
        }
    }
    assert!(measured >= 3, "{commands:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_is_watched_and_services_are_described_to_grpcio() {
    let Some(python) = Python::or_skip("health_is_watched_and_services_are_described_to_grpcio") else {
        return;
    };
    let mut ensemble = Ensemble::demo("[quorum]\nmembers = 3\n").await;
    let mut script = python.program("python");
    script.arg(scripts().join("health_and_reflection.py")).arg(ensemble.address.to_string());
    let mut script = script.stdout(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(script.stdout.take().unwrap()).lines();
    let mut next = || said.next().expect("it goes on").unwrap();
    assert_eq!(next(), "SERVING");
    ensemble.members[0].kill();
    assert_eq!(next(), "NOT_SERVING");
    ensemble.members[0].start_again();
    assert_eq!(next(), "SERVING");
    assert!(script.wait().unwrap().success());
}
