//! Collections that are interrupted, resumed as others, and damaged.

use std::fs;
use std::path::Path;

use super::*;
use crate::files::TEMPORARY_PREFIX;

pub(super) const TEXT: [u32; 7] = [4, 0, 2, 2, 1, 3, 0];

pub(super) fn header(form: TargetForm) -> TeacherHeader {
    TeacherHeader {
        teacher: "sha256:77".to_owned(),
        vocabulary: "sha256:01".to_owned(),
        vocab_size: 5,
        form,
        temperature: 1.7,
        piece_tokens: 3,
    }
}

/// Distributions for positions, each another one.
pub(super) fn targets(form: TargetForm, positions: std::ops::Range<usize>) -> SoftTargets {
    let mut targets = SoftTargets::new(form, 5, 1.7).unwrap();
    for position in positions {
        let likely = 0.5 + position as f32 / 64.0;
        match form {
            TargetForm::TopK(_) => {
                let ids = [position as u32 % 5, (position as u32 + 2) % 5];
                let length = 1 + position % 2;
                targets.push_list(&ids[..length], &[likely.ln(), 0.25_f32.ln()][..length]).unwrap();
            }
            TargetForm::Dense => {
                let mut whole = [((1.0 - likely) / 4.0).ln(); 5];
                whole[position % 5] = likely.ln();
                targets.push_dense(&whole).unwrap();
            }
        }
    }
    targets
}

/// What is done to a header.
type Change = fn(&mut TeacherHeader);

/// What is done to the file of a piece.
type Damage<'a> = &'a dyn Fn(&Path);

fn open(directory: &Path, form: TargetForm) -> Result<TeacherStore, TeacherError> {
    TeacherStore::create_or_open(directory, header(form), &TEXT)
}

/// A complete directory.
fn collect(directory: &Path, form: TargetForm) {
    let store = open(directory, form).unwrap();
    store
        .missing()
        .for_each(|index| store.write_piece(index, &targets(form, store.positions(index))).unwrap());
}

/// What is said of a directory, with all causes.
fn refusal(directory: &Path) -> String {
    chorus_fuzz::sentence(&load_taught_text(directory).unwrap_err())
}

#[test]
fn a_collection_that_is_killed_goes_on_with_what_is_missing() {
    for form in [TargetForm::TopK(2), TargetForm::Dense] {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("targets");
        let store = open(&directory, form).unwrap();
        assert_eq!(store.missing().collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!([0, 1, 2, 3].map(|index| store.positions(index)), [0..3, 3..6, 6..7, 0..0]);
        store.write_piece(1, &targets(form, 3..6)).unwrap();
        let incomplete = refusal(&directory);
        assert!(incomplete.contains("has 1 of 3 pieces"), "{incomplete}");
        drop(store);
        fs::write(directory.join(format!("{TEMPORARY_PREFIX}torn")), b"torn").unwrap();
        let store = open(&directory, form).unwrap();
        assert!(!directory.join(format!("{TEMPORARY_PREFIX}torn")).exists());
        assert_eq!(store.missing().collect::<Vec<_>>(), [0, 2]);
        drop(store);
        collect(&directory, form);
        let taught = load_taught_text(&directory).unwrap();
        assert_eq!(taught.tokens, TEXT);
        assert_eq!(taught.targets, targets(form, 0..7));
        assert_eq!(taught.header, header(form));
        assert_eq!(open(&directory, form).unwrap().load().unwrap(), taught);
    }
}

#[test]
fn another_collection_is_not_mixed_into_one_that_is_there() {
    let root = tempfile::tempdir().unwrap();
    let form = TargetForm::TopK(2);
    collect(root.path(), form);
    let refusal = |change: Change, tokens: &[u32]| {
        let mut header = header(form);
        change(&mut header);
        TeacherStore::create_or_open(root.path(), header, tokens).unwrap_err().to_string()
    };
    let changes: [(Change, &str); 6] = [
        (
            |header| header.teacher = "sha256:78".to_owned(),
            "teacher \"sha256:77\", but wanted are those with \"sha256:78\"",
        ),
        (
            |header| header.vocabulary = "sha256:02".to_owned(),
            "vocabulary sha256:01, but wanted are those with sha256:02",
        ),
        (|header| header.vocab_size = 6, "vocabulary size 5, but wanted are those with 6"),
        (|header| header.form = TargetForm::Dense, "form top-k 2, but wanted are those with dense"),
        (|header| header.temperature = 1.5, "temperature 1.7, but wanted are those with 1.5"),
        (|header| header.piece_tokens = 4, "pieces of 3 tokens, but wanted are those with 4 tokens"),
    ];
    for (change, expected) in changes {
        let found = refusal(change, &TEXT);
        assert!(found.contains(expected) && found.contains("choose another directory"), "{found}");
    }
    assert!(refusal(|_| {}, &TEXT[..6]).contains("a text of 7 tokens, but wanted are those with 6 tokens"));
    assert!(refusal(|_| {}, &[0; 7]).contains("a text with the hash"));
    // Nothing has happened to what is there.
    assert_eq!(load_taught_text(root.path()).unwrap().targets, targets(form, 0..7));
    let other = tempfile::tempdir().unwrap();
    fs::write(other.path().join("notes"), b"").unwrap();
    let found = open(other.path(), form).unwrap_err().to_string();
    assert!(found.ends_with("is not empty, and holds no teacher's distributions: choose another directory"));
    let _first = open(root.path(), form).unwrap();
    assert!(matches!(open(root.path(), form), Err(TeacherError::InUse { .. })));
}

#[test]
fn a_header_outside_its_ranges_begins_nothing() {
    let root = tempfile::tempdir().unwrap();
    let directory = root.path().join("targets");
    let refusal = |change: Change, tokens: &[u32]| {
        let mut header = header(TargetForm::Dense);
        change(&mut header);
        TeacherStore::create_or_open(&directory, header, tokens).unwrap_err().to_string()
    };
    assert_eq!(refusal(|header| header.temperature = 0.0, &TEXT), "temperature is 0, allowed is 0.1 to 20");
    assert_eq!(refusal(|header| header.form = TargetForm::TopK(6), &TEXT), "top-k is 6, allowed is 1 to 5");
    assert_eq!(refusal(|header| header.piece_tokens = 0, &TEXT), "piece tokens is 0, allowed is 1 to 65536");
    assert_eq!(
        refusal(|header| header.teacher.clear(), &TEXT),
        "teacher is of 0, allowed is 1 to 1000 characters"
    );
    assert!(refusal(|_| {}, &[]).starts_with("number of tokens is 0"));
    assert!(!directory.exists());
}

#[test]
fn a_piece_of_another_number_or_kind_is_not_written() {
    let root = tempfile::tempdir().unwrap();
    let form = TargetForm::TopK(2);
    let store = open(root.path(), form).unwrap();
    let refusal = |index, targets| chorus_fuzz::sentence(&store.write_piece(index, &targets).unwrap_err());
    assert_eq!(
        refusal(0, targets(form, 0..2)),
        "piece 0 can't be written: the number of distributions is 2, expected is 3"
    );
    assert_eq!(refusal(3, targets(form, 0..3)), "piece 3 can't be written: there are 3 pieces");
    assert!(refusal(0, targets(TargetForm::Dense, 0..3)).ends_with("the form is dense, expected is top-k 2"));
    assert_eq!(store.missing().count(), 3);
    let beyond = TeacherStore::create_or_open(&root.path().join("beyond"), header(form), &[5; 3]).unwrap();
    let error = beyond.write_piece(0, &targets(form, 0..3)).unwrap_err();
    assert!(chorus_fuzz::sentence(&error).contains("token 5 is not in the vocabulary"));
}

/// The bytes `from`, somewhere in a file, become `to`.
fn replace(path: &Path, from: &[u8], to: &[u8]) {
    let mut bytes = fs::read(path).unwrap();
    let place = bytes.windows(from.len()).position(|window| window == from).unwrap();
    bytes.splice(place..place + from.len(), to.iter().copied());
    fs::write(path, bytes).unwrap();
}

#[test]
fn what_is_damaged_is_named() {
    let root = tempfile::tempdir().unwrap();
    let form = TargetForm::TopK(2);
    let piece = |index: usize| root.path().join(format!("piece-00000{index}.safetensors"));
    let half = 0.5_f32.to_le_bytes();
    let cases: [(Damage<'_>, &str); 9] = [
        (&|path| fs::write(path, &fs::read(path).unwrap()[..40]).unwrap(), "not a whole safetensors file"),
        (&|path| fs::write(path, b"").unwrap(), "not a whole safetensors file"),
        (&|path| assert!(fs::copy(piece(1), path).unwrap() > 0), "it says that it is piece \"1\""),
        (
            &|path| replace(path, &half, &f32::NAN.to_le_bytes()),
            "position 0 gives token 0 the probability NaN",
        ),
        (&|path| replace(path, &half, &(-0.5_f32).to_le_bytes()), "the probability -0.5"),
        (
            &|path| replace(path, &0.25_f32.to_le_bytes(), &0.875_f32.to_le_bytes()),
            "at position 1 sum to 1.39",
        ),
        // What the second list names.
        (&|path| replace(path, &[1, 0, 0, 0, 3, 0, 0, 0], &[1, 0, 0, 0, 9, 0, 0, 0]), "lists token 9"),
        (&|path| replace(path, b"\"ids\"", b"\"odd\""), "tensor \"ids\" is missing"),
        (&|path| replace(path, b"\"F32\"", b"\"U32\""), "tensor \"probabilities\" has type U32"),
    ];
    for (damage, expected) in cases {
        collect(root.path(), form);
        assert!(load_taught_text(root.path()).is_ok());
        damage(&piece(0));
        let found = refusal(root.path());
        assert!(found.contains("piece-000000.safetensors") && found.contains(expected), "{found}");
        // As the sentence advises.
        fs::remove_file(piece(0)).unwrap();
    }
    collect(root.path(), form);
    let file = fs::OpenOptions::new().write(true).open(piece(2)).unwrap();
    file.set_len(1 << 40).unwrap();
    let found = refusal(root.path());
    assert!(found.contains("piece-000002.safetensors has 1099511627776 bytes, allowed are"), "{found}");
}

#[test]
fn pieces_of_another_text_are_not_taken_for_this_ones() {
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let form = TargetForm::TopK(2);
    collect(one.path(), form);
    let store = TeacherStore::create_or_open(other.path(), header(form), &[1; 7]).unwrap();
    store.write_piece(0, &targets(form, 0..3)).unwrap();
    let file = "piece-000000.safetensors";
    fs::copy(other.path().join(file), one.path().join(file)).unwrap();
    assert!(refusal(one.path()).contains("are not those of which the manifest has the hash"));
}

#[test]
fn a_manifest_that_is_none_is_named() {
    let root = tempfile::tempdir().unwrap();
    assert!(refusal(root.path()).contains("manifest.json can't be read"));
    collect(root.path(), TargetForm::Dense);
    let path = root.path().join("manifest.json");
    let whole = fs::read_to_string(&path).unwrap();
    let changes = [
        ("\"format\": 1", "\"format\": 2", "format is 2"),
        ("\"tokens\": 7", "\"tokens\": 0", "tokens is 0"),
    ];
    for (from, to, expected) in changes {
        fs::write(&path, whole.replace(from, to)).unwrap();
        let found = refusal(root.path());
        assert!(found.contains("manifest.json does not describe") && found.contains(expected), "{found}");
    }
    fs::write(&path, &whole[..20]).unwrap();
    assert!(refusal(root.path()).contains("manifest.json does not describe"));
    fs::write(&path, vec![b' '; 1 << 17]).unwrap();
    assert!(refusal(root.path()).contains("has 131072 bytes, allowed are 65536"));
}
