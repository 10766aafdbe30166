//! Imports of other people's weights: what is recognised, and one clear error for everything that is not.
//! The `.pt` files are made by `import/make.py`.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use chorus_model::Start;
use chorus_model::import::{EndChoice, ImportError, Imported, StartChoice, import};
use proptest::prelude::*;
use safetensors::tensor::{Dtype, TensorView};
use tempfile::TempDir;

const WORDS: &str = "the\ncat\n<eos>\nsat\n<unk>\n";
const V: usize = 5;

/// Tensors to write: shape, type and bytes by key.
type Tensors = BTreeMap<String, (Vec<usize>, Dtype, Vec<u8>)>;

fn numbers(number: usize, count: usize) -> Vec<f32> {
    (0..count)
        .map(|i| ((7 * i + number) % 13) as f32 / 8.0 - 0.75)
        .collect()
}

fn put(tensors: &mut Tensors, key: &str, shape: &[usize]) {
    let bytes = numbers(key.len(), shape.iter().product())
        .into_iter()
        .flat_map(f32::to_le_bytes)
        .collect();
    tensors.insert(key.to_owned(), (shape.to_vec(), Dtype::F32, bytes));
}

fn put_all(shapes: &[(&str, &[usize])]) -> Tensors {
    let mut tensors = Tensors::new();
    for (key, shape) in shapes {
        put(&mut tensors, key, shape);
    }
    tensors
}

/// E = 2, H = 3, one layer, everything there.
fn complete() -> Tensors {
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

fn import_files(weights: &Path, vocabulary: &Path) -> Result<Imported, ImportError> {
    import(
        weights,
        vocabulary,
        "alto",
        &StartChoice::Suggested,
        &EndChoice::Suggested,
    )
}

fn import_tensors(tensors: &Tensors) -> Result<Imported, ImportError> {
    let folder = TempDir::new().unwrap();
    let views = tensors.iter().map(|(key, (shape, dtype, bytes))| {
        (
            key.clone(),
            TensorView::new(*dtype, shape.clone(), bytes).unwrap(),
        )
    });
    let weights = folder.path().join("weights.safetensors");
    std::fs::write(&weights, safetensors::serialize(views, None).unwrap()).unwrap();
    import_files(&weights, &write(&folder, "vocab.txt", WORDS.as_bytes()))
}

fn write(folder: &TempDir, name: &str, bytes: &[u8]) -> PathBuf {
    let path = folder.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/import")
        .join(name)
}

fn import_fixture(name: &str) -> Result<Imported, ImportError> {
    let folder = TempDir::new().unwrap();
    import_files(&fixture(name), &write(&folder, "vocab.txt", WORDS.as_bytes()))
}

fn values(imported: &Imported, name: &str) -> Vec<f32> {
    imported.parts.tensors[name]
        .flatten_all()
        .unwrap()
        .to_vec1()
        .unwrap()
}

/// The error and its causes, as the user sees them.
fn sentence(error: &ImportError) -> String {
    let causes = std::iter::successors(std::error::Error::source(error), |cause| cause.source());
    causes.fold(error.to_string(), |sentence, cause| {
        format!("{sentence}: {cause}")
    })
}

fn assert_complete(imported: &Imported) {
    let shapes: BTreeMap<String, Vec<usize>> = imported
        .parts
        .tensors
        .iter()
        .map(|(name, tensor)| (name.clone(), tensor.dims().to_vec()))
        .collect();
    assert_eq!(shapes, imported.parts.config.tensor_shapes());
}

#[test]
fn usual_names_become_the_names_of_a_model_directory() {
    let imported = import_tensors(&complete()).unwrap();
    assert_complete(&imported);
    let config = &imported.parts.config;
    assert_eq!(
        (
            config.vocab_size,
            config.embedding_size,
            config.hidden_size,
            config.layers
        ),
        (V, Some(2), 3, 1)
    );
    assert!(!config.tied && config.lstm_bias && config.output_bias);
    assert_eq!(
        values(&imported, "linear.weight"),
        numbers("fc.weight".len(), V * 3)
    );
    assert_eq!(
        values(&imported, "rnn.weight_hh_l0"),
        numbers("lstm.weight_hh_l0".len(), 36)
    );
    assert!(
        imported
            .renamed
            .contains(&("embedding.weight".to_owned(), "embed.weight".to_owned()))
    );
}

#[test]
fn other_names_and_prefixes_are_understood() {
    for (embedding, lstm, output) in [
        ("encoder", "rnn", "decoder"),
        ("module.wte", "module.lstm", "module.head"),
        ("model.emb", "model.lstm", "model.output_proj"),
        ("net.Embed", "net.RNN", "net.fc1"),
        ("embed_tokens", "lstm.inner", "lm_head"),
    ] {
        let names = [("embedding", embedding), ("lstm", lstm), ("fc", output)];
        let renamed = complete().into_iter().map(|(key, tensor)| {
            let (module, leaf) = key.split_once('.').unwrap();
            let (_, name) = names.iter().find(|(from, _)| *from == module).unwrap();
            (format!("{name}.{leaf}"), tensor)
        });
        let imported =
            import_tensors(&renamed.collect()).unwrap_or_else(|error| panic!("{embedding}: {error}"));
        assert_complete(&imported);
    }
}

#[test]
fn a_lstm_without_a_module_name_is_understood() {
    let tensors = complete()
        .into_iter()
        .map(|(key, tensor)| (key.replace("lstm.", ""), tensor))
        .collect();
    assert_complete(&import_tensors(&tensors).unwrap());
}

#[test]
fn one_hot_input_needs_no_embedding_and_biases_are_optional() {
    let shapes: [(&str, &[usize]); 3] = [
        ("lstm.weight_ih_l0", &[12, V]),
        ("lstm.weight_hh_l0", &[12, 3]),
        ("linear.weight", &[V, 3]),
    ];
    let imported = import_tensors(&put_all(&shapes)).unwrap();
    assert_complete(&imported);
    assert_eq!(imported.parts.config.embedding_size, None);
    assert!(
        !imported.parts.config.lstm_bias && !imported.parts.config.output_bias && !imported.parts.config.tied
    );
}

#[test]
fn a_missing_or_equal_output_matrix_is_the_embedding() {
    let mut tensors = put_all(&[
        ("emb.weight", &[V, 3]),
        ("lstm.weight_ih_l0", &[12, 3]),
        ("lstm.weight_hh_l0", &[12, 3]),
        ("out.bias", &[V]),
    ]);
    let missing = import_tensors(&tensors).unwrap();
    assert!(missing.parts.config.tied && missing.parts.config.output_bias);
    assert_complete(&missing);
    tensors.insert("out.weight".to_owned(), tensors["emb.weight"].clone());
    let equal = import_tensors(&tensors).unwrap();
    assert!(equal.parts.config.tied);
    assert_complete(&equal);
    put(&mut tensors, "out.weight", &[V, 3]);
    tensors.get_mut("out.weight").unwrap().2[0] ^= 1;
    let other = import_tensors(&tensors).unwrap();
    assert!(!other.parts.config.tied);
    assert_complete(&other);
}

#[test]
fn what_does_not_fit_is_named() {
    type Change = fn(&mut Tensors);
    let cases: [(&str, Change, &[&str]); 22] = [
        (
            "no LSTM",
            |t| t.retain(|key, _| !key.starts_with("lstm")),
            &["weight_hh_l0", "missing", "LSTM"],
        ),
        (
            "no input weights",
            |t| drop(t.remove("lstm.weight_ih_l0")),
            &["\"lstm.weight_ih_l0\" is missing"],
        ),
        (
            "no output",
            |t| t.retain(|key, _| !key.starts_with("fc")),
            &["linear.weight", "size 2", "hidden size 3"],
        ),
        (
            "no table",
            |t| t.retain(|key, _| key.starts_with("lstm")),
            &["linear.weight", "missing"],
        ),
        (
            "one bias",
            |t| drop(t.remove("lstm.bias_hh_l0")),
            &["\"lstm.bias_hh_l0\" is missing", "all biases"],
        ),
        (
            "a gap in the layers",
            |t| put(t, "lstm.weight_ih_l2", &[12, 3]),
            &["\"lstm.weight_ih_l1\" is missing"],
        ),
        (
            "a gigantic layer",
            |t| put(t, "lstm.weight_ih_l18446744073709551614", &[12, 3]),
            &["layers"],
        ),
        (
            "a layer beyond numbers",
            |t| put(t, "lstm.weight_ih_l99999999999999999999", &[12, 3]),
            &["neither"],
        ),
        (
            "something else",
            |t| put(t, "norm.weight", &[3]),
            &["\"norm.weight\" is neither"],
        ),
        (
            "no module",
            |t| put(t, "weight", &[3]),
            &["\"weight\" is neither"],
        ),
        (
            "an embedding's bias",
            |t| put(t, "embedding.bias", &[V]),
            &["\"embedding.bias\" is neither"],
        ),
        (
            "two embeddings",
            |t| put(t, "wte.weight", &[V, 2]),
            &["embedding.weight", "wte.weight", "only one"],
        ),
        (
            "two outputs",
            |t| put(t, "fc2.weight", &[V, 3]),
            &["fc.weight", "fc2.weight", "only one"],
        ),
        (
            "two LSTMs",
            |t| put(t, "lstm2.weight_ih_l0", &[12, 2]),
            &["lstm2.weight_ih_l0", "only one"],
        ),
        (
            "both directions",
            |t| put(t, "lstm.weight_ih_l0_reverse", &[12, 2]),
            &["_l0_reverse", "bidirectional"],
        ),
        (
            "projections",
            |t| put(t, "lstm.weight_hr_l0", &[2, 3]),
            &["weight_hr_l0", "proj_size"],
        ),
        (
            "a cell",
            |t| put(t, "cell.weight_ih", &[12, 2]),
            &["cell.weight_ih", "LSTMCell"],
        ),
        (
            "a GRU",
            |t| put(t, "lstm.weight_hh_l0", &[9, 3]),
            &["lstm.weight_hh_l0", "GRU"],
        ),
        (
            "an RNN",
            |t| put(t, "lstm.weight_hh_l0", &[3, 3]),
            &["lstm.weight_hh_l0", "plain RNN"],
        ),
        (
            "a crooked LSTM",
            |t| put(t, "lstm.weight_hh_l0", &[11, 3]),
            &["[11, 3]", "[4H, H]"],
        ),
        (
            "too wide an input",
            |t| put(t, "lstm.weight_ih_l0", &[12, 4]),
            &["lstm.weight_ih_l0", "[12, 4]", "[12, 2]"],
        ),
        (
            "too long an output bias",
            |t| put(t, "fc.bias", &[V + 1]),
            &["fc.bias", "[6]", "[5]"],
        ),
    ];
    for (what, change, expected) in cases {
        let mut tensors = complete();
        change(&mut tensors);
        let sentence = sentence(&import_tensors(&tensors).expect_err(what));
        assert!(
            expected.iter().all(|part| sentence.contains(part)),
            "{what}: {sentence}"
        );
    }
}

#[test]
fn tables_must_fit_the_vocabulary_and_each_other() {
    let mut tensors = complete();
    put(&mut tensors, "embedding.weight", &[V + 1, 2]);
    assert!(
        sentence(&import_tensors(&tensors).unwrap_err()).contains("fc.bias"),
        "the output has V rows"
    );
    put(&mut tensors, "fc.weight", &[V + 1, 3]);
    put(&mut tensors, "fc.bias", &[V + 1]);
    let error = import_tensors(&tensors).unwrap_err();
    assert!(
        matches!(&error, ImportError::VocabularySize { tokens: 5, rows: 6, key } if key == "embedding.weight")
    );
    tensors.remove("embedding.weight");
    let error = sentence(&import_tensors(&tensors).unwrap_err());
    assert!(
        error.contains("lstm.weight_ih_l0") && error.contains("one-hot") && error.contains("[12, 6]"),
        "{error}"
    );
    put(&mut tensors, "fc.weight", &[0, 3]);
    assert!(matches!(import_tensors(&tensors), Err(ImportError::Shape { .. })));
}

#[test]
fn weights_of_other_types_and_values_are_refused() {
    let mut tensors = complete();
    tensors.insert("fc.bias".to_owned(), (vec![V], Dtype::I64, vec![0; V * 8]));
    assert!(
        matches!(import_tensors(&tensors), Err(ImportError::Type { key, found }) if key == "fc.bias" && found == "i64")
    );
    let doubles = |value: f64| {
        [0.0, value, 0.0, 0.0, 0.0]
            .into_iter()
            .flat_map(f64::to_le_bytes)
            .collect()
    };
    tensors.insert("fc.bias".to_owned(), (vec![V], Dtype::F64, doubles(0.5)));
    assert_eq!(
        values(&import_tensors(&tensors).unwrap(), "linear.bias"),
        [0.0, 0.5, 0.0, 0.0, 0.0]
    );
    for value in [f64::NAN, f64::NEG_INFINITY, 1e300] {
        tensors.insert("fc.bias".to_owned(), (vec![V], Dtype::F64, doubles(value)));
        let error = import_tensors(&tensors).unwrap_err();
        assert!(
            matches!(&error, ImportError::NotFinite { key, index: 1, .. } if key == "fc.bias"),
            "{error}"
        );
    }
}

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
    assert!(matches!(
        import_fixture("absent.pt"),
        Err(ImportError::Read { .. })
    ));
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
    import_files(
        &folder.path().join("w.pt"),
        &write(&folder, "vocab.txt", WORDS.as_bytes()),
    )
}

#[test]
fn hostile_pickles_are_errors() {
    let doubling = [b"N".to_vec(), b"q\0h\0\x86".repeat(64), b".".to_vec()].concat();
    let tensor = |args: &[u8]| [b"}X\x01\0\0\0actorch._utils\n_rebuild_tensor_v2\n", args, b"Rs."].concat();
    let cases: [(&str, Vec<u8>, &str); 10] = [
        ("empty", vec![], "broken"),
        ("doubles itself", doubling, "nested or repeated"),
        (
            "nests",
            [b"N".to_vec(), vec![0x85; 200_000], b".".to_vec()].concat(),
            "nested or repeated",
        ),
        (
            "nests by setting",
            [b"}N".repeat(100), b"}".to_vec(), b"s".repeat(100), b".".to_vec()].concat(),
            "nested",
        ),
        ("long text", b"X\xff\xff\xff\xff.".to_vec(), "impossible operand"),
        (
            "long number",
            [vec![0x8a, 0xff], vec![1; 255], b".".to_vec()].concat(),
            "impossible operand",
        ),
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
fn truncated_files_are_errors() {
    let folder = TempDir::new().unwrap();
    let vocabulary = write(&folder, "vocab.txt", WORDS.as_bytes());
    let checkpoint = std::fs::read(fixture("checkpoint.pt")).unwrap();
    for length in (0..checkpoint.len()).step_by(61) {
        let weights = write(&folder, "w.pt", &checkpoint[..length]);
        assert!(import_files(&weights, &vocabulary).is_err(), "{length} bytes");
    }
    let header = write(&folder, "w.safetensors", &[[0xff; 8].as_slice(), b"{}"].concat());
    assert!(matches!(
        import_files(&header, &vocabulary),
        Err(ImportError::Damaged { .. })
    ));
}

#[test]
fn start_and_end_follow_the_vocabulary_or_the_wish() {
    let folder = TempDir::new().unwrap();
    let weights = fixture("checkpoint.pt");
    let cases = [
        ("v.txt", "the\ncat\n<eos>\nsat\n<unk>", Start::Token(2), None),
        ("v.txt", "a\nb\nc\nd\ne\n", Start::ZeroState, None),
        (
            "v.txt",
            "<s>\n</s>\n<eos>\r\nthe\n<unk>",
            Start::Token(0),
            Some(1),
        ),
        (
            "v.json",
            r#"{"a":0,"b":1,"c":2,"<eos>":3,"<bos>":4}"#,
            Start::Token(4),
            Some(3),
        ),
        (
            "v.json",
            r#"{"a":0,"b":1,"c":2,"d":3,"<|endoftext|>":4}"#,
            Start::Token(4),
            Some(4),
        ),
        (
            "v.json",
            r#"{"a":0,"b":1,"c":2,"d":3,"e":4}"#,
            Start::ZeroState,
            None,
        ),
    ];
    for (name, text, start, end) in cases {
        let vocabulary = write(&folder, name, text.as_bytes());
        let config = import_files(&weights, &vocabulary).unwrap().parts.config;
        assert_eq!((config.start, config.end), (start, end), "{text}");
    }
    let vocabulary = write(&folder, "v.txt", WORDS.as_bytes());
    let wish = |start: StartChoice, end: EndChoice| import(&weights, &vocabulary, "alto", &start, &end);
    let config = wish(StartChoice::ZeroState, EndChoice::Token("<eos>".to_owned()))
        .unwrap()
        .parts
        .config;
    assert_eq!((config.start, config.end), (Start::ZeroState, Some(2)));
    let config = wish(StartChoice::Token("cat".to_owned()), EndChoice::None)
        .unwrap()
        .parts
        .config;
    assert_eq!((config.start, config.end), (Start::Token(1), None));
    let error = wish(StartChoice::Token("dog".to_owned()), EndChoice::None).unwrap_err();
    assert!(matches!(error, ImportError::UnknownToken { role: "start", token } if token == "dog"));
}

#[test]
fn vocabularies_of_every_kind_are_told_apart() {
    let folder = TempDir::new().unwrap();
    let weights = fixture("checkpoint.pt");
    let tokenizer = chorus_text::Vocabulary::train_characters("abcde").unwrap();
    let tokenizer = write(&folder, "tokenizer.json", tokenizer.to_json().as_bytes());
    let map = write(&folder, "vocab.json", br#" {"b":1,"a":0,"c":2,"e":4,"d":3}"#);
    let model_is_a_word = write(&folder, "words.json", br#"{"model":1,"aa":0,"c":2,"e":4,"d":3}"#);
    let read = |path: &Path| import_files(&weights, path).unwrap().parts.vocabulary;
    assert_eq!(read(&tokenizer), read(&map));
    assert!(read(&model_is_a_word).is_word_level());
    for (name, bytes) in [
        ("v.txt", &b"a\n\nb"[..]),
        ("v.json", b"{\"a\":0"),
        ("v.json", b"{\"a\":0,\"b\":0}"),
    ] {
        let path = write(&folder, name, bytes);
        assert!(
            matches!(import_files(&weights, &path), Err(ImportError::Vocabulary { .. })),
            "{name}"
        );
    }
    let binary = write(&folder, "v.txt", &[0xff, 0xfe, 0]);
    assert!(matches!(
        import_files(&weights, &binary),
        Err(ImportError::Read { .. })
    ));
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
