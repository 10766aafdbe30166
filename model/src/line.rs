//! A line as a sequence of its own. Knows nothing about files, or how a line became tokens.

/// A line as tokens, without what begins and ends every line: the model's start and its end token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// The line's tokens.
    pub tokens: Vec<u32>,
    /// How many of them are only read: those up to and with the separator, where there is one.
    pub context: usize,
}
