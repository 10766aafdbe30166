//! Doubles for this crate's tests: a replica in this process, and a worker behind real gRPC, that do as they are told.
//!
//! Nothing outside tests is built with this.

pub(crate) mod scripted_replica;
pub(crate) mod scripted_worker;
