//! Commands that speak with a running ensemble over gRPC: generate, score, predict, rank, classify, status, health, members.
//!
//! Each module holds one command: its arguments, its request, and how its answer is shown. They know nothing about how
//! an ensemble is hosted, and leave every check of a value to the server, whose sentence they pass on.

mod address;
mod classify;
mod connect;
mod format;
mod fusion;
mod generate;
mod generate_lines;
mod health;
mod many;
mod members;
mod predict;
mod rank;
mod reply;
mod sampling;
mod score;
mod security;
mod status;
mod traced;

pub(crate) use address::Address;
pub(crate) use classify::{ClassifyArgs, run as classify};
pub(crate) use connect::{ConnectArgs, connect, dialer, sentence_of_status};
pub(crate) use format::{print, print_json, table};
pub(crate) use fusion::{FusionArgs, rule_parser};
pub(crate) use generate::{GenerateArgs, run as generate};
pub(crate) use health::{HealthArgs, run as health};
pub(crate) use members::{MembersArgs, run as members};
pub(crate) use predict::{PredictArgs, run as predict};
pub(crate) use rank::{RankArgs, run as rank};
pub(crate) use score::{ScoreArgs, run as score};
pub(crate) use security::{SecurityArgs, identity, in_terms_of_flags, read_pem};
pub(crate) use status::{StatusArgs, run as status};

use chorus_proto::v1::{Input, input};

/// A text as the input of a request.
fn input_of(text: String) -> Input {
    Input { input: Some(input::Input::Text(text)) }
}
