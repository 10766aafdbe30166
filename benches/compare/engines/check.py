"""Whether all engines compute the same: their logits against PyTorch's. Knows nothing about time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy

from engines.child import Child, EngineError
from engines.shapes import Shape

# Largest allowed difference of a logit on the CPU; int8 is reported and not judged.
TOLERANCES = {"f32": 1e-5}
# The same on a device, as a share of the largest logit.
SHARES_ON_DEVICE = {"f32": 1e-5, "bf16": 1e-2}
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
    on_device: bool

    def allowed(self) -> float | None:
        if self.on_device:
            share = SHARES_ON_DEVICE.get(self.precision)
            return None if share is None else share * self.largest
        return TOLERANCES.get(self.precision)

    def fine(self) -> bool:
        allowed = self.allowed()
        # What PyTorch loses in 16 bits is said and not judged.
        is_judged = not self.on_device or self.engine.startswith("chorus")
        return allowed is None or self.error <= allowed or not is_judged

    def text(self) -> str:
        bound = self.allowed()
        allowed = "" if bound is None else f", allowed is {bound:.1e}"
        return f"{self.shape}: {self.engine} is within {self.error:.1e} of PyTorch's logits (up to {self.largest:.1f}){allowed}"

    def as_json(self) -> dict[str, Any]:
        return {"engine": self.engine, "shape": vars(self.shape), "error": self.error, "fine": self.fine()}


def against_pytorch(shape: Shape, engines: dict[tuple[str, str], Child], on_device: bool) -> list[Check]:
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
        checks.append(Check(shape, child.name, precision, error, float(numpy.abs(expected).max()), on_device))
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
