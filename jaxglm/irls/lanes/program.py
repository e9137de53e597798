"""What a lane computes: the functions of one fit, traced for translation.

These are the functions that all other ways of fitting call: `Rows.prepared` for a row as it is loaded, `irls.plain` for the
fit; or, where fits are made and more is asked of their rows, any function of one fit. What is special is only their shape. Rows
come in chunks of a few, and a design adds up the triangle of its Gram matrix.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxglm.designs import Paired
from jaxglm.family import Family
from jaxglm.irls.adjusted import solve_adjusted
from jaxglm.irls.careful import solve_careful
from jaxglm.irls.options import IRLS
from jaxglm.irls.plain import solve_plain
from jaxglm.irls.problem import pose
from jaxglm.irls.solution import Solution
from jaxglm.rows import Chunks, Rows

NOMINAL = 2**20  # chunks that a program is traced for; how many there are is data


@dataclass(frozen=True)
class Shape:
    """What a program depends on.

    p: columns; chunk: rows of a chunk; dtype: of the arithmetic; shared: whether the design is that of all fits, but for a
    last column where there is an `own`; X, y, weights, offset, own, mark: the types in which they lie in memory, None for what
    is not there, but for weights, which may be there or not; code: what stands for missing in `own`; drop: whether rows without
    a value of `own` are not there; ordered: whether rows are looked up by an order; adjacent: whether the columns of a row lie
    next to each other; family: its structure; penalty, start, held: whether they are given; options; careful,
    bias_reduction: see `run.Job`; one: what is asked of a fit's rows instead of a fit, a function of `Rows`, the family and
    what is known, and known: the structure of the latter and the shapes of its leaves.
    """

    p: int
    chunk: int
    dtype: str
    shared: bool
    X: str
    y: str
    weights: str
    offset: str | None
    own: str | None
    code: int | None
    drop: bool
    ordered: bool
    adjacent: bool
    family: Any
    penalty: bool
    start: bool
    options: IRLS
    careful: bool = False
    bias_reduction: str | None = None
    held: bool = False
    one: Any = None
    known: tuple[Any, tuple[tuple[int, ...], ...]] = (None, ())
    mark: str | None = None

    @property
    def loaded(self) -> int:
        """Columns that are loaded for each fit."""
        return self.p if not self.shared else int(self.own is not None)

    @property
    def beside(self) -> list[str]:
        """What a row has besides columns, by name."""
        more = {"y": True, "weights": True, "offset": self.offset is not None, "mark": self.mark is not None}
        return [name for name, there in more.items() if there]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Row:
    """One row of a fit: x: (k,), the columns that are loaded for each fit, or None; y, weights; offset and mark, or None."""

    x: Array | None
    y: Array
    weights: Array
    offset: Array | None
    mark: Array | None = None


def prepare(shape: Shape, family: Family, scale: Array | None, row: Row) -> Row:
    """The row as `Rows.prepared` leaves it, in the type of the arithmetic, its columns divided by a scale (k,) if there is
    one."""
    dtype, weights = jnp.dtype(shape.dtype), row.weights
    x = None if row.x is None else row.x.astype(dtype)
    x = x if x is None or scale is None else x / scale
    if shape.own is not None:
        assert row.x is not None
        assert x is not None
        lost = jnp.isnan(x[0])
        lost = lost if shape.code is None else lost | (row.x[0] == jnp.asarray(shape.code, row.x.dtype))
        x = jnp.where(lost, jnp.nan, x)
        weights = jnp.where(lost, 0.0, weights) if shape.drop else weights
    one = Rows(None, row.y[None], weights[None], None if row.offset is None else row.offset[None])
    broken = jnp.zeros(1, bool)
    if shape.careful and x is not None:
        broken = ~jnp.all(jnp.isfinite(x))[None]
    ready = one.prepared(family, broken)
    if x is not None:
        x = jnp.where(one.usable(family) & ~broken, x, 0.0)
    return Row(x, ready.y[0], ready.weights[0], None if ready.offset is None else ready.offset[0], row.mark)


def solve(shape: Shape, X: Array | None, own: Array | None, rows: Any, count: Array, family: Family, given: Any) -> Solution:
    """One fit. X: (T, p, chunk) of a shared design, own: (T, k, chunk) columns of the fit's own; rows: what is `beside` them,
    by name, (T, chunk); count: chunks that are filled; given: penalty, start, held (1 for what is) and scale (p,), or None."""
    penalty, start, held, scale = given
    part = _rows(X, own, rows, count)
    scale = jnp.ones(shape.p, jnp.dtype(shape.dtype)) if scale is None else scale
    problem = pose(part, family, scale, penalty, start, watched=shape.careful)
    if shape.bias_reduction is not None:
        return solve_adjusted(problem, shape.options, shape.bias_reduction, None if held is None else held > 0)
    return solve_careful(problem, shape.options) if shape.careful else solve_plain(problem, shape.options)


def ask(shape: Shape, X: Array | None, own: Array | None, rows: Any, count: Array, family: Family, given: Any) -> Any:
    """What `shape.one` says of one fit; arguments as those of `solve`, given being the leaves of what is known."""
    assert shape.one is not None
    return shape.one(_rows(X, own, rows, count), family, jax.tree.unflatten(shape.known[0], given))


def _rows(X: Array | None, own: Array | None, rows: Any, count: Array) -> Rows:
    design: Any = _Chunked(X, own)
    return Rows(design, chunks=Chunks(jnp.zeros((), jnp.int32), count), **rows)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class _Chunked:
    """A design of shared columns and the fit's own; every method is that of `Paired`."""

    shared: Array | None
    own: Array | None

    def _design(self) -> Paired:
        return Paired(jnp.concatenate([part for part in (self.shared, self.own) if part is not None]))

    def dot(self, v: Array) -> Array:
        return self._design().dot(v)

    def transposed_dot(self, r: Array) -> Array:
        return self._design().transposed_dot(r)

    def normal(self, w: Array, r: Array) -> tuple[Array, Array]:
        return self._design().normal(w, r)

    def reach(self) -> Array:
        return self._design().reach()

    def matrix(self) -> Array:
        return self._design().matrix()


def traced_prepare(shape: Shape) -> Any:
    """The jaxpr of `prepare`: family leaves, then scale, x, y, weights, offset as far as they are there."""
    dtype = np.dtype(shape.dtype)
    number: Any = jax.ShapeDtypeStruct((), dtype)
    columns: Any = jax.ShapeDtypeStruct((shape.loaded,), np.dtype(shape.own or dtype))
    row = Row(
        x=columns if shape.loaded else None,
        y=number,
        weights=number,
        offset=number if shape.offset else None,
        mark=number if shape.mark else None,
    )
    family = jax.tree.unflatten(shape.family, [number] * shape.family.num_leaves)
    scale = jax.ShapeDtypeStruct((shape.loaded,), dtype) if shape.careful else None
    return jax.make_jaxpr(partial(prepare, shape))(family, scale, row)


def given_shapes(shape: Shape) -> list[tuple[int, ...]]:
    """What each fit has of its own besides rows and its family's parameters, which are numbers: penalty, start, held and scale
    as far as they are there; or all that is known."""
    if shape.one is not None:
        return list(shape.known[1])
    return [(shape.p,)] * (shape.penalty + shape.start + shape.held + shape.careful)


def traced_solve(shape: Shape) -> tuple[Any, Any]:
    """The jaxpr of `solve`, or of `ask`, and the shapes of what comes out: shared X, own columns, y, weights, offset as far
    as they are there, then count, family leaves, and what is given."""
    dtype = np.dtype(shape.dtype)

    def array(*more: int) -> Any:
        return jax.ShapeDtypeStruct(more, dtype)

    rows = {name: array(NOMINAL, shape.chunk) for name in ("y", "weights", "offset", "mark") if name in shape.beside}
    there = (shape.penalty, shape.start, shape.held, shape.careful)
    given: Any = tuple(array(shape.p) if one else None for one in there)
    if shape.one is not None:
        given = [array(*one) for one in given_shapes(shape)]
    return jax.make_jaxpr(partial(solve if shape.one is None else ask, shape), return_shape=True)(
        array(NOMINAL, shape.p - shape.loaded, shape.chunk) if shape.shared else None,
        array(NOMINAL, shape.loaded, shape.chunk) if shape.loaded else None,
        rows,
        jax.ShapeDtypeStruct((), np.int32),
        jax.tree.unflatten(shape.family, [array()] * shape.family.num_leaves),
        given,
    )
