"""What the rest of IRLS sees of rows in the user's memory: a design."""

from __future__ import annotations

from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxglm.irls.borrowed import calls
from jaxglm.links import STATIC

MOST_COLUMNS = 128  # sums of tiles lie on the stack


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Borrowed:
    """Rows that stay where they are. place: (3,) whole numbers, the address of the first row, the bytes from row to row, and
    how many rows there are; rows: their number with padding, which counts as zeros; p: columns; dtype: of the numbers.
    Whoever holds this holds the memory too, and nobody may write to it."""

    place: Array
    rows: int = field(metadata=STATIC)
    p: int = field(metadata=STATIC)
    dtype: str = field(metadata=STATIC)

    def dot(self, v: Array) -> Array:
        return calls.dot(self.place, v, self.rows)

    def normal(self, w: Array, r: Array) -> tuple[Array, Array]:
        return calls.normal(self.place, w, r, self.p)

    def reach(self) -> Array:
        return calls.reach(self.place, self.p, self.dtype)


def lend(X: np.ndarray, rows: int, count: int) -> Borrowed:
    """The rows of X (n, p), whose numbers lie one after the other, in `count` chunks of `rows` each, the last of which have
    fewer or none."""
    first = np.minimum(np.arange(count) * rows, len(X))
    place = np.stack([X.ctypes.data + first * X.strides[0], np.full(count, X.strides[0]), np.minimum(len(X) - first, rows)], 1)
    return Borrowed(jnp.asarray(place), rows, X.shape[1], X.dtype.name)
