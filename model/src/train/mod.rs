//! Training an LSTM language model on a text, or on lines: `chorus train` without its command line.
//!
//! Truncated back-propagation through time, seeded dropout, clipping, Adam and SGD, early stopping, and checkpoints
//! from which a run goes on as if it had not been interrupted. Runs on the CPU. It prints nothing: an observer is
//! told of every step, and `metrics.jsonl` keeps the numbers.

mod checkpoint;
mod distillation;
mod dropout;
mod error;
mod gradient;
mod initial;
mod lanes;
mod line_batch;
mod line_step;
mod lines;
mod loss;
mod material;
mod metrics;
mod optimizer;
mod options;
mod order;
mod origin;
mod output;
mod parameters;
mod random;
mod reading;
mod run;
mod schedule;
mod soft_loss;
mod soft_row;
mod teacher;
mod texts;
mod trainer;
mod validation;

pub use distillation::Distillation;
pub use error::TrainError;
pub use lines::{LineOptions, LineTexts};
pub use material::Material;
pub use metrics::{MetricsLine, read_metrics};
pub use optimizer::OptimizerKind;
pub use options::TrainingOptions;
pub use order::DataOrder;
pub use reading::TrainingData;
pub use run::{CheckpointInterval, Event, Outcome, RunSettings, train};
pub use schedule::Decay;
pub use teacher::{
    PieceError, SoftTargets, SoftTargetsError, TEMPERATURES, TargetForm, TaughtText, TeacherError,
    TeacherHeader, TeacherStore, load_taught_text,
};
pub use texts::Texts;

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod golden;
#[cfg(test)]
mod line_tests;
#[cfg(test)]
mod taught;
#[cfg(test)]
mod tests;
