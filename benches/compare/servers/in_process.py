"""No server at all: `python -m servers.in_process --models DIR --library onnxruntime|torch --work score|generate
--concurrency N --seconds S` calls the three models one after the other, all requests of a round as one batch.

It prints what `servers.load` prints. This is what a program gets that needs no server, and so the tax that each pays.
"""

from __future__ import annotations

import argparse
import json
import time
from itertools import cycle, islice
from pathlib import Path

import numpy

from servers import fusion, models, work
from servers.hosted import LIBRARIES, Group, Hosted
from servers.rate import Window


class Ensemble:
    """Three models and their mixture."""

    def __init__(self, folder: Path, library: str, threads: int) -> None:
        members = models.read(folder)
        self.weights = [member.weight for member in members]
        self.hosted = [Hosted(member.directory, library, threads) for member in members]

    def generate(self, prompts: list[list[int]], count: int) -> list[list[int]]:
        """All prompts in lock step; they have one length."""
        slots = numpy.arange(len(prompts), dtype=numpy.int32)
        group = Group(slots, True, numpy.array(prompts, numpy.int32).T)
        generated: list[list[int]] = []
        for _ in range(count):
            rows = [hosted.step([group])[0] for hosted in self.hosted]
            generated.append(fusion.next_tokens(rows, self.weights))
            group = Group(slots, False, numpy.array(generated[-1:], numpy.int32))
        return numpy.array(generated).T.tolist()

    def score(self, texts: list[list[int]]) -> list[float]:
        """All texts at once; they have one length."""
        batch = numpy.array(texts, numpy.int32).T
        rows = [hosted.score([batch])[0] for hosted in self.hosted]
        return fusion.log_probability(rows, self.weights).tolist()

    def answer(self, kind: str, requests: list[list[int]]) -> list[list[int]] | list[float]:
        return self.score(requests) if kind == work.SCORE else self.generate(requests, work.GENERATED_TOKENS)


def loop(ensemble: Ensemble, kind: str, batch: int, seconds: float) -> dict[str, object]:
    requests = cycle(work.requests(kind))
    window = Window(batch, seconds)
    while not window.over:
        ensemble.answer(kind, list(islice(requests, batch)))
        for _ in range(batch):
            window.answered(time.perf_counter(), time.process_time())
    return {"requests_per_second": window.rate(), "client_cores": window.cores(), "requests": window.counted}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--library", choices=LIBRARIES, required=True)
    parser.add_argument("--work", choices=work.WORKS, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--concurrency", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--answers", type=int, default=0)
    arguments = parser.parse_args()
    ensemble = Ensemble(arguments.models, arguments.library, arguments.threads)
    if arguments.answers:
        result = {"answers": ensemble.answer(arguments.work, work.requests(arguments.work)[: arguments.answers])}
    else:
        result = loop(ensemble, arguments.work, arguments.concurrency, arguments.seconds)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
