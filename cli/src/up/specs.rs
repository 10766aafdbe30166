//! The command lines of the processes that `up` starts. Knows nothing about when they are started.

use std::{ffi::OsString, net::SocketAddr, path::Path};

use super::{UpArgs, models::ModelDirectory, process::ProcessSpec};
use crate::compute::ShareOfThreads;

/// A worker process of this name for a model directory: which one it is, of how many on this machine.
pub(crate) fn worker_spec(
    arguments: &UpArgs,
    name: &str,
    model: &ModelDirectory,
    (index, workers): (usize, usize),
    program: &Path,
) -> ProcessSpec {
    let mut words: Vec<OsString> = vec!["worker".into(), "--model".into(), model.path.clone().into()];
    let compute = &arguments.compute;
    let (device, threads) = (compute.device_of(index), ShareOfThreads::of(compute.threads, workers));
    words.extend(["--device".into(), device.into()]);
    words.extend(["--threads".into(), threads.own.to_string().into()]);
    if device == "cpu" && threads.spare > 0 {
        words.extend(["--spare-threads".into(), threads.spare.to_string().into()]);
    }
    words.extend(match compute.quantize {
        Some(quantization) => ["--quantize".into(), quantization.to_string().into()],
        None => ["--precision".into(), compute.precision.to_string().into()],
    });
    words.extend(log_words(arguments));
    ProcessSpec { name: name.to_owned(), program: program.to_owned(), arguments: words }
}

/// The coordinator process over members with the addresses of their replicas.
pub(super) fn coordinator_spec(
    arguments: &UpArgs,
    members: &[(&str, &[SocketAddr])],
    fallback: Option<(&str, &[SocketAddr])>,
    program: &Path,
) -> ProcessSpec {
    let mut words: Vec<OsString> = vec!["coordinator".into()];
    if let Some(config) = &arguments.config {
        words.extend(["--config".into(), config.clone().into()]);
    }
    let flag = |flag: &str, (name, replicas): (&str, &[SocketAddr])| {
        let replicas: Vec<String> = replicas.iter().map(|address| format!("http://{address}")).collect();
        OsString::from(format!("--{flag}={name}={}", replicas.join(",")))
    };
    words.extend(members.iter().map(|member| flag("member", *member)));
    words.extend(fallback.map(|fallback| flag("fallback", fallback)));
    if let Some(weights) = &arguments.weights {
        words.extend(["--weights".into(), weights.clone().into()]);
    }
    if let Some(admin) = arguments.admin {
        words.push(format!("--admin={admin}").into());
    }
    if let Some(metrics) = arguments.metrics {
        words.push(format!("--metrics={metrics}").into());
    }
    words.extend(arguments.http_hosts.iter().map(|host| format!("--http-host={host}").into()));
    words.push(match arguments.http {
        Some(http) => format!("--http={http}").into(),
        None => "--http-anywhere".into(),
    });
    if let Some(rule) = arguments.rule {
        words.push(format!("--rule={rule}").into());
    }
    if let Some(threshold) = arguments.threshold {
        words.push(format!("--threshold={threshold}").into());
    }
    words.extend(log_words(arguments));
    ProcessSpec { name: "coordinator".to_owned(), program: program.to_owned(), arguments: words }
}

fn log_words(arguments: &UpArgs) -> [OsString; 2] {
    let level = match arguments.verbose {
        0 => "warn",
        1 => "info",
        _ => "debug",
    };
    ["--log".into(), level.into()]
}

#[cfg(test)]
mod tests {
    use clap::{Args as _, FromArgMatches as _};

    use super::*;

    fn arguments(words: &[&str]) -> UpArgs {
        let command = UpArgs::augment_args(clap::Command::new("up"));
        let matches = command.get_matches_from(["up"].iter().chain(words));
        UpArgs::from_arg_matches(&matches).unwrap()
    }

    fn words(spec: &ProcessSpec) -> Vec<&str> {
        spec.arguments.iter().filter_map(|word| word.to_str()).collect()
    }

    #[test]
    fn a_worker_hosts_its_model_directory_on_the_device() {
        let model = ModelDirectory { name: "alto".into(), path: "demo/alto".into() };
        let spec = worker_spec(
            &arguments(&["--device=cuda:1", "--threads=7", "-v"]),
            "alto-2",
            &model,
            (1, 3),
            Path::new("chorus"),
        );
        let expected = [
            ["worker", "--model"],
            ["demo/alto", "--device"],
            ["cuda:1", "--threads"],
            ["2", "--precision"],
            ["f32", "--log"],
        ];
        assert_eq!(words(&spec), [expected.as_flattened(), &["info"]].concat());
        assert_eq!(spec.name, "alto-2");
        let spec = worker_spec(&arguments(&["--quantize=q4k"]), "alto", &model, (0, 1), Path::new("chorus"));
        let numbers = words(&spec).into_iter().skip_while(|word| !word.starts_with("--quantize")).take(2);
        assert_eq!(numbers.collect::<Vec<_>>(), ["--quantize", "q4k"]);
        assert!(!words(&spec).contains(&"--precision"), "a worker takes one of them");
    }

    #[test]
    fn workers_with_a_single_thread_each_help_each_other() {
        let model = ModelDirectory { name: "alto".into(), path: "demo/alto".into() };
        let spare = |up: &[&str], workers| {
            let spec = worker_spec(&arguments(up), "alto", &model, (0, workers), Path::new("chorus"));
            let words = words(&spec);
            let flag = words.iter().position(|word| *word == "--spare-threads")?;
            words.get(flag + 1).map(|count| (*count).to_owned())
        };
        assert_eq!(spare(&["--threads=2"], 3).as_deref(), Some("1"));
        assert_eq!(
            spare(&["--threads=2"], 2).as_deref(),
            Some("1"),
            "of members that differ one waits for the other"
        );
        assert_eq!(spare(&["--threads=6"], 3), None, "each has several");
        assert_eq!(spare(&["--threads=1"], 3), None, "there is one for all");
        assert_eq!(spare(&["--threads=2", "--device=cuda"], 3), None, "a GPU computes");
    }

    #[test]
    fn workers_are_spread_over_devices() {
        let model = ModelDirectory { name: "alto".into(), path: "demo/alto".into() };
        let several = arguments(&["--device=cuda:0,cuda:2"]);
        let device = |index| {
            let spec = worker_spec(&several, "alto", &model, (index, 3), Path::new("chorus"));
            words(&spec)[4].to_owned()
        };
        assert_eq!([0, 1, 2].map(device), ["cuda:0", "cuda:2", "cuda:0"]);
    }

    #[test]
    fn the_page_is_where_it_was_said_or_anywhere() {
        let spec = |up: &[&str]| coordinator_spec(&arguments(up), &[], None, Path::new("chorus"));
        assert!(words(&spec(&["--http=0.0.0.0:80"])).contains(&"--http=0.0.0.0:80"));
        assert!(words(&spec(&["--http-host=a", "--http-host=b"])).contains(&"--http-host=b"));
        assert!(words(&spec(&[])).contains(&"--http-anywhere"));
    }

    #[test]
    fn the_coordinator_has_every_member_and_what_was_said_about_fusion() {
        let up = arguments(&[
            "--rule=logit_max",
            "--threshold=0.5",
            "--config=e.toml",
            "--admin=127.0.0.1:9",
            "--weights=w.toml",
        ]);
        let [first, second, third] = ["127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"];
        let [first, second, third] = [first, second, third].map(|address| address.parse().unwrap());
        let members: [(&str, &[SocketAddr]); 2] = [("alto", &[first, second]), ("bass", &[third])];
        let of_student = [third];
        let fallback: Option<(&str, &[SocketAddr])> = Some(("student", &of_student));
        let spec = coordinator_spec(&up, &members, fallback, Path::new("chorus"));
        assert_eq!(
            words(&spec),
            [
                "coordinator",
                "--config",
                "e.toml",
                "--member=alto=http://127.0.0.1:1,http://127.0.0.1:2",
                "--member=bass=http://127.0.0.1:3",
                "--fallback=student=http://127.0.0.1:3",
                "--weights",
                "w.toml",
                "--admin=127.0.0.1:9",
                "--http-anywhere",
                "--rule=logit_max",
                "--threshold=0.5",
                "--log",
                "warn",
            ]
        );
    }
}
