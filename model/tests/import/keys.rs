//! What keys, shapes and types become, or why they are refused.

use chorus_model::import::ImportError;
use safetensors::tensor::Dtype;

use crate::{Tensors, V, assert_complete, complete, import_tensors, numbers, put, put_all, sentence, values};

#[test]
fn usual_names_become_the_names_of_a_model_directory() {
    let imported = import_tensors(&complete()).unwrap();
    assert_complete(&imported);
    let config = &imported.parts.config;
    assert_eq!(
        (config.vocab_size, config.embedding_size, config.hidden_size, config.layers),
        (V, Some(2), 3, 1)
    );
    assert!(!config.tied && config.lstm_bias && config.output_bias);
    assert_eq!(values(&imported, "linear.weight"), numbers("fc.weight".len(), V * 3));
    assert_eq!(values(&imported, "rnn.weight_hh_l0"), numbers("lstm.weight_hh_l0".len(), 36));
    assert!(imported.renamed.contains(&("embedding.weight".to_owned(), "embed.weight".to_owned())));
}

#[test]
fn other_names_and_prefixes_are_understood() {
    for (embedding, lstm, output) in [
        ("encoder", "rnn", "decoder"),
        ("module.wte", "module.lstm", "module.head"),
        ("model.emb", "model.lstm", "model.output_proj"),
        ("net.Embed", "net.RNN", "net.fc1"),
        ("embed_tokens", "lstm.inner", "lm_head"),
        ("encoder.0", "lstm", "fc.1"),
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
fn a_layer_has_one_name() {
    for other in ["lstm.weight_ih_l00", "lstm.weight_hh_l+0", "lstm.bias_ih_l"] {
        let mut tensors = complete();
        put(&mut tensors, other, &[12, 2]);
        let error = import_tensors(&tensors).unwrap_err();
        assert!(matches!(error, ImportError::Unrecognised { .. }), "{other}: {error}");
    }
}

#[test]
fn a_lstm_without_a_module_name_is_understood() {
    let tensors = complete().into_iter().map(|(key, tensor)| (key.replace("lstm.", ""), tensor)).collect();
    assert_complete(&import_tensors(&tensors).unwrap());
}

#[test]
fn one_hot_input_needs_no_embedding_and_biases_are_optional() {
    let shapes: [(&str, &[usize]); 3] =
        [("lstm.weight_ih_l0", &[12, V]), ("lstm.weight_hh_l0", &[12, 3]), ("linear.weight", &[V, 3])];
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
        ("no LSTM", |t| t.retain(|key, _| !key.starts_with("lstm")), &["weight_hh_l0", "missing", "LSTM"]),
        ("no input weights", |t| drop(t.remove("lstm.weight_ih_l0")), &["\"lstm.weight_ih_l0\" is missing"]),
        (
            "no output",
            |t| t.retain(|key, _| !key.starts_with("fc")),
            &["linear.weight", "size 2", "hidden size 3"],
        ),
        ("no table", |t| t.retain(|key, _| key.starts_with("lstm")), &["linear.weight", "missing"]),
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
        ("a gigantic layer", |t| put(t, "lstm.weight_ih_l18446744073709551614", &[12, 3]), &["layers"]),
        (
            "a layer beyond numbers",
            |t| put(t, "lstm.weight_ih_l99999999999999999999", &[12, 3]),
            &["neither"],
        ),
        ("something else", |t| put(t, "norm.weight", &[3]), &["\"norm.weight\" is neither"]),
        ("no module", |t| put(t, "weight", &[3]), &["\"weight\" is neither"]),
        ("an embedding's bias", |t| put(t, "embedding.bias", &[V]), &["\"embedding.bias\" is neither"]),
        (
            "two embeddings",
            |t| put(t, "wte.weight", &[V, 2]),
            &["embedding.weight", "wte.weight", "only one"],
        ),
        ("two outputs", |t| put(t, "fc2.weight", &[V, 3]), &["fc.weight", "fc2.weight", "only one"]),
        ("two LSTMs", |t| put(t, "lstm2.weight_ih_l0", &[12, 2]), &["lstm2.weight_ih_l0", "only one"]),
        (
            "both directions",
            |t| put(t, "lstm.weight_ih_l0_reverse", &[12, 2]),
            &["_l0_reverse", "bidirectional"],
        ),
        ("projections", |t| put(t, "lstm.weight_hr_l0", &[2, 3]), &["weight_hr_l0", "proj_size"]),
        ("a cell", |t| put(t, "cell.weight_ih", &[12, 2]), &["cell.weight_ih", "LSTMCell"]),
        ("a GRU", |t| put(t, "lstm.weight_hh_l0", &[9, 3]), &["lstm.weight_hh_l0", "GRU"]),
        ("an RNN", |t| put(t, "lstm.weight_hh_l0", &[3, 3]), &["lstm.weight_hh_l0", "plain RNN"]),
        ("a crooked LSTM", |t| put(t, "lstm.weight_hh_l0", &[11, 3]), &["[11, 3]", "[4H, H]"]),
        (
            "too wide an input",
            |t| put(t, "lstm.weight_ih_l0", &[12, 4]),
            &["lstm.weight_ih_l0", "[12, 4]", "[12, 2]"],
        ),
        ("too long an output bias", |t| put(t, "fc.bias", &[V + 1]), &["fc.bias", "[6]", "[5]"]),
    ];
    for (what, change, expected) in cases {
        let mut tensors = complete();
        change(&mut tensors);
        let sentence = sentence(&import_tensors(&tensors).expect_err(what));
        assert!(expected.iter().all(|part| sentence.contains(part)), "{what}: {sentence}");
    }
}

#[test]
fn tables_must_fit_the_vocabulary_and_each_other() {
    let mut tensors = complete();
    put(&mut tensors, "embedding.weight", &[V + 1, 2]);
    assert!(sentence(&import_tensors(&tensors).unwrap_err()).contains("fc.bias"), "the output has V rows");
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
    let doubles = |value: f64| [0.0, value, 0.0, 0.0, 0.0].into_iter().flat_map(f64::to_le_bytes).collect();
    tensors.insert("fc.bias".to_owned(), (vec![V], Dtype::F64, doubles(0.5)));
    assert_eq!(values(&import_tensors(&tensors).unwrap(), "linear.bias"), [0.0, 0.5, 0.0, 0.0, 0.0]);
    for value in [f64::NAN, f64::NEG_INFINITY, 1e300] {
        tensors.insert("fc.bias".to_owned(), (vec![V], Dtype::F64, doubles(value)));
        let error = import_tensors(&tensors).unwrap_err();
        assert!(
            matches!(&error, ImportError::NotFinite { key, index: 1, .. } if key == "fc.bias"),
            "{error}"
        );
    }
}
