//! What a session reads before anything is asked about what follows: from where it goes on, and what of it is kept.
//!
//! Knows nothing about what is asked then.

use std::sync::Arc;

use tonic::Status;

use crate::ensemble::step_status;
use crate::plan::Ask;
use crate::prefix_cache::{Prefix, PrefixCache};
use crate::session::EnsembleSession;

/// The prompt of one session.
pub(super) struct Prompt {
    cache: Arc<PrefixCache>,
    /// None where nothing is kept of it.
    prefix: Option<Prefix>,
    /// Tokens that nobody has to read.
    cached: usize,
    /// Whether the states at its end are kept.
    is_kept: bool,
}

impl Prompt {
    pub(super) fn new(
        cache: &Arc<PrefixCache>,
        prefix: Option<Prefix>,
        tokens: usize,
        cached: usize,
    ) -> Self {
        if prefix.is_some() {
            cache.count(tokens, cached);
        }
        Self { cache: Arc::clone(cache), prefix, cached, is_kept: false }
    }

    /// So many of its tokens nobody has to read, because states after them were kept.
    pub(super) fn cached_tokens(&self) -> u32 {
        u32::try_from(self.cached).unwrap_or(u32::MAX)
    }

    /// Reads the tokens up to where an earlier prompt parted from this one, if a state is worth being kept there. Gives what
    /// remains to be read.
    ///
    /// # Errors
    /// The members can't go on.
    pub(super) async fn read_to_parting<'a>(
        &mut self,
        session: &mut EnsembleSession,
        tokens: &'a [u32],
    ) -> Result<&'a [u32], Status> {
        let parting = self.prefix.as_mut().and_then(|prefix| prefix.parting.take());
        let Some((before, after)) = parting.and_then(|parting| tokens.split_at_checked(parting)) else {
            return Ok(tokens);
        };
        // It is rare, and its future is large.
        Box::pin(session.step(before, &Ask::Nothing)).await.map_err(|error| step_status(&error))?;
        self.keep(session);
        Ok(after)
    }

    /// Keeps where the members stand, the first time: at the end of the prompt, once something was asked about what follows it.
    pub(super) fn keep_once(&mut self, session: &mut EnsembleSession) {
        if !std::mem::replace(&mut self.is_kept, true) {
            self.keep(session);
        }
    }

    /// Keeps where the members stand, or stood a little before.
    pub(super) fn keep(&self, session: &mut EnsembleSession) {
        if let Some(prefix) = &self.prefix {
            let (tokens, states) = session.states();
            self.cache.keep(prefix, &tokens, states);
        }
    }
}
