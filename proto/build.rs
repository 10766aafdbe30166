//! Compiles the protocol in pure Rust: no `protoc` has to be installed.

use std::{env, error::Error, fs, path::PathBuf};

use protox::prost::Message as _;

/// What they import comes with them.
const FILES: [&str; 3] = ["chorus/v1/worker.proto", "chorus/v1/ensemble.proto", "chorus/v1/admin.proto"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(FILES, ["proto"])?;
    // Reflection serves these bytes as they are.
    let path = PathBuf::from(env::var("OUT_DIR")?).join("chorus.v1.bin");
    fs::write(path, descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        // Which transport carries them is for whoever connects.
        .build_transport(false)
        // Parts of a received frame share its buffer.
        .bytes(".chorus.v1.Logits.values")
        .bytes(".chorus.v1.TopTokens.logits")
        .bytes(".chorus.v1.TopTokens.target_logits")
        .bytes(".chorus.v1.IdLogits.logits")
        .bytes(".chorus.v1.TokenizerChunk.data")
        .bytes(".chorus.v1.Snapshot.state")
        .compile_fds(descriptors)?;
    Ok(())
}
