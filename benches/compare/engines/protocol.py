"""The line protocol between the measuring program and an engine: the engine's side, for engines written in Python.

An engine is a child process. It prints `ready`, reads one command a line and answers each with one line of JSON:

    step B REPEATS       one decode step of a batch of B with the state carried on  {"microseconds": [...], "checksum": x}
    score B T REPEATS    the logits of T tokens of B sequences from a zero state    {"microseconds": [...], "checksum": x}
    logits TOKENS...     the logits after these tokens, from a zero state           {"logits": [...]}
    bandwidth REPEATS    read bandwidth                                             {"gigabytes_per_second": [...]}
    sgemm REPEATS        matrix multiplication, on a device in the engine's own numbers, else in f32                                  {"gigaflops": [...]}
    quit                 ends the process

While no command is there the engine blocks in a read, so that nothing of it runs while another is measured. Engines in
Python have two commands more: `modes KIND` lists the ways in which they can do a `step` or a `score`, and `mode NAME`
chooses one.

Knows nothing about any library.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Protocol

import numpy


class Call(Protocol):
    """A prepared computation: each call does it once and returns its logits, [T, B, V]."""

    def __call__(self) -> numpy.ndarray: ...


class Engine(Protocol):
    """What a library has to offer."""

    def modes(self, kind: str) -> list[str]:
        """The ways to do a `step` or a `score` that work here."""

    def prepare(self, mode: str, batch: int, length: int, carried: bool) -> Call:
        """Makes ready for tokens [length, batch]; `carried` goes on from the last call's state."""

    def logits(self, mode: str, tokens: list[int]) -> numpy.ndarray:
        """The logits after the last of the tokens, [V]."""

    def bandwidth(self) -> tuple[Callable[[], object], int]:
        """A call that reads memory, and how many bytes it reads."""

    def sgemm(self) -> tuple[Callable[[], object], int]:
        """A call that multiplies f32 matrices, and its floating point operations."""


def serve(engine: Engine) -> None:
    """Answers commands until `quit` or the end of the input."""
    server = Server(engine)
    print("ready", flush=True)
    for line in sys.stdin:
        command, *arguments = line.split()
        if command == "quit":
            return
        print(json.dumps(server.answer(command, arguments)), flush=True)


class Server:
    """One engine, its chosen mode, and the last prepared call."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.mode = ""
        self.prepared: tuple[tuple[str, int, int, bool], Call] | None = None

    def answer(self, command: str, arguments: list[str]) -> dict[str, object]:
        if command == "modes":
            return {"modes": self.engine.modes(arguments[0])}
        if command == "mode":
            self.mode = arguments[0]
            return {"mode": self.mode}
        numbers = [int(argument) for argument in arguments]
        if command == "step":
            return self.timed(numbers[0], 1, True, numbers[1])
        if command == "score":
            return self.timed(numbers[0], numbers[1], False, numbers[2])
        if command == "logits":
            return {"logits": self.engine.logits(self.mode, numbers).tolist()}
        if command == "bandwidth":
            return {"gigabytes_per_second": rates(*self.engine.bandwidth(), numbers[0])}
        if command == "sgemm":
            return {"gigaflops": rates(*self.engine.sgemm(), numbers[0])}
        return {"error": f"there is no command {command!r}"}

    def timed(self, batch: int, length: int, carried: bool, repeats: int) -> dict[str, object]:
        call = self.call(batch, length, carried)
        microseconds = []
        logits = None
        for _ in range(repeats):
            started = time.perf_counter_ns()
            logits = call()
            microseconds.append((time.perf_counter_ns() - started) / 1e3)
        return {"microseconds": microseconds, "checksum": 0.0 if logits is None else float(logits.sum())}

    def call(self, batch: int, length: int, carried: bool) -> Call:
        key = (self.mode, batch, length, carried)
        if self.prepared is None or self.prepared[0] != key:
            # The old one first: in the large shapes its logits alone are hundreds of MB.
            self.prepared = None
            self.prepared = (key, self.engine.prepare(*key))
        return self.prepared[1]


def rates(call: Callable[[], object], work: int, repeats: int) -> list[float]:
    """What `work` units a call come to in units a nanosecond, which is G a second."""
    measured = []
    for _ in range(repeats):
        started = time.perf_counter_ns()
        call()
        measured.append(work / (time.perf_counter_ns() - started))
    return measured
