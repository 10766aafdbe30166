//! An LSTM language model in candle: its config, its weights, the network, inference and evaluation.
//!
//! Knows nothing about networks between machines: no tokio, no tonic, no wire types.

mod cell;
mod config;
mod device;
pub mod import;
mod matrix;
mod network;
mod packing;
mod recurrence;
pub mod train;

pub use config::{
    Config, ConfigError, FORMAT, MAX_DIMENSION, MAX_LAYERS, MAX_NAME_CHARACTERS, MAX_VOCAB_SIZE, Start,
};
pub use device::{DeviceError, open_device};
pub use network::{Dropout, Network, NetworkState};
pub use packing::{Packing, PackingError};
