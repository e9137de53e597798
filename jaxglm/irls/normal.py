"""Two ways to the increment: normal equations and orthogonal factorization.

Both take the rows chunk by chunk, collect something small, and then solve weighted least-squares problems that share
their weights and differ in their right-hand sides, which are given as scores. `NORMAL` collects the Gram matrix and the
scores; `ORTHOGONAL` the triangular factor of the weighted rows, which is slower and keeps its accuracy where the Gram
matrix has lost it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxglm.designs import HIGHEST, Design
from jaxglm.linalg import Factor, cholesky, orthogonal, stack
from jaxglm.rows import Rows, Totals, accumulate


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Solved:
    """A factored information matrix and increments, one column a right-hand side, both (p, k). The squared length of a
    whitened column is the decrement: twice the fall of half the deviance that a quadratic model promises."""

    factor: Factor
    whitened: Array
    increments: Array


@dataclass(frozen=True)
class Algebra:
    """One way of solving.

    collect(design, weights, scores): from working weights (n,) and right-hand sides as scores (n, k); merge: adds up.
    factor(collected, penalty, pull, keep, tolerance): the factor and the whitened right-hand sides, with penalty (p,)
    on the diagonal, pull (p, k) added to the right-hand sides, and only the columns to `keep` (p,).
    normal(collected, p): X'WX and X's, without penalty.
    squares: whether it works with the square of the design, and so with the square of its condition number.
    """

    collect: Callable[[Design, Array, Array], Any]
    merge: Callable[[Any, Any], Any]
    factor: Callable[[Any, Array | None, Array | None, Array, float], tuple[Factor, Array]]
    normal: Callable[[Any, int], tuple[Array, Array]]
    squares: bool

    def gather(self, rows: Rows, each: Callable[[Rows], tuple[Array, Array, Totals]]) -> tuple[Any, Totals]:
        """Collect over all rows; `each` gives a chunk's weights, scores and further totals."""

        def chunk(part: Rows) -> tuple[Any, Totals]:
            weights, scores, totals = each(part)
            return self.collect(part.design, weights, scores), totals

        return accumulate(rows, chunk, lambda a, b: (self.merge(a[0], b[0]), a[1].merge(b[1])))

    def trusts(self, factor: Factor) -> Array:
        """Whether a factorization can be trusted. A Gram matrix cannot when variances would lose more than half of their
        digits, or when a column that R aliases may look like one that it keeps; rows can unless all went wrong."""
        epsilon = float(jnp.finfo(factor.upper.dtype).eps)
        return factor.smallest_pivot > (7.0 * epsilon**0.5 if self.squares else -1.0)

    def noise(self, factor: Factor, size: Array) -> Array:
        """The length of an increment that is nothing but rounding, where `size` is the length of what was rounded."""
        epsilon = jnp.finfo(factor.upper.dtype).eps
        loss = jax.lax.rsqrt(jnp.where(factor.smallest_pivot > 0, factor.smallest_pivot, 1.0)) if self.squares else 1.0
        return 4.0 * epsilon * size * loss

    def solve(self, collected: Any, penalty: Array | None, pull: Array | None, keep: Array, tolerance: float = 0.0) -> Solved:
        """Factor and solve for all right-hand sides."""
        factor, whitened = self.factor(collected, penalty, pull, keep, tolerance)
        return Solved(factor, whitened, factor.unwhiten(whitened))


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class _Gram:
    information: Array
    scores: Array


def _collect_gram(design: Design, weights: Array, scores: Array) -> _Gram:
    return _Gram(design.gram(weights), design.transposed_dot(scores))


def _factor_gram(gram: _Gram, penalty: Array | None, pull: Array | None, keep: Array, tolerance: float) -> tuple[Factor, Array]:
    information = gram.information if penalty is None else gram.information + jnp.diag(penalty)
    scores = gram.scores if pull is None else gram.scores + pull
    factor = cholesky(jnp.where(keep[:, None] & keep, information, jnp.eye(keep.shape[0], dtype=information.dtype)))
    factor = replace(factor, aliased=~keep)
    return factor, factor.whiten(scores)


def _collect_triangle(design: Design, weights: Array, scores: Array) -> Array:
    root = jnp.sqrt(weights)
    responses = scores * jnp.where(weights > 0, 1.0 / jnp.where(weights > 0, root, 1.0), 0.0)[:, None]
    rows = jnp.concatenate([design.matrix() * root[:, None], responses], axis=1)
    k = rows.shape[1]
    return stack(jnp.zeros((k, k), rows.dtype), rows)


def _factor_triangle(
    upper: Array, penalty: Array | None, pull: Array | None, keep: Array, tolerance: float
) -> tuple[Factor, Array]:
    p = keep.shape[0]
    k = upper.shape[0] - p
    if penalty is not None:
        root = jnp.sqrt(penalty)
        pulled = jnp.zeros((p, k), upper.dtype) if pull is None else pull / jnp.where(root > 0, root, 1.0)[:, None]
        upper = stack(upper, jnp.concatenate([jnp.diag(root), pulled], axis=1))
    return orthogonal(upper, k, keep, tolerance)


def _normal_of_triangle(upper: Array, p: int) -> tuple[Array, Array]:
    product = jnp.matmul(upper.T, upper, precision=HIGHEST)
    return product[:p, :p], product[:p, p:]


NORMAL = Algebra(
    collect=_collect_gram,
    merge=lambda a, b: jax.tree.map(jnp.add, a, b),
    factor=_factor_gram,
    normal=lambda gram, p: (gram.information, gram.scores),
    squares=True,
)
ORTHOGONAL = Algebra(collect=_collect_triangle, merge=stack, factor=_factor_triangle, normal=_normal_of_triangle, squares=False)
