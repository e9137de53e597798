"""edgeR: `glmFit` with given dispersions and offsets, nothing shrunk. The time is R's own, of the call alone."""

from __future__ import annotations

import numpy as np

from benchmarks.adapters import r
from benchmarks.adapters.interface import Job, Library, Setting, require
from benchmarks.checks import Found
from benchmarks.problems import Problem


def prepare(problem: Problem, setting: Setting) -> Job:
    require(problem.family == "negative_binomial" and problem.layout == "shared", "fits counts that share one design")
    folder = setting.folder / f"edger-{problem.name}"
    dispersion = 1.0 / np.atleast_1d(np.asarray(problem.theta))
    r.write(folder, {"X": problem.X, "y": problem.y, "offset": problem.offset, "dispersion": dispersion})
    run = r.script("edger.R", folder, problem.p)
    found = np.arange(problem.fits)
    return Job(run, found, lambda answer: Found(answer.coefficients), seconds=lambda answer: answer.seconds)


def unavailable() -> str | None:
    return None if r.has_package("edgeR") else "R has no package edgeR (Debian: r-bioc-edger)"


LIBRARY = Library(
    "edger",
    "glmFit(prior.count = 0), R's own clock",
    prepare,
    tolerance=1e-2,
    program="Rscript",
    unavailable=unavailable,
)
