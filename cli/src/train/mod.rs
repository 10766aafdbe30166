//! `chorus train`: reads the texts, makes the vocabulary, shows the progress, draws the learning curve.
//! The training itself is [`chorus_model::train`].

mod args;
mod curve;
mod progress;
mod vocabulary;

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Error, Result, anyhow};
use chorus_model::ModelParts;
use chorus_model::train::{
    Event, LineTexts, Material, Outcome, RunSettings, Texts, TrainError, TrainingData, TrainingOptions,
    read_metrics, train,
};
use chorus_text::Vocabulary;

use args::LineArgs;
pub(crate) use args::{NetworkArgs, OutputArgs, StepArgs, TrainArgs, options};
use progress::ProgressView;
pub(crate) use vocabulary::start as start_of;

use crate::failure::{INTERRUPTED, Interrupted};
use crate::line_text::{self, LineRules};
use crate::shutdown::Signals;
use crate::text_file::{self, LARGEST_DATA, Text};

/// Runs `chorus train` to its end, or until Ctrl-C or SIGTERM.
///
/// # Errors
/// What [`train`] refuses, files that can't be read, and texts that the vocabulary can't express.
#[expect(clippy::needless_pass_by_value, reason = "every command's run takes its arguments")]
pub(crate) fn run(args: TrainArgs) -> Result<()> {
    let training = text_file::read(&args.data, LARGEST_DATA)?;
    let validation = text_file::read(&args.valid, LARGEST_DATA)?;
    let (vocabulary, tokenizer) = vocabulary::choose(&args, &training.text)?;
    let start = vocabulary::start(args.start.as_deref(), &vocabulary)?;
    let end =
        args.lines.lines.then(|| vocabulary::end(args.lines.end.as_deref(), &vocabulary)).transpose()?;
    let options = args.options(tokenizer, start, end);
    let data = read_data(&args.lines, &vocabulary, [&training, &validation])?;
    let initial = args.output.init_from.as_deref().map(ModelParts::load).transpose()?;
    let material = Material { initial, ..data.into() };
    run_to_the_end(options, material, &args.output.settings(&vocabulary))
}

/// Trains, shows the progress and draws the learning curve.
///
/// # Errors
/// What [`train`] refuses; [`Interrupted`] at Ctrl-C or SIGTERM.
pub(crate) fn run_to_the_end(
    options: TrainingOptions,
    material: Material,
    settings: &RunSettings,
) -> Result<()> {
    let view = ProgressView::new(options.epochs)?;
    let stop = stop_at_signals()?;
    let (name, directory) = (options.name.clone(), &settings.directory);
    let outcome = train(options, material, settings, &mut |event| {
        view.show(&event);
        if matches!(event, Event::Validation { .. }) {
            // The picture is a convenience: a run of hours does not end because it can't be drawn.
            if let Err(error) = draw_curve(directory, &name) {
                view.line(&format!("{error:#}"));
            }
        }
        if stop.load(Ordering::Relaxed) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    view.end();
    report(directory, outcome.map_err(in_terms_of_flags)?)
}

/// What the model crate can't say, since it knows no flags.
fn in_terms_of_flags(error: TrainError) -> Error {
    match error {
        TrainError::OutputNotEmpty { path } => anyhow!(
            "{} is not empty: --resume goes on with the run in it, --out chooses another directory",
            path.display()
        ),
        other => other.into(),
    }
}

fn report(directory: &Path, outcome: Outcome) -> Result<()> {
    let directory = directory.display();
    match outcome {
        Outcome::Finished { best_epoch, perplexity } => {
            anstream::eprintln!(
                "{directory} holds the model of epoch {best_epoch}, with validation perplexity {perplexity:.3}"
            );
            Ok(())
        }
        Outcome::Stopped => {
            anstream::eprintln!("stopped; the same command with --resume goes on with {directory}");
            Err(Interrupted.into())
        }
    }
}

fn draw_curve(directory: &Path, name: &str) -> Result<()> {
    let lines = read_metrics(&directory.join("metrics.jsonl"))?;
    curve::draw(&directory.join("learning-curve.svg"), name, &lines)
}

/// The training and the validation text as tokens.
fn read_data(args: &LineArgs, vocabulary: &Vocabulary, texts: [&Text; 2]) -> Result<TrainingData> {
    let vocab_size = vocabulary.len() as usize;
    let [training, validation] = texts;
    if args.lines {
        let rules = LineRules { separator: args.loss_after.as_deref(), longest: args.longest_line };
        let lines = |text| line_text::lines(text, vocabulary, &rules);
        let texts = LineTexts { training: lines(training)?, validation: lines(validation)?, vocab_size };
        return Ok(texts.into());
    }
    let encode = |text: &Text| vocabulary.encode(&text.text).with_context(|| text.origin.clone());
    Ok(Texts { training: encode(training)?, validation: encode(validation)?, vocab_size }.into())
}

/// A flag that is set at Ctrl-C or SIGTERM, which are listened for when this returns. A second one, while the last step
/// and its checkpoint are still being made, ends the process at once; a checkpoint is replaced as a whole, so nothing is
/// torn then either.
fn stop_at_signals() -> Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&stop);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let mut signals = {
        let _context = runtime.enter();
        Signals::new().context("can't listen for signals")?
    };
    std::thread::spawn(move || {
        runtime.block_on(async {
            signals.next().await;
            flag.store(true, Ordering::Relaxed);
            signals.next().await;
            std::process::exit(i32::from(INTERRUPTED));
        });
    });
    Ok(stop)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use clap::{Args as _, Command, FromArgMatches as _};

    use super::*;

    fn parsed(line: &str) -> TrainArgs {
        let words = std::iter::once("train").chain(line.split_whitespace());
        let matches = TrainArgs::augment_args(Command::new("train")).try_get_matches_from(words).unwrap();
        TrainArgs::from_arg_matches(&matches).unwrap()
    }

    #[test]
    fn a_run_leaves_a_model_directory_and_its_tokenizer_serves_another() {
        let root = tempfile::tempdir().unwrap();
        let (text, out) = (root.path().join("text"), root.path().join("alto"));
        fs::write(&text, "To be, or not to be:\nthat is the question.\n\nWhether\n\n".repeat(20)).unwrap();
        let line = |out: &Path, rest: &str| {
            let (text, out) = (text.display(), out.display());
            parsed(&format!(
                "--data {text} --valid {text} --out {out} --embedding 4 --hidden 6 --batch 4 --bptt 16 --epochs 2 {rest}"
            ))
        };
        run(line(&out, "--tokenizer bpe:260 --dtype f16")).unwrap();
        let parts = ModelParts::load(&out).unwrap();
        assert_eq!((parts.config.name.as_str(), parts.config.vocab_size), ("alto", 260));
        for file in ["metrics.jsonl", "learning-curve.svg", "checkpoint/checkpoint.safetensors"] {
            assert!(out.join(file).is_file(), "{file}");
        }
        // A run that is over may be resumed, but the vocabulary may not become another one.
        run(line(&out, "--tokenizer bpe:260 --dtype f16 --resume")).unwrap();
        let error = run(line(&out, "--tokenizer bpe:261 --dtype f16 --resume")).unwrap_err().to_string();
        assert!(
            error.starts_with("tokenizer is \"bpe:261\", but the run to resume has \"bpe:260\""),
            "{error}"
        );
        let other = root.path().join("bass");
        run(line(&other, &format!("--tokenizer-from {} --order passages --seed 2", out.display()))).unwrap();
        let fingerprint = ModelParts::load(&other).unwrap().vocabulary.fingerprint().to_owned();
        assert_eq!(fingerprint, parts.vocabulary.fingerprint());
    }

    #[test]
    fn a_run_begins_with_the_weights_of_another_model() {
        let root = tempfile::tempdir().unwrap();
        let (text, alto) = (root.path().join("text"), root.path().join("alto"));
        fs::write(&text, "To be, or not to be:\nthat is the question.\n".repeat(20)).unwrap();
        let begin = |out: &str, rest: &str| {
            let (text, out) = (text.display(), root.path().join(out));
            let line = format!(
                "--data {text} --valid {text} --out {} --embedding 4 --batch 4 --bptt 16 --epochs 1 {rest}",
                out.display()
            );
            run(parsed(&line))
        };
        begin("alto", "--hidden 6 --tokenizer characters").unwrap();
        let alto = alto.display();
        // So small a rate leaves the weights nearly as they were.
        let rest = format!("--tokenizer-from {alto} --init-from {alto} --learning-rate 1e-9");
        begin("bass", &format!("{rest} --hidden 6")).unwrap();
        let weights = |name: &str| {
            let tensors = ModelParts::load(&root.path().join(name)).unwrap().tensors;
            tensors["linear.weight"].flatten_all().unwrap().to_vec1::<f32>().unwrap()
        };
        for (alto, bass) in weights("alto").iter().zip(weights("bass")) {
            assert!((alto - bass).abs() < 1e-6, "{alto} {bass}");
        }
        let error = begin("tenor", &format!("{rest} --hidden 7")).unwrap_err().to_string();
        assert_eq!(error, "the run can't begin with a model of another shape");
    }
}
