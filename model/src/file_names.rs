//! What the files of a model directory are called. Knows nothing about what is in them.

/// The config's file name.
pub const CONFIG_FILE: &str = "config.json";
/// The weights' file name.
pub const WEIGHTS_FILE: &str = "model.safetensors";
/// The file name of weights that are quantised.
pub const QUANTIZED_WEIGHTS_FILE: &str = "model.gguf";
/// The tokenizer's file name.
pub const TOKENIZER_FILE: &str = "tokenizer.json";
