"""A coordinator over members behind `grpc.aio`, which answers clients as `chorus.v1.Ensemble`:
`python -m servers.grpc_coordinator --design calls|frames --member ADDRESS --member ADDRESS ...`, with equal weights.
"""

from __future__ import annotations

import argparse

import grpc
import member_pb2_grpc
import numpy
import uvloop
from chorus.v1 import ensemble_pb2_grpc
from chorus.v1.ensemble_pb2 import (
    CompleteReply,
    GenerateRequest,
    ScoreReply,
    ScoreRequest,
    StatusReply,
    StatusRequest,
)

from servers import wire
from servers.coordinator import DESIGNS, Coordinator
from servers.hosted import Group
from servers.life import announce, until_stopped


class GrpcMember:
    """A member at an address."""

    def __init__(self, address: str) -> None:
        self.stub = member_pb2_grpc.MemberStub(grpc.aio.insecure_channel(address))

    async def step(self, groups: list[Group]) -> list[numpy.ndarray]:
        return wire.probability_rows(await self.stub.Step(wire.frame(groups)))

    async def score(self, texts: list[numpy.ndarray]) -> list[numpy.ndarray]:
        return wire.score_rows(await self.stub.Score(wire.texts_message(texts)), [len(text) for text in texts])


class Ensemble(ensemble_pb2_grpc.EnsembleServicer):
    """The clients' side."""

    def __init__(self, coordinator: Coordinator) -> None:
        self.coordinator = coordinator

    async def Complete(self, request: GenerateRequest, _context: grpc.aio.ServicerContext) -> CompleteReply:
        prompt = wire.input_tokens(request.prompt)
        return wire.complete_reply(prompt, await self.coordinator.generate(prompt, request.max_tokens))

    async def Score(self, request: ScoreRequest, _context: grpc.aio.ServicerContext) -> ScoreReply:
        tokens = wire.input_tokens(request.input)
        return wire.score_reply(tokens, await self.coordinator.score(tokens))

    async def Status(self, _request: StatusRequest, _context: grpc.aio.ServicerContext) -> StatusReply:
        return wire.status_reply()


async def serve(arguments: argparse.Namespace) -> None:
    members = [GrpcMember(address) for address in arguments.member]
    coordinator = DESIGNS[arguments.design](members, [1 / len(members)] * len(members))
    server = grpc.aio.server()
    ensemble_pb2_grpc.add_EnsembleServicer_to_server(Ensemble(coordinator), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    announce(f"127.0.0.1:{port}")
    await until_stopped()
    await server.stop(None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--design", choices=tuple(DESIGNS), required=True)
    parser.add_argument("--member", action="append", required=True, metavar="ADDRESS")
    uvloop.run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()
