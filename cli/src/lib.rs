//! The one binary `chorus` as a library: parse, build, run. It knows every crate and decides nothing.
//!
//! `main.rs` (and the binary under test of the cross-process tests) only calls [`main`].

mod bench;
#[cfg(unix)]
mod chaos;
mod client;
mod completions;
mod compute;
mod config;
mod distill;
mod eval;
mod failure;
mod import;
mod learn;
mod line_text;
mod logging;
mod picture_file;
mod quantize;
mod report;
mod serve;
mod shutdown;
mod text_file;
mod train;
mod tune;
mod up;
mod values;
mod variables;

use std::{future::Future, num::NonZeroUsize, process::ExitCode};

use anyhow::Context as _;
use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use tokio::runtime::Builder;

/// Serves an ensemble of language models as one model.
#[derive(Debug, Parser)]
#[command(name = "chorus", version, propagate_version = true, max_term_width = 100)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Up(up::UpArgs),
    Generate(client::GenerateArgs),
    Score(client::ScoreArgs),
    Predict(client::PredictArgs),
    Rank(Box<client::RankArgs>),
    Classify(Box<client::ClassifyArgs>),
    Status(client::StatusArgs),
    Health(client::HealthArgs),
    Members(client::MembersArgs),
    Tune(Box<tune::TuneArgs>),
    Report(Box<report::ReportArgs>),
    Distill(Box<distill::DistillArgs>),
    Worker(serve::WorkerArgs),
    Coordinator(serve::CoordinatorArgs),
    Config(config::ConfigArgs),
    Train(Box<train::TrainArgs>),
    Import(import::ImportArgs),
    Eval(eval::EvalArgs),
    Quantize(quantize::QuantizeArgs),
    Bench(Box<bench::BenchArgs>),
    #[cfg(unix)]
    Chaos(chaos::ChaosArgs),
    Completions(completions::CompletionsArgs),
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let matches = command_line().get_matches();
    let line = CommandLine::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    failure::exit_code(run(line.command))
}

fn command_line() -> clap::Command {
    variables::with_variables(CommandLine::command())
}

fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Up(arguments) => block_on_one(up::up(arguments)),
        Command::Generate(arguments) => block_on_one(client::generate(arguments)),
        Command::Score(arguments) => block_on_one(client::score(arguments)),
        Command::Predict(arguments) => block_on_one(client::predict(arguments)),
        Command::Rank(arguments) => block_on_one(client::rank(*arguments)),
        Command::Classify(arguments) => block_on_one(client::classify(*arguments)),
        Command::Status(arguments) => block_on_one(client::status(arguments)),
        Command::Health(arguments) => block_on_one(client::health(arguments)),
        Command::Members(arguments) => block_on_one(client::members(arguments)),
        Command::Tune(arguments) => block_on_one(tune::run(*arguments)),
        Command::Report(arguments) => block_on_one(report::run(*arguments)),
        Command::Distill(arguments) => block_on_one(distill::run(*arguments)),
        Command::Worker(arguments) => block_on_one(serve::worker(arguments)),
        Command::Coordinator(arguments) => {
            block_on_several(arguments.threads(), serve::coordinator(arguments))
        }
        Command::Config(arguments) => config::run(arguments),
        Command::Train(arguments) => train::run(*arguments),
        Command::Import(arguments) => import::run(arguments),
        Command::Eval(arguments) => eval::run(arguments),
        Command::Quantize(arguments) => quantize::run(arguments),
        Command::Bench(arguments) => block_on_one(bench::run(*arguments)),
        #[cfg(unix)]
        Command::Chaos(arguments) => block_on_one(chaos::run(arguments)),
        Command::Completions(arguments) => completions::run(&arguments, &mut command_line()),
    }
}

/// One thread for all connections: what becomes ready together is written together, and nobody wakes another thread. That
/// makes half of what several threads cost, until the one is busy all the time.
fn block_on_one(command: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    block_on(Builder::new_current_thread(), command)
}

fn block_on_several(
    threads: NonZeroUsize,
    command: impl Future<Output = anyhow::Result<()>>,
) -> anyhow::Result<()> {
    if threads == NonZeroUsize::MIN {
        return block_on_one(command);
    }
    let mut runtime = Builder::new_multi_thread();
    runtime.worker_threads(threads.get());
    block_on(runtime, command)
}

fn block_on(mut runtime: Builder, command: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    let runtime = runtime.enable_all().build().context("can't start the asynchronous runtime")?;
    let result = runtime.block_on(command);
    // What is still running was meant to be given up: nothing may keep the process from ending.
    runtime.shutdown_background();
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        command_line().debug_assert();
    }

    /// Examples are pasted, and terminals that are narrower than a line would break it in two commands.
    #[test]
    fn no_line_of_the_examples_is_wider_than_a_terminal() {
        let command = command_line();
        let commands = command.get_subcommands();
        for command in commands.flat_map(|command| std::iter::once(command).chain(command.get_subcommands()))
        {
            let help =
                command.get_after_help().unwrap_or_else(|| panic!("{} has no examples", command.get_name()));
            for line in help.to_string().lines() {
                assert!(line.chars().count() <= 80, "{}: {line}", command.get_name());
            }
        }
    }

    #[test]
    fn command_lines_that_are_promised_to_stay_are_understood() {
        for line in [
            "import --weights net.pt --vocab vocab.json --out dir",
            "eval --model dir test.txt --json",
            "quantize --model dir --out small --to q4k --text - --json",
            "quantize --model dir --out half --to bf16",
            "eval --model dir test.txt --quantize q8_0",
            "worker --model dir --quantize q6k",
            "up --quantize q4k",
            "generate ROMEO: --max-tokens 20 --seed 7",
            "generate - --temperature 0 --top-k 5 --top-p 0.9 --stop a --stop b --json --addr localhost:1",
            "generate x --rule log_linear --threshold 0.2 --weight alto=2 --weight bass=1 --log-probs",
            // What is out of range is the server's to refuse, with its sentence.
            "generate x --temperature -1 --top-p -0.5 --max-tokens 0 --threshold -1",
            "generate x --temperature NaN",
            "generate -- -x",
            "score - --per-token",
            "predict x --top-n 3",
            "generate x --beam 8 --length-penalty 0.6 --n-best 3 --repetition-penalty 1.2 --candidates 4 --only a",
            "generate x --allow-token 1 --allow-token 2 --forbid-token 3",
            "rank nbest.txt --context x --by per-token --top-n 3 --json",
            "rank - --scores --scale 0.5 --by prior --prior-context y",
            "classify text --labels labels.toml",
            "classify --labels labels.toml --file - --in-flight 4",
            "classify --labels labels.toml --test test.tsv --rule threshold_vote --json",
            "classify --labels labels.toml --learn dev.tsv --out learned.toml",
            "status --json",
            "health --addr localhost:50061 --service chorus.v1.Worker --wait 60 --json",
            "worker --model dir --device cuda:1 --listen 127.0.0.1:0 --log debug --log-format json",
            "worker --model dir --exit-with-parent",
            "coordinator --member alto@2=http://h:1 --member bass=http://h:2 --rule threshold_vote --threshold 0.1",
            "coordinator --config ensemble.toml --listen 127.0.0.1:0 --threads 4 --admin 127.0.0.1:0 --http 127.0.0.1:0",
            "up --admin 127.0.0.1:50052 --http 127.0.0.1:0",
            "up --metrics 127.0.0.1:9464",
            "worker --model dir --metrics 127.0.0.1:0 --otlp http://127.0.0.1:4317",
            "coordinator --config ensemble.toml --otlp http://collector:4317",
            "members list --admin localhost:50052 --json",
            "members add tuba@0.5=http://h:1,http://h:2 drum=dns://drum:1 --allow-down --quorum-members 2",
            "members remove tuba drum --quorum-weight 0.5",
            "members move tuba=http://h:3",
            "members weight alto=2 bass=0.5",
            "members reload --allow-down",
            "up --models dir --listen 127.0.0.1:0 -vv",
            "tune valid.txt",
            "distill --data a --valid b --out c --top-k 64 --temperature 2 --hard-weight 0.1 --test d --resume",
            "distill --data a --valid b --out c --dense --hidden 448 --epochs 10 --teacher t --json",
            "report test.txt --out report.html --folds 3 --json",
            "tune - --method cv --folds 10 --fold-method gradient --out w.toml --replace --json",
            "tune valid.txt --rule threshold_vote --thresholds 0.1,0.2 --vote-weights --on-change continue",
            "tune valid.txt --rule log_linear --method bayes --seed 3 --cache dir --part-tokens 512",
            "bench",
            "bench --addr localhost:1 --concurrency 32 --duration 10s --warm-up 0s --json --picture bench.svg",
            "bench --rate 12.5 --mix generate=3,score=1 --prompts prompts.jsonl --temperature 0 --threads 2",
            "bench --ramp inter-token:p99.9:20ms --rate 5 --max-tokens exp:64 --prompt-tokens 4..64",
            "bench --null-server --concurrency 64 --whole-answers",
            "bench --null-workers 8 --vocabulary 10000 --sessions 64 --rule log_linear",
            "bench growth --members 1,3 --vocabulary 256,10000 --sessions 1,64 --picture growth.svg",
            "bench tax --models dir --concurrency 32 --rounds 3 --json",
            "bench step --models dir --json",
        ] {
            let words = std::iter::once("chorus").chain(line.split(' '));
            if let Err(error) = CommandLine::try_parse_from(words) {
                panic!("chorus {line}: {error}");
            }
        }
    }

    #[test]
    fn wrong_command_lines_are_refused_with_what_is_allowed() {
        for (line, said) in [
            ("generate", "<PROMPT>"),
            ("generate x --rule averaging", "weighted_average, threshold_vote, log_linear"),
            ("generate x --weight alto", "expected NAME=W"),
            ("generate x --addr nowhere", "expected HOST:PORT"),
            ("generate x --max-tokens -1", "--max-tokens"),
            ("generate x --sed 7", "--seed"),
            ("generate x --n-best 2", "--beam"),
            ("rank x --by mean", "total, per-token, prior"),
            ("classify --labels l.toml", "--file"),
            ("classify x --labels l.toml --learn d", "cannot be used"),
            ("classify --labels l.toml --learn d", "--out"),
            ("generate x --seed -1", "from 0 to 18446744073709551615"),
            ("generate x --temperature warm", "expected a number"),
            ("worker", "--model <DIR>"),
            ("worker --model dir --quantize q5k", "q8_0, q6k and q4k"),
            ("up --precision int8 --quantize q4k", "--precision"),
            ("quantize --model dir --out small --to q4_0", "q8_0, q6k, q4k, f16 and bf16"),
            ("quantize --model dir --to q4k", "--out <DIR>"),
            ("worker --model dir --listen localhost", "expected IP:PORT"),
            ("coordinator --member alto", "name[@weight]=http://host:port"),
            ("members", "chorus members <COMMAND>"),
            ("members add tuba", "name[@weight]=http://host:port"),
            ("members weight alto", "expected NAME=W"),
            ("members remove", "<NAME>"),
            ("up --admin 127.0.0.1:0", "a port that is not 0"),
            ("worker --model dir --otlp collector:4317", "expected http://HOST:PORT"),
        ] {
            let words = std::iter::once("chorus").chain(line.split(' '));
            let error = CommandLine::try_parse_from(words).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{line}");
            assert!(error.to_string().contains(said), "chorus {line}: {error}");
        }
    }
}
