"""`./compare servers`: parse, build, start each system in turn, check its answers, measure, print."""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from engines import machine
from engines.child import environment
from servers import agreement, bench, generated, models, report, work
from servers.processes import StartError
from servers.systems import ClientError, Context, System, everything

REPOSITORY = Path(__file__).resolve().parents[3]
PACKAGES = Path(__file__).resolve().parents[1]

# By system, work and concurrency.
Cells = dict[tuple[str, str, int], report.Cell]


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="compare servers", description=__doc__)
    parser.add_argument("--system", action="append", metavar="TEXT", help="only systems whose name has this; may be repeated")
    parser.add_argument("--list", action="store_true", help="print the systems' names, and end")
    parser.add_argument("--work", choices=work.WORKS, action="append", help="default: both")
    parser.add_argument("--concurrency", type=int, action="append", help="may be repeated; default: 1, 8, 32")
    parser.add_argument("--rounds", type=int, default=3, help="over all systems (default: 3)")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement (default: 3)")
    parser.add_argument("--patience", type=float, default=0.0, help="seconds to wait for a quiet machine before each system")
    parser.add_argument("--seed", type=int, default=1, help="of the weights (default: 1)")
    parser.add_argument("--chorus", type=Path, metavar="FILE", help="this binary, instead of the one that cargo builds")
    parser.add_argument("--triton", metavar="HOST:PORT", help="a Triton that serves the repository (see the README)")
    parser.add_argument("--without-bench", action="store_true", help="ask with the clients in Python alone")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything that was measured")
    arguments = parser.parse_args()
    if arguments.rounds < 1 or arguments.seconds <= 0 or min(arguments.concurrency or [1]) < 1:
        parser.error("--rounds and --concurrency are at least 1, --seconds is more than 0")
    return arguments


def main() -> int:
    arguments = parsed()
    # A polite end ends the children too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    cells: Cells = {}
    with tempfile.TemporaryDirectory(prefix="compare-servers-") as scratch:
        try:
            context = prepared(arguments, Path(scratch))
            systems = chosen(everything(context), arguments.system)
            if arguments.list:
                print("\n".join(system.name for system in systems))
                return 0
            code = measured_to_the_end(arguments, context, systems, cells)
        except (RuntimeError, StartError, ClientError, bench.BenchError, subprocess.SubprocessError, OSError) as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            return 130
    show(arguments, list(cells.values()))
    return code


def measured_to_the_end(arguments: argparse.Namespace, context: Context, systems: list[System], cells: Cells) -> int:
    """The exit code: that of Ctrl-C is 130, and what was measured before it is shown all the same."""
    try:
        compared(arguments, context, systems, cells)
    except KeyboardInterrupt:
        return 130
    return 0


def show(arguments: argparse.Namespace, cells: list[report.Cell]) -> None:
    kinds = [kind for kind in arguments.work or work.WORKS if any(cell.kind == kind for cell in cells)]
    print("\n" + "\n\n".join(report.table(cells, kind) for kind in kinds))
    if arguments.json:
        document = {"machine": machine.name(), "cells": [cell.as_json() for cell in cells]}
        arguments.json.write_text(json.dumps(document, indent=1) + "\n")


def prepared(arguments: argparse.Namespace, scratch: Path) -> Context:
    """Models, generated modules, the binary: whatever the systems have in common."""
    modules = scratch / "modules"
    modules.mkdir()
    generated.write(modules)
    models.write(scratch / "models", arguments.seed)
    chorus = (arguments.chorus or built()).resolve()
    wheel = Path(sys.prefix) / "triton"
    return Context(
        models=scratch / "models",
        environment=environment(threads=1) | {"PYTHONPATH": os.pathsep.join([str(PACKAGES), str(modules)])},
        chorus=chorus,
        bench=None if arguments.without_bench else bench.find(chorus),
        triton_wheel=wheel if wheel.is_dir() else None,
        triton_address=arguments.triton,
    )


def built() -> Path:
    """The `chorus` binary, built with the workspace's features.

    Raises RuntimeError with cargo's words.
    """
    command = ["cargo", "build", "--release", "--locked", "--workspace", "--message-format=json-render-diagnostics"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"`{' '.join(command)}` failed:\n{done.stderr.strip()}")
    messages = (json.loads(line) for line in done.stdout.splitlines() if line.startswith("{"))
    programs = [found for message in messages if (found := executable(message))]
    if not programs:
        raise RuntimeError("cargo built no binary `chorus`")
    return Path(programs[-1])


def executable(message: dict[str, Any]) -> str | None:
    return message.get("executable") if message.get("target", {}).get("name") == "chorus" else None


def chosen(systems: list[System], wanted: list[str] | None) -> list[System]:
    found = [system for system in systems if not wanted or any(text in system.name for text in wanted)]
    if not found:
        raise RuntimeError(f"no system has a name with {' or '.join(wanted or [])}; `--list` shows them")
    return found


def compared(arguments: argparse.Namespace, context: Context, systems: list[System], cells: Cells) -> None:
    """Rounds over systems: each is started, asked and ended before the next one, so that nobody idles beside another."""
    print(f"{machine.name()}; medians of {arguments.rounds} rounds of {arguments.seconds:g} s", flush=True)
    kinds = arguments.work or work.WORKS
    expected: dict[str, list[Any]] = {}
    for number in range(arguments.rounds):
        for system in systems:
            machine.wait_until_quiet(arguments.patience)
            with system.running(context) as running:
                for kind in kinds:
                    if number == 0:
                        found = running.answers(kind, work.CHECKED)
                        if wrong := agreement.difference(kind, expected.setdefault(kind, found), found):
                            raise RuntimeError(f"{system.name} does not compute what {systems[0].name} does: {wrong}")
                    for load in arguments.concurrency or (1, 8, 32):
                        measured = running.measure(kind, load, arguments.seconds)
                        cell = cells.setdefault((system.name, kind, load), report.Cell(system, kind, load))
                        cell.rounds.append(measured)
                        print(f"round {number + 1}, {system.name}, {kind}, {load}: {measured.requests_per_second:.1f}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
