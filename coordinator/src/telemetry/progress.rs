//! [`Progress`]: what is said of one generation while it goes on, in metrics and in its request's span.
//!
//! Knows nothing about how tokens are chosen. Nothing here allocates, whoever collects.

use std::sync::Arc;

use chorus_proto::v1::Participation;
use tokio::time::Instant;

use super::answers::Answers;
use crate::plan::PlanKind;

/// One generation in progress.
pub(crate) struct Progress {
    answers: Arc<Answers>,
    /// When its request arrived; none once a token came.
    arrived: Option<Instant>,
    plan: PlanKind,
    /// When the token that is looked for was asked about.
    asked: Instant,
}

impl Progress {
    /// Of a request that arrived then, with so many tokens of a prompt.
    pub(crate) fn new(answers: &Arc<Answers>, arrived: Instant, prompt_tokens: usize) -> Self {
        answers.prompt(prompt_tokens);
        let (answers, arrived) = (Arc::clone(answers), Some(arrived));
        Self { answers, arrived, plan: PlanKind::Dense, asked: Instant::now() }
    }

    /// The next token is looked for.
    pub(crate) fn ask(&mut self, plan: PlanKind) {
        (self.plan, self.asked) = (plan, Instant::now());
    }

    /// It was found.
    pub(crate) fn found(&mut self, participation: &Participation) {
        let now = Instant::now();
        self.answers.token(self.plan, now - self.asked, participation.participants.len());
        if let Some(arrived) = self.arrived.take() {
            self.answers.first_token(now - arrived);
        }
    }
}
