//! How long a decode step and a scoring pass take: three shapes, four batches, each in f32 and 8 bits, and two in
//! quantised blocks, one thread.
//!
//! `cargo bench -p chorus-model` prints medians; `cargo bench -p chorus-model -- medium` those of one shape. For a
//! comparison with other libraries on the same weights: `benches/compare`.

use std::fmt;

use candle_core::{Device, Tensor};
use chorus_model::{
    Config, FORMAT, LanguageModel, ModelParts, Precision, Quantization, Row, Start, Tensors, Want,
};
use chorus_text::Vocabulary;
use divan::counter::ItemsCount;
use divan::{Bencher, black_box};

const BATCHES: [usize; 4] = [1, 4, 16, 64];
/// Tokens of a scored sequence.
const TIME: usize = 32;

#[derive(Debug, Clone, Copy)]
struct Shape {
    name: &'static str,
    vocab_size: usize,
    embedding_size: usize,
    hidden_size: usize,
    layers: usize,
}

/// A shape in some numbers.
#[derive(Debug, Clone, Copy)]
struct Case(Shape, Numbers);

#[derive(Debug, Clone, Copy)]
enum Numbers {
    Plain(Precision),
    Blocks(Quantization),
}

const SMALL: Shape =
    Shape { name: "small", vocab_size: 256, embedding_size: 128, hidden_size: 256, layers: 1 };
const MEDIUM: Shape =
    Shape { name: "medium", vocab_size: 10_000, embedding_size: 650, hidden_size: 650, layers: 2 };
const LARGE: Shape =
    Shape { name: "large", vocab_size: 33_278, embedding_size: 1500, hidden_size: 1500, layers: 2 };

const F32: Numbers = Numbers::Plain(Precision::F32);
const INT8: Numbers = Numbers::Plain(Precision::Int8);
const Q8_0: Numbers = Numbers::Blocks(Quantization::Q8_0);
const Q6K: Numbers = Numbers::Blocks(Quantization::Q6K);
const Q4K: Numbers = Numbers::Blocks(Quantization::Q4K);

const CASES: [Case; 12] = [
    Case(SMALL, F32),
    Case(SMALL, INT8),
    Case(MEDIUM, F32),
    Case(MEDIUM, INT8),
    Case(MEDIUM, Q8_0),
    Case(MEDIUM, Q6K),
    Case(MEDIUM, Q4K),
    Case(LARGE, F32),
    Case(LARGE, INT8),
    Case(LARGE, Q8_0),
    Case(LARGE, Q6K),
    Case(LARGE, Q4K),
];

fn main() {
    if let Err(error) = chorus_model::use_threads(std::num::NonZeroUsize::MIN) {
        eprintln!("{error}");
        std::process::exit(1);
    }
    divan::main();
}

/// One token for each sequence, and every row's distribution.
#[divan::bench(args = CASES, consts = BATCHES, sample_size = 1)]
fn step<const BATCH: usize>(bencher: Bencher<'_, '_>, case: &Case) {
    run::<BATCH>(bencher, case, 1, Want::Next);
}

/// A whole sequence for each row, and the distribution before each token.
#[divan::bench(args = CASES, consts = BATCHES, sample_size = 1, sample_count = 20)]
fn score<const BATCH: usize>(bencher: Bencher<'_, '_>, case: &Case) {
    run::<BATCH>(bencher, case, TIME, Want::Each);
}

fn run<const BATCH: usize>(bencher: Bencher<'_, '_>, case: &Case, time: usize, want: Want) {
    let model = case.model();
    let vocab_size = model.config().vocab_size;
    let fresh = model.fresh_state().unwrap_or_else(|error| panic!("{error}"));
    let mut states = vec![fresh; BATCH];
    let tokens: Vec<u32> = (0..BATCH * time).map(|index| (index * 7919 % vocab_size) as u32).collect();
    bencher.counter(ItemsCount::new(BATCH * time)).bench_local(|| {
        let sequences = states.iter_mut().zip(tokens.chunks(time));
        let mut rows: Vec<Row<'_>> = sequences.map(|(state, tokens)| Row { state, tokens, want }).collect();
        let predicted = model.predict(&mut rows, &mut |prediction| {
            black_box(prediction.norm);
        });
        predicted.unwrap_or_else(|error| panic!("{error}"));
    });
}

impl Case {
    /// With weights that any generator would give: their values do not change the time.
    fn model(&self) -> LanguageModel {
        let Self(shape, numbers) = *self;
        let config = Config {
            format: FORMAT,
            name: shape.name.to_owned(),
            vocab_size: shape.vocab_size,
            embedding_size: Some(shape.embedding_size),
            hidden_size: shape.hidden_size,
            layers: shape.layers,
            tied: false,
            lstm_bias: true,
            output_bias: true,
            start: Start::ZeroState,
            end: None,
        };
        let scale = (shape.hidden_size as f32).sqrt().recip();
        let tensor = |(name, dimensions): (String, Vec<usize>)| {
            let count: usize = dimensions.iter().product();
            let value = |index: usize| ((index * 7919 % 2003) as f32 / 1001.0 - 1.0) * scale;
            let values: Vec<f32> = (0..count).map(value).collect();
            Tensor::from_vec(values, dimensions, &Device::Cpu).map(|tensor| (name, tensor))
        };
        let tensors: Result<Tensors, _> = config.tensor_shapes().into_iter().map(tensor).collect();
        let tensors = tensors.unwrap_or_else(|error| panic!("{error}"));
        let letters: String =
            ('\u{4e00}'..).filter(|letter| letter.is_alphabetic()).take(shape.vocab_size).collect();
        let vocabulary = Vocabulary::train_characters(&letters).unwrap_or_else(|error| panic!("{error}"));
        let parts = ModelParts::new(config, vocabulary, tensors);
        let (parts, precision) = match numbers {
            Numbers::Plain(precision) => (parts, precision),
            Numbers::Blocks(quantization) => {
                (parts.quantize(quantization).unwrap_or_else(|error| panic!("{error}")), Precision::F32)
            }
        };
        LanguageModel::from_parts(parts, &Device::Cpu, precision).unwrap_or_else(|error| panic!("{error}"))
    }
}

impl fmt::Display for Case {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.1 {
            Numbers::Plain(precision) => write!(formatter, "{} {precision}", self.0.name),
            Numbers::Blocks(quantization) => write!(formatter, "{} {quantization}", self.0.name),
        }
    }
}
