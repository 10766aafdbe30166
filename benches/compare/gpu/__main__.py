"""`./compare gpu`: three LSTMs with random weights behind `chorus up`, on one GPU and on the CPU, from 1 to 256 generations
at a time: tokens a second, time to the first token and between tokens."""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from engines import machine
from engines.shapes import MEDIUM, Shape
from servers import models

CONCURRENCY = (1, 4, 16, 64, 256)


@dataclass(frozen=True)
class Cell:
    """One ensemble under one load."""

    device: str
    concurrency: int
    tokens_per_second: float
    first_token_ms: float
    inter_token_ms: float
    inter_token_p99_ms: float
    failed: int


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="compare gpu", description=__doc__)
    parser.add_argument("--chorus", type=Path, required=True, help="the program, built with the feature `cuda`")
    parser.add_argument("--device", action="append", help="may be repeated; default: cuda and cpu")
    parser.add_argument("--precision", default="f32", help="of the GPU's workers (default: f32)")
    parser.add_argument("--shape", type=Shape.parse, default=MEDIUM, metavar="V,E,H,L", help=f"default: {MEDIUM}")
    parser.add_argument("--concurrency", type=int, action="append", help="may be repeated; default: 1, 4, 16, 64, 256")
    parser.add_argument("--duration", type=float, default=5.0, help="seconds of each measurement (default: 5)")
    parser.add_argument("--rounds", type=int, default=3, help="of which medians are shown (default: 3)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything that was measured")
    return parser.parse_args()


def main() -> int:
    arguments = parsed()
    devices = arguments.device or ["cuda", "cpu"]
    loads = arguments.concurrency or CONCURRENCY
    names = [machine.device_name(device) for device in devices if device != "cpu"]
    print(f"{', '.join(names)}; {machine.name()}; three members of {arguments.shape}; medians of {arguments.rounds}\n")
    rounds: list[list[Cell]] = []
    with tempfile.TemporaryDirectory(prefix="compare-gpu-") as folder:
        models.write(Path(folder) / "models", arguments.seed, arguments.shape)
        # As many generations at a time as there are callers: a line would be measured else.
        (Path(folder) / "ensemble.toml").write_text(f"[limits]\nmax_sessions = {2 * max(loads)}\n")
        # Whole ensembles in turns, so that none has all the quiet minutes.
        try:
            for _ in range(arguments.rounds):
                rounds.append([cell for device in devices for cell in measured(arguments, Path(folder), device, loads)])
        except (RuntimeError, subprocess.CalledProcessError) as error:
            # What was wrong has been said by whoever found it.
            print(f"error: {error}", file=sys.stderr)
            return 1
    cells = [medians([each[index] for each in rounds]) for index in range(len(rounds[0]))]
    print(table(cells))
    if arguments.json:
        arguments.json.write_text(json.dumps([[vars(cell) for cell in each] for each in rounds], indent=1) + "\n")
    return 1 if any(cell.failed for cell in cells) else 0


def measured(arguments: argparse.Namespace, folder: Path, device: str, loads: tuple[int, ...]) -> list[Cell]:
    """One ensemble from its start to its end."""
    command = [str(arguments.chorus), "up", "--models", str(folder / "models"), "--config", str(folder / "ensemble.toml")]
    command += ["--listen", "127.0.0.1:0", "--device", device]
    if device != "cpu":
        command += ["--precision", arguments.precision]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as ensemble:
        try:
            address = listening(ensemble)
            return [bench(arguments, address, device, load) for load in loads]
        finally:
            ensemble.terminate()


def listening(ensemble: subprocess.Popen[str]) -> str:
    """Where the ensemble says that it is. Raises RuntimeError where it ends before."""
    assert ensemble.stdout is not None
    for line in ensemble.stdout:
        found = re.search(r"ensemble\s+http://(\S+)", line)
        if found:
            return found.group(1)
    raise RuntimeError("the ensemble did not start")


def bench(arguments: argparse.Namespace, address: str, device: str, concurrency: int) -> Cell:
    command = [str(arguments.chorus), "bench", "--addr", address, "--concurrency", str(concurrency)]
    command += ["--duration", f"{round(1000 * arguments.duration)}ms", "--warm-up", "1s", "--json"]
    answer = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    report: dict[str, Any] = json.loads(answer.stdout)
    latency = report["latency_ms"]
    return Cell(
        device,
        concurrency,
        report["per_second"]["generated_tokens"],
        latency["first_token"]["p50"],
        latency["inter_token"]["p50"],
        latency["inter_token"]["p99"],
        report["calls"]["failed"] + report["calls"]["degraded"],
    )


def medians(cells: list[Cell]) -> Cell:
    def middle(name: str) -> float:
        return median(getattr(cell, name) for cell in cells)

    numbers = [middle(name) for name in ("tokens_per_second", "first_token_ms", "inter_token_ms", "inter_token_p99_ms")]
    return Cell(cells[0].device, cells[0].concurrency, *numbers, sum(cell.failed for cell in cells))


def table(cells: list[Cell]) -> str:
    lines = ["| device | generations at a time | tokens/s | first token, ms (p50) | between tokens, ms (p50) | (p99) |"]
    lines.append("|---|---|---|---|---|---|")
    for cell in cells:
        numbers = f"{cell.tokens_per_second:.0f} | {cell.first_token_ms:.2f} | {cell.inter_token_ms:.2f} | {cell.inter_token_p99_ms:.2f}"
        lines.append(f"| {cell.device} | {cell.concurrency} | {numbers} |")
    failed = sum(cell.failed for cell in cells)
    return "\n".join(lines + ([f"\n{failed} calls failed or were degraded"] if failed else []))


if __name__ == "__main__":
    sys.exit(main())
