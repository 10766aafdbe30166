"""What every process of a comparison does the same: say where it listens, and end when it is told to.

Knows nothing about what the process serves.
"""

from __future__ import annotations

import asyncio
import signal
import socket
import sys

LISTENING = "listening on "


def announce(address: str) -> None:
    print(f"{LISTENING}{address}", flush=True)


def free_port() -> int:
    """A port of loopback that nobody listens on, for servers that can't choose one and say which."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


async def until_stopped() -> None:
    """Returns at SIGINT or SIGTERM, or when the process that started this one is gone."""
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    # Its end of standard input is held open by whoever started this process.
    loop.add_reader(sys.stdin, stopped.set)
    await stopped.wait()
