//! What answers hold and who took part in them, as metrics.
//!
//! Knows nothing about how an answer comes about. Every handle is made once: to count costs an atomic addition, or nothing at all
//! where nobody collects.

use std::fmt;
use std::time::Duration;

use chorus_proto::v1::Participation;
use metrics::Unit;

use super::method::Method;
use super::spans;
use crate::plan::PlanKind;

const FIRST_TOKEN: &str = "chorus_first_token_seconds";
const STEP: &str = "chorus_step_seconds";
const GENERATED: &str = "chorus_generated_tokens_total";
const PROMPT: &str = "chorus_prompt_tokens_total";
const SCORED: &str = "chorus_scored_tokens_total";
const PARTICIPANTS: &str = "chorus_participants";
const ANSWERS: &str = "chorus_answers_total";
const DEGRADED: &str = "chorus_degraded_answers_total";
const FALLBACK: &str = "chorus_fallback_answers_total";
const EXPECTED: &str = "chorus_expected_perplexity_ratio";

/// The methods whose answers name who took part.
const METHODS: [Method; 7] = [
    Method::Generate,
    Method::Complete,
    Method::Score,
    Method::Predict,
    Method::Rank,
    Method::Classify,
    Method::Distributions,
];

/// The metrics, which go to whatever recorder is installed when they are made.
pub(crate) struct Answers {
    first_token: metrics::Histogram,
    prompt: metrics::Counter,
    participants: metrics::Histogram,
    expected: metrics::Histogram,
    plans: [OfPlan; PlanKind::ALL.len()],
    methods: [OfMethod; METHODS.len()],
}

struct OfPlan {
    step: metrics::Histogram,
    generated: metrics::Counter,
    scored: metrics::Counter,
}

struct OfMethod {
    answers: metrics::Counter,
    degraded: metrics::Counter,
    fallback: metrics::Counter,
}

impl Answers {
    pub(crate) fn new() -> Self {
        describe();
        Self {
            first_token: metrics::histogram!(FIRST_TOKEN),
            prompt: metrics::counter!(PROMPT),
            participants: metrics::histogram!(PARTICIPANTS),
            expected: metrics::histogram!(EXPECTED),
            plans: PlanKind::ALL.map(OfPlan::new),
            methods: METHODS.map(OfMethod::new),
        }
    }

    /// One whole answer about so many tokens went out.
    pub(crate) fn given(&self, method: Method, tokens: usize, participation: &Participation) {
        spans::answered(tokens, participation);
        let counters = METHODS.iter().zip(&self.methods).find(|(of, _)| **of == method);
        if let Some((_, counters)) = counters {
            counters.answers.increment(1);
            counters.degraded.increment(u64::from(!participation.missing.is_empty()));
            counters.fallback.increment(u64::from(participation.fallback.is_some()));
        }
        // Of a generation it is said token by token.
        if !matches!(method, Method::Generate | Method::Complete) {
            self.participants.record(participation.participants.len() as f64);
        }
        let expected = participation.expectation;
        if let Some((Some(perplexity), Some(of_all))) =
            expected.map(|expected| (expected.perplexity, expected.perplexity_of_all))
        {
            self.expected.record(perplexity / of_all);
        }
    }

    /// So many tokens of a text were scored.
    pub(crate) fn scored(&self, plan: PlanKind, tokens: usize) {
        self.of(plan).scored.increment(tokens as u64);
    }

    /// A generation begins.
    pub(super) fn prompt(&self, tokens: usize) {
        self.prompt.increment(tokens as u64);
    }

    /// The first token of a generation, so long after its request arrived.
    pub(super) fn first_token(&self, after: Duration) {
        self.first_token.record(after.as_secs_f64());
    }

    /// One more step of a generation.
    pub(super) fn step(&self, plan: PlanKind, took: Duration) {
        self.of(plan).step.record(took.as_secs_f64());
    }

    /// One more token of a generation, by so many.
    pub(super) fn token(&self, plan: PlanKind, participants: usize) {
        self.of(plan).generated.increment(1);
        self.participants.record(participants as f64);
    }

    fn of(&self, plan: PlanKind) -> &OfPlan {
        let [dense, targets, certified, drawn] = &self.plans;
        match plan {
            PlanKind::Dense => dense,
            PlanKind::Targets => targets,
            PlanKind::Certified => certified,
            PlanKind::Drawn => drawn,
        }
    }
}

impl OfPlan {
    fn new(plan: PlanKind) -> Self {
        Self {
            step: metrics::histogram!(STEP, "plan" => plan.name()),
            generated: metrics::counter!(GENERATED, "plan" => plan.name()),
            scored: metrics::counter!(SCORED, "plan" => plan.name()),
        }
    }
}

impl OfMethod {
    fn new(method: Method) -> Self {
        let counter = |name: &'static str| metrics::counter!(name, "method" => method.name());
        Self { answers: counter(ANSWERS), degraded: counter(DEGRADED), fallback: counter(FALLBACK) }
    }
}

fn describe() {
    metrics::describe_histogram!(
        FIRST_TOKEN,
        Unit::Seconds,
        "From a generation's arrival, the line included, to its first token"
    );
    metrics::describe_histogram!(
        STEP,
        Unit::Seconds,
        "One token of a generation: the members' answers, fused, and the choice, by plan"
    );
    metrics::describe_counter!(GENERATED, Unit::Count, "Tokens that were generated, by plan");
    metrics::describe_counter!(PROMPT, Unit::Count, "Tokens of the prompts of generations");
    metrics::describe_counter!(SCORED, Unit::Count, "Tokens that were scored, by plan");
    metrics::describe_histogram!(
        PARTICIPANTS,
        Unit::Count,
        "Members that took part in a generated token, or in another answer"
    );
    metrics::describe_counter!(ANSWERS, Unit::Count, "Answers that went out whole, by method");
    metrics::describe_counter!(DEGRADED, Unit::Count, "Answers without some member, by method");
    metrics::describe_counter!(
        FALLBACK,
        Unit::Count,
        "Answers that the fallback gave, or ended, in the members' place, by method"
    );
    metrics::describe_histogram!(
        EXPECTED,
        "Of answers without some member, where weights were learned for those who took part: the expected perplexity \
         over that of all members"
    );
}

impl fmt::Debug for Answers {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Answers")
    }
}

#[cfg(test)]
mod tests {
    use chorus_proto::v1::{Expectation, Fallback, MissingMember};
    use metrics_exporter_prometheus::PrometheusBuilder;

    use super::*;

    #[test]
    fn what_an_answer_says_of_its_members_is_counted() {
        let recorder = PrometheusBuilder::new().set_buckets(&[1.0, 1.5, 2.0]).unwrap().build_recorder();
        let answers = metrics::with_local_recorder(&recorder, Answers::new);
        let whole = Participation {
            participants: vec!["alto".to_owned(), "bass".to_owned()],
            ..Participation::default()
        };
        let expectation =
            Expectation { perplexity: Some(3.0), perplexity_of_all: Some(2.0), ..Expectation::default() };
        let degraded = Participation {
            participants: vec!["alto".to_owned()],
            missing: vec![MissingMember { name: "bass".to_owned(), ..MissingMember::default() }],
            expectation: Some(expectation),
            ..Participation::default()
        };
        let by_fallback =
            Participation { fallback: Some(Fallback::default()), expectation: None, ..degraded.clone() };
        for participation in [&whole, &degraded, &by_fallback] {
            answers.given(Method::Score, 9, participation);
        }
        answers.given(Method::Generate, 9, &whole);
        answers.step(PlanKind::Drawn, Duration::from_micros(1));
        answers.token(PlanKind::Drawn, 2);
        let rendered = recorder.handle().render();
        for line in [
            "chorus_answers_total{method=\"score\"} 3",
            "chorus_answers_total{method=\"generate\"} 1",
            "chorus_degraded_answers_total{method=\"score\"} 2",
            "chorus_degraded_answers_total{method=\"generate\"} 0",
            "chorus_fallback_answers_total{method=\"score\"} 1",
            "chorus_participants_bucket{le=\"1\"} 2",
            "chorus_participants_count 4",
            "chorus_expected_perplexity_ratio_sum 1.5",
            "chorus_expected_perplexity_ratio_count 1",
            "chorus_generated_tokens_total{plan=\"drawn\"} 1",
            "chorus_generated_tokens_total{plan=\"dense\"} 0",
        ] {
            assert!(rendered.lines().any(|rendered| rendered == line), "{line} in {rendered}");
        }
    }
}
