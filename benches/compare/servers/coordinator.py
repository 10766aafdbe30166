"""How the Python systems drive their members: two designs behind one face. Knows nothing about what carries the calls.

`Calls`: a request asks the members for itself, token by token; the members make batches of what arrives together.
`Frames`: all requests in progress go through one loop; each turn is one call to each member, with everybody's token.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Protocol

import numpy

from servers import fusion
from servers.hosted import SLOTS, Group


class Member(Protocol):
    """A member somewhere else."""

    async def step(self, groups: list[Group]) -> list[numpy.ndarray]: ...

    async def score(self, texts: list[numpy.ndarray]) -> list[numpy.ndarray]: ...


class Coordinator(Protocol):
    """What both designs offer."""

    async def generate(self, prompt: list[int], count: int) -> list[int]: ...

    async def score(self, tokens: list[int]) -> float: ...


class Calls:
    """Each request for itself."""

    def __init__(self, members: list[Member], weights: list[float]) -> None:
        self.members, self.weights = members, weights
        self.free = list(range(SLOTS))

    async def generate(self, prompt: list[int], count: int) -> list[int]:
        slot = self.free.pop()
        try:
            group = Group(numpy.array([slot], numpy.int32), True, column(prompt))
            generated: list[int] = []
            while len(generated) < count:
                answers = await asyncio.gather(*(member.step([group]) for member in self.members))
                generated += fusion.next_tokens([rows for (rows,) in answers], self.weights)
                group = Group(group.slots, False, column(generated[-1:]))
            return generated
        finally:
            self.free.append(slot)

    async def score(self, tokens: list[int]) -> float:
        text = column(tokens)
        answers = await asyncio.gather(*(member.score([text]) for member in self.members))
        return float(fusion.log_probability([rows for (rows,) in answers], self.weights)[0])


@dataclass
class Generation:
    """A request in the loop."""

    prompt: list[int]
    count: int
    done: asyncio.Future[list[int]]
    slot: int = -1
    generated: list[int] = field(default_factory=list)


class Frames:
    """All requests together: whoever arrives joins at the next turn, whoever is done leaves."""

    def __init__(self, members: list[Member], weights: list[float]) -> None:
        self.members, self.weights = members, weights
        self.free = list(range(SLOTS))
        self.arrived: list[Generation] = []
        self.texts: list[tuple[list[int], asyncio.Future[float]]] = []
        self.generation_came, self.text_came = asyncio.Event(), asyncio.Event()
        # Held, since the event loop holds no task that only waits.
        self.loops = [asyncio.create_task(self.generate_all()), asyncio.create_task(self.score_all())]

    async def generate(self, prompt: list[int], count: int) -> list[int]:
        request = Generation(prompt, count, asyncio.get_running_loop().create_future())
        self.arrived.append(request)
        self.generation_came.set()
        return await request.done

    async def score(self, tokens: list[int]) -> float:
        done: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self.texts.append((tokens, done))
        self.text_came.set()
        return await done

    async def generate_all(self) -> None:
        running: list[Generation] = []
        while True:
            if not running:
                await self.generation_came.wait()
            self.generation_came.clear()
            fresh, self.arrived = self.arrived, []
            for request in fresh:
                request.slot = self.free.pop()
            groups = self.groups(fresh, running)
            in_order = [request for _, members in groups for request in members]
            answers = await asyncio.gather(*(member.step([group for group, _ in groups]) for member in self.members))
            tokens = fusion.next_tokens([numpy.concatenate(rows) for rows in answers], self.weights)
            for request, token in zip(in_order, tokens, strict=True):
                request.generated.append(token)
                if len(request.generated) == request.count:
                    self.free.append(request.slot)
                    if not request.done.done():
                        request.done.set_result(request.generated)
            running = [request for request in in_order if len(request.generated) < request.count]

    def groups(self, fresh: list[Generation], running: list[Generation]) -> list[tuple[Group, list[Generation]]]:
        """One group for the running ones, and one for each length of prompt."""
        groups = []
        if running:
            tokens = numpy.array([[request.generated[-1] for request in running]], numpy.int32)
            groups.append((Group(slots(running), False, tokens), running))
        for length in {len(request.prompt) for request in fresh}:
            members = [request for request in fresh if len(request.prompt) == length]
            tokens = numpy.array([request.prompt for request in members], numpy.int32).T
            groups.append((Group(slots(members), True, tokens), members))
        return groups

    async def score_all(self) -> None:
        while True:
            await self.text_came.wait()
            self.text_came.clear()
            taken, self.texts = self.texts, []
            for length in {len(tokens) for tokens, _ in taken}:
                asked = [(tokens, done) for tokens, done in taken if len(tokens) == length]
                text = numpy.array([tokens for tokens, _ in asked], numpy.int32).T
                answers = await asyncio.gather(*(member.score([text]) for member in self.members))
                scores = fusion.log_probability([rows for (rows,) in answers], self.weights)
                for (_, done), score in zip(asked, scores.tolist(), strict=True):
                    if not done.done():
                        done.set_result(score)


DESIGNS = {"calls": Calls, "frames": Frames}


def column(tokens: list[int]) -> numpy.ndarray:
    return numpy.array(tokens, numpy.int32)[:, None]


def slots(requests: list[Generation]) -> numpy.ndarray:
    return numpy.array([request.slot for request in requests], numpy.int32)
