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
    /// When the step that is under way began.
    asked: Option<Instant>,
    /// Whether the request's trace is recorded.
    is_traced: bool,
    /// Steps that were begun.
    steps: u64,
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
            asked: None,
            is_traced: chorus_trace::is_sampled(&Span::current()),
            steps: 0,
        }
    }

    /// The next step begins: in this span, which is none where nothing is recorded.
    pub(crate) fn ask(&mut self, plan: PlanKind) -> Span {
        (self.plan, self.asked) = (plan, Some(Instant::now()));
        let index = self.steps;
        self.steps += 1;
        step_span(self.is_traced, index, plan)
    }

    /// It is over. A search hands its tokens on later, and all at once.
    pub(crate) fn stepped(&mut self) {
        if let Some(asked) = self.asked.take() {
            self.answers.step(self.plan, asked.elapsed());
        }
    }

    /// A token was found, which ends the step that is under way.
    pub(crate) fn found(&mut self, participation: &Participation) {
        self.stepped();
        let now = Instant::now();
        self.answers.token(self.plan, participation.participants.len());
        if let Some(arrived) = self.arrived.take() {
            self.answers.first_token(now - arrived);
        }
    }
}

#[cfg(test)]
mod tests {
    use metrics_exporter_prometheus::PrometheusBuilder;

    use super::*;

    #[test]
    fn tokens_that_a_search_hands_on_at_its_end_are_no_steps() {
        let recorder = PrometheusBuilder::new().set_buckets(&[1.0]).unwrap().build_recorder();
        let answers = Arc::new(metrics::with_local_recorder(&recorder, Answers::new));
        let asks = (Rule::WeightedAverage, PlanKind::Certified);
        let mut progress = Progress::new(&answers, Instant::now(), 7, asks);
        for _ in 0..2 {
            progress.ask(PlanKind::Certified);
            progress.stepped();
        }
        (0..5).for_each(|_| progress.found(&Participation::default()));
        let rendered = recorder.handle().render();
        for line in [
            "chorus_step_seconds_count{plan=\"certified\"} 2",
            "chorus_generated_tokens_total{plan=\"certified\"} 5",
            "chorus_first_token_seconds_count 1",
        ] {
            assert!(rendered.lines().any(|rendered| rendered == line), "{line} in {rendered}");
        }
    }

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
