"""Tables and JSON of a server comparison. Knows nothing about how it was measured."""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import median
from typing import Any

from servers.systems import Measured, System

# A client in Python that takes this much of a core may be what limits the figure.
CLIENT_LIMIT_CORES = 0.7


@dataclass
class Cell:
    """One system under one load: a figure for each round."""

    system: System
    kind: str
    concurrency: int
    rounds: list[Measured] = field(default_factory=list)

    @property
    def requests_per_second(self) -> float:
        return median(one.requests_per_second for one in self.rounds)

    def limited_by_client(self) -> bool:
        used = [one.client_cores for one in self.rounds if one.client_cores is not None]
        return self.system.serves and len(used) == len(self.rounds) and median(used) > CLIENT_LIMIT_CORES

    def as_json(self) -> dict[str, Any]:
        return {
            "family": self.system.family,
            "design": self.system.design,
            "work": self.kind,
            "concurrency": self.concurrency,
            "requests_per_second": self.requests_per_second,
            "limited_by_client": self.limited_by_client(),
            "rounds": [vars(one) for one in self.rounds],
        }


def table(cells: list[Cell], kind: str) -> str:
    """Requests a second of one kind of work: every design, then Chorus against the best server and against none."""
    of_kind = [cell for cell in cells if cell.kind == kind]
    loads = sorted({cell.concurrency for cell in of_kind})
    names = list(dict.fromkeys(cell.system.name for cell in of_kind))
    lines = [row(f"{kind}, requests/s at concurrency", [str(load) for load in loads])]
    for name in names:
        found = {cell.concurrency: cell for cell in of_kind if cell.system.name == name}
        lines.append(row(f"  {name}", [shown(found.get(load)) for load in loads]))
    for label, serves in (("best server", True), ("no server", False)):
        ratios = [ratio(of_kind, load, serves) for load in loads]
        if any(value is not None for value in ratios):
            lines.append(row(f"  chorus / {label}", ["-" if value is None else f"{value:.2f}" for value in ratios]))
    if any(cell.limited_by_client() for cell in of_kind):
        lines.append("  >: the client took most of a core, the server may be able to do more")
    return "\n".join(lines)


def ratio(cells: list[Cell], concurrency: int, serves: bool) -> float | None:
    """How many times as many requests Chorus answers as the best of the others."""
    here = [cell for cell in cells if cell.concurrency == concurrency]
    chorus = [cell.requests_per_second for cell in here if cell.system.family == "chorus"]
    others = [cell.requests_per_second for cell in here if cell.system.family != "chorus" and cell.system.serves == serves]
    return chorus[0] / max(others) if chorus and others else None


def shown(cell: Cell | None) -> str:
    if cell is None:
        return "-"
    value = cell.requests_per_second
    return (">" if cell.limited_by_client() else "") + (f"{value:.1f}" if value < 100 else f"{value:.0f}")


def row(name: str, values: list[str]) -> str:
    return f"{name:<36}" + "".join(f"{value:>10}" for value in values)
