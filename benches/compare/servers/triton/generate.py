"""The ensemble on Triton, generating: Triton gathers requests, and all of a batch go through the members in lock step.

States travel with the calls; between two models of one Triton they go through shared memory.
"""

from __future__ import annotations

import asyncio

import numpy
import triton_python_backend_utils as triton

from servers import fusion
from servers.hosted import started, zeros
from servers.triton.tensors import read_all, read_answer, responses, settings, tensor

OUTPUTS = ("PROBABILITIES", "H_AFTER", "C_AFTER")


class TritonPythonModel:
    def initialize(self, arguments: dict[str, str]) -> None:
        chosen = settings(arguments)
        self.members = chosen["members"].split(",")
        self.weights = [1 / len(self.members)] * len(self.members)
        self.count = int(chosen["count"])

    async def execute(self, requests: list) -> list:
        sizes, prompts = read_all(requests, "INPUT")
        tokens = started(prompts.T.astype(numpy.int64)).T.astype(numpy.int32)
        zero = zeros(len(prompts)).transpose(1, 0, 2)
        states = [(zero, zero)] * len(self.members)
        generated: list[list[int]] = []
        for _ in range(self.count):
            calls = [self.call(name, tokens, *state) for name, state in zip(self.members, states, strict=True)]
            answers = await asyncio.gather(*calls)
            states = [(h, c) for _, h, c in answers]
            generated.append(fusion.next_tokens([rows for rows, _, _ in answers], self.weights))
            tokens = numpy.array(generated[-1:], numpy.int32).T
        return responses(sizes, ("TOKENS",), (numpy.array(generated, numpy.int32).T,))

    async def call(self, name: str, tokens: numpy.ndarray, h: numpy.ndarray, c: numpy.ndarray) -> list[numpy.ndarray]:
        arrays = {"TOKENS": tokens, "H": h, "C": c}
        inputs = [tensor(of, array) for of, array in arrays.items()]
        request = triton.InferenceRequest(model_name=name, requested_output_names=list(OUTPUTS), inputs=inputs)
        return read_answer(await request.async_exec(), *OUTPUTS)
