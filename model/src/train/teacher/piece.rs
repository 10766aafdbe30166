//! A piece of a teacher's distributions as bytes: safetensors with the tokens of a stretch of text, and either `lengths`,
//! `ids` and `probabilities` of its lists, one after the other, or `probabilities` of whole distributions.
//!
//! Nothing that the bytes say is believed before it is checked. Knows nothing about files.

use std::collections::HashMap;

use half::f16;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};

use super::error::PieceError;
use super::manifest::{Manifest, TeacherHeader};
use super::targets::{SoftTargets, TargetForm, TargetRow};

/// The key of the metadata under which the piece's number stands.
const PIECE: &str = "piece";
/// What a piece may have besides the numbers.
const MOST_HEADER_BYTES: u64 = 1 << 16;

/// The most bytes that a piece has.
pub(super) fn most_bytes(header: &TeacherHeader) -> u64 {
    let row = match header.form {
        TargetForm::TopK(most) => 8 * (1 + most as u64),
        TargetForm::Dense => 4 + 2 * header.vocab_size as u64,
    };
    (header.piece_tokens as u64).saturating_mul(row).saturating_add(MOST_HEADER_BYTES)
}

/// Piece `index`: as many distributions as tokens.
pub(super) fn encode(
    manifest: &Manifest,
    index: usize,
    tokens: &[u32],
    targets: &SoftTargets,
) -> Result<Vec<u8>, PieceError> {
    check(manifest, index, tokens, targets)?;
    let (mut lengths, mut ids, mut probabilities) = (Vec::new(), Vec::new(), Vec::new());
    for row in (0..).map_while(|position| targets.row(position)) {
        match row {
            TargetRow::List { ids: listed, probabilities: values } => {
                lengths.extend((listed.len() as u32).to_le_bytes());
                ids.extend(listed.iter().flat_map(|id| id.to_le_bytes()));
                probabilities.extend(values.iter().flat_map(|value| value.to_le_bytes()));
            }
            TargetRow::Whole(values) => {
                probabilities.extend(values.iter().flat_map(|value| value.to_le_bytes()));
            }
        }
    }
    let count = tokens.len();
    let tokens: Vec<u8> = tokens.iter().flat_map(|token| token.to_le_bytes()).collect();
    let mut tensors: Vec<(&str, Dtype, Vec<usize>, &[u8])> =
        vec![("tokens", Dtype::U32, vec![count], &tokens)];
    match manifest.header.form {
        TargetForm::TopK(_) => {
            let listed = ids.len() / 4;
            tensors.push(("lengths", Dtype::U32, vec![count], &lengths));
            tensors.push(("ids", Dtype::U32, vec![listed], &ids));
            tensors.push(("probabilities", Dtype::F32, vec![listed], &probabilities));
        }
        TargetForm::Dense => {
            let shape = vec![count, manifest.header.vocab_size];
            tensors.push(("probabilities", Dtype::F16, shape, &probabilities));
        }
    }
    let views = tensors
        .into_iter()
        .map(|(name, dtype, shape, bytes)| Ok((name, TensorView::new(dtype, shape, bytes)?)))
        .collect::<Result<Vec<_>, _>>();
    let metadata = HashMap::from([(PIECE.to_owned(), index.to_string())]);
    safetensors::serialize(views.map_err(PieceError::Format)?, Some(metadata)).map_err(PieceError::Format)
}

/// Tokens and distributions of piece `index`.
pub(super) fn decode(
    manifest: &Manifest,
    index: usize,
    bytes: &[u8],
) -> Result<(Vec<u32>, SoftTargets), PieceError> {
    let (_, metadata) = SafeTensors::read_metadata(bytes).map_err(PieceError::Format)?;
    let number = metadata.metadata().as_ref().and_then(|metadata| metadata.get(PIECE));
    let number = number.map(String::as_str).unwrap_or_default();
    if number != index.to_string() {
        return Err(PieceError::Other { found: number.chars().take(40).collect() });
    }
    let tensors = SafeTensors::deserialize(bytes).map_err(PieceError::Format)?;
    let count = manifest.positions(index).map_or(0, |positions| positions.len());
    let tokens = numbers(tensor(&tensors, "tokens", Dtype::U32, &[count])?, u32::from_le_bytes);
    let mut targets = no_targets(manifest)?;
    match manifest.header.form {
        TargetForm::TopK(_) => {
            let lengths = numbers(tensor(&tensors, "lengths", Dtype::U32, &[count])?, u32::from_le_bytes);
            let listed = lengths.iter().map(|&length| length as usize).fold(0, usize::saturating_add);
            let ids = numbers(tensor(&tensors, "ids", Dtype::U32, &[listed])?, u32::from_le_bytes);
            let probabilities = tensor(&tensors, "probabilities", Dtype::F32, &[listed])?;
            let probabilities = numbers(probabilities, f32::from_le_bytes);
            let (mut ids, mut probabilities) = (ids.as_slice(), probabilities.as_slice());
            for length in lengths {
                let length = length as usize;
                let (Some(listed), Some(values)) =
                    (ids.split_off(..length), probabilities.split_off(..length))
                else {
                    break;
                };
                targets.push_listed(listed, values)?;
            }
        }
        TargetForm::Dense => {
            let width = manifest.header.vocab_size;
            let probabilities = tensor(&tensors, "probabilities", Dtype::F16, &[count, width])?;
            for row in probabilities.chunks_exact(2 * width) {
                targets.push_whole(&numbers(row, f16::from_le_bytes))?;
            }
        }
    }
    check(manifest, index, &tokens, &targets)?;
    Ok((tokens, targets))
}

/// Whether tokens and distributions are those of a piece of this directory, as far as numbers tell.
fn check(manifest: &Manifest, index: usize, tokens: &[u32], targets: &SoftTargets) -> Result<(), PieceError> {
    let same = |field, found: String, expected: String| match found == expected {
        true => Ok(()),
        false => Err(PieceError::Differs { field, found, expected }),
    };
    let Some(positions) = manifest.positions(index) else {
        return Err(PieceError::Number { pieces: manifest.pieces() });
    };
    let expected = no_targets(manifest)?;
    same("the form", targets.form().to_string(), expected.form().to_string())?;
    same("the vocabulary size", targets.vocab_size().to_string(), expected.vocab_size().to_string())?;
    same("the temperature", targets.temperature().to_string(), expected.temperature().to_string())?;
    same("the number of tokens", tokens.len().to_string(), positions.len().to_string())?;
    same("the number of distributions", targets.len().to_string(), positions.len().to_string())?;
    let vocab_size = manifest.header.vocab_size;
    match tokens.iter().find(|&&token| token as usize >= vocab_size) {
        Some(&token) => Err(PieceError::Token { token, vocab_size }),
        None => Ok(()),
    }
}

fn no_targets(manifest: &Manifest) -> Result<SoftTargets, PieceError> {
    let TeacherHeader { form, vocab_size, temperature, .. } = manifest.header;
    Ok(SoftTargets::new(form, vocab_size, temperature)?)
}

/// The bytes of a tensor of this type and shape.
fn tensor<'a>(
    tensors: &SafeTensors<'a>,
    name: &'static str,
    dtype: Dtype,
    shape: &[usize],
) -> Result<&'a [u8], PieceError> {
    let view = tensors.tensor(name).map_err(|_| PieceError::Missing { tensor: name })?;
    if view.dtype() != dtype || view.shape() != shape {
        let words = |dtype: Dtype, shape: &[usize]| format!("type {dtype} and shape {shape:?}");
        let (found, expected) = (words(view.dtype(), view.shape()), words(dtype, shape));
        return Err(PieceError::Tensor { tensor: name, found, expected });
    }
    Ok(view.data())
}

fn numbers<T, const N: usize>(bytes: &[u8], number: impl Fn([u8; N]) -> T) -> Vec<T> {
    bytes.as_chunks().0.iter().map(|bytes| number(*bytes)).collect()
}
