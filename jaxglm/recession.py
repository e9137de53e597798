"""Directions of recession made exact and checked, for many groups at once.

The iteration, or a linear programme, has found directions up to rounding. What they should do is known: leave alone the rows
that they hardly move, and move the others towards their infinite optima. So each is replaced by its projection upon what the
rows that it leaves alone cannot see; small components that it does not need are dropped, so that they are not said to
diverge; and then it is looked at whether it does move every other row the right way. One that does not proves nothing.

What rows cannot see is found from their triangular factors by singular values: a QR factorization of groups of about the
same size at a time, and after that nothing is larger than p by p.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

MOVED, MOVED_FAR = 1e-8, 1e-4  # of the largest move: what is less belongs to rows left alone; where that proves nothing, then
BLIND = 1e-10  # relative singular value below which rows do not determine a combination of coefficients
SEEN = 1e-7  # of a unit vector: a component that is less is a leftover of rounding
LEFTOVER = 0.03  # of the largest component of a direction: what is less may be a leftover
NUMBERS = 2**16  # that are worked on at a time, what fits into cache


@dataclass(frozen=True)
class Separated:
    """Proofs for g groups with n rows in all. direction: (g, p), zero where there is none; moved: (n,), the rows that they
    move; determined: (g, p), the coefficients that the other rows determine. One that is neither determined nor moved may
    have any value."""

    direction: np.ndarray
    moved: np.ndarray
    determined: np.ndarray

    @property
    def proved(self) -> np.ndarray:
        """Which groups are separated, (g,)."""
        return np.asarray(self.direction.any(axis=1))

    @classmethod
    def none(cls, g: int, n: int, p: int) -> Separated:
        """Nothing proved."""
        return cls(np.zeros((g, p)), np.zeros(n, bool), np.ones((g, p), bool))

    def only(self, which: np.ndarray, sizes: np.ndarray) -> Separated:
        """The proofs of the groups flagged by `which` (g,); sizes: (g,), their rows."""
        return Separated(self.direction[which], self.moved[np.repeat(which, sizes)], self.determined[which])


@dataclass(frozen=True)
class Rows:
    """Rows of positive weight of g groups, one group after the other. X: (n, p); side: (n,), the sign of a row's infinite
    optimum, 0 where it is finite; sizes: (g,), none of them 0; free: (g, p), coefficients that are neither aliased nor
    penalized."""

    X: np.ndarray
    side: np.ndarray
    sizes: np.ndarray
    free: np.ndarray

    @property
    def starts(self) -> np.ndarray:
        return np.cumsum(self.sizes) - self.sizes

    @property
    def owner(self) -> np.ndarray:
        """The group of every row, (n,)."""
        return np.repeat(np.arange(len(self.sizes)), self.sizes)

    def only(self, which: np.ndarray) -> Rows:
        """The rows of the groups flagged by `which` (g,)."""
        index = np.flatnonzero(np.repeat(which, self.sizes))
        return Rows(np.take(self.X, index, axis=0), self.side[index], self.sizes[which], self.free[which])

    def change(self, direction: np.ndarray) -> np.ndarray:
        """How far each row's eta goes along its group's direction (g, p)."""
        return along(self.X, direction, self.owner)


def along(X: np.ndarray, direction: np.ndarray, owner: np.ndarray) -> np.ndarray:
    """How far each row's eta goes along its group's direction, (n,). X: (n, p); direction: (g, p); owner: (n,)."""
    n, p = X.shape
    out, piece = np.empty(n), max(1, NUMBERS // p)
    room, ones = np.empty((min(n, piece), p)), np.ones(p)  # memory made once: to get it takes longer than the sums
    for begin in range(0, n, piece):
        part = slice(begin, begin + piece)
        spread = room[: len(owner[part])]
        np.take(direction, owner[part], axis=0, out=spread, mode="clip")  # no owner is out of range; `raise` takes a copy
        np.dot(np.multiply(X[part], spread, out=spread), ones, out=out[part])  # einsum is slower for so few columns
    return out


def exact_proofs(rows: Rows, direction: np.ndarray) -> Separated:
    """Turn directions (g, p) that separate up to rounding, or nearly so, into ones that do, where they do. Which rows they move
    is told by how far they do; where that proves nothing, once more with more rows left alone."""
    change = np.abs(rows.change(np.where(rows.free, direction, 0.0)))
    largest = np.maximum.reduceat(change, rows.starts)[rows.owner]
    moved, moved_far = change > MOVED * largest, change > MOVED_FAR * largest
    found = polish(rows, direction, moved)
    rest = ~found.proved & np.logical_or.reduceat(moved != moved_far, rows.starts)
    if rest.any():
        inside = np.repeat(rest, rows.sizes)
        more = polish(rows.only(rest), direction[rest], moved_far[inside])
        found.direction[rest], found.determined[rest], found.moved[inside] = more.direction, more.determined, more.moved
    return found


def reach_of(X: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """The largest magnitude in each column of each group, (g, p)."""
    reach: np.ndarray = np.maximum.reduceat(np.abs(X), starts)
    return reach


def polish(rows: Rows, direction: np.ndarray, moved: np.ndarray) -> Separated:
    """Turn directions (g, p) of which it is known which rows they are to move, (n,), into ones that move these towards their
    infinite optima, and leave the others alone, where that can be."""
    free, owner = rows.free, rows.owner
    reach = reach_of(rows.X, rows.starts)
    size = np.where(free & (reach > 0), reach, 1.0)
    X = np.take(size, owner, axis=0)
    np.divide(rows.X, X, out=X)
    rows = Rows(X if free.all() else np.where(free[owner], X, 0.0), rows.side, rows.sizes, free)
    start = np.where(free, direction * size, 0.0)
    factor = _triangles(rows.X, owner, ~moved, len(free))
    blind = _unseen(factor, free)
    exact = _without_leftovers(rows, factor, start, moved, _projected(blind, start))
    proved = _separates(rows, moved, exact)
    exact /= np.max(np.abs(exact), axis=1, keepdims=True, initial=1e-300)
    return Separated(
        np.where(proved[:, None], exact / size, 0.0),
        moved & proved[owner],
        ~(np.abs(blind) > SEEN).any(axis=2) | ~proved[:, None],
    )


def _without_leftovers(rows: Rows, factor: np.ndarray, start: np.ndarray, moved: np.ndarray, exact: np.ndarray) -> np.ndarray:
    """The exact directions without small components, which are leftovers of the iteration unless a direction needs them."""
    size = np.abs(exact)
    small = (size > 0) & (size <= LEFTOVER * size.max(axis=1, keepdims=True, initial=0.0))
    where, sizes = small.any(axis=1), np.where(small, size, np.inf)
    if where.any():
        exact, part = exact.copy(), np.repeat(where, rows.sizes)
        exact[where] = _with_fewer(rows.only(where), factor[where], start[where], moved[part], exact[where], sizes[where])
    return exact


def _with_fewer(
    rows: Rows, factor: np.ndarray, start: np.ndarray, moved: np.ndarray, exact: np.ndarray, small: np.ndarray
) -> np.ndarray:
    """The exact directions without as many of their small components, the smallest first, as they can do without; small:
    (g, p), the sizes of these, infinite for others."""
    best, free, number, smallest_first = exact.copy(), rows.free.copy(), np.isfinite(small).sum(axis=1), small.argsort(axis=1)
    for rank in range(int(number.max())):
        fewer = free.copy()
        fewer[np.arange(len(fewer)), smallest_first[:, rank]] = False
        without = _projected(_unseen(factor, fewer), start)
        good = (number > rank) & _separates(rows, moved, without)
        best[good], free[good] = without[good], fewer[good]
    return best


def _separates(rows: Rows, moved: np.ndarray, direction: np.ndarray) -> np.ndarray:
    """Whether directions move every moved row towards its infinite optimum, (g,); the others they cannot see."""
    ahead = np.where(moved, rows.side * rows.change(direction), np.inf)
    least = np.minimum.reduceat(ahead, rows.starts)
    return (least > 0) & np.isfinite(least) & np.isfinite(direction).all(axis=1)


def _triangles(X: np.ndarray, owner: np.ndarray, which: np.ndarray, g: int) -> np.ndarray:
    """Triangular factors (g, p, p) of those rows of each group that are flagged by `which`."""
    p = X.shape[1]
    factor = np.zeros((g, p, p))
    sizes = np.bincount(owner[which], minlength=g)
    ends = np.cumsum(sizes)
    index = np.flatnonzero(which)
    for groups, padded in _alike(sizes, p):
        within = np.arange(padded)
        inside = within < sizes[groups][:, None]
        place = np.where(inside, (ends - sizes)[groups][:, None] + within, 0)
        packed = np.take(X, index[place], axis=0)
        packed[~inside] = 0.0
        factor[groups] = np.linalg.qr(packed, mode="r")
    return factor


def _alike(sizes: np.ndarray, p: int) -> Iterator[tuple[np.ndarray, int]]:
    """Groups that have rows, in portions, and the number of rows, at least p, to which theirs are padded."""
    padded = np.maximum(p, 2 ** np.ceil(np.log2(np.maximum(sizes, 1))).astype(np.int64))
    for size in np.unique(padded[sizes > 0]):
        groups = np.flatnonzero((padded == size) & (sizes > 0))
        portion = max(1, NUMBERS // int(size * p))
        for first in range(0, len(groups), portion):
            yield groups[first : first + portion], int(size)


def _unseen(factor: np.ndarray, free: np.ndarray) -> np.ndarray:
    """An orthonormal basis of the vectors in the free coordinates that the rows with these triangular factors cannot see, in
    columns of (g, p, p), the others being zero."""
    held = np.where(free, 0.0, 1.0)[:, None, :] * np.eye(free.shape[1])  # a row that sees the coordinate
    _, values, right = np.linalg.svd(np.concatenate([factor * free[:, None, :], held], axis=1), full_matrices=False)
    blind = values <= BLIND * np.maximum(values.max(axis=1, keepdims=True, initial=0.0), 1.0)
    return np.swapaxes(right * (blind[:, :, None] & free[:, None, :]), 1, 2)


def _projected(basis: np.ndarray, direction: np.ndarray) -> np.ndarray:
    """The part (g, p) of directions that lies in what is spanned by each basis."""
    return np.matmul(basis, np.matmul(direction[:, None, :], basis).swapaxes(1, 2))[:, :, 0]
