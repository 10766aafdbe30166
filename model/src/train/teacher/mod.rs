//! The teacher of a distillation: what it says of a text, in memory and on disk.
//! Knows nothing about who the teacher is, how it is asked, or how a student learns from it.

mod error;
mod manifest;
mod piece;
mod store;
mod targets;

pub use error::{PieceError, SoftTargetsError, TeacherError};
pub use manifest::TeacherHeader;
pub use store::{TaughtText, TeacherStore, load_taught_text};
pub(crate) use targets::TargetRow;
pub use targets::{SoftTargets, TEMPERATURES, TargetForm};

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests;
