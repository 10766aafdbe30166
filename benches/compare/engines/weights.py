"""Random weights from a seed, as the file that every engine reads. Knows nothing about engines."""

from __future__ import annotations

from pathlib import Path

import numpy
from safetensors.numpy import save_file

from engines.shapes import Shape

# Wider than PyTorch would start them, so that the logits are of size 1 and a wrong digit shows.
OUTPUT_SCALE = 16.0


def write(path: Path, shape: Shape, seed: int) -> None:
    """Writes the weights of a shape, f32. The same seed gives the same file."""
    draw = numpy.random.default_rng(seed)
    save_file({name: uniform(draw, size, bound(name, shape)) for name, size in shape.tensors().items()}, path)


def bound(name: str, shape: Shape) -> float:
    """PyTorch's bounds: ±1/√H, and an embedding of variance one."""
    if name.startswith("embed"):
        return 3**0.5
    return (OUTPUT_SCALE if name == "linear.weight" else 1.0) / shape.hidden**0.5


def uniform(draw: numpy.random.Generator, size: tuple[int, ...], within: float) -> numpy.ndarray:
    values = draw.random(size, dtype=numpy.float32)
    values *= 2 * within
    values -= within
    return values


def tokens(vocabulary: int, length: int, batch: int) -> numpy.ndarray:
    """Random tokens, i64 of shape [length, batch]; what a measured call reads."""
    draw = numpy.random.default_rng(length * 1_000 + batch)
    return draw.integers(0, vocabulary, (length, batch), dtype=numpy.int64)
