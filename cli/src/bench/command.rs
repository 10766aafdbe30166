//! The command line of `chorus bench` and its subcommands. Reaches nobody.

use super::{args::LoadTestArgs, growth::GrowthArgs, step::StepArgs, tax::TaxArgs};

const EXAMPLES: &str = "\
Examples:
  chorus bench                                # 8 callers, 10 s
  chorus bench --concurrency 32 --duration 30s --temperature 0
  chorus bench --rate 50 --mix generate=3,score=1 --picture bench.svg
  chorus bench --rate 20 --prompts prompts.jsonl --json | jq .latency_ms
  chorus bench --ramp first-token:p99:50ms    # the highest rate that meets it
  chorus bench --overload 2                   # twice what it can carry
  chorus bench --null-server --concurrency 64 # this tool's own ceiling
  chorus bench --null-workers 8 --vocabulary 10000 --sessions 64
  chorus bench growth --picture growth.svg    # the coordinator's cost
  chorus bench tax                            # served against in one process
  chorus bench step                           # where one step's time goes

Closed loop (--concurrency): callers who wait for an answer before they ask
again. Open loop (--rate): Poisson arrivals, whatever the server does; a latency
begins when the call should have started, so a stall counts for all who came in
it. A closed loop asks less while the server stalls and hides that: take it for
throughput, and an open loop for latencies.

What is measured: calls that should have started between the end of the warm-up
and the end of --duration, to their ends; answers and tokens that came in that
time. Every gap between two tokens is a value of its own: percentiles are of all
of them, not of means. Histograms keep three digits.

Without --prompts, prompts are random token ids: exact lengths, any vocabulary.
A file of prompts has one a line, replayed in order: a text as it stands, or
  {\"prompt\": \"...\", \"max_tokens\": 64}    continued (max_tokens may be absent)
  {\"score\": \"...\"}                       scored
Lengths are N, A..B (each equally often) or exp:MEAN.

With --json one object with the keys
  load        kind (closed, open), concurrency or rate and most_in_flight
  warm_up_seconds, measured_seconds, interrupted
  calls       sent, answered, failed, unfinished, not_sent, degraded
  errors      [{code, count, example}]
  per_second  answers, generated_tokens, scored_tokens, prompt_tokens
  latency_ms  first_token, inter_token, generate, score: null, or
              {count, mean, min, p50, p90, p95, p99, p999, max}
  client      threads, connections, cpu_seconds, cpu_us_per_token,
              busiest_thread (share of its time), sent_late_ms_p99
  timeline    [{second, answers_per_second, tokens_per_second,
              errors_per_second}]
With --null-workers also coordinator {members, vocabulary, cpu_us_per_token,
cpu_us_per_token_and_member}; with --ramp goal, highest_rate (or null), steps
[{rate, met, reason, report}]; with --overload overload, steps [{concurrency,
goodput}], rounds [[goodput, goodput]], maximum and overloaded {offered,
goodput, refused_share, report}, goodput_share, highest, share_of_highest.
Goodput is answers a second; what is refused is none.

Ctrl-C prints what was measured so far (exit code 130). The exit code is 1 where
no call was answered.";

/// Measure an ensemble under load: throughput, latencies, errors
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub(crate) struct BenchArgs {
    #[command(subcommand)]
    pub(super) command: Option<BenchCommand>,
    #[command(flatten)]
    pub(super) bench: LoadTestArgs,
}

#[derive(Debug, clap::Subcommand)]
pub(super) enum BenchCommand {
    Growth(Box<GrowthArgs>),
    Tax(TaxArgs),
    Step(StepArgs),
}
