"""A member on Triton, as a function: tokens and states to next-token probabilities and states.

Runs inside Triton's Python backend, which makes batches of what arrives while it computes.
"""

from __future__ import annotations

from pathlib import Path

import numpy

from servers import fusion, hosted
from servers.triton.tensors import read_all, responses, settings


class TritonPythonModel:
    def initialize(self, arguments: dict[str, str]) -> None:
        chosen = settings(arguments)
        self.model = hosted.load(Path(chosen["directory"]), chosen["library"], threads=1)

    def execute(self, requests: list) -> list:
        """Triton puts only requests of one shape into a batch, so their tensors join along the first dimension."""
        sizes, tokens, h, c = read_all(requests, "TOKENS", "H", "C")
        states = (numpy.ascontiguousarray(state.transpose(1, 0, 2)) for state in (h, c))
        logits, h, c = self.model(numpy.ascontiguousarray(tokens.T.astype(numpy.int64)), *states)
        probabilities = fusion.softmax(logits[-1])
        states = (state.transpose(1, 0, 2) for state in (h, c))
        return responses(sizes, ("PROBABILITIES", "H_AFTER", "C_AFTER"), (probabilities, *states))

