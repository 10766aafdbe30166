"""Whether all engines compute the same: their logits against PyTorch's. Knows nothing about time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy

from engines.child import Child, EngineError
from engines.shapes import Shape

# Largest allowed difference of a logit in f32; int8 is reported and not judged.
TOLERANCE = 1e-5
TOKENS = 24


@dataclass(frozen=True)
class Check:
    """One engine's logits against those of PyTorch in f32: the worst of its modes."""

    shape: Shape
    engine: str
    precision: str
    # Largest absolute difference of a logit, and the largest absolute logit.
    error: float
    largest: float

    def fine(self) -> bool:
        return self.precision != "f32" or self.error <= TOLERANCE

    def text(self) -> str:
        allowed = f", allowed is {TOLERANCE:g}" if self.precision == "f32" else ""
        return f"{self.shape}: {self.engine} is within {self.error:.1e} of PyTorch's logits (up to {self.largest:.1f}){allowed}"

    def as_json(self) -> dict[str, Any]:
        return {"engine": self.engine, "shape": vars(self.shape), "error": self.error, "fine": self.fine()}


def against_pytorch(shape: Shape, engines: dict[tuple[str, str], Child]) -> list[Check]:
    """Every engine; empty where PyTorch in f32 is not among the engines."""
    reference = engines.get(("pytorch", "f32"))
    if reference is None:
        return []
    draw = numpy.random.default_rng(7)
    tokens = " ".join(str(token) for token in draw.integers(0, shape.vocabulary, TOKENS))
    reference.ask("mode lstm")
    expected = logits(reference, tokens)
    checks = []
    for (library, precision), child in engines.items():
        error = max(float(numpy.abs(found - expected).max()) for found in in_every_mode(library, child, tokens))
        checks.append(Check(shape, child.name, precision, error, float(numpy.abs(expected).max())))
    return checks


def in_every_mode(library: str, child: Child, tokens: str) -> Iterator[numpy.ndarray]:
    """The Rust engine has one mode, and does not speak of modes."""
    if library == "chorus":
        yield logits(child, tokens)
        return
    for mode in child.ask("modes step")["modes"]:
        child.ask(f"mode {mode}")
        yield logits(child, tokens)


def logits(child: Child, tokens: str) -> numpy.ndarray:
    values = numpy.array(child.ask(f"logits {tokens}")["logits"], numpy.float64)
    if not numpy.isfinite(values).all():
        raise EngineError(f"{child.name}: its logits are not finite")
    return values
