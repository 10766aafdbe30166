//! [`Progress`]: what is said of one generation while it goes on, in metrics and in its request's span.
//!
//! Knows nothing about how tokens are chosen. Nothing here allocates, whoever collects.

use std::sync::Arc;

use chorus_proto::v1::Participation;
use tokio::time::Instant;
use tracing::Span;

use super::answers::Answers;
use super::spans::{asked, step_span};
use crate::fusion::Rule;
use crate::plan::PlanKind;

/// One generation in progress.
pub(crate) struct Progress {
    answers: Arc<Answers>,
    /// When its request arrived; none once a token came.
    arrived: Option<Instant>,
    plan: PlanKind,
    /// When the token that is looked for was asked about.
    asked: Instant,
    /// Whether the request's trace is recorded.
    is_traced: bool,
    /// Tokens that were looked for.
    tokens: u64,
}

impl Progress {
    /// Of a request that arrived then, with so many tokens of a prompt.
    pub(crate) fn new(
        answers: &Arc<Answers>,
        arrived: Instant,
        prompt_tokens: usize,
        (rule, plan): (Rule, PlanKind),
    ) -> Self {
        answers.prompt(prompt_tokens);
        asked(rule, plan);
        Self {
            answers: Arc::clone(answers),
            arrived: Some(arrived),
            plan,
            asked: Instant::now(),
            is_traced: chorus_trace::is_sampled(&Span::current()),
            tokens: 0,
        }
    }

    /// The next token is looked for: in this span, which is none where nothing is recorded.
    pub(crate) fn ask(&mut self, plan: PlanKind) -> Span {
        (self.plan, self.asked) = (plan, Instant::now());
        let index = self.tokens;
        self.tokens += 1;
        step_span(self.is_traced, index, plan)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_that_nobody_looks_at_costs_no_allocation() {
        let answers = Arc::new(Answers::new());
        let asks = (Rule::WeightedAverage, PlanKind::Drawn);
        let mut progress = Progress::new(&answers, Instant::now(), 7, asks);
        let participation =
            Participation { participants: vec!["alto".to_owned()], ..Participation::default() };
        let counted = allocation_counter::measure(|| {
            for _ in 0..100 {
                assert!(progress.ask(PlanKind::Drawn).is_none());
                progress.found(&participation);
            }
        });
        assert_eq!(counted.count_total, 0);
    }
}
