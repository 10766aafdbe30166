//! An LSTM language model in candle: its config, its weights, the network, inference and evaluation.
//!
//! Knows nothing about networks between machines: no tokio, no tonic, no wire types.

mod block;
mod capacity;
mod cell;
mod config;
mod device;
mod directory;
mod engine;
mod evaluate;
mod file_names;
mod files;
mod forward_error;
#[cfg(test)]
mod fuzz;
mod gguf;
#[cfg(any(feature = "cuda", feature = "emulated"))]
mod gpu;
mod halves;
pub mod import;
mod language_model;
mod line;
mod load_error;
mod matrix;
mod network;
mod new_directory;
mod packing;
mod precision;
mod projection;
mod quantization;
mod recurrence;
mod reference;
mod row;
mod threads;
pub mod train;
mod weights;

pub use capacity::{Capacity, DeviceMemory};
pub use chorus_simd::{Norm, Reduced, Reduction, Room, log_sum_exp};
pub use config::{
    Config, ConfigError, FORMAT, MAX_DIMENSION, MAX_LAYERS, MAX_NAME_CHARACTERS, MAX_VOCAB_SIZE, Start,
};
pub use device::{DeviceError, Processor, check_device, open_device};
pub use directory::ModelParts;
pub use evaluate::{Evaluation, evaluate, evaluate_in_lanes, evaluate_lines};
pub use file_names::{CONFIG_FILE, QUANTIZED_WEIGHTS_FILE, TOKENIZER_FILE, WEIGHTS_FILE};
pub use forward_error::ForwardError;
pub use language_model::LanguageModel;
pub use line::Line;
pub use load_error::{LoadError, SaveError};
pub use network::{Dropout, Network, NetworkState};
pub use packing::{Packing, PackingError};
pub use precision::{Precision, PrecisionError};
pub use quantization::{Quantization, QuantizationError, QuantizeError};
pub use row::{Answer, Output, Prediction, Row, State, Want};
pub use threads::{SpareThreads, ThreadsError, use_threads, without_spare_threads};
pub use weights::{Tensors, WeightType, WeightsError};
