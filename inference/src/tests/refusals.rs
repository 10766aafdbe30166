//! Whatever is wrong with a request is said with the name of the tensor or parameter, and with what is allowed.

use tonic::Code;

use super::{Asking, raw_texts, service};
use crate::pb::infer_parameter::ParameterChoice::{BoolParam, DoubleParam, Int64Param, StringParam};

fn ensemble() -> Asking {
    Asking::of("ensemble")
}

fn table() -> Vec<(Asking, &'static [&'static str])> {
    let mut twice = ensemble().text("a").text("b");
    twice.0.raw_input_contents.pop();
    let mut shared = ensemble().text("a");
    let region = super::parameter(StringParam("region".to_owned()));
    shared.0.inputs[0].parameters.insert("shared_memory_region".to_owned(), region);
    let mut valueless = ensemble().text("a").with("seed", Int64Param(1));
    valueless.0.parameters.get_mut("seed").unwrap().parameter_choice = None;
    vec![
        (ensemble(), &["text: it is missing; allowed: text (BYTES) or tokens (INT64)"]),
        (ensemble().text("a").integers("tokens", &[1], &[1]), &["tokens: there is text too"]),
        (ensemble().text(""), &["text: the text is empty"]),
        (ensemble().integers("tokens", &[0], &[]), &["tokens: the text is empty"]),
        (
            ensemble().input("text", "BYTES", &[2, 2], raw_texts(&["a"; 4])),
            &["text: its shape is [2, 2]", "[batch, 1]"],
        ),
        (ensemble().input("text", "BYTES", &[0], ""), &["text: it has 0 elements; allowed: 1 to 64"]),
        (
            ensemble().input("text", "BYTES", &[65], raw_texts(&["a"; 65])),
            &["text: it has 65 elements", "64"],
        ),
        (
            ensemble().input("text", "BYTES", &[2], raw_texts(&["a"])),
            &["text: it has 1 elements; allowed: 2"],
        ),
        (
            ensemble().input("text", "BYTES", &[1], "abc"),
            &["text: its element 0 does not fit into the 3 bytes"],
        ),
        (ensemble().input("text", "BYTES", &[1], &b"\x01\0\0\0\xff"[..]), &["text: it is no UTF-8"]),
        (ensemble().input("text", "INT64", &[1], &[0; 8][..]), &["text: its datatype is", "allowed: BYTES"]),
        (ensemble().input("text", "FP16", &[1], &[0; 2][..]), &["text: its datatype is 'FP16'", "BYTES"]),
        (
            ensemble().input("text", "BYTES", &[-1], ""),
            &["text: its shape is [-1]; allowed: sizes of at least 0"],
        ),
        (ensemble().input("text", "BYTES", &[i64::MAX, i64::MAX], ""), &["text: its shape is"]),
        (ensemble().input("tokens", "INT64", &[2], &[0; 15][..]), &["tokens: it has 15 bytes; allowed: 16"]),
        (ensemble().integers("tokens", &[1], &[1]).integers("length", &[1], &[2]), &["length: ", "0 to 1"]),
        (
            ensemble().integers("tokens", &[2, 1], &[1, 2]).integers("length", &[1], &[1]),
            &["length: it has 1", "2, one"],
        ),
        (ensemble().text("a").integers("length", &[1], &[1]), &["length: a text has its own"]),
        (
            ensemble().text("a").integers("whatever", &[1], &[1]),
            &["whatever: there is no such input", "top_k"],
        ),
        (ensemble().text("a").integers("max_tokens", &[1], &[-1]), &["max_tokens: -1 is not allowed"]),
        (
            ensemble().text("a").integers("max_tokens", &[2], &[1, 1]),
            &["max_tokens: its shape is [2]", "one for all"],
        ),
        (
            ensemble().text("a").integers("top_k", &[1], &[1]).with("top_k", Int64Param(1)),
            &["top_k: it is a parameter and"],
        ),
        (ensemble().text("a").with("temperature", StringParam("hot".to_owned())), &["temperature: 'hot'"]),
        (
            ensemble().text("a").with("temperature", DoubleParam(-1.0)),
            &["temperature: -1 is not allowed", "at least 0"],
        ),
        (
            ensemble().text("a").with("priority", Int64Param(1)),
            &["priority: there is no such parameter", "max_tokens"],
        ),
        (
            ensemble().text("a").with("task", StringParam("sing".to_owned())),
            &["task: 'sing' is no task", "generate"],
        ),
        (
            ensemble().text("a").with("stream", BoolParam(true)),
            &["stream: ModelInfer has one answer", "ModelStreamInfer"],
        ),
        (ensemble().text("a").with("timeout", Int64Param(-1)), &["timeout: ", "microseconds"]),
        (
            ensemble().text("a").with("top_n", Int64Param(3)),
            &["top_n: nothing that is asked for", "next_probs"],
        ),
        (
            ensemble().text("a").with("max_tokens", Int64Param(3)).output("logprobs"),
            &["max_tokens: nothing", "generated_text"],
        ),
        (ensemble().text("a").output("sound"), &["outputs: 'sound' is no output", "generated_text"]),
        (ensemble().text("a").output("logprobs").output("logprobs"), &["logprobs: it is asked for twice"]),
        (
            ensemble().text("a").output("logprobs").with("rule", StringParam("threshold_vote".to_owned())),
            &["logprobs: threshold_vote"],
        ),
        (
            Asking::of("alto").text("a").with("weights", StringParam("alto=1".to_owned())),
            &["weights: a member answers alone"],
        ),
        (twice, &["raw_input_contents: there are 1 for 2 inputs"]),
        (shared, &["text: shared memory is not supported"]),
        (valueless, &["seed: the parameter has no value"]),
    ]
}

#[tokio::test]
async fn a_mistake_is_named_with_what_is_allowed() {
    let (service, _) = service();
    for (asking, words) in table() {
        let failure = asking.answer(&service).await.unwrap_err();
        assert_eq!(failure.code(), Code::InvalidArgument, "{failure}");
        for word in words {
            assert!(failure.message().contains(word), "'{}' does not say '{word}'", failure.message());
        }
    }
}

#[tokio::test]
async fn an_element_of_a_batch_is_named_by_its_place() {
    let (service, _) = service();
    let asking = ensemble().input("text", "BYTES", &[2, 1], raw_texts(&["a", ""]));
    let failure = asking.answer(&service).await.unwrap_err();
    assert!(failure.message().starts_with("text[1]: the text is empty"), "{failure}");
}
