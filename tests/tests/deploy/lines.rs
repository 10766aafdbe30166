//! Every command line with options of `chorus` in `deploy/`, with its variables filled in as operators would.
//! Knows nothing about which options there are.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::sources::{documents, read, words};

/// Where the image and the units have the binary.
const PROGRAM: &str = "/usr/local/bin/chorus";

/// A command line, without the program itself.
#[derive(Debug)]
pub(crate) struct Line {
    /// The file, and where in it.
    pub(crate) origin: String,
    pub(crate) words: Vec<String>,
    /// What is in the file that its --config names.
    pub(crate) config: Option<String>,
}

impl Line {
    pub(crate) fn new<'a>(origin: impl Into<String>, words: impl IntoIterator<Item = &'a str>) -> Self {
        Self { origin: origin.into(), words: words.into_iter().map(str::to_owned).collect(), config: None }
    }

    pub(crate) fn with_config(mut self, config: impl Into<String>) -> Self {
        self.config = Some(config.into());
        self
    }
}

/// What the chart renders.
pub(crate) const MANIFESTS: [&str; 4] = [
    "kubernetes/chorus.yaml",
    "kubernetes/chorus-gpu.yaml",
    "kubernetes/chorus-tls.yaml",
    "kubernetes/chorus-access.yaml",
];

pub(crate) fn all() -> Vec<Line> {
    let mut lines = Vec::new();
    for file in MANIFESTS {
        lines.extend(of_manifests(file));
    }
    lines.extend(of_compose());
    for file in ["chorus-worker@.service", "chorus-coordinator.service"] {
        lines.extend(of_unit(file));
    }
    lines.extend(of_slurm());
    lines.extend(of_image());
    lines
}

fn of_manifests(file: &str) -> Vec<Line> {
    let documents = documents(file);
    let config = documents.iter().find_map(|document| document["data"]["ensemble.toml"].as_str()).unwrap();
    let pods = documents.iter().filter(|document| document["kind"] == "Deployment");
    let pods = pods.map(|document| {
        let container = &document["spec"]["template"]["spec"]["containers"][0];
        let origin = format!("{file}: {}", document["metadata"]["name"]);
        Line::new(origin, words(&container["args"])).with_config(config)
    });
    let probes = documents.iter().filter(|document| document["kind"] == "Deployment").flat_map(|document| {
        let container = &document["spec"]["template"]["spec"]["containers"][0];
        ["startupProbe", "readinessProbe", "livenessProbe"].into_iter().filter_map(move |probe| {
            let mut command = words(&container[probe]["exec"]["command"]);
            assert_eq!(command.next()?, PROGRAM, "{file}");
            Some(Line::new(format!("{file}: {probe} of {}", document["metadata"]["name"]), command))
        })
    });
    pods.chain(probes).chain(of_notes(file)).collect()
}

/// What the head of a file of manifests says that can be asked in a pod.
fn of_notes(file: &str) -> Vec<Line> {
    let text = read(file);
    let asked = text.lines().filter_map(|line| line.strip_prefix("#")?.split_once(" -- chorus "));
    asked.map(|(_, words)| Line::new(format!("{file}: notes"), words.split(' '))).collect()
}

fn of_compose() -> Vec<Line> {
    let compose = &documents("compose.yaml")[0];
    let services = compose["services"].as_object().unwrap().iter();
    let of_chorus = services.filter(|(_, service)| service["image"] == "chorus");
    of_chorus
        .flat_map(|(name, service)| {
            let mut test = words(&service["healthcheck"]["test"]);
            assert_eq!((test.next(), test.next()), (Some("CMD"), Some(PROGRAM)));
            [
                Line::new(format!("compose.yaml: {name}"), words(&service["command"])),
                Line::new(format!("compose.yaml: health of {name}"), test),
            ]
        })
        .collect()
}

fn of_unit(file: &str) -> Vec<Line> {
    let mut variables: BTreeMap<String, String> = BTreeMap::new();
    // The unit of the coordinator needs no variables.
    variables.insert("OPTIONS".to_owned(), String::new());
    if file.contains("worker") {
        let example = read("systemd/worker.env.example");
        let set = example.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
        let pairs =
            set.map(|line| line.split_once('=').unwrap_or_else(|| panic!("worker.env.example: {line}")));
        variables.extend(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }
    let unit = read(&format!("systemd/{file}"));
    let commands = unit.lines().filter(|line| line.starts_with("Exec")).filter_map(|line| {
        let (key, _) = line.split_once('=')?;
        let (_, command) = line.split_once(PROGRAM)?;
        // In a shell's loop.
        Some((key, command.split(';').next()?))
    });
    commands
        .map(|(key, command)| {
            let command = filled_in(command, &variables);
            Line::new(format!("systemd/{file}: {key}"), command.split_whitespace())
                .with_config(read("ensemble.toml"))
        })
        .collect()
}

/// The job's own command lines, of which a shell would make words.
fn of_slurm() -> Vec<Line> {
    let script = read("slurm/chorus.sbatch").replace("\\\n", " ");
    let variables = [
        ("model", "/models/alto"),
        ("listen", "0.0.0.0:0"),
        ("threads", "4"),
        ("port", "0"),
        ("worker_options[@]", "--log\" \"debug"),
        ("coordinator_options[@]", "--rule\" \"logit_max"),
        (
            "flags[@]",
            "--member\" \"alto=http://node-1:40001,http://node-2:40002\" \"--member\" \"bass=http://node-1:7",
        ),
    ];
    let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let commands = script.lines().filter_map(|line| line.split_once("\"$program\" ").map(|(_, rest)| rest));
    commands
        .map(|command| {
            let command = command.split([">", "&"].map(|end| end.chars().next().unwrap())).next().unwrap();
            let command = command.trim_end_matches(char::is_numeric);
            let words = shlex::split(&filled_in(command, &variables)).expect("quotes are closed");
            Line::new("slurm/chorus.sbatch", words.iter().map(String::as_str))
        })
        .collect()
}

/// What each of the two images does without arguments.
fn of_image() -> Vec<Line> {
    let dockerfile = read("Dockerfile");
    let started = dockerfile.matches(&format!("ENTRYPOINT [\"{PROGRAM}\"]")).count();
    let commands: Vec<Value> = dockerfile
        .lines()
        .filter_map(|line| line.strip_prefix("CMD "))
        .map(|list| serde_json::from_str(list).unwrap())
        .collect();
    assert_eq!(started, commands.len());
    commands.iter().map(|command| Line::new("Dockerfile", words(command))).collect()
}

/// The text with all its variables filled in: `$NAME`, `${NAME}`.
fn filled_in(text: &str, variables: &BTreeMap<String, String>) -> String {
    let mut filled = text.to_owned();
    for (name, value) in variables {
        filled = filled.replace(&format!("${{{name}}}"), value).replace(&format!("${name}"), value);
    }
    assert!(!filled.contains('$'), "a variable of '{text}' is not known: '{filled}'");
    filled
}
