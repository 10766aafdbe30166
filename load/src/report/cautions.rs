//! What a reader of the figures has to know about them. Knows nothing about how they were made.

use super::{CallsReport, LoadReport, Report};

/// A thread that computes for more of its time than this can't be told from the server.
const BUSY: f64 = 0.8;
/// A call that is made later than this shows in latencies of milliseconds.
const LATE_MS: f64 = 1.0;

impl Report {
    /// What a reader of the figures has to know about them, as sentences; none where they can be taken as they are.
    #[must_use]
    pub fn cautions(&self) -> Vec<String> {
        let mut cautions = Vec::new();
        let CallsReport { not_sent, unfinished, degraded, answered, .. } = self.calls;
        if let LoadReport::Open { most_in_flight, .. } = self.load
            && not_sent > 0
        {
            cautions.push(format!(
                "{not_sent} calls were not sent, because {most_in_flight} were in flight: the server did not keep up, and \
                 the latencies are those of the calls that found room"
            ));
        }
        if unfinished > 0 {
            cautions.push(format!(
                "{unfinished} calls had no end when the run was over: the longest latencies are not among the figures"
            ));
        }
        if degraded > 0 {
            cautions.push(format!("{degraded} of {answered} answers were made without some member"));
        }
        if self.client.busiest_thread > BUSY {
            cautions.push(format!(
                "a thread of this load test computed for {:.0} % of its time: the figures may be its own; try --threads {}",
                self.client.busiest_thread * 100.0,
                self.client.threads * 2
            ));
        } else if self.client.sent_late_ms_p99 > LATE_MS && matches!(self.load, LoadReport::Open { .. }) {
            cautions.push(format!(
                "one call in a hundred was made {:.1} ms late or more by this machine: its latency counts that too",
                self.client.sent_late_ms_p99
            ));
        }
        cautions
    }
}
