"""Ways to the increment: normal equations and orthogonal factorization.

All take the rows chunk by chunk, add them up to something small, and then solve weighted least-squares problems that share
their weights and differ in their right-hand sides, which are given as scores. `NORMAL` collects the Gram matrix and the
scores, and so does `PLAIN`, which solves small systems faster, and a larger one that is known on the host; `ORTHOGONAL`
collects the triangular factor of the weighted rows, which is slower and keeps its accuracy where the Gram matrix has lost it.
`either` is one of these two, which is told when the program runs.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxglm.designs import HIGHEST, Design, from_pairs
from jaxglm.linalg import (
    LARGEST,
    Factor,
    Small,
    cholesky,
    least_pivot,
    orthogonal,
    semidefinite_root,
    small_solve,
    solve_on_host,
    stack,
)
from jaxglm.links import STATIC
from jaxglm.penalty import as_matrix, pulled
from jaxglm.rows import Rows, Shares, Totals, accumulate, zeros


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Solved:
    """A factored information matrix, and of each right-hand side the increment, (p, k), and its squared length, the
    decrement, (k,): twice the fall of half the deviance that a quadratic model promises."""

    factor: Factor | Small
    increments: Array
    decrements: Array


@dataclass(frozen=True)
class Algebra:
    """One way of solving.

    collect(design, weights, scores): from working weights (n,) and right-hand sides as scores (k, n); merge(a, b): adds what
    was collected of more rows to a sum; begin(shapes): the sum of no rows, None where that is zeros of these shapes, and
    what is collected of some rows is a sum as well.
    solve(collected, penalty, origins, keep, tolerance): with a penalty (p,) or (p, p), which pulls each right-hand side's
    coefficients back from its column of `origins` (p, k), and only the columns to `keep` (p,); `tolerance` says which
    further columns are dependent.
    normal(collected, p): X'WX and X's, without penalty.
    squares: whether it works with the square of the design, and so with the square of its condition number; known before
    the program runs, except of `either`.
    """

    collect: Callable[[Design, Array, Array], Any]
    merge: Callable[[Any, Any], Any]
    solve: Callable[..., Solved]
    normal: Callable[[Any, int], tuple[Array, Array]]
    squares: bool | Array
    begin: Callable[[Any], Any] | None = None

    def gather(self, rows: Rows | Shares, each: Callable[[Rows], tuple[Array, Array, Totals]]) -> tuple[Any, Totals]:
        """Collect over all rows; `each` gives a chunk's weights, scores and further totals."""

        return accumulate(rows, Gathered(each, self), Merged(self), None if self.begin is None else self._begun)

    def _begun(self, shapes: tuple[Any, Totals]) -> tuple[Any, Totals]:
        """What was collected of no rows."""
        assert self.begin is not None
        return self.begin(shapes[0]), zeros(shapes[1])

    def trusts(self, factor: Factor | Small) -> Array:
        """Whether a factorization can be trusted: of a Gram matrix by its pivots, of rows unless all went wrong."""
        return factor.smallest_pivot > self._if_squares(least_pivot(factor.lengths.dtype), -1.0)

    def _if_squares(self, a: Any, b: Any) -> Any:
        return (a if self.squares else b) if isinstance(self.squares, bool) else jnp.where(self.squares, a, b)

    def noise(self, factor: Factor | Small, size: Array) -> Array:
        """The length of an increment that is nothing but rounding, where `size` is the length of what was rounded."""
        epsilon = jnp.finfo(factor.lengths.dtype).eps
        loss = jax.lax.rsqrt(jnp.where(factor.smallest_pivot > 0, factor.smallest_pivot, 1.0))
        return 4.0 * epsilon * size * self._if_squares(loss, 1.0)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Gathered:
    """What an algebra collects of some rows, and further totals, as a function of the rows. each: see `Algebra.gather`."""

    each: Any
    algebra: Algebra = field(metadata=STATIC)

    def __call__(self, part: Rows) -> tuple[Any, Totals]:
        weights, scores, totals = self.each(part)
        return self.algebra.collect(part.design, weights, scores), totals


@dataclass(frozen=True)
class Merged:
    """How an algebra adds up what it has collected."""

    algebra: Algebra

    def __call__(self, a: tuple[Any, Totals], b: tuple[Any, Totals]) -> tuple[Any, Totals]:
        return self.algebra.merge(a[0], b[0]), a[1].merge(b[1])


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class _Gram:
    information: Array
    scores: Array


def _collect_gram(design: Design, weights: Array, scores: Array) -> _Gram:
    return _Gram(*design.normal(weights, scores))


def _whole(gram: _Gram, p: int) -> _Gram:
    """With the whole information matrix, where only its lower triangle was collected."""
    return gram if gram.information.ndim == 2 else replace(gram, information=from_pairs(gram.information, p))


def _pulled(scores: Array, penalty: Array | None, origins: Array | None) -> Array:
    return scores if penalty is None or origins is None else scores - pulled(penalty, origins)


def _solved(factor: Factor, whitened: Array) -> Solved:
    return Solved(factor, factor.unwhiten(whitened), jnp.sum(whitened**2, axis=0))


def _solve_gram(gram: _Gram, penalty: Array | None, origins: Array | None, keep: Array, tolerance: float = 0.0) -> Solved:
    factor = _factored(_whole(gram, len(keep)).information, penalty, keep)
    return _solved_gram(factor, gram.scores, penalty, origins)


@jax.jit  # apart from right-hand sides, since compiling it takes long, and there are one or two of these
def _factored(information: Array, penalty: Array | None, keep: Array) -> Factor:
    unit = jnp.eye(keep.shape[0], dtype=information.dtype)
    information = information if penalty is None else information + as_matrix(penalty)
    return replace(cholesky(jnp.where(keep[:, None] & keep, information, unit)), aliased=~keep)


@jax.jit
def _solved_gram(factor: Factor, scores: Array, penalty: Array | None, origins: Array | None) -> Solved:
    return _solved(factor, factor.whiten(_pulled(scores, penalty, origins)))


def _solve_small(gram: _Gram, penalty: Array | None, origins: Array | None, keep: Array, tolerance: float = 0.0) -> Solved:
    if len(keep) <= LARGEST or gram.information.ndim == 1:
        return _solved_small(gram, penalty, origins, keep)
    if isinstance(gram.information, jax.core.Tracer):
        return _solve_gram(gram, penalty, origins, keep)
    information = gram.information if penalty is None else gram.information + as_matrix(penalty)
    return Solved(*solve_on_host(information, _pulled(gram.scores, penalty, origins), keep))


@jax.jit
def _solved_small(gram: _Gram, penalty: Array | None, origins: Array | None, keep: Array) -> Solved:
    information = _whole(gram, len(keep)).information
    information = information if penalty is None else information + as_matrix(penalty)
    return Solved(*small_solve(information, _pulled(gram.scores, penalty, origins), keep))


def _collect_rows(design: Design, weights: Array, scores: Array) -> Array:
    root = jnp.sqrt(weights)
    responses = scores * jnp.where(weights > 0, 1.0 / jnp.where(weights > 0, root, 1.0), 0.0)
    return jnp.concatenate([design.matrix() * root[:, None], responses.T], axis=1)


def _no_triangle(rows: Any) -> Array:
    """The triangular factor of no rows, with as many columns as these."""
    return jnp.zeros((rows.shape[1], rows.shape[1]), rows.dtype)


def _solve_triangle(upper: Array, penalty: Array | None, origins: Array | None, keep: Array, tolerance: float = 0.0) -> Solved:
    p = keep.shape[0]
    k = upper.shape[0] - p
    if penalty is not None:
        root = semidefinite_root(penalty) if penalty.ndim == 2 else jnp.diag(jnp.sqrt(penalty))
        wanted = jnp.zeros((p, k), upper.dtype) if origins is None else -jnp.matmul(root, origins, precision=HIGHEST)
        upper = stack(upper, jnp.concatenate([root, wanted], axis=1))
    return _solved(*orthogonal(upper, k, keep, tolerance))


def _normal_of_triangle(upper: Array, p: int) -> tuple[Array, Array]:
    product = jnp.matmul(upper.T, upper, precision=HIGHEST)
    return product[:p, :p], product[:p, p:]


def _add(a: _Gram, b: _Gram) -> _Gram:
    return jax.tree.map(operator.add, a, b)


def _normal_of_gram(gram: _Gram, p: int) -> tuple[Array, Array]:
    gram = _whole(gram, p)
    return gram.information, gram.scores


NORMAL = Algebra(collect=_collect_gram, merge=_add, solve=_solve_gram, normal=_normal_of_gram, squares=True)
PLAIN = replace(NORMAL, solve=_solve_small)
ORTHOGONAL = Algebra(
    collect=_collect_rows,
    merge=stack,
    solve=_solve_triangle,
    normal=_normal_of_triangle,
    squares=False,
    begin=_no_triangle,
)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class _Look:
    """What is collected of some rows, as it is."""

    design: Any
    weights: Array
    scores: Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class _Both:
    """What `NORMAL` or `ORTHOGONAL` has collected, and nothing of the other."""

    gram: _Gram
    upper: Array


def either(accurate: Array) -> Algebra:
    """`ORTHOGONAL` if it is to be `accurate` (a flag, the same for all fits that are mapped over), else `NORMAL`. A program
    that may need both has one copy of the work on rows. Not for `Shares`, whose sums it cannot add to each other."""

    def collected(way: Algebra, look: _Look) -> Any:
        return way.collect(look.design, look.weights, look.scores)

    def begin(shapes: _Look) -> _Both:
        gram, rows = (jax.eval_shape(partial(collected, way), shapes) for way in (NORMAL, ORTHOGONAL))
        return _Both(zeros(gram), _no_triangle(rows))

    def merge(a: _Both, look: _Look) -> _Both:
        return jax.lax.cond(
            accurate,
            lambda: replace(a, upper=ORTHOGONAL.merge(a.upper, collected(ORTHOGONAL, look))),
            lambda: replace(a, gram=NORMAL.merge(a.gram, collected(NORMAL, look))),
        )

    def solve(both: _Both, *rest: Any) -> Solved:
        return jax.lax.cond(accurate, lambda: ORTHOGONAL.solve(both.upper, *rest), lambda: NORMAL.solve(both.gram, *rest))

    def normal(both: _Both, p: int) -> tuple[Array, Array]:
        return jax.lax.cond(accurate, lambda: ORTHOGONAL.normal(both.upper, p), lambda: NORMAL.normal(both.gram, p))

    return Algebra(_Look, merge, solve, normal, squares=~accurate, begin=begin)
