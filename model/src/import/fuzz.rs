//! Hostile files of other people: archives, the pickles in them, and safetensors. Nothing panics, what is imported is a model,
//! and what a file takes is in proportion to what it has.

use std::io::{Cursor, Read, Write};
use std::path::Path;

use chorus_fuzz::{Encoded, Verdict, fuzz, mutated, within};
use proptest::prelude::*;
use tempfile::TempDir;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipArchive, ZipWriter};

use super::*;
use crate::fuzz::{check_sentence, check_tensors};

const VOCABULARY: &str = "the\ncat\n<eos>\nsat\n<unk>\n";

/// A folder with a vocabulary of five words, to which weights are written.
struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("vocab.txt"), VOCABULARY).unwrap();
        Self(folder)
    }

    fn import(&self, weights: &[u8]) -> Verdict {
        let path = self.0.path().join("weights");
        std::fs::write(&path, weights).unwrap();
        let vocabulary = self.0.path().join("vocab.txt");
        let (start, end) = (StartChoice::Suggested, EndChoice::Suggested);
        match within(64 * weights.len() + (8 << 20), || import(&path, &vocabulary, "alto", &start, &end)) {
            Ok(Imported { parts, renamed }) => {
                parts.config.validate().unwrap();
                check_tensors(&parts.config, &parts.tensors);
                assert_eq!(renamed.len(), parts.tensors.len());
                Verdict::Accepted
            }
            Err(error) => {
                check_sentence(&error);
                Verdict::Refused
            }
        }
    }
}

fn fixture() -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/import/checkpoint.pt")).unwrap()
}

/// The entries of an archive.
fn entries(archive: Vec<u8>) -> Vec<(String, Vec<u8>)> {
    let mut archive = ZipArchive::new(Cursor::new(archive)).unwrap();
    let count = archive.len();
    let read = |index| {
        let mut entry = archive.by_index(index).unwrap();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        (entry.name().unwrap().into_owned(), content)
    };
    (0..count).map(read).collect()
}

/// An archive with sound checksums.
fn archive(entries: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    let stored = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
    for (name, content) in entries {
        zip.start_file(name.as_str(), stored).unwrap();
        zip.write_all(content).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

#[test]
fn a_damaged_archive_is_a_model_or_an_error() {
    let folder = Folder::new();
    let cases = mutated(Just(fixture()), &["PK\u{1}\u{2}", "PK\u{3}\u{4}", "PK\u{5}\u{6}", "data.pkl"]);
    fuzz("model: PyTorch archives", cases, |Encoded(bytes)| folder.import(&bytes));
}

#[test]
fn a_damaged_pickle_is_a_model_or_an_error() {
    let folder = Folder::new();
    let entries = entries(fixture());
    let pickle = entries.iter().find(|(name, _)| name.ends_with("data.pkl")).unwrap().1.clone();
    let words = [
        "q\0",
        "h\0",
        "N",
        "}",
        "]",
        ")",
        "(",
        "t",
        "s",
        "u",
        "e",
        "R",
        "b",
        "Q",
        ".",
        "K\u{1}",
        "J\0\0\0\u{40}",
        "X\u{1}\0\0\0a",
        "q\0h\0s",
        "q\u{1}h\u{1}e",
        "(h\0h\0t",
        "ctorch\nFloatStorage\n",
    ];
    fuzz("model: pickles", mutated(Just(pickle), &words), |Encoded(bytes)| {
        let mut entries = entries.clone();
        for (name, content) in &mut entries {
            if name.ends_with("data.pkl") {
                content.clone_from(&bytes);
            }
        }
        folder.import(&archive(&entries))
    });
}

#[test]
fn damaged_safetensors_are_a_model_or_an_error() {
    let folder = Folder::new();
    let config = Config { vocab_size: 5, ..crate::fuzz::config() };
    let tensors = config.tensor_shapes().into_iter().map(|(name, shape)| {
        let tensor = candle_core::Tensor::ones(shape, candle_core::DType::F32, &candle_core::Device::Cpu);
        (name, tensor.unwrap())
    });
    let file = crate::weights::encode(&tensors.collect(), &config, crate::WeightType::F32).unwrap();
    let words = ["\"F64\"", "\"BF16\"", "\"I64\"", "weight_ih_l1", "decoder", "encoder", "_reverse", "[]"];
    fuzz("model: safetensors of others", mutated(Just(file), &words), |Encoded(bytes)| folder.import(&bytes));
}
