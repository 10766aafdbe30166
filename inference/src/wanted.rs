//! [`Wanted`]: which outputs a request asks for, and so what is to be done.
//!
//! Knows nothing about its inputs.

use std::collections::HashSet;

use crate::error::Refusal;
use crate::outputs::{Output, Task};
use crate::pb::model_infer_request::InferRequestedOutputTensor;

/// Outputs in the order in which they were asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) outputs: Vec<Output>,
}

impl Wanted {
    /// What is asked for by name; without any name what `task` has, and without that a generation. With both, of the named
    /// ones those of `task`: some clients name all that there are.
    ///
    /// # Errors
    /// A name that is no output, is there twice, or has parameters; or names of which the task has none.
    pub(crate) fn new(named: &[InferRequestedOutputTensor], task: Option<Task>) -> Result<Self, Refusal> {
        let mut seen = HashSet::new();
        let outputs = named.iter().map(|asked| {
            let output = Output::named(&asked.name).ok_or_else(|| unknown(&asked.name))?;
            if !seen.insert(&asked.name) {
                return Err(Refusal::new(&asked.name, "it is asked for twice; allowed: once"));
            }
            match asked.parameters.keys().min() {
                None => Ok(output),
                Some(parameter) if parameter.starts_with("shared_memory") => {
                    let message = "shared memory is not supported; allowed: outputs in the message";
                    Err(Refusal::new(&asked.name, message))
                }
                Some(parameter) => {
                    let message = format!("the output has an unknown parameter '{parameter}'; allowed: none");
                    Err(Refusal::new(&asked.name, message))
                }
            }
        });
        let mut outputs = outputs.collect::<Result<Vec<_>, _>>()?;
        if outputs.is_empty() {
            let of_task = |output: &Output| output.task() == task.unwrap_or(Task::Generate);
            outputs =
                Output::ALL.into_iter().filter(of_task).filter(|output| output.is_given_unasked()).collect();
        }
        if let Some(task) = task {
            outputs.retain(|output| output.task() == task);
        }
        if outputs.is_empty() {
            return Err(Refusal::new("task", "none of the outputs that are asked for is of this task"));
        }
        Ok(Self { outputs })
    }

    pub(crate) fn needs(&self, task: Task) -> bool {
        self.outputs.iter().any(|output| output.task() == task)
    }

    pub(crate) fn has(&self, output: Output) -> bool {
        self.outputs.contains(&output)
    }
}

fn unknown(name: &str) -> Refusal {
    let allowed = Output::ALL.map(Output::name).join(", ");
    Refusal::new("outputs", format!("'{name}' is no output; allowed: {allowed}"))
}
