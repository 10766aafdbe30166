"""Requests a second from the moments at which answers came. Knows nothing about requests; time is an argument."""

from __future__ import annotations

WARM_UP_SECONDS = 0.7


class Window:
    """Counts answers from the first one after a warm-up to the last one before the end.

    Answers often come in bursts, as many as there are callers, so that counting within fixed moments would be off by a
    burst. Here both ends of the window are answers: n more answers within the time between them.
    """

    def __init__(self, concurrency: int, seconds: float) -> None:
        self.warm_up_answers, self.seconds = concurrency, seconds
        self.over = False
        self.counted = 0
        self.seen = 0
        self.created: float | None = None
        # Time and processor time of the first and of the last answer that count.
        self.first: tuple[float, float] | None = None
        self.last: tuple[float, float] | None = None

    def answered(self, now: float, processor: float) -> None:
        """An answer came: seconds of the clock, and of this process on a processor."""
        self.seen += 1
        if self.created is None:
            self.created = now
        if self.first is None:
            warm = now - self.created >= WARM_UP_SECONDS and self.seen > self.warm_up_answers
            if warm:
                self.first = (now, processor)
            return
        if not self.over:
            self.counted += 1
            self.last = (now, processor)
            # A slow system is given the time to answer twice.
            self.over = now - self.first[0] >= self.seconds and self.counted >= 2 * self.warm_up_answers

    def rate(self) -> float:
        return self.counted / self.passed()[0]

    def cores(self) -> float:
        passed, processor = self.passed()
        return processor / passed

    def passed(self) -> tuple[float, float]:
        if self.first is None or self.last is None:
            raise ValueError("too few answers to speak of a rate")
        return self.last[0] - self.first[0], self.last[1] - self.first[1]
