//! What quantising cost and saved, for people and as JSON. Computes no model.

use std::path::Path;

use anyhow::Context as _;
use chorus_model::{Evaluation, QUANTIZED_WEIGHTS_FILE, WEIGHTS_FILE};
use serde::Serialize;

use crate::client::table;

/// What the command answers; the keys are part of its interface.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct Report {
    pub(super) original: Side,
    pub(super) quantized: Side,
}

/// A model directory, before or after.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct Side {
    #[serde(rename = "type")]
    name: &'static str,
    /// Of the weights' file.
    file_bytes: u64,
    /// Of the weights as they are held to be computed with.
    memory_bytes: u64,
    #[serde(flatten)]
    measured: Option<Measured>,
}

#[derive(Debug, PartialEq, Serialize)]
struct Measured {
    tokens: u64,
    nats_per_token: f64,
    perplexity: f64,
}

impl Side {
    /// With what a text has cost; one without tokens has measured nothing.
    pub(super) fn new(
        name: &'static str,
        file_bytes: u64,
        memory_bytes: u64,
        evaluation: Option<&Evaluation>,
    ) -> Self {
        let measured = evaluation.and_then(|evaluation| {
            let nats_per_token = evaluation.nats_per_token()?;
            Some(Measured { tokens: evaluation.tokens, nats_per_token, perplexity: nats_per_token.exp() })
        });
        Self { name, file_bytes, memory_bytes, measured }
    }
}

impl Report {
    /// One line for either side.
    pub(super) fn table(&self) -> String {
        let is_measured = self.original.measured.is_some();
        let mut header = vec!["weights", "file bytes", "memory bytes"];
        if is_measured {
            header.extend(["tokens", "nats/token", "perplexity"]);
        }
        let rows = [&self.original, &self.quantized].map(|side| {
            let mut row =
                vec![side.name.to_owned(), side.file_bytes.to_string(), side.memory_bytes.to_string()];
            if let Some(Measured { tokens, nats_per_token, perplexity }) = &side.measured {
                row.extend([tokens.to_string(), format!("{nats_per_token:.4}"), format!("{perplexity:.4}")]);
            }
            row
        });
        table(&header, &[], rows)
    }
}

/// The size of a model directory's file of weights.
///
/// # Errors
/// There is none.
pub(super) fn weight_file_bytes(directory: &Path) -> anyhow::Result<u64> {
    let path = [QUANTIZED_WEIGHTS_FILE, WEIGHTS_FILE].map(|name| directory.join(name));
    let [quantized, plain] = &path;
    let path = if quantized.exists() { quantized } else { plain };
    let metadata = path.metadata().with_context(|| format!("can't read {}", path.display()))?;
    Ok(metadata.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(evaluation: Option<&Evaluation>) -> Report {
        Report {
            original: Side::new("original", 4000, 5000, evaluation),
            quantized: Side::new("q4k", 600, 700, evaluation),
        }
    }

    #[test]
    fn without_a_text_there_are_sizes() {
        let report = report(None);
        let words: Vec<String> = report.table().split_whitespace().map(str::to_owned).collect();
        assert_eq!(words[5..], ["original", "4000", "5000", "q4k", "600", "700"]);
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(
            json["quantized"],
            serde_json::json!({"type": "q4k", "file_bytes": 600, "memory_bytes": 700})
        );
    }

    #[test]
    fn with_a_text_there_is_a_perplexity_too() {
        let report = report(Some(&Evaluation { tokens: 10, nats: 20.0 }));
        assert!(report.table().contains(&format!("{:.4}", 2f64.exp())), "{}", report.table());
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(
            (json["original"]["tokens"].as_u64(), json["original"]["nats_per_token"].as_f64()),
            (Some(10), Some(2.0))
        );
    }
}
