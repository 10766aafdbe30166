//! The service before a scripted ensemble: what it is asked, and what comes back.

#![allow(clippy::unwrap_used)]

mod answers;
mod models;
mod refusals;
mod scripted;
mod streams;

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use tonic::{Request, Status};

use crate::InferenceService;
use crate::pb::grpc_inference_service_server::GrpcInferenceService as _;
use crate::pb::infer_parameter::ParameterChoice;
use crate::pb::model_infer_request::{InferInputTensor, InferRequestedOutputTensor};
use crate::pb::{InferParameter, ModelInferRequest, ModelInferResponse};

use scripted::Scripted;

fn parameter(choice: ParameterChoice) -> InferParameter {
    InferParameter { parameter_choice: Some(choice) }
}

fn raw_texts(texts: &[&str]) -> Bytes {
    let mut raw = Vec::new();
    for text in texts {
        raw.extend(u32::try_from(text.len()).unwrap().to_le_bytes());
        raw.extend(text.as_bytes());
    }
    raw.into()
}

/// A request as clients build them, raw.
struct Asking(ModelInferRequest);

impl Asking {
    fn of(model: &str) -> Self {
        Self(ModelInferRequest {
            model_name: model.to_owned(),
            id: "7".to_owned(),
            ..ModelInferRequest::default()
        })
    }

    fn input(mut self, name: &str, datatype: &str, shape: &[i64], raw: impl Into<Bytes>) -> Self {
        self.0.inputs.push(InferInputTensor {
            name: name.to_owned(),
            datatype: datatype.to_owned(),
            shape: shape.to_vec(),
            ..InferInputTensor::default()
        });
        self.0.raw_input_contents.push(raw.into());
        self
    }

    fn text(self, text: &str) -> Self {
        self.input("text", "BYTES", &[1], raw_texts(&[text]))
    }

    fn integers(self, name: &str, shape: &[i64], values: &[i64]) -> Self {
        let raw: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.input(name, "INT64", shape, raw)
    }

    fn with(mut self, name: &str, choice: ParameterChoice) -> Self {
        self.0.parameters.insert(name.to_owned(), parameter(choice));
        self
    }

    fn output(mut self, name: &str) -> Self {
        let output = InferRequestedOutputTensor { name: name.to_owned(), parameters: HashMap::new() };
        self.0.outputs.push(output);
        self
    }

    async fn answer(self, service: &InferenceService<Scripted>) -> Result<ModelInferResponse, Status> {
        service.model_infer(Request::new(self.0)).await.map(tonic::Response::into_inner)
    }
}

fn service() -> (InferenceService<Scripted>, Arc<Scripted>) {
    let service = InferenceService::new(Scripted::default());
    let ensemble = service.shared().ensemble;
    (service, ensemble)
}

/// Shape and bytes of an output.
fn output<'a>(response: &'a ModelInferResponse, name: &str) -> (&'a [i64], &'a [u8]) {
    let place = response.outputs.iter().position(|output| output.name == name);
    let place = place.unwrap_or_else(|| panic!("no {name} in {response:?}"));
    (&response.outputs[place].shape, &response.raw_output_contents[place])
}

fn numbers<const N: usize, T>(raw: &[u8], read: fn([u8; N]) -> T) -> Vec<T> {
    let (numbers, rest) = raw.as_chunks();
    assert!(rest.is_empty());
    numbers.iter().map(|bytes| read(*bytes)).collect()
}

fn texts(mut raw: &[u8]) -> Vec<String> {
    let mut texts = Vec::new();
    while let Some((length, rest)) = raw.split_first_chunk() {
        let (text, rest) = rest.split_at(u32::from_le_bytes(*length) as usize);
        texts.push(String::from_utf8(text.to_vec()).unwrap());
        raw = rest;
    }
    texts
}

fn said(response: &ModelInferResponse, name: &str) -> ParameterChoice {
    let parameter = response.parameters.get(name).unwrap_or_else(|| panic!("no {name} in {response:?}"));
    parameter.parameter_choice.clone().unwrap()
}
