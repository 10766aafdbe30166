//! What is done follows from the outputs that are asked for; how answers lie in tensors; whose calls they are.

use tonic::{Code, Request};

use super::{Asking, numbers, output, raw_texts, said, service, texts};
use crate::pb::InferTensorContents;
use crate::pb::grpc_inference_service_server::GrpcInferenceService as _;
use crate::pb::infer_parameter::ParameterChoice::{BoolParam, DoubleParam, Int64Param, StringParam};
use chorus_proto::v1::{Rule, input};

#[tokio::test]
async fn a_text_is_continued_where_no_output_is_named() {
    let (service, ensemble) = service();
    let asking =
        Asking::of("ensemble").text("ab").with("max_tokens", Int64Param(4)).with("seed", Int64Param(9));
    let asking = asking.with("temperature", DoubleParam(0.5)).with("stop", StringParam("z".to_owned()));
    let response = asking.answer(&service).await.unwrap();
    assert_eq!((response.id.as_str(), response.model_version.as_str()), ("7", "1"));
    let (shape, raw) = output(&response, "generated_text");
    assert_eq!((shape, texts(raw)), (&[1][..], vec!["cdef".to_owned()]));
    let (shape, raw) = output(&response, "generated_tokens");
    assert_eq!((shape, numbers(raw, i64::from_le_bytes)), (&[4][..], vec![99, 100, 101, 102]));
    assert_eq!(numbers(output(&response, "used_seed").1, u64::from_le_bytes), [9]);
    assert_eq!(texts(output(&response, "finish_reason").1), ["max_tokens"]);
    assert_eq!(said(&response, "participants"), StringParam("alto,bass".to_owned()));
    assert_eq!(said(&response, "missing"), StringParam("tenor: it is gone".to_owned()));
    assert_eq!(said(&response, "degraded"), BoolParam(true));
    let asked = ensemble.generations.lock().unwrap().remove(0);
    assert_eq!((asked.max_tokens, asked.stop, asked.log_probs), (Some(4), vec!["z".to_owned()], false));
    assert_eq!(asked.sampling.unwrap().temperature, Some(0.5));
    assert!(ensemble.scorings.lock().unwrap().is_empty() && ensemble.predictions.lock().unwrap().is_empty());
}

#[tokio::test]
async fn log_probabilities_come_by_member_too() {
    let (service, ensemble) = service();
    let asking =
        Asking::of("ensemble").text("abc").output("member_logprobs").output("logprobs").output("perplexity");
    let response = asking.with("rule", StringParam("log_linear".to_owned())).answer(&service).await.unwrap();
    let names: Vec<&str> = response.outputs.iter().map(|output| output.name.as_str()).collect();
    assert_eq!(names, ["member_logprobs", "logprobs", "perplexity"], "in the order of the request");
    let (shape, raw) = output(&response, "logprobs");
    assert_eq!((shape, numbers(raw, f64::from_le_bytes)), (&[3][..], vec![0.0, -1.0, -2.0]));
    let (shape, raw) = output(&response, "member_logprobs");
    assert_eq!(shape, [2, 3]);
    assert_eq!(numbers(raw, f64::from_le_bytes), [-0.25, -1.25, -2.25, -0.5, -1.5, -2.5]);
    assert_eq!(said(&response, "members"), StringParam("alto,bass".to_owned()));
    assert_eq!(ensemble.scorings.lock().unwrap()[0].fusion.as_ref().unwrap().rule(), Rule::LogLinear);
    assert!(ensemble.generations.lock().unwrap().is_empty());
}

#[tokio::test]
async fn candidates_and_generations_come_together_where_both_are_asked_for() {
    let (service, ensemble) = service();
    let asking = Asking::of("ensemble").text("a").with("top_n", Int64Param(2)).output("next_probs");
    let asking = asking.output("next_texts").output("next_tokens").output("generated_logprobs");
    let response = asking.answer(&service).await.unwrap();
    assert_eq!(numbers(output(&response, "next_probs").1, f64::from_le_bytes), [0.5, 1.0 / 3.0]);
    assert_eq!(texts(output(&response, "next_texts").1), ["<0>", "<1>"]);
    assert_eq!(numbers(output(&response, "next_tokens").1, i64::from_le_bytes), [97, 98]);
    assert_eq!(numbers(output(&response, "generated_logprobs").1, f64::from_le_bytes), [-0.5, -1.5, -2.5]);
    assert!(ensemble.generations.lock().unwrap()[0].log_probs);
}

#[tokio::test]
async fn a_task_leaves_out_what_is_not_of_it() {
    let (service, ensemble) = service();
    let all = crate::outputs::Output::ALL.map(crate::outputs::Output::name);
    let asking = all.into_iter().fold(Asking::of("ensemble").text("ab"), Asking::output);
    let response = asking.with("task", StringParam("score".to_owned())).answer(&service).await.unwrap();
    assert_eq!(output(&response, "logprobs").0, [2]);
    assert!(response.outputs.iter().all(|output| output.name != "generated_text"));
    assert!(ensemble.generations.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_batch_is_so_many_requests_and_shorter_rows_are_filled_up() {
    let (service, ensemble) = service();
    let asking = Asking::of("ensemble").input("text", "BYTES", &[2, 1], raw_texts(&["abc", "x"]));
    let asking =
        asking.integers("max_tokens", &[2, 1], &[1, 2]).output("generated_text").output("generated_tokens");
    let response = asking.output("logprobs").output("member_logprobs").answer(&service).await.unwrap();
    let (shape, raw) = output(&response, "generated_text");
    assert_eq!((shape, texts(raw)), (&[2, 1][..], vec!["d".to_owned(), "yz".to_owned()]));
    let (shape, raw) = output(&response, "generated_tokens");
    assert_eq!((shape, numbers(raw, i64::from_le_bytes)), (&[2, 2][..], vec![100, -1, 121, 122]));
    let (shape, raw) = output(&response, "logprobs");
    assert_eq!(
        (shape, numbers(raw, f64::from_le_bytes)),
        (&[2, 3][..], vec![0.0, -1.0, -2.0, 0.0, 0.0, 0.0])
    );
    assert_eq!(output(&response, "member_logprobs").0, [2, 2, 3]);
    assert_eq!(ensemble.generations.lock().unwrap().len(), 2);

    let asking = Asking::of("ensemble").input("text", "BYTES", &[3], raw_texts(&["a", "b", "c"]));
    let response = asking.output("generated_text").answer(&service).await.unwrap();
    assert_eq!(output(&response, "generated_text").0, [3]);
}

#[tokio::test]
async fn tokens_have_lengths_and_typed_contents_are_read_as_raw_ones() {
    let (service, ensemble) = service();
    let asking = Asking::of("ensemble").integers("tokens", &[2, 3], &[97, 98, 0, 99, 0, 0]);
    let response =
        asking.integers("length", &[2, 1], &[2, 1]).output("logprobs").answer(&service).await.unwrap();
    assert_eq!(output(&response, "logprobs").0, [2, 2]);
    let mut asked: Vec<_> = ensemble.scorings.lock().unwrap().drain(..).collect();
    asked.sort_by_key(|asked| format!("{asked:?}"));
    let ids = |asked: &chorus_proto::v1::ScoreRequest| match asked.input.clone().unwrap().input.unwrap() {
        input::Input::Tokens(tokens) => tokens.ids,
        input::Input::Text(text) => panic!("{text}"),
    };
    assert_eq!((ids(&asked[0]), ids(&asked[1])), (vec![97, 98], vec![99]));

    let mut typed = Asking::of("ensemble").integers("tokens", &[2], &[]).output("input_length");
    typed.0.raw_input_contents.clear();
    typed.0.inputs[0].contents =
        Some(InferTensorContents { int64_contents: vec![97, 98], ..Default::default() });
    let response = typed.answer(&service).await.unwrap();
    assert_eq!(numbers(output(&response, "input_length").1, i64::from_le_bytes), [2]);
}

#[tokio::test]
async fn a_member_answers_alone() {
    let (service, ensemble) = service();
    let response = Asking::of("bass").text("a").output("logprobs").answer(&service).await.unwrap();
    assert_eq!(response.model_name, "bass");
    assert_eq!(said(&response, "participants"), StringParam("bass".to_owned()));
    assert_eq!(said(&response, "degraded"), BoolParam(false));
    let fusion = ensemble.scorings.lock().unwrap()[0].fusion.clone().unwrap();
    assert_eq!((fusion.members.as_slice(), fusion.rule()), (&["bass".to_owned()][..], Rule::WeightedAverage));
}

#[tokio::test]
async fn calls_are_made_in_the_name_of_the_caller() {
    let (service, ensemble) = service();
    let mut request = Request::new(Asking::of("ensemble").text("a").0);
    request.metadata_mut().insert("authorization", "Bearer x".parse().unwrap());
    request.metadata_mut().insert("grpc-timeout", "5S".parse().unwrap());
    request.extensions_mut().insert(17_u32);
    service.model_infer(request).await.unwrap();
    let seen = ensemble.last_call.lock().unwrap().clone();
    assert_eq!(seen, (Some("Bearer x".to_owned()), Some("5S".to_owned()), Some(17)));
}

#[tokio::test]
async fn what_the_ensemble_says_against_it_keeps_code_details_and_metadata() {
    let (service, _) = service();
    let failure = Asking::of("ensemble").text("full").answer(&service).await.unwrap_err();
    assert_eq!((failure.code(), failure.details()), (Code::ResourceExhausted, &b"details"[..]));
    assert!(failure.metadata().contains_key("grpc-retry-pushback-ms"));
}

#[tokio::test(start_paused = true)]
async fn a_timeout_ends_the_work() {
    let (service, ensemble) = service();
    let asking = Asking::of("ensemble").text("wait").with("timeout", Int64Param(1_000));
    let failure = asking.answer(&service).await.unwrap_err();
    assert_eq!(failure.code(), Code::DeadlineExceeded);
    assert_eq!(ensemble.waiting.load(std::sync::atomic::Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_search_has_its_best_sequences() {
    let (service, ensemble) = service();
    let asking =
        Asking::of("ensemble").text("a").with("beam_size", Int64Param(4)).with("n_best", Int64Param(2));
    let asking =
        asking.integers("forbidden", &[2], &[7, 9]).with("members", StringParam("alto, bass".to_owned()));
    let response = asking.output("beam_texts").output("beam_scores").answer(&service).await.unwrap();
    let (shape, raw) = output(&response, "beam_texts");
    assert_eq!((shape, texts(raw)), (&[2][..], vec!["best 0".to_owned(), "best 1".to_owned()]));
    assert_eq!(numbers(output(&response, "beam_scores").1, f64::from_le_bytes), [-1.0, -2.0]);
    let asked = ensemble.generations.lock().unwrap().remove(0);
    assert_eq!((asked.beam.unwrap().size, asked.sampling.unwrap().forbidden.unwrap().ids), (4, vec![7, 9]));
    assert_eq!(asked.fusion.unwrap().members, ["alto", "bass"]);
}
