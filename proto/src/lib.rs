//! The wire: messages, the three services, the one table between [`v1::ErrorCode`] and gRPC codes, and what a failure says beside
//! its code.
//!
//! Knows nothing about how anything is served or computed: no tokio, no candle, no sockets.

mod error_code;
mod failure;
mod logits;
mod native;

#[cfg(test)]
mod fuzz;

pub use error_code::{code_of, error_code_of, shortened, status};
pub use failure::Failure;
pub use logits::{
    LogitsError, logits_from_rows, logits_to_values, put_values, rounded, value_bytes, values_of,
};
pub use native::native_rows;

/// Messages and services of package `chorus.v1`, generated from `proto/chorus/v1/*.proto`.
#[allow(missing_docs, unreachable_pub, unused_qualifications, clippy::all, clippy::pedantic)]
pub mod v1 {
    tonic::include_proto!("chorus.v1");
}

/// The compiled descriptors of `chorus.v1`, for gRPC server reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/chorus.v1.bin"));

/// The largest frame of operations on the hop between coordinator and worker, in bytes. Operations carry tokens only, so
/// this is many of them; what a worker takes is smaller than what it answers.
pub const MAX_OPERATION_FRAME_BYTES: usize = 1024 * 1024;

/// The largest gRPC message on the hop between coordinator and worker, in bytes: 64 rows of 100,000 f32 logits and
/// their framing.
pub const MAX_MESSAGE_BYTES: usize = 64 * 100_000 * 4 + 128 * 1024;
