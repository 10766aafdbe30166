//! The command line of `chorus train`, and how its words become training options. Reads no file.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use chorus_model::train::{
    CheckpointInterval, DataOrder, Decay, LineOptions, OptimizerKind, RunSettings, TrainingOptions,
};
use chorus_model::{Start, WeightType};
use chorus_text::Vocabulary;
use clap::{ArgGroup, Args, ValueEnum};

use crate::line_text;

const EXAMPLES: &str = "\
Examples:
  chorus train --data train.txt --valid valid.txt --out alto \\
               --tokenizer bpe:512 --dropout 0.4 --epochs 20
  chorus train --data train.txt --valid valid.txt --out bass \\
               --tokenizer-from alto --seed 2 --order passages
  chorus train --data pairs.tsv --valid valid.tsv --out translator \\
               --tokenizer bpe:4000 --lines --loss-after '\\t'
  chorus train --data wiki.train --valid wiki.valid --out wiki \\
               --tokenizer words --hidden 650 --layers 2 --embedding 650 \\
               --tied --optimizer sgd --decay epochs:0.8:6 --bptt 35

The number of threads is that of RAYON_NUM_THREADS, or of the processor's cores.
Ctrl-C and SIGTERM end a run with a checkpoint; a second one ends it at once.
The exit code is then 130.";

/// Arguments of `chorus train`.
#[derive(Debug, Args)]
#[command(
    about = "Train an LSTM language model on a text",
    long_about = "Train an LSTM language model on a text and write a model directory.\n\n\
        Truncated back-propagation through time over --batch contiguous lanes of the text, with dropout on the \
        non-recurrent connections (Zaremba 2014) and early stopping on the validation text; with --lines, gradients \
        flow through whole lines, each a sequence of its own. The directory gets \
        config.json, tokenizer.json, the best epoch's model.safetensors, metrics.jsonl, learning-curve.svg and \
        checkpoint/, from which --resume goes on after Ctrl-C or a crash as if nothing had happened: the same \
        command line gives the same weights, interrupted or not.",
    after_help = EXAMPLES,
    group = ArgGroup::new("vocabulary").required(true).args(["tokenizer", "tokenizer_from"])
)]
pub(crate) struct TrainArgs {
    /// The text to learn from (UTF-8)
    #[arg(long, value_name = "FILE", help_heading = "Files")]
    pub(crate) data: PathBuf,
    /// The text that decides when to stop (UTF-8)
    #[arg(long, value_name = "FILE", help_heading = "Files")]
    pub(crate) valid: PathBuf,
    #[command(flatten)]
    pub(crate) output: OutputArgs,

    /// Make a tokenizer from the training text: `characters`, `words`, `words:N` (the N most frequent) or `bpe:N`
    /// (byte-level BPE with N tokens, which can express every text)
    #[arg(long, value_name = "KIND", help_heading = "Vocabulary")]
    pub(crate) tokenizer: Option<TokenizerKind>,
    /// Use the tokenizer.json of another model directory, as the members of an ensemble must
    #[arg(long, value_name = "DIR", help_heading = "Vocabulary")]
    pub(crate) tokenizer_from: Option<PathBuf>,
    /// What the first token is conditioned on: a token (as in the vocabulary, or the text of one) or `zero-state`
    /// [default: the token of a line's end, where there is one]
    #[arg(long, value_name = "TOKEN", help_heading = "Vocabulary")]
    pub(crate) start: Option<String>,

    #[command(flatten)]
    pub(crate) lines: LineArgs,
    #[command(flatten)]
    pub(crate) network: NetworkArgs,
    #[command(flatten)]
    pub(crate) steps: StepArgs,
}

/// Whether each line is a sequence of its own, and what is learned of it.
#[derive(Debug, Args)]
#[command(next_help_heading = "Lines")]
pub(crate) struct LineArgs {
    /// Every line is a sequence of its own, from the start token to the end token, in an order of each epoch's own;
    /// --batch is the number of lines that are read side by side
    #[arg(long)]
    pub(crate) lines: bool,
    /// Learn, and validate, only what stands after the first TEXT of each line (`\t` is a tab): the target of
    /// `source<TAB>target`, the label of `text<TAB>label`
    #[arg(long, value_name = "TEXT", requires = "lines", value_parser = line_text::separator)]
    pub(crate) loss_after: Option<String>,
    /// What the loss of a token counts that stands before that, from 0 to 1; the others count 1
    #[arg(long, value_name = "WEIGHT", requires = "loss_after", default_value_t = 0.0)]
    context_weight: f64,
    /// The token that ends every line, and later what the model generates [default: that of a line's end]
    #[arg(long, value_name = "TOKEN", requires = "lines")]
    pub(crate) end: Option<String>,
    /// The largest number of tokens of a line, which is in memory from its beginning to its end
    #[arg(long, value_name = "N", requires = "lines", default_value_t = 1024)]
    pub(crate) longest_line: usize,
}

/// The directory that a run makes.
#[derive(Debug, Args)]
#[command(next_help_heading = "Files")]
pub(crate) struct OutputArgs {
    /// The model directory to make; it must not exist, or be empty, unless --resume is given
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
    /// The model's name [default: the last part of --out]
    #[arg(long)]
    name: Option<String>,
    /// Begin with the weights of a model directory of the same shape and tokenizer [default: random ones]
    #[arg(long, value_name = "DIR")]
    pub(crate) init_from: Option<PathBuf>,
    /// Go on with the run in --out; all other arguments must be those that it began with
    #[arg(long)]
    pub(crate) resume: bool,
    /// Write a checkpoint every N steps, or every N seconds with an `s`, and at every epoch's end
    #[arg(long, value_name = "N|Ns", default_value = "60s", value_parser = interval)]
    checkpoint_every: CheckpointInterval,
    /// Write a line of metrics.jsonl every N steps
    #[arg(long, value_name = "N", default_value_t = 50)]
    metrics_every: u64,
    /// The type of the saved weights
    #[arg(long, value_enum, default_value = "f32")]
    dtype: DtypeArg,
}

/// The network that is trained.
#[derive(Debug, Args)]
#[command(next_help_heading = "Model")]
pub(crate) struct NetworkArgs {
    /// Embedding size
    #[arg(long, value_name = "E", default_value_t = 256)]
    embedding: usize,
    /// Hidden size of each layer
    #[arg(long, value_name = "H", default_value_t = 512)]
    hidden: usize,
    /// Number of LSTM layers
    #[arg(long, value_name = "L", default_value_t = 1)]
    layers: usize,
    /// Use the embedding's matrix in the output layer; needs E = H
    #[arg(long)]
    tied: bool,
    /// Initial bias of the forget gates [default: as every other parameter, uniform in ±1/√H]
    #[arg(long, value_name = "BIAS", allow_negative_numbers = true)]
    forget_bias: Option<f32>,
}

/// How it is trained.
#[derive(Debug, Args)]
#[command(next_help_heading = "Training")]
pub(crate) struct StepArgs {
    /// Probability of dropping an element of a non-recurrent connection
    #[arg(long, value_name = "P", default_value_t = 0.3)]
    dropout: f64,
    /// Number of lanes that the text is cut into, or of lines in a batch
    #[arg(long, value_name = "B", default_value_t = 32)]
    batch: usize,
    /// Time steps through which gradients flow (through lines: all of them)
    #[arg(long, value_name = "T", default_value_t = 64)]
    bptt: usize,
    /// How gradients become updates
    #[arg(long, value_enum, default_value = "adam")]
    optimizer: OptimizerArg,
    /// Initial learning rate [default: 0.002 for adam, 20 for sgd]
    #[arg(long, value_name = "RATE")]
    learning_rate: Option<f64>,
    /// How the learning rate falls: `none`, `cosine` (to zero at the last epoch's end), `epochs:FACTOR:N` (by the
    /// factor after every epoch from the Nth on) or `plateau:FACTOR` (by the factor after an epoch without progress)
    #[arg(long, value_name = "DECAY", default_value = "cosine", value_parser = decay)]
    decay: Decay,
    /// Largest norm of all gradients together
    /// [default: 1 for adam, 0.25 for sgd]
    #[arg(long, value_name = "NORM")]
    clip: Option<f64>,
    /// Largest number of passes through the text
    #[arg(long, value_name = "N", default_value_t = 20)]
    epochs: usize,
    /// Stop after so many epochs in sequence without a better validation perplexity
    #[arg(long, value_name = "N", default_value_t = 5)]
    patience: usize,
    /// What all random numbers follow from
    #[arg(long, value_name = "SEED", default_value_t = 1)]
    seed: u64,
    /// Read the text as it stands, or its passages (which blank lines end) in an order that the seed gives each epoch
    #[arg(long, value_enum, default_value = "text")]
    order: OrderArg,
}

/// A tokenizer to be made from the training text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TokenizerKind {
    /// One token for each character.
    Characters,
    /// One token for each of the most frequent words, at most so many.
    Words(usize),
    /// Byte-level BPE with so many tokens.
    Bpe(usize),
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum DtypeArg {
    F32,
    F16,
    Bf16,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum OptimizerArg {
    Adam,
    Sgd,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum OrderArg {
    Text,
    Passages,
}

impl TrainArgs {
    /// The options of the run, once the vocabulary is known: what it is called and what its start token is.
    /// `end` is the token that ends every line, where lines are read.
    pub(crate) fn options(&self, tokenizer: String, start: Start, end: Option<u32>) -> TrainingOptions {
        let lines = end.map(|end| LineOptions {
            end,
            loss_after: self.lines.loss_after.clone(),
            context_weight: self.lines.context_weight,
        });
        TrainingOptions { lines, ..options(&self.output, &self.network, &self.steps, tokenizer, start) }
    }
}

/// The options of a run that learns from a text alone.
pub(crate) fn options(
    output: &OutputArgs,
    network: &NetworkArgs,
    steps: &StepArgs,
    tokenizer: String,
    start: Start,
) -> TrainingOptions {
    let (optimizer, default_rate, default_clip) = match steps.optimizer {
        OptimizerArg::Adam => (OptimizerKind::Adam, 0.002, 1.0),
        OptimizerArg::Sgd => (OptimizerKind::Sgd, 20.0, 0.25),
    };
    TrainingOptions {
        name: output.name.clone().unwrap_or_else(|| output.default_name()),
        tokenizer,
        embedding_size: network.embedding,
        hidden_size: network.hidden,
        layers: network.layers,
        tied: network.tied,
        start,
        forget_bias: network.forget_bias,
        dropout: steps.dropout,
        batch: steps.batch,
        bptt: steps.bptt,
        optimizer,
        learning_rate: steps.learning_rate.unwrap_or(default_rate),
        decay: steps.decay,
        clip: steps.clip.unwrap_or(default_clip),
        epochs: steps.epochs,
        patience: steps.patience,
        seed: steps.seed,
        order: match steps.order {
            OrderArg::Text => DataOrder::Text,
            OrderArg::Passages => DataOrder::Passages,
        },
        lines: None,
        distillation: None,
        weight_type: match output.dtype {
            DtypeArg::F32 => WeightType::F32,
            DtypeArg::F16 => WeightType::F16,
            DtypeArg::Bf16 => WeightType::Bf16,
        },
    }
}

impl OutputArgs {
    /// Where and how often the run writes.
    pub(crate) fn settings(&self, vocabulary: &Vocabulary) -> RunSettings {
        RunSettings {
            directory: self.out.clone(),
            tokenizer_json: vocabulary.to_json().to_owned(),
            resume: self.resume,
            checkpoint_every: self.checkpoint_every,
            metrics_every: self.metrics_every,
        }
    }

    fn default_name(&self) -> String {
        let last = self.out.file_name().map(|name| name.to_string_lossy().into_owned());
        last.unwrap_or_else(|| "model".to_owned())
    }
}

impl FromStr for TokenizerKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let size = |size: &str| match size.parse() {
            Ok(size) if size > 0 => Ok(size),
            _ => Err(format!("{size:?} is not a number of tokens")),
        };
        match text.split_once(':') {
            None if text == "characters" => Ok(Self::Characters),
            None if text == "words" => Ok(Self::Words(usize::MAX)),
            Some(("words", number)) => size(number).map(Self::Words),
            Some(("bpe", number)) => size(number).map(Self::Bpe),
            _ => Err("allowed are characters, words, words:N and bpe:N".to_owned()),
        }
    }
}

/// The name by which a resumed run recognises its tokenizer.
impl std::fmt::Display for TokenizerKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Characters => write!(f, "characters"),
            Self::Words(usize::MAX) => write!(f, "words"),
            Self::Words(size) => write!(f, "words:{size}"),
            Self::Bpe(size) => write!(f, "bpe:{size}"),
        }
    }
}

fn interval(text: &str) -> Result<CheckpointInterval, String> {
    let number = |number: &str| match number.parse() {
        Ok(number) if number > 0 => Ok(number),
        _ => Err("allowed are a number of steps (100) or of seconds (60s), above 0".to_owned()),
    };
    match text.strip_suffix('s') {
        Some(seconds) => Ok(CheckpointInterval::Time(Duration::from_secs(number(seconds)?))),
        None => number(text).map(CheckpointInterval::Steps),
    }
}

fn decay(text: &str) -> Result<Decay, String> {
    let unknown = || "allowed are none, cosine, epochs:FACTOR:N and plateau:FACTOR".to_owned();
    let factor = |text: &str| text.parse::<f64>().map_err(|_| unknown());
    match text.split(':').collect::<Vec<_>>().as_slice() {
        ["none"] => Ok(Decay::None),
        ["cosine"] => Ok(Decay::Cosine),
        ["epochs", number, after] => {
            Ok(Decay::Epochs { factor: factor(number)?, after: after.parse().map_err(|_| unknown())? })
        }
        ["plateau", number] => Ok(Decay::Plateau { factor: factor(number)? }),
        _ => Err(unknown()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, clap::Parser)]
    struct CommandLine {
        #[command(flatten)]
        arguments: TrainArgs,
    }

    #[test]
    fn defaults_in_the_help_are_those_of_the_optimizer() {
        let help = <CommandLine as clap::CommandFactory>::command().render_long_help().to_string();
        let words: Vec<&str> = help.split_whitespace().collect();
        let help = words.join(" ");
        let of = |optimizer: &str| {
            let line =
                format!("train --data a --valid b --out c --tokenizer characters --optimizer {optimizer}");
            let parsed = <CommandLine as clap::Parser>::try_parse_from(line.split(' ')).unwrap();
            parsed.arguments.options("characters".to_owned(), Start::ZeroState, None)
        };
        let (adam, sgd) = (of("adam"), of("sgd"));
        for (adam, sgd) in [(adam.learning_rate, sgd.learning_rate), (adam.clip, sgd.clip)] {
            let default = format!("[default: {adam} for adam, {sgd} for sgd]");
            assert!(help.contains(&default), "{default} is not in {help}");
        }
    }

    #[test]
    fn words_of_the_command_line_are_read() {
        assert_eq!("bpe:512".parse(), Ok(TokenizerKind::Bpe(512)));
        assert_eq!("words".parse(), Ok(TokenizerKind::Words(usize::MAX)));
        assert!("bpe".parse::<TokenizerKind>().is_err());
        assert!("words:0".parse::<TokenizerKind>().is_err());
        assert_eq!(interval("200"), Ok(CheckpointInterval::Steps(200)));
        assert_eq!(interval("90s"), Ok(CheckpointInterval::Time(Duration::from_secs(90))));
        assert!(interval("0s").is_err());
        assert_eq!(decay("epochs:0.8:6"), Ok(Decay::Epochs { factor: 0.8, after: 6 }));
        assert_eq!(decay("plateau:0.25"), Ok(Decay::Plateau { factor: 0.25 }));
        assert!(decay("epochs:0.8").is_err());
    }
}
