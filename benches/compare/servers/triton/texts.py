"""A member on Triton that scores whole texts: tokens to the log-probability of each."""

from __future__ import annotations

from pathlib import Path

import numpy

from servers.hosted import Hosted
from servers.triton.tensors import read, responses, settings


class TritonPythonModel:
    def initialize(self, arguments: dict[str, str]) -> None:
        chosen = settings(arguments)
        self.hosted = Hosted(Path(chosen["directory"]), chosen["library"], threads=1)

    def execute(self, requests: list) -> list:
        rows = self.hosted.score([read(request, "TOKENS")[0].T for request in requests])
        return responses(("LOG_PROBABILITIES",), [(one.T.astype(numpy.float32),) for one in rows])
