"""Rows in the order of their groups.

A counting sort, which keeps the order of the rows inside a group. Tables are often sorted already, and then nothing is
sorted or copied: groups are looked up where they lie.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.sparse import csr_array

from jaxglm.threads import for_each

PIECE = 2**16  # numbers looked at together
ROWS = 2**18  # rows sorted together
SPARSE = 4  # keys a row, up to which a sort by counting pays


@dataclass(frozen=True)
class Order:
    """Rows put in the order of their groups. index: (M,), row numbers, or None where all rows are in that order; starts, sizes:
    (g,), where a group's begin in `index`, and how many they are."""

    index: np.ndarray | None
    starts: np.ndarray
    sizes: np.ndarray

    def rows(self, begin: int, end: int) -> np.ndarray:
        """Row numbers from one place in the order to another."""
        return np.arange(begin, end) if self.index is None else self.index[begin:end]

    def of_group(self, k: int) -> np.ndarray:
        """Row numbers of one group."""
        return self.rows(int(self.starts[k]), int(self.starts[k] + self.sizes[k]))


def sort_rows(codes: np.ndarray, g: int) -> Order:
    """Rows by group, by a counting sort; rows with a negative code are left out."""
    ascending = is_ascending(codes)
    if ascending and (not len(codes) or codes[0] >= 0):
        edges = np.searchsorted(codes, np.arange(g + 1))
        return Order(None, edges[:-1], np.diff(edges))
    present = np.flatnonzero(codes >= 0) if codes.min() < 0 else None
    used = codes if present is None else codes[present]
    sizes = np.bincount(used, minlength=g)
    starts = np.cumsum(sizes) - sizes
    if ascending:
        return Order(present, starts, sizes)
    order = _by_counting(used, g)
    return Order(order if present is None else present[order], starts, sizes)


def _by_counting(keys: np.ndarray, count: int) -> np.ndarray:
    """What sorts whole numbers from 0 to `count`, stably: transposing a sparse matrix with one entry a row is that, in compiled
    code."""
    n = len(keys)
    number = np.int32 if n < 2**31 else np.int64
    rows = np.arange(n + 1, dtype=number)
    order: np.ndarray = csr_array((rows[:n], keys.astype(number, copy=False), rows), shape=(n, count)).tocsc().data
    return order


def sort_within(codes: np.ndarray, g: int, labels: np.ndarray) -> Order:
    """Rows by group, and those of a group by their labels (N,), whole numbers from 0 on; rows with a negative code are left
    out. Sorted piece by piece, by counting where groups and labels are not many more than rows."""
    order = sort_rows(codes, g)
    count = int(labels.max(initial=0)) + 1
    ends = np.cumsum(order.sizes)
    index = np.empty(int(order.sizes.sum()), np.int64)

    def sort(piece: tuple[int, int]) -> None:
        first, last = piece
        begin, end = int(order.starts[first]), int(ends[last - 1])
        rows: Any = slice(begin, end) if order.index is None else order.index[begin:end]
        most = (last - first) * count
        kind = np.int32 if most < 2**31 else np.int64
        keys = np.repeat(np.arange(0, most, count, dtype=kind), order.sizes[first:last])
        np.add(keys, labels[rows], out=keys, casting="same_kind")
        found = _by_counting(keys, most) if most <= SPARSE * len(keys) else np.argsort(keys, kind="stable")
        index[begin:end] = found + begin if order.index is None else rows[found]

    pieces, first = [], 0
    while first < g:
        last = int(np.searchsorted(ends, ends[first] - order.sizes[first] + ROWS, side="right"))
        last = min(max(last, first + 1), g)
        pieces.append((first, last))
        first = last
    for_each(sort, pieces)
    return Order(index, order.starts, order.sizes)


def is_ascending(values: np.ndarray) -> bool:
    """Whether no value is smaller than the one before it."""
    return all(np.all(part[:-1] <= part[1:]) for part in overlapping(values))


def overlapping(values: np.ndarray) -> Iterator[np.ndarray]:
    """The values in pieces that stay in a cache, each beginning with the last value of the one before."""
    return (values[begin : begin + PIECE + 1] for begin in range(0, len(values), PIECE))
