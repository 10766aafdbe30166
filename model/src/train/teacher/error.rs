//! Why numbers are not a teacher's distributions, or can't be kept or read, in words for people.

use std::path::PathBuf;

use thiserror::Error;

/// Why a teacher's distributions can't be kept or read.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TeacherError {
    /// What describes the distributions is outside its range.
    #[error("{field} is {found}, allowed is {allowed}")]
    Header {
        /// The field of the header, or `number of tokens`.
        field: &'static str,
        /// What was given.
        found: String,
        /// The allowed values.
        allowed: String,
    },
    /// No distributions are of this form, vocabulary size or temperature.
    #[error(transparent)]
    Kind(#[from] SoftTargetsError),
    /// The directory holds something else.
    #[error("{} is not empty, and holds no teacher's distributions: choose another directory", path.display())]
    NotEmpty {
        /// The directory.
        path: PathBuf,
    },
    /// The directory holds other distributions.
    #[error(
        "{} holds distributions with {field} {stored}, but wanted are those with {wanted}: choose another directory",
        path.display()
    )]
    Differs {
        /// The directory.
        path: PathBuf,
        /// In what they differ.
        field: &'static str,
        /// What the directory has.
        stored: String,
        /// What was given now.
        wanted: String,
    },
    /// Another process collects into the directory.
    #[error("{} is locked: another collection writes into this directory", path.display())]
    InUse {
        /// The file whose lock the other one holds.
        path: PathBuf,
    },
    /// The manifest is damaged, or of another version.
    #[error("{} does not describe a teacher's distributions: {reason}", path.display())]
    Manifest {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A piece is damaged, or not one of this directory.
    #[error("{} can't be used; without it the collection fetches it again", path.display())]
    Piece {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: PieceError,
    },
    /// A piece is not one that can be written here.
    #[error("piece {index} can't be written")]
    Unfit {
        /// Its number, from 0.
        index: usize,
        /// What is wrong.
        source: PieceError,
    },
    /// The collection has not come to its end.
    #[error("{} has {there} of {pieces} pieces of the teacher's distributions: the collection has to go on", path.display())]
    Incomplete {
        /// The directory.
        path: PathBuf,
        /// How many pieces there are.
        there: usize,
        /// How many there will be.
        pieces: usize,
    },
    /// The pieces are each whole, but not of the text that the manifest tells of.
    #[error("the tokens in {} are not those of which the manifest has the hash", path.display())]
    OtherText {
        /// The directory.
        path: PathBuf,
    },
    /// A file is larger than it can be.
    #[error("{} has {found} bytes, allowed are {largest}", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size in bytes.
        found: u64,
        /// The largest allowed size; for a piece it follows from the manifest.
        largest: u64,
    },
    /// A file can't be read or written.
    #[error("{} can't be {action}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// `read` or `written`.
        action: &'static str,
        /// What the system says.
        source: std::io::Error,
    },
}

/// What is wrong with a piece.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PieceError {
    /// It is truncated or damaged, or its header lies.
    #[error("it is not a whole safetensors file")]
    Format(#[source] safetensors::SafeTensorError),
    /// There is no piece with this number.
    #[error("there are {pieces} pieces")]
    Number {
        /// How many there are.
        pieces: usize,
    },
    /// It says that it is another one.
    #[error("it says that it is piece {found:?}")]
    Other {
        /// What it says, at most 40 characters of it.
        found: String,
    },
    /// A tensor is missing.
    #[error("tensor {tensor:?} is missing")]
    Missing {
        /// Its name.
        tensor: &'static str,
    },
    /// A tensor is of another type or shape.
    #[error("tensor {tensor:?} has {found}, expected is {expected}")]
    Tensor {
        /// Its name.
        tensor: &'static str,
        /// Its type and shape.
        found: String,
        /// What they should be.
        expected: String,
    },
    /// A token of the text is not in the vocabulary.
    #[error("token {token} is not in the vocabulary, which has {vocab_size} tokens")]
    Token {
        /// The token id.
        token: u32,
        /// V.
        vocab_size: usize,
    },
    /// It is not of the kind that the manifest tells of.
    #[error("{field} is {found}, expected is {expected}")]
    Differs {
        /// In what they differ.
        field: &'static str,
        /// That of the piece.
        found: String,
        /// What it should be.
        expected: String,
    },
    /// A row is no distribution.
    #[error(transparent)]
    Targets(#[from] SoftTargetsError),
}

/// Why numbers are not a teacher's distributions.
#[derive(Debug, Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum SoftTargetsError {
    /// A number that describes them is outside its range.
    #[error("{field} is {found}, allowed is {least} to {largest}")]
    OutOfRange {
        /// Which number.
        field: &'static str,
        /// What it is.
        found: f64,
        /// The least allowed value.
        least: f64,
        /// The largest allowed value.
        largest: f64,
    },
    /// Lists among whole distributions, or the other way round.
    #[error("position {position} has a {found}, but these distributions are {expected}")]
    Form {
        /// Counted from 0.
        position: usize,
        /// What came.
        found: &'static str,
        /// What they are.
        expected: &'static str,
    },
    /// A list is too long, or a whole distribution is not one of this vocabulary.
    #[error("position {position} has {found} probabilities, allowed are {allowed}")]
    Length {
        /// Counted from 0.
        position: usize,
        /// How many there are.
        found: usize,
        /// How many there may be.
        allowed: String,
    },
    /// A list has a token that the vocabulary does not have.
    #[error("position {position} lists token {token}, but the vocabulary has {vocab_size} tokens")]
    Token {
        /// Counted from 0.
        position: usize,
        /// The token id.
        token: u32,
        /// V.
        vocab_size: usize,
    },
    /// A list has a token twice.
    #[error("position {position} lists token {token} twice")]
    Repeated {
        /// Counted from 0.
        position: usize,
        /// The token id.
        token: u32,
    },
    /// A number that is no probability.
    #[error("position {position} gives token {token} the probability {found}, allowed is 0 to 1")]
    Probability {
        /// Counted from 0.
        position: usize,
        /// The token id.
        token: u32,
        /// What it has.
        found: f64,
    },
    /// More than there is to share out, or, where all tokens have their share, less.
    #[error("the probabilities at position {position} sum to {found}, expected is {expected}")]
    Mass {
        /// Counted from 0.
        position: usize,
        /// Their sum.
        found: f64,
        /// What it should be.
        expected: &'static str,
    },
    /// Distributions of another kind can't follow these.
    #[error("distributions with {field} {found} can't follow those with {expected}")]
    Differ {
        /// In what they differ.
        field: &'static str,
        /// That of those that came.
        found: String,
        /// That of those that are there.
        expected: String,
    },
}
