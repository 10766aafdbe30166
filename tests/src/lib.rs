//! The harness of the cross-process tests: real processes on loopback, real signals, a real gRPC client.
//!
//! A scenario reads like prose on top of it: start members, start a coordinator, kill one, look at the answers. Nothing
//! here knows how workers or coordinators work inside; it only runs the binary and speaks `chorus.v1`.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

pub mod browser;
pub mod clients;
pub mod ensemble;
pub mod metrics;
pub mod models;
pub mod namespace;
pub mod process;
pub mod python;
pub mod running;
mod skipped;

pub use clients::{generate, joined_text, plans, score_text, text_input, until};
pub use ensemble::{Ensemble, MemberProcess, PATIENT};
pub use process::{Chorus, Ended, binary};
pub use running::Running;
pub use skipped::skipped;
