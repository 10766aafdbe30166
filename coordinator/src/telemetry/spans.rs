//! The spans of a request's trace, and what is said in them: `request` (made in [`super::call`]), in a generation a `step` for a
//! token, and a `feed` for each member that is asked.
//!
//! A span that belongs in a trace has the field `otel.kind`; whoever collects goes by that. Where the request's trace is not
//! recorded no other span is made.

use chorus_proto::v1::Participation;
use tracing::Span;
use tracing::field::Empty;

use crate::fusion::Rule;
use crate::plan::PlanKind;

/// Of a session's steps, the first ones have spans: a prompt, and how generating sets in.
const FIRST_STEPS: u64 = 16;
/// Later one of so many has: a trace of thousands of tokens would be cut off by whoever takes it.
const EVERY: u64 = 16;

/// Says of the current request what it asks.
pub(crate) fn asked(rule: Rule, plan: PlanKind) {
    Span::current().record("rule", rule.name()).record("plan", plan.name());
}

/// Says of the current request how it was answered.
pub(super) fn answered(tokens: usize, participation: &Participation) {
    let span = Span::current();
    if span.is_disabled() {
        return;
    }
    let missing: Vec<&str> = participation.missing.iter().map(|missing| missing.name.as_str()).collect();
    span.record("tokens", tokens);
    span.record("participants", participation.participants.join(","));
    span.record("missing", missing.join(","));
}

/// One token of a generation whose trace is recorded, or none.
pub(super) fn step_span(is_traced: bool, index: u64, plan: PlanKind) -> Span {
    if !is_traced || !has_span(index) {
        return Span::none();
    }
    tracing::info_span!("step", otel.kind = "internal", token = index, plan = plan.name())
}

/// One feed to a member, or none where its name is not given: its session is not recorded then. `step` begins with 1.
pub(crate) fn feed_span(member: Option<&str>, replica: &str, step: u64, tokens: usize) -> Span {
    let Some(member) = member.filter(|_| has_span(step.saturating_sub(1))) else {
        return Span::none();
    };
    tracing::info_span!(
        "feed",
        otel.kind = "client",
        otel.status_code = Empty,
        member,
        replica,
        step,
        tokens,
        error = Empty
    )
}

fn has_span(index: u64) -> bool {
    index < FIRST_STEPS || index.is_multiple_of(EVERY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_steps_have_spans_and_then_one_in_a_while() {
        let with: Vec<u64> = (0..64).filter(|index| has_span(*index)).collect();
        assert_eq!(with, (0..=16).chain([32, 48]).collect::<Vec<_>>());
    }

    #[test]
    fn what_is_not_recorded_has_no_spans() {
        assert!(step_span(false, 0, PlanKind::Drawn).is_none());
        assert!(feed_span(None, "http://a:1", 1, 7).is_none());
    }
}
