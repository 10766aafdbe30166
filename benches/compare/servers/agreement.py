"""Whether all systems give the same answers. Knows nothing about how they were asked."""

from __future__ import annotations

from typing import Any

from servers import work

# Of the log-probability of a text of 32 tokens.
TOLERANCE = 1e-4


def difference(kind: str, expected: list[Any], found: list[Any]) -> str | None:
    """What is not the same, in words; None where everything is."""
    if len(expected) != len(found):
        return f"{len(found)} answers instead of {len(expected)}"
    for number, (one, other) in enumerate(zip(expected, found, strict=True)):
        if kind == work.GENERATE and list(one) != list(other):
            return f"request {number} generated {other} instead of {one}"
        if kind == work.SCORE and abs(one - other) > TOLERANCE:
            return f"request {number} has log-probability {other:.6f} instead of {one:.6f}"
    return None
