//! The coordinator: an ensemble of language models, used as one model.
//!
//! The pure core decides: [`fusion`] (how distributions become one), [`sampling`], [`plan`] (what is asked of members),
//! [`quorum`], [`weights`], [`config`], [`request`] (what callers may ask), [`stop_strings`]. The shell around it moves
//! bytes: `admission` (who runs and who waits), `member` (one model, on its [`replica`]s) and `link` (a replica over gRPC),
//! `session` (one client sequence over all members), `service` (the public gRPC service), `steward` (changes of the
//! configuration, for `admin` and whoever has a [`Handle`]), `telemetry` (metrics, and spans of requests) and [`Coordinator`] (a
//! process's whole life).
//!
//! Knows nothing about models or devices: a member is whatever answers.

pub mod beam_search;
pub mod config;
pub mod fusion;
pub mod network;
pub mod plan;
mod prefix_cache;
pub mod quorum;
pub mod replica;
pub mod request;
pub mod rows;
pub mod sampling;
pub mod snapshot;
pub mod stop_strings;
pub mod token_trie;
pub mod tops;
pub mod traffic;
pub mod weights;

mod activity;
mod admin;
mod admission;
mod agreement;
mod counter;
mod dense;
mod doubts;
mod ensemble;
mod failure;
mod health;
mod link;
mod member;
mod membership;
mod roster;
mod run_error;
mod security;
mod server;
mod service;
mod session;
mod steward;
mod telemetry;

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod testing;

pub use config::Config;
pub use link::InvalidAddress;
pub use run_error::RunError;
pub use server::{Coordinator, run, run_on};
pub use steward::{Handle, InForce, MemberList, ReconfigureError, Source};
