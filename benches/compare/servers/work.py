"""What the systems are asked to do. Knows nothing about how they are asked."""

from __future__ import annotations

import numpy

from servers.models import SHAPE

SCORE, GENERATE = "score", "generate"
WORKS = (SCORE, GENERATE)
SCORED_TOKENS = 32
PROMPT_TOKENS = 8
GENERATED_TOKENS = 32
# Different requests, asked in turn.
REQUESTS = 64
# How many of them are compared between the systems before anything is measured.
CHECKED = 6


def requests(work: str) -> list[list[int]]:
    """The tokens of every request: a prompt, or a text to score."""
    length = SCORED_TOKENS if work == SCORE else PROMPT_TOKENS
    draw = numpy.random.default_rng(WORKS.index(work))
    return draw.integers(0, SHAPE.vocabulary, (REQUESTS, length)).tolist()
