//! `tokenizer.json` files of others: what is read, what is refused, and that no hostile one panics.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use chorus_text::{EncodeError, Vocabulary, VocabularyError};
use proptest::prelude::*;
use serde_json::{Value, json};

fn document(model: &Value, decoder: &Value) -> Value {
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": null, "post_processor": null, "decoder": decoder, "model": model,
    })
}

fn bpe(vocab: &Value, merges: &Value) -> Value {
    json!({"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
        "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "vocab": vocab, "merges": merges})
}

fn read(document: &Value) -> Result<Vocabulary, VocabularyError> {
    Vocabulary::from_json(document.to_string().as_bytes())
}

#[test]
fn what_is_read_is_what_is_written() {
    let vocabulary = Vocabulary::train_bpe("some text, some more text", 265).unwrap();
    let again = Vocabulary::from_json(vocabulary.to_json().as_bytes()).unwrap();
    assert_eq!(again.to_json(), vocabulary.to_json());
    assert_eq!(again, vocabulary);
}

#[test]
fn the_fingerprint_is_of_the_tokenizer_and_not_of_its_file() {
    let vocabulary = Vocabulary::train_characters("abc").unwrap();
    let mut parsed: Value = serde_json::from_str(vocabulary.to_json()).unwrap();
    let compact = read(&parsed).unwrap();
    assert_eq!(compact.fingerprint(), vocabulary.fingerprint());
    let keys = parsed.as_object_mut().unwrap();
    let model = keys.shift_remove("model").unwrap();
    keys.shift_insert(0, "model".to_owned(), model);
    keys.insert(
        "truncation".to_owned(),
        json!({"direction": "Right", "max_length": 1, "strategy": "LongestFirst", "stride": 0}),
    );
    let reordered = read(&parsed).unwrap();
    assert_eq!(reordered.fingerprint(), vocabulary.fingerprint());
    assert_eq!(reordered.encode("abc").unwrap().len(), 3, "truncation must not cut texts");
    let other = Vocabulary::train_characters("abd").unwrap();
    assert_ne!(other.fingerprint(), vocabulary.fingerprint());
    assert!(vocabulary.fingerprint().starts_with("sha256:") && vocabulary.fingerprint().len() == 71);
}

#[test]
fn documents_that_describe_no_vocabulary_are_refused() {
    type Check = fn(&VocabularyError) -> bool;
    let added = |id: u64| {
        let mut document = document(&bpe(&json!({"a": 0}), &json!([])), &Value::Null);
        document["added_tokens"] = json!([{"id": id, "content": "<s>", "single_word": false, "lstrip": false,
            "rstrip": false, "normalized": false, "special": true}]);
        document
    };
    assert_eq!(read(&added(1)).unwrap().len(), 2);
    let cases: [(Value, Check); 9] = [
        (json!(3), |error| matches!(error, VocabularyError::NotATokenizer(_))),
        (json!({"a": 0}), |error| matches!(error, VocabularyError::NotATokenizer(_))),
        (document(&bpe(&json!({}), &json!([])), &Value::Null), |error| {
            matches!(error, VocabularyError::Empty)
        }),
        (document(&bpe(&json!({"a": 0, "b": 0}), &json!([])), &Value::Null), |error| {
            matches!(error, VocabularyError::DuplicateId { .. })
        }),
        (document(&bpe(&json!({"a": 4_000_000_000_u32}), &json!([])), &Value::Null), |error| {
            matches!(error, VocabularyError::MissingId { missing: 0, .. })
        }),
        (document(&bpe(&json!({"a": -1}), &json!([])), &Value::Null), |error| {
            matches!(error, VocabularyError::NotATokenizer(_))
        }),
        (
            document(&bpe(&json!({"a": 0, "b": 1}), &json!([["a", "b"]])), &Value::Null),
            |error| matches!(error, VocabularyError::BadMerge { missing, .. } if missing == "ab"),
        ),
        (
            document(&bpe(&json!({"a": 0, "b": 1}), &json!(["b a"])), &Value::Null),
            |error| matches!(error, VocabularyError::BadMerge { missing, .. } if missing == "ba"),
        ),
        (added(5), |error| matches!(error, VocabularyError::AddedTokenId { stated: 5, actual: Some(1), .. })),
    ];
    for (document, expected) in cases {
        let error = read(&document).unwrap_err();
        assert!(expected(&error), "{document}: {error}");
    }
    assert!(matches!(Vocabulary::from_json(b"{"), Err(VocabularyError::Json(_))));
    assert!(matches!(Vocabulary::from_json(b""), Err(VocabularyError::Json(_))));
    assert!(matches!(Vocabulary::from_json(b"\xff\xfe"), Err(VocabularyError::Json(_))));
}

#[test]
fn a_merge_without_its_prefix_is_refused() {
    let mut model = bpe(&json!({"a": 0, "b": 1, "ab": 2}), &json!([["a", "b"]]));
    model["continuing_subword_prefix"] = json!("####");
    assert!(matches!(read(&document(&model, &Value::Null)), Err(VocabularyError::BadMerge { .. })));
}

#[test]
fn what_a_tokenizer_would_drop_is_an_error() {
    // Merges across the unknown character would hide it if only the first token were looked at.
    let vocabulary = read(&document(
        &bpe(&json!({"a": 0, "b": 1, "ab": 2}), &json!([["a", "b"]])),
        &json!({"type": "Fuse"}),
    ));
    let vocabulary = vocabulary.unwrap();
    assert_eq!(vocabulary.encode("ab").unwrap(), [2]);
    for (text, position) in [("aéb", 1), ("éab", 0), ("abé", 2)] {
        let error = vocabulary.encode(text).unwrap_err();
        assert!(
            matches!(error, EncodeError::Character { character: 'é', position: at } if at == position),
            "{error}"
        );
    }
}

#[test]
fn a_byte_level_tokenizer_without_all_bytes_names_the_character() {
    let byte_level =
        json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true});
    let mut document = document(&bpe(&json!({"a": 0, "Ġ": 1, "Ã": 2}), &json!([])), &byte_level);
    document["pre_tokenizer"] = byte_level.clone();
    document["post_processor"] = byte_level;
    let vocabulary = read(&document).unwrap();
    assert_eq!(vocabulary.encode("a a").unwrap(), [0, 1, 0]);
    let error = vocabulary.encode("a aé").unwrap_err();
    assert!(matches!(error, EncodeError::Character { character: 'é', position: 3 }), "{error}");
}

#[test]
fn other_decoders_stream_as_they_decode() {
    let pieces = json!({"▁the": 0, "▁cat": 1, "s": 2, "<0xC3>": 3, "<0xA9>": 4, "▁": 5});
    let byte_fallback = json!({"type": "Sequence", "decoders": [
        {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
        {"type": "Strip", "content": " ", "start": 1, "stop": 0}]});
    let metaspace =
        json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true});
    for decoder in [byte_fallback, metaspace] {
        let document = document(&bpe(&pieces, &json!([])), &decoder);
        let vocabulary = read(&document).unwrap();
        let library = tokenizers::Tokenizer::from_bytes(document.to_string()).unwrap();
        for ids in [&[0, 1, 2, 3, 4, 0][..], &[1, 2], &[0, 0, 5, 2], &[3, 4, 3, 4, 1]] {
            assert_eq!(vocabulary.decode(ids), library.decode(ids, false).unwrap(), "{ids:?}");
        }
    }
}

#[test]
fn a_decoder_that_waits_for_ever_gives_up() {
    let decoder = json!({"type": "Sequence", "decoders": [{"type": "ByteFallback"}, {"type": "Fuse"}]});
    let vocabulary = read(&document(&bpe(&json!({"<0xFF>": 0, "a": 1}), &json!([])), &decoder)).unwrap();
    let mut stream = vocabulary.decoder();
    let given: usize = (0..100).filter_map(|_| stream.push(0)).map(|text| text.chars().count()).sum();
    assert!(given >= 80, "{given}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn damaged_files_never_panic(at in 0_usize..2000, byte in any::<u8>(), length in 0_usize..4000, text in ".{0,10}") {
        let mut json = Vocabulary::train_words("a b c\nd", 6).unwrap().to_json().as_bytes().to_vec();
        let at = at % json.len();
        json[at] = byte;
        json.truncate(length);
        if let Ok(vocabulary) = Vocabulary::from_json(&json) {
            let ids = vocabulary.encode(&text).unwrap_or_default();
            let _ = vocabulary.decode(&ids);
        }
    }
}

/// The library's decoders index into tokens that they do not expect.
#[test]
fn a_decoder_that_fails_on_a_token_is_refused() {
    let vocab = json!({"a": 0, "b": 1, "longer": 2});
    let strip = |stop: u64| json!({"type": "Strip", "content": "a", "start": 0, "stop": stop});
    let error = read(&document(&bpe(&vocab, &json!([])), &strip(2))).unwrap_err();
    assert!(matches!(error, VocabularyError::Undecodable { token: 0 }), "{error}");
    assert!(error.to_string().contains("can't write token 0"), "{error}");
    let vocabulary = read(&document(&bpe(&vocab, &json!([])), &strip(1))).unwrap();
    assert_eq!(vocabulary.decode(&[2, 0, 1]), "longerb");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_decoder_panics(
        (start, stop) in (0..4_u64, 0..4_u64),
        content in "[abr]",
        ids in prop::collection::vec(0..4_u32, 0..8),
    ) {
        let vocab = json!({"a": 0, "b": 1, "longer": 2});
        let strip = json!({"type": "Strip", "content": content, "start": start, "stop": stop});
        let replace = json!({"type": "Replace", "pattern": {"String": "a"}, "content": ""});
        for decoder in [strip.clone(), json!({"type": "Sequence", "decoders": [replace, strip]})] {
            if let Ok(vocabulary) = read(&document(&bpe(&vocab, &json!([])), &decoder)) {
                let _ = vocabulary.decode(&ids);
            }
        }
    }
}
