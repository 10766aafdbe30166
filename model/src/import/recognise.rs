//! Which key is which part of the model, by the names that people give them. Looks at names only, never at shapes.

use std::collections::BTreeMap;

use super::error::ImportError;

/// Names of a module that maps tokens to vectors.
const EMBEDDING_NAMES: [&str; 11] = [
    "embed",
    "embedding",
    "embeddings",
    "encoder",
    "emb",
    "wte",
    "embed_tokens",
    "tok_embeddings",
    "word_embedding",
    "word_embeddings",
    "token_embedding",
];
/// Names of a module that maps hidden vectors to logits.
const OUTPUT_NAMES: [&str; 16] = [
    "linear",
    "fc",
    "decoder",
    "output_proj",
    "out",
    "head",
    "proj",
    "lm_head",
    "output",
    "output_layer",
    "out_proj",
    "fc_out",
    "projection",
    "dense",
    "classifier",
    "generator",
];

/// The four tensors of an LSTM layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum LayerPart {
    WeightInput,
    WeightHidden,
    BiasInput,
    BiasHidden,
}

/// The keys of the model's parts.
#[derive(Debug, Default)]
pub(super) struct Parts {
    pub(super) embedding: Option<String>,
    pub(super) output_weight: Option<String>,
    pub(super) output_bias: Option<String>,
    pub(super) layers: BTreeMap<(usize, LayerPart), String>,
    /// The path of the LSTM's module, with the dot at its end.
    pub(super) lstm_prefix: String,
}

impl LayerPart {
    /// The name of this part of a layer in a torch.nn.LSTM.
    pub(super) fn leaf(self, layer: usize) -> String {
        let part = match self {
            Self::WeightInput => "weight_ih",
            Self::WeightHidden => "weight_hh",
            Self::BiasInput => "bias_ih",
            Self::BiasHidden => "bias_hh",
        };
        format!("{part}_l{layer}")
    }
}

/// Gives every key its place in the model.
pub(super) fn recognise<'a>(keys: impl Iterator<Item = &'a String>) -> Result<Parts, ImportError> {
    let mut parts = Parts::default();
    let mut lstm: Option<(&str, &str)> = None;
    for key in keys {
        let (path, leaf) = key.rsplit_once('.').unwrap_or(("", key));
        if let Some((layer, part)) = layer_part(key, leaf)? {
            let prefix = key.strip_suffix(leaf).unwrap_or_default();
            match lstm {
                Some((known, first)) if known != prefix => return Err(ambiguous("LSTM", first, key)),
                _ => lstm = Some((prefix, key)),
            }
            parts.lstm_prefix = prefix.to_owned();
            if let Some(first) = parts.layers.insert((layer, part), key.clone()) {
                return Err(ambiguous("LSTM layer's part", &first, key));
            }
            continue;
        }
        // In a Sequential the last component is a number.
        let is_number = |part: &&str| part.bytes().all(|byte| byte.is_ascii_digit());
        let name = path.rsplit('.').find(|part| !is_number(part)).unwrap_or(path).to_lowercase();
        let name = name.trim_end_matches(|character: char| character.is_ascii_digit() || character == '_');
        let (role, place) = match leaf {
            "weight" if EMBEDDING_NAMES.contains(&name) => ("embedding", &mut parts.embedding),
            "weight" if OUTPUT_NAMES.contains(&name) => ("output layer", &mut parts.output_weight),
            "bias" if OUTPUT_NAMES.contains(&name) => ("output layer's bias", &mut parts.output_bias),
            _ => return Err(ImportError::Unrecognised { key: key.clone() }),
        };
        if let Some(first) = place.replace(key.clone()) {
            return Err(ambiguous(role, &first, key));
        }
    }
    Ok(parts)
}

/// The part of an LSTM layer that a key's last component names, if it names one.
fn layer_part(key: &str, leaf: &str) -> Result<Option<(usize, LayerPart)>, ImportError> {
    let other = |found: &str| ImportError::OtherNetwork { key: key.to_owned(), found: found.to_owned() };
    let Some((kind, rest)) = ["weight_ih", "weight_hh", "weight_hr", "bias_ih", "bias_hh"]
        .into_iter()
        .find_map(|kind| leaf.strip_prefix(kind).map(|rest| (kind, rest)))
    else {
        return Ok(None);
    };
    if rest.ends_with("_reverse") {
        return Err(other("a bidirectional network, which can't predict the next token"));
    }
    let part = match kind {
        "weight_ih" => LayerPart::WeightInput,
        "weight_hh" => LayerPart::WeightHidden,
        "bias_ih" => LayerPart::BiasInput,
        "bias_hh" => LayerPart::BiasHidden,
        _ => return Err(other("an LSTM with projections (proj_size)")),
    };
    if rest.is_empty() {
        return Err(other("a single cell (torch.nn.LSTMCell)"));
    }
    // As torch writes a number, and not 00 or +0, which would be another name for the same layer.
    let canonical = |text: &&str| text.parse::<usize>().is_ok_and(|layer| layer.to_string() == **text);
    let layer = rest.strip_prefix("_l").filter(canonical).and_then(|layer| layer.parse().ok());
    match layer {
        Some(layer) => Ok(Some((layer, part))),
        None => Err(ImportError::Unrecognised { key: key.to_owned() }),
    }
}

fn ambiguous(role: &'static str, first: &str, second: &str) -> ImportError {
    ImportError::Ambiguous { role, first: first.to_owned(), second: second.to_owned() }
}
