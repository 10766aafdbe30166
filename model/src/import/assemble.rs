//! From recognised keys to a model: the shapes are held against each other, the sizes follow from them, and the
//! tensors get the names of a model directory. Knows nothing about files.

use std::collections::BTreeMap;

use candle_core::{Device, Tensor};

use super::checkpoint::{Checkpoint, TensorInfo};
use super::error::ImportError;
use super::recognise::{LayerPart, Parts, recognise};
use crate::config::{MAX_LAYERS, MAX_VOCAB_SIZE, names};

/// What the weights say of the model, before its vocabulary is known.
pub(super) struct Assembled {
    pub(super) vocab_size: usize,
    pub(super) embedding_size: Option<usize>,
    pub(super) hidden_size: usize,
    pub(super) layers: usize,
    pub(super) tied: bool,
    pub(super) lstm_bias: bool,
    pub(super) output_bias: bool,
    /// The key that fixes the vocabulary's size.
    pub(super) vocab_key: String,
    /// The tensors under the names of a model directory, in f32.
    pub(super) tensors: BTreeMap<String, Tensor>,
    /// Which key became which tensor.
    pub(super) renamed: Vec<(String, String)>,
}

/// The shapes that were read off the weights.
struct Sizes {
    vocab_key: String,
    vocab_size: usize,
    embedding_size: Option<usize>,
    hidden_size: usize,
    layers: usize,
}

/// Recognises, checks and renames all tensors of a checkpoint.
pub(super) fn assemble(checkpoint: &Checkpoint) -> Result<Assembled, ImportError> {
    let parts = recognise(checkpoint.tensors.keys())?;
    let reader = Reader { checkpoint, parts: &parts };
    let sizes = reader.sizes()?;
    let lstm_bias = reader.check_layers(&sizes)?;
    let tied = reader.check_output(&sizes)?;
    let mut assembled = Assembled {
        vocab_size: sizes.vocab_size,
        embedding_size: sizes.embedding_size,
        hidden_size: sizes.hidden_size,
        layers: sizes.layers,
        tied,
        lstm_bias,
        output_bias: parts.output_bias.is_some(),
        vocab_key: sizes.vocab_key,
        tensors: BTreeMap::new(),
        renamed: Vec::new(),
    };
    for (key, name) in reader.names(tied) {
        assembled.tensors.insert(name.clone(), reader.tensor(key)?);
        assembled.renamed.push((key.to_owned(), name));
    }
    Ok(assembled)
}

struct Reader<'a> {
    checkpoint: &'a Checkpoint,
    parts: &'a Parts,
}

impl<'a> Reader<'a> {
    /// The sizes that everything else is held against: H from the first layer, V and E from the tables.
    fn sizes(&self) -> Result<Sizes, ImportError> {
        let layers = self.parts.layers.keys().map(|(layer, _)| layer + 1).max().unwrap_or(0);
        let hidden_key = self.layer_key(0, LayerPart::WeightHidden, "the model has no LSTM without it")?;
        let input_key = self.layer_key(0, LayerPart::WeightInput, "every layer needs its input weights")?;
        if layers > MAX_LAYERS {
            let found = format!("an LSTM of {layers} layers, more than the {MAX_LAYERS} allowed");
            return Err(ImportError::OtherNetwork { key: hidden_key.to_owned(), found });
        }
        let (rows, hidden_size) = self.matrix(hidden_key, "[4H, H]")?;
        check_gates(hidden_key, rows, hidden_size)?;
        let (_, input_size) = self.matrix(input_key, "[4H, input size]")?;
        let embedding = self.parts.embedding.as_deref();
        let vocab_key =
            embedding.or(self.parts.output_weight.as_deref()).ok_or_else(|| ImportError::Missing {
                expected: "linear.weight".to_owned(),
                reason: "there is neither an output layer nor an embedding that could take its place"
                    .to_owned(),
            })?;
        let (vocab_size, width) = self.matrix(vocab_key, "a matrix with one row for each token")?;
        let embedding_size = embedding.map(|_| width);
        match embedding_size {
            None if input_size != vocab_size => Err(ImportError::Shape {
                key: input_key.to_owned(),
                found: self.info(input_key)?.shape.clone(),
                expected: format!(
                    "[{rows}, {vocab_size}]: without an embedding the LSTM reads one-hot tokens, and {vocab_key:?} \
                     has {vocab_size} of them"
                ),
            }),
            _ => {
                Ok(Sizes { vocab_key: vocab_key.to_owned(), vocab_size, embedding_size, hidden_size, layers })
            }
        }
    }

    /// Checks every layer's shapes; whether the layers have biases.
    fn check_layers(&self, sizes: &Sizes) -> Result<bool, ImportError> {
        let gates = 4 * sizes.hidden_size;
        let bias = self.parts.layers.keys().find(|(_, part)| *part >= LayerPart::BiasInput);
        for layer in 0..sizes.layers {
            let input =
                if layer > 0 { sizes.hidden_size } else { sizes.embedding_size.unwrap_or(sizes.vocab_size) };
            let why_input =
                if layer > 0 { "the hidden size of the layer below" } else { "the size of its input" };
            let input_key =
                self.layer_key(layer, LayerPart::WeightInput, "every layer needs its input weights")?;
            self.expect(input_key, &[gates, input], &format!("4 times the hidden size by {why_input}"))?;
            let hidden_key =
                self.layer_key(layer, LayerPart::WeightHidden, "every layer needs its hidden weights")?;
            self.expect(
                hidden_key,
                &[gates, sizes.hidden_size],
                "4 times the hidden size by the hidden size",
            )?;
            for part in [LayerPart::BiasInput, LayerPart::BiasHidden].into_iter().filter(|_| bias.is_some()) {
                let bias_key = self.layer_key(layer, part, "either all biases are there or none")?;
                self.expect(bias_key, &[gates], "4 times the hidden size")?;
            }
        }
        Ok(bias.is_some())
    }

    /// Checks the output layer; whether it shares the embedding's matrix.
    fn check_output(&self, sizes: &Sizes) -> Result<bool, ImportError> {
        let (vocab, hidden) = (sizes.vocab_size, sizes.hidden_size);
        if let Some(key) = &self.parts.output_bias {
            self.expect(key, &[vocab], "one for each token")?;
        }
        match (&self.parts.output_weight, &self.parts.embedding) {
            (Some(output), embedding) => {
                self.expect(output, &[vocab, hidden], "tokens by the hidden size")?;
                match embedding {
                    Some(embedding) if sizes.embedding_size == Some(hidden) => {
                        Ok(self.checkpoint.values(output)? == self.checkpoint.values(embedding)?)
                    }
                    _ => Ok(false),
                }
            }
            (None, Some(_)) if sizes.embedding_size == Some(hidden) => Ok(true),
            (None, _) => Err(ImportError::Missing {
                expected: "linear.weight".to_owned(),
                reason: format!(
                    "the embedding's size {} is not the hidden size {hidden}, so it can't be tied to the output layer",
                    sizes.embedding_size.unwrap_or_default()
                ),
            }),
        }
    }

    /// Each key with the name of its tensor in a model directory.
    fn names(&self, tied: bool) -> Vec<(&'a str, String)> {
        let parts = self.parts;
        let output = parts.output_weight.as_deref().filter(|_| !tied);
        let single = [
            (parts.embedding.as_deref(), names::EMBED),
            (output, names::LINEAR_WEIGHT),
            (parts.output_bias.as_deref(), names::LINEAR_BIAS),
        ];
        let single = single.into_iter().filter_map(|(key, name)| Some((key?, name.to_owned())));
        let layer_name = |layer: usize, part: LayerPart| match part {
            LayerPart::WeightInput => names::weight_ih(layer),
            LayerPart::WeightHidden => names::weight_hh(layer),
            LayerPart::BiasInput => names::bias_ih(layer),
            LayerPart::BiasHidden => names::bias_hh(layer),
        };
        let layers =
            parts.layers.iter().map(|((layer, part), key)| (key.as_str(), layer_name(*layer, *part)));
        single.chain(layers).collect()
    }

    fn tensor(&self, key: &str) -> Result<Tensor, ImportError> {
        let values = self.checkpoint.values(key)?;
        Tensor::from_vec(values, self.info(key)?.shape.as_slice(), &Device::Cpu)
            .map_err(|error| ImportError::Tensor { key: key.to_owned(), reason: error.to_string() })
    }

    fn layer_key(&self, layer: usize, part: LayerPart, reason: &str) -> Result<&'a str, ImportError> {
        self.parts.layers.get(&(layer, part)).map(String::as_str).ok_or_else(|| ImportError::Missing {
            expected: format!("{}{}", self.parts.lstm_prefix, part.leaf(layer)),
            reason: reason.to_owned(),
        })
    }

    fn info(&self, key: &str) -> Result<&'a TensorInfo, ImportError> {
        self.checkpoint.tensors.get(key).ok_or_else(|| ImportError::Tensor {
            key: key.to_owned(),
            reason: "it is not in the file".to_owned(),
        })
    }

    fn matrix(&self, key: &str, expected: &str) -> Result<(usize, usize), ImportError> {
        match self.info(key)?.shape.as_slice() {
            // No vocabulary is larger, and no other size: what is computed from them can't overflow.
            [rows, columns] if [rows, columns].iter().all(|size| (1..=MAX_VOCAB_SIZE).contains(*size)) => {
                Ok((*rows, *columns))
            }
            found => {
                let (found, expected) = (found.to_vec(), expected.to_owned());
                Err(ImportError::Shape { key: key.to_owned(), found, expected })
            }
        }
    }

    fn expect(&self, key: &str, shape: &[usize], why: &str) -> Result<(), ImportError> {
        let found = &self.info(key)?.shape;
        if found == shape {
            return Ok(());
        }
        let expected = format!("{shape:?}, {why}");
        Err(ImportError::Shape { key: key.to_owned(), found: found.clone(), expected })
    }
}

/// How many gates a layer has tells which network it is: an LSTM has four.
fn check_gates(key: &str, rows: usize, hidden: usize) -> Result<(), ImportError> {
    let found = match rows {
        _ if rows == 4 * hidden => return Ok(()),
        _ if rows == 3 * hidden => "a GRU (three gates)",
        _ if rows == hidden => "a plain RNN (one gate)",
        _ => {
            let expected = "[4H, H], four gates by the hidden size (torch.nn.LSTM)".to_owned();
            return Err(ImportError::Shape { key: key.to_owned(), found: vec![rows, hidden], expected });
        }
    };
    Err(ImportError::OtherNetwork { key: key.to_owned(), found: found.to_owned() })
}
