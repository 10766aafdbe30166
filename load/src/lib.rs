//! The load test: who asks what and when, what is measured about the answers, and how it is shown.
//!
//! The pure core decides: [`workload`] (what is asked), [`arrivals`] (when), [`measure`] (what is counted and how),
//! [`ramp`] (which rate comes next), [`plateau`] (how many callers), [`report`], [`growth`] and [`picture`]. The shell around it moves bytes: `drive`
//! (calls in a closed or an open loop), `grpc` (calls over a connection), [`run`](run()) (threads and their life) and
//! [`null`] (servers that answer at once, to measure everything but them).
//!
//! Knows the wire and nothing about how an ensemble is served: no coordinator, no worker, no model.

pub mod arrivals;
pub mod cpu;
pub mod growth;
pub mod measure;
pub mod null;
pub mod picture;
pub mod plateau;
pub mod ramp;
pub mod report;
pub mod workload;

mod drive;
mod grpc;
mod hop;
mod run;

pub use hop::{HopError, steps_of_worker};
pub use run::{Live, Load, Plan, RunError, RunResult, run};
