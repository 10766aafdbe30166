//! A history in a process of its own, which is what makes it the same every time: this test's binary, run again with a seed.
//!
//! Knows nothing about what a history is.

use std::{
    env,
    path::Path,
    process::{Command, Output},
};

use super::world::Outcome;

/// Which history.
pub(crate) const SEED: &str = "CHORUS_SEED";
/// A file for every packet of it.
pub(crate) const PACKETS: &str = "CHORUS_PACKETS";
/// Lines of a history that failed which are shown.
const LAST_LINES: usize = 60;

/// What came of the seed's history; or, where an invariant does not hold, what was said of that.
pub(crate) fn play(seed: u64, packets: Option<&Path>) -> Result<Outcome, String> {
    let mut command = Command::new(env::current_exe().unwrap());
    command.env(SEED, seed.to_string()).env_remove("RUST_LOG").env("RUST_BACKTRACE", "0");
    if let Some(path) = packets {
        command.env(PACKETS, path);
    }
    let Output { status, stdout, stderr } = command.output().unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    let outcome = stdout.lines().find_map(Outcome::parse);
    match outcome {
        Some(outcome) if status.success() => Ok(outcome),
        _ => {
            let lines: Vec<&str> = stdout.lines().chain(stderr.lines()).collect();
            let last = lines[lines.len().saturating_sub(LAST_LINES)..].join("\n");
            Err(format!("{last}\nseed {seed} failed ({status}); `{SEED}={seed}` replays it"))
        }
    }
}
