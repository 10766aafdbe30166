//! What a command that learns from an ensemble is told about the text and the asking. Knows nothing about what is learned.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use super::cache::{Cache, Manifest};
use super::collect::{Collecting, OnChange};
use super::ensemble::RunningEnsemble;
use super::parts::{Part, parts};
use crate::text_file::{self, LARGEST_DATA, Text};

/// How a text goes through the ensemble.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Asking")]
pub(crate) struct CollectArgs {
    /// A UTF-8 text that no member was trained on; `-` reads stdin
    #[arg(value_name = "FILE", help_heading = None)]
    pub(crate) file: PathBuf,
    /// Where what the ensemble said is kept, so that it is asked once
    #[arg(long, value_name = "DIR", default_value = "chorus-cache")]
    cache: PathBuf,
    /// Tokens of the text that are asked about at once, and kept
    #[arg(long, value_name = "N", default_value = "2048")]
    part_tokens: NonZeroUsize,
    /// Tokens that are read before each part, and not asked about
    #[arg(long, value_name = "N", default_value_t = 256)]
    context_tokens: usize,
    /// When a member goes, or hosts something else: `stop`, or `continue` without what not all of them answered
    #[arg(long, value_name = "WHAT", value_enum, default_value = "stop")]
    on_change: OnChange,
}

/// A text and how it is cut.
pub(crate) struct HeldOut {
    pub(crate) origin: String,
    pub(crate) tokens: Vec<u32>,
    pub(crate) parts: Vec<Part>,
}

impl CollectArgs {
    /// Reads the text.
    ///
    /// # Errors
    /// It can't be read, is empty, or the ensemble's vocabulary can't express it.
    pub(crate) fn read(&self, ensemble: &RunningEnsemble) -> anyhow::Result<HeldOut> {
        let Text { text, origin } = text_file::read(&self.file, LARGEST_DATA)?;
        let tokens = ensemble.encode(&text, &origin)?;
        anyhow::ensure!(!tokens.is_empty(), "{origin} has no token: there is nothing to learn from");
        let parts = parts(tokens.len(), self.part_tokens.get(), self.context_tokens);
        Ok(HeldOut { origin, tokens, parts })
    }

    /// Where the answers to a question about it are kept.
    ///
    /// # Errors
    /// The folder can't be made or used.
    pub(crate) fn cache(
        &self,
        asked: &str,
        text: &HeldOut,
        ensemble: &RunningEnsemble,
    ) -> anyhow::Result<Cache> {
        let sizes = (self.part_tokens.get(), self.context_tokens);
        Cache::open(&self.cache, Manifest::new(asked, &text.tokens, sizes, &ensemble.identity))
    }

    /// How a question is asked whose answers are kept there; `title` is what the bar says.
    pub(crate) fn collecting<'a>(
        &self,
        ensemble: &'a RunningEnsemble,
        cache: &'a Cache,
        text: &'a HeldOut,
        title: &'static str,
    ) -> Collecting<'a> {
        Collecting {
            ensemble,
            cache,
            tokens: &text.tokens,
            on_change: self.on_change,
            otherwise: ", and --on-change continue leaves out what is missing",
            title,
        }
    }
}
