//! The engine behind a line protocol, so that a script can time it beside other libraries in one interleaved run.
//!
//! Started with a shape and a safetensors file of PyTorch's names, it prints `ready` and answers each line on standard
//! input with one line of JSON:
//!
//! - `step B REPEATS`: one token for each of B sequences, every row's logits; microseconds of each repeat.
//! - `score B T REPEATS`: T tokens for each of B sequences, the logits before every token.
//! - `bandwidth REPEATS`, `sgemm REPEATS`: what this machine reads and multiplies at most, on the same threads or the device.
//! - `logits TOKEN...`: the logits after these tokens, to be held against another library's.
//! - `quit`.
//!
//! With `--device cuda` logits stay on the device, as other libraries' do, and their log-sum-exps come to the host.

mod cpu;
mod device;

use std::io::{BufRead, Write};
use std::path::PathBuf;
use std::time::Instant;

use candle_core::{Device, safetensors};
use chorus_model::{
    Capacity, Config, FORMAT, LanguageModel, ModelParts, Precision, Processor, Reduction, Room, Row, Start,
    State, Tensors, Want,
};
use chorus_text::Vocabulary;

type Failure = Box<dyn std::error::Error>;

struct Arguments {
    config: Config,
    weights: PathBuf,
    threads: usize,
    precision: Precision,
    device: String,
}

/// Room for the largest comparison.
const CAPACITY: Capacity = Capacity { states: 1100, tokens: 1024, logits: 1 << 26 };

fn main() -> Result<(), Failure> {
    let Arguments { config, weights, threads, precision, device } = arguments()?;
    rayon::ThreadPoolBuilder::new().num_threads(threads).build_global()?;
    let tensors: Tensors = safetensors::load(&weights, &Device::Cpu)?.into_iter().collect();
    let characters: String =
        ('\u{4e00}'..).filter(|letter| letter.is_alphabetic()).take(config.vocab_size).collect();
    let vocabulary = Vocabulary::train_characters(&characters)?;
    let (parts, processor) = (ModelParts::new(config, vocabulary, tensors), Processor::open(&device)?);
    let model = LanguageModel::on(parts, &processor, precision, CAPACITY)?;
    let is_on_cpu = device == "cpu";
    let mut output = std::io::stdout();
    writeln!(output, "ready")?;
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let words: Vec<&str> = line.split_whitespace().collect();
        let answer = match words[..] {
            ["step", batch, repeats] => timed(&model, batch.parse()?, 1, Want::Next, repeats.parse()?)?,
            ["score", batch, time, repeats] => {
                timed(&model, batch.parse()?, time.parse()?, Want::Each, repeats.parse()?)?
            }
            ["bandwidth", repeats] if is_on_cpu => cpu::bandwidth(repeats.parse()?, threads),
            ["sgemm", repeats] if is_on_cpu => cpu::sgemm(repeats.parse()?, threads),
            ["bandwidth", repeats] => device::bandwidth(model.device(), repeats.parse()?)?,
            ["sgemm", repeats] => device::multiplication(model.device(), precision, repeats.parse()?)?,
            ["logits", ref tokens @ ..] => logits(&model, tokens)?,
            ["quit"] => return Ok(()),
            _ => format!("{{\"error\": \"{line:?} is no command\"}}"),
        };
        writeln!(output, "{answer}")?;
    }
    Ok(())
}

fn arguments() -> Result<Arguments, Failure> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let text = |flag: &str| {
        let place = words.iter().position(|word| word == flag).ok_or(format!("{flag} is missing"))?;
        words.get(place + 1).cloned().ok_or(format!("{flag} has no value"))
    };
    let number = |flag: &str| -> Result<usize, Failure> { Ok(text(flag)?.parse()?) };
    let config = Config {
        format: FORMAT,
        name: "timed".to_owned(),
        vocab_size: number("--vocab")?,
        embedding_size: Some(number("--embedding")?),
        hidden_size: number("--hidden")?,
        layers: number("--layers")?,
        tied: false,
        lstm_bias: true,
        output_bias: true,
        start: Start::ZeroState,
        end: None,
    };
    let precision = text("--precision")?.parse()?;
    let device = text("--device").unwrap_or_else(|_| "cpu".to_owned());
    Ok(Arguments {
        config,
        weights: text("--weights")?.into(),
        threads: number("--threads")?,
        precision,
        device,
    })
}

/// Sequences that go on from call to call, each with tokens of its own.
fn timed(
    model: &LanguageModel,
    batch: usize,
    time: usize,
    want: Want,
    repeats: usize,
) -> Result<String, Failure> {
    let mut states = vec![model.fresh_state()?; batch];
    let vocab_size = model.config().vocab_size as u32;
    let (mut microseconds, mut checksum) = (Vec::with_capacity(repeats), 0.0);
    let (norms, mut room) = (vec![Reduction::Norm; batch], Room::default());
    for repeat in 0..repeats {
        let token = |index: usize| ((index + repeat) as u32).wrapping_mul(2_654_435_761) % vocab_size;
        let tokens: Vec<u32> = (0..batch * time).map(token).collect();
        let mut rows: Vec<Row<'_>> = states
            .iter_mut()
            .zip(tokens.chunks(time))
            .map(|(state, tokens)| Row { state, tokens, want })
            .collect();
        let begin = Instant::now();
        let mut sum = 0.0;
        // Of the CPU's rows nothing has to go anywhere.
        model.answer(&mut rows, &norms, &mut room, &mut |answer| sum += answer.norm.log_sum)?;
        microseconds.push(begin.elapsed().as_secs_f64() * 1e6);
        checksum += sum;
    }
    Ok(format!("{{\"microseconds\": {microseconds:?}, \"checksum\": {checksum:?}}}"))
}

fn logits(model: &LanguageModel, tokens: &[&str]) -> Result<String, Failure> {
    let tokens: Vec<u32> = tokens.iter().map(|token| token.parse()).collect::<Result<_, _>>()?;
    let mut state: State = model.fresh_state()?;
    let outputs = model.forward(&mut [Row { state: &mut state, tokens: &tokens, want: Want::Next }])?;
    Ok(format!("{:?}", outputs[0].logits))
}
