"""jaxglm from NumPy arrays to a `GLMResults`: everything that a default call returns, statuses and errors included.

`jaxglm_loose` is the same at plink2's own tolerance, a step of 1e-4, and only where plink2 runs; `jaxglm_good` the same
without the fits that are flawed on purpose, to tell what these cost.
"""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import numpy as np

from benchmarks.adapters.interface import Job, Library, Setting, require
from benchmarks.checks import Found
from benchmarks.problems import MISSING, Problem

LOOSE_TOLERANCE = 1e-4


def family_of(problem: Problem) -> Any:
    """The problem's family as jaxglm's."""
    from jaxglm import families

    if problem.family == "negative_binomial":
        return families.NegativeBinomial(theta=problem.theta)
    return families.named(problem.family, link=problem.link)


def prepare(problem: Problem, setting: Setting) -> Job:
    import jaxglm

    return _job(problem, setting, jaxglm.IRLS())


def prepare_loose(problem: Problem, setting: Setting) -> Job:
    import jaxglm

    require(problem.layout == "scan", "is there to be compared with plink2, which does scans only")
    return _job(problem, setting, jaxglm.IRLS(tol=LOOSE_TOLERANCE))


def prepare_good(problem: Problem, setting: Setting) -> Job:
    import jaxglm

    require(len(problem.good) < problem.fits, "leaves out flawed fits, of which there are none: see jaxglm_fit")
    return replace(_job(problem.take(problem.good), setting, jaxglm.IRLS()), places=problem.good)


def _job(problem: Problem, setting: Setting, options: Any) -> Job:
    import jaxglm

    arguments = {"family": family_of(problem), "options": options, "device": setting.device}
    for name in ("weights", "offset"):
        if getattr(problem, name) is not None:
            arguments[name] = getattr(problem, name)
    if problem.bounds is not None:
        arguments["groups"] = np.repeat(np.arange(problem.fits), np.diff(problem.bounds))

    def run(_: Any) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that some fits are separated is the point of the problem
            if problem.features is not None:
                features, code = problem.features.T, MISSING
                return jaxglm.scan(problem.X, problem.y, features, missing="drop", missing_code=code, **arguments)
            return jaxglm.fit(problem.X, problem.y, **arguments)

    return Job(run, np.arange(problem.fits), found)


def found(fits: Any) -> Found:
    """From a `GLMResults`."""
    values = (fits.coefficients, fits.status, fits.rank, fits.n_iterations)
    return Found(*(np.asarray(v) if fits.many else np.asarray(v)[None] for v in values))


LIBRARY = Library(
    "jaxglm_fit",
    "NumPy arrays to GLMResults",
    prepare,
    tolerance=1e-9,
    devices=("cpu", "gpu"),
    compiles=True,
)
LOOSE = replace(
    LIBRARY,
    name="jaxglm_loose",
    timed=f"NumPy arrays to GLMResults, tol={LOOSE_TOLERANCE:g} as plink2's",
    prepare=prepare_loose,
    tolerance=1e-3,
)
GOOD = replace(
    LIBRARY,
    name="jaxglm_good",
    timed="NumPy arrays to GLMResults of the fits that are not flawed, in proportion to all",
    prepare=prepare_good,
)
