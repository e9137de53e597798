"""What a separated fit tends to.

Rows that the direction of separation moves are fitted perfectly in the limit. What remains of the likelihood belongs to
the other rows, and their fit gives the finite estimates, the errors and the deviance. Counts of rows and of independent
columns stay those of the whole fit.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from jaxglm.family import Family
from jaxglm.irls.problem import typed
from jaxglm.irls.solution import Solution
from jaxglm.packing import Stacked, owners, reweighted
from jaxglm.separation import Separated
from jaxglm.status import Status
from jaxglm.task import Task

FAR = 40.0  # a change of eta that takes every mean to its limit in float64
FARTHEST = 1e7
CANCELLED = 1e-10  # a sum this small beside its terms is zero


def infinite_eta(X: np.ndarray, direction: np.ndarray) -> np.ndarray:
    """-1, 0 or 1 for each row: where the direction (..., p) takes its eta. X: (..., p)."""
    products = X * direction
    change = products.sum(axis=-1)
    return np.where(np.abs(change) > CANCELLED * np.abs(products).sum(axis=-1), np.sign(change), 0.0)


def put_limits(
    task: Task, found: Solution, groups: np.ndarray, rows: Stacked, proofs: list[Separated], fit: Callable[[Task], Solution]
) -> None:
    """Replace what is `found` for separated groups by the limits. rows: theirs, made by `packing.gather`; fit: how to
    fit what remains."""
    owner, moved = owners(rows), np.concatenate([proof.moved for proof in proofs])
    failed = found.status[groups] == Status.STEP_FAILED
    kept = ~np.isnan(found.coefficients[groups]) | failed[:, None]
    rest = reweighted(rows, np.where(moved, 0.0, rows.weights), np.where(kept[owner], rows.X, 0.0))
    inner = fit(task.subset(rest, groups))
    direction = np.stack([proof.direction for proof in proofs])
    determined = np.stack([proof.determined for proof in proofs]) & (inner.infinite == 0)
    direction = _combined(rows, owner, direction, inner.direction, moved)
    change = np.abs(np.sum(rows.X * direction[owner], axis=1))
    nearest, farthest = np.full(len(groups), np.inf), np.zeros(len(groups))
    moving = moved | (infinite_eta(rows.X, direction[owner]) != 0)
    np.minimum.at(nearest, owner[moving], change[moving])
    np.maximum.at(farthest, owner[moving], change[moving])
    push = np.minimum(FAR / nearest, FARTHEST / farthest)
    base = np.where(np.isnan(inner.coefficients), 0.0, inner.coefficients)
    lost = np.isin(inner.status, (Status.STEP_FAILED, Status.INVALID_DATA))
    diverging = kept & ~determined & (direction != 0)
    pushed = base + push[:, None] * direction
    pushed = np.where(pushed * direction > 0, pushed, np.sign(direction) * np.maximum(np.abs(pushed), FAR))
    alone = kept & determined & lost[:, None]

    complete = inner.status == Status.NO_DATA
    deviance = np.where(complete, 0.0, inner.deviance)
    degrees, inner_degrees = found.n_obs[groups] - kept.sum(axis=1), inner.n_obs - inner.rank
    if task.family.dispersion is None:
        chi_square = np.where(inner_degrees > 0, inner.dispersion * inner_degrees, 0.0)
        dispersion = np.where(degrees > 0, chi_square / np.maximum(degrees, 1), np.nan)
        ratio = dispersion / np.where(inner_degrees > 0, inner.dispersion, np.nan)
    else:
        dispersion, ratio = np.full(len(groups), task.family.dispersion), np.ones(len(groups))
    unknown = ~determined | ~kept
    covariance = np.where(unknown[:, :, None] | unknown[:, None, :], np.nan, inner.covariance * ratio[:, None, None])

    found.coefficients[groups] = np.where(~kept | alone, np.nan, np.where(diverging, pushed, base))
    found.covariance[groups] = covariance
    found.deviance[groups] = deviance
    family = task.subset(rows, groups).family
    found.log_likelihood[groups] = _log_likelihood(family, rows, owner, base, direction, deviance)
    found.dispersion[groups] = dispersion
    found.rank[groups] = kept.sum(axis=1)
    found.n_iterations[groups] += inner.n_iterations
    found.status[groups] = Status.SEPARATED
    found.infinite[groups] = np.where(diverging, np.sign(direction), 0.0).astype(np.int64)
    found.direction[groups] = direction


def _combined(rows: Stacked, owner: np.ndarray, outer: np.ndarray, inner: np.ndarray, moved: np.ndarray) -> np.ndarray:
    """A direction that moves rows as `outer` does, and where that leaves them alone, as `inner` does."""
    if not inner.any():
        return outer
    first, second = np.abs(np.sum(rows.X * outer[owner], axis=1)), np.abs(np.sum(rows.X * inner[owner], axis=1))
    least, most = np.full(len(outer), np.inf), np.zeros(len(outer))
    np.minimum.at(least, owner[moved], first[moved])
    np.maximum.at(most, owner[moved], second[moved])
    share = np.where(most > 0, 0.5 * least / np.where(most > 0, most, 1.0), 1.0)
    return outer + np.minimum(share, 1.0)[:, None] * inner


def _log_likelihood(
    family: Family,
    rows: Stacked,
    owner: np.ndarray,
    coefficients: np.ndarray,
    direction: np.ndarray,
    deviance: np.ndarray,
) -> np.ndarray:
    """The limit of the log-likelihood of each group."""
    present = rows.weights > 0
    y, weights = np.where(present, rows.y, 0.5), np.where(present, rows.weights, 1.0)
    eta = np.sum(rows.X * coefficients[owner], axis=1) + (0.0 if rows.offset is None else np.where(present, rows.offset, 0.0))
    way = infinite_eta(rows.X, direction[owner])
    eta = np.where(way == 0, eta, np.copysign(np.inf, way))
    by_row = typed(jax.tree.map(lambda leaf: leaf if np.ndim(leaf) == 0 else leaf[owner], family), np.float64)
    g = len(coefficients)
    if family.dispersion is not None:
        dispersion = np.full(g, family.dispersion)
    else:
        amount = present.astype(float) if family.likelihood_rows == "rows" else np.where(present, weights, 0.0)
        dispersion = deviance / np.bincount(owner, amount, g)
    mean = by_row.link.mean(jnp.asarray(eta))
    each = np.asarray(by_row.log_likelihood_at(jnp.asarray(y), mean, jnp.asarray(weights), jnp.asarray(dispersion)[owner]))
    return np.bincount(owner, np.where(present, each, 0.0), g)
