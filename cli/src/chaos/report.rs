//! What a campaign found, as a table and as JSON. Knows nothing about how it was found.

use std::time::Duration;

use chorus_proto::v1::Recovery;
use serde::Serialize;

use super::{callers::Noticed, fault::Fault};
use crate::client::table;

/// What is printed with `--json`; the keys are part of the interface.
#[derive(Debug, Serialize)]
pub(super) struct Campaign {
    pub(super) streams: usize,
    pub(super) replicas: usize,
    pub(super) silence_ms: u32,
    pub(super) faults: Vec<Row>,
}

/// What callers noticed of one fault.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    fault: &'static str,
    requests: u64,
    failed: u64,
    wrong: u64,
    tokens: u64,
    degraded_tokens: u64,
    longest_gap_ms: f64,
    p99_gap_ms: f64,
    /// Null where it was not within a minute.
    whole_after_ms: Option<f64>,
    takeovers: u64,
    recomputed_tokens: u64,
    hedges: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_missing: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_failure: Option<String>,
}

impl Row {
    /// `before` and `after`: what had been done so that no loss shows.
    pub(super) fn new(
        fault: Fault,
        noticed: &Noticed,
        whole_after: Option<Duration>,
        before: &Recovery,
        after: &Recovery,
    ) -> Self {
        Self {
            fault: fault.name(),
            requests: noticed.requests,
            failed: noticed.failed,
            wrong: noticed.wrong,
            tokens: noticed.tokens,
            degraded_tokens: noticed.degraded_tokens,
            longest_gap_ms: milliseconds(noticed.longest_gap),
            p99_gap_ms: milliseconds(noticed.gaps.at(0.99)),
            whole_after_ms: whole_after.map(milliseconds),
            takeovers: after.takeovers - before.takeovers,
            recomputed_tokens: after.recomputed_tokens - before.recomputed_tokens,
            hedges: after.hedges - before.hedges,
            first_missing: noticed.first_missing.clone(),
            first_failure: noticed.first_failure.clone(),
        }
    }
}

impl Campaign {
    /// One object.
    ///
    /// # Errors
    /// Never, for numbers and names.
    pub(super) fn json(&self) -> serde_json::Result<String> {
        Ok(serde_json::to_string_pretty(self)? + "\n")
    }

    pub(super) fn table(&self) -> String {
        let header = [
            "fault",
            "requests",
            "failed",
            "wrong",
            "degraded",
            "longest gap",
            "p99",
            "whole after",
            "taken over",
            "read again",
            "hedges",
        ];
        let rows = self.faults.iter().map(|row| {
            vec![
                row.fault.to_owned(),
                row.requests.to_string(),
                row.failed.to_string(),
                row.wrong.to_string(),
                format!("{} of {}", row.degraded_tokens, row.tokens),
                format!("{:.0} ms", row.longest_gap_ms),
                format!("{:.0} ms", row.p99_gap_ms),
                row.whole_after_ms
                    .map_or_else(|| "not yet".to_owned(), |after| format!("{:.1} s", after / 1e3)),
                row.takeovers.to_string(),
                row.recomputed_tokens.to_string(),
                row.hedges.to_string(),
            ]
        });
        let remarks = self.faults.iter().flat_map(|row| {
            let missing =
                row.first_missing.as_ref().map(|why| format!("{}: went on without {why}\n", row.fault));
            let failed = row.first_failure.as_ref().map(|why| format!("{}: failed with {why}\n", row.fault));
            missing.into_iter().chain(failed)
        });
        let remarks: String = remarks.collect();
        format!("{}{}{remarks}", table(&header, &[], rows), self.verdict())
    }

    /// What a fault may cost in a gap, by the figures without one.
    fn verdict(&self) -> String {
        let Some(calm) = self.faults.first() else {
            return String::new();
        };
        let allowed = 3.0 * calm.p99_gap_ms + f64::from(self.silence_ms);
        format!(
            "\n{} streams, {} workers for each member. Three times the 99th percentile without faults and {} ms are \
             {allowed:.0} ms.\n",
            self.streams, self.replicas, self.silence_ms
        )
    }
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_has_what_was_noticed_and_what_was_done_meanwhile() {
        let mut noticed =
            Noticed { requests: 12, failed: 1, tokens: 100, degraded_tokens: 7, ..Noticed::default() };
        noticed.first_failure = Some("it was full".to_owned());
        noticed.longest_gap = Duration::from_millis(250);
        (0..100).for_each(|_| noticed.gaps.record(Duration::from_millis(5)));
        let before = Recovery { takeovers: 3, recomputed_tokens: 10, hedges: 1, hedges_won: 0 };
        let after = Recovery { takeovers: 8, recomputed_tokens: 30, hedges: 2, hedges_won: 1 };
        let row = Row::new(Fault::Freeze, &noticed, Some(Duration::from_millis(1500)), &before, &after);
        let campaign = Campaign { streams: 16, replicas: 2, silence_ms: 200, faults: vec![row] };
        let table = campaign.table();
        let words: Vec<&str> = table.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!(words.join(" "), "SIGSTOP, one worker 12 1 0 7 of 100 250 ms 5 ms 1.5 s 5 20 1");
        assert!(table.contains("are 215 ms."), "{table}");
        assert!(table.contains("SIGSTOP, one worker: failed with it was full"), "{table}");
        let json: serde_json::Value = serde_json::from_str(&campaign.json().unwrap()).unwrap();
        assert_eq!(json["faults"][0]["degraded_tokens"], 7);
        assert_eq!(json["faults"][0]["whole_after_ms"], 1500.0);
    }
}
