"""Linear algebra of small systems, one a lane: vectors are lists, and every entry is an array of lanes.

Nothing here is a loop once it is traced, so all entries stay in registers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from jax import Array, lax

from jaxglm.linalg import least_pivot


def dot(a: Sequence[Array], b: Sequence[Array]) -> Array:
    """a . b."""
    total = a[0] * b[0]
    for left, right in zip(a[1:], b[1:], strict=True):
        total = total + left * right
    return total


def add_gram(gram: Sequence[Array], x: Sequence[Array], weight: Array) -> list[Array]:
    """The lower triangle of X'WX, row by row, with one more row of X."""
    entries = iter(gram)
    weighted = [weight * value for value in x]
    return [next(entries) + weighted[i] * x[j] for i in range(len(x)) for j in range(i + 1)]


def add_scores(scores: Sequence[Array], x: Sequence[Array], score: Array) -> list[Array]:
    """X's, with one more row."""
    return [total + score * value for total, value in zip(scores, x, strict=True)]


@dataclass(frozen=True)
class Solved:
    """A factored Gram matrix and the increment. decrement: its squared length; lengths: square roots of the diagonal;
    smallest: the smallest pivot; trusted: whether it is large enough."""

    increment: list[Array]
    decrement: Array
    lengths: list[Array]
    smallest: Array
    trusted: Array


def solve(gram: Sequence[Array], scores: Sequence[Array]) -> Solved:
    """Solve a system by Cholesky, unrolled, after scaling it to a unit diagonal."""
    p = len(scores)
    at = [[i * (i + 1) // 2 + j for j in range(i + 1)] for i in range(p)]
    diagonal = [gram[at[j][j]] for j in range(p)]
    scale = [lax.rsqrt(jnp.where(d > 0.0, d, 1.0)) for d in diagonal]
    lower: list[list[Array]] = []
    inverse: list[Array] = []
    whitened: list[Array] = []
    trusted, smallest = diagonal[0] == diagonal[0], jnp.ones_like(diagonal[0])
    for i in range(p):
        row: list[Array] = []
        for j in range(i):
            entry = gram[at[i][j]] * scale[i] * scale[j]
            row.append(less(entry, row, lower[j]) * inverse[j])
        pivot = less(diagonal[i] * scale[i] * scale[i], row, row)
        trusted = trusted & (pivot > least_pivot(gram[0].dtype))
        smallest = jnp.minimum(smallest, pivot)
        lower.append(row)
        inverse.append(lax.rsqrt(pivot))
        whitened.append(less(scores[i] * scale[i], row, whitened) * inverse[i])
    solution: list[Any] = [None] * p
    for i in reversed(range(p)):
        below = range(i + 1, p)
        solution[i] = less(whitened[i], [lower[k][i] for k in below], [solution[k] for k in below]) * inverse[i]
    return Solved(
        increment=[b * s for b, s in zip(solution, scale, strict=True)],
        decrement=dot(whitened, whitened),
        lengths=[jnp.sqrt(d) for d in diagonal],
        smallest=smallest,
        trusted=trusted,
    )


def less(value: Array, a: Sequence[Array], b: Sequence[Array]) -> Array:
    """value - a . b, over the shorter of the two."""
    for left, right in zip(a, b, strict=False):
        value = value - left * right
    return value
