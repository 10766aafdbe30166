//! How the session of a request begins, and on which terms.
//!
//! Knows nothing about what the session is asked.

use std::collections::BTreeMap;

use chorus_text::Vocabulary;

use super::call::Call;
use crate::ensemble::Ensemble;
use crate::plan::Plan;
use crate::request::Fusing;
use crate::session::{EnsembleSession, Rejoin, SessionTerms};

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
        self.begin_on(self.terms(), barred)
    }

    /// The same where it ends with what is said of a text of so many tokens.
    pub(super) fn begin_for_one_answer(
        &self,
        tokens: usize,
        barred: &BTreeMap<usize, String>,
    ) -> EnsembleSession {
        self.begin_on(self.terms().for_one_answer(tokens), barred)
    }

    fn terms(&self) -> SessionTerms {
        let terms = self.ensemble.session_terms(self.plan, self.call.deadline());
        terms.allowing_degraded(self.fusing.allow_degraded)
    }

    fn begin_on(&self, terms: SessionTerms, barred: &BTreeMap<usize, String>) -> EnsembleSession {
        EnsembleSession::begin(&self.ensemble.roster, self.vocabulary, terms, self.rejoin, barred)
    }
}
