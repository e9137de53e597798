"""The rows of one fit, and sums over them.

Everything that IRLS needs from the data is a sum over rows: the Gram matrix, the score, the deviance. So a fit may hold
its rows whole, or in chunks of equal length with a count of how many chunks are filled: `fold` adds up over either. With
chunks, groups of any size share one compiled program, since the number of chunks is data, and only one chunk at a time
is worked on, which therefore stays in cache. The rows of one very large fit are dealt out to threads as `Shares`; what is
done with each is then a `jax.tree_util.Partial`, which tells a compiled program from the numbers that it is given.

A prior weight of zero means that the row is not there, whatever it holds. It is the only mask: padding is rows of weight
zero. `Rows.prepare` replaces what absent rows hold by harmless values, so that no NaN of theirs reaches a sum.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxglm.family import Family
from jaxglm.threads import in_threads

T = TypeVar("T")

HARMLESS = 0.5  # a valid response and a valid mean of every family


UNSOUND = -1.0  # the weight that `Rows.prepared` gives to rows that should be there but cannot be used


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Chunks:
    """Which chunks belong to a fit: `count` of them, from `first` on. Scalars."""

    first: Array
    count: Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Rows:
    """The rows of one fit.

    design: a `jaxglm.designs.Design`; y, weights: (n,); offset: (n,) or None; chunks: None, or where the fit's chunks
    lie, and then every array has a leading axis of chunks; mark: (n,) or None, a number of each row's own that is no part of
    the model, such as its cluster.
    """

    design: Any
    y: Array
    weights: Array
    offset: Array | None = None
    chunks: Chunks | None = None
    mark: Array | None = None

    @property
    def present(self) -> Array:
        """Rows of positive weight."""
        return self.weights > 0

    def eta(self, coefficients: Array) -> Array:
        """X b + offset."""
        eta = self.design.dot(coefficients)
        return eta if self.offset is None else eta + self.offset

    def usable(self, family: Family) -> Array:
        """Which rows can be used, but for what their design holds."""
        sound = family.valid_response_at(self.y) & (self.weights < jnp.inf) & (self.weights > 0)
        return sound if self.offset is None else sound & jnp.isfinite(self.offset)

    def prepared(self, family: Family, broken: Array) -> Rows:
        """Rows in which whatever must not be used has been replaced: by weight 0 and harmless values where a row is
        absent, by weight `UNSOUND` where a row should be there but is not finite, not valid for the family, or has a
        weight that is negative or not finite. broken: rows whose design is not finite (`designs.standardize`)."""
        usable = self.usable(family) & ~broken
        return replace(
            self,
            y=jnp.where(usable, self.y, HARMLESS),
            weights=jnp.where(usable, self.weights, jnp.where(self.weights == 0, 0.0, UNSOUND)),
            offset=None if self.offset is None else jnp.where(usable, self.offset, 0.0),
        )


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Shares:
    """The rows of a fit that is too large for one thread, dealt out: sums over them are taken outside of compiled programs,
    by a thread for each core."""

    parts: tuple[Rows, ...]

    @property
    def offset(self) -> Array | None:
        """What tells whether there is an offset: that of the first rows."""
        return self.parts[0].offset


def with_design(rows: Rows | Shares, design: Any) -> Rows | Shares:
    """The same rows with another design."""
    if isinstance(rows, Shares):
        return Shares(tuple(replace(part, design=design) for part in rows.parts))
    return replace(rows, design=design)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Totals:
    """What is known of all rows together: `sums` are added, `peaks` (nonnegative numbers or flags) are maximised."""

    sums: Any
    peaks: Any = None

    def merge(self, other: Totals) -> Totals:
        """The totals of these rows and others."""
        return Totals(jax.tree.map(operator.add, self.sums, other.sums), jax.tree.map(jnp.maximum, self.peaks, other.peaks))


def fold(rows: Rows | Shares, each: Callable[[Rows], Totals]) -> Totals:
    """The totals of all rows, from those of each chunk."""
    return accumulate(rows, each, Totals.merge)


def zeros(shapes: Any) -> Any:
    """Zeros of these shapes."""
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)


def accumulate(
    rows: Rows | Shares, each: Callable[[Rows], T], merge: Callable[[T, T], T], begin: Callable[[Any], T] | None = None
) -> T:
    """Merge `each` chunk's result into what came before. All zeros must be neutral for `merge`; where results are not what it
    makes, `begin` makes something neutral from their shapes."""
    if isinstance(rows, Shares):
        found = in_threads(partial(_of_share, merge, begin, each), list(rows.parts))
        with np.errstate(all="ignore"):  # as in a program
            return functools.reduce(merge, [jax.tree.map(np.asarray, one) for one in found])
    if rows.chunks is None:
        whole = each(rows)
        return whole if begin is None else merge(begin(whole), whole)
    arrays = replace(rows, chunks=None)

    @jax.jit  # so that asking for shapes and doing the work are traced once
    def chunk(index: Array) -> T:
        return each(jax.tree.map(lambda a: jax.lax.dynamic_index_in_dim(a, index, 0, keepdims=False), arrays))

    first, none = rows.chunks.first, jnp.zeros_like(rows.chunks.count)
    before = (begin or zeros)(jax.eval_shape(chunk, first))
    return jax.lax.fori_loop(none, rows.chunks.count, lambda index, total: merge(total, chunk(first + index)), before)


def along(rows: Rows, state: T, step: Callable[[T, Rows], T]) -> T:
    """Go along the rows, from the first to the last chunk, with a state that each chunk changes."""
    if rows.chunks is None:
        return step(state, rows)
    arrays, first = replace(rows, chunks=None), rows.chunks.first

    def chunk(index: Array, state: T) -> T:
        part = jax.tree.map(lambda a: jax.lax.dynamic_index_in_dim(a, first + index, 0, keepdims=False), arrays)
        return step(state, part)

    return jax.lax.fori_loop(jnp.zeros_like(rows.chunks.count), rows.chunks.count, chunk, state)


@partial(jax.jit, static_argnums=(0, 1))
def _of_share(merge: Callable[[T, T], T], begin: Any, each: Callable[[Rows], T], part: Rows) -> T:
    return accumulate(part, each, merge, begin)
