"""Rows in the order in which a kernel reads them.

A tile holds the fits of 128 lanes: row by row and column by column, the numbers of all lanes side by side. So a warp reads
whole lines of memory, and a lane never waits for another's data. Tiles lie one after the other in one array, and where
each begins is data; fits are sorted by size, so that the lanes of a tile end at nearly the same row, and a compiled kernel
serves any sizes. (In the language of sparse matrices this is the sliced ELLPACK layout: Monakov, Lokhmotov and Avetisyan,
2010.) Packing is one pass over the data, on the device: a transposition for fits of one shape, a look-up of rows for ragged
ones.

Where there are fewer fits than a GPU has lanes, `parts` lanes share a fit: lane l has rows l // G, l // G + parts, ... of
fit l % G of the tile, where G = 128 / parts.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxglm.links import STATIC
from jaxglm.rows import HARMLESS

LANES = 128  # of a tile: the threads of a warpgroup
TILES = 528  # four for each multiprocessor of a large GPU: with fewer, fits are split
FEWEST_ROWS = 8  # of a lane: fits are not split further
NO_FIT = -1


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Tiles:
    """The rows of g fits in T tiles with R rows in all. X: (R, p, 128); y, weights, offset: (R, 128), the latter two or
    None; first: (T + 1,), where each tile begins; count: (T, 128), the rows of each lane; fit: (T, 128), the fit of each
    lane, NO_FIT where there is none; place: (g,), the first lane of each fit. Rows that are not there, or have weight 0,
    hold zeros and a harmless y."""

    X: Any
    y: Any
    weights: Any
    offset: Any
    first: Any
    count: Any
    fit: Any
    place: Any
    parts: int = field(default=1, metadata=STATIC)


def parts_for(g: int, rows: int) -> int:
    """How many lanes should share a fit, for g fits of about so many rows: a power of two."""
    parts = 1
    while parts < LANES // 2 and g * parts < TILES * LANES and rows >= 2 * parts * FEWEST_ROWS:
        parts *= 2
    return parts


def pack(X: Array, y: Array, weights: Array | None = None, offset: Array | None = None, parts: int = 1) -> Tiles:
    """The tiles of fits of one shape. X: (g, n, p); y, weights, offset: (g, n) or (n,), the latter two also None."""
    g, n = X.shape[:2]
    width, length = LANES // parts, -(-n // parts)
    n_tiles = max(1, -(-g // width))
    if weights is not None:
        weights = jnp.broadcast_to(weights, (g, n))
        X = jnp.where((weights == 0.0)[..., None], jnp.zeros((), X.dtype), X)
        offset = None if offset is None else jnp.where(weights == 0.0, 0.0, jnp.broadcast_to(offset, (g, n)))
        y = jnp.where(weights == 0.0, HARMLESS, jnp.broadcast_to(y, (g, n)))

    def arranged(values: Array | None, fill: float = 0.0) -> Any:
        if values is None:
            return None
        values = jnp.broadcast_to(values, (g, n)) if values.ndim == 1 else values
        rest = values.shape[2:]
        edges = [(0, n_tiles * width - g), (0, length * parts - n), *[(0, 0)] * len(rest)]
        values = jnp.pad(values, edges, constant_values=np.asarray(fill).astype(values.dtype))
        values = values.reshape(n_tiles, width, length, parts, *rest)
        values = values.transpose(0, 2, *range(4, values.ndim), 3, 1)
        return values.reshape(n_tiles * length, *rest, LANES)

    lane = np.arange(n_tiles * LANES).reshape(n_tiles, LANES)
    part, fit = lane % LANES // width, lane // LANES * width + lane % width
    count = np.where(fit < g, (n - part + parts - 1) // parts, 0)
    return Tiles(
        X=arranged(X),
        y=arranged(y, HARMLESS),
        weights=arranged(weights),
        offset=arranged(offset),
        first=jnp.arange(n_tiles + 1, dtype=jnp.int32) * length,
        count=jnp.asarray(count, jnp.int32),
        fit=jnp.asarray(np.where(fit < g, fit, NO_FIT), jnp.int32),
        place=jnp.asarray(np.arange(g) // width * LANES + np.arange(g) % width, jnp.int32),
        parts=parts,
    )


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Plan:
    """Where the rows of ragged fits go, without the rows. start: (T, 128), the first row of each lane's fit in the table;
    size: (T, 128), how many rows that fit has; the rest as in `Tiles`. rows: R."""

    start: Any
    size: Any
    first: Any
    fit: Any
    place: Any
    parts: int = field(metadata=STATIC)
    rows: int = field(metadata=STATIC)


def rounded(number: int) -> int:
    """The next number of the form 4, 5, 6 or 7 times a power of two: sizes of arrays take few values."""
    unit = 1 << max(0, (number - 1).bit_length() - 3)
    return -(-number // unit) * unit


def plan(starts: np.ndarray, sizes: np.ndarray, parts: int = 1) -> Plan:
    """Lay out ragged fits, whose rows are `starts` to `starts + sizes` of a table, both (g,)."""
    g, width = len(sizes), LANES // parts
    order = np.argsort(-sizes, kind="stable")
    n_tiles = rounded(max(1, -(-g // width)))
    slots = np.full(n_tiles * width, NO_FIT, np.int64)
    slots[:g] = order
    table = np.tile(slots.reshape(n_tiles, 1, width), (1, parts, 1)).reshape(n_tiles, LANES)
    size = np.where(table == NO_FIT, 0, sizes[table] if g else 0)
    lengths = -(-size.max(axis=1) // parts)
    first = np.concatenate([[0], np.cumsum(lengths)])
    place = np.empty(g, np.int64)
    place[order] = np.arange(g) // width * LANES + np.arange(g) % width
    return Plan(
        start=np.where(table == NO_FIT, 0, starts[table] if g else 0).astype(np.int32),
        size=size.astype(np.int32),
        first=first.astype(np.int32),
        fit=table.astype(np.int32),
        place=place.astype(np.int32),
        parts=parts,
        rows=rounded(max(1, int(first[-1]))),
    )


def pack_rows(
    plan: Plan, X: Array, y: Array, weights: Array | None = None, offset: Array | None = None, order: Array | None = None
) -> Tiles:
    """The tiles of ragged fits. X: (N, p); y, weights, offset: (N,), the latter two or None; order: (M,), the rows of the
    table that the plan speaks of, or None where it speaks of X's own."""
    rows = jnp.arange(plan.rows, dtype=jnp.int32)
    tile = jnp.clip(jnp.searchsorted(plan.first, rows, side="right") - 1, 0, len(plan.fit) - 1).astype(jnp.int32)
    part = (jnp.arange(LANES, dtype=jnp.int32) // (LANES // plan.parts)).astype(jnp.int32)
    position = (rows - jnp.asarray(plan.first)[tile])[:, None] * plan.parts + part
    inside = position < jnp.asarray(plan.size)[tile]
    index = jnp.where(inside, jnp.asarray(plan.start)[tile] + position, 0)
    index = index if order is None else jnp.asarray(order)[index]
    if weights is not None:
        weights = jnp.where(inside, jnp.asarray(weights)[index], 0.0)
        inside = inside & (weights != 0.0)
    found = jnp.swapaxes(jnp.asarray(X)[index], 1, 2)
    return Tiles(
        X=jnp.where(inside[:, None, :], found, jnp.zeros((), found.dtype)),
        y=jnp.where(inside, jnp.asarray(y)[index], HARMLESS),
        weights=weights,
        offset=None if offset is None else jnp.where(inside, jnp.asarray(offset)[index], 0.0),
        first=jnp.asarray(plan.first),
        count=jnp.maximum(0, (jnp.asarray(plan.size) - part + plan.parts - 1) // plan.parts).astype(jnp.int32),
        fit=jnp.asarray(plan.fit),
        place=jnp.asarray(plan.place),
        parts=plan.parts,
    )
