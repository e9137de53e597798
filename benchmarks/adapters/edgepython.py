"""edgePython: edgeR's `glm_fit`, ported to Numba with a thread for each core. Dispersions are given, nothing is shrunk."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.adapters.interface import Job, Library, Setting, require
from benchmarks.checks import Found
from benchmarks.problems import Problem


def prepare(problem: Problem, setting: Setting) -> Job:
    from edgepython import glm_fit

    require(problem.family == "negative_binomial" and problem.layout == "shared", "fits counts that share one design")
    dispersion = 1.0 / np.broadcast_to(np.asarray(problem.theta), problem.fits)

    def run(_: Any) -> dict[str, np.ndarray]:
        return glm_fit(problem.y, problem.X, dispersion=dispersion, offset=problem.offset, prior_count=0)

    return Job(run, np.arange(problem.fits), lambda fit: Found(fit["coefficients"]))


LIBRARY = Library(
    "edgepython",
    "glm_fit(prior_count=0), NumPy arrays to results",
    prepare,
    tolerance=1e-2,
    distribution="edgepython",
    module="edgepython",
    compiles=True,
)
