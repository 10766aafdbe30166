//! Learning from a running ensemble: a held-out text goes through it piece by piece, and what it says is kept on disk, so that
//! nothing is asked twice. The commands `tune`, `report` and `distill` are made of this.
//!
//! Knows nothing about what is learned from it.

mod arguments;
mod cache;
mod collect;
mod ensemble;
mod file;
mod identity;
mod lists;
mod parts;
mod rows;
mod scores;
mod stream;
mod tensors;

#[cfg(test)]
mod fuzz;

pub(crate) use arguments::{CollectArgs, HeldOut};
pub(crate) use cache::{Cache, Manifest, hex};
pub(crate) use collect::{Collected, Collecting, OnChange, Unanswered, all_there, refused};
pub(crate) use ensemble::{RunningEnsemble, input_of};
pub(crate) use file::{can_be_replaced, replace};
pub(crate) use identity::Identity;
pub(crate) use lists::{ASKED as LISTS, ListedPosition, Lists, collect as collect_lists};
pub(crate) use parts::{Part, parts};
pub(crate) use rows::{ASKED as ROWS, Rows, collect as collect_rows};
pub(crate) use scores::{ASKED as SCORES, Scores, collect as collect_scores, collect_fused, fused_name};
pub(crate) use stream::{Asked, ask};
pub(crate) use tensors::{Tensors, list};
