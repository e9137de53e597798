"""The other yardstick: C++ with vector instructions, compiled on the spot (`benchmarks.native`), coefficients only."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from benchmarks import native
from benchmarks.adapters.interface import Job, Library, Setting, require
from benchmarks.checks import Found
from benchmarks.problems import Problem

TOLERANCE, MAX_ITERATIONS = 1e-9, 100


def prepare(problem: Problem, setting: Setting) -> Job:
    possible = problem.layout == "own" and problem.family in native.FAMILIES and problem.p <= native.MOST_COLUMNS
    require(possible, "is written for own designs, gaussian, logistic and Poisson")
    arguments = (problem.X, problem.y, problem.offset, problem.family, TOLERANCE, MAX_ITERATIONS, setting.threads)

    def run(_: Any) -> Any:
        return native.fit_grouped(*arguments)

    return Job(run, np.arange(problem.fits), lambda result: Found(result[0], iterations=result[1]))


@cache
def unavailable() -> str | None:
    """Why there is no yardstick on this machine, or none to be trusted; or None."""
    return native.available() or native.invalid()


LIBRARY = Library("native", "C++ kernel, coefficients only", prepare, tolerance=1e-7, unavailable=unavailable)
