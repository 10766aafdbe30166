//! The kernels, run on the host thread by thread and held against what they are to compute.

#![allow(clippy::unwrap_used)]

mod answers;
mod grids;
mod scan;
