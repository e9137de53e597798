"""Nothing but a look at the data: what the harness and reading the arrays once cost."""

from __future__ import annotations

import numpy as np

from benchmarks.adapters.interface import Job, Library, Setting
from benchmarks.checks import Found
from benchmarks.problems import Problem


def prepare(problem: Problem, setting: Setting) -> Job:
    arrays = [v for v in (problem.X, problem.y, problem.weights, problem.offset, problem.features) if v is not None]
    nothing = Found(np.zeros((0, problem.p)))
    return Job(lambda _: [float(np.max(v)) for v in arrays], np.arange(problem.fits), lambda result: nothing)


LIBRARY = Library("null", "reading every number once (NumPy, one core)", prepare, devices=("cpu", "gpu"), solves=False)
