//! A worker: one model behind the gRPC service `chorus.v1.Worker`, with a state for every session.
//!
//! A pure core (operations, sessions, batches, jobs, engine) computes, one turn after the other; an async shell (streams,
//! service, server) moves bytes to it and back. Knows nothing about ensembles: no coordinator, no members, no
//! rules.

mod batcher;
mod condition;
mod config;
mod credit;
mod engine;
mod error;
mod failure;
mod forward;
mod gathering;
mod hosted;
mod hosted_model;
mod job;
mod model_thread;
mod operation;
mod pace;
mod predictor;
mod probe;
mod remembered;
mod server;
mod service;
mod sessions;
mod shell;
mod snapshot;
mod soundness;
mod stream;
mod telemetry;
mod traced;
mod watchdog;

#[cfg(test)]
mod scripted_device;
#[cfg(test)]
mod scripted_row;

pub use batcher::BatchLimits;
pub use chorus_model::{Precision, Quantization};
pub use config::{LARGEST_MAX_FEED_TOKENS, WorkerConfig};
pub use error::WorkerError;
pub use hosted::{LoadedWorker, load};
pub use server::{run, serve, serve_on};
