"""Hat values: how much each row's response pulls its own fitted value.

h_i = w_i x_i' (X'WX)^-1 x_i with the working weights w at the estimates, the diagonal of the hat matrix of the last weighted
least squares. With a root T of (X'WX)^-1 = T T' it is the squared length of T'x, times w, which does not cancel as the
quadratic form does. They lie between 0 and 1 and add up to the rank of a fit without a penalty. A row of weight zero is not
there and has 0; a row of a fit without estimates, or one that a separated fit moves to its limit, has NaN.

Source: R's `hatvalues.glm`; Pregibon, Logistic regression diagnostics (1981).
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxglm.linalg import cholesky

PIECE = 2**14  # rows worked on at a time
FULL = 1.0 - 1e-14  # a hat value from here on is 1, as R has it


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
    prior, weights = rows.prior_weights(), result._quantities().working_weights
    weights = np.where(np.isinf(result._eta()), np.nan, weights)
    hat = np.where(prior == 0, 0.0, weights * _squared_lengths(rows, roots(unscaled(result))))
    return np.where(hat > FULL, 1.0, hat)


def unscaled(result: Any) -> np.ndarray:
    """(X'WX)^-1 of every fit, (g, p, p): its covariance at dispersion 1, NaN where that is."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return result.solution.covariance / result.solution.dispersion[:, None, None]


def roots(matrices: np.ndarray) -> np.ndarray:
    """T (g, p, p) with T T' the matrices, zero in the rows of terms that have no variance; NaN where a fit has none."""
    known = np.isfinite(np.diagonal(matrices, axis1=1, axis2=2))
    filled = np.where(known[:, :, None] & known[:, None, :], matrices, 0.0)
    with jax.enable_x64(True):
        found = np.array(_roots(jnp.asarray(filled)))
    found[~known.any(axis=1)] = np.nan
    return found


@jax.jit
@jax.vmap
def _roots(matrix: jax.Array) -> jax.Array:
    factor = cholesky(matrix, 0.0)
    return jnp.where(factor.aliased[:, None] | factor.aliased, 0.0, factor.upper.T * factor.lengths[:, None])


def _squared_lengths(rows: Any, roots: np.ndarray) -> np.ndarray:
    """|T'x|^2 of every row, with its group's T."""
    out = np.full(rows.shape, np.nan)
    if rows.codes is not None:
        for begin in range(0, len(rows.codes) if rows.g else 0, PIECE):
            part = slice(begin, begin + PIECE)
            code = rows.codes[part]
            z = np.matmul(rows.X[part, None, :], roots[code])[:, 0]
            out[part] = np.where(code < 0, np.nan, np.sum(z * z, axis=1))
        return out
    for k in range(rows.g):
        X = rows.X if rows.X.ndim == 2 else rows.X[k]
        X = X if rows.own is None else np.column_stack([X, rows.own.numbers(k)])
        out[k] = np.sum((X @ roots[k]) ** 2, axis=1)
    return out
