"""Groups in portions of a bounded number of rows, and what rows add up to in each group.

What is computed row by row needs a dozen numbers a row; of a large table that is looked at portion by portion. Rows of a
portion are padded to one length, so that one program serves all portions.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import jax
import numpy as np

from jaxglm.observations import Observations
from jaxglm.packing import Features
from jaxglm.sorting import sort_rows


def portions(result: Any, size: int) -> Iterator[Any]:
    """The result in parts of consecutive groups with about as many rows; rows that fill up a part belong to no group."""
    rows, g = result._rows(), len(result)
    if np.prod(rows.shape) <= size or g <= 1:
        yield result
        return
    if rows.codes is None:
        step = max(1, size // rows.shape[1])
        for begin in range(0, g, step):
            groups = slice(begin, min(begin + step, g))
            yield _part(result, groups, _crossed(rows, groups))
        return
    sort = sort_rows(rows.codes, g)
    ends = np.cumsum(sort.sizes)
    begin = 0
    while begin < g:
        end = max(begin + 1, int(np.searchsorted(ends, ends[begin] - sort.sizes[begin] + size, side="right")))
        index = sort.rows(int(sort.starts[begin]), int(ends[end - 1]))
        room = max(size, 1 << max(len(index) - 1, 0).bit_length())
        codes = np.full(room, -1, np.int64)
        codes[: len(index)] = rows.codes[index] - begin
        yield _part(result, slice(begin, end), _stacked(rows, np.resize(index, room), codes, end - begin))
        begin = end


def _part(result: Any, groups: slice, observations: Observations) -> Any:
    source = observations.sorted_source()
    index = np.arange(groups.start, groups.stop)
    return replace(
        result,
        solution=jax.tree.map(lambda leaf: leaf[groups], result.solution),
        family=result.family.of(groups),
        observations=observations,
        dropped=result.dropped[groups],
        table=None,
        task=result.task.subset(source, index),
        degrees=None if result.degrees is None else result.degrees[groups],
        unscaled=None if result.unscaled is None else result.unscaled[groups],
        bootstrapped=None,
    )


def _crossed(rows: Observations, groups: slice) -> Observations:
    """The rows of some of fits with equally many."""

    def part(values: Any, axes: int) -> Any:
        return values if values is None or np.ndim(values) == axes else values[groups]

    own = None if rows.own is None else Features(rows.own.values[groups], rows.own.code, rows.own.drop)
    given = {name: part(getattr(rows, name), 1) for name in ("y", "weights", "offset", "frequencies")}
    return replace(rows, X=part(rows.X, 2), own=own, g=groups.stop - groups.start, **given)


def _stacked(rows: Observations, index: np.ndarray, codes: np.ndarray, g: int) -> Observations:
    """Some rows of one table."""

    def part(values: Any) -> Any:
        return None if values is None else np.broadcast_to(values, rows.shape)[index]

    given = {name: part(getattr(rows, name)) for name in ("y", "weights", "offset", "frequencies")}
    return replace(rows, X=rows.X[index], codes=codes, g=g, **given)


def repeats(rows: Observations) -> np.ndarray | float:
    """How many equal rows each row stands for."""
    return 1.0 if rows.frequencies is None else np.broadcast_to(rows.frequencies, rows.shape)


def of_rows(rows: Observations, values: np.ndarray) -> np.ndarray:
    """What each row's group has, (g,) to the rows' shape; of rows without a group any."""
    return values[:, None] if rows.codes is None else values[np.maximum(rows.codes, 0)]


def by_group(rows: Observations, values: np.ndarray) -> np.ndarray:
    """Sums over the rows of each group, (g,)."""
    if rows.codes is None:
        return np.sum(values, axis=1, dtype=float)
    inside = rows.codes >= 0
    return np.bincount(rows.codes[inside], np.asarray(values, float)[inside], rows.g)


def largest(rows: Observations, values: np.ndarray) -> np.ndarray:
    """The largest value of each group, (g,), NaN where all are NaN."""
    out = np.full(rows.g, -np.inf)
    known = ~np.isnan(values)
    if rows.codes is None:
        out = np.max(np.where(known, values, -np.inf), axis=1, initial=-np.inf)
    else:
        known &= rows.codes >= 0
        np.maximum.at(out, rows.codes[known], values[known])
    return np.where(np.isinf(out), np.nan, out)


def column_sums(rows: Observations, values: np.ndarray) -> np.ndarray:
    """X' values of each group, (g, p)."""
    X = np.where(np.isfinite(rows.X), rows.X, 0.0)  # of rows that are not there
    if rows.codes is not None:
        inside = rows.codes >= 0
        codes, X, values = rows.codes[inside], X[inside], values[inside]
        return np.column_stack([np.bincount(codes, X[:, j] * values, rows.g) for j in range(X.shape[1])])
    sums = values @ X if X.ndim == 2 else np.einsum("gn,gnp->gp", values, X)
    if rows.own is None:
        return sums
    own = rows.own.numbers(slice(None))
    return np.column_stack([sums, np.sum(values * np.where(np.isfinite(own), own, 0.0), axis=1)])
