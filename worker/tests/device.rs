//! The same tests over loopback gRPC with models on a device: an emulated one, whose kernels run thread by thread on the host, or
//! the one that `CHORUS_TEST_DEVICE` names.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "grpc/answers.rs"]
mod answers;
#[path = "grpc/bad_input.rs"]
mod bad_input;
#[path = "grpc/handover.rs"]
mod handover;
#[path = "grpc/harness.rs"]
mod harness;
#[path = "grpc/lifecycle.rs"]
mod lifecycle;
#[path = "grpc/models.rs"]
mod models;
#[path = "grpc/quantized.rs"]
mod quantized;
#[path = "grpc/streams.rs"]
mod streams;
