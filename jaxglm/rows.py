"""The rows of one fit, and sums over them.

Everything that IRLS needs from the data is a sum over rows: the Gram matrix, the score, the deviance. So a fit may hold
its rows whole, or in chunks of equal length with a count of how many chunks are filled: `fold` adds up over either. With
chunks, groups of any size share one compiled program, since the number of chunks is data, and only one chunk at a time
is worked on, which therefore stays in cache.

A prior weight of zero means that the row is not there, whatever it holds. It is the only mask: padding is rows of weight
zero. `Rows.prepare` replaces what absent rows hold by harmless values, so that no NaN of theirs reaches a sum.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax import Array

from jaxglm.designs import Design
from jaxglm.family import Family

T = TypeVar("T")

HARMLESS = 0.5  # a valid response and a valid mean of every family


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Rows:
    """The rows of one fit.

    design: a `jaxglm.designs.Design`; y, weights: (n,); offset: (n,) or None; chunks: None, or the number of filled
    chunks, and then every array has a leading axis of chunks.
    """

    design: Any
    y: Array
    weights: Array
    offset: Array | None = None
    chunks: Array | None = None

    @property
    def present(self) -> Array:
        """Rows of positive weight."""
        return self.weights > 0

    def eta(self, coefficients: Array) -> Array:
        """X b + offset."""
        eta = self.design.dot(coefficients)
        return eta if self.offset is None else eta + self.offset

    def prepare(self, family: Family, broken: Array) -> tuple[Rows, Array]:
        """Rows whose absent entries are harmless, and whether each row is sound: absent, or finite and valid.

        broken: rows whose design is not finite, as `designs.standardize` reports them.
        """
        sound = family.valid_response_at(self.y) & ~broken & jnp.isfinite(self.weights) & (self.weights >= 0)
        if self.offset is not None:
            sound &= jnp.isfinite(self.offset)
        usable = self.present & sound
        rows = replace(
            self,
            y=jnp.where(usable, self.y, HARMLESS),
            weights=jnp.where(usable, self.weights, 0.0),
            offset=None if self.offset is None else jnp.where(usable, self.offset, 0.0),
        )
        return rows, sound | (self.weights == 0)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Totals:
    """What a fold collects: `sums` are added, `peaks` (nonnegative numbers or flags) are maximised."""

    sums: Any
    peaks: Any = None


def fold(rows: Rows, totals: Callable[[Rows], Totals]) -> Totals:
    """`totals` of all rows, chunk by chunk if they come in chunks."""
    return accumulate(rows, totals, lambda a, b: Totals(_map(jnp.add, a.sums, b.sums), _map(jnp.maximum, a.peaks, b.peaks)))


def accumulate(rows: Rows, each: Callable[[Rows], T], merge: Callable[[T, T], T]) -> T:
    """Merge `each` chunk's result into what came before; the neutral element of `merge` must be all zeros."""
    if rows.chunks is None:
        return each(rows)
    arrays = replace(rows, chunks=None)

    def chunk(index: Any) -> Rows:
        return jax.tree.map(lambda a: jax.lax.dynamic_index_in_dim(a, index, 0, keepdims=False), arrays)

    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(lambda: each(chunk(0))))
    return jax.lax.fori_loop(0, rows.chunks, lambda index, total: merge(total, each(chunk(index))), zeros)


def _map(function: Callable[[Array, Array], Array], a: Any, b: Any) -> Any:
    return jax.tree.map(function, a, b)
