//! [`Prompts`]: the elements of a request, from `text` or `tokens`; and [`Layout`], how their answers lie in a tensor.
//!
//! Knows nothing about options and outputs.

use chorus_proto::v1::{Input, TokenIds, input};

use crate::catalogue::MAX_BATCH;
use crate::error::Refusal;
use crate::tensor::{Elements, Tensor, Value};
use crate::values;

/// How the elements of a request lie in its tensors, and so those of its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layout {
    /// One element without a batch's dimension: `text` of [1], `tokens` of [n].
    Single,
    /// So many elements in one dimension: `text` of [b].
    Row(usize),
    /// So many elements, as Triton batches them: `text` of [b, 1], `tokens` of [b, n].
    Column(usize),
}

/// What a request is about: at least one element.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Prompts {
    pub(crate) layout: Layout,
    pub(crate) inputs: Vec<Input>,
    /// The tensor that they came in.
    pub(crate) tensor: &'static str,
}

impl Layout {
    pub(crate) fn elements(self) -> usize {
        match self {
            Self::Single => 1,
            Self::Row(elements) | Self::Column(elements) => elements,
        }
    }

    fn of(tensor: &Tensor, name: &'static str) -> Result<Self, Refusal> {
        let refuse =
            |allowed| Err(Refusal::new(name, format!("its shape is {:?}; allowed: {allowed}", tensor.shape)));
        let layout = match (name, tensor.shape.as_slice()) {
            ("text", [1]) | ("tokens", [_]) => Self::Single,
            ("text", [elements]) => Self::Row(*elements),
            ("text", [elements, 1]) | ("tokens", [elements, _]) => Self::Column(*elements),
            ("text", _) => return refuse("[1] or [batch, 1]"),
            _ => return refuse("[length] or [batch, length]"),
        };
        match layout.elements() {
            1..=MAX_BATCH => Ok(layout),
            elements => {
                let message = format!("it has {elements} elements; allowed: 1 to {MAX_BATCH}");
                Err(Refusal::new(name, message))
            }
        }
    }
}

impl Prompts {
    /// Of `text`, or of `tokens` and `length`.
    ///
    /// # Errors
    /// None of them or both, another shape or datatype, text that is no UTF-8, a length beyond its row.
    pub(crate) fn new(
        text: Option<&Tensor>,
        tokens: Option<&Tensor>,
        length: Option<&Tensor>,
    ) -> Result<Self, Refusal> {
        match (text, tokens) {
            (Some(_), Some(_)) => Err(Refusal::new("tokens", "there is text too; allowed: text or tokens")),
            (None, None) => {
                Err(Refusal::new("text", "it is missing; allowed: text (BYTES) or tokens (INT64)"))
            }
            (Some(_), None) if length.is_some() => {
                Err(Refusal::new("length", "a text has its own; allowed: with tokens only"))
            }
            (Some(text), None) => of_text(text),
            (None, Some(tokens)) => of_tokens(tokens, length),
        }
    }
}

fn of_text(tensor: &Tensor) -> Result<Prompts, Refusal> {
    let layout = Layout::of(tensor, "text")?;
    let Elements::Bytes(texts) = &tensor.elements else {
        return Err(datatype(tensor, "BYTES"));
    };
    let text = |(place, bytes): (usize, &bytes::Bytes)| match values::text(Value::Bytes(bytes)) {
        Ok(text) => Ok(Input { input: Some(input::Input::Text(text.to_owned())) }),
        Err(message) => Err(Refusal::new(element("text", place, texts.len()), message)),
    };
    let inputs = texts.iter().enumerate().map(text).collect::<Result<_, _>>()?;
    Ok(Prompts { layout, inputs, tensor: "text" })
}

fn of_tokens(tensor: &Tensor, length: Option<&Tensor>) -> Result<Prompts, Refusal> {
    let layout = Layout::of(tensor, "tokens")?;
    let width = tensor.shape.last().copied().unwrap_or_default();
    let rows = layout.elements();
    let ids: Vec<i64> = match &tensor.elements {
        Elements::Signed(ids) => ids.clone(),
        // An id that has no room is beyond every vocabulary, and is refused as that.
        Elements::Unsigned(ids) => ids.iter().map(|id| i64::try_from(*id).unwrap_or(i64::MAX)).collect(),
        _ => return Err(datatype(tensor, "INT64")),
    };
    let lengths = match length {
        Some(length) => lengths(length, rows, width)?,
        None => vec![width; rows],
    };
    let row = |(row, length): (usize, &usize)| {
        let ids = ids[row * width..][..*length].to_vec();
        Input { input: Some(input::Input::Tokens(TokenIds { ids })) }
    };
    let inputs = lengths.iter().enumerate().map(row).collect();
    Ok(Prompts { layout, inputs, tensor: "tokens" })
}

/// How many of each row's tokens are of the text; the others fill it up.
fn lengths(tensor: &Tensor, rows: usize, width: usize) -> Result<Vec<usize>, Refusal> {
    if tensor.elements.len() != rows {
        let message =
            format!("it has {} elements; allowed: {rows}, one for each row of tokens", tensor.elements.len());
        return Err(Refusal::new("length", message));
    }
    let length = |row: usize| {
        let length = match tensor.elements.get(row) {
            Some(Value::Signed(length)) => usize::try_from(length).ok(),
            Some(Value::Unsigned(length)) => usize::try_from(length).ok(),
            _ => return Err(datatype(tensor, "INT64")),
        };
        length.filter(|length| *length <= width).ok_or_else(|| {
            let name = element("length", row, rows);
            Refusal::new(name, format!("it is not allowed; allowed: 0 to {width}, the tokens of a row"))
        })
    };
    (0..rows).map(length).collect()
}

fn datatype(tensor: &Tensor, allowed: &str) -> Refusal {
    let message = format!("its datatype is {} or alike; allowed: {allowed}", tensor.elements.datatype());
    Refusal::new(&tensor.name, message)
}

/// A tensor's element as sentences name it.
fn element(tensor: &str, place: usize, elements: usize) -> String {
    if elements == 1 { tensor.to_owned() } else { format!("{tensor}[{place}]") }
}
