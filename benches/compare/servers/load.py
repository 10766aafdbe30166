"""A closed-loop load generator, a process of its own: `python -m servers.load --protocol chorus|triton --address ADDRESS
--work score|generate --concurrency N --seconds S` prints one line of JSON.

As many callers as the concurrency says; each asks again as soon as it has its answer. Knows what a request is on each
wire, and nothing about the systems behind it. Answers are counted and not parsed, so that a slow parser limits nobody;
`--answers N` asks for the first N requests one by one instead, and prints what was answered.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from itertools import cycle

import grpc
import uvloop

from servers import models, wire, work
from servers.rate import Window

# An answer that takes longer is an error, and ends the run.
TIMEOUT_SECONDS = 120
# Generated tokens, or a log-probability.
Answer = list[int] | float
# Sends one request; the answer where it is wanted.
Ask = Callable[[list[int], bool], Awaitable[Answer | None]]


def chorus_ask(channel: grpc.aio.Channel, kind: str) -> Ask:
    """`chorus.v1.Ensemble`: a text and its log-probability, a prompt and its whole continuation."""
    from chorus.v1 import ensemble_pb2 as v1

    if kind == work.SCORE:
        score = channel.unary_unary("/chorus.v1.Ensemble/Score")

        async def ask(tokens: list[int], wanted: bool) -> Answer | None:
            reply = await score(wire.score_request(tokens).SerializeToString(), timeout=TIMEOUT_SECONDS)
            return v1.ScoreReply.FromString(reply).log_prob if wanted else None

        return ask
    complete = channel.unary_unary("/chorus.v1.Ensemble/Complete")

    async def ask_whole(tokens: list[int], wanted: bool) -> Answer | None:
        request = wire.generate_request(tokens, work.GENERATED_TOKENS).SerializeToString()
        reply = await complete(request, timeout=TIMEOUT_SECONDS)
        return models.tokens(v1.CompleteReply.FromString(reply).text) if wanted else None

    return ask_whole


def triton_ask(channel: grpc.aio.Channel, kind: str) -> Ask:
    """Triton's own protocol: a request is one tensor, and so is an answer."""
    import numpy
    from tritonclient.grpc import service_pb2

    infer = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
    output, number = ("TOKENS", numpy.int32) if kind == work.GENERATE else ("LOG_PROBABILITY", numpy.float64)

    async def ask(tokens: list[int], wanted: bool) -> Answer | None:
        request = service_pb2.ModelInferRequest(model_name=kind)
        request.inputs.add(name="INPUT", datatype="INT32", shape=[1, len(tokens)])
        request.outputs.add(name=output)
        request.raw_input_contents.append(numpy.array(tokens, numpy.int32).tobytes())
        reply = await infer(request.SerializeToString(), timeout=TIMEOUT_SECONDS)
        if not wanted:
            return None
        contents = service_pb2.ModelInferResponse.FromString(reply).raw_output_contents[0]
        values = numpy.frombuffer(contents, number).tolist()
        return values if kind == work.GENERATE else values[0]

    return ask


PROTOCOLS = {"chorus": chorus_ask, "triton": triton_ask}


async def answers(ask: Ask, kind: str, count: int) -> dict[str, object]:
    return {"answers": [await ask(tokens, True) for tokens in work.requests(kind)[:count]]}


async def closed_loop(ask: Ask, kind: str, concurrency: int, seconds: float) -> dict[str, object]:
    """Requests a second, and how much of a core this client took: near 1 means that it was the limit."""
    requests = cycle(work.requests(kind))
    window = Window(concurrency, seconds)

    async def caller() -> None:
        while not window.over:
            await ask(next(requests), False)
            window.answered(time.perf_counter(), time.process_time())

    async with asyncio.TaskGroup() as callers:
        for _ in range(concurrency):
            callers.create_task(caller())
    return {"requests_per_second": window.rate(), "client_cores": window.cores(), "requests": window.counted}


async def run(arguments: argparse.Namespace) -> None:
    async with grpc.aio.insecure_channel(arguments.address) as channel:
        ask = PROTOCOLS[arguments.protocol](channel, arguments.work)
        if arguments.answers:
            result = await answers(ask, arguments.work, arguments.answers)
        else:
            result = await closed_loop(ask, arguments.work, arguments.concurrency, arguments.seconds)
    print(json.dumps(result))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--protocol", choices=tuple(PROTOCOLS), required=True)
    parser.add_argument("--address", required=True)
    parser.add_argument("--work", choices=work.WORKS, required=True)
    parser.add_argument("--concurrency", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--answers", type=int, default=0)
    uvloop.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
