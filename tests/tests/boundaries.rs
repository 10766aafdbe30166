//! The walls between the crates, written as absences and checked (ARCHITECTURE.md, "What each crate does not know").

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{collections::BTreeSet, fs, path::Path};

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand};

/// (crate, what it must not depend on, not even through another crate of the workspace)
const WALLS: [(&str, &[&str]); 14] = [
    (
        "chorus-kernels",
        &["tokio", "tonic", "candle-core", "chorus-proto", "chorus-text", "chorus-model", "rayon"],
    ),
    (
        "chorus-fuzz",
        &["chorus-proto", "chorus-text", "chorus-model", "chorus-worker", "chorus-coordinator", "tokio"],
    ),
    (
        "chorus-inference",
        &[
            "candle-core",
            "chorus-net",
            "chorus-text",
            "chorus-model",
            "chorus-worker",
            "chorus-coordinator",
            "chorus-cli",
        ],
    ),
    ("chorus-net", &["candle-core", "chorus-proto", "chorus-text", "chorus-model", "chorus-worker"]),
    (
        "chorus-trace",
        &["tokio", "tonic", "opentelemetry_sdk", "opentelemetry-otlp", "chorus-proto", "chorus-worker"],
    ),
    ("chorus-simd", &["tokio", "tonic", "candle-core", "chorus-proto", "chorus-model", "rayon"]),
    ("chorus-text", &["tokio", "tonic", "candle-core", "candle-nn", "chorus-proto", "chorus-model"]),
    ("chorus-proto", &["tokio", "candle-core", "candle-nn", "tokenizers", "chorus-text", "chorus-model"]),
    ("chorus-model", &["tokio", "tonic", "prost", "chorus-proto", "chorus-worker", "chorus-coordinator"]),
    ("chorus-worker", &["chorus-coordinator", "chorus-cli"]),
    (
        "chorus-tune",
        &[
            "tokio",
            "tonic",
            "prost",
            "safetensors",
            "chorus-proto",
            "chorus-net",
            "chorus-simd",
            "chorus-text",
            "chorus-model",
            "chorus-worker",
            "chorus-coordinator",
            "chorus-load",
            "chorus-cli",
        ],
    ),
    (
        "chorus-load",
        &["candle-core", "candle-nn", "chorus-model", "chorus-worker", "chorus-coordinator", "chorus-cli"],
    ),
    (
        "chorus-page",
        &["candle-core", "chorus-text", "chorus-model", "chorus-worker", "chorus-coordinator", "chorus-cli"],
    ),
    (
        "chorus-coordinator",
        &["chorus-page", "candle-core", "candle-nn", "chorus-model", "chorus-worker", "chorus-cli"],
    ),
];

fn metadata() -> Metadata {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.toml");
    MetadataCommand::new()
        .manifest_path(manifest)
        .other_options(["--offline".into()])
        .no_deps()
        .exec()
        .unwrap()
}

/// Dependencies of a crate and of the workspace's crates below it.
fn knows(metadata: &Metadata, name: &str) -> BTreeSet<String> {
    let package = metadata.packages.iter().find(|package| package.name.as_str() == name);
    let Some(package) = package else { return BTreeSet::new() };
    let direct = package.dependencies.iter().filter(|dependency| dependency.kind == DependencyKind::Normal);
    let mut all = BTreeSet::new();
    for dependency in direct {
        all.insert(dependency.name.clone());
        all.extend(knows(metadata, &dependency.name));
    }
    all
}

#[test]
fn no_crate_knows_what_it_must_know_nothing_about() {
    let metadata = metadata();
    for (name, forbidden) in WALLS {
        let known = knows(&metadata, name);
        assert!(!known.is_empty(), "{name} is a crate of the workspace with dependencies");
        for other in forbidden {
            assert!(!known.contains(*other), "{name} must know nothing about {other}");
        }
    }
}

#[test]
fn every_source_file_says_what_lives_in_it() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut seen = 0;
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() && name != "target" && !name.starts_with('.') {
                folders.push(path);
            } else if name.ends_with(".rs") {
                seen += 1;
                let text = fs::read_to_string(&path).unwrap();
                assert!(text.starts_with("//!"), "{} does not open with //!", path.display());
            }
        }
    }
    assert!(seen > 50, "the walk met the sources, not only {seen} files");
}
