"""Between the batches of Triton's Python backend and arrays. Knows nothing about models."""

from __future__ import annotations

import json

import numpy
import triton_python_backend_utils as triton


def settings(arguments: dict[str, str]) -> dict[str, str]:
    """The parameters of a model's `config.pbtxt`."""
    parameters = json.loads(arguments["model_config"])["parameters"]
    return {name: value["string_value"] for name, value in parameters.items()}


def tensor(name: str, array: numpy.ndarray) -> triton.Tensor:
    """By DLPack: the backend was built for NumPy 1, and misreads the arrays of NumPy 2."""
    return triton.Tensor.from_dlpack(name, numpy.require(array, requirements=["C", "W"]))


def array(of: triton.Tensor) -> numpy.ndarray:
    return numpy.from_dlpack(of)


def read_all(requests: list, *names: str) -> tuple:
    """How many rows each request has, then each tensor of all requests, joined along the first dimension."""
    columns = [[array(triton.get_input_tensor_by_name(request, name)) for request in requests] for name in names]
    return [len(rows) for rows in columns[0]], *(numpy.concatenate(rows) for rows in columns)


def responses(sizes: list[int], names: tuple[str, ...], arrays: tuple[numpy.ndarray, ...]) -> list:
    """One response for each request: its rows of every array."""
    bounds = numpy.cumsum(sizes)[:-1]
    columns = zip(*(numpy.split(array, bounds) for array in arrays), strict=True)
    return [
        triton.InferenceResponse([tensor(name, rows) for name, rows in zip(names, parts, strict=True)])
        for parts in columns
    ]


def read_answer(response: object, *names: str) -> list[numpy.ndarray]:
    """The tensors of a member's answer.

    Raises TritonModelException where it is an error.
    """
    if response.has_error():
        raise triton.TritonModelException(response.error().message())
    return [array(triton.get_output_tensor_by_name(response, name)) for name in names]
