"""The systems that are compared: how each is started, and with which client it is asked. Knows nothing about rounds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from servers.bench import Bench
from servers.life import LISTENING
from servers.models import NAMES
from servers.processes import Process

START_SECONDS = 120
# A client run that takes longer hangs.
CLIENT_SECONDS = 300
LIBRARIES = ("onnxruntime", "torch")
DESIGNS = ("frames", "calls")


class ClientError(Exception):
    """A client could not measure; its words are the message."""


@dataclass(frozen=True)
class Context:
    """What every system is started with."""

    # The three model directories.
    models: Path
    # The environment of every process.
    environment: dict[str, str]
    # The `chorus` binary.
    chorus: Path
    # The load generator of that binary, where it has one.
    bench: Bench | None
    # Where Triton's wheel is, if it is.
    triton_wheel: Path | None
    # A Triton that runs already.
    triton_address: str | None


@dataclass(frozen=True)
class Measured:
    """One client run."""

    requests_per_second: float
    # Cores that the client itself took; absent where it does not say.
    client_cores: float | None
    client: str


class Running:
    """A system that serves: the client in Python that asks it, and its address where `chorus bench` can ask too."""

    def __init__(self, context: Context, client: list[str], bench_address: str | None = None) -> None:
        self.context, self.client, self.bench_address = context, client, bench_address

    def answers(self, kind: str, count: int) -> list[Any]:
        """What it answers to the first requests, in order."""
        return self.ask(["--work", kind, "--answers", str(count)])["answers"]

    def measure(self, kind: str, concurrency: int, seconds: float) -> Measured:
        """The best that any of the clients gets out of the system."""
        words = ["--work", kind, "--concurrency", str(concurrency), "--seconds", str(seconds)]
        result = self.ask(words)
        found = [Measured(result["requests_per_second"], result["client_cores"], "python")]
        if self.context.bench and self.bench_address:
            rate = self.context.bench.requests_per_second(self.bench_address, kind, concurrency, seconds)
            found.append(Measured(rate, None, "chorus bench"))
        return max(found, key=lambda one: one.requests_per_second)

    def ask(self, words: list[str]) -> dict[str, Any]:
        """One run of the client in Python.

        Raises ClientError with the client's words.
        """
        command = [sys.executable, "-m", *self.client, *words]
        done = subprocess.run(
            command,
            env=self.context.environment,
            capture_output=True,
            text=True,
            timeout=CLIENT_SECONDS,
            start_new_session=True,
            check=False,
        )
        if done.returncode != 0:
            raise ClientError(f"`{' '.join(command)}` failed:\n{done.stderr.strip()[-2000:]}")
        return json.loads(done.stdout)


@dataclass(frozen=True)
class System:
    """A way to serve the three models."""

    # Whose: designs of one family are one row of the table, the best of them.
    family: str
    design: str
    start: Callable[[Context, ExitStack], Running]
    # Whether there is a server at all.
    serves: bool = True

    @property
    def name(self) -> str:
        return f"{self.family} {self.design}".strip()

    @contextmanager
    def running(self, context: Context) -> Iterator[Running]:
        with ExitStack() as stack:
            yield self.start(context, stack)


def everything(context: Context) -> list[System]:
    """All systems that can be started here, Chorus first."""
    systems = [System("chorus", "", start_chorus)]
    for design in DESIGNS:
        systems += [System("grpc.aio", f"{library} {design}", grpc_aio(library, design)) for library in LIBRARIES]
        systems.append(System("ray serve", f"onnxruntime {design}", ray_serve("onnxruntime", design)))
    if context.triton_address:
        systems.append(System("triton", "given", given_triton))
    elif context.triton_wheel:
        systems += [System("triton", library, triton(library)) for library in LIBRARIES]
    for threads in sorted({1, len(os.sched_getaffinity(0))}):
        systems += [
            System("no server", f"{library} {threads}t", in_process(library, threads), serves=False)
            for library in LIBRARIES
        ]
    return systems


def started(stack: ExitStack, context: Context, command: list[str], mark: str = LISTENING) -> str:
    """Starts a process that ends with the stack; the rest of the line in which it said the mark."""
    process = Process(command, context.environment)
    stack.callback(process.end)
    return process.wait_for(mark, START_SECONDS)


def served(context: Context, protocol: str, address: str) -> Running:
    """A system behind an address; whatever speaks `chorus.v1` can be asked by `chorus bench` too."""
    command = ["servers.load", "--protocol", protocol, "--address", address]
    return Running(context, command, address if protocol == "chorus" else None)


def start_chorus(context: Context, stack: ExitStack) -> Running:
    command = [str(context.chorus), "up", "--models", str(context.models), "--listen", "127.0.0.1:0"]
    # The first address of what `up` says is the coordinator's, and it is said once all members are up.
    return served(context, "chorus", started(stack, context, command, "http://").split()[0])


def grpc_aio(library: str, design: str) -> Callable[[Context, ExitStack], Running]:
    def start(context: Context, stack: ExitStack) -> Running:
        words = [sys.executable, "-m", "servers.grpc_coordinator", "--design", design]
        for name in sorted(NAMES):
            member = [sys.executable, "-m", "servers.grpc_member", "--library", library]
            words += ["--member", started(stack, context, [*member, "--model", str(context.models / name)])]
        return served(context, "chorus", started(stack, context, words))

    return start


def ray_serve(library: str, design: str) -> Callable[[Context, ExitStack], Running]:
    def start(context: Context, stack: ExitStack) -> Running:
        words = [sys.executable, "-m", "servers.ray_serve", "--models", str(context.models)]
        return served(context, "chorus", started(stack, context, [*words, "--library", library, "--design", design]))

    return start


def triton(library: str) -> Callable[[Context, ExitStack], Running]:
    def start(context: Context, stack: ExitStack) -> Running:
        words = [sys.executable, "-m", "servers.triton_server", "--models", str(context.models)]
        words += ["--library", library, "--wheel", str(context.triton_wheel)]
        return served(context, "triton", started(stack, context, words))

    return start


def given_triton(context: Context, _stack: ExitStack) -> Running:
    return served(context, "triton", str(context.triton_address))


def in_process(library: str, threads: int) -> Callable[[Context, ExitStack], Running]:
    def start(context: Context, _stack: ExitStack) -> Running:
        command = ["servers.in_process", "--models", str(context.models), "--library", library]
        return Running(context, [*command, "--threads", str(threads)])

    return start

