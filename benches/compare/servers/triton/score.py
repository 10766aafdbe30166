"""The ensemble on Triton, scoring: every member scores the batch, and the chain rule joins them."""

from __future__ import annotations

import asyncio

import numpy
import triton_python_backend_utils as triton

from servers import fusion
from servers.triton.tensors import read_all, read_answer, responses, settings, tensor


class TritonPythonModel:
    def initialize(self, arguments: dict[str, str]) -> None:
        self.members = settings(arguments)["members"].split(",")
        self.weights = [1 / len(self.members)] * len(self.members)

    async def execute(self, requests: list) -> list:
        sizes, texts = read_all(requests, "INPUT")
        answers = await asyncio.gather(*(self.call(name, texts) for name in self.members))
        score = fusion.log_probability([rows.T for rows in answers], self.weights)
        return responses(sizes, ("LOG_PROBABILITY",), (score[:, None],))

    async def call(self, name: str, texts: numpy.ndarray) -> numpy.ndarray:
        inputs = [tensor("TOKENS", texts)]
        names = ["LOG_PROBABILITIES"]
        request = triton.InferenceRequest(model_name=name, requested_output_names=names, inputs=inputs)
        return read_answer(await request.async_exec(), *names)[0]
