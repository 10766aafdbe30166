"""The ensemble on Triton, scoring: every member scores the batch, and the chain rule joins them."""

from __future__ import annotations

import asyncio

import numpy

from servers import fusion
from servers.triton.tensors import ask, read, responses, settings


class TritonPythonModel:
    def initialize(self, arguments: dict[str, str]) -> None:
        self.members = settings(arguments)["members"].split(",")
        self.weights = [1 / len(self.members)] * len(self.members)

    async def execute(self, requests: list) -> list:
        """Triton puts only requests of one shape into a batch, so their texts have one length."""
        texts = [read(request, "INPUT")[0] for request in requests]
        inputs = {"TOKENS": numpy.concatenate(texts)}
        answers = await asyncio.gather(*(ask(name, inputs, "LOG_PROBABILITIES") for name in self.members))
        score = fusion.log_probability([rows.T for rows in answers], self.weights)[:, None]
        bounds = numpy.cumsum([len(text) for text in texts])[:-1]
        return responses(("LOG_PROBABILITY",), [(part,) for part in numpy.split(score, bounds)])
