"""`chorus bench`, the load generator of the program itself. Knows its flags and its JSON, and nothing about systems.

A client in Python takes a good part of a core from a fast server beside it; this one does not. Servers in Python that speak `chorus.v1` are asked by it too.
"""

from __future__ import annotations

import json
import shlex
import subprocess
from dataclasses import dataclass
from pathlib import Path

from servers import work

# Above the measured seconds; a run that takes longer hangs.
PATIENCE_SECONDS = 120
WARM_UP_SECONDS = 1


class BenchError(Exception):
    """`chorus bench` failed, or calls of it did."""


@dataclass(frozen=True)
class Bench:
    """A `chorus` binary that has the command."""

    program: Path

    def requests_per_second(self, address: str, kind: str, concurrency: int, seconds: float) -> float:
        """Asks in a closed loop for what `servers.load` asks for.

        Raises BenchError.
        """
        command = [str(self.program), "bench", "--server", address, "--json", "--mix", f"{kind}=1"]
        command += ["--concurrency", str(concurrency), "--temperature", "0", "--whole-answers"]
        command += ["--duration", f"{round(1e3 * seconds)}ms", "--warm-up", f"{WARM_UP_SECONDS}s"]
        command += ["--prompt-tokens", str(work.PROMPT_TOKENS), "--max-tokens", str(work.GENERATED_TOKENS)]
        command += ["--score-tokens", str(work.SCORED_TOKENS)]
        words = shlex.join(command)
        patience = seconds + PATIENCE_SECONDS
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=patience, check=False)
        except subprocess.TimeoutExpired as error:
            raise BenchError(f"`{words}` did not end within {patience:.0f} s") from error
        if done.returncode != 0:
            raise BenchError(f"`{words}` failed:\n{done.stderr.strip()[-2000:]}")
        report = json.loads(done.stdout)
        if report["calls"]["failed"]:
            raise BenchError(f"`{words}`: {report['calls']['failed']} calls failed: {report['errors']}")
        return float(report["per_second"]["answers"])


def find(program: Path) -> Bench | None:
    """None where this `chorus` has no load generator."""
    asked = subprocess.run([str(program), "bench", "--help"], capture_output=True, check=False)
    return Bench(program) if asked.returncode == 0 else None
