"""From ragged groups on the host to a few shapes that are compiled once.

Groups are sorted by size, put side by side in blocks of `lanes`, and their rows cut into chunks of `rows`. A block needs
as many chunks as its largest group; the chunks of all blocks lie one after the other in a flat array of T chunks, and
where a block begins and how many chunks it has is data. So T, the number of columns and the layout are all that a
compiled program depends on, and T takes few values. Sorting keeps the padding small: a few rows a group.

What is packed comes from a `Source`, which knows how to look up any row of any group.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from jaxglm.aligned import zeros
from jaxglm.irls.lanes.run import Rows
from jaxglm.irls.ragged import Tiles

EMPTY = -1  # a lane without a group


@dataclass(frozen=True)
class Picked:
    """Rows looked up. X: (..., p); y, weights: (...); offset: (...) or None."""

    X: np.ndarray
    y: np.ndarray
    weights: np.ndarray
    offset: np.ndarray | None


class Source(Protocol):
    """Rows of groups, wherever they lie."""

    @property
    def p(self) -> int:
        """The number of columns."""

    @property
    def sizes(self) -> np.ndarray:
        """The number of rows of each group, (g,)."""

    def pick(self, groups: np.ndarray, positions: np.ndarray) -> Picked:
        """The rows at `positions` inside `groups`, two integer arrays that broadcast to one shape."""

    def only(self, columns: np.ndarray) -> Source:
        """The same rows with some of the columns (k,); with one of zeros where there are none."""


@dataclass(frozen=True)
class Stacked:
    """Rows in one table. X: (N, p); y: (N,); weights, offset: (N,) or None; order: (M,) row numbers sorted by group, or
    None where the rows are; starts, sizes: (g,); gone: (p,), columns that are read as zeros, or None."""

    X: np.ndarray
    y: np.ndarray
    weights: Any
    offset: np.ndarray | None
    order: np.ndarray | None
    starts: np.ndarray
    sizes: np.ndarray
    gone: np.ndarray | None = None

    @property
    def p(self) -> int:
        return self.X.shape[1]

    def pick(self, groups: np.ndarray, positions: np.ndarray) -> Picked:
        index = self.starts[groups] + positions
        index = index if self.order is None else self.order[index]
        weights = np.ones(index.shape) if self.weights is None else self.weights[index]
        offset = None if self.offset is None else self.offset[index]
        return Picked(_read(_at(self.X, index), self.gone), self.y[index], weights, offset)

    def only(self, columns: np.ndarray) -> Stacked:
        return replace(self, X=_chosen(_read(self.X, self.gone), columns), gone=None)


@dataclass(frozen=True)
class Features:
    """A last column of each group's own. There may be very many, so they stay in the type and the memory in which they
    came. values: (g, n), numbers or flags; code: what stands for missing beside NaN, or None; drop: whether rows where the
    value is missing are not there."""

    values: np.ndarray
    code: int | None = None
    drop: bool = False

    @classmethod
    def of(cls, values: np.ndarray, code: int | None) -> Features:
        """Features (g, n); a code that their type cannot hold stands for nothing."""
        if code is None or values.dtype.kind == "f":
            return cls(values, code)
        held = np.iinfo(values.dtype)
        return cls(values, code if held.min <= code <= held.max else None)

    def lost(self, index: Any) -> np.ndarray:
        """Where values are missing; index: as NumPy's, of values."""
        part = self.values[index]
        missing = np.isnan(part) if part.dtype.kind == "f" else np.zeros(part.shape, bool)
        return missing if self.code is None else missing | (part == self.code)

    def numbers(self, index: Any) -> np.ndarray:
        """Values in float64, NaN where they are missing."""
        return np.where(self.lost(index), np.nan, self.values[index])

    def weights(self, weights: np.ndarray, index: Any) -> np.ndarray:
        """Prior weights of these values' rows, zero where a row is not there."""
        return np.where(self.lost(index), 0.0, weights) if self.drop else weights


@dataclass(frozen=True)
class Crossed:
    """Every group has n rows. X: (n, p), shared, or (g, n, p); y, weights, offset: (n,) or (g, n), the latter two also None;
    own: a last column of each group's own beside a shared X, or None; gone: columns of X that are read as zeros, or None."""

    X: np.ndarray
    y: np.ndarray
    weights: np.ndarray | None
    offset: np.ndarray | None
    g: int
    own: Features | None = None
    gone: np.ndarray | None = None

    @property
    def p(self) -> int:
        return self.X.shape[-1] + (self.own is not None)

    @property
    def read(self) -> Crossed:
        """The same with zeros where they are read."""
        return self if self.gone is None else replace(self, X=_read(self.X, self.gone), gone=None)

    @property
    def sizes(self) -> np.ndarray:
        return np.full(self.g, self.X.shape[-2])

    def pick(self, groups: np.ndarray, positions: np.ndarray) -> Picked:
        groups, positions = np.broadcast_arrays(groups, positions)

        def rows(values: np.ndarray) -> np.ndarray:
            return values[groups, positions] if values.ndim == 2 else values[positions]

        X = _read(self.X[positions] if self.X.ndim == 2 else self.X[groups, positions], self.gone)
        weights = np.ones(positions.shape) if self.weights is None else rows(self.weights)
        if self.own is not None:
            X = np.concatenate([X, self.own.numbers((groups, positions))[..., None]], axis=-1)
            weights = self.own.weights(weights, (groups, positions))
        return Picked(X, rows(self.y), weights, None if self.offset is None else rows(self.offset))

    def only(self, columns: np.ndarray) -> Crossed:
        if self.gone is not None:
            return self.read.only(columns)
        if self.own is None:
            return replace(self, X=_chosen(self.X, columns))
        shared, weights = columns[columns < self.p - 1], self.weights
        if 0 < len(shared) < len(columns):
            return replace(self, X=_chosen(self.X, shared))
        if self.own.drop:
            weights = self.own.weights(np.ones(self.X.shape[0]) if weights is None else weights, slice(None))
        X = _chosen(self.X, columns) if len(shared) == len(columns) else self.own.numbers(slice(None))[..., None]
        return replace(self, X=X, weights=weights, own=None)


def _at(X: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Rows of X (N, p). `take` is fast, but would copy all of X first where that does not lie row after row."""
    return X.take(index, axis=0) if X.flags.c_contiguous else X[index]


def _read(X: np.ndarray, gone: np.ndarray | None) -> np.ndarray:
    """X (..., p) as it is read."""
    return X if gone is None else np.where(gone, 0.0, X)


def _chosen(X: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Some columns of X (..., p), or one of zeros."""
    return X[..., columns] if len(columns) else np.zeros((*X.shape[:-1], 1))


def piece(source: Source, group: int, positions: range) -> Picked:
    """Rows of one group that lie one after the other; where they do so in memory, it is only looked at."""
    if isinstance(source, Stacked) and source.gone is None:
        first, count = int(source.starts[group]) + positions.start, len(positions)
        if source.order is not None:
            index = source.order[first : first + count]
            first = int(index[0]) if (np.diff(index) == 1).all() else -1
        if first >= 0:
            part = slice(first, first + count)
            weights = np.ones(count) if source.weights is None else source.weights[part]
            return Picked(source.X[part], source.y[part], weights, None if source.offset is None else source.offset[part])
    return source.pick(np.asarray(group), np.arange(positions.start, positions.stop))


def gather(source: Source, groups: np.ndarray) -> Stacked:
    """The rows of some groups, in a table of their own."""
    sizes = source.sizes[groups]
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int64) if len(groups) else np.zeros(0, np.int64)
    owner = np.repeat(np.arange(len(groups)), sizes)
    picked = source.pick(np.asarray(groups)[owner], np.arange(len(owner)) - starts[owner])
    return Stacked(picked.X, picked.y, picked.weights, picked.offset, None, starts, sizes)


def thinned(stacked: Stacked, which: np.ndarray) -> Stacked:
    """Those rows of a table made by `gather` that are flagged by `which` (n,); a group may have none left."""
    index = np.flatnonzero(which)
    sizes = np.bincount(owners(stacked)[index], minlength=len(stacked.sizes))
    X, y, weights = (np.take(values, index, axis=0) for values in (stacked.X, stacked.y, stacked.weights))
    offset = None if stacked.offset is None else stacked.offset[index]
    return Stacked(X, y, weights, offset, None, np.cumsum(sizes) - sizes, sizes)


def lane_rows(source: Source) -> Rows | None:
    """The rows of a source, where they are, as lanes of a CPU look them up; None where they lie nowhere, but are made."""
    if isinstance(source, Stacked):
        weights = None if source.weights is None else np.asarray(source.weights)
        return Rows(source.X, source.y, weights, source.offset, source.starts, source.sizes, source.order, gone=source.gone)
    if not isinstance(source, Crossed):
        return None
    own, code, drop = None, None, False
    if source.own is not None:
        own, code, drop = source.own.values, source.own.code, source.own.drop
    nowhere, sizes = np.zeros(source.g, np.int64), source.sizes
    shared = source.X.ndim == 2
    rows = Rows(source.X, source.y, source.weights, source.offset, nowhere, sizes, None, own, code, drop, shared)
    return replace(rows, gone=source.gone)


def owners(stacked: Stacked) -> np.ndarray:
    """The group of every row of a table made by `gather`."""
    return np.repeat(np.arange(len(stacked.sizes)), stacked.sizes)


@dataclass(frozen=True)
class Layout:
    """lanes: groups side by side in a block; rows: of a chunk; calls: lanes x rows x T of a call, the values that it takes
    unless a group needs more and gets the next power of two."""

    lanes: int
    rows: int
    calls: tuple[int, ...] = (2**15, 2**16)


@dataclass(frozen=True)
class Call:
    """What one call of the compiled program works on. groups: (T, lanes), the groups of each block, EMPTY where a lane
    has none; first, count: (T,), the chunks of each block; owner: (T,), the block of each chunk; n_blocks: how many of
    the T places for blocks are used."""

    layout: Layout
    groups: np.ndarray
    first: np.ndarray
    count: np.ndarray
    owner: np.ndarray
    n_blocks: int

    @property
    def members(self) -> np.ndarray:
        """The groups solved, in the order of their lanes."""
        groups = self.groups[: self.n_blocks]
        return groups[groups != EMPTY]


def plan(sizes: np.ndarray, groups: np.ndarray, layout: Layout) -> Iterator[Call]:
    """Cut some groups, of these sizes, into calls."""
    by_size = groups[np.argsort(-sizes[groups], kind="stable")]
    n_blocks = -(-len(by_size) // layout.lanes)
    table = np.full((n_blocks, layout.lanes), EMPTY, np.int64)
    table.reshape(-1)[: len(by_size)] = by_size
    counts = np.maximum(1, -(-sizes[table[:, 0]] // layout.rows))
    ends = np.cumsum(counts)
    begin = 0
    while begin < n_blocks:
        used = ends[begin - 1] if begin else 0
        room = max(_sizes(layout)[-1], int(counts[begin]))
        end = int(np.searchsorted(ends, used + room, side="right"))
        yield _call(layout, table[begin:end], counts[begin:end])
        begin = end


def _sizes(layout: Layout) -> list[int]:
    """The values that T takes."""
    return [max(1, rows // (layout.lanes * layout.rows)) for rows in layout.calls]


def _call(layout: Layout, table: np.ndarray, counts: np.ndarray) -> Call:
    need = int(counts.sum())
    total = next((size for size in _sizes(layout) if need <= size), 1 << (need - 1).bit_length())
    n_blocks = len(table)
    groups = np.full((total, layout.lanes), EMPTY, np.int64)
    groups[:n_blocks] = table
    first, count, owner = (np.zeros(total, np.int32) for _ in range(3))
    first[:n_blocks] = np.cumsum(counts) - counts
    count[:n_blocks] = counts
    owner[:need] = np.repeat(np.arange(n_blocks), counts)
    owner[need:] = n_blocks - 1
    return Call(layout, groups, first, count, owner, n_blocks)


def tiles(source: Source, call: Call, dtype: Any, scaled: bool) -> Tiles:
    """Look up the rows of a call. Rows whose X is not finite get a y of NaN, which is never valid, and zeros in X, so
    that they harm no sum. scaled: divide every group's columns by powers of two near their largest values."""
    layout, total = call.layout, len(call.first)
    used = int(call.count.sum())
    groups = call.groups[call.owner[:used]]
    within = np.arange(used) - call.first[call.owner[:used]]
    positions = within[:, None, None] * layout.rows + np.arange(layout.rows)
    sizes = np.where(groups == EMPTY, 0, source.sizes[groups])[:, :, None]
    inside = positions < sizes
    picked = source.pick(np.where(inside, groups[:, :, None], 0), np.where(inside, positions, 0))
    weights = np.where(inside, picked.weights, 0.0)
    X = zeros((total, layout.lanes, source.p, layout.rows), dtype)
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and its row invalid
        X[:used] = np.moveaxis(picked.X, -1, -2)
    y = np.where(weights == 0, 0.0, picked.y)
    with np.errstate(over="ignore", invalid="ignore"):
        doubtful = not np.isfinite(X[:used].sum())
    if doubtful:
        broken = np.asarray(~np.isfinite(X[:used]).all(axis=2))
        y = np.where(broken, np.nan, y)
        X[:used] = np.where(broken[:, :, None, :], 0.0, X[:used])
    scale = np.ones((total, layout.lanes, source.p), dtype)
    if scaled:
        X[:used] *= (weights != 0)[:, :, None, :]
        reach = np.zeros((total, layout.lanes, source.p), dtype)
        np.maximum.at(reach, call.owner[:used], np.abs(X[:used]).max(axis=3))
        scale = np.ldexp(np.ones_like(reach), np.clip(np.frexp(np.where(reach > 0, reach, 1.0))[1], -1000, 1000))
        X[:used] /= scale[call.owner[:used]][:, :, :, None]
    return Tiles(
        X=X,
        y=_padded(y, total, dtype),
        weights=_padded(weights, total, dtype),
        offset=None if picked.offset is None else _padded(np.where(weights == 0, 0.0, picked.offset), total, dtype),
        scale=scale,
        first=call.first,
        count=call.count,
        owner=call.owner,
        n_blocks=np.asarray(call.n_blocks, np.int32),
    )


def _padded(values: np.ndarray, total: int, dtype: Any) -> np.ndarray:
    with np.errstate(over="ignore"):
        out = zeros((total, *values.shape[1:]), dtype)
        out[: len(values)] = values
    return out


def per_lane(values: np.ndarray, call: Call, axes: int) -> np.ndarray:
    """A group's own numbers where its lane is: values with `axes` axes in one fit, and with or without one of groups."""
    if values.ndim == axes:
        return np.broadcast_to(values, (*call.groups.shape, *values.shape)).copy()
    return values[np.maximum(call.groups, 0)]


def reweighted(stacked: Stacked, weights: np.ndarray, X: np.ndarray) -> Stacked:
    """The same rows with other weights and columns."""
    return replace(stacked, weights=weights, X=X)
