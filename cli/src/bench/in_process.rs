//! The members of an ensemble called in this process, by the same engine and the same fusion, without servers. The only
//! file of the load tests that knows `chorus_model`; knows nothing about what it is compared with.

use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail};
use chorus_coordinator::fusion::{Fused, Fusion, Row, Scratch, fuse};
use chorus_load::measure::Latencies;
use chorus_model::{LanguageModel, Norm, State, Want, open_device};

use crate::{compute::ComputeArgs, up::ModelDirectory};

/// A row of logits, and its norm.
type NextRow = (Vec<f32>, Norm);

/// Models of one vocabulary, in member order, of equal weights.
pub(super) struct InProcess {
    models: Vec<LanguageModel>,
    vocabulary_size: u32,
}

/// How a batch is generated.
#[derive(Debug, Clone, Copy)]
pub(super) struct BatchShape {
    /// Sequences side by side.
    pub(super) sequences: usize,
    /// Tokens of each prompt.
    pub(super) prompt_tokens: u32,
    /// Tokens that each generates.
    pub(super) generated_tokens: u32,
}

impl InProcess {
    /// Loads the models onto the device.
    ///
    /// # Errors
    /// A model can't be loaded, or has another vocabulary than the first.
    pub(super) fn load(directories: &[ModelDirectory], compute: &ComputeArgs) -> anyhow::Result<Self> {
        let load = |directory: &ModelDirectory| {
            // A handle for each: what one model launches waits for no other.
            let device = open_device(&compute.device)?;
            let model =
                LanguageModel::load_as(&directory.path, &device, compute.precision, compute.quantize)?;
            anyhow::Ok(model)
        };
        let models = directories.iter().map(load);
        let models: Vec<LanguageModel> = models.collect::<Result<_, _>>()?;
        let first = models.first().context("there are no models")?;
        if let Some(other) = models.iter().find(|model| model.vocabulary() != first.vocabulary()) {
            bail!("{} and {} have different vocabularies", first.config().name, other.config().name);
        }
        let vocabulary_size = first.vocabulary().len();
        Ok(Self { models, vocabulary_size })
    }

    /// The models' names, in member order.
    pub(super) fn names(&self) -> Vec<String> {
        self.models.iter().map(|model| model.config().name.clone()).collect()
    }

    /// Generates batch after batch, greedily and in lock step, until a time is over; gives generated tokens a second.
    ///
    /// # Errors
    /// A model fails.
    pub(super) fn tokens_per_second(&self, shape: BatchShape, time: Duration) -> anyhow::Result<f64> {
        let start = Instant::now();
        let mut tokens = 0_u64;
        while tokens == 0 || start.elapsed() < time {
            self.generate(shape)?;
            tokens += shape.sequences as u64 * u64::from(shape.generated_tokens);
        }
        Ok(tokens as f64 / start.elapsed().as_secs_f64())
    }

    /// What one step of one sequence lasts in each model alone, in member order.
    ///
    /// # Errors
    /// A model fails.
    pub(super) fn steps(&self, steps: usize, warm_up: usize) -> anyhow::Result<Vec<Latencies>> {
        let steps_of = |model: &LanguageModel| {
            let mut states = vec![model.fresh_state()?];
            let mut latencies = Latencies::new();
            for (index, token) in self.tokens().take(steps + warm_up).enumerate() {
                let start = Instant::now();
                next_rows(model, &mut states, &[vec![token]])?;
                if index >= warm_up {
                    latencies.record(start.elapsed());
                }
            }
            Ok(latencies)
        };
        self.models.iter().map(steps_of).collect()
    }

    /// The same tokens over and over: what they are does not matter to what they cost.
    pub(super) fn tokens(&self) -> impl Iterator<Item = u32> {
        (0..self.vocabulary_size).cycle()
    }

    fn generate(&self, shape: BatchShape) -> anyhow::Result<()> {
        let mut states = Vec::new();
        for model in &self.models {
            states.push(vec![model.fresh_state()?; shape.sequences]);
        }
        let mut ids = self.tokens();
        let prompt = |_| ids.by_ref().take(shape.prompt_tokens as usize).collect();
        let mut tokens: Vec<Vec<u32>> = (0..shape.sequences).map(prompt).collect();
        for _ in 0..shape.generated_tokens {
            let mut answers = Vec::with_capacity(self.models.len());
            for (model, states) in self.models.iter().zip(&mut states) {
                answers.push(next_rows(model, states, &tokens)?);
            }
            tokens = (0..shape.sequences)
                .map(|sequence| Ok(vec![self.greedy(&answers, sequence)?]))
                .collect::<anyhow::Result<_>>()?;
        }
        Ok(())
    }

    /// The likeliest token of the weighted average of what the models say about a sequence.
    fn greedy(&self, answers: &[Vec<NextRow>], sequence: usize) -> anyhow::Result<u32> {
        let mut rows = Vec::with_capacity(answers.len());
        for answer in answers {
            let (logits, norm) =
                answer.get(sequence).context("a model answered fewer rows than were asked for")?;
            rows.push((1.0, Row::new(logits, *norm, self.vocabulary_size as usize)?));
        }
        Scratch::lent(|scratch| match fuse(&Fusion::default(), &rows, scratch)? {
            Fused::Distribution(distribution) => Ok(distribution.argmax()),
            Fused::Winner(_) => Err(anyhow!("the default rule has a distribution")),
        })
    }
}

/// Feeds every sequence its tokens and gives the row of logits that follows each: the one call of the engine.
fn next_rows(
    model: &LanguageModel,
    states: &mut [State],
    tokens: &[Vec<u32>],
) -> anyhow::Result<Vec<NextRow>> {
    let rows = states.iter_mut().zip(tokens);
    let mut rows: Vec<_> =
        rows.map(|(state, tokens)| chorus_model::Row { state, tokens, want: Want::Next }).collect();
    let mut next = Vec::with_capacity(rows.len());
    model.predict(&mut rows, &mut |prediction| next.push((prediction.logits.to_vec(), prediction.norm)))?;
    Ok(next)
}
