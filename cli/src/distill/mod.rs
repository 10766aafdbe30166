//! `chorus distill`: one student model learns from what a running ensemble says of a training text.
//!
//! The training is [`chorus_model::train`]; here the ensemble is asked, and in the end everybody is compared.

mod args;
mod compare;
mod synthetic;
mod teach;

#[cfg(test)]
mod fuzz;

use anyhow::Context as _;
use chorus_model::ModelParts;
use chorus_model::train::{Distillation, Material, Texts};

pub(crate) use args::DistillArgs;

use synthetic::Synthetic;

use crate::client::{print, print_json};
use crate::learn::RunningEnsemble;
use crate::text_file::{self, LARGEST_DATA, Text};
use crate::train::{options, run_to_the_end, start_of};

/// Runs the command.
///
/// # Errors
/// A text can't be read or expressed, the ensemble can't be reached or changed, the training refuses or is interrupted.
pub(crate) async fn run(arguments: DistillArgs) -> anyhow::Result<()> {
    arguments.check()?;
    let ensemble = RunningEnsemble::connect(&arguments.connect.server()?).await?;
    let read = |path| {
        let Text { text, origin } = text_file::read(path, LARGEST_DATA)?;
        let tokens = ensemble.encode(&text, &origin)?;
        anyhow::ensure!(!tokens.is_empty(), "{origin} has no token");
        Ok(tokens)
    };
    let mut texts = Texts {
        training: read(&arguments.data)?,
        validation: read(&arguments.valid)?,
        vocab_size: ensemble.vocabulary.len() as usize,
    };
    let test = read(arguments.test())?;
    let start = start_of(arguments.start.as_deref(), &ensemble.vocabulary)?;
    let tokenizer = ensemble.vocabulary.fingerprint().to_owned();
    let mut options = options(&arguments.output, &arguments.network, &arguments.steps, tokenizer, start);
    options.distillation =
        Some(Distillation { hard_weight: arguments.hard_weight(), temperature: arguments.temperature });
    // Before anything is asked: whether the run can be.
    options.config(texts.vocab_size).context("the student can't be made")?;
    if let Some(tokens) = arguments.synthetic {
        let passage_tokens = arguments.passage_tokens;
        let synthetic = Synthetic { data: &texts.training, tokens, passage_tokens, seed: options.seed };
        texts.training = synthetic.write(&ensemble, &arguments.cache).await?;
    }
    let teacher = teach::targets(&arguments, &ensemble, &texts.training).await?;
    let initial = arguments.output.init_from.as_deref().map(ModelParts::load).transpose()?;
    let material = Material { texts, teacher: Some(teacher), initial };
    let settings = arguments.output.settings(&ensemble.vocabulary);
    tokio::task::spawn_blocking(move || run_to_the_end(options, material, &settings))
        .await
        .context("the training ended in a defect")??;
    let compared = compare::compare(&arguments, &ensemble, &test).await?;
    if arguments.connect.json {
        return print_json(&compared.json());
    }
    print(&compared.table(&arguments.test().display().to_string()))
}
