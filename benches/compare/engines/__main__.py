"""`./compare engines`: parse, start the engines, check that they compute the same, measure, print."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from engines import check, machine, report, rust, weights
from engines.child import Child, EngineError
from engines.measure import Pace, Work, compare, contenders
from engines.shapes import LARGE, MEDIUM, PRECISIONS, SMALL, Shape

LIBRARIES = {"pytorch": "engines.in_pytorch", "onnxruntime": "engines.in_onnxruntime"}
ON_DEVICE = {"pytorch": "engines.in_pytorch_cuda"}
# The best of so many counts: what the machine can do, even where others use it meanwhile.
FLOOR_REPEATS = 25


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="compare engines", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N (default: cpu)")
    parser.add_argument("--shape", type=Shape.parse, action="append", metavar="V,E,H,L", help="may be repeated; default: three shapes, on a GPU the larger two")
    parser.add_argument("--kind", choices=("step", "score"), action="append", help="default: both")
    parser.add_argument("--precision", choices=PRECISIONS, action="append", help="default: f32 and int8, on a GPU f32 and bf16")
    parser.add_argument("--batch", type=int, action="append", help="may be repeated; default: 1, 4, 16, 64; on a GPU 1, 16, 64, 256, 1024 for steps, and 1 to score")
    parser.add_argument("--length", type=int, help="tokens of a scored sequence (default: 32, on a GPU 512)")
    parser.add_argument("--threads", type=int, default=1, help="of every engine (default: 1)")
    parser.add_argument("--rounds", type=int, default=7, help="over all engines (default: 7)")
    parser.add_argument("--block", type=float, default=0.2, help="seconds that an engine computes in a round (default: 0.2)")
    parser.add_argument("--patience", type=float, default=0.0, help="seconds to wait for a quiet machine before each block")
    parser.add_argument("--seed", type=int, default=1, help="of the weights (default: 1)")
    parser.add_argument("--chorus", metavar="COMMAND", help="start this instead of the example that cargo builds; `none`: without it")
    parser.add_argument("--library", choices=tuple(LIBRARIES), action="append", help="default: all")
    parser.add_argument("--compile", action="store_true", help="torch.compile too: needs a C++ compiler, and a minute a shape")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything that was measured")
    arguments = parser.parse_args()
    on_device = arguments.device != "cpu"
    if arguments.length is None:
        arguments.length = 512 if on_device else 32
    arguments.shape = arguments.shape or ([MEDIUM, LARGE] if on_device else [SMALL, MEDIUM, LARGE])
    arguments.precision = arguments.precision or (["f32", "bf16"] if on_device else ["f32", "int8"])
    libraries = ON_DEVICE if on_device else LIBRARIES
    allowed = ("f32", "bf16") if on_device else ("f32", "int8")
    if any(precision not in allowed for precision in arguments.precision):
        parser.error(f"--precision on {arguments.device} is {' or '.join(allowed)}")
    wrong = [name for name in arguments.library or () if name not in libraries]
    if wrong:
        parser.error(f"there is no {wrong[0]} on {arguments.device}")
    arguments.library = arguments.library or list(libraries)
    if arguments.rounds < 1 or arguments.threads < 1 or min(arguments.batch or [1]) < 1 or arguments.length < 1:
        parser.error("--rounds, --threads, --batch and --length are at least 1")
    return arguments


def main() -> int:
    arguments = parsed()
    try:
        program = chorus(arguments.chorus, arguments.device != "cpu")
        cells, checks = compared(arguments, program)
    except (rust.BuildError, EngineError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    if arguments.json:
        document = {
            "machine": machine.name(),
            "device": arguments.device,
            "threads": arguments.threads,
            "checks": [one.as_json() for one in checks],
            "cells": [cell.as_json() for cell in cells],
        }
        arguments.json.write_text(json.dumps(document, indent=1) + "\n")
    wrong = [one for one in checks if not one.fine()]
    for one in wrong:
        print(f"error: {one.text()}", file=sys.stderr)
    return 1 if wrong else 0


def chorus(given: str | None, on_device: bool) -> list[str] | None:
    if given == "none":
        return None
    return rust.given(given) if given else rust.build(on_device)


def compared(arguments: argparse.Namespace, program: list[str] | None) -> tuple[list[report.Cell], list[check.Check]]:
    pace = Pace(arguments.rounds, arguments.block, arguments.patience)
    device = "" if arguments.device == "cpu" else f"{machine.device_name(arguments.device)}; "
    print(f"{device}{machine.name()}; {arguments.threads} threads an engine; medians of {pace.rounds} rounds\n", flush=True)
    cells: list[report.Cell] = []
    checks: list[check.Check] = []
    for shape in arguments.shape:
        with ExitStack() as stack:
            engines = started(arguments, program, shape, stack)
            found = check.against_pytorch(shape, engines, arguments.device != "cpu")
            checks += found
            print("\n".join(one.text() for one in found) + "\n", flush=True)
            for precision in arguments.precision:
                floors = measured_floors(engines, precision, arguments.device != "cpu")
                for kind in arguments.kind or ("step", "score"):
                    cells += measured(arguments, shape, precision, kind, engines, floors, pace)
    return cells, checks


def measured(
    arguments: argparse.Namespace,
    shape: Shape,
    precision: str,
    kind: str,
    engines: dict[tuple[str, str], Child],
    floors: list[report.Floor],
    pace: Pace,
) -> list[report.Cell]:
    """One table: measured, printed, given."""
    cells = []
    for batch in arguments.batch or batches(arguments.device, kind):
        work = Work(kind, batch, arguments.length)
        everyone = [
            contender
            for (library, of), child in engines.items()
            if of == precision
            for contender in contenders(child, library, precision, work, arguments.device != "cpu")
        ]
        cells.append(report.Cell(shape, work, precision, compare(everyone, work, pace), floors))
    print(report.table(cells) + "\n", flush=True)
    return cells


def batches(device: str, kind: str) -> tuple[int, ...]:
    if device == "cpu":
        return 1, 4, 16, 64
    return (1, 16, 64, 256, 1024) if kind == "step" else (1,)


def started(
    arguments: argparse.Namespace, program: list[str] | None, shape: Shape, stack: ExitStack
) -> dict[tuple[str, str], Child]:
    """Every engine in every precision, on the same weights; all end with the stack."""
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="compare-engines-")))
    file = folder / "model.safetensors"
    weights.write(file, shape, arguments.seed)
    engines = {}
    for precision in arguments.precision:
        commands: dict[str, list[str]] = {}
        if program is not None:
            commands["chorus"] = [*program, *rust.arguments(shape, file, arguments.threads, precision, arguments.device)]
        for library in arguments.library:
            commands[library] = python_engine(library, shape, file, arguments, precision)
        for library, command in commands.items():
            child = Child(f"{library} {precision}", command, arguments.threads)
            stack.callback(child.stop)
            engines[library, precision] = child
    return engines


def python_engine(library: str, shape: Shape, file: Path, arguments: argparse.Namespace, precision: str) -> list[str]:
    numbers = f"{shape.vocabulary},{shape.embedding},{shape.hidden},{shape.layers}"
    modules = LIBRARIES if arguments.device == "cpu" else ON_DEVICE
    command = [sys.executable, "-m", modules[library], "--weights", str(file), "--shape", numbers, "--precision", precision]
    if arguments.device != "cpu":
        return [*command, "--device", arguments.device]
    command += ["--threads", str(arguments.threads)]
    return [*command, "--compile"] if arguments.compile and library == "pytorch" else command


def measured_floors(engines: dict[tuple[str, str], Child], precision: str, on_device: bool) -> list[report.Floor]:
    """What the machine can do, in the words of the Rust engine and of PyTorch."""
    floors = []
    for library in ("chorus", "pytorch"):
        child = engines.get((library, precision))
        if child is not None:
            bandwidth = max(child.ask(f"bandwidth {FLOOR_REPEATS}")["gigabytes_per_second"])
            flops = max(child.ask(f"sgemm {FLOOR_REPEATS}")["gigaflops"])
            print(f"by {library}: reads {bandwidth:.1f} GB/s, multiplies {flops:.1f} GFLOP/s in {precision if on_device else 'f32'}")
            floors.append(report.Floor(bandwidth, flops, f"{library}'s floor", on_device))
    return floors


if __name__ == "__main__":
    sys.exit(main())
