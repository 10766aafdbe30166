"""Drives a running ensemble with PyPI's tritonclient, as it is: python inference.py HOST:PORT"""

import queue
import sys

import numpy as np
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

client = triton.InferenceServerClient(sys.argv[1])


def text(*texts, shape=None):
    tensor = triton.InferInput("text", shape or [len(texts)], "BYTES")
    values = [text.encode() for text in texts]
    return tensor.set_data_from_numpy(np.array(values, dtype=np.object_).reshape(shape or [len(texts)]))


def tensor(name, values, dtype=np.int64):
    values = np.array(values, dtype=dtype)
    datatype = {np.int64: "INT64", np.float32: "FP32", np.bool_: "BOOL"}[dtype]
    return triton.InferInput(name, list(values.shape), datatype).set_data_from_numpy(values)


def outputs(*names):
    return [triton.InferRequestedOutput(name) for name in names]


def parameter(result, name):
    value = result.get_response().parameters[name]
    return getattr(value, value.WhichOneof("parameter_choice"))


def refused(words, status, *arguments, **named):
    try:
        client.infer(*arguments, **named)
    except InferenceServerException as error:
        assert error.status() == f"StatusCode.{status}", error
        assert all(word in error.message() for word in words), error
    else:
        raise AssertionError(f"not refused: {words}")


def models():
    assert client.is_server_live() and client.is_server_ready()
    assert client.get_server_metadata().name == "chorus"
    names = [model.name for model in client.get_model_repository_index().models]
    assert names == ["ensemble", "alto", "bass", "tenor"], names
    for name in names:
        assert client.is_model_ready(name) and client.is_model_ready(name, "1")
        metadata = client.get_model_metadata(name)
        inputs = {tensor.name: (tensor.datatype, list(tensor.shape)) for tensor in metadata.inputs}
        assert inputs["text"] == ("BYTES", [-1, 1]) and inputs["tokens"] == ("INT64", [-1, -1])
        config = client.get_model_config(name).config
        assert config.max_batch_size == 64 and not config.model_transaction_policy.decoupled
        assert {"generated_text", "logprobs", "next_probs"} <= {tensor.name for tensor in config.output}
    assert not client.get_system_shared_memory_status().regions
    client.unregister_system_shared_memory()
    client.unregister_cuda_shared_memory()


def generation():
    chosen = {"max_tokens": 12, "seed": 7, "temperature": 0.8, "top_k": 40}
    result = client.infer("ensemble", [text("ROMEO:")], request_id="one", parameters=chosen)
    said = result.as_numpy("generated_text")
    assert said.shape == (1,) and len(said[0].decode()) > 0
    tokens = result.as_numpy("generated_tokens")
    assert tokens.dtype == np.int64 and tokens.shape == (12,)
    assert result.as_numpy("finish_reason")[0] == b"max_tokens" and result.as_numpy("used_seed")[0] == 7
    assert result.get_response().id == "one"
    assert parameter(result, "participants") == "alto,bass,tenor"
    assert parameter(result, "missing") == "" and parameter(result, "degraded") is False
    # The same as tensors, as the backends for language models have them.
    same = [text("ROMEO:"), tensor("max_tokens", [12]), tensor("seed", [7]), tensor("top_k", [40])]
    same.append(tensor("temperature", [0.8], np.float32))
    asked = outputs("generated_tokens", "generated_logprobs")
    again = client.infer("ensemble", same, outputs=asked)
    assert again.as_numpy("generated_text") is None
    logprobs = again.as_numpy("generated_logprobs")
    assert logprobs.dtype == np.float64 and logprobs.shape == (12,) and (logprobs < 0).all()
    return said[0], chosen


def scores():
    asked = outputs("logprobs", "member_logprobs", "perplexity", "input_tokens", "input_length")
    result = client.infer("ensemble", [text("To be, or not to be")], outputs=asked)
    logprobs = result.as_numpy("logprobs")
    assert result.as_numpy("input_length")[0] == len(logprobs)
    assert np.isclose(np.exp(-logprobs.mean()), result.as_numpy("perplexity")[0])
    members = result.as_numpy("member_logprobs")
    assert members.shape == (3, len(logprobs)) and parameter(result, "members") == "alto,bass,tenor"
    # The mixture of the members, in the demo ensemble with equal weights.
    assert np.allclose(logprobs, np.log(np.exp(members).mean(axis=0)), atol=1e-9)
    tokens = result.as_numpy("input_tokens")
    same = client.infer("ensemble", [tensor("tokens", tokens)], outputs=outputs("logprobs"))
    assert (same.as_numpy("logprobs") == logprobs).all()
    # Each member alone.
    for row, name in enumerate(["alto", "bass", "tenor"]):
        alone = client.infer(name, [tensor("tokens", tokens)], outputs=outputs("logprobs"))
        assert np.allclose(alone.as_numpy("logprobs"), members[row], atol=1e-12), name
        assert parameter(alone, "participants") == name and parameter(alone, "degraded") is False


def predictions():
    asked = outputs("next_probs", "next_tokens", "next_texts")
    result = client.infer("ensemble", [text("To be, or not to ")], outputs=asked, parameters={"top_n": 5})
    probabilities = result.as_numpy("next_probs")
    assert probabilities.shape == (5,) and (np.diff(probabilities) <= 0).all() and 0 < probabilities.sum() <= 1
    assert result.as_numpy("next_tokens").shape == (5,) and result.as_numpy("next_texts").shape == (5,)


def batches():
    texts = ["KING:", "To be", "But soft, what light"]
    batch = client.infer("ensemble", [text(*texts, shape=[3, 1])], outputs=outputs("logprobs", "generated_text"))
    assert batch.as_numpy("generated_text").shape == (3, 1)
    for row, alone in enumerate(texts):
        single = client.infer("ensemble", [text(alone)], outputs=outputs("logprobs")).as_numpy("logprobs")
        assert (batch.as_numpy("logprobs")[row, : len(single)] == single).all()
        assert (batch.as_numpy("logprobs")[row, len(single) :] == 0).all()


def refusals():
    refused(["Request for unknown model: 'viola'"], "NOT_FOUND", "viola", [text("a")])
    refused(["text: the text is empty"], "INVALID_ARGUMENT", "ensemble", [text("")])
    refused(["text[1]: the text is empty"], "INVALID_ARGUMENT", "ensemble", [text("a", "", shape=[2, 1])])
    refused(["tokens: the token id", "511"], "INVALID_ARGUMENT", "ensemble", [tensor("tokens", [512])])
    refused(["temperature: -1"], "INVALID_ARGUMENT", "ensemble", [text("a")], parameters={"temperature": -1.0})
    refused(["whatever", "max_tokens"], "INVALID_ARGUMENT", "ensemble", [text("a")], parameters={"whatever": 1})
    refused(["'sound' is no output"], "INVALID_ARGUMENT", "ensemble", [text("a")], outputs=outputs("sound"))
    refused(["sequence"], "INVALID_ARGUMENT", "ensemble", [text("a")], sequence_id=3)
    long = {"max_tokens": 4000}
    refused(["eadline"], "DEADLINE_EXCEEDED", "ensemble", [text("a")], parameters=long, client_timeout=0.05)
    refused(["timeout"], "DEADLINE_EXCEEDED", "ensemble", [text("a")], parameters=long, timeout=50_000)


def streams(whole, chosen):
    answers = queue.Queue()
    client.start_stream(lambda result, error: answers.put((result, error)))
    stream = {**chosen, "stream": True}
    client.async_stream_infer("ensemble", [text("ROMEO:")], request_id="tokens", parameters=stream)
    pieces, final = [], False
    while not final:
        result, error = answers.get(timeout=60)
        assert error is None, error
        assert result.get_response().id == "tokens"
        pieces.append(result.as_numpy("generated_text")[0])
        final = parameter(result, "triton_final_response")
    assert len(pieces) >= 12 and b"".join(pieces) == whole, (pieces, whole)
    # Triton's own way of asking for the end.
    client.async_stream_infer(
        "alto", [text("ROMEO:")], request_id="empty", enable_empty_final_response=True, parameters={"max_tokens": 3}
    )
    seen = 0
    while True:
        result, error = answers.get(timeout=60)
        assert error is None, error
        if parameter(result, "triton_final_response"):
            break
        seen += len(result.as_numpy("generated_tokens"))
    assert seen == 3
    # Several at once, one of which is wrong: each has its answer, and the stream goes on.
    for name in range(20):
        prompt = "" if name == 7 else "KING:"
        client.async_stream_infer("ensemble", [text(prompt)], request_id=str(name), parameters={"max_tokens": 3})
    good, wrong = set(), []
    for _ in range(20):
        result, error = answers.get(timeout=60)
        if error is None:
            good.add(result.get_response().id)
        else:
            wrong.append(error.message())
    assert len(good) == 19 and "7" not in good
    assert len(wrong) == 1 and wrong[0].startswith("text: the text is empty"), wrong
    client.stop_stream()


def packed(whole, chosen):
    # gRPC's own compression, as the client has it.
    result = client.infer("ensemble", [text("ROMEO:")], parameters=chosen, compression_algorithm="gzip")
    assert result.as_numpy("generated_text")[0] == whole
    long = "First Citizen: Before we proceed any further, hear me speak. All: Speak, speak."
    cached = [parameter(client.infer("ensemble", [text(long)], parameters=chosen), "cached_tokens") for _ in range(2)]
    assert cached[0] == 0 and cached[1] > 16, cached
    answers = queue.Queue()
    client.start_stream(lambda result, error: answers.put((result, error)), compression_algorithm="gzip")
    client.async_stream_infer("ensemble", [text("ROMEO:")], parameters=chosen)
    result, error = answers.get(timeout=60)
    assert error is None and result.as_numpy("generated_text")[0] == whole
    client.stop_stream()


def statistics():
    stats = {stats.name: stats for stats in client.get_inference_statistics().model_stats}
    ensemble = stats["ensemble"]
    assert ensemble.execution_count > 20 and ensemble.inference_count > ensemble.execution_count
    assert ensemble.inference_stats.success.ns > 0 and ensemble.inference_stats.fail.count > 0


models()
whole, chosen = generation()
scores()
predictions()
batches()
refusals()
streams(whole, chosen)
packed(whole, chosen)
statistics()
client.close()
print("tritonclient: all is well")
