//! Imports of other people's weights: what is recognised, and one clear error for everything that is not.
//! The `.pt` files are made by `make.py`.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod files;
mod keys;
mod vocabularies;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use chorus_model::import::{EndChoice, ImportError, Imported, StartChoice, import};
use safetensors::tensor::{Dtype, TensorView};
use tempfile::TempDir;

pub(crate) const WORDS: &str = "the\ncat\n<eos>\nsat\n<unk>\n";
pub(crate) const V: usize = 5;

/// Tensors to write: shape, type and bytes by key.
pub(crate) type Tensors = BTreeMap<String, (Vec<usize>, Dtype, Vec<u8>)>;

pub(crate) fn numbers(number: usize, count: usize) -> Vec<f32> {
    (0..count).map(|i| ((7 * i + number) % 13) as f32 / 8.0 - 0.75).collect()
}

pub(crate) fn put(tensors: &mut Tensors, key: &str, shape: &[usize]) {
    let bytes = numbers(key.len(), shape.iter().product()).into_iter().flat_map(f32::to_le_bytes).collect();
    tensors.insert(key.to_owned(), (shape.to_vec(), Dtype::F32, bytes));
}

pub(crate) fn put_all(shapes: &[(&str, &[usize])]) -> Tensors {
    let mut tensors = Tensors::new();
    for (key, shape) in shapes {
        put(&mut tensors, key, shape);
    }
    tensors
}

/// E = 2, H = 3, one layer, everything there.
pub(crate) fn complete() -> Tensors {
    put_all(&[
        ("embedding.weight", &[V, 2]),
        ("lstm.weight_ih_l0", &[12, 2]),
        ("lstm.weight_hh_l0", &[12, 3]),
        ("lstm.bias_ih_l0", &[12]),
        ("lstm.bias_hh_l0", &[12]),
        ("fc.weight", &[V, 3]),
        ("fc.bias", &[V]),
    ])
}

pub(crate) fn import_files(weights: &Path, vocabulary: &Path) -> Result<Imported, ImportError> {
    import(weights, vocabulary, "alto", &StartChoice::Suggested, &EndChoice::Suggested)
}

pub(crate) fn import_tensors(tensors: &Tensors) -> Result<Imported, ImportError> {
    let folder = TempDir::new().unwrap();
    let views = tensors.iter().map(|(key, (shape, dtype, bytes))| {
        (key.clone(), TensorView::new(*dtype, shape.clone(), bytes).unwrap())
    });
    let weights = folder.path().join("weights.safetensors");
    std::fs::write(&weights, safetensors::serialize(views, None).unwrap()).unwrap();
    import_files(&weights, &write(&folder, "vocab.txt", WORDS.as_bytes()))
}

pub(crate) fn write(folder: &TempDir, name: &str, bytes: &[u8]) -> PathBuf {
    let path = folder.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

pub(crate) fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/import").join(name)
}

pub(crate) fn import_fixture(name: &str) -> Result<Imported, ImportError> {
    let folder = TempDir::new().unwrap();
    import_files(&fixture(name), &write(&folder, "vocab.txt", WORDS.as_bytes()))
}

pub(crate) fn values(imported: &Imported, name: &str) -> Vec<f32> {
    imported.parts.tensors[name].flatten_all().unwrap().to_vec1().unwrap()
}

/// The error and its causes, as the user sees them.
pub(crate) fn sentence(error: &ImportError) -> String {
    let causes = std::iter::successors(std::error::Error::source(error), |cause| cause.source());
    causes.fold(error.to_string(), |sentence, cause| format!("{sentence}: {cause}"))
}

pub(crate) fn assert_complete(imported: &Imported) {
    let shapes: BTreeMap<String, Vec<usize>> =
        imported.parts.tensors.iter().map(|(name, tensor)| (name.clone(), tensor.dims().to_vec())).collect();
    assert_eq!(shapes, imported.parts.config.tensor_shapes());
}
