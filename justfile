# The few commands that people type here. `just` alone lists them.

_default:
    @just --list

# Start the demo ensemble: three workers and a coordinator on loopback.
up *ARGS:
    cargo run --release -- up {{ARGS}}

# The whole test suite.
test:
    cargo test --workspace

# All decoders against hostile input, with fresh cases for so many minutes: `just fuzz 10`, `just fuzz 5 configs`.
fuzz MINUTES *FILTER:
    fuzz/run {{MINUTES}} {{FILTER}}

# What CI checks before the tests.
lint:
    cargo fmt --all -- --check
    cargo clippy --workspace --all-targets -- -D warnings

# Everything that CI runs.
ci:
    bash .ci/run

# The recipes of deploy/ on small languages, from beginning to end.
recipes PROGRAM="target/release/chorus":
    .ci/recipes {{PROGRAM}}

# What operators use, held against the tools that it is for; says what it skips.
deploy PROGRAM="target/release/chorus":
    .ci/deploy {{PROGRAM}}

# The manifests of Kubernetes anew, after a change of the chart (needs `just deploy` once, for its tools).
render:
    target/deploy-tools/bin/python deploy/kubernetes/render

# The README's table: the demo ensemble against its members, through running servers.
demo-table FILE:
    deploy/demo/table {{FILE}}

# A load test of the ensemble that runs here; `just bench --help` for more.
bench *ARGS:
    cargo run --release -- bench {{ARGS}}

# The README's table of what crosses the wire for a token.
wire-table:
    cargo test --workspace --lib -- a_token_takes_a_small_part --nocapture

# Train the demo members again (about forty minutes on two cores).
demo-train DATA:
    deploy/demo/train {{DATA}}

# Licences, sources and known defects of all dependencies; needs `cargo install cargo-deny`.
deny:
    cargo deny check

# The engine beside PyTorch and ONNX Runtime: medians and ratios (installs them below target/ first).
compare-engines *ARGS:
    benches/compare/compare engines {{ARGS}}

# Chorus beside Python over gRPC, Ray Serve, Triton and no server at all: requests a second.
compare-servers *ARGS:
    benches/compare/compare servers {{ARGS}}

# What is vectorised, on a processor with NEON: compiled for aarch64 and run in qemu where this machine is another.
neon-check *PACKAGES:
    .ci/neon {{PACKAGES}}

# Everything that only a GPU can tell: builds with CUDA, tests on the device, measures beside cuDNN and under load.
gpu-check *ARGS:
    benches/gpu-check {{ARGS}}

# The tests of devices against a CUDA driver without a device, where there is none; needs CUDA's compiler.
gpu-rehearsal:
    kernels/rehearsal/run

# Kill, freeze and cut off workers of an ensemble under load: the README's table.
chaos *ARGS:
    cargo run --release -- chaos {{ARGS}}

# So many seeds of the simulation, other ones every time; says which one failed.
soak SEEDS:
    CHORUS_FIRST_SEED=$(date +%s) CHORUS_SEEDS={{SEEDS}} cargo test --workspace --test simulation whatever -- --nocapture

# Size, tokens a second and perplexity of models in every type of weights: the README's table of quantised weights.
compare-quantized TEXT *MODELS:
    cargo run --release -p chorus-model --example quantized -- {{TEXT}} {{MODELS}}
