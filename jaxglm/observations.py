"""The rows behind a result, in the user's order and shape: what row-wise quantities are computed from.

Three shapes: rows that each belong to one group, (N,); rows that all fits share, (n, p) with (g, n) responses; and fits
with rows of their own, (g, n, p). One fit is the first shape with one group.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np

from jaxglm.family import Family
from jaxglm.irls.solution import Solution, is_lost
from jaxglm.limits import infinite_eta
from jaxglm.packing import Crossed, Features, Source, Stacked
from jaxglm.sorting import is_ascending, sort_rows

PIECE = 2**17  # rows worked on at a time
FEW = 1000  # rows that show of most columns that they are not constant


@dataclass(frozen=True)
class Observations:
    """X: (N, p), (n, p) or (g, n, p); own: a last column of each fit's own, or None; y, weights, offset: shapes
    that broadcast to that of the rows, the latter two also None; codes: (N,) where each row belongs to one group, -1
    where to none, else None; g: the number of groups; frequencies: how many rows each stands for, a shape as that of
    weights, of which they are a factor, or None; lost: rows dropped for missing values, of a shape like that of y, or None
    where there are none."""

    X: np.ndarray
    y: np.ndarray
    weights: np.ndarray | None
    offset: np.ndarray | None
    codes: np.ndarray | None
    g: int
    own: Features | None = None
    frequencies: np.ndarray | None = None
    lost: np.ndarray | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of row-wise quantities."""
        return self.codes.shape if self.codes is not None else (self.g, self.X.shape[-2])

    @property
    def constants(self) -> np.ndarray:
        """(p,): the number that a column holds in all rows, missing ones apart; NaN where there are several, or none."""
        found = [_only_number(column) for column in self.X.reshape(-1, self.X.shape[-1]).T]
        return np.array(found if self.own is None else [*found, np.nan])

    @property
    def constant_columns(self) -> np.ndarray:
        """(p,): columns that hold one number other than zero, as an intercept does."""
        constants = self.constants
        return np.isfinite(constants) & (constants != 0)

    def rows(self, values: np.ndarray | None, default: float) -> np.ndarray:
        """y, weights or offset in the shape of the rows."""
        return np.broadcast_to(default if values is None else values, self.shape)

    def without(self, lost: np.ndarray) -> Observations:
        """Without the rows that are `lost`, of a shape like that of y: they get weight zero."""
        weights = np.ones(1) if self.weights is None else self.weights
        return replace(self, weights=np.where(lost, 0.0, weights), lost=lost)

    def fitted_only(self, values: np.ndarray) -> np.ndarray:
        """Values of all rows, NaN where a row was dropped."""
        return values if self.lost is None else np.where(self.lost, np.nan, values)

    def prior_weights(self) -> np.ndarray:
        """Prior weights in the shape of the rows, zero where a row is not there."""
        weights = self.rows(self.weights, 1.0)
        return weights if self.own is None else self.own.weights(weights, slice(None))

    def unit_weights(self) -> np.ndarray:
        """Prior weights of each of the rows that a row stands for."""
        weights = self.prior_weights()
        if self.frequencies is None:
            return weights
        return np.where(weights == 0, 0.0, weights / np.where(weights == 0, 1.0, self.frequencies))

    def by_row(self, values: np.ndarray) -> np.ndarray:
        """Values of the fits, (g,), to be broadcast against the rows."""
        if self.codes is None:
            return values[:, None]
        return values[np.maximum(self.codes, 0)] if self.g else np.full(self.shape, np.nan)

    def family(self, family: Family) -> Family:
        """The family with its parameters broadcast against the rows."""
        if not any(np.ndim(leaf) for leaf in jax.tree.leaves(family)):
            return family
        return family.of((slice(None), None) if self.codes is None else np.maximum(self.codes, 0))

    def design(self, k: int) -> np.ndarray:
        """X (n, p) of one of fits with equally many rows, its own column included."""
        X = self.X if self.X.ndim == 2 else self.X[k]
        return X if self.own is None else np.column_stack([X, self.own.numbers(k)])

    def linear_predictor(self, solution: Solution) -> np.ndarray:
        """eta of every row, with the offset, infinite where the direction of a separated fit takes it there."""
        b, direction = counted(solution), solution.direction
        eta = np.full(self.shape, np.nan)
        if self.codes is not None:
            for begin in range(0, len(self.codes) if self.g else 0, PIECE):
                part = slice(begin, begin + PIECE)
                code = self.codes[part]
                eta[part] = np.where(code < 0, np.nan, at_limit(self.X[part], b[code], direction[code]))
        else:
            for k in range(self.g):
                eta[k] = at_limit(self.design(k), b[k], direction[k])
        return eta if self.offset is None else eta + self.offset

    def source(self, sort: Any = None) -> Source:
        """The rows as fitting wants them; sort: a `sorting.Order` where there are codes."""
        if sort is not None:
            return Stacked(self.X, self.y, self.weights, self.offset, sort.index, sort.starts, sort.sizes)
        return Crossed(self._sound_X(), self.y, self.weights, self.offset, self.g, self.own)

    def _sound_X(self) -> np.ndarray:
        """X; zeros in rows of a shared one that no fit has, where something in it is not finite: fits could not go the
        quick way with it."""
        if self.X.ndim == 3 or self.weights is None or np.isfinite(self.X).all():
            return self.X
        absent = (self.weights == 0).reshape(-1, len(self.X)).all(axis=0)
        return np.where(absent[:, None], 0.0, self.X)

    def sorted_source(self) -> Source:
        """The same, rows with codes sorted by them."""
        return self.source(None if self.codes is None else sort_rows(self.codes, self.g))

    def pieces(self, fits: np.ndarray | None = None) -> Iterator[tuple[Any, np.ndarray]]:
        """All rows, or those of some fits, some at a time: which (an index into row-wise quantities) and their X, (m, p), or
        (b, n, p) of b fits."""

        def parts(chosen: np.ndarray | None, count: int, size: int) -> Iterator[Any]:
            for begin in range(0, count, size):
                part = slice(begin, min(begin + size, count))
                yield part if chosen is None else chosen[part]

        if self.codes is not None:
            rows = None if fits is None else self.of_fits(fits)
            count = len(rows) if rows is not None else len(self.codes) if self.g else 0
            for part in parts(rows, count, PIECE):
                yield part, self.X[part]
            return
        count = self.g if fits is None else len(fits)
        for part in parts(fits, count, max(1, PIECE // max(1, self.X.shape[-2]))):
            own = None if self.own is None else self.own.numbers(part)[..., None]
            several = part.stop - part.start if fits is None else len(part)
            X = np.broadcast_to(self.X, (several, *self.X.shape)) if self.X.ndim == 2 else self.X[part]
            yield part, X if own is None else np.concatenate([X, own], axis=-1)

    def of_fits(self, fits: np.ndarray) -> np.ndarray:
        """Which rows of one table belong to some of the fits."""
        assert self.codes is not None
        if is_ascending(self.codes):
            first, last = (np.searchsorted(self.codes, np.sort(fits), side=side) for side in ("left", "right"))
            within = np.arange(int((last - first).sum())) - np.repeat(np.cumsum(last - first) - (last - first), last - first)
            return np.repeat(first, last - first) + within
        wanted = np.zeros(self.g + 1, bool)
        wanted[fits] = True
        return np.flatnonzero(wanted[self.codes])  # the last one is for rows of no group

    def one(self, k: int) -> Observations:
        """The rows of one group."""
        if self.codes is not None:
            inside = self.codes == k

            def pick(values: np.ndarray | None) -> Any:
                return None if values is None else np.broadcast_to(values, self.shape)[inside]

            rest = {"codes": self.codes[inside] * 0, "g": 1, "frequencies": pick(self.frequencies), "lost": pick(self.lost)}
            return Observations(self.X[inside], pick(self.y), pick(self.weights), pick(self.offset), **rest)

        def row(values: np.ndarray | None) -> Any:
            return values if values is None or values.ndim < 2 else values[k]

        X, weights = self.design(k), row(self.weights)
        if self.own is not None:
            weights = self.own.weights(np.ones(len(X)) if weights is None else weights, k)
        rest = {"codes": np.zeros(len(X), np.int64), "g": 1, "own": None, "frequencies": row(self.frequencies)}
        rows = {"y": row(self.y), "weights": weights, "offset": row(self.offset), "lost": row(self.lost)}
        return replace(self, X=X, **rows, **rest)


def counted(solution: Solution) -> np.ndarray:
    """(g, p): the coefficients as predictions count them, 0 where aliased, NaN where there is no estimate."""
    return np.where(solution.aliased & ~is_lost(solution.status)[:, None], 0.0, solution.coefficients)


def log_exposure(exposure: np.ndarray) -> np.ndarray:
    """What an exposure adds to eta. One that is not positive makes its row invalid, and only a missing one missing."""
    return np.where(exposure > 0, np.log(np.where(exposure > 0, exposure, 1.0)), np.where(np.isnan(exposure), np.nan, -np.inf))


def at_limit(X: np.ndarray, coefficients: np.ndarray, direction: np.ndarray) -> np.ndarray:
    """X b, infinite where the direction takes it there. X: (n, p); coefficients, direction: (p,) or (n, p)."""
    with np.errstate(invalid="ignore", over="ignore"):  # rows of weight zero may hold anything
        eta = np.sum(X * coefficients, axis=-1)
        if not direction.any():
            return eta
        way = infinite_eta(X, direction)
    return np.where(way == 0, eta, np.copysign(np.inf, way))


def _only_number(column: np.ndarray) -> float:
    """The number that is all of a column, missing rows apart; NaN where there are several, or none."""
    known = column[:FEW][~np.isnan(column[:FEW])]
    if not len(known):
        known = column[~np.isnan(column)]
    if not len(known):
        return np.nan
    for begin, end in ((0, FEW), *((begin, begin + PIECE) for begin in range(0, len(column), PIECE))):
        alike = column[begin:end] == known[0]
        if not (alike.all() or (alike | np.isnan(column[begin:end])).all()):
            return np.nan
    return float(known[0])
