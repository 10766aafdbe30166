//! Doubles for this crate's tests: a replica in this process, and a worker behind real gRPC, that do as they are told; and a small
//! ensemble that requests are checked against.
//!
//! Nothing outside tests is built with this.

pub(crate) mod scripted_replica;
pub(crate) mod scripted_worker;
pub(crate) mod small_ensemble;
