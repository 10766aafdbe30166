//! How much a model on a device holds at most, and the memory that follows from it. Knows nothing about where the memory is.

use std::fmt;

/// What a model on a device has room for. All of it is taken when the model is loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capacity {
    /// States that are alive at a time.
    pub states: usize,
    /// Tokens that are computed together; longer calls are computed in parts.
    pub tokens: usize,
    /// Logits that are computed together, of which one row always fits.
    pub logits: usize,
}

/// The memory of a device that a model takes, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DeviceMemory {
    /// Matrices, biases and the table of the first layer.
    pub weights: u64,
    /// All slots.
    pub states: u64,
    /// What a call computes in.
    pub workspace: u64,
}

impl Default for Capacity {
    /// A thousand sessions; blocks that keep a large device busy: 16 texts of 256 tokens, or 1,000 rows of 65,000 logits.
    fn default() -> Self {
        Self { states: 1024, tokens: 4096, logits: 1 << 26 }
    }
}

impl Capacity {
    /// Slots of the table: a call writes the states of its rows to slots beside those that it reads, and one in parts keeps
    /// those of its beginning until it has come to its end.
    #[cfg(any(feature = "cuda", feature = "emulated"))]
    pub(crate) fn slots(self) -> usize {
        3 * self.states.max(1) + 8
    }

    /// Rows of logits that are computed together.
    #[cfg(any(feature = "cuda", feature = "emulated"))]
    pub(crate) fn rows(self, config: &crate::config::Config) -> usize {
        (self.logits / config.vocab_size.max(1)).clamp(1, self.tokens.max(1))
    }
}

impl DeviceMemory {
    /// All of it.
    #[must_use]
    pub fn total(self) -> u64 {
        self.weights + self.states + self.workspace
    }
}

impl fmt::Display for DeviceMemory {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { weights, states, workspace } = *self;
        let [total, weights, states, workspace] = [self.total(), weights, states, workspace].map(mebibytes);
        write!(formatter, "{total} MiB (weights {weights}, states {states}, workspace {workspace})")
    }
}

/// Rounded up: what is reported is never less than what is taken.
pub(crate) fn mebibytes(bytes: u64) -> u64 {
    bytes.div_ceil(1 << 20)
}
