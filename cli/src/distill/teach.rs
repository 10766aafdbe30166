//! What the ensemble says of every token of the training text, asked once and kept. Knows nothing about the student.

use std::sync::Mutex;

use anyhow::Context as _;
use chorus_model::train::{SoftTargets, TeacherHeader, TeacherStore};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use indicatif::{ProgressBar, ProgressStyle};

use super::args::DistillArgs;
use crate::learn::{Asked, Part, RunningEnsemble, Unanswered, ask};

const PROGRESS: &str = "asking {bar:30} {percent:>3}%  {per_sec}  {eta} left";
/// Parts that are asked about at a time.
const AT_A_TIME: usize = 4;

/// Asks for what is not kept yet, and reads all of it.
pub(super) async fn targets(
    arguments: &DistillArgs,
    ensemble: &RunningEnsemble,
    tokens: &[u32],
) -> anyhow::Result<SoftTargets> {
    let header = TeacherHeader {
        teacher: description(ensemble)?,
        vocabulary: ensemble.vocabulary.fingerprint().to_owned(),
        vocab_size: ensemble.vocabulary.len() as usize,
        form: arguments.form(),
        temperature: arguments.temperature,
        piece_tokens: arguments.part_tokens,
    };
    let store = TeacherStore::create_or_open(&arguments.teacher(), header, tokens)?;
    let missing: Vec<usize> = store.missing().collect();
    let to_ask: usize = missing.iter().map(|index| store.positions(*index).len()).sum();
    let bar = ProgressBar::new(tokens.len() as u64)
        .with_style(ProgressStyle::with_template(PROGRESS)?)
        .with_position((tokens.len() - to_ask) as u64);
    bar.reset_eta();
    let store = Mutex::new(store);
    let parts = missing.into_iter().map(|index| {
        let positions = lock(&store).positions(index);
        let begin = positions.start.saturating_sub(arguments.context_tokens);
        Part { index, tokens: positions, begin }
    });
    let parts: Vec<Part> = parts.collect();
    let (kept, shown) = (&store, &bar);
    let asked = parts.into_iter().map(|part| async move {
        let targets = one(arguments, ensemble, tokens, &part).await?;
        lock(kept).write_piece(part.index, &targets)?;
        shown.inc(part.tokens.len() as u64);
        anyhow::Ok(())
    });
    stream::iter(asked).buffer_unordered(AT_A_TIME).try_collect::<()>().await?;
    bar.finish_and_clear();
    let store = store.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    Ok(store.load()?.targets)
}

fn lock(store: &Mutex<TeacherStore>) -> std::sync::MutexGuard<'_, TeacherStore> {
    store.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// What the ensemble says of a part; it has to be the same ensemble afterwards.
async fn one(
    arguments: &DistillArgs,
    ensemble: &RunningEnsemble,
    tokens: &[u32],
    part: &Part,
) -> anyhow::Result<SoftTargets> {
    let temperature = arguments.temperature;
    let mut targets = SoftTargets::new(arguments.form(), ensemble.vocabulary.len() as usize, temperature)?;
    let asked = Asked { top_n: arguments.top_n(), temperature, members: false, rule: None };
    let names = ensemble.identity.names();
    let said = ask(ensemble.clone(), asked, part.read(tokens), part, &names, |position| {
        if position.ids.is_empty() {
            targets.push_dense(&position.log_probs)?;
        } else {
            targets.push_list(&position.ids, &position.log_probs)?;
        }
        Ok(())
    });
    let changed = |reason: String| {
        anyhow::anyhow!(
            "the ensemble changed while it was asked: {reason}; what it said before is kept, so that the same command goes on \
             from there"
        )
    };
    match said.await {
        Ok(()) => {}
        Err(Unanswered::Missing(reason)) => return Err(changed(reason)),
        Err(Unanswered::Failed(error)) => return Err(error),
    }
    match ensemble.lost().await? {
        Some(reason) => Err(changed(reason)),
        None => Ok(targets),
    }
}

/// Who the teacher is, in words: another rule or other weights are another teacher.
pub(super) fn description(ensemble: &RunningEnsemble) -> anyhow::Result<String> {
    let status = &ensemble.status;
    let weights = status.members.iter().map(|member| format!("{}@{}", member.name, member.weight));
    let weights: Vec<String> = weights.collect();
    let identity = serde_json::to_string(&ensemble.identity).context("the ensemble can't be described")?;
    // The fingerprints are long, and a manifest has room for a few words.
    let digest = crate::learn::hex(identity.as_bytes());
    let digest = digest.get(..16).unwrap_or_default();
    let words = weights.join(" ");
    let weights = if words.len() > 600 { crate::learn::hex(words.as_bytes()) } else { words };
    Ok(format!("{} of {weights} ({digest})", status.rule().as_str_name().to_lowercase()))
}
