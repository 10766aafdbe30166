//! Hostile vocabularies: what is accepted encodes and decodes whatever it is given, and is the same when it is written down.

use chorus_fuzz::{Encoded, Verdict, assert_bounded, fuzz, mutated, sentence, within};
use proptest::prelude::*;

use crate::{Vocabulary, VocabularyError};

/// As other programs write them, with a decoder that goes through the library.
const PIECES: &str = r#"{"version":"1.0","truncation":null,"padding":null,
"added_tokens":[{"id":5,"content":"<eos>","single_word":false,"lstrip":false,"rstrip":false,"normalized":false,"special":true}],
"normalizer":{"type":"Lowercase"},"pre_tokenizer":{"type":"Metaspace","replacement":"_","prepend_scheme":"first","split":true},
"post_processor":null,"decoder":{"type":"Sequence","decoders":[{"type":"Replace","pattern":{"String":"_"},"content":" "},
{"type":"ByteFallback"},{"type":"Fuse"},{"type":"Strip","content":" ","start":1,"stop":0}]},
"model":{"type":"BPE","dropout":null,"unk_token":null,"continuing_subword_prefix":null,"end_of_word_suffix":null,
"fuse_unk":false,"byte_fallback":true,"ignore_merges":false,
"vocab":{"a":0,"b":1,"_":2,"ab":3,"<0xC3>":4,"<eos>":5},"merges":[["a","b"]]}}"#;
const WORDS: [&str; 14] = [
    "\"\"",
    "\"a\"",
    "\\u0000",
    "\u{10ffff}",
    "[]",
    "{}",
    "null",
    "true",
    "-",
    "##",
    "<unk>",
    "\"BPE\"",
    "\"WordPiece\"",
    "\"ByteLevel\"",
];
/// Rooms of the library's own.
const ROOM: usize = 4 << 20;

fn longest_sentence(bytes: usize) -> usize {
    400 + 10 * bytes
}

/// Whatever can be done with a vocabulary can be done with this one.
fn check(vocabulary: &Vocabulary, text: &str) {
    let size = vocabulary.len();
    assert!(size > 0 && vocabulary.token(size - 1).is_some() && vocabulary.token(size).is_none());
    let again = Vocabulary::from_json(vocabulary.to_json().as_bytes()).unwrap();
    assert_eq!((&again, again.to_json()), (vocabulary, vocabulary.to_json()));
    match vocabulary.encode(text) {
        Ok(ids) => {
            assert!(ids.iter().all(|id| *id < size), "{ids:?}");
            assert_eq!(again.decode(&ids), vocabulary.decode(&ids));
        }
        Err(error) => assert_bounded(&error.to_string(), longest_sentence(text.len())),
    }
    let all: Vec<u32> = (0..size + 2).chain([u32::MAX]).collect();
    let _ = vocabulary.decode(&all);
}

fn verdict(read: Result<Vocabulary, VocabularyError>, text: &str, bytes: usize) -> Verdict {
    match read {
        Ok(vocabulary) => {
            check(&vocabulary, text);
            Verdict::Accepted
        }
        Err(error) => {
            assert_bounded(&sentence(&error), longest_sentence(bytes));
            Verdict::Refused
        }
    }
}

#[test]
fn a_tokenizer_that_is_accepted_encodes_and_decodes_whatever_comes() {
    let built = [
        Vocabulary::train_characters("ab c"),
        Vocabulary::train_words("a b c\nd", 6),
        Vocabulary::from_json(PIECES.as_bytes()),
    ];
    let documents = built.map(|built| built.unwrap().to_json().as_bytes().to_vec());
    let cases = (mutated(prop::sample::select(documents.to_vec()), &WORDS), "[ab cé\n]{0,20}|.{0,20}");
    fuzz("text: tokenizers", cases, |(Encoded(bytes), text)| {
        let read = within(512 * bytes.len() + ROOM, || Vocabulary::from_json(&bytes));
        verdict(read, &text, bytes.len())
    });
}

#[test]
fn a_list_or_map_of_tokens_that_is_accepted_is_a_vocabulary() {
    let maps = [
        r#"{"a": 0, "b": 1, " ": 2, "<unk>": 3}"#,
        r#"{"the": 0, "cat": 1, "<eos>": 2, "<unk>": 3}"#,
        "the\ncat\n<eos>\nsat\n<unk>\n",
        "a\nb\nc",
    ];
    let maps = prop::sample::select(maps.map(|map| map.as_bytes().to_vec()).to_vec());
    let cases = (mutated(maps, &WORDS), "[ab cé\n]{0,20}|(the |cat |sat |\n){0,6}");
    fuzz("text: lists and maps of tokens", cases, |(Encoded(bytes), text)| {
        let room = 512 * bytes.len() + ROOM;
        let map = verdict(within(room, || Vocabulary::from_token_map(&bytes)), &text, bytes.len());
        let lines = String::from_utf8_lossy(&bytes);
        let words = within(room, || Vocabulary::from_word_list(lines.lines().map(str::to_owned).collect()));
        let list = verdict(words, &text, bytes.len());
        Verdict::of([map, list].contains(&Verdict::Accepted))
    });
}

#[test]
fn a_text_that_a_vocabulary_was_made_of_comes_back() {
    fuzz("text: vocabularies of texts", (".{0,40}|[ab \n]{0,40}", 1..300_usize), |(text, size)| {
        let characters = Vocabulary::train_characters(&text);
        let bytes = Vocabulary::train_bpe(&text, size);
        for vocabulary in [&characters, &bytes].into_iter().flatten() {
            assert_eq!(vocabulary.decode(&vocabulary.encode(&text).unwrap()), text);
        }
        for error in
            [characters, bytes, Vocabulary::train_words(&text, size)].into_iter().filter_map(Result::err)
        {
            assert_bounded(&sentence(&error), longest_sentence(text.len()));
        }
        Verdict::of(size >= 256 && !text.is_empty())
    });
}
