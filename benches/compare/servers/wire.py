"""Between messages and arrays: the members' hop, and `chorus.v1` as the clients speak it. Knows no network.

What it imports beside numpy was generated from the protos when the comparison started (see `generated`).
"""

from __future__ import annotations

import member_pb2
import numpy
from chorus.v1 import ensemble_pb2 as v1
from chorus.v1.request_pb2 import Input, TokenIds

from servers import models
from servers.hosted import SLOTS, Group
from servers.models import SHAPE


def frame(groups: list[Group]) -> member_pb2.Frame:
    return member_pb2.Frame(
        groups=[
            member_pb2.Group(slots=group.slots.tobytes(), fresh=group.fresh, tokens=group.tokens.tobytes())
            for group in groups
        ]
    )


def groups(message: member_pb2.Frame) -> list[Group]:
    found = []
    for group in message.groups:
        slots = numpy.frombuffer(group.slots, numpy.int32)
        found.append(Group(slots, group.fresh, numpy.frombuffer(group.tokens, numpy.int32).reshape(-1, len(slots))))
    return found


def texts_message(texts: list[numpy.ndarray]) -> member_pb2.Texts:
    return member_pb2.Texts(texts=[member_pb2.Text(length=len(text), tokens=text.tobytes()) for text in texts])


def texts(message: member_pb2.Texts) -> list[numpy.ndarray]:
    return [numpy.frombuffer(text.tokens, numpy.int32).reshape(text.length, -1) for text in message.texts]


def rows_message(arrays: list[numpy.ndarray]) -> member_pb2.Rows:
    return member_pb2.Rows(rows=[array.astype(numpy.float32, copy=False).tobytes() for array in arrays])


def probability_rows(message: member_pb2.Rows) -> list[numpy.ndarray]:
    return [numpy.frombuffer(rows, numpy.float32).reshape(-1, SHAPE.vocabulary) for rows in message.rows]


def score_rows(message: member_pb2.Rows, lengths: list[int]) -> list[numpy.ndarray]:
    pairs = zip(message.rows, lengths, strict=True)
    return [numpy.frombuffer(rows, numpy.float32).reshape(length, -1) for rows, length in pairs]


def input_tokens(message: Input) -> list[int]:
    """The tokens of a `chorus.v1.Input`, which are text or ids."""
    return list(message.tokens.ids) if message.HasField("tokens") else models.tokens(message.text)


def generate_request(prompt: list[int], count: int) -> v1.GenerateRequest:
    sampling = v1.SamplingOptions(temperature=0)
    return v1.GenerateRequest(prompt=Input(tokens=TokenIds(ids=prompt)), max_tokens=count, sampling=sampling)


def complete_reply(prompt: list[int], generated: list[int]) -> v1.CompleteReply:
    """The answer without a message for each token in it, in the rivals' favour."""
    end = v1.GenerationEnd(reason="MAX_TOKENS", prompt_tokens=len(prompt), generated_tokens=len(generated))
    return v1.CompleteReply(text=models.text(generated), end=end)


def score_request(tokens: list[int]) -> v1.ScoreRequest:
    return v1.ScoreRequest(input=Input(tokens=TokenIds(ids=tokens)))


def score_reply(tokens: list[int], log_probability: float) -> v1.ScoreReply:
    return v1.ScoreReply(tokens=len(tokens), log_prob=log_probability)


def status_reply() -> v1.StatusReply:
    """As much as a load generator has to know."""
    limits = v1.RequestLimits(
        max_input_tokens=1_000, max_generated_tokens=1_000, max_input_bytes=10_000, max_sessions=SLOTS
    )
    return v1.StatusReply(vocabulary_size=SHAPE.vocabulary, limits=limits, serving=True)
