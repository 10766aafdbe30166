//! The engine behind a line protocol, so that a script can time it beside other libraries in one interleaved run.
//!
//! Started with a shape and a safetensors file of PyTorch's names, it prints `ready` and answers each line on standard
//! input with one line of JSON:
//!
//! - `step B REPEATS`: one token for each of B sequences, every row's logits; microseconds of each repeat.
//! - `score B T REPEATS`: T tokens for each of B sequences, the logits before every token.
//! - `bandwidth REPEATS`, `sgemm REPEATS`: what this machine reads and multiplies at most, on the same threads.
//! - `logits TOKEN...`: the logits after these tokens, to be held against another library's.
//! - `quit`.

use std::hint::black_box;
use std::io::{BufRead, Write};
use std::path::PathBuf;
use std::time::Instant;

use candle_core::{Device, safetensors};
use chorus_model::{Config, FORMAT, LanguageModel, ModelParts, Precision, Row, Start, State, Tensors, Want};
use chorus_text::Vocabulary;

type Failure = Box<dyn std::error::Error>;

struct Arguments {
    config: Config,
    weights: PathBuf,
    threads: usize,
    precision: Precision,
}

fn main() -> Result<(), Failure> {
    let Arguments { config, weights, threads, precision } = arguments()?;
    rayon::ThreadPoolBuilder::new().num_threads(threads).build_global()?;
    let tensors: Tensors = safetensors::load(&weights, &Device::Cpu)?.into_iter().collect();
    let characters: String =
        ('\u{4e00}'..).filter(|letter| letter.is_alphabetic()).take(config.vocab_size).collect();
    let vocabulary = Vocabulary::train_characters(&characters)?;
    let model =
        LanguageModel::from_parts(ModelParts::new(config, vocabulary, tensors), &Device::Cpu, precision)?;
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
            ["bandwidth", repeats] => bandwidth(repeats.parse()?, threads),
            ["sgemm", repeats] => sgemm(repeats.parse()?, threads),
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
    Ok(Arguments { config, weights: text("--weights")?.into(), threads: number("--threads")?, precision })
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
        model.predict(&mut rows, &mut |prediction| sum += prediction.norm.log_sum)?;
        microseconds.push(begin.elapsed().as_secs_f64() * 1e6);
        checksum += sum;
    }
    Ok(format!("{{\"microseconds\": {microseconds:?}, \"checksum\": {checksum:?}}}"))
}

/// Reads 512 MiB, far more than any cache holds, on every thread.
fn bandwidth(repeats: usize, threads: usize) -> String {
    let values = vec![1u64; 64 << 20];
    let sum = |values: &[u64]| {
        // Eight independent sums, so that additions do not wait for each other.
        let mut sums = [0u64; 64];
        for chunk in values.as_chunks::<64>().0 {
            sums.iter_mut().zip(chunk).for_each(|(sum, value)| *sum = sum.wrapping_add(*value));
        }
        sums.iter().sum::<u64>()
    };
    let mut rates = Vec::with_capacity(repeats);
    for _ in 0..repeats {
        let begin = Instant::now();
        rayon::scope(|scope| {
            for part in values.chunks(values.len() / threads) {
                scope.spawn(move |_| {
                    black_box(sum(part));
                });
            }
        });
        rates.push(size_of_val(values.as_slice()) as f64 / begin.elapsed().as_secs_f64() / 1e9);
    }
    format!("{{\"gigabytes_per_second\": {rates:?}}}")
}

/// A square product of 1024 by the `gemm` crate, as candle would compute it.
fn sgemm(repeats: usize, threads: usize) -> String {
    const SIZE: usize = 1024;
    let (left, right) = (vec![0.5f32; SIZE * SIZE], vec![0.25f32; SIZE * SIZE]);
    let mut product = vec![0.0f32; SIZE * SIZE];
    let parallelism = if threads > 1 { gemm::Parallelism::Rayon(threads) } else { gemm::Parallelism::None };
    let mut rates = Vec::with_capacity(repeats);
    for _ in 0..repeats {
        let begin = Instant::now();
        // SAFETY: three square row-major matrices of SIZE, borrowed for the call, the product exclusively.
        unsafe {
            gemm::gemm(
                SIZE,
                SIZE,
                SIZE,
                product.as_mut_ptr(),
                1,
                SIZE as isize,
                false,
                left.as_ptr(),
                1,
                SIZE as isize,
                right.as_ptr(),
                1,
                SIZE as isize,
                0.0,
                1.0,
                false,
                false,
                false,
                parallelism,
            );
        }
        black_box(&mut product);
        rates.push(2.0 * (SIZE * SIZE * SIZE) as f64 / begin.elapsed().as_secs_f64() / 1e9);
    }
    format!("{{\"gigaflops\": {rates:?}}}")
}

fn logits(model: &LanguageModel, tokens: &[&str]) -> Result<String, Failure> {
    let tokens: Vec<u32> = tokens.iter().map(|token| token.parse()).collect::<Result<_, _>>()?;
    let mut state: State = model.fresh_state()?;
    let outputs = model.forward(&mut [Row { state: &mut state, tokens: &tokens, want: Want::Next }])?;
    Ok(format!("{:?}", outputs[0].logits))
}
