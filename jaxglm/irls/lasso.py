"""A quadratic with absolute values, minimised exactly: the inner problem of an elastic net.

Over c, with b where the quadratic has been expanded, information H and score s there,

    -s'(c - b) + (c - b)' H (c - b) / 2 + sum_j (absolute_j |c_j| + square_j c_j^2 / 2).

On the coordinates that are not zero, with their signs held, the objective is a plain quadratic: a pass goes to its minimum,
or on the way there to the first coordinate that reaches zero. At such a minimum the next pass first goes through all
coordinates one by one and minimises over each (soft thresholding), which finds those that should not be zero. Both lower the
objective, and every set of signs has one minimum, so that the passes end after a finite number where no coordinate wants to
move; where the start is near, after one or two. Coordinates alone, as glmnet has them, would take thousands of rounds where
columns are correlated.

Sources: Friedman, Hastie and Tibshirani (2010), Journal of Statistical Software 33, for the coordinates; Osborne, Presnell
and Turlach (2000), IMA Journal of Numerical Analysis 20, for the sets of signs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxglm.designs import HIGHEST
from jaxglm.irls.seldom import seldom
from jaxglm.linalg import LARGEST, Factor, cholesky, small_solve

DEPENDENT = 1e-12  # of the square of a column, what is left of one that depends on those before it
PASSES = 16  # beside three a coordinate: those that a problem may take
ROUNDING = 64.0  # in units of the last place of the terms of a derivative


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Quadratic:
    """The problem. information: (p, p); score, base (the b above), absolute, square: (p,); keep: (p,), coordinates that may
    move; the others stay at zero."""

    information: Array
    score: Array
    base: Array
    absolute: Array
    square: Array
    keep: Array

    @property
    def curvature(self) -> Array:
        """The second derivative of what is smooth, (p, p)."""
        return self.information + jnp.diag(self.square)

    def fall(self, c: Array) -> Array:
        """Minus the derivative of what is smooth, at c."""
        return self.score - self.square * c - jnp.matmul(self.information, c - self.base, precision=HIGHEST)

    def terms(self, c: Array) -> Array:
        """The sizes of the terms that `fall` adds up."""
        moved = jnp.matmul(jnp.abs(self.information), jnp.abs(c - self.base), precision=HIGHEST)
        return jnp.abs(self.score) + self.square * jnp.abs(c) + moved + self.absolute


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Minimum:
    """Where the passes have led. coefficients: (p,); smallest_pivot: of the scaled curvature on those that are not zero;
    whole: whether the last pass reached the minimum with its signs; settled: whether no coordinate wants to move; passes: how
    many there were."""

    coefficients: Array
    smallest_pivot: Array
    whole: Array
    settled: Array
    passes: Array


def minimise(problem: Quadratic) -> Minimum:
    """Minimise, from the problem's base."""
    p = problem.base.shape[0]
    dtype = problem.base.dtype
    no = jnp.zeros((), bool)
    start = Minimum(problem.base, jnp.ones((), dtype), no, no, jnp.zeros((), jnp.int32))

    def one_pass(state: Minimum) -> Minimum:
        c = seldom(state.whole, lambda: _coordinates(problem, state.coefficients), state.coefficients)
        return replace(_on_signs(problem, c), passes=state.passes + 1)

    return jax.lax.while_loop(lambda state: ~state.settled & (state.passes < 3 * p + PASSES), one_pass, start)


def _coordinates(problem: Quadratic, c: Array) -> Array:
    """Minimise over one coordinate after the other."""
    curvature, keep, p = problem.curvature, problem.keep, c.shape[0]

    def one(j: Any, state: tuple[Array, Array]) -> tuple[Array, Array]:
        c, fall = state
        size = curvature[j, j]
        moves = keep[j] & (size > 0)
        wanted = c[j] * size + fall[j]
        new = jnp.sign(wanted) * jnp.maximum(jnp.abs(wanted) - problem.absolute[j], 0.0) / jnp.where(moves, size, 1.0)
        new = jnp.where(moves, new, c[j])
        return c.at[j].set(new), fall - curvature[j] * (new - c[j])

    return jax.lax.fori_loop(0, p, one, (c, problem.fall(c)), unroll=p <= LARGEST)[0]


def active(problem: Quadratic, c: Array) -> Array:
    """The coordinates that are not zero, or have no absolute value."""
    return problem.keep & ((c != 0) | (problem.absolute == 0))


def factor_on(matrix: Array, which: Array) -> Factor:
    """A matrix (p, p) factored on some coordinates (p,), the others like a unit matrix."""
    return cholesky(jnp.where(which[:, None] & which, matrix, jnp.eye(which.shape[0], dtype=matrix.dtype)), DEPENDENT)


def _solve_on(matrix: Array, which: Array, wanted: Array) -> tuple[Array, Array]:
    """The solution (p,) of a system on some coordinates, zero on the others, and the smallest pivot. Small systems are
    solved the quick way, and again where they turn out to be singular."""

    def safely() -> tuple[Array, Array]:
        factor = factor_on(matrix, which)
        solution = factor.unwhiten(factor.whiten(wanted[:, None]))[:, 0]
        return jnp.where(which, solution, 0.0), factor.smallest_pivot

    if len(which) > LARGEST:
        return safely()
    unit = jnp.eye(len(which), dtype=matrix.dtype)
    small, solution, _ = small_solve(jnp.where(which[:, None] & which, matrix, unit), wanted[:, None], which | True)
    quick = jnp.where(which, solution[:, 0], 0.0), small.smallest_pivot
    return seldom(~(small.smallest_pivot > DEPENDENT), safely, quick)


def _on_signs(problem: Quadratic, c: Array) -> Minimum:
    """Go to the minimum with the signs of c, or as far as they stay."""
    which = active(problem, c)
    signed = which & (problem.absolute > 0)
    downhill = jnp.where(which, problem.fall(c) - problem.absolute * jnp.sign(c), 0.0)
    step, pivot = _solve_on(problem.curvature, which, downhill)
    crosses = signed & (c * (c + step) < 0)
    share = jnp.where(crosses, -c / jnp.where(crosses, step, 1.0), 1.0)
    way = jnp.min(share)
    there = jnp.where(crosses & (share <= way), 0.0, c + way * step)
    there = jnp.where(jnp.all(jnp.isfinite(step)), there, c)
    quiet = jnp.abs(problem.fall(there)) <= problem.absolute + ROUNDING * jnp.finfo(c.dtype).eps * problem.terms(there)
    whole = way == 1.0
    settled = whole & jnp.all(quiet | ~problem.keep | (there != 0))
    return Minimum(there, pivot, whole, settled, jnp.zeros((), jnp.int32))
