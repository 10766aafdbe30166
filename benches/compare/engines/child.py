"""The measuring side of the line protocol: one engine as a child process. Knows nothing about any library."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any


class EngineError(Exception):
    """An engine ended, or answered something else than the protocol says."""


class Child:
    """An engine that runs. It is blocked in a read while no question of this program is open."""

    def __init__(self, name: str, command: list[str], threads: int) -> None:
        """Starts the engine and waits until it is ready. Its stderr stays this program's.

        Raises EngineError where it ends before.
        """
        self.name = name
        try:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env=environment(threads),
                # Ctrl-C is for the measuring program, which ends its children itself.
                start_new_session=True,
            )
        except OSError as error:
            raise EngineError(f"{name}: can't start {command[0]}: {error}") from error
        if self.line() != "ready":
            self.stop()
            raise EngineError(f"{name}: its first line is not `ready`: {' '.join(command)}")

    def ask(self, question: str) -> dict[str, Any]:
        """One command and its answer.

        Raises EngineError where there is no answer, or none in JSON.
        """
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(question + "\n")
            self.process.stdin.flush()
        except OSError as error:
            raise EngineError(f"{self.name} ended before `{question[:80]}`") from error
        line = self.line()
        try:
            answer = json.loads(line)
        except ValueError as error:
            raise EngineError(f"{self.name} answered `{question[:80]}` with {line[:200]!r}") from error
        if isinstance(answer, dict) and "error" in answer:
            raise EngineError(f"{self.name}: {answer['error']}")
        return answer if isinstance(answer, dict) else {"logits": answer}

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def processor_seconds(self) -> float:
        """What the process has used of the processor so far, all threads together."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def stop(self) -> None:
        """Ends the process, with force where asking does not help."""
        if self.process.poll() is None and self.process.stdin is not None:
            try:
                self.process.stdin.close()
                self.process.wait(timeout=5)
            except (OSError, subprocess.TimeoutExpired):
                self.process.kill()
                self.process.wait()


def environment(threads: int) -> dict[str, str]:
    """This program's, with one number of threads for every library, and no thread that spins while it waits."""
    counts = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS")
    return os.environ | {name: str(threads) for name in counts} | {"OMP_WAIT_POLICY": "PASSIVE"}
