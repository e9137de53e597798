"""Rows in the order of their groups.

A counting sort, which keeps the order of the rows inside a group. Tables are often sorted already, and then nothing is
sorted or copied: groups are looked up where they lie.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.sparse import csr_array

from jaxglm.threads import cores

PIECE = 2**16  # numbers looked at together
ROWS = 2**18  # rows sorted together
FEW = 2**12  # rows, for fewer of which at a time a sort by counting does not pay


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
    count = len(used)
    # Transposing a sparse matrix with one entry a row is a stable counting sort in compiled code.
    order = csr_array((np.arange(count), used, np.arange(count + 1)), shape=(count, g)).tocsc().data
    return Order(order if present is None else present[order], starts, sizes)


def sort_within(codes: np.ndarray, g: int, labels: np.ndarray) -> Order:
    """Rows by group, and those of a group by their labels (N,), whole numbers from 0 on; rows with a negative code are left
    out. Sorted piece by piece, so many groups at a time that group and label fit into 16 bits, which are sorted by counting."""
    order = sort_rows(codes, g)
    count = int(labels.max(initial=0)) + 1
    by_counting = 2**16 // count * len(codes) >= FEW * g
    at_once, kind = (2**16 // count, np.uint16) if by_counting else (g, np.int64)
    ends = np.cumsum(order.sizes)
    index = np.empty(int(order.sizes.sum()), np.int64)

    def sort(piece: tuple[int, int]) -> None:
        first, last = piece
        begin, end = int(order.starts[first]), int(ends[last - 1])
        rows: Any = slice(begin, end) if order.index is None else order.index[begin:end]
        keys = ((codes[rows] - first) * count + labels[rows]).astype(kind)
        found = np.argsort(keys, kind="stable")
        index[begin:end] = found + begin if order.index is None else rows[found]

    pieces, first = [], 0
    while first < g:
        last = int(np.searchsorted(ends, ends[first] - order.sizes[first] + ROWS, side="right"))
        last = min(max(last, first + 1), first + at_once, g)
        pieces.append((first, last))
        first = last
    with ThreadPoolExecutor(cores()) as pool:
        list(pool.map(sort, pieces))
    return Order(index, order.starts, order.sizes)


def is_ascending(values: np.ndarray) -> bool:
    """Whether no value is smaller than the one before it."""
    return all(np.all(part[:-1] <= part[1:]) for part in overlapping(values))


def overlapping(values: np.ndarray) -> Iterator[np.ndarray]:
    """The values in pieces that stay in a cache, each beginning with the last value of the one before."""
    return (values[begin : begin + PIECE + 1] for begin in range(0, len(values), PIECE))
