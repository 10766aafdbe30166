//! [`Elements`]: what tensors hold, each kind in the widest type that it fits into.
//!
//! Knows nothing about how they travel.

use bytes::Bytes;

/// The elements of a tensor.
#[derive(Debug, Clone, PartialEq)]
pub enum Elements {
    /// BOOL.
    Bools(Vec<bool>),
    /// INT8 to INT64.
    Signed(Vec<i64>),
    /// UINT8 to UINT64.
    Unsigned(Vec<u64>),
    /// FP32, FP64.
    Floats(Vec<f64>),
    /// BYTES.
    Bytes(Vec<Bytes>),
}

/// One element, or a parameter.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value<'a> {
    /// A truth value.
    Bool(bool),
    /// An integer of a signed type.
    Signed(i64),
    /// An integer of an unsigned type.
    Unsigned(u64),
    /// A number.
    Float(f64),
    /// A text, or bytes.
    Bytes(&'a [u8]),
}

impl Elements {
    /// How many there are.
    pub fn len(&self) -> usize {
        match self {
            Self::Bools(values) => values.len(),
            Self::Signed(values) => values.len(),
            Self::Unsigned(values) => values.len(),
            Self::Floats(values) => values.len(),
            Self::Bytes(values) => values.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// One of them.
    pub fn get(&self, index: usize) -> Option<Value<'_>> {
        match self {
            Self::Bools(values) => values.get(index).copied().map(Value::Bool),
            Self::Signed(values) => values.get(index).copied().map(Value::Signed),
            Self::Unsigned(values) => values.get(index).copied().map(Value::Unsigned),
            Self::Floats(values) => values.get(index).copied().map(Value::Float),
            Self::Bytes(values) => values.get(index).map(|bytes| Value::Bytes(bytes)),
        }
    }

    /// The protocol's name for them, as they are written.
    pub fn datatype(&self) -> &'static str {
        match self {
            Self::Bools(_) => "BOOL",
            Self::Signed(_) => "INT64",
            Self::Unsigned(_) => "UINT64",
            Self::Floats(_) => "FP64",
            Self::Bytes(_) => "BYTES",
        }
    }
}
