"""`chorus bench`, the load generator of the program itself. Knows its flags and its JSON, and nothing about systems.

A client in Python spends more on a streamed token than a fast server does, so that it would measure itself; this one does
not. Servers in Python that speak `chorus.v1` are asked by it too.
"""

from __future__ import annotations

import json
import shlex
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Above the measured seconds; a run that takes longer hangs.
PATIENCE_SECONDS = 120
# What the program calls its figure, wherever in the document it stands.
FIGURE = "requests_per_second"


class BenchError(Exception):
    """`chorus bench` failed, or did not say how many requests a second it made."""


@dataclass(frozen=True)
class Bench:
    """The program, and the words that make its requests those of this comparison."""

    program: Path
    # For scoring and for generating: prompt and lengths, as this version of the program takes them.
    arguments: dict[str, list[str]]

    def requests_per_second(self, address: str, kind: str, concurrency: int, seconds: float) -> float:
        """Asks in a closed loop.

        Raises BenchError.
        """
        command = [str(self.program), "bench", "--server", address, "--concurrency", str(concurrency)]
        command += ["--duration", f"{max(1, round(seconds))}s", "--mix", f"{kind}=1", "--json", *self.arguments[kind]]
        patience = seconds + PATIENCE_SECONDS
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=patience, check=False)
        except subprocess.TimeoutExpired as error:
            raise BenchError(f"`{shlex.join(command)}` did not end within {patience:.0f} s") from error
        if done.returncode != 0:
            raise BenchError(f"`{shlex.join(command)}` failed:\n{done.stderr.strip()[-2000:]}")
        rate = figure(json.loads(done.stdout))
        if rate is None:
            raise BenchError(f"`{shlex.join(command)}` printed no {FIGURE}")
        return rate


def find(program: Path, arguments: dict[str, list[str]]) -> Bench | None:
    """None where this `chorus` has no load generator."""
    asked = subprocess.run([str(program), "bench", "--help"], capture_output=True, check=False)
    return Bench(program, arguments) if asked.returncode == 0 else None


def figure(document: Any) -> float | None:
    if isinstance(document, dict):
        if isinstance(document.get(FIGURE), (int, float)):
            return float(document[FIGURE])
        parts = list(document.values())
    else:
        parts = document if isinstance(document, list) else []
    return next((found for part in parts if (found := figure(part)) is not None), None)
