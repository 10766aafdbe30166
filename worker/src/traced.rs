//! [`Traced`]: the spans of one feed, where the trace that it belongs to is recorded: `feed`, from when it was read until it is
//! answered, and in it `queue` (nothing of it is being computed) and `forward`, in turns.
//!
//! Knows nothing about what a feed asks. A feed that brings no trace costs one look at an empty word.

use tracing::Span;

/// The spans, or none. They say nothing of what is asked, so all are equal.
#[derive(Debug, Clone, Default)]
pub(crate) struct Traced(Option<Box<Spans>>);

#[derive(Debug, Clone)]
struct Spans {
    feed: Span,
    /// `queue` or `forward`.
    now: Span,
}

impl Traced {
    /// Of a feed that was read just now, with what it says of its trace.
    pub(crate) fn read(traceparent: &str, session: u64, step: u64, tokens: usize) -> Self {
        if traceparent.is_empty() || traceparent.len() > chorus_trace::LONGEST_TRACEPARENT {
            return Self::default();
        }
        let feed = tracing::info_span!(parent: None, "feed", otel.kind = "server", session, step, tokens);
        chorus_trace::continue_trace(&feed, traceparent, None);
        if !chorus_trace::is_sampled(&feed) {
            return Self::default();
        }
        let now = queue(&feed);
        Self(Some(Box::new(Spans { feed, now })))
    }

    /// A forward of so many sessions and tokens begins, of which the feed has some.
    pub(crate) fn forward(&mut self, sessions: usize, batch_tokens: usize, tokens: usize) {
        if let Some(spans) = &mut self.0 {
            let feed = &spans.feed;
            spans.now = tracing::info_span!(
                parent: feed,
                "forward",
                otel.kind = "internal",
                sessions,
                batch_tokens,
                tokens
            );
        }
    }

    /// It is over; the feed is answered, or waits for the next one.
    pub(crate) fn computed(&mut self) {
        if let Some(spans) = &mut self.0 {
            spans.now = queue(&spans.feed);
        }
    }

    /// Nothing of it waits any more.
    pub(crate) fn complete(&mut self) {
        if let Some(spans) = &mut self.0 {
            spans.now = Span::none();
        }
    }
}

fn queue(feed: &Span) -> Span {
    tracing::info_span!(parent: feed, "queue", otel.kind = "internal")
}

impl PartialEq for Traced {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Traced {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_nobody_records_there_are_no_spans() {
        let traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        for traceparent in ["", "rubbish", traceparent, &"0".repeat(1 << 20)] {
            assert!(Traced::read(traceparent, 1, 1, 1).0.is_none());
        }
    }
}
