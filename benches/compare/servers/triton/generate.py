"""The ensemble on Triton, generating: Triton gathers requests, and all of a batch go through the members in lock step.

There is one instance of this model, so one batch at a time has the members' slots.
"""

from __future__ import annotations

import asyncio

import numpy

from servers import fusion
from servers.triton.tensors import ask, read, responses, settings


class TritonPythonModel:
    def initialize(self, arguments: dict[str, str]) -> None:
        chosen = settings(arguments)
        self.members = chosen["members"].split(",")
        self.weights = [1 / len(self.members)] * len(self.members)
        self.count = int(chosen["count"])

    async def execute(self, requests: list) -> list:
        """Triton puts only requests of one shape into a batch, so their prompts have one length."""
        prompts = [read(request, "INPUT")[0] for request in requests]
        tokens = numpy.concatenate(prompts)
        slots = numpy.arange(len(tokens), dtype=numpy.int32)[:, None]
        generated: list[list[int]] = []
        while len(generated) < self.count:
            fresh = numpy.full_like(slots, not generated)
            inputs = {"SLOTS": slots, "FRESH": fresh, "TOKENS": tokens}
            answers = await asyncio.gather(*(ask(name, inputs, "PROBABILITIES") for name in self.members))
            generated.append(fusion.next_tokens(list(answers), self.weights))
            tokens = numpy.array(generated[-1:], numpy.int32).T
        bounds = numpy.cumsum([len(prompt) for prompt in prompts])[:-1]
        parts = numpy.split(numpy.array(generated, numpy.int32).T, bounds)
        return responses(("TOKENS",), [(part,) for part in parts])
