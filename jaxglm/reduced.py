"""A result's models fitted again without some of their columns.

Every group loses the same columns, so one call of the engine makes all reduced fits. On a CPU the columns are read as zeros,
which copies nothing and keeps the shape, and with it the compiled programs of the original fit (the engine leaves columns of
zeros out); kernels of a GPU get a narrower design.

Where there are very many rows, a fit starts from the constrained optimum of the quadratic that the original estimates and
their covariance make of the likelihood, b - C_d (C_dd)^-1 b_d for the columns d that are dropped (Lawless and Singhal 1978);
for few rows that would only mean one more program to compile. A group that does not converge from there starts again as R does.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np

from jaxglm import fitting
from jaxglm.devices import default_device
from jaxglm.irls.solution import Solution
from jaxglm.leverage import remembered
from jaxglm.packing import Crossed, gather
from jaxglm.status import Status
from jaxglm.task import Task

PAYS = 2**24  # numbers of a design from which on a start of one's own is worth a program of its own
PORTION = 2**24  # prior weights of null fits that are held at a time
PER_COLUMN = ("coefficients", "infinite", "aliased", "direction")


def refittable(result: Any) -> Task:
    """What was fitted. Raises ValueError where it cannot be fitted again, or tests of likelihoods have no meaning."""
    task = remembered(result)
    if task.penalty is not None or task.net is not None:
        raise ValueError("a penalized fit is not at the maximum of its likelihood, so that tests of nested models do not hold")
    return task


def without(result: Any, gone: np.ndarray) -> Solution:
    """All fits of a result without the columns flagged in `gone` (p,), which count as aliased in the solutions (g, p)."""
    task = refittable(result)
    source: Any = task.source
    own = isinstance(source, Crossed) and source.own is not None
    if own and gone[-1]:
        null = without_own(task, gone[:-1])
        return _padded(jax.tree.map(lambda leaf: leaf[null.which], null.solution), gone)
    columns = gone[:-1] if own else gone
    narrow = (own or not zeroed(task)) and not columns.all()
    kept = ~gone if narrow else np.ones(len(gone), bool)
    start = constrained(result.solution, gone)[:, kept] if source.X.size >= PAYS and zeroed(task) else None
    rest = replace(source, X=source.X[..., ~columns]) if narrow else replace(source, gone=columns)
    smaller = replace(task, source=rest, start=None)
    return _padded(_fit(smaller, start), gone)


def _without(X: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """A design with zeros in some columns."""
    out = X.copy()
    out[..., columns] = 0.0
    return out


def zeroed(task: Task) -> bool:
    """Whether columns are read as zeros rather than left out."""
    return bool((task.device or default_device()).platform == "cpu")


@dataclass(frozen=True)
class NullFits:
    """The fits of a scan without its features: u of them, since features share theirs unless they have missing values, whose
    rows are not there. solution: (u, p); which: (g,), each feature's; lost: (u, n), rows that are not there."""

    solution: Solution
    which: np.ndarray
    lost: np.ndarray


def without_own(task: Task, gone: np.ndarray | None = None) -> NullFits:
    """The fits of a scan without its features, and without the columns of X flagged in `gone`: one for each set of rows that
    some feature misses."""
    source = task.source
    assert isinstance(source, Crossed)
    assert source.own is not None
    X = source.X if gone is None else _without(source.X, gone)
    which, lost = patterns(source)
    weights = np.ones(X.shape[0]) if source.weights is None else source.weights
    size, found = max(1, PORTION // max(1, len(X))), []
    for begin in range(0, len(lost), size):
        part = lost[begin : begin + size]
        null = Crossed(X, source.y, np.where(part, 0.0, weights), source.offset, len(part))
        found.append(fitting.fit(replace(task, source=null, start=None)))
    return NullFits(jax.tree.map(lambda *leaves: np.concatenate(leaves), *found), which, lost)


def patterns(source: Crossed) -> tuple[np.ndarray, np.ndarray]:
    """Which set of missing rows each feature has, (g,), and the sets, (u, n); the first is the empty one."""
    assert source.own is not None
    g, n = source.own.values.shape
    which, none = np.zeros(g, np.int64), np.zeros((1, n), bool)
    if not source.own.drop:
        return which, none
    size = max(1, PORTION // max(1, n))
    packed, places = [], []
    for begin in range(0, g, size):
        lost = source.own.lost(slice(begin, begin + size))
        some = np.flatnonzero(lost.any(axis=1))
        packed.append(np.packbits(lost[some], axis=1))
        places.append(begin + some)
    sets, index = np.unique(np.concatenate(packed), axis=0, return_inverse=True)
    which[np.concatenate(places)] = 1 + index.reshape(-1)
    return which, np.concatenate([none, np.unpackbits(sets, axis=1, count=n).astype(bool)])


def constrained(solution: Solution, gone: np.ndarray) -> np.ndarray:
    """(g, p): where the quadratic approximation of each likelihood has its optimum with the coefficients `gone` at zero."""
    kept_out = gone & ~solution.aliased
    b, C = np.where(solution.aliased, 0.0, solution.coefficients), solution.covariance[:, :, gone]
    if solution.aliased.any():
        C = np.where(solution.aliased[:, :, None] | solution.aliased[:, None, gone], 0.0, C)
    unit = np.eye(gone.sum()) * ~kept_out[:, gone][:, None, :]
    pull = _pull(C[:, gone] + unit, np.where(kept_out, b, 0.0)[:, gone])
    return np.where(gone, 0.0, b - np.matmul(C, pull[:, :, None])[..., 0])


def _pull(inside: np.ndarray, b: np.ndarray) -> np.ndarray:
    """C^-1 b (g, d) for C (g, d, d), NaN where C is singular or not known."""
    sound = np.isfinite(inside).all(axis=(1, 2)) & (inside != 0).any(axis=(1, 2))
    if b.shape[1] <= 1:
        return np.where(sound[:, None], b, np.nan) / np.where(sound[:, None], inside[:, 0], 1.0)
    pull = np.full(b.shape, np.nan)
    sound[sound] &= np.linalg.cond(inside[sound]) < 1e14
    pull[sound] = np.linalg.solve(inside[sound], b[sound][:, :, None])[..., 0]
    return pull


def _fit(task: Task, start: np.ndarray | None) -> Solution:
    """Fit from `start` (g, p) where it is finite and leads somewhere, else from R's."""
    if start is None:
        return fitting.fit(task)
    known = np.isfinite(start).all(axis=1)
    found = fitting.fit(replace(task, start=np.where(known[:, None], start, 0.0)))
    again = np.flatnonzero(~known | np.isin(found.status, (Status.MAX_ITERATIONS, Status.STEP_FAILED)))
    if len(again):
        fresh = fitting.fit(task.subset(gather(task.source, again), again))
        jax.tree.map(lambda out, new: out.__setitem__(again, new), found, fresh)
    return found


def _padded(solution: Solution, gone: np.ndarray) -> Solution:
    """A solution, which is changed, with the columns that were dropped, as aliased ones."""
    g, width = solution.coefficients.shape
    fill: dict[str, Any] = {"coefficients": np.nan, "infinite": 0, "aliased": True, "direction": 0.0}
    if width == len(gone):
        for name in PER_COLUMN:
            getattr(solution, name)[:, gone] = fill[name]
        solution.covariance[:, gone], solution.covariance[:, :, gone] = np.nan, np.nan
        return solution
    kept = np.flatnonzero(~gone)
    spread = {}
    for name in PER_COLUMN:
        values = getattr(solution, name)
        spread[name] = np.full((g, len(gone)), fill[name], values.dtype)
        spread[name][:, kept] = values[:, : len(kept)]
        spread[name][:, gone] = fill[name]
    covariance = np.full((g, len(gone), len(gone)), np.nan)
    covariance[np.ix_(np.arange(g), kept, kept)] = solution.covariance[:, : len(kept), : len(kept)]
    covariance[:, gone], covariance[:, :, gone] = np.nan, np.nan
    return replace(solution, covariance=covariance, **spread)
