"""polars-statistics: one expression a group in `group_by(...).agg(...)`, from a frame to a frame.

The frame holds the rows of some of the groups; making it is not timed. `penalized_glm` without a penalty is its door for
offsets, gamma and a theta that all groups share; `ols` and `logistic` are its shorter ones.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.adapters.interface import Job, Library, Setting, looped, require
from benchmarks.checks import Found
from benchmarks.problems import Problem

FITS, ROWS = 2000, 500_000


def prepare(problem: Problem, setting: Setting) -> Job:
    import polars as pl
    import polars_statistics as ps

    require(problem.layout != "scan", "drops no rows for a feature that misses them")
    require(problem.weights is None, "has no prior weights")
    require(not isinstance(problem.theta, np.ndarray), "takes one theta for all groups")
    places, fits = looped(problem, FITS, ROWS)
    columns = {"group": np.repeat(np.arange(len(fits)), [len(fit.y) for fit in fits])}
    columns["y"] = np.concatenate([fit.y for fit in fits])
    names = [f"x{j}" for j in range(1, problem.p)]
    for j, name in enumerate(names, start=1):
        columns[name] = np.concatenate([fit.X[:, j] for fit in fits])
    if problem.offset is not None:
        columns["offset"] = np.concatenate([fit.offset for fit in fits if fit.offset is not None])
    frame, expression = pl.DataFrame(columns), _expression(ps, problem, names)

    def run(_: Any) -> Any:
        return frame.group_by("group", maintain_order=True).agg(expression.alias("fit"))

    return Job(run, places, _found)


def _expression(ps: Any, problem: Problem, names: list[str]) -> Any:
    if problem.family == "gaussian":
        return ps.ols("y", *names)
    if problem.family == "binomial":
        return ps.logistic("y", *names)
    offset = "offset" if problem.offset is not None else None
    theta = None if problem.theta is None else float(problem.theta)
    return ps.penalized_glm("y", *names, family=problem.family, theta=theta, offset=offset)


def _found(frame: Any) -> Found:
    fits = frame["fit"].struct
    slopes = np.array(fits.field("coefficients").to_list(), np.float64)
    return Found(np.column_stack([fits.field("intercept").to_numpy(), slopes]))


LIBRARY = Library(
    "polars_statistics",
    "group_by(...).agg(...), a frame to a frame",
    prepare,
    distribution="polars-statistics",
    module="polars_statistics",
)
