//! `chorus quantize`: a model directory becomes a smaller one, and what that costs is measured. What is written and how is
//! [`chorus_model`]'s to know; this is the command line around it.

mod report;
mod target;

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use chorus_model::{LanguageModel, ModelParts, Precision, evaluate, open_device, use_threads};
use indicatif::{ProgressBar, ProgressStyle};

use crate::client::{print, print_json};
use crate::compute::threads;
use crate::failure::UsageError;
use crate::text_file::{self, LARGEST_DATA, Text};

use report::{Report, Side};
use target::Target;

const EXAMPLES: &str = "\
Examples:
  chorus quantize --model alto --out small/alto --to q4k
  chorus quantize --model alto --out small/alto --to q8_0 --text test.txt
  chorus quantize --model alto --out half/alto --to f16
  chorus worker --model small/alto

The LSTM's matrices and the output layer's become blocks of small integers with
scales, as ggml has them: q8_0 (8.5 bits a weight), q6k (6.56) or q4k (4.5), in
model.gguf in place of model.safetensors. The embedding is f16 where it is not
tied, biases stay f32. f16 and bf16 store everything in 16 bits, which takes
half of the file and computes as before.

A block is 32 numbers of a row in q8_0, and 256 in q6k and q4k. Rows are filled
up to whole blocks; where that would add more than a third (rows of 300 numbers
in q4k), the type is refused, with those that are possible. Only an original is
quantised: what is quantised already has lost its numbers.

With --text the original and what was written are both read over the text.

With --json one object with the keys
  original, quantized  {type, file_bytes, memory_bytes} and, with --text,
                       {tokens, nats_per_token, perplexity}";

const PROGRESS: &str = "{bar:30} {percent:>3}%  {per_sec}  {eta} left";

/// Make a smaller model directory: weights quantised in blocks, or of 16 bits
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct QuantizeArgs {
    /// The model directory to read
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// The model directory to make; it must not exist, or be empty
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// What the weights become: q8_0, q6k, q4k, f16 or bf16
    #[arg(long, value_name = "TYPE")]
    to: Target,
    /// A UTF-8 text to measure the perplexity of both on; `-` reads stdin
    #[arg(long, value_name = "FILE")]
    text: Option<PathBuf>,
    /// Threads that compute (default: one for each processor)
    #[arg(long, value_name = "N", value_parser = threads)]
    threads: Option<NonZeroUsize>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Runs the command.
///
/// # Errors
/// The model or the text can't be read, the model does not fit the type, the directory is taken or can't be written.
pub(crate) fn run(arguments: QuantizeArgs) -> anyhow::Result<()> {
    let QuantizeArgs { model, out, to, text, threads, json } = arguments;
    if is_same(&model, &out) {
        return Err(UsageError(format!("--out {} is the model that is read", out.display())).into());
    }
    threads.map_or(Ok(()), use_threads)?;
    let original = ModelParts::load(&model)?;
    let tokens = text.map(|file| tokens(&file, &original)).transpose()?;
    let converted =
        to.convert(original.clone()).with_context(|| format!("{} can't be quantised", model.display()))?;
    converted.save_new(&out, to.weight_type())?;
    // Both as anybody reads them, and only now: whatever is refused is refused at once.
    let written = ModelParts::load(&out)?;
    let report = Report {
        original: side("original", original, &model, tokens.as_deref())?,
        quantized: side(to.name(), written, &out, tokens.as_deref())?,
    };
    if json {
        return print_json(&report);
    }
    print(&format!("{}written to {}\n", report.table(), out.display()))
}

/// Whether both are the same directory, under whatever names.
fn is_same(model: &Path, out: &Path) -> bool {
    match (model.canonicalize(), out.canonicalize()) {
        (Ok(model), Ok(out)) => model == out,
        _ => false,
    }
}

fn tokens(file: &Path, model: &ModelParts) -> anyhow::Result<Vec<u32>> {
    let Text { text, origin } = text_file::read(file, LARGEST_DATA)?;
    let tokens = model.vocabulary.encode(&text).with_context(|| {
        format!("the vocabulary of {:?} can't express the text of {origin}", model.config.name)
    })?;
    if tokens.is_empty() {
        bail!("{origin} has no token: there is nothing to measure");
    }
    Ok(tokens)
}

/// What there is to say of a model directory.
fn side(
    name: &'static str,
    parts: ModelParts,
    directory: &Path,
    tokens: Option<&[u32]>,
) -> anyhow::Result<Side> {
    let file_bytes = report::weight_file_bytes(directory)?;
    let model = LanguageModel::from_parts(parts, &open_device("cpu")?, Precision::F32)?;
    let evaluation = match tokens {
        Some(tokens) => {
            let bar =
                ProgressBar::new(tokens.len() as u64).with_style(ProgressStyle::with_template(PROGRESS)?);
            let evaluation = evaluate(&model, tokens, |done| bar.set_position(done))?;
            bar.finish_and_clear();
            if !evaluation.nats.is_finite() {
                bail!("the logits of {} are not finite somewhere in the text", directory.display());
            }
            Some(evaluation)
        }
        None => None,
    };
    Ok(Side::new(name, file_bytes, model.weight_bytes(), evaluation.as_ref()))
}
