//! `manifest.json`: of which text, vocabulary and teacher a directory's distributions are.
//! Knows nothing about the pieces that hold them.

use std::ops::Range;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::error::TeacherError;
use super::targets::{SoftTargets, TargetForm};
use crate::train::texts::hash;

/// The only `format` that this version reads and writes.
const FORMAT: u32 = 1;
/// Most characters of the teacher's description and of the vocabulary's fingerprint.
const LONGEST_WORDS: usize = 1000;
const MOST_TOKENS: u64 = 1 << 32;
const MOST_PIECES: u64 = 1 << 20;
const MOST_PIECE_TOKENS: usize = 1 << 16;
pub(super) const MANIFEST_FILE: &str = "manifest.json";
pub(super) const MOST_MANIFEST_BYTES: u64 = 1 << 16;

/// What describes a teacher's distributions, whatever the text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TeacherHeader {
    /// Who the teacher is, in words that are others for another one: an ensemble's members, weights and rule, say.
    pub teacher: String,
    /// The fingerprint of its vocabulary.
    pub vocabulary: String,
    /// The number of tokens V of it.
    pub vocab_size: usize,
    /// How much of each distribution there is.
    pub form: TargetForm,
    /// The temperature at which the teacher gives them.
    pub temperature: f64,
    /// How many positions are in each piece but the last.
    pub piece_tokens: usize,
}

/// A header and the text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Manifest {
    format: u32,
    #[serde(flatten)]
    pub(super) header: TeacherHeader,
    /// The number of tokens, and their hash.
    pub(super) tokens: u64,
    pub(super) text: String,
}

impl Manifest {
    pub(super) fn new(header: TeacherHeader, tokens: &[u32]) -> Result<Self, TeacherError> {
        let manifest = Self { format: FORMAT, header, tokens: tokens.len() as u64, text: hash(tokens) };
        manifest.validate()?;
        Ok(manifest)
    }

    /// Reads what [`Self::to_json`] wrote; `path` names it in an error.
    pub(super) fn from_json(path: &Path, bytes: &[u8]) -> Result<Self, TeacherError> {
        let unusable = |reason| TeacherError::Manifest { path: path.to_owned(), reason };
        let manifest: Self = serde_json::from_slice(bytes).map_err(|error| unusable(error.to_string()))?;
        if manifest.format != FORMAT {
            let found = manifest.format;
            return Err(unusable(format!("format is {found}, but this version reads format {FORMAT} only")));
        }
        manifest.validate().map_err(|error| unusable(error.to_string()))?;
        Ok(manifest)
    }

    pub(super) fn to_json(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string_pretty(self).map(|json| json + "\n")
    }

    /// No row yet.
    pub(super) fn no_targets(&self) -> Result<SoftTargets, TeacherError> {
        let TeacherHeader { form, vocab_size, temperature, .. } = self.header;
        Ok(SoftTargets::new(form, vocab_size, temperature)?)
    }

    pub(super) fn pieces(&self) -> usize {
        self.tokens.div_ceil(self.header.piece_tokens as u64) as usize
    }

    /// The positions of a piece; none beyond the last.
    pub(super) fn positions(&self, index: usize) -> Option<Range<usize>> {
        let begin = index.checked_mul(self.header.piece_tokens)?;
        let end = begin.checked_add(self.header.piece_tokens)?.min(self.tokens as usize);
        (begin < end).then_some(begin..end)
    }

    /// In what `wanted` is another teacher or text: the field, our value, and the other's.
    pub(super) fn difference(&self, wanted: &Self) -> Option<(&'static str, String, String)> {
        let (ours, theirs) = (&self.header, &wanted.header);
        let fields = [
            ("teacher", format!("{:?}", ours.teacher), format!("{:?}", theirs.teacher)),
            ("vocabulary", ours.vocabulary.clone(), theirs.vocabulary.clone()),
            ("vocabulary size", ours.vocab_size.to_string(), theirs.vocab_size.to_string()),
            ("form", ours.form.to_string(), theirs.form.to_string()),
            ("pieces of", tokens(ours.piece_tokens as u64), tokens(theirs.piece_tokens as u64)),
            ("a text of", tokens(self.tokens), tokens(wanted.tokens)),
            ("a text with the hash", self.text.clone(), wanted.text.clone()),
        ];
        // A fraction that was written down and is read again may differ in its last place.
        if (ours.temperature / theirs.temperature - 1.0).abs() > 1e-9 {
            return Some(("temperature", ours.temperature.to_string(), theirs.temperature.to_string()));
        }
        fields.into_iter().find(|(_, ours, theirs)| ours != theirs)
    }

    fn validate(&self) -> Result<(), TeacherError> {
        let check = |fits: bool, field, found: String, allowed: String| match fits {
            true => Ok(()),
            false => Err(TeacherError::Header { field, found, allowed }),
        };
        for (field, words) in [("teacher", &self.header.teacher), ("vocabulary", &self.header.vocabulary)] {
            let characters = words.chars().count();
            let allowed = format!("1 to {LONGEST_WORDS} characters");
            check((1..=LONGEST_WORDS).contains(&characters), field, format!("of {characters}"), allowed)?;
        }
        self.no_targets()?;
        let piece_tokens = self.header.piece_tokens;
        let allowed = format!("1 to {MOST_PIECE_TOKENS}");
        let fits = (1..=MOST_PIECE_TOKENS).contains(&piece_tokens);
        check(fits, "piece tokens", piece_tokens.to_string(), allowed)?;
        let most = MOST_TOKENS.min(MOST_PIECES * piece_tokens as u64);
        let (fits, allowed) = ((1..=most).contains(&self.tokens), format!("1 to {most}"));
        check(fits, "number of tokens", self.tokens.to_string(), allowed)
    }
}

fn tokens(number: u64) -> String {
    format!("{number} tokens")
}
