"""Small symmetric systems and least squares, as inference needs them.

Ways with the same use. `cholesky` of a Gram matrix is cheap; its smallest pivot, after scaling to a unit diagonal, tells how
far it can be trusted, since the relative error of a variance is the rounding unit over the pivot. `small_solve` is the same
for small systems, written out so that a batch of them is solved by vector operations, and `solve_on_host` for one system that
is known, by LAPACK. `orthogonal` factors the matrix itself, by Householder reflections (`stack`), and keeps working where the
square of the condition number does not fit into the arithmetic; its left-to-right test for dependent columns is that of R's
`dqrdc2`: a column is aliased when what is left of it, after the columns before it, is less than `tolerance` of its length.

What programs call is written out, because the library calls behind `jnp.linalg` share a pool of threads that waits for itself
when two host threads factor large batches at once (jaxlib 0.10.2 on CPUs), which hangs the process.

Sources: Golub and Van Loan, Matrix Computations (2013), sections 4.2, 5.2 and 5.3; Demmel et al., Communication-optimal
parallel and sequential QR (2012) for `stack`; Giraud et al. (2005) for twice being enough in `orthogonal`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.lax import index_in_dim, slice_in_dim

from jaxglm.designs import HIGHEST

LARGEST = 12  # columns of a system that is solved with its rows written out
PANEL, PANELS = 16, 8  # rows of a triangular factor that are made together, and how many times at most


def _solve_upper(upper: Array, b: Array) -> Array:
    """U^-1 b, from the last row up. upper: (p, p); b: (p, k)."""
    p = len(upper)

    def next_row(step: Array, solved: Array) -> Array:
        i = p - 1 - step
        return solved.at[i].set((b[i] - jnp.sum(upper[i][:, None] * solved, axis=0)) / upper[i, i])

    return jax.lax.fori_loop(0, p, next_row, jnp.zeros_like(b))


def _solve_transposed(upper: Array, b: Array) -> Array:
    """U'^-1 b, from the first row down. upper: (p, p); b: (p, k)."""

    def next_row(i: Array, solved: Array) -> Array:
        return solved.at[i].set((b[i] - jnp.sum(upper[:, i][:, None] * solved, axis=0)) / upper[i, i])

    return jax.lax.fori_loop(0, len(upper), next_row, jnp.zeros_like(b))


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Factor:
    """A factored information matrix: X'WX = scale^-1 U'U scale^-1 on its independent columns.

    upper: (p, p), with unit rows and columns where `aliased`; scale, aliased: (p,); lengths: (p,), the square roots of
    the diagonal of X'WX; smallest_pivot: scalar in [0, 1], NaN or 0 where the factorization failed.
    """

    upper: Array
    scale: Array
    aliased: Array
    lengths: Array
    smallest_pivot: Array

    def whiten(self, b: Array) -> Array:
        """U'^-1 scale b: its squared length is b' (X'WX)^-1 b. b: (p, k)."""
        return _solve_transposed(self.upper, b * self._mask(b))

    def unwhiten(self, b: Array) -> Array:
        """scale U^-1 b. b: (p, k)."""
        return _solve_upper(self.upper, b) * self._mask(b)

    def inverse(self) -> Array:
        """(X'WX)^-1 on the independent columns, zero on the aliased ones. Shape (p, p). NumPy in, NumPy out."""
        return _inverse_on_host(self) if isinstance(self.upper, np.ndarray) else _inverse(self)

    def _mask(self, b: Array) -> Array:
        return jnp.where(self.aliased, 0.0, self.scale)[:, None]


@jax.jit
def _inverse(factor: Factor) -> Array:
    root = factor.unwhiten(jnp.eye(factor.scale.shape[0], dtype=factor.scale.dtype))
    return jnp.matmul(root, root.T, precision=HIGHEST)


def least_pivot(dtype: Any) -> float:
    """The smallest pivot of a scaled Gram matrix that can be trusted: below, variances would lose more than half of their
    digits, or a column that R aliases may look like one that it keeps."""
    return 7.0 * float(jnp.finfo(dtype).eps) ** 0.5


def cholesky(information: Array, tolerance: float | None = None) -> Factor:
    """Factor X'WX (p, p) by Cholesky, after scaling it to a unit diagonal. With a tolerance, a column of whose square no
    more is left, after those before it, counts as aliased, and the matrix may be singular."""
    p = len(information)
    diagonal = jnp.diagonal(information)
    scale = jax.lax.rsqrt(jnp.where(diagonal > 0, diagonal, 1.0))
    scaled = information * scale[:, None] * scale[None, :]
    upper, pivots = scaled[:0], scaled[0, :0]
    size = max(PANEL, -(-p // PANELS))
    for first in range(0, p, size):
        end = min(first + size, p)
        above = upper[:, first:]
        left = scaled[first:end, first:] - jnp.matmul(above[:, : end - first].T, above, precision=HIGHEST)
        rows, more = _eliminate_panel(left, tolerance)
        upper = jnp.concatenate([upper, jnp.pad(rows, ((0, 0), (first, 0)))])
        pivots = jnp.concatenate([pivots, more])
    aliased = jnp.zeros(p, bool) if tolerance is None else ~(pivots > tolerance)
    if tolerance is not None:
        upper = jnp.where(aliased & ~jnp.eye(p, dtype=bool), 0.0, upper)
    return Factor(upper, scale, aliased, 1.0 / scale, jnp.min(jnp.where(aliased, 1.0, pivots)))


def solve_on_host(information: Any, b: Any, keep: Any) -> tuple[Factor, Any, Any]:
    """What `small_solve` gives, of any system (p, p) that is known, for b (p, k): by LAPACK, for which nothing is compiled. All
    are NumPy arrays."""
    from scipy.linalg import solve_triangular

    information, b, keep = (np.asarray(values) for values in (information, b, keep))
    information = np.where(keep[:, None] & keep, information, np.eye(len(keep), dtype=information.dtype))
    diagonal = np.diagonal(information)
    with np.errstate(all="ignore"):  # what is infinite or NaN goes its way, as in a program, and is not trusted in the end
        scale = 1.0 / np.sqrt(np.where(diagonal > 0, diagonal, 1.0).astype(information.dtype))
        try:
            upper: Any = np.linalg.cholesky(information * scale[:, None] * scale).T
        except np.linalg.LinAlgError:
            upper = np.full_like(information, np.nan)
        mask = np.where(keep, scale, 0.0).astype(information.dtype)[:, None]
        whitened = solve_triangular(upper, b * mask, trans="T", check_finite=False)
        increments = solve_triangular(upper, whitened, check_finite=False) * mask
        factor = Factor(upper, scale, ~keep, 1.0 / scale, np.min(np.diagonal(upper) ** 2))
        return factor, increments, np.sum(whitened**2, axis=0)


def _inverse_on_host(factor: Factor) -> Any:
    from scipy.linalg import solve_triangular

    unit = np.eye(len(factor.upper), dtype=factor.upper.dtype)
    with np.errstate(all="ignore"):
        root = solve_triangular(factor.upper, unit, check_finite=False) * np.where(factor.aliased, 0.0, factor.scale)[:, None]
        return root @ root.T


def semidefinite_root(matrix: Array) -> Array:
    """R (p, p), upper triangular, with R'R the symmetric, positive semidefinite `matrix` (p, p), whose dependent rows are
    zero in R."""
    least = 1e3 * jnp.finfo(matrix.dtype).eps * jnp.diagonal(matrix)  # what rounding leaves

    def next_row(j: Array, state: tuple[Array, Array]) -> tuple[Array, Array]:
        root, left = state
        pivot = left[j, j]
        some = pivot > least[j]
        row = jnp.where(some, left[j] * jax.lax.rsqrt(jnp.where(some, pivot, 1.0)), 0.0)
        return root.at[j].set(row), left - row[:, None] * row

    return jnp.triu(jax.lax.fori_loop(0, len(matrix), next_row, (jnp.zeros_like(matrix), matrix))[0])


def _eliminate_panel(rows: Array, tolerance: float | None) -> tuple[Array, Array]:
    """The next rows (b, m) of the triangular factor, of what those before have left of the matrix, and their pivots (b,)."""
    b, m = rows.shape
    columns = jnp.arange(m)

    def next_row(j: Array, state: tuple[Array, Array]) -> tuple[Array, Array]:
        upper, pivots = state
        row = rows[j] - jnp.sum(upper[:, j][:, None] * upper, axis=0)
        pivot = row[j]
        if tolerance is not None:
            row = jnp.where(pivot > tolerance, row, (columns == j).astype(row.dtype))
        row = jnp.where(columns >= j, row, 0.0) * jax.lax.rsqrt(row[j])
        return upper.at[j].set(row), pivots.at[j].set(pivot)

    return jax.lax.fori_loop(0, b, next_row, (jnp.zeros_like(rows), jnp.zeros(b, rows.dtype)))


def stack(upper: Array, rows: Array) -> Array:
    """The triangular factor (k, k) of `upper` (k, k), which is triangular, on top of more `rows` (m, k), by Householder
    reflections, each of one row of `upper` and the rows below."""

    def reflect(j: Array, state: tuple[Array, Array]) -> tuple[Array, Array]:
        upper, rows = state
        first, below = upper[j], rows[:, j]
        largest = jnp.maximum(jnp.abs(first[j]), jnp.max(jnp.abs(below)))
        some = largest > jnp.finfo(rows.dtype).tiny  # of what rounding leaves of a dependent column, little can remain
        head, tail = (jnp.where(some, part, 0.0) / jnp.where(some, largest, 1.0) for part in (first[j], below))
        length = jnp.sqrt(head**2 + jnp.sum(tail**2))
        normal = head + jnp.where(head < 0, -length, length)
        square = length * (length + jnp.abs(head))
        across = (normal * first + jnp.matmul(tail, rows, precision=HIGHEST)) / jnp.where(square > 0, square, 1.0)
        return upper.at[j].set(first - normal * across), rows - tail[:, None] * across

    return jnp.triu(jax.lax.fori_loop(0, len(upper), reflect, (upper, rows))[0])


def orthogonal(upper: Array, k: int, keep: Array, tolerance: float) -> tuple[Factor, Array]:
    """Factor a least-squares problem given as the triangular factor of [matrix, right-hand sides].

    upper: (p + k, p + k), of p columns and k right-hand sides; keep: (p,), columns to use at all. Returns the `Factor`
    and the whitened right-hand sides (p, k): what `Factor.whiten` would give for X' sqrt(W) b.
    """
    p = upper.shape[0] - k

    def next_column(j: Array, state: tuple[Array, Array, Array, Array]) -> tuple[Array, Array, Array, Array]:
        basis, coefficients, aliased, smallest = state
        column = upper[:, j]
        first = jnp.matmul(basis.T, column, precision=HIGHEST)
        rest = column - jnp.matmul(basis, first, precision=HIGHEST)
        second = jnp.matmul(basis.T, rest, precision=HIGHEST)
        rest = rest - jnp.matmul(basis, second, precision=HIGHEST)
        left, length = jnp.linalg.norm(rest), jnp.linalg.norm(column)
        # Kept columns are dependent only if nothing at all is left of them: which ones to keep was decided before.
        dependent = ~keep[j] | ~(left > tolerance * length)
        unit = jnp.where(dependent, 0.0, rest / jnp.where(dependent, 1.0, left))
        row = jnp.arange(p) == j
        entries = jnp.where(row, jnp.where(dependent, 1.0, left), jnp.where(dependent, 0.0, first + second))
        pivot = jnp.where(dependent, 1.0, (left / jnp.where(dependent, 1.0, length)) ** 2)
        return (
            basis.at[:, j].set(unit),
            coefficients.at[:, j].set(entries),
            aliased.at[j].set(dependent),
            jnp.minimum(smallest, pivot),
        )

    zeros = jnp.zeros((p + k, p), upper.dtype)
    state = (zeros, jnp.zeros((p, p), upper.dtype), jnp.zeros(p, bool), jnp.ones((), upper.dtype))
    basis, coefficients, aliased, smallest = jax.lax.fori_loop(0, p, next_column, state)
    lengths = jnp.sqrt(jnp.sum(upper[:, :p] ** 2, axis=0))
    factor = Factor(coefficients, jnp.ones(p, upper.dtype), aliased, lengths, smallest)
    return factor, jnp.matmul(basis.T, upper[:, p:], precision=HIGHEST)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Small:
    """A small factored information matrix, with what `Factor` tells of one. upper: (p, p), triangular, X'WX = U'U on the
    columns that are not aliased."""

    upper: Array
    aliased: Array
    lengths: Array
    smallest_pivot: Array

    def inverse(self) -> Array:
        """(X'WX)^-1."""
        return _inverse_of_small(self.upper)


def small_solve(information: Array, b: Array, keep: Array) -> tuple[Small, Array, Array]:
    """Solve a small system (p, p) for right-hand sides b (p, k): the factor, (X'WX)^-1 b, and b' (X'WX)^-1 b (k,). Columns
    that are not to `keep` (p,) have zeros there.

    Under `vmap` the fits lie innermost, so that every row of the elimination is one vector operation over fits; that is
    several times faster than a library call for each of them. Not differentiable in reverse mode.
    """
    unit = jnp.where(keep, jnp.zeros((), information.dtype), 1.0)
    upper, inverses, lengths, pivot = _eliminate(information + jnp.diag(unit))
    increments, decrements = _substitute(upper, inverses, b)
    return Small(upper, ~keep, lengths, pivot), increments, decrements


def _innermost(written: Callable[..., Any]) -> Callable[..., Any]:
    """A function of arrays for which `vmap` puts the axis of fits last and lets the function handle it."""
    mapped = jax.custom_batching.custom_vmap(lambda *arrays: written(*arrays))

    @mapped.def_vmap
    def rule(size: int, batched: list[bool], *arrays: Array) -> tuple[Any, Any]:
        def last(array: Array, has: bool) -> Array:
            return jnp.moveaxis(array, 0, -1) if has else jnp.broadcast_to(array[..., None], (*array.shape, size))

        found = written(*(last(array, has) for array, has in zip(arrays, batched, strict=True)))
        found = jax.tree.map(lambda leaf: jnp.moveaxis(leaf, -1, 0), found)
        return found, jax.tree.map(lambda leaf: True, found)

    return mapped


@jax.jit
@_innermost
def _eliminate(information: Array) -> tuple[Array, ...]:
    """Cholesky's elimination of X'WX, scaled to a unit diagonal, row by row: U, the inverses of its diagonal, and the lengths
    and the least pivot of `Small`. information: (p, p), perhaps with more axes. Of a symmetric or triangular matrix only what
    is above the diagonal is worked on."""
    p = len(information)
    diagonal = jnp.stack([information[i, i] for i in range(p)])
    scale = jax.lax.rsqrt(jnp.where(diagonal > 0, diagonal, 1.0))
    lengths = 1.0 / scale
    upper: list[Array] = []
    inverses: list[Array] = []
    pivots: list[Array] = []
    for i in range(p):
        row = information[i, i:] * (scale[i] * scale[i:])
        for j in range(i):
            above = slice_in_dim(upper[j], i - j, None)
            row = row - index_in_dim(above, 0, keepdims=False) * above
        inverses.append(1.0 / jnp.sqrt(row[0]))
        pivots.append(row[0])
        upper.append(row * inverses[i])
    whole = [jnp.pad(row * lengths[i:], [(i, 0)] + [(0, 0)] * (row.ndim - 1)) for i, row in enumerate(upper)]
    return jnp.stack(whole), jnp.stack(inverses) * scale, lengths, functools.reduce(jnp.minimum, pivots)


@jax.jit
@_innermost
def _substitute(upper: Array, inverses: Array, b: Array) -> tuple[Array, Array]:
    """(U'U)^-1 b and b' (U'U)^-1 b: forward and back. upper: (p, p); inverses: (p,), of its diagonal; b: (p, k); all perhaps
    with more axes."""
    p, rest = len(upper), b
    whitened: list[Array] = []
    for i in range(p):
        whitened.append(rest[0] * inverses[i])
        rest = rest[1:] - upper[i, i + 1 :, None] * whitened[i]
    rest = jnp.stack(whitened)
    solved: list[Array] = []
    for i in reversed(range(p)):
        solved.append(rest[i] * inverses[i])
        rest = rest[:i] - upper[:i, i, None] * solved[-1]
    decrements = functools.reduce(jnp.add, [white * white for white in whitened])
    return jnp.stack(solved[::-1]), decrements


@jax.jit
def _inverse_of_small(upper: Array) -> Array:
    roots = _invert(upper)
    return jnp.matmul(roots.T, roots, precision=HIGHEST)


@_innermost
def _invert(upper: Array) -> Array:
    """U'^-1, whose rows are the roots of (U'U)^-1, row by row. upper: (p, p), perhaps with more axes."""
    p, more = len(upper), [(0, 0)] * (upper.ndim - 2)
    rest = jnp.zeros((p, 0, *upper.shape[2:]), upper.dtype)  # of rows that are still to be made, what is left of them
    roots: list[Array] = []
    for i in range(p):
        inverse = 1.0 / upper[i, i]
        root = jnp.concatenate([rest[0] * inverse, inverse[None]])
        rest = jnp.pad(rest[1:], [(0, 0), (0, 1), *more]) - upper[i, i + 1 :, None] * root
        roots.append(jnp.pad(root, [(0, p - 1 - i), *more]))
    return jnp.stack(roots)
