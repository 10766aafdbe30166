//! The Open Inference Protocol (KServe's and Triton's `inference.GRPCInferenceService`) before an ensemble: its clients use
//! Chorus as they are.
//!
//! The pure core reads tensors ([`tensor`], `input`, `parameters`, `options`, `wanted`, `job`) into requests of `chorus.v1`, and
//! writes replies as tensors (`columns`). The shell (`infer`, `stream`, [`InferenceService`]) calls whatever implements the
//! generated trait of `chorus.v1.Ensemble`, in the same process.
//!
//! Knows the wire and nothing about how an ensemble is served: no members' links, no models, no sockets.

mod caller;
mod catalogue;
mod columns;
mod error;
mod infer;
mod input;
mod job;
mod options;
mod outputs;
mod parameters;
mod participation;
mod read_timeout;
mod responses;
mod service;
mod shared;
mod statistics;
mod stream;
pub mod tensor;
mod values;
mod wanted;

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests;

pub use pb::grpc_inference_service_server::{GrpcInferenceServiceServer as InferenceServer, SERVICE_NAME};
pub use read_timeout::with_read_timeout;
pub use service::InferenceService;

/// Messages and the service of package `inference`, generated from `proto/inference/*.proto`.
#[allow(missing_docs, unreachable_pub, unused_qualifications, clippy::all, clippy::pedantic)]
pub mod pb {
    tonic::include_proto!("inference");
}

/// The compiled descriptors of `inference`, for gRPC server reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/inference.bin"));
