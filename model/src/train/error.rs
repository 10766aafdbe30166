//! Why a training run can't start or go on, in words for people. Knows nothing about command lines.

use std::path::PathBuf;

use thiserror::Error;

use crate::config::ConfigError;
use crate::weights::WeightsError;

/// Why a training run can't start or go on.
#[derive(Debug, Error)]
pub enum TrainError {
    /// An option is outside its range.
    #[error("{field} is {found}, allowed is {allowed}")]
    Option {
        /// The option.
        field: &'static str,
        /// What was given.
        found: String,
        /// The allowed values.
        allowed: &'static str,
    },
    /// The options describe no model.
    #[error("these options describe no model")]
    Config(#[from] ConfigError),
    /// A text does not fill the lanes.
    #[error("the {text} text has {tokens} tokens, too few for a batch of {needed} lanes")]
    TextTooShort {
        /// `training` or `validation`.
        text: &'static str,
        /// How many tokens can be predicted.
        tokens: usize,
        /// How many are needed: one for each lane.
        needed: usize,
    },
    /// A text has a token that the vocabulary does not have.
    #[error("the {text} text has token {token}, but the vocabulary has {vocab_size} tokens")]
    TokenOutOfVocabulary {
        /// `training` or `validation`.
        text: &'static str,
        /// The token id.
        token: u32,
        /// V.
        vocab_size: usize,
    },
    /// The order by passages needs more than one passage.
    #[error(
        "the order by passages needs a start token that stands at line ends and a training text with blank lines"
    )]
    NoPassages,
    /// The options are those of one text and the material is lines, or the other way round.
    #[error("the options and the texts don't agree whether each line is a sequence of its own")]
    OtherReading,
    /// A line's first token has to be predicted from something.
    #[error("lines need a start token, from which the first token of each is predicted")]
    LinesWithoutStart,
    /// Lines have an order of their own in each epoch.
    #[error("lines are read in a new order in each epoch: there are no passages to be put in order")]
    LinesByPassages,
    /// There is nothing to learn from, or nothing to measure on.
    #[error("the {text} text has no line")]
    NoLines {
        /// `training` or `validation`.
        text: &'static str,
    },
    /// A line ends within its context.
    #[error(
        "a line of the {text} text has {tokens} tokens, but {context} of them are said to be its context"
    )]
    Context {
        /// `training` or `validation`.
        text: &'static str,
        /// How many of its tokens are only read.
        context: usize,
        /// How many it has.
        tokens: usize,
    },
    /// A teacher's distributions are about the tokens of one text.
    #[error("a teacher speaks of one text, not of lines")]
    LinesWithTeacher,
    /// The options speak of a teacher, but there is none.
    #[error("the options have a distillation, but there are no distributions of a teacher")]
    NoTeacher,
    /// There is a teacher of which the options do not speak.
    #[error("there are distributions of a teacher, but the options have no distillation")]
    UnusedTeacher,
    /// The teacher's distributions are not those for this run.
    #[error("the teacher's {field} is {teacher}, but that of this run is {run}")]
    OtherTeacher {
        /// In what they differ.
        field: &'static str,
        /// What the teacher has.
        teacher: String,
        /// What the options or the training text have.
        run: String,
    },
    /// The model to begin with has other tensors than the options ask for.
    #[error("the run can't begin with a model of another shape")]
    Initial(#[source] WeightsError),
    /// The model to begin with speaks of other tokens.
    #[error("the run can't begin with a model of another vocabulary")]
    InitialVocabulary,
    /// The loss is no number any more.
    #[error(
        "the loss is {loss} at step {step}: the training has diverged, try a lower learning rate or a lower clip"
    )]
    Diverged {
        /// Steps completed.
        step: u64,
        /// The loss.
        loss: f64,
    },
    /// Another process trains into the directory.
    #[error("{path} is locked: another run writes into this directory")]
    InUse {
        /// The file whose lock the other run holds.
        path: PathBuf,
    },
    /// A new run must not overwrite another.
    #[error("{path} is not empty: resume the run in it, or choose another output directory")]
    OutputNotEmpty {
        /// The output directory.
        path: PathBuf,
    },
    /// There is no run to resume.
    #[error("{path} has no checkpoint, so there is no run to resume")]
    NothingToResume {
        /// The output directory.
        path: PathBuf,
    },
    /// A run is resumed as another one.
    #[error(
        "{field} is {given}, but the run to resume has {stored}: a run is resumed with what it began with"
    )]
    Differs {
        /// The option, `training text`, `validation text`, `teacher` or `initial model`.
        field: String,
        /// What the checkpoint holds.
        stored: String,
        /// What was given now.
        given: String,
    },
    /// The checkpoint's content is not what this version writes.
    #[error("the checkpoint {path} can't be used: {reason}")]
    Checkpoint {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A file can't be read or written.
    #[error("{path} can't be {action}")]
    File {
        /// The file.
        path: PathBuf,
        /// `read` or `written`.
        action: &'static str,
        /// What the system says.
        source: std::io::Error,
    },
    /// The weights can't be saved.
    #[error("the weights can't be saved")]
    Weights(#[from] WeightsError),
    /// The arithmetic failed.
    #[error("the arithmetic failed")]
    Tensor(#[from] candle_core::Error),
}
