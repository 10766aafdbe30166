"""The weighted average, as every Python system computes it. Knows nothing about where the members are."""

from __future__ import annotations

import numpy


def next_tokens(probabilities: list[numpy.ndarray], weights: list[float]) -> list[int]:
    """The likeliest token of each row of the mixture; rows are f32 [B, V], one array a member."""
    mixture = weights[0] * probabilities[0]
    for weight, rows in zip(weights[1:], probabilities[1:], strict=True):
        mixture += weight * rows
    return mixture.argmax(axis=1).tolist()


def log_probability(log_probabilities: list[numpy.ndarray], weights: list[float]) -> numpy.ndarray:
    """log P of each sequence under the mixture, by the chain rule; inputs are [T, B], one array a member."""
    weighted = [array.astype(numpy.float64) + numpy.log(w) for array, w in zip(log_probabilities, weights, strict=True)]
    return numpy.logaddexp.reduce(weighted).sum(axis=0)


def softmax(logits: numpy.ndarray) -> numpy.ndarray:
    """Of every row of [..., V]; overwrites its argument."""
    logits -= logits.max(axis=-1, keepdims=True)
    numpy.exp(logits, out=logits)
    logits /= logits.sum(axis=-1, keepdims=True)
    return logits


def log_probabilities_of(logits: numpy.ndarray, targets: numpy.ndarray) -> numpy.ndarray:
    """log-softmax of [T, B, V] at the targets [T, B]."""
    largest = logits.max(axis=-1)
    log_sum = largest + numpy.log(numpy.exp(logits - largest[..., None]).sum(axis=-1))
    return numpy.take_along_axis(logits, targets[..., None], axis=-1)[..., 0] - log_sum
