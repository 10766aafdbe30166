//! What clients ask about the server and its models.

use tonic::{Code, Request};

use super::{Asking, service};
use crate::pb::grpc_inference_service_server::GrpcInferenceService as _;
use crate::pb::*;

#[tokio::test]
async fn the_ensemble_and_each_member_are_models() {
    let (service, _) = service();
    assert!(service.server_live(Request::new(ServerLiveRequest {})).await.unwrap().into_inner().live);
    assert!(service.server_ready(Request::new(ServerReadyRequest {})).await.unwrap().into_inner().ready);
    let metadata =
        service.server_metadata(Request::new(ServerMetadataRequest {})).await.unwrap().into_inner();
    assert_eq!((metadata.name.as_str(), metadata.version.as_str()), ("chorus", "9.9.9"));

    let index = RepositoryIndexRequest::default();
    let models = service.repository_index(Request::new(index)).await.unwrap().into_inner().models;
    let states: Vec<(&str, &str)> =
        models.iter().map(|model| (model.name.as_str(), model.state.as_str())).collect();
    let expected = [("ensemble", "READY"), ("alto", "READY"), ("bass", "READY"), ("tenor", "UNAVAILABLE")];
    assert_eq!(states, expected);
    assert_eq!(models[3].reason, "it is gone");
    for (name, expected) in [("ensemble", true), ("alto", true), ("tenor", false)] {
        let request = ModelReadyRequest { name: name.to_owned(), version: "1".to_owned() };
        assert_eq!(service.model_ready(Request::new(request)).await.unwrap().into_inner().ready, expected);
    }
}

#[tokio::test]
async fn metadata_and_config_describe_the_same_tensors() {
    let (service, _) = service();
    let request = ModelMetadataRequest { name: "alto".to_owned(), version: String::new() };
    let metadata = service.model_metadata(Request::new(request)).await.unwrap().into_inner();
    let request = ModelConfigRequest { name: "alto".to_owned(), version: String::new() };
    let config = service.model_config(Request::new(request)).await.unwrap().into_inner().config.unwrap();
    assert_eq!((metadata.name.as_str(), metadata.versions), ("alto", vec!["1".to_owned()]));
    let text = &metadata.inputs[0];
    assert_eq!(
        (text.name.as_str(), text.datatype.as_str(), text.shape.as_slice()),
        ("text", "BYTES", &[-1, 1][..])
    );
    let tokens = &metadata.inputs[1];
    assert_eq!((tokens.name.as_str(), tokens.datatype.as_str()), ("tokens", "INT64"));
    assert!(config.max_batch_size > 0 && !config.model_transaction_policy.unwrap().decoupled);
    let described = metadata.inputs.iter().map(|tensor| (&tensor.name, &tensor.shape[1..]));
    assert!(described.eq(config.input.iter().map(|tensor| (&tensor.name, tensor.dims.as_slice()))));
    let described = metadata.outputs.iter().map(|tensor| (&tensor.name, &tensor.shape[1..]));
    assert!(described.eq(config.output.iter().map(|tensor| (&tensor.name, tensor.dims.as_slice()))));
    for name in ["logprobs", "generated_text", "next_probs"] {
        assert!(metadata.outputs.iter().any(|output| output.name == name), "{name}");
    }
}

#[tokio::test]
async fn an_unknown_model_is_not_found_as_triton_says_it() {
    let (service, _) = service();
    let failure = Asking::of("viola").text("a").answer(&service).await.unwrap_err();
    assert_eq!(failure.code(), Code::NotFound);
    assert!(failure.message().starts_with("Request for unknown model: 'viola' is not found"), "{failure}");
    let request = ModelMetadataRequest { name: "alto".to_owned(), version: "2".to_owned() };
    let failure = service.model_metadata(Request::new(request)).await.unwrap_err();
    assert!(failure.message().starts_with("Request for unknown model: 'alto' version 2"), "{failure}");
    let failure = Asking::of("tenor").text("a").answer(&service).await.unwrap_err();
    assert_eq!(
        (failure.code(), failure.message()),
        (Code::Unavailable, "model 'tenor' is not ready: it is gone")
    );
}

#[tokio::test]
async fn requests_are_counted_by_model() {
    let (service, _) = service();
    Asking::of("ensemble").text("a").answer(&service).await.unwrap();
    Asking::of("ensemble")
        .input("text", "BYTES", &[2, 1], super::raw_texts(&["a", "b"]))
        .answer(&service)
        .await
        .unwrap();
    Asking::of("ensemble").text("").answer(&service).await.unwrap_err();
    let statistics = service.model_statistics(Request::new(ModelStatisticsRequest::default()));
    let stats = statistics.await.unwrap().into_inner().model_stats;
    assert_eq!(stats.len(), 4);
    let inference = stats[0].inference_stats.unwrap();
    assert_eq!((stats[0].execution_count, stats[0].inference_count), (2, 3));
    assert_eq!((inference.success.unwrap().count, inference.fail.unwrap().count), (2, 1));
    assert_eq!((stats[1].name.as_str(), stats[1].execution_count), ("alto", 0));
}

#[tokio::test]
async fn what_there_is_not_says_so() {
    let (service, _) = service();
    let load = service.repository_model_load(Request::new(RepositoryModelLoadRequest::default())).await;
    assert_eq!(load.unwrap_err().code(), Code::Unimplemented);
    let register = SystemSharedMemoryRegisterRequest::default();
    let register = service.system_shared_memory_register(Request::new(register)).await.unwrap_err();
    assert!(register.message().contains("shared memory"), "{register}");
    let regions = SystemSharedMemoryStatusRequest::default();
    let regions = service.system_shared_memory_status(Request::new(regions)).await.unwrap();
    assert!(regions.into_inner().regions.is_empty());
}
