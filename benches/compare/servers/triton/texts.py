"""A member on Triton that scores whole texts: tokens to the log-probability of each."""

from __future__ import annotations

from pathlib import Path

import numpy

from servers.hosted import Hosted
from servers.triton.tensors import read_all, responses, settings


class TritonPythonModel:
    def initialize(self, arguments: dict[str, str]) -> None:
        chosen = settings(arguments)
        self.hosted = Hosted(Path(chosen["directory"]), chosen["library"], threads=1)

    def execute(self, requests: list) -> list:
        sizes, tokens = read_all(requests, "TOKENS")
        rows = self.hosted.log_probabilities(tokens.T)
        return responses(sizes, ("LOG_PROBABILITIES",), (rows.T.astype(numpy.float32),))
