//! [`Whole`]: the parameters of a request, those of the whole and those that are options of every element.
//!
//! Knows nothing about tensors.

use std::collections::HashMap;
use std::time::Duration;

use crate::error::Refusal;
use crate::options;
use crate::outputs::Task;
use crate::pb::InferParameter;
use crate::pb::infer_parameter::ParameterChoice;
use crate::tensor::Value;
use crate::values;

/// A parameter that is an option of every element, by its name.
pub(crate) type OfOptions<'a> = Vec<(&'a str, Value<'a>)>;

/// Parameters of the whole request.
#[derive(Default)]
pub(crate) struct Whole {
    pub(crate) task: Option<Task>,
    pub(crate) stream: Option<bool>,
    pub(crate) empty_final: bool,
    pub(crate) timeout: Option<Duration>,
}

impl Whole {
    /// And the parameters that are options.
    ///
    /// # Errors
    /// A parameter that there is not, or a value of another kind.
    pub(crate) fn of(parameters: &HashMap<String, InferParameter>) -> Result<(Self, OfOptions<'_>), Refusal> {
        let mut whole = Self::default();
        let mut of_options = Vec::new();
        let mut parameters: Vec<_> = parameters.iter().collect();
        // The same mistake is named every time.
        parameters.sort_unstable_by_key(|(name, _)| name.as_str());
        for (name, parameter) in parameters {
            let value = value(name, parameter)?;
            let refuse = |message: String| Refusal::new(name, message);
            match name.as_str() {
                "task" => whole.task = Some(task(value).map_err(refuse)?),
                "stream" => whole.stream = Some(values::truth(value).map_err(refuse)?),
                "triton_enable_empty_final_response" => {
                    whole.empty_final = values::truth(value).map_err(refuse)?;
                }
                "timeout" => whole.timeout = timeout(value).map_err(refuse)?,
                name if options::is_option(name) => of_options.push((name, value)),
                _ => {
                    let names = options::names();
                    let message =
                        format!("there is no such parameter; allowed: task, stream, timeout, {names}");
                    return Err(Refusal::new(name, message));
                }
            }
        }
        Ok((whole, of_options))
    }
}

fn value<'a>(name: &str, parameter: &'a InferParameter) -> Result<Value<'a>, Refusal> {
    match &parameter.parameter_choice {
        Some(ParameterChoice::BoolParam(value)) => Ok(Value::Bool(*value)),
        Some(ParameterChoice::Int64Param(value)) => Ok(Value::Signed(*value)),
        Some(ParameterChoice::StringParam(value)) => Ok(Value::Bytes(value.as_bytes())),
        Some(ParameterChoice::DoubleParam(value)) => Ok(Value::Float(*value)),
        Some(ParameterChoice::Uint64Param(value)) => Ok(Value::Unsigned(*value)),
        None => Err(Refusal::new(name, "the parameter has no value; allowed: one")),
    }
}

fn task(value: Value<'_>) -> Result<Task, String> {
    let name = values::text(value)?;
    let task = Task::ALL.into_iter().find(|(_, known)| *known == name);
    let names = Task::ALL.map(|(_, name)| name).join(", ");
    task.map(|(task, _)| task).ok_or_else(|| format!("'{name}' is no task; allowed: {names}"))
}

/// Microseconds, as Triton has them; 0 is none.
fn timeout(value: Value<'_>) -> Result<Option<Duration>, String> {
    let micros = match value {
        Value::Signed(micros) => u64::try_from(micros).ok(),
        Value::Unsigned(micros) => Some(micros),
        _ => None,
    };
    let micros = micros.ok_or("it is not allowed; allowed: microseconds, at least 0")?;
    Ok((micros > 0).then(|| Duration::from_micros(micros)))
}
