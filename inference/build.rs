//! Compiles the protocol in pure Rust: no `protoc` has to be installed.

use std::{env, error::Error, fs, path::PathBuf};

use protox::prost::Message as _;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(["inference/grpc_service.proto"], ["proto"])?;
    // Reflection serves these bytes as they are.
    let path = PathBuf::from(env::var("OUT_DIR")?).join("inference.bin");
    fs::write(path, descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        // Which transport carries them is for whoever serves.
        .build_transport(false)
        // Only the tests' own clients would use one.
        .build_client(false)
        // Parts of a received message share its buffer.
        .bytes(".inference.ModelInferRequest.raw_input_contents")
        .bytes(".inference.ModelInferResponse.raw_output_contents")
        .bytes(".inference.InferTensorContents.bytes_contents")
        .compile_fds(descriptors)?;
    Ok(())
}
