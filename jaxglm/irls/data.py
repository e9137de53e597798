"""What fits are made from, as arrays of one floating-point type, and the problem that these pose."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxglm.designs import Appended, Dense, Shared, Twice, standardize
from jaxglm.devices import default_device
from jaxglm.family import Family
from jaxglm.irls.problem import Given, Problem, pose, typed
from jaxglm.irls.seldom import anywhere
from jaxglm.links import STATIC, ArrayLike
from jaxglm.penalty import Ridge
from jaxglm.rows import Chunks, Rows

LARGE = 2**18  # numbers of a design from which on its rows are taken in chunks
CHUNK = 2**14  # numbers of a chunk


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Data:
    """What a fit is made from, all of it differentiable: X (n, p), y, weights, offset (n,), penalty (p,) or
    (p, p), family.

    own: (n,), a last column that is this fit's own; shared: whether X is that of many fits, which then share its work. All that
    goes by rows has an axis of chunks before it where there are many rows (`in_chunks`).
    """

    X: Any
    y: Any
    weights: Any
    offset: Any
    penalty: Any
    family: Family
    own: Any = None
    shared: bool = field(default=False, metadata=STATIC)

    def problem(self, start: Array | None = None, plain: bool = False) -> Problem:
        """The problem that these data pose. plain: for `irls.plain`; X is taken as it is, without scaling and without a look
        for values that are not finite, and nobody watches for separation."""
        if self.y.shape[-1] == 0:
            return self._with_absent_row().problem(start, plain)
        if plain:
            return self._plain_problem(start)
        columns, scale, broken = standardize(jnp.swapaxes(self.X, -1, -2))
        design: Any = Shared.of(columns) if self.shared else Dense(columns)
        if self.own is not None:
            own, own_scale, own_broken = standardize(self.own[None, :])
            design, scale = Appended(design, own[0]), jnp.concatenate([scale, own_scale])
            broken |= own_broken
        rows = Rows(design, self.y, self.weights, self.offset, self._chunks()).prepared(self.family, broken)
        return pose(rows, self.family, scale, self.penalty, start)

    def _with_rows(self, made: Callable[[Any], Any]) -> Data:
        """The same with what is `made` of every array that goes by rows."""
        by_rows = {name: getattr(self, name) for name in ("X", "y", "weights", "offset", "own")}
        return replace(self, **{name: made(values) for name, values in by_rows.items() if values is not None})

    def _with_absent_row(self) -> Data:
        """The same without rows and with a row that is not there: of no rows at all there is no largest value."""
        return self._with_rows(lambda values: jnp.zeros((1, *values.shape[1:]), values.dtype))

    def _plain_problem(self, start: Array | None) -> Problem:
        shared = Shared.of(self.X.T) if self.shared else None

        def rows(X: Array, own: Array | None) -> Rows:
            design: Any = shared or Twice.of(X)
            return Rows(design if own is None else Appended(design, own), self.y, self.weights, self.offset, self._chunks())

        usable = rows(self.X, self.own).usable(self.family)

        def prepared() -> Rows:
            own = None if self.own is None else jnp.where(usable, self.own, 0.0)
            X = self.X if self.shared else jnp.where(usable[..., None], self.X, 0.0)
            return rows(X, own).prepared(self.family, jnp.zeros_like(usable))

        # Also a way to have rows made once: what comes out of a branch XLA does not make again for every use.
        ready = jax.lax.cond(anywhere(jnp.any(~usable)), prepared, lambda: rows(self.X, self.own))
        p = self.X.shape[-1] + (self.own is not None)
        return pose(ready, self.family, jnp.ones(p, self.X.dtype), self.penalty, start, watched=False)

    def _chunks(self) -> Chunks | None:
        return None if self.X.ndim == 2 else Chunks(jnp.zeros((), jnp.int32), jnp.asarray(len(self.X), jnp.int32))

    def posed(self, start: Array | None = None, plain: bool = False) -> Problem:
        """The `problem` that these data pose, as it is fitted best: with many rows in chunks."""
        return self.in_chunks().problem(start, plain)

    def in_chunks(self) -> Data:
        """The same, its rows in chunks that stay in a core's cache, where they are too many for it."""
        n, p = self.X.shape
        if self.shared or self.own is not None or n * p < LARGE or default_device().platform != "cpu":
            return self
        rows = max(1, CHUNK // p)
        count = -(-n // rows)

        def chunked(values: Any) -> Any:
            padded = jnp.pad(values, [(0, count * rows - n)] + [(0, 0)] * (values.ndim - 1))
            return padded.reshape(count, rows, *values.shape[1:])

        return self._with_rows(chunked)


def gather_data(
    X: ArrayLike, y: ArrayLike, family: Family, weights: ArrayLike | None, offset: ArrayLike | None, penalty: Ridge | None
) -> Data:
    """Arguments of the user as arrays of one floating-point type. Raises on shapes that do not fit together."""
    given = Given.of(X, y, weights, offset, family)
    X, dtype = given.X, given.X.dtype
    if X.ndim != 2 or X.shape[1] == 0:
        raise ValueError(f"X must have shape (n, p) with p at least 1, not {X.shape}; map over many fits with jax.vmap")
    n, p = X.shape
    for name, shape in given.rows.items():
        if shape != (n,):
            raise ValueError(f"{name} must have shape ({n},), one value for each row of X, not {shape}")
    for leaf in jax.tree.leaves(family):
        if jnp.shape(leaf):
            raise ValueError(f"a parameter of {family.name} must be a number, not of shape {jnp.shape(leaf)}: it is one fit's")
    strength = None if penalty is None else penalty.of_one(p, dtype)
    return Data(X, given.y, given.weights, given.offset, strength, typed(family, dtype))
