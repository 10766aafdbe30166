"""A member on Triton that steps: tokens of sessions to next-token probabilities. The states stay here, by slot.

Runs inside Triton's Python backend, which makes batches of what arrives while it computes.
"""

from __future__ import annotations

from pathlib import Path

from servers.hosted import Group, Hosted
from servers.triton.tensors import read, responses, settings


class TritonPythonModel:
    def initialize(self, arguments: dict[str, str]) -> None:
        chosen = settings(arguments)
        self.hosted = Hosted(Path(chosen["directory"]), chosen["library"], threads=1)

    def execute(self, requests: list) -> list:
        groups = []
        for request in requests:
            slots, fresh, tokens = read(request, "SLOTS", "FRESH", "TOKENS")
            groups.append(Group(slots[:, 0], bool(fresh[0, 0]), tokens.T))
        return responses(("PROBABILITIES",), [(rows,) for rows in self.hosted.step(groups)])
