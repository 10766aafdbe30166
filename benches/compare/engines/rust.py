"""Finds the Rust engine: the example `timed` of `chorus-model`. Knows cargo and the example's flags."""

from __future__ import annotations

import json
import shlex
import subprocess
from pathlib import Path

from engines.shapes import Shape

REPOSITORY = Path(__file__).resolve().parents[3]
EXAMPLE = "timed"


class BuildError(Exception):
    """The example can't be built, in cargo's words."""


def build(on_device: bool) -> list[str]:
    """Builds the example with the workspace's features and gives the words that start it.

    Raises BuildError.
    """
    packages = ["-p", "chorus-model", "--features", "cuda"] if on_device else ["--workspace"]
    command = ["cargo", "build", "--release", "--locked", *packages, "--example", EXAMPLE]
    command.append("--message-format=json-render-diagnostics")
    built = subprocess.run(command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False)
    if built.returncode != 0:
        raise BuildError(f"`{' '.join(command)}` failed:\n{built.stderr.strip()}")
    messages = (json.loads(line) for line in built.stdout.splitlines() if line.startswith("{"))
    programs = [
        message["executable"]
        for message in messages
        if message.get("reason") == "compiler-artifact" and message["target"]["name"] == EXAMPLE
    ]
    if not programs or programs[-1] is None:
        raise BuildError(f"cargo built no example `{EXAMPLE}`")
    return [programs[-1]]


def given(words: str) -> list[str]:
    """A command that the user gave instead."""
    return shlex.split(words)


def arguments(shape: Shape, weights: Path, threads: int, precision: str, device: str) -> list[str]:
    on = () if device == "cpu" else ("--device", device)
    return [
        *("--vocab", str(shape.vocabulary), "--embedding", str(shape.embedding)),
        *("--hidden", str(shape.hidden), "--layers", str(shape.layers)),
        *("--weights", str(weights), "--threads", str(threads), "--precision", precision, *on),
    ]
