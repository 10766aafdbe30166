//! [`Job`]: a request that can be carried out, from everything that stands in it.
//!
//! Knows nothing about ensembles and time.

use std::time::Duration;

use chorus_proto::v1::{GenerateRequest, PredictRequest, ScoreRequest};

use crate::catalogue::{MAX_BATCH, Model};
use crate::error::Refusal;
use crate::input::Prompts;
use crate::options::{self, Options};
use crate::outputs::{INPUTS, Output, Task};
use crate::parameters::Whole;
use crate::pb::ModelInferRequest;
use crate::tensor::{self, Tensor};
use crate::values;
use crate::wanted::Wanted;

/// A request of one model, checked as far as that goes without the ensemble.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Job {
    pub(crate) model: Model,
    /// The caller's own name for it.
    pub(crate) id: String,
    pub(crate) prompts: Prompts,
    /// One for each element.
    pub(crate) options: Vec<Options>,
    pub(crate) wanted: Wanted,
    /// Whether a generation is to be answered token by token, where the request says.
    pub(crate) stream: Option<bool>,
    /// The last answer of a stream may be empty.
    pub(crate) empty_final: bool,
    /// How long the answer is of use to anybody.
    pub(crate) timeout: Option<Duration>,
}

impl Job {
    /// # Errors
    /// The first thing that is wrong with it: of its outputs, its parameters, its tensors.
    pub(crate) fn new(request: ModelInferRequest, model: Model) -> Result<Self, Refusal> {
        let ModelInferRequest { id, parameters, inputs, outputs, raw_input_contents, .. } = request;
        let (whole, of_options) = Whole::of(&parameters)?;
        let wanted = Wanted::new(&outputs, whole.task)?;
        let tensors = tensor::decode(inputs, raw_input_contents)?;
        check_names(&tensors)?;
        let named = |name: &str| tensors.iter().find(|tensor| tensor.name == name);
        let prompts = Prompts::new(named("text"), named("tokens"), named("length"))?;
        let of_tensors: Vec<&Tensor> =
            tensors.iter().filter(|tensor| options::is_tensor(&tensor.name)).collect();
        let stream = stream(whole.stream, named("stream"))?;
        let given = of_options.iter().map(|(name, _)| *name);
        for name in given.clone().chain(of_tensors.iter().map(|tensor| tensor.name.as_str())) {
            check_task(name, &wanted, &model)?;
        }
        if let Some(tensor) = of_tensors.iter().find(|tensor| given.clone().any(|name| name == tensor.name)) {
            let message = "it is a parameter and a tensor; allowed: one of them";
            return Err(Refusal::new(&tensor.name, message));
        }
        let elements = prompts.layout.elements();
        if stream == Some(true) {
            check_stream(&prompts, &wanted)?;
        }
        let mut shared = Options::default();
        for (name, value) in of_options {
            shared.set(name, value)?;
        }
        let mut options = vec![shared; elements];
        for tensor in of_tensors {
            set_each(&mut options, tensor)?;
        }
        let Whole { empty_final, timeout, .. } = whole;
        Ok(Self { model, id, prompts, options, wanted, stream, empty_final, timeout })
    }

    /// Whether it is answered token by token on a stream. Whoever takes an empty last answer takes any number before it.
    pub(crate) fn comes_in_pieces(&self) -> bool {
        self.stream.unwrap_or(self.empty_final && check_stream(&self.prompts, &self.wanted).is_ok())
    }

    pub(crate) fn generation(&self, element: usize) -> GenerateRequest {
        let options = self.options[element].clone();
        GenerateRequest {
            prompt: Some(self.prompts.inputs[element].clone()),
            max_tokens: options.max_tokens,
            stop: options.stop,
            sampling: options.sampling,
            fusion: Some(self.model.fusion_for(options.fusion)),
            log_probs: self.wanted.has(Output::GeneratedLogprobs),
            beam: options.beam,
            ..GenerateRequest::default()
        }
    }

    pub(crate) fn scoring(&self, element: usize) -> ScoreRequest {
        let per_token = [Output::Logprobs, Output::MemberLogprobs, Output::InputTokens];
        ScoreRequest {
            input: Some(self.prompts.inputs[element].clone()),
            fusion: Some(self.model.fusion_for(self.options[element].fusion.clone())),
            per_token: per_token.into_iter().any(|output| self.wanted.has(output)),
        }
    }

    pub(crate) fn prediction(&self, element: usize) -> PredictRequest {
        PredictRequest {
            prefix: Some(self.prompts.inputs[element].clone()),
            top_n: self.options[element].top_n,
            fusion: Some(self.model.fusion_for(self.options[element].fusion.clone())),
        }
    }
}

fn check_stream(prompts: &Prompts, wanted: &Wanted) -> Result<(), Refusal> {
    let elements = prompts.layout.elements();
    if elements > 1 {
        let message = format!("it has {elements} elements; allowed: 1, where the answer is streamed");
        return Err(Refusal::new(prompts.tensor, message));
    }
    if !wanted.needs(Task::Generate) {
        return Err(Refusal::new(
            "stream",
            "no generation is asked for; allowed: with its outputs, or false",
        ));
    }
    Ok(())
}

fn stream(parameter: Option<bool>, tensor: Option<&Tensor>) -> Result<Option<bool>, Refusal> {
    let Some(tensor) = tensor else { return Ok(parameter) };
    if parameter.is_some() {
        return Err(Refusal::new("stream", "it is a parameter and a tensor; allowed: one of them"));
    }
    match (tensor.elements.len(), tensor.elements.get(0)) {
        (1, Some(value)) => values::truth(value).map(Some).map_err(|message| Refusal::new("stream", message)),
        (elements, _) => Err(Refusal::new("stream", format!("it has {elements} elements; allowed: 1"))),
    }
}

fn check_names(tensors: &[Tensor]) -> Result<(), Refusal> {
    let is_known = |tensor: &&Tensor| INPUTS.iter().any(|input| input.name == tensor.name);
    match tensors.iter().find(|tensor| !is_known(tensor)) {
        None => Ok(()),
        Some(unknown) => {
            let allowed = INPUTS.map(|input| input.name).join(", ");
            Err(Refusal::new(&unknown.name, format!("there is no such input; allowed: {allowed}")))
        }
    }
}

/// An option that nothing follows from is a mistake.
fn check_task(name: &str, wanted: &Wanted, model: &Model) -> Result<(), Refusal> {
    if ["weights", "members"].contains(&name) && model.is_member {
        return Err(Refusal::new(name, "a member answers alone; allowed: with the model ensemble"));
    }
    match options::task_of(name) {
        Some(task) if !wanted.needs(task) => {
            let outputs = Output::ALL.into_iter().filter(|output| output.task() == task);
            let outputs: Vec<&str> = outputs.map(Output::name).collect();
            let message =
                format!("nothing that is asked for depends on it; allowed: with {}", outputs.join(", "));
            Err(Refusal::new(name, message))
        }
        _ => Ok(()),
    }
}

/// An option's tensor: one value for all elements or one for each; of a list any number, in one row for all elements or in one
/// for each.
fn set_each(options: &mut [Options], tensor: &Tensor) -> Result<(), Refusal> {
    let elements = options.len();
    let values = tensor.elements.len();
    let (rows, width) = match (options::is_list(&tensor.name), tensor.shape.as_slice()) {
        (true, [width]) => (1, *width),
        (true, [rows, width]) => (*rows, *width),
        (true, _) => return Err(shape(tensor, "[any] or [batch, any]")),
        (false, _) => (values, 1),
    };
    if rows != 1 && rows != elements || rows > MAX_BATCH {
        return Err(shape(tensor, &format!("one for all elements, or one for each of the {elements}")));
    }
    for (element, options) in options.iter_mut().enumerate() {
        let first = if rows == 1 { 0 } else { element * width };
        for place in first..first + width {
            if let Some(value) = tensor.elements.get(place) {
                options.set(&tensor.name, value)?;
            }
        }
    }
    Ok(())
}

fn shape(tensor: &Tensor, allowed: &str) -> Refusal {
    Refusal::new(&tensor.name, format!("its shape is {:?}; allowed: {allowed}", tensor.shape))
}
