"""The interleaved run: rounds over engines, medians over rounds. Knows nothing about libraries, files or printing."""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import median

from engines import machine
from engines.child import Child

# A mode that is slower than the best of its library by more than this factor is not measured to the end.
HOPELESS = 1.25
FEWEST_REPEATS, MOST_REPEATS = 3, 2_000
# A call that takes longer is not repeated within a round.
LONG_CALL_MICROSECONDS = 1e6


@dataclass(frozen=True)
class Work:
    """What is measured: a `step` of a batch, or a `score` of a batch of sequences."""

    kind: str
    batch: int
    length: int

    def command(self, repeats: int) -> str:
        if self.kind == "step":
            return f"step {self.batch} {repeats}"
        return f"score {self.batch} {self.length} {repeats}"

    def rows(self) -> int:
        return self.batch * (self.length if self.kind == "score" else 1)


@dataclass
class Contender:
    """An engine in one of its modes, and what was measured of it."""

    library: str
    precision: str
    mode: str | None
    child: Child
    # Microseconds of a call: the median of each round.
    rounds: list[float] = field(default_factory=list)
    # Cores that others used meanwhile, for each round.
    others: list[float] = field(default_factory=list)
    estimate: float = 0.0

    @property
    def microseconds(self) -> float:
        return median(self.rounds)

    def choose(self) -> None:
        if self.mode is not None:
            self.child.ask(f"mode {self.mode}")

    def run(self, work: Work, repeats: int) -> float:
        """The median of some repeats, microseconds."""
        return median(self.child.ask(work.command(repeats))["microseconds"])


@dataclass(frozen=True)
class Pace:
    """How long and how often."""

    rounds: int
    # Seconds that an engine computes in a round, about.
    block: float
    # Seconds to wait for a quiet machine before each block.
    patience: float


def contenders(child: Child, library: str, precision: str, work: Work, each: bool) -> list[Contender]:
    """Every mode in which an engine in Python can do this work, `each` as a library of its own or the best one for all; the
    Rust engine has no modes."""
    if library == "chorus":
        return [Contender(library, precision, None, child)]
    modes = child.ask(f"modes {work.kind}")["modes"]
    return [Contender(f"{library} {mode}" if each else library, precision, mode, child) for mode in modes]


def compare(everyone: list[Contender], work: Work, pace: Pace) -> list[Contender]:
    """Measures all contenders in turn, round by round, and gives the best of each library and precision."""
    for contender in everyone:
        warm_up(contender, work)
    hopeful = [contender for contender in everyone if contender.estimate <= HOPELESS * best_estimate(contender, everyone)]
    for number in range(pace.rounds):
        # Back and forth, so that nobody always runs behind the same neighbour.
        for contender in hopeful if number % 2 == 0 else hopeful[::-1]:
            measure_round(contender, work, pace)
    best: dict[tuple[str, str], Contender] = {}
    for contender in hopeful:
        key = (contender.library, contender.precision)
        if key not in best or contender.microseconds < best[key].microseconds:
            best[key] = contender
    return list(best.values())


def warm_up(contender: Contender, work: Work) -> None:
    """Lets the engine make what it makes once, and learns how long a call takes."""
    contender.choose()
    contender.run(work, 1)
    contender.estimate = contender.run(work, 1)
    if contender.estimate < LONG_CALL_MICROSECONDS:
        contender.estimate = contender.run(work, FEWEST_REPEATS)


def best_estimate(contender: Contender, everyone: list[Contender]) -> float:
    same = [one for one in everyone if (one.library, one.precision) == (contender.library, contender.precision)]
    return min(one.estimate for one in same)


def measure_round(contender: Contender, work: Work, pace: Pace) -> None:
    contender.choose()
    machine.wait_until_quiet(pace.patience)
    repeats = 1
    if contender.estimate < LONG_CALL_MICROSECONDS:
        # The caches hold the last engine's weights: not what a server that goes on has.
        contender.run(work, FEWEST_REPEATS)
        repeats = max(FEWEST_REPEATS, min(MOST_REPEATS, int(pace.block * 1e6 / contender.estimate)))
    others = machine.Others(contender.child.processor_seconds())
    contender.rounds.append(contender.run(work, repeats))
    contender.others.append(others.cores(contender.child.processor_seconds()))
