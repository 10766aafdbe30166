//! Inference on the CPU: weights packed once, one kernel for every product, and a workspace that is reused.
//!
//! Everything runs as in-place operations on candle tensors ([`operation`]); a step allocates nothing once the workspace
//! has grown to its size. A row's numbers are the same to the bit alone and in a batch of any size, and however a text is
//! cut into calls. Knows nothing about files, vocabularies or sessions.

mod blocks;
mod cells;
mod early_products;
mod eight_bits;
mod forward;
mod int8;
mod kernel;
mod matrix;
mod operation;
mod panels;
mod prefetch;
mod product;
mod projection;
mod threads;
mod weights;
mod workspace;

pub(crate) use forward::Engine;
