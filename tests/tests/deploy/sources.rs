//! The files of `deploy/`, as text and as documents. Knows nothing about what is in them.

use std::{fs, path::PathBuf};

use serde_json::Value;

/// The path of a file below `deploy/`.
pub(crate) fn path(file: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../deploy").join(file)
}

/// A file below `deploy/`.
pub(crate) fn read(file: &str) -> String {
    fs::read_to_string(path(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// All documents of a file in YAML, anchors and merges followed.
pub(crate) fn documents(file: &str) -> Vec<Value> {
    serde_saphyr::from_multiple(&read(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// A list of words.
pub(crate) fn words(list: &Value) -> impl Iterator<Item = &str> {
    list.as_array().into_iter().flatten().map(|word| word.as_str().expect("a word"))
}
