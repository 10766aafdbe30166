//! A report as tables for people. Knows nothing about how it was measured.

use chorus_load::report::{LatencyReport, LoadReport, Report};

use crate::client::table;

/// The whole report.
pub(super) fn report(report: &Report) -> String {
    let mut text = summary(report);
    let latencies = latencies(report);
    if !latencies.is_empty() {
        text += "\n";
        text += &latencies;
    }
    if !report.errors.is_empty() {
        text += "\n";
        let rows = report
            .errors
            .iter()
            .map(|error| vec![error.code.clone(), error.count.to_string(), error.example.clone()]);
        text += &table(&["failed with", "calls", "the first said"], &["the first said"], rows);
    }
    text
}

fn summary(report: &Report) -> String {
    let load = match report.load {
        LoadReport::Closed { concurrency } => format!("closed loop, {concurrency} callers"),
        LoadReport::Open { rate, most_in_flight } => {
            format!("open loop, {rate:.2} calls/s, at most {most_in_flight} in flight")
        }
    };
    let calls = report.calls;
    let mut counts = format!("{} sent, {} answered, {} failed", calls.sent, calls.answered, calls.failed);
    for (count, what) in
        [(calls.unfinished, "unfinished"), (calls.not_sent, "not sent"), (calls.degraded, "degraded")]
    {
        if count > 0 {
            counts += &format!(", {count} {what}");
        }
    }
    let per_second = report.per_second;
    let mut throughput = format!("{:.1} answers/s", per_second.answers);
    for (tokens, what) in [(per_second.generated_tokens, "generated"), (per_second.scored_tokens, "scored")] {
        if tokens > 0.0 {
            throughput += &format!(", {tokens:.1} tokens/s {what}");
        }
    }
    let client = report.client;
    let cost = client.cpu_us_per_token.map_or_else(String::new, |cost| format!(", {cost:.1} us a token"));
    format!(
        " load        {load}\n measured    {:.1} s after {:.1} s of warm-up{}\n calls       {counts}\n \
         throughput  {throughput}\n this tool   busy for {:.0} % of its time{cost}\n",
        report.measured_seconds,
        report.warm_up_seconds,
        if report.interrupted { " (interrupted)" } else { "" },
        client.busiest_thread * 100.0,
    )
}

fn latencies(report: &Report) -> String {
    let latency = &report.latency_ms;
    let all = [
        ("first token", latency.first_token),
        ("between tokens", latency.inter_token),
        ("whole generation", latency.generate),
        ("whole scoring", latency.score),
    ];
    let rows: Vec<Vec<String>> =
        all.into_iter().filter_map(|(name, latency)| Some(row(name, &latency?))).collect();
    if rows.is_empty() {
        return String::new();
    }
    table(&["milliseconds", "mean", "p50", "p90", "p95", "p99", "p99.9", "max", "values"], &[], rows)
}

fn row(name: &str, latency: &LatencyReport) -> Vec<String> {
    let numbers =
        [latency.mean, latency.p50, latency.p90, latency.p95, latency.p99, latency.p999, latency.max];
    let numbers = numbers.into_iter().map(milliseconds);
    std::iter::once(name.to_owned()).chain(numbers).chain([latency.count.to_string()]).collect()
}

/// As many digits as a histogram keeps.
pub(super) fn milliseconds(value: f64) -> String {
    match value {
        value if value >= 100.0 => format!("{value:.0}"),
        value if value >= 10.0 => format!("{value:.1}"),
        value if value >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn milliseconds_have_three_digits() {
        let all = [1234.5, 12.34, 1.234, 0.1234].map(milliseconds);
        assert_eq!(all, ["1234", "12.3", "1.23", "0.123"]);
    }
}
