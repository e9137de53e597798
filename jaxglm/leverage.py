"""Hat values: how much each row's response pulls its own fitted value.

h_i = w_i x_i' (X'WX)^-1 x_i with the working weights w at the estimates, the diagonal of the hat matrix of the last weighted
least squares. With a root T of (X'WX)^-1 = T T' it is the squared length of T'x, times w, which does not cancel as the
quadratic form does. The root is that of the covariance; where that is near singular, it is corrected once by the Gram matrix
of the rows T'x, as in Cholesky QR done twice, so that its error grows with the condition number and not with its square. With
a penalty P, X'WX + P stands in for X'WX.

Hat values lie between 0 and 1, and without a penalty add up to the rank. A row of weight zero is not there and has 0; a row
of a fit without estimates, or one that a separated fit moves to its limit, has NaN.

Sources: R's `hatvalues.glm`; Pregibon, Logistic regression diagnostics (1981); Yamamoto et al., Roundoff error analysis of
the CholeskyQR2 algorithm (2015).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxglm.designs import HIGHEST
from jaxglm.family import Family
from jaxglm.irls.solution import store
from jaxglm.irls.working import working
from jaxglm.limits import infinite_eta, remaining
from jaxglm.linalg import cholesky
from jaxglm.passes import over_fits
from jaxglm.penalty import pulled
from jaxglm.rows import Rows, Totals, fold
from jaxglm.status import Status
from jaxglm.task import Task

WELL = 1e-4  # the smallest pivot of a covariance whose root needs no look at the rows
FULL = 1.0 - 1e-14  # a hat value from here on is 1, as R has it
PIECE = 2**17  # numbers worked on at a time, which stay in a cache
DEPENDENT = 1e-11  # of a column's square, what those before it leave of one that depends on them, where no covariance tells


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Known:
    """What is known of a fit, or with a leading axis of many. coefficients: (p,), 0 where aliased; root: (p, p), T with
    (X'WX)^-1 = T T', or nearly; penalty: (p,) or (p, p), zeros without one; n_obs, rank: numbers."""

    coefficients: Any
    root: Any
    penalty: Any
    n_obs: Any
    rank: Any


def hat_values(result: Any) -> np.ndarray:
    """The hat value of every row of a `GLMResults`, in the rows' own shape: (N,) where each row belongs to one group, as for
    one fit, else (g, n). Raises ValueError for a result that holds no rows.

    >>> import numpy as np
    >>> import jaxglm
    >>> from jaxglm.leverage import hat_values
    >>> X = np.column_stack([np.ones(4), np.arange(4.0)])
    >>> hat_values(jaxglm.fit(X, [1.0, 2.0, 2.0, 4.0])).round(2).tolist()
    [0.7, 0.3, 0.3, 0.7]
    """
    rows = result._rows()
    weights, root = result._quantities().working_weights, known(result).root
    hat = np.full(rows.shape, np.nan)
    for part, X in rows.pieces():
        z = X @ root[part] if rows.codes is None else (X[:, None, :] @ root[rows.codes[part]])[:, 0]
        hat[part] = weights[part] * np.sum(z * z, axis=-1)
    if rows.codes is not None:
        hat[rows.codes < 0] = np.nan
    hat = np.where(np.isinf(result._eta()), np.nan, hat)
    return np.where(rows.prior_weights() == 0, 0.0, np.where(hat > FULL, 1.0, hat))


def remembered(result: Any) -> Task:
    """What was fitted. Raises ValueError for a result that holds no rows, or does not know how it was fitted."""
    result._rows()
    if result.task is None:
        raise ValueError(
            "this fit was chosen from a path and does not remember how it was made; fit at its strength: "
            "jaxglm.fit(..., penalty=ElasticNet(strength))"
        )
    task: Task = result.task
    return task


def known(result: Any) -> Known:
    """What is known of the fits of a `GLMResults`; the root is NaN where a fit has no estimates."""
    solution, task = result.solution, remembered(result)
    g, p = solution.coefficients.shape
    penalty = np.zeros((g, p)) if task.penalty is None else task.penalty
    penalty = penalty if penalty.ndim == 3 else np.broadcast_to(penalty, (g, p))
    coefficients = np.where(np.isnan(solution.coefficients), 0.0, solution.coefficients)
    made = factored(unscaled(result))
    tells = (solution.status == Status.CONVERGED) & np.isfinite(made.root).all(axis=(1, 2))
    root = _chosen(tells, made.root, lambda: np.eye(p) * ~solution.aliased[:, None, :])
    at = Known(coefficients, root, penalty, solution.n_obs.astype(float), solution.rank.astype(float))
    has = (solution.status == Status.CONVERGED) | (solution.status == Status.SEPARATED)
    doubtful = has & ~(tells & (made.smallest_pivot > WELL) & (task.dtype == np.float64))
    if doubtful.any():
        exact = over_limits(exact_root, result, at, doubtful)
        root = np.where(doubtful[:, None, None], exact, root)
    return replace(at, root=_chosen(has, root, lambda: np.nan))


def _chosen(which: np.ndarray, matrices: np.ndarray, otherwise: Callable[[], Any]) -> np.ndarray:
    """The matrices (g, p, p), and something else for those not flagged by `which` (g,), if there are any."""
    return matrices if which.all() else np.where(which[:, None, None], matrices, otherwise())


def over_limits(one: Callable[..., Any], result: Any, known: Any, which: np.ndarray | None = None) -> Any:
    """`passes.over_fits` of the fits of a result, the rows that separated fits move to their limits left out: what they weigh
    there is nothing."""
    separated = result.solution.direction.any(axis=1)
    which = np.ones(len(separated), bool) if which is None else which
    found = over_fits(one, result.task, known, which & ~separated)
    apart = np.flatnonzero(which & separated)
    if len(apart):
        rest = remaining(result.task, result.solution, apart)
        store(found, apart, over_fits(one, rest, jax.tree.map(lambda leaf: leaf[apart], known)))
    return found


def at_limits(result: Any) -> Task:
    """The task of a result without the rows that separated fits move to their limits."""
    task, moved = result.task, moved_rows(result)
    if moved is None:
        return task
    rows = result._rows()
    weights = np.where(moved, 0.0, rows.prior_weights())
    own = {"own": replace(rows.own, drop=False)} if rows.own is not None else {}
    return replace(task, source=replace(task.source, weights=weights, **own))


def moved_rows(result: Any) -> np.ndarray | None:
    """Which rows separated fits move to their limits, in the rows' own shape; None where there are no such fits."""
    direction = result.solution.direction
    fits = np.flatnonzero(direction.any(axis=1))
    if not len(fits):
        return None
    rows = result._rows()
    moved = np.zeros(rows.shape, bool)
    if rows.codes is None:
        for part in fits:
            moved[part] = infinite_eta(rows.design(part), direction[part]) != 0
        return moved
    inside = rows.of_fits(fits)
    moved[inside] = infinite_eta(rows.X[inside], direction[rows.codes[inside]]) != 0
    return moved


def exact_root(rows: Rows, family: Family, known: Known) -> Array:
    """T with T T' = (X'WX + P)^-1 on the independent columns, of one fit from its rows, where `known.root` is nearly that."""

    def look(part: Rows) -> Totals:
        weights = working(family, part, part.eta(known.coefficients)).weights
        z = whitened(part, known.root)
        return Totals(jnp.matmul(z * weights, z.T, precision=HIGHEST))

    gram = fold(rows, look).sums + jnp.matmul(known.root.T, pulled(known.penalty, known.root), precision=HIGHEST)
    correction = cholesky(gram, DEPENDENT).unwhiten(jnp.eye(len(gram), dtype=gram.dtype))
    return jnp.matmul(known.root, correction, precision=HIGHEST)


def whitened(rows: Rows, root: Array) -> Array:
    """T'x of every row, (p, n)."""
    return jnp.matmul(root.T, rows.design.matrix().T, precision=HIGHEST)


def unscaled(result: Any) -> np.ndarray:
    """(X'WX + P)^-1 of every fit, (g, p, p), the covariance at dispersion 1; NaN where that is, or where dispersion is 0. It
    may be the covariance itself, so not to be changed."""
    if result.unscaled is not None:
        return result.unscaled
    dispersion = result.solution.dispersion[:, None, None]
    if (dispersion == 1).all():
        return np.asarray(result.solution.covariance)
    return result.solution.covariance / np.where(dispersion > 0, dispersion, np.nan)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Roots:
    """Roots of many matrices. root: (g, p, p); smallest_pivot: (g,), of the matrices scaled to a unit diagonal."""

    root: Any
    smallest_pivot: Any


def factored(matrices: np.ndarray) -> Roots:
    """Roots T (g, p, p), T T' being the matrices (g, p, p), zero in the rows of terms that have no variance, and NaN where a
    fit has none; and how near singular the matrices are."""
    variance = np.diagonal(matrices, axis1=1, axis2=2)
    known = np.isfinite(variance)
    filled = matrices if known.all() else np.where(known[:, :, None] & known[:, None, :], matrices, 0.0)
    found = _regular(filled)
    if found is None:
        with jax.enable_x64(True):
            found = jax.tree.map(np.asarray, _roots(jnp.asarray(filled)))
    return replace(found, root=_chosen(known.any(axis=1), found.root, lambda: np.nan))


def _regular(matrices: np.ndarray) -> Roots | None:
    """`factored`, of matrices that are regular but for rows of zeros; None where some are not."""
    out = Roots(np.zeros_like(matrices), np.empty(len(matrices)))
    size = max(1, PIECE // max(1, matrices.shape[-1] ** 2))
    for begin in range(0, len(matrices), size):
        part = slice(begin, begin + size)
        if not _put_regular(matrices[part], Roots(out.root[part], out.smallest_pivot[part])):
            return None
    return out


def _put_regular(matrices: np.ndarray, out: Roots) -> bool:
    """Fill `out`, which holds zeros, a column for all fits at a time; False as soon as a pivot is not positive."""
    p = matrices.shape[-1]
    left, places = np.moveaxis(matrices, 0, -1).copy(), np.arange(p)  # fits innermost
    size = np.sqrt(np.maximum(left[places, places], 0.0))
    inverse = 1.0 / np.where(size > 0, size, 1.0)
    left *= inverse[:, None]
    left *= inverse
    left[places, places] += size == 0
    pivots = np.ones((p, len(matrices)))
    for j in range(p):
        column = left[j:, j]
        column -= np.einsum("ijk,jk->ik", left[j:, :j], left[j, :j])
        pivots[j] = column[0]
        if not (pivots[j] > 0).all():
            return False
        column /= np.sqrt(pivots[j])
        out.root[:, j:, j] = (column * size[j:]).T
    out.smallest_pivot[:] = np.min(pivots, axis=0, initial=1.0)
    return True


@jax.jit
@jax.vmap
def _roots(matrix: Array) -> Roots:
    factor = cholesky(matrix, 0.0)
    root = jnp.where(factor.aliased[:, None] | factor.aliased, 0.0, factor.upper.T * factor.lengths[:, None])
    return Roots(root, factor.smallest_pivot)
