//! The vocabularies that this crate builds: their ids, their round trips, what they refuse.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use chorus_text::{EncodeError, Vocabulary, VocabularyError};
use proptest::prelude::*;

fn words(list: &[&str]) -> Vocabulary {
    Vocabulary::from_word_list(list.iter().map(|word| (*word).to_owned()).collect()).unwrap()
}

/// Feeds the tokens one by one and puts the pieces together.
fn streamed(vocabulary: &Vocabulary, ids: &[u32]) -> String {
    let mut stream = vocabulary.decoder();
    let mut text: String = ids.iter().filter_map(|id| stream.push(*id)).collect();
    text.extend(stream.flush());
    text
}

#[test]
fn characters_are_numbered_by_code_point() {
    let vocabulary = Vocabulary::train_characters("hello\nwörld").unwrap();
    assert_eq!(vocabulary.len(), 9);
    assert_eq!(vocabulary.token(0).unwrap(), "\n");
    assert_eq!(vocabulary.id_of("ö"), Some(8));
    assert_eq!(vocabulary.encode("ho\n").unwrap(), [3, 5, 0]);
    assert!(!vocabulary.has_unknown());
    assert_eq!(vocabulary.token(9), None);
    assert!(matches!(Vocabulary::train_characters(""), Err(VocabularyError::Empty)));
}

#[test]
fn an_unknown_character_is_named_with_its_place() {
    let vocabulary = Vocabulary::train_characters("ab ü").unwrap();
    let error = vocabulary.encode("üba\u{7}b").unwrap_err();
    assert!(matches!(error, EncodeError::Character { character: '\u{7}', position: 3 }), "{error}");
    let sentence = error.to_string();
    assert!(
        sentence.contains("'\\u{7}'") && sentence.contains("U+0007") && sentence.contains('3'),
        "{sentence}"
    );
}

#[test]
fn an_unknown_character_is_found_behind_the_first_chunk() {
    let vocabulary = Vocabulary::train_characters("aé").unwrap();
    let text = "é".repeat(50_000) + "b";
    let error = vocabulary.encode(&text).unwrap_err();
    assert!(matches!(error, EncodeError::Character { character: 'b', position: 50_000 }), "{error}");
}

#[test]
fn words_read_lines_and_unknown_words() {
    let vocabulary = words(&["the", "cat", "<eos>", "sat", "<unk>"]);
    assert!(vocabulary.has_unknown());
    assert!(vocabulary.is_word_level());
    let ids = vocabulary.encode(" the  cat\tsat\r\nthe dog\n\n<unk> cat").unwrap();
    assert_eq!(ids, [0, 1, 3, 2, 0, 4, 2, 2, 4, 1]);
    assert_eq!(vocabulary.decode(&ids), "the cat sat\nthe <unk>\n\n<unk> cat");
}

#[test]
fn without_an_unknown_token_an_unknown_word_is_an_error() {
    let vocabulary = words(&["the", "cat", "a"]);
    assert!(!vocabulary.has_unknown());
    assert_eq!(vocabulary.encode("the\ncat").unwrap(), [0, 1]);
    assert_eq!(vocabulary.decode(&[0, 1, 1]), "the cat cat");
    let error = vocabulary.encode("the cät the").unwrap_err();
    assert!(matches!(&error, EncodeError::Word { word, position: 4 } if word == "cät"), "{error}");
    let error = vocabulary.encode("the é").unwrap_err();
    assert!(matches!(error, EncodeError::Character { character: 'é', position: 4 }), "{error}");
}

#[test]
fn bad_word_lists_are_refused() {
    let build =
        |list: &[&str]| Vocabulary::from_word_list(list.iter().map(|word| (*word).to_owned()).collect());
    assert!(matches!(build(&[]), Err(VocabularyError::Empty)));
    assert!(matches!(build(&["a", "", "b"]), Err(VocabularyError::BadWord { line: 2, .. })));
    assert!(matches!(build(&["a", "b c"]), Err(VocabularyError::BadWord { line: 2, .. })));
    assert!(matches!(build(&["a", "b", "a"]), Err(VocabularyError::DuplicateToken { .. })));
}

#[test]
fn the_most_frequent_words_are_kept() {
    let vocabulary = Vocabulary::train_words("b a b\nc <unk> a b\n<eos> d", 5).unwrap();
    let tokens: Vec<String> = (0..vocabulary.len()).map(|id| vocabulary.token(id).unwrap()).collect();
    assert_eq!(tokens, ["<unk>", "<eos>", "b", "a", "c"]);
    assert!(matches!(Vocabulary::train_words("a", 1), Err(VocabularyError::TooSmall { size: 1, least: 2 })));
    assert_eq!(Vocabulary::train_words("", 2).unwrap().len(), 2);
}

#[test]
fn byte_level_bpe_is_deterministic_and_expresses_everything() {
    let text = "the cat sat on the mat, the rat sat on the cat\n\n".repeat(40);
    let vocabulary = Vocabulary::train_bpe(&text, 265).unwrap();
    assert_eq!(vocabulary.len(), 265);
    assert_eq!(vocabulary.to_json(), Vocabulary::train_bpe(&text, 265).unwrap().to_json());
    assert!(vocabulary.encode("the cat").unwrap().len() < 4);
    let unseen = " ünd \u{0} \u{10FFFF}\r\n\t";
    assert_eq!(vocabulary.decode(&vocabulary.encode(unseen).unwrap()), unseen);
    assert!(matches!(Vocabulary::train_bpe(&text, 255), Err(VocabularyError::TooSmall { .. })));
    assert_eq!(Vocabulary::train_bpe("", 1000).unwrap().len(), 256, "an empty text has no merges");
}

#[test]
fn a_token_map_of_characters_may_have_special_tokens() {
    let vocabulary = Vocabulary::from_token_map(br#"{"<unk>": 1, "b": 2, "\n": 0, "<eos>": 3}"#).unwrap();
    assert!(!vocabulary.is_word_level());
    assert_eq!(vocabulary.encode("b\nx").unwrap(), [2, 0, 1]);
    assert_eq!(vocabulary.decode(&[2, 3, 2]), "b<eos>b");
}

#[test]
fn a_token_map_of_words_reads_like_a_word_list() {
    let vocabulary = Vocabulary::from_token_map(br#"{"cat": 1, "a": 0, "<eos>": 2}"#).unwrap();
    assert!(vocabulary.is_word_level());
    assert_eq!(vocabulary.encode("a cat\n").unwrap(), [0, 1, 2]);
    let list = words(&["a", "cat", "<eos>"]);
    assert_eq!(vocabulary.fingerprint(), list.fingerprint());
}

#[test]
fn bad_token_maps_are_refused() {
    type Check = fn(&VocabularyError) -> bool;
    let cases: [(&str, Check); 13] = [
        ("{}", |error| matches!(error, VocabularyError::Empty)),
        ("[1]", |error| matches!(error, VocabularyError::Json(_))),
        ("{\"a\": 0", |error| matches!(error, VocabularyError::Json(_))),
        ("{\"a\": 0} x", |error| matches!(error, VocabularyError::Json(_))),
        (
            r#"{"a": 0, "b": -1}"#,
            |error| matches!(error, VocabularyError::BadId { token, .. } if token == "b"),
        ),
        (r#"{"a": 0, "b": 1.5}"#, |error| matches!(error, VocabularyError::BadId { .. })),
        (r#"{"a": 0, "b": 4294967295}"#, |error| matches!(error, VocabularyError::BadId { .. })),
        (r#"{"a": 0, "a": 1}"#, |error| matches!(error, VocabularyError::DuplicateToken { .. })),
        (r#"{"a": 0, "b": 0}"#, |error| matches!(error, VocabularyError::DuplicateId { id: 0, .. })),
        (r#"{"a": 0, "b": 7}"#, |error| {
            matches!(error, VocabularyError::MissingId { missing: 1, largest: 7 })
        }),
        (r#"{"the": 0, "": 1}"#, |error| matches!(error, VocabularyError::BadToken { .. })),
        (r#"{"the": 0, "a cat": 1}"#, |error| {
            error
                .to_string()
                .starts_with("the token map has the token \"a cat\" with the id 1: in a token map")
        }),
        (r#"{"he": 0, "Ġllo": 1}"#, |error| matches!(error, VocabularyError::Subwords { .. })),
    ];
    for (json, expected) in cases {
        let error = Vocabulary::from_token_map(json.as_bytes()).unwrap_err();
        assert!(expected(&error), "{json}: {error}");
    }
}

#[test]
fn a_stream_that_continues_a_prompt_goes_on_behind_it() {
    let vocabulary = words(&["the", "cat", "<eos>"]);
    assert_eq!(vocabulary.decoder_after(&[0]).push(1).unwrap(), " cat");
    assert_eq!(vocabulary.decoder_after(&[0, 2]).push(1).unwrap(), "cat");
    assert_eq!(vocabulary.decoder().push(1).unwrap(), "cat");
}

#[test]
fn chunks_change_nothing() {
    // Long enough for many chunks; white space of every kind around where they end.
    let text: String = (0..12_000)
        .map(|n| format!("word{} {}\n{}x", n % 7, " ".repeat(n % 4), "\n".repeat(n % 3)))
        .collect();
    assert!(text.len() > 100_000);
    let vocabulary = Vocabulary::train_bpe(&text, 300).unwrap();
    let whole = tokenizers::Tokenizer::from_bytes(vocabulary.to_json()).unwrap();
    assert_eq!(vocabulary.encode(&text).unwrap(), whole.encode(text.as_str(), false).unwrap().get_ids());
    let vocabulary = Vocabulary::train_words(&text, 9).unwrap();
    let whole = tokenizers::Tokenizer::from_bytes(vocabulary.to_json()).unwrap();
    let ids = vocabulary.encode(&text).unwrap();
    assert_eq!(ids, whole.encode(text.as_str(), false).unwrap().get_ids());
    assert_eq!(vocabulary.decode(&ids), whole.decode(&ids, false).unwrap());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn characters_round_trip(text in "(?s).{1,80}") {
        let vocabulary = Vocabulary::train_characters(&text).unwrap();
        let ids = vocabulary.encode(&text).unwrap();
        prop_assert_eq!(ids.len(), text.chars().count());
        prop_assert_eq!(vocabulary.decode(&ids), text);
    }

    #[test]
    fn bytes_round_trip_and_stream(learned in "[a-c éß\n]{0,200}", text in "(?s).{0,60}") {
        let vocabulary = Vocabulary::train_bpe(&learned, 270).unwrap();
        let ids = vocabulary.encode(&text).unwrap();
        prop_assert_eq!(vocabulary.decode(&ids), text.clone());
        let library = tokenizers::Tokenizer::from_bytes(vocabulary.to_json()).unwrap();
        let encoding = library.encode(text.as_str(), false).unwrap();
        prop_assert_eq!(encoding.get_ids(), ids.as_slice());
    }

    #[test]
    fn any_byte_tokens_stream_as_the_library_decodes_them(ids in proptest::collection::vec(0_u32..262, 0..40)) {
        let vocabulary = Vocabulary::train_bpe("", 256).unwrap();
        let library = tokenizers::Tokenizer::from_bytes(vocabulary.to_json()).unwrap();
        prop_assert_eq!(streamed(&vocabulary, &ids), library.decode(&ids, false).unwrap());
        prop_assert_eq!(streamed(&vocabulary, &ids), vocabulary.decode(&ids));
    }

    #[test]
    fn any_word_tokens_stream_as_the_library_decodes_them(ids in proptest::collection::vec(0_u32..5, 0..30)) {
        for vocabulary in [words(&["a", "b", "<eos>", "<unk>"]), words(&["a", "b", "c"])] {
            let library = tokenizers::Tokenizer::from_bytes(vocabulary.to_json()).unwrap();
            prop_assert_eq!(streamed(&vocabulary, &ids), library.decode(&ids, false).unwrap());
            let known: Vec<u32> = ids.iter().copied().filter(|id| *id < vocabulary.len()).collect();
            if vocabulary.id_of("<eos>").is_some() {
                prop_assert_eq!(vocabulary.encode(&vocabulary.decode(&known)).unwrap(), known);
            }
        }
    }
}
