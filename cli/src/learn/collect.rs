//! Asks an ensemble about every part of a text that is not kept yet, several at a time, and notices when it is no longer the
//! ensemble that it was.
//!
//! Knows nothing about what is asked.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::bail;
use backon::{ExponentialBuilder, Retryable};
use clap::ValueEnum;
use futures::{StreamExt as _, stream};
use indicatif::{ProgressBar, ProgressStyle};
use tonic::{Code, Status};

use super::cache::Cache;
use super::ensemble::RunningEnsemble;
use super::parts::Part;
use super::tensors::Tensors;
use crate::client::sentence_of_status;

const PROGRESS: &str = "{msg} {bar:30} {percent:>3}%  {per_sec}  {eta} left";
/// Parts that are asked about at a time: enough that workers have batches.
const AT_A_TIME: usize = 8;

/// What becomes of a run during which the ensemble changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum OnChange {
    /// It ends; what was asked so far is kept.
    Stop,
    /// It goes on, and leaves out what not all of the first members answered.
    Continue,
}

/// How parts are asked about.
pub(crate) struct Collecting<'a> {
    pub(crate) ensemble: &'a RunningEnsemble,
    pub(crate) cache: &'a Cache,
    pub(crate) tokens: &'a [u32],
    pub(crate) on_change: OnChange,
    /// What can be done where it ends the run, beside the same command again.
    pub(crate) otherwise: &'static str,
    /// What the bar says.
    pub(crate) title: &'static str,
}

/// Which parts are there in the end.
#[derive(Debug, Default)]
pub(crate) struct Collected {
    pub(crate) parts: Vec<Part>,
    /// Those that are not, in order, with the reason of the last one.
    pub(crate) left_out: Vec<Part>,
    pub(crate) reason: String,
}

/// Why a part was not answered.
pub(crate) enum Unanswered {
    /// Somebody was missing.
    Missing(String),
    /// The ensemble refused, or what it said can't be used.
    Failed(anyhow::Error),
}

impl Collecting<'_> {
    /// Asks for what is missing of these parts.
    ///
    /// # Errors
    /// The ensemble can't be reached or refuses, says what can't be used, or changed where that ends the run.
    pub(crate) async fn all<A, F>(&self, parts: Vec<Part>, ask: A) -> anyhow::Result<Collected>
    where
        A: Fn(Vec<u32>, Part) -> F,
        F: Future<Output = Result<Tensors, Unanswered>>,
    {
        let (there, missing): (Vec<Part>, Vec<Part>) =
            parts.into_iter().partition(|part| self.cache.has(part.index));
        let bar = ProgressBar::new(self.tokens.len() as u64)
            .with_style(ProgressStyle::with_template(PROGRESS)?)
            .with_message(self.title)
            .with_position(there.iter().map(|part| part.tokens.len() as u64).sum());
        bar.reset_eta();
        let mut collected = Collected { parts: there, ..Collected::default() };
        let is_away = AtomicBool::new(false);
        let asked = missing.into_iter().map(|part| self.one(part, &ask, &is_away));
        let mut answers = stream::iter(asked).buffer_unordered(AT_A_TIME);
        while let Some((part, answer)) = answers.next().await {
            bar.inc(part.tokens.len() as u64);
            match answer {
                Ok(said) => {
                    self.cache.keep(part.index, &said)?;
                    collected.parts.push(part);
                }
                Err(Unanswered::Failed(error)) => return Err(error),
                Err(Unanswered::Missing(reason)) if self.on_change == OnChange::Stop => {
                    bar.finish_and_clear();
                    bail!(
                        "the ensemble changed while it was asked: {reason}; what it said before is kept, so that the \
                         same command goes on from there{}",
                        self.otherwise
                    );
                }
                Err(Unanswered::Missing(reason)) => {
                    collected.left_out.push(part);
                    collected.reason = reason;
                }
            }
        }
        bar.finish_and_clear();
        collected.parts.sort_by_key(|part| part.index);
        collected.left_out.sort_by_key(|part| part.index);
        if collected.parts.is_empty() && !collected.left_out.is_empty() {
            bail!("nothing was answered by all members: {}", collected.reason);
        }
        Ok(collected)
    }

    /// One part, asked again a few times where somebody has just gone. Where that did not help, the next ones are asked once.
    async fn one<A, F>(
        &self,
        part: Part,
        ask: &A,
        is_away: &AtomicBool,
    ) -> (Part, Result<Tensors, Unanswered>)
    where
        A: Fn(Vec<u32>, Part) -> F,
        F: Future<Output = Result<Tensors, Unanswered>>,
    {
        let once = || async {
            let said = ask(part.read(self.tokens).to_vec(), part.clone()).await?;
            // Whoever came in between hosts something else, and still does.
            match self.ensemble.lost().await {
                Ok(None) => Ok(said),
                Ok(Some(reason)) => Err(Unanswered::Missing(reason)),
                Err(error) => Err(Unanswered::Failed(error)),
            }
        };
        let times = if is_away.load(Ordering::Relaxed) { 0 } else { 3 };
        let again =
            ExponentialBuilder::default().with_min_delay(Duration::from_millis(300)).with_max_times(times);
        let is_absence = |unanswered: &Unanswered| matches!(unanswered, Unanswered::Missing(_));
        let answer = once.retry(again).sleep(tokio::time::sleep).when(is_absence).await;
        is_away.store(matches!(answer, Err(Unanswered::Missing(_))), Ordering::Relaxed);
        (part, answer)
    }
}

/// A refusal of the ensemble.
pub(crate) fn refused(ensemble: &RunningEnsemble, status: &Status) -> Unanswered {
    let error = sentence_of_status(status, &ensemble.address);
    // Requests that want everybody are refused so where somebody is away.
    if status.code() == Code::Unavailable {
        return Unanswered::Missing(error.to_string());
    }
    Unanswered::Failed(error)
}

/// Whether all of these answered.
pub(crate) fn all_there(names: &[String], there: &[&String]) -> Result<(), Unanswered> {
    match names.iter().find(|name| !there.contains(name)) {
        Some(name) => Err(Unanswered::Missing(format!("{name} is no member any more"))),
        None => Ok(()),
    }
}

impl From<anyhow::Error> for Unanswered {
    fn from(error: anyhow::Error) -> Self {
        Self::Failed(error)
    }
}
