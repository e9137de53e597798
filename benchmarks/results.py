"""What a run of the benchmarks found, and its JSON."""

from __future__ import annotations

import json
import statistics
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.environment import Environment


@dataclass(frozen=True)
class Measurement:
    """A library on a problem that it did right.

    fits, rows, p: of the problem, rows of all fits together; fits_run: how many it was given; runs: seconds for these, one a
    round; first: seconds of the first call; compiles: whether that compiles; transfer: seconds to the device; error: the
    largest found (see `checks`), and what was allowed; iterations: mean over fits; pass_bytes: what an iteration of all fits
    reads; input_bytes: the problem's arrays; peak_bytes: of the process, where it was isolated.
    """

    problem: str
    what: str
    library: str
    timed: str
    fits: int
    rows: int
    p: int
    fits_run: int
    runs: tuple[float, ...]
    first: float
    compiles: bool
    transfer: float | None
    error: float | None
    allowed: float
    iterations: float | None
    pass_bytes: int
    input_bytes: int
    peak_bytes: int | None = None

    @property
    def extrapolated(self) -> bool:
        return self.fits_run < self.fits

    @property
    def rounds(self) -> list[float]:
        """Seconds for the whole problem, one a round, in proportion to the fits run."""
        return [seconds * self.fits / self.fits_run for seconds in self.runs]

    @property
    def seconds(self) -> float:
        """The median over the rounds."""
        return statistics.median(self.rounds)

    @property
    def fits_per_second(self) -> float:
        return self.fits / self.seconds

    @property
    def compile_seconds(self) -> float | None:
        """What the first call took beyond the others."""
        return max(0.0, self.first - statistics.median(self.runs)) if self.compiles else None

    def times_faster_than(self, other: Measurement) -> float:
        """How many times faster, the median over the rounds that both took part in."""
        return statistics.median(theirs / ours for ours, theirs in zip(self.rounds, other.rounds, strict=False))

    def roofline(self, bandwidth: float) -> float | None:
        """The time of reading the data once an iteration at this bandwidth, as a fraction of the time taken."""
        if self.iterations is None:
            return None
        return self.pass_bytes * self.iterations / bandwidth / self.seconds


@dataclass(frozen=True)
class NotRun:
    """A library that was not timed on a problem, and why."""

    problem: str
    library: str
    reason: str


@dataclass(frozen=True)
class Results:
    """A run: where, how, and what came out. command: that makes it again."""

    environment: Environment
    command: str
    scale: float
    device: str
    measured: tuple[Measurement, ...]
    not_run: tuple[NotRun, ...]

    def find(self, problem: str, library: str) -> Measurement | None:
        return next((m for m in self.measured if (m.problem, m.library) == (problem, library)), None)

    @property
    def problems(self) -> list[str]:
        return list(dict.fromkeys(m.problem for m in self.measured))

    def with_memory(self, peaks: dict[tuple[str, str], int]) -> Results:
        """With the peak memory of (problem, library) where it was measured."""
        return replace(self, measured=tuple(replace(m, peak_bytes=peaks.get((m.problem, m.library))) for m in self.measured))

    def save(self, path: Path) -> None:
        """As JSON, with what is derived beside what was measured."""
        content = asdict(self)
        for entry, m in zip(content["measured"], self.measured, strict=True):
            entry |= {"seconds": m.seconds, "fits_per_second": m.fits_per_second, "compile_seconds": m.compile_seconds}
        path.write_text(json.dumps(content, indent=1) + "\n")

    @staticmethod
    def load(path: Path) -> Results:
        """From `save`."""
        content: dict[str, Any] = json.loads(path.read_text())
        fields = set(Measurement.__dataclass_fields__)
        measured = [{name: value for name, value in m.items() if name in fields} for m in content.pop("measured")]
        return Results(
            environment=Environment(**content.pop("environment")),
            measured=tuple(Measurement(**m | {"runs": tuple(m["runs"])}) for m in measured),
            not_run=tuple(NotRun(**entry) for entry in content.pop("not_run")),
            **content,
        )
