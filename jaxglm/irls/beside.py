"""Where to start fits that differ in one column beside a shared design, as those of a scan do.

Most features do nothing, so the fit without any is close to all of them, and one step of Newton's method from there closer
still. At that fit all have the same working weights W and scores s. So what such a step needs of the features Z, Z'WX, the
diagonal of Z'WZ, and Z's, are three matrix products for all of them together, at a fraction of what one pass over the rows
of each takes. With A = X'WX, elimination of the shared columns leaves z'Wz - z'WX A^-1 X'Wz for the feature's own.

This is a score test, made into a start: what comes of it is where iteration begins, never what is reported.
"""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
from jax import Array

from jaxglm.designs import HIGHEST
from jaxglm.irls.options import IRLS
from jaxglm.irls.plain import iterate
from jaxglm.irls.solve import Data
from jaxglm.irls.working import working
from jaxglm.linalg import cholesky

LEAST = 1e-6  # of what a feature has, what is left of it after the shared columns, for a step to make sense


def is_alike(data: Data) -> bool:
    """Whether the fits of these data differ in one column, and perhaps in weights, alone."""
    same = data.y.ndim == 1 and (data.offset is None or data.offset.ndim == 1)
    same &= all(leaf.ndim == 0 for leaf in jax.tree.leaves(data.family))
    return data.own is not None and data.own.ndim == 2 and data.shared and data.penalty is None and same


def starts_beside(data: Data, options: IRLS) -> Array:
    """Coefficients (g, p + 1) to start from, for data that are alike."""
    weights = data.weights if data.weights.ndim == 1 else jnp.max(data.weights, axis=0)
    without = replace(data, own=None, weights=weights).problem(plain=True)
    b = iterate(without, options).coefficients
    row = working(data.family, without.rows, without.rows.eta(b))
    columns = without.rows.design.matrix()
    factor = cholesky(jnp.matmul(columns.T * row.weights, columns, precision=HIGHEST))
    features = jnp.where(data.weights > 0, data.own, 0.0)
    of_rows = jnp.concatenate([row.weights[:, None] * columns, row.scores[:, None]], axis=1)
    products = jnp.matmul(features, of_rows, precision=HIGHEST)
    cross, score = products[:, :-1].T, products[:, -1]
    square = jnp.matmul(features * features, row.weights, precision=HIGHEST)
    whitened = factor.whiten(cross)
    rest = square - jnp.sum(whitened**2, axis=0)
    enough = rest > LEAST * square
    step = jnp.where(enough, score / jnp.where(enough, rest, 1.0), 0.0)
    return jnp.concatenate([b[:, None] - factor.unwhiten(whitened) * step, step[None, :]]).T
