//! Files as PyTorch writes them, and hostile ones.

use std::io::Write;

use chorus_model::import::{ImportError, Imported};
use proptest::prelude::*;
use tempfile::TempDir;

use crate::{
    WORDS, assert_complete, fixture, import_files, import_fixture, numbers, sentence, values, write,
};

#[test]
fn a_pytorch_checkpoint_is_read_with_its_views_types_and_prefixes() {
    let imported = import_fixture("checkpoint.pt").unwrap();
    assert_complete(&imported);
    assert!(imported.parts.config.tied, "both tables are one storage");
    assert_eq!(imported.parts.config.layers, 2);
    let expected = [
        ("embed.weight", 0, 15),
        ("rnn.weight_ih_l0", 1, 36),
        ("rnn.weight_hh_l0", 2, 36),
        ("rnn.bias_ih_l0", 3, 12),
        ("rnn.bias_hh_l0", 4, 12),
        ("rnn.weight_ih_l1", 5, 36),
        ("rnn.weight_hh_l1", 6, 36),
        ("rnn.bias_ih_l1", 7, 12),
        ("rnn.bias_hh_l1", 8, 12),
        ("linear.bias", 9, 5),
    ];
    for (name, number, count) in expected {
        assert_eq!(values(&imported, name), numbers(number, count), "{name}");
    }
}

#[test]
fn other_pytorch_files_are_refused_with_a_way_out() {
    let error = sentence(&import_fixture("integers.pt").unwrap_err());
    assert!(error.contains("\"fc.bias\"") && error.contains("long"), "{error}");
    let error = sentence(&import_fixture("old.pt").unwrap_err());
    assert!(error.contains("torch.save it again"), "{error}");
    let error = sentence(&import_fixture("module.pt").unwrap_err());
    assert!(error.contains("state_dict()"), "{error}");
    let error = sentence(&import_pickle(b"\x80\x04\x95\0\0\0\0\0\0\0\0}.").unwrap_err());
    assert!(error.contains("protocol 4") && error.contains("protocol 2"), "{error}");
    assert!(matches!(import_fixture("absent.pt"), Err(ImportError::Read { .. })));
    let error = sentence(&import_fixture("").unwrap_err());
    assert!(error.contains("not a regular file"), "{error}");
    assert!(sentence(&import_fixture("make.py").unwrap_err()).contains("damaged"));
}

/// Puts a pickle into an archive as PyTorch lays it out.
fn import_pickle(pickle: &[u8]) -> Result<Imported, ImportError> {
    let folder = TempDir::new().unwrap();
    let mut zip = zip::ZipWriter::new(std::fs::File::create(folder.path().join("w.pt")).unwrap());
    let stored = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    zip.start_file("archive/data.pkl", stored).unwrap();
    zip.write_all(pickle).unwrap();
    zip.finish().unwrap();
    import_files(&folder.path().join("w.pt"), &write(&folder, "vocab.txt", WORDS.as_bytes()))
}

#[test]
fn hostile_pickles_are_errors() {
    let doubling = [b"N".to_vec(), b"q\0h\0\x86".repeat(64), b".".to_vec()].concat();
    let tensor = |args: &[u8]| [b"}X\x01\0\0\0actorch._utils\n_rebuild_tensor_v2\n", args, b"Rs."].concat();
    let cases: [(&str, Vec<u8>, &str); 11] = [
        ("empty", vec![], "broken"),
        ("doubles itself", doubling, "nested or repeated"),
        ("nests", [b"N".to_vec(), vec![0x85; 200_000], b".".to_vec()].concat(), "nested or repeated"),
        (
            "nests by setting",
            [b"}N".repeat(100), b"}".to_vec(), b"s".repeat(100), b".".to_vec()].concat(),
            "nested",
        ),
        ("long text", b"X\xff\xff\xff\xff.".to_vec(), "impossible operand"),
        ("long number", [vec![0x8a, 0xff], vec![1; 255], b".".to_vec()].concat(), "state_dict"),
        ("long number that ends", [vec![0x8a, 0xff], vec![1; 99]].concat(), "impossible operand"),
        ("empty stack", b"\x86.".to_vec(), "broken"),
        ("no dictionary", b"K\x01.".to_vec(), "state_dict"),
        ("no arguments", tensor(b")"), "no plain dense tensor"),
        ("odd arguments", tensor(b"(NNNNt"), "no plain dense tensor"),
    ];
    for (what, pickle, expected) in cases {
        let sentence = sentence(&import_pickle(&pickle).expect_err(what));
        assert!(sentence.contains(expected), "{what}: {sentence}");
    }
}

#[test]
fn a_tensor_that_no_archive_of_this_size_holds_is_refused_by_its_name() {
    let storage = b"(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuJ\0\0\0\x40tQ";
    let view = [b"(".as_slice(), storage, b"K\0J\0\0\0\x40\x85K\x01\x85\x89Nt"].concat();
    let pickle =
        [b"}X\x07\0\0\0fc.biasctorch._utils\n_rebuild_tensor_v2\n", view.as_slice(), b"Rs."].concat();
    let error = import_pickle(&pickle).unwrap_err();
    let expected =
        "\"fc.bias\" can't be read: with its shape [1073741824] the tensors are more than 16 times";
    assert!(sentence(&error).contains(expected), "{}", sentence(&error));
}

#[test]
fn truncated_files_are_errors() {
    let folder = TempDir::new().unwrap();
    let vocabulary = write(&folder, "vocab.txt", WORDS.as_bytes());
    let checkpoint = std::fs::read(fixture("checkpoint.pt")).unwrap();
    for length in (0..checkpoint.len()).step_by(61) {
        let weights = write(&folder, "w.pt", &checkpoint[..length]);
        assert!(import_files(&weights, &vocabulary).is_err(), "{length} bytes");
    }
    let header = write(&folder, "w.safetensors", &[[0xff; 8].as_slice(), b"{}"].concat());
    assert!(matches!(import_files(&header, &vocabulary), Err(ImportError::Damaged { .. })));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn damaged_checkpoints_never_panic(places in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
        let folder = TempDir::new().unwrap();
        let mut checkpoint = std::fs::read(fixture("checkpoint.pt")).unwrap();
        for (place, byte) in places {
            let at = place.index(checkpoint.len());
            checkpoint[at] = byte;
        }
        let weights = write(&folder, "w.pt", &checkpoint);
        let _ = import_files(&weights, &write(&folder, "vocab.txt", WORDS.as_bytes()));
    }

    #[test]
    fn damaged_pickles_never_panic(places in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
        // Without the archive's checksum in the way.
        let mut archive = zip::ZipArchive::new(std::fs::File::open(fixture("checkpoint.pt")).unwrap()).unwrap();
        let mut pickle = Vec::new();
        std::io::copy(&mut archive.by_name("checkpoint/data.pkl").unwrap(), &mut pickle).unwrap();
        for (place, byte) in places {
            let at = place.index(pickle.len());
            pickle[at] = byte;
        }
        let _ = import_pickle(&pickle);
    }
}
