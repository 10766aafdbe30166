//! Hostile requests against what reads tensors and parameters.

use std::collections::HashMap;

use bytes::Bytes;
use chorus_fuzz::{Encoded, Verdict, any_f64, any_number, assert_one_line, fuzz, mutated, within};
use proptest::prelude::*;
use prost::Message as _;
use tonic::Status;

use crate::catalogue::{MAX_BATCH, Model};
use crate::job::Job;
use crate::pb::infer_parameter::ParameterChoice;
use crate::pb::model_infer_request::{InferInputTensor, InferRequestedOutputTensor};
use crate::pb::{InferParameter, ModelInferRequest};

fn parameters() -> impl Strategy<Value = HashMap<String, InferParameter>> + Clone {
    let names = [
        "max_tokens",
        "temperature",
        "seed",
        "stop",
        "rule",
        "weights",
        "adaptive",
        "task",
        "stream",
        "timeout",
    ];
    let text = prop_oneof![Just("score"), Just("log_linear"), Just("alto=1,bass=2"), Just("\n")];
    let choice = prop_oneof![
        any::<bool>().prop_map(ParameterChoice::BoolParam),
        any_number().prop_map(|number| ParameterChoice::Int64Param(number.cast_signed())),
        any_f64().prop_map(ParameterChoice::DoubleParam),
        text.prop_map(|text| ParameterChoice::StringParam(text.to_owned())),
    ];
    let choice = choice.prop_map(|choice| InferParameter { parameter_choice: Some(choice) });
    let name = prop::sample::select(names.to_vec()).prop_map(str::to_owned);
    prop::collection::hash_map(name, choice, 0..2).boxed()
}

fn input() -> impl Strategy<Value = (Vec<InferInputTensor>, Vec<Bytes>)> + Clone {
    let tensor = |name: &str, datatype: &str, shape: Vec<i64>| InferInputTensor {
        name: name.to_owned(),
        datatype: datatype.to_owned(),
        shape,
        ..InferInputTensor::default()
    };
    let texts = prop::collection::vec("[ab]{0,5}", 1..4).prop_map(move |texts| {
        let raw = texts.iter().flat_map(|text| {
            [&u32::try_from(text.len()).unwrap().to_le_bytes()[..], text.as_bytes()].concat()
        });
        (vec![tensor("text", "BYTES", vec![texts.len().cast_signed() as i64])], vec![raw.collect()])
    });
    let tokens = (1..4_i64, 0..5_i64).prop_map(move |(rows, columns)| {
        let tensors =
            vec![tensor("tokens", "INT32", vec![rows, columns]), tensor("length", "INT8", vec![rows])];
        let sizes = [rows * columns * 4, rows];
        (tensors, sizes.map(|size| Bytes::from(vec![0; usize::try_from(size).unwrap()])).to_vec())
    });
    prop_oneof![texts, tokens].boxed()
}

#[test]
fn requests_are_sound_or_refused_in_one_line() {
    let output = prop::sample::select(vec!["generated_text", "logprobs", "next_probs"]);
    let outputs = prop::collection::hash_set(output, 0..3);
    let requests =
        (input(), parameters(), outputs).prop_map(|((inputs, raw_input_contents), parameters, outputs)| {
            let outputs = outputs
                .into_iter()
                .map(|name| InferRequestedOutputTensor { name: name.to_owned(), parameters: HashMap::new() });
            let outputs = outputs.collect();
            ModelInferRequest { inputs, raw_input_contents, parameters, outputs, ..Default::default() }
                .encode_to_vec()
        });
    let model = Model { name: "ensemble".to_owned(), is_member: false, obstacle: None };
    fuzz("requests of tensors", mutated(requests, &["text", "\n", "BYTES"]), |Encoded(bytes)| {
        let Ok(request) = ModelInferRequest::decode(bytes.as_slice()) else { return Verdict::Refused };
        // Options are kept for each element of a batch.
        let room = 64 * bytes.len() + MAX_BATCH * 1024 + 4096;
        match within(room, || Job::new(request, model.clone())) {
            Ok(job) => {
                let elements = job.prompts.layout.elements();
                assert!((1..=MAX_BATCH).contains(&elements));
                assert_eq!((job.prompts.inputs.len(), job.options.len()), (elements, elements));
                assert!(!job.wanted.outputs.is_empty() && (!job.comes_in_pieces() || elements == 1));
                for element in 0..elements {
                    let _ = (job.generation(element), job.scoring(element), job.prediction(element));
                }
                Verdict::Accepted
            }
            Err(refusal) => {
                let status = Status::from(refusal);
                assert_one_line(status.message(), 700);
                // What clients allow to headers, in which base64 makes four bytes of three.
                assert!(status.details().len() < 4096, "{} bytes of details", status.details().len());
                Verdict::Refused
            }
        }
    });
}
