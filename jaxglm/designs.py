"""Designs: all that fitting asks of a model matrix.

A generalized linear model needs three operations of its design X: X v, X' r, and X' diag(w) X. A design is a value with
these three. The core never looks inside, so a fit with its own matrix, a fit that shares its matrix with a million
others, and a fit that adds one column to a shared matrix are the same code:

- `Dense`: a matrix of the fit's own; `Twice`: the same, stored both ways.
- `Shared`: one matrix for many fits. It also holds the products of every pair of its columns, so that under `vmap` the
  Gram matrices of all fits are one matrix product, of the weights (fits x rows) with the products (rows x pairs).
- `Appended`: a shared matrix and one column of the fit's own (feature scans).

Matrices are stored with the rows last, (p, n), so that work on rows runs along memory. Columns are scaled by powers of
two, which is exact and keeps squares in range; `standardize` returns the scale with which to undo it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

HIGHEST = jax.lax.Precision.HIGHEST  # a default float32 product on a GPU keeps ten bits of mantissa


class Design(Protocol):
    """What the core needs of a model matrix X of shape (n, p)."""

    def dot(self, v: Array) -> Array:
        """X v, shape (n,), for v of shape (p,)."""

    def transposed_dot(self, r: Array) -> Array:
        """X' r', shape (p, k), for r of shape (k, n)."""

    def gram(self, w: Array) -> Array:
        """X' diag(w) X, shape (p, p), for w of shape (n,)."""

    def normal(self, w: Array, r: Array) -> tuple[Array, Array]:
        """X' diag(w) X, or its lower triangle row by row, and X' r' together, for w of shape (n,) and r of shape (k, n)."""

    def quadratic(self, m: Array) -> Array:
        """x' m x of every row x, shape (n,), for a symmetric m of shape (p, p)."""

    def reach(self) -> Array:
        """The largest absolute value of each column, shape (p,)."""

    def matrix(self) -> Array:
        """X itself, shape (n, p), for the factorizations that need its rows."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Dense:
    """A matrix of the fit's own. columns: (p, n)."""

    columns: Array

    def dot(self, v: Array) -> Array:
        return jnp.matmul(v, self.columns, precision=HIGHEST)

    def transposed_dot(self, r: Array) -> Array:
        return jnp.matmul(self.columns, r.T, precision=HIGHEST)

    def gram(self, w: Array) -> Array:
        return jnp.matmul(self.columns * w, self.columns.T, precision=HIGHEST)

    def normal(self, w: Array, r: Array) -> tuple[Array, Array]:
        return self.gram(w), self.transposed_dot(r)

    def quadratic(self, m: Array) -> Array:
        return jnp.sum(self.columns * jnp.matmul(m, self.columns, precision=HIGHEST), axis=0)

    def reach(self) -> Array:
        return jnp.max(jnp.abs(self.columns), axis=1)

    def matrix(self) -> Array:
        return self.columns.T


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Twice:
    """A matrix of the fit's own, stored both ways, so that on a CPU the products of a small one need no rearranging.
    columns: (p, n); rows: (n, p); ones: (n,), the number 1 in a way that no compiler can know."""

    columns: Array
    rows: Array
    ones: Array

    @classmethod
    def of(cls, rows: Array) -> Twice:
        """From the matrix (..., n, p)."""
        first = rows[..., 0]
        return cls(jnp.swapaxes(rows, -1, -2), rows, jnp.where(first == first, 1.0, jnp.nan).astype(rows.dtype))

    def dot(self, v: Array) -> Array:
        return jnp.matmul(v, self.columns, precision=HIGHEST)

    def transposed_dot(self, r: Array) -> Array:
        return jnp.matmul(self.columns, r.T, precision=HIGHEST)

    def gram(self, w: Array) -> Array:
        return jnp.matmul(self.columns * w, self.rows, precision=HIGHEST)

    def normal(self, w: Array, r: Array) -> tuple[Array, Array]:
        # XLA computes what it fuses again for every use, here p times, except for what ends in a division.
        return self.gram(w / self.ones), self.transposed_dot(r)

    def quadratic(self, m: Array) -> Array:
        return jnp.sum(self.columns * jnp.matmul(m, self.columns, precision=HIGHEST), axis=0)

    def reach(self) -> Array:
        return jnp.max(jnp.abs(self.rows), axis=0)

    def matrix(self) -> Array:
        return self.rows


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Shared:
    """One matrix for many fits, stored both ways, since each product is fast in one of them only. columns: (p, n); rows:
    (n, p); products: (n, p (p + 1) / 2), of the column pairs on and below the diagonal, row by row."""

    columns: Array
    rows: Array
    products: Array

    @classmethod
    def of(cls, columns: Array) -> Shared:
        """From the columns (p, n)."""
        first, second = np.tril_indices(len(columns))
        rows = columns.T
        # The barrier keeps the compiler from storing one of them only.
        return cls(jax.lax.optimization_barrier(columns), rows, rows[:, first] * rows[:, second])

    def dot(self, v: Array) -> Array:
        return jnp.matmul(v, self.columns, precision=HIGHEST)

    def transposed_dot(self, r: Array) -> Array:
        return jnp.matmul(r, self.rows, precision=HIGHEST).T

    def gram(self, w: Array) -> Array:
        return from_pairs(jnp.matmul(w, self.products, precision=HIGHEST), self.rows.shape[1])

    def normal(self, w: Array, r: Array) -> tuple[Array, Array]:
        return self.gram(w), self.transposed_dot(r)

    def quadratic(self, m: Array) -> Array:
        first, second = np.tril_indices(self.rows.shape[1])
        return jnp.matmul(self.products, m[first, second] * np.where(first == second, 1.0, 2.0), precision=HIGHEST)

    def reach(self) -> Array:
        return jnp.max(jnp.abs(self.columns), axis=1)

    def matrix(self) -> Array:
        return self.rows


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Appended:
    """A shared matrix and, as the last column, one of the fit's own. own: (n,)."""

    shared: Shared
    own: Array

    def dot(self, v: Array) -> Array:
        return self.shared.dot(v[:-1]) + v[-1] * self.own

    def transposed_dot(self, r: Array) -> Array:
        return jnp.concatenate([self.shared.transposed_dot(r), jnp.matmul(r, self.own, precision=HIGHEST)[None, :]])

    def gram(self, w: Array) -> Array:
        return self.normal(w, jnp.zeros((0, len(w)), w.dtype))[0]

    def normal(self, w: Array, r: Array) -> tuple[Array, Array]:
        both = self.transposed_dot(jnp.concatenate([r, (w * self.own)[None, :]]))
        cross, corner = both[:-1, -1:], both[-1:, -1:]
        return jnp.block([[self.shared.gram(w), cross], [cross.T, corner]]), both[:, :-1]

    def quadratic(self, m: Array) -> Array:
        cross = 2.0 * self.shared.dot(m[:-1, -1]) + m[-1, -1] * self.own
        return self.shared.quadratic(m[:-1, :-1]) + self.own * cross

    def reach(self) -> Array:
        return jnp.concatenate([self.shared.reach(), jnp.max(jnp.abs(self.own))[None]])

    def matrix(self) -> Array:
        return jnp.concatenate([self.shared.matrix(), self.own[:, None]], axis=1)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Paired(Dense):
    """A matrix of the fit's own, of whose Gram matrix only the lower triangle is computed, row by row, as suits a compiler
    that takes arrays apart."""

    def normal(self, w: Array, r: Array) -> tuple[Array, Array]:
        rows = [jnp.sum(column * w * self.columns[: i + 1], axis=1) for i, column in enumerate(self.columns)]
        return jnp.concatenate(rows), self.transposed_dot(r)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Constant:
    """A single column of ones, without storing it: the design of the null model."""

    def dot(self, v: Array) -> Array:
        return v[0]

    def transposed_dot(self, r: Array) -> Array:
        return jnp.sum(r, axis=1)[None, :]

    def gram(self, w: Array) -> Array:
        return jnp.sum(w)[None, None]

    def normal(self, w: Array, r: Array) -> tuple[Array, Array]:
        return self.gram(w), self.transposed_dot(r)

    def quadratic(self, m: Array) -> Array:
        return m[0]

    def reach(self) -> Array:
        return jnp.ones(1)

    def matrix(self) -> Array:
        return jnp.ones((1, 1))


def from_pairs(pairs: Array, p: int) -> Array:
    """The symmetric matrix (p, p) whose lower triangle, row by row, is `pairs` (p (p + 1) / 2,)."""
    rows, columns = np.tril_indices(p)
    place = np.zeros((p, p), dtype=int)
    place[rows, columns] = place[columns, rows] = np.arange(len(rows))
    return pairs[place]


def standardize(columns: Array) -> tuple[Array, Array, Array]:
    """Columns (..., p, n) made fit for arithmetic: their scaled form, the scale (p,) and the broken rows (..., n).

    Each column is divided by the power of two next to its largest absolute value: scaled coefficients times 1 / scale
    are the coefficients. Rows with an entry that is not finite are set to zero and reported as broken.
    """
    broken = ~jnp.all(jnp.isfinite(columns), axis=-2)
    columns = jnp.where(broken[..., None, :], 0.0, columns)
    other = tuple(axis for axis in range(columns.ndim) if axis != columns.ndim - 2)
    largest = jnp.max(jnp.abs(jax.lax.stop_gradient(columns)), axis=other)
    exponent = jnp.frexp(jnp.where(largest > 0, largest, 1.0))[1]
    # Kept within the range in which both the scale and its inverse are normal numbers.
    reach = jnp.finfo(columns.dtype).maxexp - 2
    scale = jnp.ldexp(jnp.ones_like(largest), jnp.clip(exponent, -reach, reach))
    return columns / scale[:, None], scale, broken
