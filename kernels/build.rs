//! Compiles the kernels: to PTX where the feature `cuda` is on, and as C++ for the host where `emulated` is.

type Outcome = Result<(), Box<dyn std::error::Error>>;

fn main() -> Outcome {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=cuda");
    for_devices()?;
    for_the_host()
}

#[cfg(feature = "cuda")]
fn for_devices() -> Outcome {
    let directory = std::path::PathBuf::from(std::env::var("OUT_DIR")?);
    let built = cudaforge::KernelBuilder::new()
        .source_files(["cuda/any.cu", "cuda/f32.cu", "cuda/bf16.cu", "cuda/f16.cu"])
        .watch(["cuda"])
        .arg("-std=c++17")
        .arg("-O3")
        .build_ptx()?;
    built.write(directory.join("ptx.rs"))?;
    Ok(())
}

#[cfg(not(feature = "cuda"))]
fn for_devices() -> Outcome {
    Ok(())
}

#[cfg(feature = "emulated")]
fn for_the_host() -> Outcome {
    cc::Build::new()
        .cpp(true)
        .std("c++17")
        // Rounding is a device's: no sum is put into another order, and no product is fused here and not there.
        .flag("-ffp-contract=off")
        .flag_if_supported("-Wno-unknown-pragmas")
        .opt_level(2)
        .file("cuda/emulated.cpp")
        .try_compile("chorus_emulated_kernels")?;
    Ok(())
}

#[cfg(not(feature = "emulated"))]
fn for_the_host() -> Outcome {
    Ok(())
}
