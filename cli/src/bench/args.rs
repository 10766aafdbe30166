//! The flags of one load test, and how they become a plan and a workload. Reaches nobody.

use std::{path::PathBuf, sync::Arc, time::Duration};

use anyhow::Context as _;
use chorus_load::{
    Load, Plan,
    measure::Window,
    ramp::Goal,
    workload::{Delivery, Inputs, Lengths, Mix, Workload, parse_prompts},
};
use chorus_proto::v1::{SamplingOptions, StatusReply};

use crate::{
    client::{Address, FusionArgs, SecurityArgs},
    failure::UsageError,
    text_file,
    values::{number, seed},
};

/// One load test.
#[derive(Debug, clap::Args)]
pub(super) struct LoadTestArgs {
    #[command(flatten)]
    pub(super) target: TargetArgs,
    #[command(flatten)]
    pub(super) load: LoadArgs,
    #[command(flatten)]
    pub(super) workload: WorkloadArgs,
    #[command(flatten)]
    pub(super) output: OutputArgs,
}

/// What is measured.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "What is measured")]
pub(super) struct TargetArgs {
    /// Where the ensemble listens
    #[arg(long, visible_alias = "server", value_name = "HOST:PORT", default_value = "127.0.0.1:50051")]
    pub(super) addr: Address,
    #[command(flatten)]
    pub(super) security: SecurityArgs,
    /// This tool itself, against a server in this process that answers at once
    #[arg(long, conflicts_with_all = ["addr", "null_workers"])]
    pub(super) null_server: bool,
    /// A coordinator of its own over N members that answer at once
    #[arg(long, value_name = "N", conflicts_with = "addr", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(super) null_workers: Option<u32>,
    /// Tokens in the vocabulary of the null workers
    #[arg(long, value_name = "V", default_value_t = 10_000, value_parser = vocabulary, requires = "null_workers")]
    pub(super) vocabulary: u32,
}

/// Who calls, and for how long.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Load")]
pub(super) struct LoadArgs {
    /// Closed loop: N callers (default: 8)
    #[arg(long, visible_alias = "sessions", value_name = "N", value_parser = at_least_one, conflicts_with_all = ["rate", "ramp"])]
    concurrency: Option<usize>,
    /// Open loop: R calls a second on average
    #[arg(long, value_name = "R", value_parser = rate)]
    rate: Option<f64>,
    /// Open loops at rates that close in on the highest one that meets a goal; --rate is the first
    #[arg(long, value_name = "LATENCY:pNN:LIMIT")]
    pub(super) ramp: Option<Goal>,
    /// The highest goodput of closed loops (--concurrency is the first), then F times as many calls a second as an open loop
    #[arg(long, value_name = "F", value_parser = factor, conflicts_with_all = ["rate", "ramp", "picture"])]
    pub(super) overload: Option<f64>,
    /// With --overload: so often maximum and overload take turns; the medians are shown
    #[arg(long, value_name = "N", default_value_t = 3, requires = "overload", value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(super) rounds: u32,
    /// How long is measured (for each rate of a ramp or of an overload)
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = humantime::parse_duration)]
    pub(super) duration: Duration,
    /// How long calls are made before that
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = humantime::parse_duration)]
    pub(super) warm_up: Duration,
    /// How long calls may go on after it
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = humantime::parse_duration)]
    drain: Duration,
    /// Open loop: calls in flight at most; what is beyond that is counted, not sent
    #[arg(long, value_name = "N", default_value_t = 1024, value_parser = at_least_one)]
    max_in_flight: usize,
    /// The deadline of every call (default: none)
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    timeout: Option<Duration>,
    /// Threads that call
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = at_least_one)]
    threads: usize,
    /// Connections over all threads (default: one for each thread; 16 with --overload)
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    connections: Option<usize>,
}

/// What is asked.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Calls")]
pub(super) struct WorkloadArgs {
    /// Shares of the kinds of calls: generate, score, or as in generate=3,score=1
    #[arg(long, default_value = "generate")]
    mix: Mix,
    /// Replay the prompts of a file; `-` reads stdin (default: random token ids)
    #[arg(long, value_name = "FILE")]
    prompts: Option<PathBuf>,
    /// Tokens of a random prompt
    #[arg(long, value_name = "LENGTH", default_value = "8")]
    prompt_tokens: Lengths,
    /// Tokens to generate
    #[arg(long, value_name = "LENGTH", default_value = "32")]
    max_tokens: Lengths,
    /// Generations are answered once (the call Complete), not token by token: no first token, no gaps
    #[arg(long)]
    whole_answers: bool,
    /// Tokens of a random text that is scored
    #[arg(long, value_name = "LENGTH", default_value = "32")]
    score_tokens: Lengths,
    /// 0 is greedy (default: the server's, which is 1)
    #[arg(long, value_name = "T", value_parser = number, allow_negative_numbers = true)]
    temperature: Option<f64>,
    /// Only the K likeliest tokens (default: all)
    #[arg(long, value_name = "K", allow_negative_numbers = true)]
    top_k: Option<u32>,
    /// Only the likeliest tokens that together reach the probability P (default: 1, all)
    #[arg(long, value_name = "P", value_parser = number, allow_negative_numbers = true)]
    top_p: Option<f64>,
    /// Decides all that is random: prompts, lengths, arrivals, and the seeds of the calls
    #[arg(long, value_name = "S", default_value_t = 1, value_parser = seed, allow_negative_numbers = true)]
    seed: u64,
    #[command(flatten)]
    fusion: FusionArgs,
}

/// How it is shown.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Output")]
pub(super) struct OutputArgs {
    /// Print one JSON object instead of tables
    #[arg(long)]
    pub(super) json: bool,
    /// Draw a picture (SVG)
    #[arg(long, value_name = "FILE")]
    pub(super) picture: Option<PathBuf>,
}

/// Callers of a closed loop, where nothing is said.
const DEFAULT_CONCURRENCY: usize = 8;
/// An overload comes over so many, where nothing is said: from many callers.
const MANY_CONNECTIONS: usize = 16;
/// The first rate of a ramp, where nothing is said, in calls a second.
const FIRST_RATE: f64 = 1.0;
/// The most places, threads, connections or calls in flight.
const MOST: usize = 100_000;
/// Null workers keep a few rows of a vocabulary in every format: 500 MB of this one.
const LARGEST_VOCABULARY: u32 = 250_000;

impl LoadArgs {
    /// The plan without a ramp.
    pub(super) fn plan(&self) -> Plan {
        let load = match self.rate {
            Some(rate) => self.open(rate),
            None => Load::Closed { concurrency: self.callers() },
        };
        self.plan_with(load)
    }

    /// The plan of one step of a ramp.
    pub(super) fn plan_at(&self, rate: f64) -> Plan {
        self.plan_with(self.open(rate))
    }

    /// The plan of one step of a search for the maximum, or of what comes after it.
    pub(super) fn overload(&self, load: Load) -> Plan {
        let connections = self.connections.unwrap_or(MANY_CONNECTIONS).max(self.threads);
        Plan { connections, ..self.plan_with(load) }
    }

    /// Callers of a closed loop.
    pub(super) fn callers(&self) -> usize {
        self.concurrency.unwrap_or(DEFAULT_CONCURRENCY)
    }

    pub(super) fn first_rate(&self) -> f64 {
        self.rate.unwrap_or(FIRST_RATE)
    }

    fn open(&self, rate: f64) -> Load {
        Load::Open { rate, most_in_flight: self.max_in_flight }
    }

    fn plan_with(&self, load: Load) -> Plan {
        Plan {
            load,
            window: Window { from: self.warm_up, until: self.warm_up.saturating_add(self.duration) },
            drain: self.drain,
            threads: self.threads,
            connections: self.connections.unwrap_or(self.threads).max(self.threads),
            timeout: self.timeout,
            watched: None,
        }
    }
}

impl WorkloadArgs {
    /// The workload for an ensemble that says this of itself.
    ///
    /// # Errors
    /// The prompts can't be read, a member was given two weights, or a length is beyond what the ensemble allows.
    pub(super) fn workload(&self, status: &StatusReply) -> anyhow::Result<Arc<Workload>> {
        let inputs = match &self.prompts {
            None => Inputs::Random { vocabulary_size: status.vocabulary_size },
            Some(path) => {
                let text_file::Text { text, origin } = text_file::read(path, text_file::LARGEST_DATA)?;
                let prompts = parse_prompts(&text).with_context(|| format!("{origin} can't be replayed"))?;
                Inputs::Replayed(prompts.into())
            }
        };
        let limits = status.limits.unwrap_or_default();
        within("--max-tokens", self.max_tokens, limits.max_generated_tokens)?;
        within("--prompt-tokens", self.prompt_tokens, limits.max_input_tokens)?;
        within("--score-tokens", self.score_tokens, limits.max_input_tokens)?;
        Ok(Arc::new(Workload {
            mix: self.mix,
            inputs,
            prompt_tokens: self.prompt_tokens,
            max_tokens: self.max_tokens,
            delivery: if self.whole_answers { Delivery::Whole } else { Delivery::Streamed },
            score_tokens: self.score_tokens,
            sampling: self.sampling(),
            fusion: self.fusion.options()?,
            seed: self.seed,
        }))
    }

    /// Nothing where nothing was given, since a vote refuses sampling options.
    fn sampling(&self) -> Option<SamplingOptions> {
        let given = self.temperature.is_some() || self.top_k.is_some() || self.top_p.is_some();
        given.then_some(SamplingOptions {
            temperature: self.temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            ..SamplingOptions::default()
        })
    }
}

/// A run of calls that are all refused says less than this.
fn within(flag: &str, lengths: Lengths, most: u32) -> Result<(), UsageError> {
    let longest = lengths.longest();
    if longest <= most {
        return Ok(());
    }
    Err(UsageError(format!("{flag} {lengths} goes up to {longest}; the ensemble allows 1 to {most}")))
}

fn at_least_one(text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|number| (1..=MOST).contains(number));
    number.ok_or_else(|| format!("expected a whole number from 1 to {MOST}"))
}

pub(super) fn vocabulary(text: &str) -> Result<u32, String> {
    let size = text.parse().ok().filter(|size| (2..=LARGEST_VOCABULARY).contains(size));
    size.ok_or_else(|| format!("expected a whole number from 2 to {LARGEST_VOCABULARY}"))
}

fn rate(text: &str) -> Result<f64, String> {
    let rate = text.parse().ok().filter(|rate: &f64| (0.01..=1e6).contains(rate));
    rate.ok_or_else(|| "expected a number of calls a second from 0.01 to 1000000".to_owned())
}

fn factor(text: &str) -> Result<f64, String> {
    let factor = text.parse().ok().filter(|factor: &f64| (0.1..=100.0).contains(factor));
    factor.ok_or_else(|| "expected a number from 0.1 to 100: how many times the highest goodput".to_owned())
}

#[cfg(test)]
mod tests {
    use chorus_proto::v1::RequestLimits;
    use clap::Parser as _;

    use super::*;

    #[derive(Debug, clap::Parser)]
    struct CommandLine {
        #[command(flatten)]
        arguments: LoadTestArgs,
    }

    fn parsed(words: &[&str]) -> Result<LoadTestArgs, clap::Error> {
        let line = ["bench"].iter().chain(words);
        CommandLine::try_parse_from(line).map(|line| line.arguments)
    }

    fn status() -> StatusReply {
        let limits =
            RequestLimits { max_input_tokens: 100, max_generated_tokens: 50, ..RequestLimits::default() };
        StatusReply { vocabulary_size: 512, limits: Some(limits), ..StatusReply::default() }
    }

    #[test]
    fn a_plan_is_a_closed_loop_unless_a_rate_is_given() {
        let closed = parsed(&[]).unwrap().load.plan();
        assert_eq!(closed.load, Load::Closed { concurrency: 8 });
        assert_eq!((closed.window.from.as_secs(), closed.window.until.as_secs()), (2, 12));
        let words = [
            "--rate",
            "2.5",
            "--max-in-flight",
            "7",
            "--duration",
            "1m",
            "--warm-up",
            "0s",
            "--threads",
            "3",
        ];
        let open = parsed(&words).unwrap().load.plan();
        assert_eq!(open.load, Load::Open { rate: 2.5, most_in_flight: 7 });
        assert_eq!((open.window.length().as_secs(), open.connections), (60, 3));
        let sessions = parsed(&["--null-workers", "3", "--sessions", "64"]).unwrap().load.plan();
        assert_eq!(sessions.load, Load::Closed { concurrency: 64 });
    }

    #[test]
    fn wrong_words_are_refused_with_what_is_allowed() {
        for (words, said) in [
            (&["--concurrency", "0"][..], "from 1 to 100000"),
            (&["--rate", "0"], "from 0.01 to 1000000"),
            (&["--rate", "NaN"], "from 0.01 to 1000000"),
            (&["--rate", "5", "--concurrency", "5"], "cannot be used with"),
            (&["--mix", "predict"], "generate=3,score=1"),
            (&["--max-tokens", "0"], "A..B"),
            (&["--ramp", "ttft:99"], "first-token:p99:50ms"),
            (&["--overload", "0"], "from 0.1 to 100"),
            (&["--overload", "2", "--rate", "5"], "cannot be used with"),
            (&["--duration", "10"], "time unit needed"),
            (&["--null-server", "--null-workers", "3"], "cannot be used with"),
            (&["--null-workers", "0"], "1..=1024"),
            (&["--null-workers", "3", "--vocabulary", "1"], "from 2 to 250000"),
            (&["--vocabulary", "100"], "--null-workers"),
            (&["--addr", "nowhere"], "expected HOST:PORT"),
        ] {
            let error = parsed(words).unwrap_err();
            assert!(error.to_string().contains(said), "{words:?}: {error}");
            assert_eq!(error.exit_code(), 2);
        }
    }

    #[test]
    fn a_workload_is_for_the_ensemble_that_is_asked() {
        let workload = parsed(&["--temperature", "0", "--seed", "5"]).unwrap().workload;
        let workload = workload.workload(&status()).unwrap();
        assert_eq!(workload.inputs, Inputs::Random { vocabulary_size: 512 });
        assert_eq!(workload.sampling.as_ref().and_then(|sampling| sampling.temperature), Some(0.0));
        assert_eq!(workload.seed, 5);
        for (words, said) in [
            (["--max-tokens", "60"], "--max-tokens 60 goes up to 60; the ensemble allows 1 to 50"),
            (
                ["--prompt-tokens", "5..101"],
                "--prompt-tokens 5..101 goes up to 101; the ensemble allows 1 to 100",
            ),
            (
                ["--score-tokens", "exp:6"],
                "--score-tokens exp:6 goes up to 120; the ensemble allows 1 to 100",
            ),
        ] {
            let error = parsed(&words).unwrap().workload.workload(&status()).unwrap_err();
            assert!(error.is::<UsageError>() && error.to_string() == said, "{error}");
        }
    }

    #[test]
    fn a_file_of_prompts_that_can_t_be_replayed_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("prompts.jsonl");
        std::fs::write(&path, "{\"prompt\": 1}\n").unwrap();
        let path = path.to_str().unwrap();
        let error = parsed(&["--prompts", path]).unwrap().workload.workload(&status()).unwrap_err();
        let line = crate::failure::one_line(&error);
        assert!(line.contains(path) && line.contains("line 1 can't be read"), "{line}");
    }
}
