//! What operators use (`deploy/`), held against the real binary: every command line in it is understood and starts, every configuration
//! is accepted, and whatever is watched exists. `.ci/deploy` has what needs other tools.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod lines;
mod sources;
mod trial;
mod watched;

use lines::Line;
use sources::{documents, read};

#[test]
fn every_command_line_is_understood_and_starts() {
    let lines = lines::all();
    // So that none is overlooked by a change of what a file looks like.
    let of = |file: &str| lines.iter().filter(|line| line.origin.starts_with(file)).count();
    for file in lines::MANIFESTS {
        // Four processes, and two commands to look at them, one where they want a token; over TLS three probes of every worker, and one of
        // the coordinator, whose life is asked for by HTTP.
        let commands = if file.contains("access") { 5 } else { 6 };
        let probes = if file.contains("access") || file.contains("tls") { 3 * 3 + 1 } else { 0 };
        assert_eq!(of(file), commands + probes, "{file}");
    }
    assert_eq!(of("compose.yaml"), 8);
    assert_eq!(of("systemd/"), 3);
    assert_eq!(of("slurm/"), 2);
    assert_eq!(of("Dockerfile"), 2);
    for line in &lines {
        trial::start(line);
    }
}

/// A test of the test: mistakes in options do not pass.
#[test]
fn a_command_line_that_is_wrong_does_not_pass() {
    for words in [
        "worker --model=/models/alto --listen=0.0.0.0:50061 --drain-timout=5",
        "worker --model=/models/alto --listen=localhost:50061",
        "worker --model=/models/alto --threads=0",
        "coordinator --member=alto=dns:alto:50061",
        "coordinator --member=alto=dns://alto:50061 --quorum-members=2",
        "coordinator --config=/etc/chorus/ensemble.toml",
        "health --addr=127.0.0.1",
    ] {
        let line = Line::new("a mistake", words.split(' ')).with_config("[quorum]\nmembres = 2\n");
        let passed = std::panic::catch_unwind(|| trial::start(&line));
        assert!(passed.is_err(), "{words}");
    }
}

/// What Kubernetes kills must have had the time to drain.
#[test]
fn pods_have_the_time_that_they_need_to_drain() {
    for file in lines::MANIFESTS {
        let mut pods = 0;
        for document in documents(file).iter().filter(|document| document["kind"] == "Deployment") {
            let pod = &document["spec"]["template"]["spec"];
            let container = &pod["containers"][0];
            let sleeps = container["lifecycle"]["preStop"]["sleep"]["seconds"].as_u64().unwrap();
            let arguments = container["args"].as_array().unwrap();
            let drains =
                arguments.iter().find_map(|word| word.as_str().unwrap().strip_prefix("--drain-timeout="));
            // A coordinator lets requests finish for ten seconds; connections get two more.
            let drains: u64 = drains.map_or(10, |seconds| seconds.parse().unwrap()) + 2;
            let given = pod["terminationGracePeriodSeconds"].as_u64().unwrap();
            assert!(given > sleeps + drains, "{file}: {}: {given}", document["metadata"]["name"]);
            pods += 1;
        }
        assert_eq!(pods, 4, "{file}");
    }
}

#[test]
fn versions_are_those_of_the_workspace() {
    let workspace = read("../Cargo.toml");
    let value = |key: &str| {
        let line = workspace.lines().find_map(|line| line.strip_prefix(key)).unwrap();
        line.trim_start_matches(" = ").trim_matches('"').to_owned()
    };
    let chart = read("helm/chorus/Chart.yaml");
    for key in ["version", "appVersion"] {
        assert!(chart.contains(&format!("\n{key}: {}\n", value("version"))), "{key} in Chart.yaml");
    }
    let image = format!("RUST_IMAGE=docker.io/library/rust:{}-", value("rust-version"));
    assert!(read("Dockerfile").contains(&image), "the Dockerfile builds with another Rust than {image}");
}
