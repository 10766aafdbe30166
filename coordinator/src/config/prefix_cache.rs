//! How much of what requests begin with is kept. Knows nothing about what that is.

use serde::{Deserialize, Serialize};

/// What is kept in memory so that it need not be read again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PrefixCacheConfig {
    /// Bytes that the members' states after beginnings of prompts, and these beginnings, may take; 0: nothing is kept.
    pub max_bytes: u64,
    /// Tokens. After fewer none is kept: they are soon read again.
    pub min_tokens: u32,
}

impl Default for PrefixCacheConfig {
    fn default() -> Self {
        Self { max_bytes: 64 << 20, min_tokens: 16 }
    }
}

/// A value that can't be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("prefix_cache.min_tokens: {0} is not allowed; allowed: at least 1")]
pub struct PrefixCacheError(pub u32);

impl PrefixCacheConfig {
    pub(super) fn check(&self) -> Result<(), PrefixCacheError> {
        if self.min_tokens == 0 { Err(PrefixCacheError(self.min_tokens)) } else { Ok(()) }
    }
}
