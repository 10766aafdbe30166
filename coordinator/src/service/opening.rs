//! How the session of a request begins, and on which terms.
//!
//! Knows nothing about what the session is asked.

use std::collections::BTreeMap;
use std::mem::take;

use chorus_text::Vocabulary;

use super::call::Call;
use super::prompt::Prompt;
use crate::ensemble::Ensemble;
use crate::plan::Plan;
use crate::request::Fusing;
use crate::session::{EnsembleSession, Rejoin, SessionTerms};
use crate::snapshot::Snapshot;

/// Whose session it is, and what for.
#[derive(Clone, Copy)]
pub(super) struct Opening<'a> {
    pub(super) ensemble: &'a Ensemble,
    pub(super) vocabulary: &'a Vocabulary,
    pub(super) call: Call,
    pub(super) fusing: &'a Fusing,
    pub(super) plan: Plan,
    pub(super) rejoin: Rejoin,
}

impl Opening<'_> {
    /// A session without those who are barred, each with the reason why.
    pub(super) fn begin(&self, barred: &BTreeMap<usize, String>) -> EnsembleSession {
        self.begin_at(BTreeMap::new(), self.terms(), barred)
    }

    /// The same where it ends with what is said of a text of so many tokens.
    pub(super) fn begin_for_one_answer(
        &self,
        tokens: usize,
        barred: &BTreeMap<usize, String>,
    ) -> EnsembleSession {
        self.begin_at(BTreeMap::new(), self.terms().for_one_answer(tokens), barred)
    }

    /// One that reads a prompt first.
    pub(super) fn begin_with_prompt(
        &self,
        prompt: &[u32],
        barred: &BTreeMap<usize, String>,
    ) -> (EnsembleSession, Prompt) {
        self.with_prompt(prompt, self.terms(), barred)
    }

    /// The same where it ends with what follows the prompt.
    pub(super) fn begin_for_one_answer_after(&self, prompt: &[u32]) -> (EnsembleSession, Prompt) {
        self.with_prompt(prompt, self.terms().for_one_answer(prompt.len()), &BTreeMap::new())
    }

    fn with_prompt(
        &self,
        prompt: &[u32],
        terms: SessionTerms,
        barred: &BTreeMap<usize, String>,
    ) -> (EnsembleSession, Prompt) {
        let Ensemble { common, roster, .. } = self.ensemble;
        let mut prefix = common.prefixes.look_up(self.call.caller(), roster, prompt);
        let mut states = prefix.as_mut().map(|prefix| take(&mut prefix.states)).unwrap_or_default();
        // Where weights follow the text, every token of it has to be asked about.
        if let (Some(prefix), true) = (&mut prefix, self.fusing.weighting.is_adaptive()) {
            states.clear();
            prefix.parting = None;
        }
        let terms = if prefix.is_some() { terms.keeping(prompt.len()) } else { terms };
        let mut session = self.begin_at(states, terms, barred);
        let cached = session.least_position();
        (session, Prompt::new(&common.prefixes, prefix, prompt.len(), cached))
    }

    fn terms(&self) -> SessionTerms {
        let terms = self.ensemble.session_terms(self.plan, self.call.deadline());
        terms.allowing_degraded(self.fusing.allow_degraded)
    }

    fn begin_at(
        &self,
        states: BTreeMap<usize, Snapshot>,
        terms: SessionTerms,
        barred: &BTreeMap<usize, String>,
    ) -> EnsembleSession {
        let Self { ensemble, vocabulary, rejoin, .. } = *self;
        EnsembleSession::begin(&ensemble.roster, vocabulary, terms, rejoin, barred, states)
    }
}
