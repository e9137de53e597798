"""What a separated fit tends to.

Rows that the direction of separation moves are fitted perfectly in the limit. What remains of the likelihood belongs to
the other rows, and their fit gives the finite estimates, the errors and the deviance. Counts of rows and of independent
columns stay those of the whole fit.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from jaxglm.ends import ends, log_likelihoods
from jaxglm.family import Family
from jaxglm.irls.solution import Solution
from jaxglm.packing import Stacked, gather, owners, reweighted, thinned
from jaxglm.recession import Separated, along, reach_of
from jaxglm.status import Status
from jaxglm.task import Task

FAR = 40.0  # a change of eta that takes a mean to its limit in float64 (under cauchit, most of the way)
FARTHEST = 1e9
NEGLIGIBLE = 1e-7  # of the largest component of a direction: what is less does not diverge
CANCELLED = 1e-10  # a sum this small beside its terms is zero


def infinite_eta(X: np.ndarray, direction: np.ndarray) -> np.ndarray:
    """-1, 0 or 1 for each row: where the direction (..., p) takes its eta. X: (..., p)."""
    change, size = (np.einsum("...p,...p->...", *each) for each in ((X, direction), (np.abs(X), np.abs(direction))))
    return np.where(np.abs(change) > CANCELLED * size, np.sign(change), 0.0)


def _infinite_etas(
    X: np.ndarray, direction: np.ndarray, owner: np.ndarray, change: np.ndarray, reach: np.ndarray
) -> np.ndarray:
    """`infinite_eta` of rows along the directions (g, p) of their groups, by how fast these change their etas, (n,), and the
    largest magnitudes in their columns, (g, p)."""
    way = np.sign(change)
    largest = CANCELLED * np.sum(reach * np.abs(direction), axis=1)
    doubtful = np.flatnonzero((np.abs(change) <= largest[owner]) & (way != 0))
    way[doubtful] = infinite_eta(X[doubtful], direction[owner[doubtful]])
    return way


def remaining(task: Task, found: Solution, groups: np.ndarray) -> Task:
    """The task of fitting what the directions of separated groups leave alone: the rows that they do not move, and the columns
    that are not aliased."""
    rows = gather(task.source, groups)
    owner, kept = owners(rows), ~found.aliased[groups]
    present, direction = rows.weights > 0, found.direction[groups]
    X = rows.X if present.all() and kept.all() else np.where(present[:, None] & kept[owner], rows.X, 0.0)
    moved = _infinite_etas(X, direction, owner, along(X, direction, owner), reach_of(X, rows.starts)) != 0
    return task.subset(reweighted(rows, np.where(present & ~moved, rows.weights, 0.0), X), groups)


def put_limits(
    task: Task,
    found: Solution,
    groups: np.ndarray,
    rows: Stacked,
    side: np.ndarray,
    proofs: Separated,
    fit: Callable[[Task], Solution],
) -> np.ndarray:
    """Replace what is `found` for separated groups by the limits, and say which are separated further in what remains.

    rows: theirs, made by `packing.gather`; side: (n,), the sign of each one's infinite optimum (`ends.sides`); fit: how to
    fit what remains. Returns flags, one for each of the groups.
    """
    owner, moved = owners(rows), proofs.moved
    present, kept = rows.weights > 0, ~found.aliased[groups]
    X = rows.X if kept.all() else np.where(kept[owner], rows.X, 0.0)
    inner = fit(task.subset(thinned(reweighted(rows, rows.weights, X), present & ~moved), groups))
    direction = _combined(rows, owner, proofs.direction, inner.direction, moved)
    determined = proofs.determined & (inner.infinite == 0)
    reach = reach_of(rows.X, rows.starts)
    size = np.abs(direction) * reach
    diverging = kept & ~determined & (size > NEGLIGIBLE * size.max(axis=1, keepdims=True))
    lost = np.isin(inner.status, (Status.STEP_FAILED, Status.INVALID_DATA))
    base = np.where(np.isnan(inner.coefficients), 0.0, inner.coefficients)
    known = 0.0 if rows.offset is None else np.where(present, rows.offset, 0.0)
    eta, change = known + along(rows.X, base, owner), along(rows.X, direction, owner)
    way = _infinite_etas(rows.X, direction, owner, change, reach)
    push = _push(rows, eta, way, change, np.where(diverging, direction, 0.0), base)

    failed = found.status[groups] == Status.STEP_FAILED
    complete = inner.status == Status.NO_DATA
    family = task.subset(rows, groups).family
    saturated = ends(family, rows, moved)
    deviance = np.where(complete, 0.0, inner.deviance) + saturated.deviance
    dispersion, ratio = _dispersion(task.family, found.n_obs[groups] - kept.sum(axis=1), inner, saturated.chi_square)
    unknown = ~determined | ~kept
    covariance = np.where(unknown[:, :, None] | unknown[:, None, :], np.nan, inner.covariance * ratio[:, None, None])
    estimates = np.where(diverging, base + push[:, None] * direction, base)
    found.coefficients[groups] = np.where(~kept | (determined & lost[:, None]), np.nan, estimates)
    found.covariance[groups] = covariance
    found.deviance[groups] = deviance
    eta = np.where(way == 0, eta, np.copysign(np.inf, way))
    stays = np.where(complete, 0.0, inner.log_likelihood) if family.dispersion is not None else np.full(len(groups), np.nan)
    found.log_likelihood[groups] = _log_likelihood(family, rows, moved, eta, deviance, stays)
    found.dispersion[groups] = dispersion
    found.n_iterations[groups] += inner.n_iterations
    found.status[groups], found.method[groups] = Status.SEPARATED, inner.method
    found.infinite[groups] = np.where(diverging, np.sign(direction), 0.0).astype(np.int64)
    found.direction[groups] = direction
    for place in np.flatnonzero(failed):
        found.spans_constant[groups[place]] = _spans_constant(rows.X[(owner == place) & present])
    _put_null_limits(found, groups, rows, side, family)
    return inner.status == Status.SEPARATED


def _push(
    rows: Stacked, eta: np.ndarray, way: np.ndarray, change: np.ndarray, direction: np.ndarray, base: np.ndarray
) -> np.ndarray:
    """How far to go along each group's direction, so that the rows that it moves arrive at their limits and the
    coefficients that diverge have their signs. eta, way, change: of every row, where it is, where it goes and how fast;
    direction: (g, p), of the coefficients that diverge; base: (g, p), from where."""
    moves = way != 0
    needed = np.divide(np.maximum(FAR - way * eta, FAR), np.abs(change), out=np.zeros(len(way)), where=moves)
    push = np.maximum.reduceat(needed, rows.starts)
    against = base * direction < 0
    turned = np.where(against, 2.0 * np.abs(base) / np.where(against, np.abs(direction), 1.0), 0.0)
    return np.minimum(np.maximum(push, turned.max(axis=1)), FARTHEST)


def _dispersion(family: Family, degrees: np.ndarray, inner: Solution, more: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The dispersion by the degrees of freedom of the whole fit, and its ratio to that of what remains."""
    if family.dispersion is not None:
        return np.full(len(degrees), family.dispersion), np.ones(len(degrees))
    inner_degrees = inner.n_obs - inner.rank
    chi_square = np.where(inner_degrees > 0, inner.dispersion * inner_degrees, 0.0) + more
    dispersion = np.where(degrees > 0, chi_square / np.maximum(degrees, 1), np.nan)
    return dispersion, dispersion / np.where(inner_degrees > 0, inner.dispersion, np.nan)


def _spans_constant(X: np.ndarray) -> bool:
    """Whether a combination of the columns is constant."""
    size = np.max(np.abs(X), axis=0, initial=0.0)
    fitted = np.linalg.lstsq(X / np.where(size > 0, size, 1.0), np.ones(len(X)), rcond=None)[0]
    return bool(np.allclose(X / np.where(size > 0, size, 1.0) @ fitted, 1.0, rtol=0.0, atol=1e-6))


def _put_null_limits(found: Solution, groups: np.ndarray, rows: Stacked, side: np.ndarray, family: Family) -> None:
    """The null model's deviance where all its responses lie at the same infinite end."""
    present, owner = rows.weights > 0, owners(rows)
    low = np.minimum.reduceat(np.where(present, side, 2.0), rows.starts)
    high = np.maximum.reduceat(np.where(present, side, -2.0), rows.starts)
    alike = (low == high) & (low != 0) & found.spans_constant[groups]
    if alike.any():
        found.null_deviance[groups[alike]] = ends(family, rows, present & alike[owner]).deviance[alike]


def _combined(rows: Stacked, owner: np.ndarray, outer: np.ndarray, inner: np.ndarray, moved: np.ndarray) -> np.ndarray:
    """A direction that moves rows as `outer` does, and where that leaves them alone, as `inner` does."""
    if not inner.any():
        return outer
    first, second = along(rows.X, outer, owner), along(rows.X, inner, owner)
    opposed = moved & (first * second < 0)
    most = np.where(opposed, 0.5 * np.abs(first / np.where(opposed, second, 1.0)), 1.0)
    share = np.minimum(np.minimum.reduceat(most, rows.starts), 1.0)
    return outer + share[:, None] * inner


def _log_likelihood(
    family: Family, rows: Stacked, moved: np.ndarray, eta: np.ndarray, deviance: np.ndarray, stays: np.ndarray
) -> np.ndarray:
    """The limit of the log-likelihood of each group, at the limits of eta. stays: that of the rows that are not moved, (g,),
    NaN where it is not known."""
    present, g, owner, unknown = rows.weights > 0, len(deviance), owners(rows), np.isnan(stays)
    if family.dispersion is not None:
        dispersion = np.full(g, family.dispersion)
    else:
        amount = present.astype(float) if family.likelihood_rows == "rows" else np.where(present, rows.weights, 0.0)
        dispersion = deviance / np.bincount(owner, amount, g)
    looked = present & (moved | unknown[owner])
    return np.where(unknown, 0.0, stays) + log_likelihoods(family, rows, looked, eta, dispersion)
