//! What a run was made from, besides its options: hashes by which a resumed run is known to be the same one.
//! Knows nothing about files or training.

use serde::{Deserialize, Serialize};

/// What a run was made from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Origin {
    pub(crate) vocab_size: usize,
    /// Hashes of the texts' tokens.
    pub(crate) training_text: String,
    pub(crate) validation_text: String,
    /// The hash of the teacher's distributions. Runs from before there were teachers have none.
    #[serde(default)]
    pub(crate) teacher: Option<String>,
    /// The fingerprint of the model that the run began with.
    #[serde(default)]
    pub(crate) initial_model: Option<String>,
}

impl Origin {
    /// The first thing in which `other` differs: what it is, ours, and the other's.
    pub(crate) fn difference(&self, other: &Self) -> Option<(&'static str, String, String)> {
        let fields = |origin: &Self| {
            [
                ("vocabulary size", origin.vocab_size.to_string()),
                ("training text", origin.training_text.clone()),
                ("validation text", origin.validation_text.clone()),
                ("teacher", origin.teacher.clone().unwrap_or_default()),
                ("initial model", origin.initial_model.clone().unwrap_or_default()),
            ]
        };
        let pairs = fields(self).into_iter().zip(fields(other));
        let different = pairs.filter(|((_, ours), (_, theirs))| ours != theirs);
        different
            .map(|((field, ours), (_, theirs))| (field, words(field, &ours), words(field, &theirs)))
            .next()
    }
}

/// A value for people, who need no more of a hash than its beginning.
fn words(field: &str, value: &str) -> String {
    let begin = |characters| value.chars().take(characters).collect::<String>();
    match field {
        _ if value.is_empty() => "none".to_owned(),
        "training text" | "validation text" => format!("one whose tokens have the hash {}", begin(12)),
        "teacher" => format!("one whose distributions have the hash {}", begin(12)),
        // `sha256:` and as much of the hash.
        "initial model" => format!("one with the fingerprint {}", begin(19)),
        _ => begin(40),
    }
}
