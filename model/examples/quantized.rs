//! What a model costs in each type of weights: bytes on disk and in memory, tokens a second, perplexity.
//!
//! `cargo run --release -p chorus-model --example quantized -- TEXT MODEL...` prints a table for each model directory, from one
//! thread and its processor time. Types take turns, several rounds of them, so that whatever else the machine does meets all
//! alike; rates are medians. A sequence is read token by token, with the distribution after each, and 64 of them side by side.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use candle_core::Device;
use chorus_model::{
    LanguageModel, ModelParts, Precision, QUANTIZED_WEIGHTS_FILE, Quantization, Row, State, WEIGHTS_FILE,
    Want, WeightType, evaluate, use_threads,
};

type Failure = Box<dyn std::error::Error>;

const ROUNDS: usize = 9;
/// How long a type is timed in a round.
const TURN: Duration = Duration::from_millis(300);
const SEQUENCES: [usize; 2] = [1, 64];

/// A way to store and to multiply weights.
#[derive(Clone, Copy)]
enum Kind {
    Plain(WeightType, &'static str),
    Int8,
    Blocks(Quantization),
}

const KINDS: [Kind; 7] = [
    Kind::Plain(WeightType::F32, "f32"),
    Kind::Plain(WeightType::F16, "f16"),
    Kind::Plain(WeightType::Bf16, "bf16"),
    Kind::Int8,
    Kind::Blocks(Quantization::Q8_0),
    Kind::Blocks(Quantization::Q6K),
    Kind::Blocks(Quantization::Q4K),
];

/// A model in one type, and what was measured of it.
struct Candidate {
    name: &'static str,
    model: LanguageModel,
    file_bytes: u64,
    perplexity: f64,
    /// Tokens a second of each round, for each number of sequences.
    rates: [Vec<f64>; 2],
}

fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let Some(text) = arguments.next() else { return Err("usage: quantized TEXT MODEL...".into()) };
    let text = std::fs::read_to_string(text)?;
    use_threads(std::num::NonZeroUsize::MIN)?;
    for directory in arguments {
        println!("{}", table(&directory, &text)?);
    }
    Ok(())
}

fn table(directory: &Path, text: &str) -> Result<String, Failure> {
    let original = ModelParts::load(directory)?;
    let tokens = original.vocabulary.encode(text)?;
    let mut candidates = Vec::with_capacity(KINDS.len());
    for kind in KINDS {
        match Candidate::new(kind, &original, &tokens) {
            Ok(candidate) => candidates.push(candidate),
            Err(error) => eprintln!("{} is left out: {error}", kind.name()),
        }
    }
    for _ in 0..ROUNDS {
        for candidate in &mut candidates {
            for (sequences, rates) in SEQUENCES.into_iter().zip(&mut candidate.rates) {
                rates.push(rate(&candidate.model, sequences, &tokens)?);
            }
        }
    }
    let name = &original.config.name;
    let mut table = format!(
        "| {name} ({} tokens) | file, MB | memory, MB | tokens/s, 1 sequence | 64 sequences | perplexity |\n\
         |---|---|---|---|---|---|\n",
        tokens.len()
    );
    for Candidate { name, model, file_bytes, perplexity, rates } in &mut candidates {
        let [one, many] = rates.each_mut().map(|rates| median(rates));
        let (file, memory) = (*file_bytes as f64 / 1e6, model.weight_bytes() as f64 / 1e6);
        table += &format!("| {name} | {file:.2} | {memory:.2} | {one:.0} | {many:.0} | {perplexity:.3} |\n");
    }
    Ok(table)
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Plain(_, name) => name,
            Self::Int8 => "int8",
            Self::Blocks(quantization) => quantization.name(),
        }
    }
}

impl Candidate {
    /// The model as it is written in this type and read again.
    fn new(kind: Kind, original: &ModelParts, tokens: &[u32]) -> Result<Self, Failure> {
        let (parts, number_type, precision, file) = match kind {
            Kind::Plain(number_type, _) => (original.clone(), number_type, Precision::F32, WEIGHTS_FILE),
            // Quantised while it is loaded, from the smallest file that loses nothing to speak of.
            Kind::Int8 => (original.clone(), WeightType::F16, Precision::Int8, WEIGHTS_FILE),
            Kind::Blocks(quantization) => {
                let parts = original.clone().quantize(quantization)?;
                (parts, WeightType::F16, Precision::F32, QUANTIZED_WEIGHTS_FILE)
            }
        };
        let directory = tempfile::tempdir()?;
        parts.save(directory.path(), number_type)?;
        let file_bytes = std::fs::metadata(directory.path().join(file))?.len();
        let model = LanguageModel::load_as(directory.path(), &Device::Cpu, precision, None)?;
        let evaluation = evaluate(&model, tokens, |_| {})?;
        let perplexity = evaluation.perplexity().ok_or("the text has no token")?;
        Ok(Self { name: kind.name(), model, file_bytes, perplexity, rates: [Vec::new(), Vec::new()] })
    }
}

/// Tokens a second, each sequence reading the text from a place of its own.
fn rate(model: &LanguageModel, sequences: usize, tokens: &[u32]) -> Result<f64, Failure> {
    let mut states: Vec<State> = vec![model.fresh_state()?; sequences];
    let (begin, mut steps, mut sum) = (Instant::now(), 0, 0.0);
    let spent = processor_time()?;
    while begin.elapsed() < TURN {
        let token = |sequence: usize| (sequence * tokens.len() / sequences + steps) % tokens.len();
        let read: Vec<u32> = (0..sequences).map(|sequence| tokens[token(sequence)]).collect();
        let mut rows: Vec<Row<'_>> = states
            .iter_mut()
            .zip(read.chunks(1))
            .map(|(state, tokens)| Row { state, tokens, want: Want::Next })
            .collect();
        model.predict(&mut rows, &mut |prediction| sum += prediction.norm.log_sum)?;
        steps += 1;
    }
    if !f64::is_finite(sum) {
        return Err("the logits are not finite".into());
    }
    Ok((steps * sequences) as f64 / (processor_time()? - spent).as_secs_f64())
}

/// Processor time that this thread has used: others may use the machine, too.
#[cfg(unix)]
fn processor_time() -> Result<Duration, Failure> {
    Ok(nix::time::clock_gettime(nix::time::ClockId::CLOCK_THREAD_CPUTIME_ID)?.into())
}

/// The time, where there is no such clock.
#[cfg(not(unix))]
fn processor_time() -> Result<Duration, Failure> {
    Ok(std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?)
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
