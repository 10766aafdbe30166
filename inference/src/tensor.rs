//! [`Tensor`]: elements with a name and a shape, as they travel: typed, or raw.
//!
//! Knows nothing about which tensors there are or what they mean.

mod decode;
mod elements;
mod encode;
#[cfg(test)]
mod tests;

pub use decode::decode;
pub use elements::{Elements, Value};
pub use encode::encode;

/// A tensor whose shape and elements agree.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    /// What the protocol calls it.
    pub name: String,
    /// The product of these is the number of elements.
    pub shape: Vec<usize>,
    /// Row by row.
    pub elements: Elements,
}

/// The datatypes that are read. Others of the protocol (FP16, BF16) have no use here.
pub(crate) const DATATYPES: [&str; 12] = [
    "BOOL", "INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64", "FP32", "FP64", "BYTES",
];
