//! The worker over real loopback gRPC, with a small model that is made for the test.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod answers;
mod bad_input;
mod handover;
mod harness;
mod lifecycle;
mod models;
mod quantized;
mod streams;
