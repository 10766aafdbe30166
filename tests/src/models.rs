//! Models for scenarios: the demo members of the repository, and small random ones of any vocabulary.

use std::path::{Path, PathBuf};

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

/// The demo members' names, in member order.
pub const DEMO: [&str; 3] = ["alto", "bass", "tenor"];

/// The directory of a demo member.
pub fn demo(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/demo").join(name)
}

/// Lines of made-up words: enough structure to learn something from, the same for the same seed.
pub fn nonsense(seed: u64, characters: usize) -> String {
    let words = ["sol", "la", "mi", "re", "fa", "do", "ti", "sing", "rest"];
    let mut random = StdRng::seed_from_u64(seed);
    let mut text = String::new();
    while text.len() < characters {
        for _ in 0..random.random_range(2..9) {
            text.push_str(words[random.random_range(0..words.len())]);
            text.push(' ');
        }
        text.push('\n');
    }
    text
}
