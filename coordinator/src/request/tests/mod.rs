//! The table of callers' mistakes: each is one sentence that names the field and what is allowed.

mod accepted;
mod inputs;
mod options;

use std::collections::HashMap;

use chorus_proto::v1::{self, ErrorCode, FusionOptions, Input, SamplingOptions, TokenIds, input};

use super::{Generation, RequestError};
use crate::{fusion::Rule, testing::small_ensemble::SmallEnsemble};

impl SmallEnsemble {
    fn generate(&self, request: v1::GenerateRequest) -> Result<Generation, RequestError> {
        Generation::new(request, &self.terms())
    }
}

fn text(text: &str) -> Option<Input> {
    let input = Some(input::Input::Text(text.to_owned()));
    Some(Input { input })
}

fn ids(ids: &[i64]) -> Option<Input> {
    let tokens = TokenIds { ids: ids.to_vec() };
    let input = Some(input::Input::Tokens(tokens));
    Some(Input { input })
}

fn asking() -> v1::GenerateRequest {
    v1::GenerateRequest { prompt: text("ab"), ..v1::GenerateRequest::default() }
}

fn sampling(options: SamplingOptions) -> v1::GenerateRequest {
    v1::GenerateRequest { sampling: Some(options), ..asking() }
}

fn fusing(rule: Rule, threshold: Option<f64>, weights: &[(&str, f64)]) -> Option<FusionOptions> {
    let weights: HashMap<String, f64> =
        weights.iter().map(|(name, weight)| ((*name).to_owned(), *weight)).collect();
    Some(FusionOptions { rule: v1::Rule::from(rule).into(), threshold, weights, ..FusionOptions::default() })
}

/// The request is refused, with this message.
fn assert_refused(request: v1::GenerateRequest, message: &str) {
    let error = SmallEnsemble::new().generate(request).unwrap_err();
    assert_eq!(error.to_string(), message);
    assert_eq!(error.code(), ErrorCode::InvalidArgument);
}
