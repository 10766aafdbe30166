//! Why a worker does not start, or stops. Knows nothing about single sessions, whose failures travel as answers.

use std::io;

use thiserror::Error;

/// Why a worker does not start, or stops.
#[derive(Debug, Error)]
pub enum WorkerError {
    /// A configured number is out of its range.
    #[error("{field} is {found}, allowed is {allowed}")]
    Config {
        /// The field of [`crate::WorkerConfig`].
        field: &'static str,
        /// What it is.
        found: String,
        /// What it may be.
        allowed: String,
    },
    /// The device can't be used.
    #[error(transparent)]
    Device(#[from] chorus_model::DeviceError),
    /// The model directory can't be loaded.
    #[error(transparent)]
    Load(#[from] chorus_model::LoadError),
    /// A single row of logits does not fit into a message.
    #[error("the model has {found} tokens, but a row of logits fits into a message only up to {largest}")]
    VocabularyTooLarge {
        /// The vocabulary's size.
        found: usize,
        /// The largest that can be served.
        largest: usize,
    },
    /// The model loads, but what the device computes is not what the model predicts.
    #[error("the model can't be served on this device: {reason}")]
    Unusable {
        /// What came out.
        reason: String,
    },
    /// The model's thread can't be started.
    #[error("the model's thread can't be started")]
    Spawn(#[source] io::Error),
    /// The model's thread ended without being asked to.
    #[error("the model's thread died, see the log")]
    ModelThreadDied,
    /// The server failed.
    #[error("serving failed")]
    Serve(#[source] tonic::transport::Error),
}
