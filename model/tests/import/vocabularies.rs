//! The vocabulary beside the weights, and where texts begin and end.

use std::path::Path;

use chorus_model::Start;
use chorus_model::import::{EndChoice, ImportError, StartChoice, import};
use tempfile::TempDir;

use crate::{WORDS, fixture, import_files, write};

#[test]
fn start_and_end_follow_the_vocabulary_or_the_wish() {
    let folder = TempDir::new().unwrap();
    let weights = fixture("checkpoint.pt");
    let cases = [
        ("v.txt", "the\ncat\n<eos>\nsat\n<unk>", Start::Token(2), None),
        ("v.txt", "a\nb\nc\nd\ne\n", Start::ZeroState, None),
        ("v.txt", "<s>\n</s>\n<eos>\r\nthe\n<unk>", Start::Token(0), Some(1)),
        ("v.json", r#"{"a":0,"b":1,"c":2,"<eos>":3,"<bos>":4}"#, Start::Token(4), Some(3)),
        ("v.json", r#"{"a":0,"b":1,"c":2,"d":3,"<|endoftext|>":4}"#, Start::Token(4), Some(4)),
        ("v.json", r#"{"a":0,"b":1,"c":2,"d":3,"e":4}"#, Start::ZeroState, None),
    ];
    for (name, text, start, end) in cases {
        let vocabulary = write(&folder, name, text.as_bytes());
        let config = import_files(&weights, &vocabulary).unwrap().parts.config;
        assert_eq!((config.start, config.end), (start, end), "{text}");
    }
    let vocabulary = write(&folder, "v.txt", WORDS.as_bytes());
    let wish = |start: StartChoice, end: EndChoice| import(&weights, &vocabulary, "alto", &start, &end);
    let config = wish(StartChoice::ZeroState, EndChoice::Token("<eos>".to_owned())).unwrap().parts.config;
    assert_eq!((config.start, config.end), (Start::ZeroState, Some(2)));
    let config = wish(StartChoice::Token("cat".to_owned()), EndChoice::None).unwrap().parts.config;
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
    for (name, bytes) in
        [("v.txt", &b"a\n\nb"[..]), ("v.json", b"{\"a\":0"), ("v.json", b"{\"a\":0,\"b\":0}")]
    {
        let path = write(&folder, name, bytes);
        assert!(matches!(import_files(&weights, &path), Err(ImportError::Vocabulary { .. })), "{name}");
    }
    let binary = write(&folder, "v.txt", &[0xff, 0xfe, 0]);
    assert!(matches!(import_files(&weights, &binary), Err(ImportError::Read { .. })));
}
