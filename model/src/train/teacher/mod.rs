//! The teacher of a distillation: what it says of a text, in memory and on disk.
//! Knows nothing about who the teacher is, how it is asked, or how a student learns from it.

mod targets;

pub(crate) use targets::TargetRow;
pub use targets::{SoftTargets, SoftTargetsError, TEMPERATURES, TargetForm};
