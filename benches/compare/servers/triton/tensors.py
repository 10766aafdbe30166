"""Between the requests of Triton's Python backend and arrays. Knows nothing about models."""

from __future__ import annotations

import json

import numpy
import triton_python_backend_utils as triton


def settings(arguments: dict[str, str]) -> dict[str, str]:
    """The parameters of a model's `config.pbtxt`."""
    parameters = json.loads(arguments["model_config"])["parameters"]
    return {name: value["string_value"] for name, value in parameters.items()}


def tensor(name: str, values: numpy.ndarray) -> triton.Tensor:
    """By DLPack: the backend was built for NumPy 1, and misreads the arrays of NumPy 2."""
    return triton.Tensor.from_dlpack(name, numpy.require(values, requirements=["C", "W"]))


def read(request: triton.InferenceRequest, *names: str) -> list[numpy.ndarray]:
    """Inputs of a request, each [B, ...]."""
    return [numpy.from_dlpack(triton.get_input_tensor_by_name(request, name)) for name in names]


def responses(names: tuple[str, ...], answers: list[tuple[numpy.ndarray, ...]]) -> list[triton.InferenceResponse]:
    """One response for each request."""
    return [
        triton.InferenceResponse([tensor(name, values) for name, values in zip(names, answer, strict=True)])
        for answer in answers
    ]


async def ask(model: str, inputs: dict[str, numpy.ndarray], output: str) -> numpy.ndarray:
    """Calls another model of this Triton.

    Raises TritonModelException where its answer is an error.
    """
    tensors = [tensor(name, values) for name, values in inputs.items()]
    request = triton.InferenceRequest(model_name=model, requested_output_names=[output], inputs=tensors)
    response = await request.async_exec()
    if response.has_error():
        raise triton.TritonModelException(response.error().message())
    return numpy.from_dlpack(triton.get_output_tensor_by_name(response, output))
