//! A model directory on a device, ready to be served: the predictor, its card and its tokenizer. With
//! [`crate::hosted_model`] the only place that knows `chorus_model`; knows nothing about sessions or streams.

use std::{error::Error, fmt, iter::successors};

use bytes::Bytes;
use chorus_model::{
    Capacity, DeviceMemory, LanguageModel, LoadError, ModelParts, Precision, Processor, Quantization,
};
use chorus_net::ServerTls;
use chorus_proto::{MAX_MESSAGE_BYTES, v1};

use crate::{
    config::{LARGEST_MAX_FEED_TOKENS, WorkerConfig},
    error::WorkerError,
    hosted_model::HostedModel,
    operation::OperationLimits,
    probe::{Fault, Golden},
};

/// A loaded model with the config that it was loaded for. Nothing is bound or served yet.
#[derive(Debug)]
pub struct LoadedWorker {
    pub(crate) predictor: HostedModel,
    /// What the device has answered, or was near enough to, and has to answer again and again.
    pub(crate) golden: Golden,
    pub(crate) tokenizer: Bytes,
    pub(crate) limits: OperationLimits,
    pub(crate) config: WorkerConfig,
    /// Plain text without it.
    pub(crate) tls: Option<ServerTls>,
    card: v1::ModelCard,
    memory: Option<DeviceMemory>,
}

/// Loads the model directory onto the device and has it compute what is known. Takes its time: not for an async task.
///
/// # Errors
/// The config, the device, the directory or the model itself can't be used; the error is one line for people.
pub fn load(config: WorkerConfig) -> Result<LoadedWorker, WorkerError> {
    config.validate()?;
    let processor = Processor::open(&config.device)?;
    let parts = ModelParts::load_as(&config.model, config.quantize)?;
    let numbers = Numbers { precision: config.precision, quantization: parts.quantization() };
    let fingerprint = model_fingerprint(numbers, &parts)?;
    let golden = golden(numbers, &parts)?;
    let model = LanguageModel::on(parts, &processor, config.precision, capacity(&config));
    let model = model.map_err(LoadError::Device)?;
    let memory = model.device_memory();
    let limits = limits(&config, &model)?;
    let card = card(&config, numbers, &model, &limits, fingerprint);
    let tokenizer = Bytes::from(model.vocabulary().to_json().to_owned());
    let mut predictor = HostedModel::new(model).map_err(|error| unusable(&error))?;
    let golden = first_probe(golden, &mut predictor)?;
    tracing::info!(
        model = %config.model.display(), name = card.name, architecture = card.architecture, device = card.device,
        memory = memory.map(tracing::field::display), "model loaded"
    );
    Ok(LoadedWorker { predictor, golden, tokenizer, limits, config, tls: None, card, memory })
}

/// The room that a worker needs on a device: for its sessions, and for the states of a probe and of every session's start.
fn capacity(config: &WorkerConfig) -> Capacity {
    let states = config.max_sessions as usize + 3;
    Capacity { states, tokens: config.batch.tokens, logits: config.batch.logits }
}

/// In which numbers a model's weights are multiplied.
#[derive(Debug, Clone, Copy)]
struct Numbers {
    precision: Precision,
    quantization: Option<Quantization>,
}

impl Numbers {
    /// The share of a row's largest logit by which an answer may be off. The demo members are off by 4e-7 in f32 and 0.011 in
    /// 8 bits; networks of random weights up to 1 in four layers of 256, where any error grows, by 1.2e-5 in f32, and in 8
    /// bits by more than is allowed: there they are another model. Other devices sum in another order, and in f32 too.
    /// Quantised weights are compared with the numbers that they stand for. So what is left is what activations lose in 8
    /// bits, as there: the demo members are off by 0.004 to 0.017, whatever the bits of their weights.
    fn tolerance(self) -> f64 {
        match self {
            Self { quantization: Some(_), .. } | Self { precision: Precision::Int8, .. } => 0.2,
            Self { precision: Precision::F32, .. } => 1e-3,
            Self { precision: Precision::Bf16 | Precision::F16, .. } => 0.1,
        }
    }
}

impl fmt::Display for Numbers {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.quantization {
            Some(quantization) => quantization.fmt(formatter),
            None => self.precision.fmt(formatter),
        }
    }
}

impl LoadedWorker {
    /// What the worker will answer to Describe.
    pub fn card(&self) -> &v1::ModelCard {
        &self.card
    }

    /// What the model takes of its device's memory, in bytes of each part; nothing on the CPU.
    pub(crate) fn device_memory(&self) -> Vec<(&'static str, u64)> {
        let parts = |memory: DeviceMemory| {
            [("weights", memory.weights), ("states", memory.states), ("workspace", memory.workspace)]
        };
        self.memory.map(parts).into_iter().flatten().collect()
    }

    /// To be served over TLS. What this is may be replaced while it serves.
    #[must_use]
    pub fn with_tls(self, tls: ServerTls) -> Self {
        Self { tls: Some(tls), ..self }
    }
}

fn limits(config: &WorkerConfig, model: &LanguageModel) -> Result<OperationLimits, WorkerError> {
    let vocabulary_size = model.config().vocab_size;
    let state_bytes = model.config().state_size() * size_of::<f32>();
    // What is left of a message when the norms and the framing have their place.
    let values = (MAX_MESSAGE_BYTES - 16 * LARGEST_MAX_FEED_TOKENS as usize) / size_of::<f32>();
    let max_feed_tokens = config.max_feed_tokens as usize;
    if vocabulary_size > values {
        return Err(WorkerError::VocabularyTooLarge { found: vocabulary_size, largest: values });
    }
    let max_answer_rows = (values / vocabulary_size.max(1)).min(max_feed_tokens);
    Ok(OperationLimits { vocabulary_size, state_bytes, max_feed_tokens, max_answer_rows })
}

fn card(
    config: &WorkerConfig,
    numbers: Numbers,
    model: &LanguageModel,
    limits: &OperationLimits,
    model_fingerprint: String,
) -> v1::ModelCard {
    let shape = model.config();
    let start = match shape.start {
        chorus_model::Start::ZeroState => v1::start::Start::ZeroState(true),
        chorus_model::Start::Token(token) => v1::start::Start::Token(token),
    };
    v1::ModelCard {
        name: shape.name.clone(),
        architecture: format!("lstm {}x{}", shape.layers, shape.hidden_size),
        vocabulary_size: saturating(shape.vocab_size),
        vocabulary_fingerprint: model.vocabulary().fingerprint().to_owned(),
        start: Some(v1::Start { start: Some(start) }),
        end_token: shape.end,
        parameters: shape.parameters(),
        device: device(config, numbers),
        limits: Some(v1::WorkerLimits {
            max_sessions: config.max_sessions,
            max_feed_tokens: config.max_feed_tokens,
            session_ttl_seconds: saturating(config.session_ttl.as_secs()),
            max_answer_rows: saturating(limits.max_answer_rows),
        }),
        incarnation: incarnation(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        model_fingerprint,
        open_sessions: 0,
    }
}

/// The device for people, with the numbers where they are not those of the file that was trained.
fn device(config: &WorkerConfig, numbers: Numbers) -> String {
    match numbers {
        Numbers { precision: Precision::F32, quantization: None } => config.device.clone(),
        other => format!("{} ({other})", config.device),
    }
}

/// Other numbers are other arithmetic: their states are not these.
fn model_fingerprint(numbers: Numbers, parts: &ModelParts) -> Result<String, WorkerError> {
    let fingerprint = parts.fingerprint().map_err(|error| unusable(&error))?;
    Ok(format!("{fingerprint} {numbers}"))
}

fn saturating(number: impl TryInto<u32>) -> u32 {
    number.try_into().unwrap_or(u32::MAX)
}

/// Another text for every load.
fn incarnation() -> String {
    format!("{:016x}", rand::random::<u64>())
}

/// What any device has to answer, by another way of computing it. Of quantised weights that is what the numbers answer that
/// the blocks stand for: whether those are good ones is not a device's to say.
fn golden(numbers: Numbers, parts: &ModelParts) -> Result<Golden, WorkerError> {
    let tokens = Golden::tokens(parts.config.vocab_size);
    let reference = parts.reference_logits(&tokens).map_err(|error| unusable(&error))?;
    Ok(Golden::near(tokens, reference, numbers.tolerance()))
}

/// A model that can't predict is found before it is served, and the first session does not wait for what a device does
/// only once. What the CPU has answered it answers always, to the bit; other devices sum in whatever order suits them.
fn first_probe(golden: Golden, predictor: &mut HostedModel) -> Result<Golden, WorkerError> {
    let unusable = |fault: Fault| WorkerError::Unusable { reason: fault.to_string() };
    let answers = golden.probe(predictor).map_err(unusable)?;
    Ok(if predictor.repeats_itself() { golden.pinned(answers) } else { golden })
}

/// The whole chain of causes in one line.
fn unusable(error: &(dyn Error + 'static)) -> WorkerError {
    let causes: Vec<String> =
        successors(Some(error), |error| (*error).source()).map(ToString::to_string).collect();
    WorkerError::Unusable { reason: causes.join(": ") }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn the_demo_members_are_far_within_the_tolerances() {
        for name in ["alto", "bass", "tenor"] {
            let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/demo").join(name);
            let parts = ModelParts::load(&directory).unwrap();
            let plain = [Precision::F32, Precision::Int8].map(|precision| (precision, None));
            let quantized = Quantization::ALL.map(|quantization| (Precision::F32, Some(quantization)));
            for (precision, quantization) in plain.into_iter().chain(quantized) {
                let parts = match quantization {
                    Some(quantization) => parts.clone().quantize(quantization).unwrap(),
                    None => parts.clone(),
                };
                let numbers = Numbers { precision, quantization };
                let golden = golden(numbers, &parts).unwrap();
                let device = chorus_model::open_device("cpu").unwrap();
                let model = LanguageModel::from_parts(parts, &device, precision).unwrap();
                let mut predictor = HostedModel::new(model).unwrap();
                let answers = golden.probe(&mut predictor).unwrap();
                let furthest = golden.furthest(&answers);
                assert!(furthest < numbers.tolerance() / 10.0, "{name} in {numbers}: {furthest}");
                assert!(golden.pinned(answers).probe(&mut predictor).is_ok(), "the same bits");
            }
        }
    }

    /// The kernels are those of devices, which sum in another order.
    #[cfg(feature = "emulated")]
    #[test]
    fn the_demo_members_are_far_within_the_tolerances_on_a_device() {
        for precision in [Precision::F32, Precision::Bf16, Precision::F16] {
            let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/demo/tenor");
            let parts = ModelParts::load(&directory).unwrap();
            let numbers = Numbers { precision, quantization: None };
            let golden = golden(numbers, &parts).unwrap();
            let capacity = Capacity { states: 8, tokens: 32, logits: 1 << 16 };
            let processor = Processor::open("emulated").unwrap();
            let model = LanguageModel::on(parts, &processor, precision, capacity).unwrap();
            let mut predictor = HostedModel::new(model).unwrap();
            let furthest = golden.furthest(&golden.probe(&mut predictor).unwrap());
            assert!(furthest < numbers.tolerance() / 10.0, "{precision}: {furthest}");
        }
    }
}
