//! What holds for a session at every member: patience, plan, snapshots, deadline.
//!
//! Pure. Knows nothing about members.

use std::time::Duration;

use tokio::time::Instant;

use crate::plan::PlanKind;

/// So many are soon read again.
const FEW_TOKENS: usize = 1024;

/// How long a member may take over a step.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    /// For a step of one token.
    pub(crate) step: Duration,
    /// For each token of a feed on top, so that a long input has time in proportion.
    pub(crate) token: Duration,
    /// A replica from which nothing at all has come for this long while something is waited for is not waited for where
    /// another one is up.
    pub(crate) silence: Duration,
    /// A member from none of whose replicas anything has come for this long is not waited for where it may be missing.
    pub(crate) silence_of_all: Duration,
}

/// What holds for a session at every member.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SessionTerms {
    pub(crate) patience: Patience,
    /// For which its bytes are counted.
    pub(crate) plan: PlanKind,
    /// A snapshot is taken after this many tokens, at the latest; none where it is 0.
    pub(crate) snapshot_tokens: u32,
    /// The tokens of its prompt: one is taken at the end of every feed of these too.
    pub(crate) prompt_tokens: u32,
    /// A step ends without members that are late where these can't change its result.
    pub(crate) early_decision: bool,
    /// No step goes on without a member.
    pub(crate) require_all: bool,
    /// Its spans are recorded.
    pub(crate) is_traced: bool,
    /// When its caller waits no longer.
    pub(crate) deadline: Option<Instant>,
}

impl Patience {
    pub(crate) fn for_tokens(self, tokens: usize) -> Duration {
        self.step.saturating_add(self.of_tokens(tokens))
    }

    /// What a feed of so many tokens may take beside what any feed may.
    pub(crate) fn of_tokens(self, tokens: usize) -> Duration {
        self.token.saturating_mul(u32::try_from(tokens).unwrap_or(u32::MAX))
    }
}

impl SessionTerms {
    /// For a request that says whether members may be missing.
    pub(crate) fn allowing_degraded(self, allow: bool) -> Self {
        Self { require_all: !allow, ..self }
    }

    /// For a session that begins with a prompt of so many tokens, after which its states are kept.
    pub(crate) fn keeping(self, prompt_tokens: usize) -> Self {
        Self { prompt_tokens: u32::try_from(prompt_tokens).unwrap_or(u32::MAX), ..self }
    }

    /// For a session that ends with the answer about its so many tokens. Where they fit into one feed, nobody would go on
    /// from a snapshot.
    pub(crate) fn for_one_answer(self, tokens: usize) -> Self {
        if tokens <= FEW_TOKENS { Self { snapshot_tokens: 0, ..self } } else { self }
    }

    #[cfg(test)]
    pub(crate) fn of_tests() -> Self {
        const SECOND: Duration = Duration::from_secs(1);
        let patience =
            Patience { step: SECOND, token: Duration::ZERO, silence: SECOND, silence_of_all: SECOND };
        Self {
            patience,
            plan: PlanKind::Dense,
            snapshot_tokens: 0,
            prompt_tokens: 0,
            early_decision: false,
            require_all: false,
            is_traced: false,
            deadline: None,
        }
    }
}
