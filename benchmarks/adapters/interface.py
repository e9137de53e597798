"""What an adapter is: a library's way to do a problem, or why it cannot.

A `Library` prepares a `Job` from a `Problem`: it brings the arrays into the form that the library's users have them in, and
none of that is timed. What is timed is `Job.run`, from there to the library's own kind of result, finished. Libraries that
take minutes for what others do in a second are given some of the fits, spread evenly over the problem, and their time is
extrapolated in proportion; the reports mark it.
"""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.checks import Found
from benchmarks.problems import Fit, Problem

LOOPED = (500, 200_000)  # fits, and rows in all, that a library is given which fits one model at a time in Python or R


class CannotRun(Exception):
    """Why a library does not do a problem, in a sentence for the report."""


@dataclass(frozen=True)
class Setting:
    """Where a job runs. device: "cpu" or "gpu"; threads: cores to use; folder: for files."""

    device: str
    threads: int
    folder: Path


@dataclass(frozen=True)
class Job:
    """A problem in a library's terms.

    run: does the fits with what `transfer` gave (None without one) and returns a result, finished: nothing of it is still
        being computed somewhere.
    places: (k,), which of the problem's fits it does.
    found: the coefficients, and what else is known, from a result.
    seconds: the time from a result, where the library's own clock is the fair one; None for the harness's.
    transfer: moves the arrays to the device and waits, and is timed apart; None where there is nothing to move. They stay
        there for one turn only, so that the libraries need not share the memory.
    """

    run: Callable[[Any], Any]
    places: np.ndarray
    found: Callable[[Any], Found]
    seconds: Callable[[Any], float] | None = None
    transfer: Callable[[], Any] | None = None

    def once(self) -> Any:
        """A result, untimed."""
        return self.run(self.transfer() if self.transfer else None)


@dataclass(frozen=True)
class Library:
    """A library, and how it is run.

    name: in results and on the command line; timed: what the time includes, in words; prepare: makes a job or raises
    CannotRun; tolerance: the error allowed (see `checks`), which for peers follows from their own stopping rules, left as
    they come; distribution: on PyPI, for its version; module, program: what has to be there; devices: where it runs;
    solves: whether there are coefficients to check; compiles: whether a first call compiles; unavailable: why it cannot be
    run at all, or None.
    """

    name: str
    timed: str
    prepare: Callable[[Problem, Setting], Job]
    tolerance: float = 1e-3
    distribution: str | None = None
    module: str | None = None
    program: str | None = None
    devices: tuple[str, ...] = ("cpu",)
    solves: bool = True
    compiles: bool = False
    unavailable: Callable[[], str | None] = field(default=lambda: None)

    def missing(self, device: str) -> str | None:
        """Why it cannot run here, or None."""
        if device not in self.devices:
            return f"does not run on a {device.upper()}"
        if self.module and importlib.util.find_spec(self.module) is None:
            return f"{self.distribution or self.module} is not installed"
        if self.program and shutil.which(self.program) is None:
            return f"{self.program} is not installed"
        return self.unavailable()


def require(possible: bool, reason: str) -> None:
    """Raise CannotRun unless something is possible."""
    if not possible:
        raise CannotRun(reason)


def looped(problem: Problem, fits: int = LOOPED[0], rows: int = LOOPED[1]) -> tuple[np.ndarray, list[Fit]]:
    """Places and fits for a library that does one after the other. Fits without a finite optimum are left out: what such a
    library does with them is its own affair, and would not make it faster."""
    places = problem.some(fits, rows)
    if problem.flaws is not None:
        places = places[np.isin(places, problem.good)]
    return places, [problem.one(int(place)) for place in places]


def one_by_one(places: np.ndarray, fits: list[Fit], fit: Callable[[Fit], np.ndarray]) -> Job:
    """The job of a library that fits one model at a time: coefficients of one after the other."""
    return Job(
        run=lambda _: [fit(one) for one in fits],
        places=places,
        found=lambda coefficients: Found(np.asarray(coefficients, np.float64)),
    )
