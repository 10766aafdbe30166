//! Hostile requests, configurations and snapshots: what is accepted is within its limits, what is not is refused in one line.

mod configs;
mod requests;
mod snapshots;

/// Of an error that travels in a status, in characters.
const LONGEST_STATUS: usize = 610;
