"""A member behind `grpc.aio`: `python -m servers.grpc_member --model DIR --library onnxruntime|torch`.

What arrives while the model computes is the next batch; nobody waits for a timer.
"""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path

import grpc
import member_pb2_grpc
import uvloop
from member_pb2 import Frame, Rows, Texts

from servers import wire
from servers.hosted import LIBRARIES, Group, Hosted
from servers.life import announce, until_stopped


class Service(member_pb2_grpc.MemberServicer):
    """Queues what is asked, and answers all of it at once."""

    def __init__(self, hosted: Hosted) -> None:
        self.hosted = hosted
        self.steps: list[tuple[list[Group], asyncio.Future]] = []
        self.texts: list[tuple[list, asyncio.Future]] = []
        self.came = asyncio.Event()
        self.batcher = asyncio.create_task(self.answer_all())

    async def Step(self, request: Frame, _context: grpc.aio.ServicerContext) -> Rows:
        return wire.rows_message(await self.queued(self.steps, wire.groups(request)))

    async def Score(self, request: Texts, _context: grpc.aio.ServicerContext) -> Rows:
        return wire.rows_message(await self.queued(self.texts, wire.texts(request)))

    async def queued(self, queue: list, asked: list) -> list:
        done = asyncio.get_running_loop().create_future()
        queue.append((asked, done))
        self.came.set()
        return await done

    async def answer_all(self) -> None:
        while True:
            await self.came.wait()
            self.came.clear()
            for queue, compute in ((self.steps, self.hosted.step), (self.texts, self.hosted.score)):
                taken = queue[:]
                queue.clear()
                if taken:
                    # On this thread: at this size another one would cost as much as the model itself.
                    answers = iter(compute([one for asked, _ in taken for one in asked]))
                    for asked, done in taken:
                        part = [next(answers) for _ in asked]
                        if not done.done():
                            done.set_result(part)
            # Lets what came in meanwhile reach the queues.
            await asyncio.sleep(0)


async def serve(arguments: argparse.Namespace) -> None:
    server = grpc.aio.server()
    service = Service(Hosted(arguments.model, arguments.library, arguments.threads))
    member_pb2_grpc.add_MemberServicer_to_server(service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    announce(f"127.0.0.1:{port}")
    await until_stopped()
    await server.stop(None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--library", choices=LIBRARIES, required=True)
    parser.add_argument("--threads", type=int, default=1)
    uvloop.run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()
