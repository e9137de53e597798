"""Where to start fits that are alike: replicates of one fit, and the fits of a scan.

Fits that share their responses and their design, and differ in prior weights, as bootstrap replicates do, lie around the fit
without weights, so that is where they start.

Fits that differ in one column beside a shared design, as those of a scan do, start from the fit without such a column, and
closer still: at that fit all have the same working weights W and scores s. So what one step of Newton's method needs of the
features Z, Z'WX, the diagonal of Z'WZ, and Z's, are three matrix products for all of them together, at a fraction of what one
pass over the rows of each takes. With A = X'WX, elimination of the shared columns leaves z'Wz - z'WX A^-1 X'Wz for the
feature's own. This is a score test, made into a start.

What comes of it is where iteration begins, never what is reported. It depends on what fits share and on a fit's own column,
not on other fits, so that none changes another.
"""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
from jax import Array

from jaxglm.designs import HIGHEST
from jaxglm.irls.data import Data
from jaxglm.irls.options import IRLS
from jaxglm.irls.plain import begin, iterate
from jaxglm.irls.problem import Problem
from jaxglm.irls.working import working
from jaxglm.linalg import cholesky

LEAST = 1e-6  # of what a feature has, what is left of it after the shared columns, for a step to make sense


def are_alike(data: Data) -> bool:
    """Whether the fits of these data share a design and responses, and differ in weights or in one column."""
    same = data.y.ndim == 1 and (data.offset is None or data.offset.ndim == 1)
    same &= data.shared and data.penalty is None and all(leaf.ndim == 0 for leaf in jax.tree.leaves(data.family))
    return same and (data.weights.ndim == 2 or (data.own is not None and data.own.ndim == 2))


def starts_of_alike(data: Data, options: IRLS, g: int) -> Array:
    """Coefficients (g, p), with an own column (g, p + 1), to start from, for g fits whose data are alike."""
    common = replace(data, own=None, weights=_common_weights(data)).problem(plain=True)
    reached = iterate(common, options)
    b = jnp.where(reached.settled, reached.coefficients, begin(common).coefficients)
    return jnp.broadcast_to(b, (g, len(b))) if data.own is None else _one_step(data, common, b)


def _common_weights(data: Data) -> Array:
    """Those that all fits have; where they differ, one for every row that can be used."""
    if data.weights.ndim == 1:
        return data.weights
    usable = data.family.valid_response_at(data.y)
    usable = usable if data.offset is None else usable & jnp.isfinite(data.offset)
    return usable.astype(data.X.dtype)


def _one_step(data: Data, common: Problem, b: Array) -> Array:
    """One step of Newton's method from the fit without features."""
    row = working(data.family, common.rows, common.rows.eta(b))
    columns = common.rows.design.matrix()
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
