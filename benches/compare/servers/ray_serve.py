"""The ensemble on Ray Serve: `python -m servers.ray_serve --models DIR --library onnxruntime|torch --design calls|frames`.

A deployment for each member and one that fuses, which Serve's gRPC proxy offers as `chorus.v1.Ensemble`. In the design
`calls` the members batch with `@serve.batch`, in `frames` the fusing deployment sends each member whole batches.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
from pathlib import Path
from typing import Any

import numpy

from servers import models
from servers.hosted import LIBRARIES, SLOTS, Group, Hosted
from servers.life import announce, free_port, until_stopped

# Serve's own switches for speed: no threads and loops of its own between a request and the code that answers it, gRPC
# between deployments, and no access log.
TUNING = {
    "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",
    "RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP": "0",
    "RAY_SERVE_USE_GRPC_BY_DEFAULT": "1",
    "RAY_SERVE_LOG_TO_STDERR": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
}
SERVICE = "chorus.v1.ensemble_pb2_grpc.add_EnsembleServicer_to_server"
# Logical processors, so that every deployment finds a place whatever the machine has.
LOGICAL_PROCESSORS = 8


def application(folder: Path, library: str, design: str) -> Any:
    from ray import serve

    from servers.coordinator import DESIGNS

    @serve.deployment(max_ongoing_requests=SLOTS, ray_actor_options={"num_cpus": 1})
    class Member:
        """One model; what is called while it computes is its next batch."""

        def __init__(self, directory: str) -> None:
            self.hosted = Hosted(Path(directory), library, threads=1)

        @serve.batch(max_batch_size=SLOTS, batch_wait_timeout_s=0)
        async def step(self, calls: list[list[Group]]) -> list[list[numpy.ndarray]]:
            answers = iter(self.hosted.step([group for groups in calls for group in groups]))
            return [[next(answers) for _ in groups] for groups in calls]

        @serve.batch(max_batch_size=SLOTS, batch_wait_timeout_s=0)
        async def score(self, calls: list[list[numpy.ndarray]]) -> list[list[numpy.ndarray]]:
            answers = iter(self.hosted.score([text for texts in calls for text in texts]))
            return [[next(answers) for _ in texts] for texts in calls]

    class Remote:
        """A member through Serve's handle."""

        def __init__(self, handle: Any) -> None:
            self.handle = handle

        async def step(self, groups: list[Group]) -> list[numpy.ndarray]:
            return await self.handle.step.remote(groups)

        async def score(self, texts: list[numpy.ndarray]) -> list[numpy.ndarray]:
            return await self.handle.score.remote(texts)

    @serve.deployment(max_ongoing_requests=SLOTS, ray_actor_options={"num_cpus": 1})
    class Ensemble:
        """The clients' side."""

        def __init__(self, weights: list[float], *handles: Any) -> None:
            self.handles, self.weights = handles, weights
            self.started: Any = None

        def coordinator(self) -> Any:
            # Made with the first request: a constructor has no event loop for the tasks of `Frames`.
            if self.started is None:
                self.started = DESIGNS[design]([Remote(handle) for handle in self.handles], self.weights)
            return self.started

        async def Complete(self, request: Any) -> Any:
            from servers import wire

            prompt = wire.input_tokens(request.prompt)
            return wire.complete_reply(prompt, await self.coordinator().generate(prompt, request.max_tokens))

        async def Score(self, request: Any) -> Any:
            from servers import wire

            tokens = wire.input_tokens(request.input)
            return wire.score_reply(tokens, await self.coordinator().score(tokens))

        async def Status(self, _request: Any) -> Any:
            from servers import wire

            return wire.status_reply()

    members = models.read(folder)
    handles = [
        Member.options(name=member.directory.name).bind(str(member.directory)) for member in members
    ]
    return Ensemble.bind([member.weight for member in members], *handles)


async def serve_until_stopped(arguments: argparse.Namespace) -> None:
    import ray
    from ray import serve
    from ray.serve.config import gRPCOptions

    ray.init(
        num_cpus=LOGICAL_PROCESSORS,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        object_store_memory=100 << 20,
        _node_ip_address="127.0.0.1",
    )
    try:
        port = free_port()
        serve.start(
            proxy_location="HeadOnly",
            http_options={"host": "127.0.0.1", "port": free_port()},
            grpc_options=gRPCOptions(port=port, grpc_servicer_functions=[SERVICE]),
            logging_config={"enable_access_log": False, "log_level": "ERROR"},
        )
        app = application(arguments.models.resolve(), arguments.library, arguments.design)
        await asyncio.to_thread(serve.run, app, name="ensemble", route_prefix="/")
        announce(f"127.0.0.1:{port}")
        await until_stopped()
    finally:
        ray.shutdown()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--library", choices=LIBRARIES, required=True)
    parser.add_argument("--design", choices=("calls", "frames"), required=True)
    os.environ.update(TUNING)
    asyncio.run(serve_until_stopped(parser.parse_args()))


if __name__ == "__main__":
    main()
