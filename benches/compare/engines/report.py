"""Tables and JSON of an engine comparison. Knows nothing about how it was measured."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import Any

from engines.measure import Contender, Work
from engines.shapes import Shape

# Where a floor is meant: a step of one row is bound by reading weights, one of this many rows by multiplying.
FLOPS_BATCH = 64


@dataclass(frozen=True)
class Floor:
    """What the machine can do, measured in this run; None where no engine could say."""

    gigabytes_per_second: float | None
    gigaflops: float | None
    measured_by: str
    # On a device the higher of both bounds counts, whatever the batch: nothing is faster than either.
    both: bool = False

    def microseconds(self, shape: Shape, work: Work, precision: str) -> float | None:
        """The least time that the machine allows for this work, where one bound clearly rules."""
        if self.both and self.gigabytes_per_second and self.gigaflops:
            read = shape.bytes_read(precision) / self.gigabytes_per_second / 1e3
            return max(read, shape.flops(work.rows()) / self.gigaflops / 1e3)
        if work.rows() == 1 and self.gigabytes_per_second:
            return shape.bytes_read(precision) / self.gigabytes_per_second / 1e3
        if work.rows() >= FLOPS_BATCH and precision == "f32" and self.gigaflops:
            return shape.flops(work.rows()) / self.gigaflops / 1e3
        return None


@dataclass(frozen=True)
class Cell:
    """The contenders of one work in one precision."""

    shape: Shape
    work: Work
    precision: str
    contenders: list[Contender]
    floors: list[Floor]

    def of(self, library: str) -> Contender | None:
        return next((one for one in self.contenders if one.library == library), None)

    def best_rival(self) -> Contender | None:
        rivals = [one for one in self.contenders if one.library != "chorus"]
        return min(rivals, key=lambda one: one.microseconds, default=None)

    def ratio(self) -> float | None:
        """How many times as fast as the best rival: above 1 is faster."""
        chorus, rival = self.of("chorus"), self.best_rival()
        return rival.microseconds / chorus.microseconds if chorus and rival else None

    def as_json(self) -> dict[str, Any]:
        return {
            "shape": vars(self.shape),
            "kind": self.work.kind,
            "batch": self.work.batch,
            "length": self.work.length,
            "precision": self.precision,
            "ratio": self.ratio(),
            "floors": [
                {"by": floor.measured_by, "microseconds": floor.microseconds(self.shape, self.work, self.precision)}
                for floor in self.floors
            ],
            "engines": [
                {
                    "library": one.library,
                    "mode": one.mode,
                    "microseconds": one.microseconds,
                    "rounds": one.rounds,
                    "others_cores": median(one.others),
                }
                for one in self.contenders
            ],
        }


def table(cells: list[Cell]) -> str:
    """One table for the cells of one shape, kind and precision: a row an engine, a column a batch."""
    first = cells[0]
    lines = [f"{first.shape}, {first.work.kind}{length(first.work)}, {first.precision}, microseconds"]
    lines.append(row("", [f"batch {cell.work.batch}" for cell in cells]))
    libraries = sorted({one.library for cell in cells for one in cell.contenders})
    for library in libraries:
        found = [cell.of(library) for cell in cells]
        lines.append(row(library, [microseconds(one) for one in found]))
    if "chorus" in libraries:
        lines.append(row("best rival / chorus", [number(cell.ratio()) for cell in cells]))
    for index, floor in enumerate(first.floors):
        for library in libraries:
            shares = [share(cell, cell.of(library), cell.floors[index]) for cell in cells]
            if any(value is not None for value in shares):
                lines.append(row(f"{library}, share of {floor.measured_by}", [percent(value) for value in shares]))
    noise = [used for cell in cells for one in cell.contenders for used in one.others]
    lines.append(f"others used {median(noise):.2f} cores in the median, {max(noise):.2f} at most")
    return "\n".join(lines)


def share(cell: Cell, contender: Contender | None, floor: Floor) -> float | None:
    least = floor.microseconds(cell.shape, cell.work, cell.precision)
    return least / contender.microseconds if least and contender else None


def length(work: Work) -> str:
    return f" of {work.length} tokens" if work.kind == "score" else ""


def microseconds(contender: Contender | None) -> str:
    if contender is None:
        return "-"
    value = contender.microseconds
    mode = f" ({contender.mode})" if contender.mode and contender.mode not in contender.library else ""
    return f"{value:.0f}{mode}" if value >= 1_000 else f"{value:.1f}{mode}"


def number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.0f} %"


def row(name: str, values: list[str]) -> str:
    return f"  {name:<40}" + "".join(f"{value:>20}" for value in values)
