"""Sums over rows of what average effects are means of: values, and their gradients by the coefficients.

There are two ways. What is the same for all rows of a fit, such as a slope along a column of the design, needs a few sums over
them, which passes over all fits make (`effect_sums`). Any other change is looked at row by row (`add_rows`), and so are fits
with means at their limits, or with directions that their rows do not tell of.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxglm.changes import Along, Change, Columns, Setting
from jaxglm.effect_sums import Asked, Slopes, Sums, Values
from jaxglm.family import Family
from jaxglm.irls.problem import typed
from jaxglm.irls.solution import is_lost
from jaxglm.limits import infinite_eta
from jaxglm.observations import Observations, counted
from jaxglm.passes import over_fits
from jaxglm.score_tests import products

ROUNDING = 1e-9  # of a direction of columns of unit length, what is nothing
SINGULAR = 1e-13  # of the largest eigenvalue of products of columns of unit length, what is nothing
OUTSIDE = 1e-6  # of the terms of a sum, what it has to be to count as different from zero


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Curve:
    """The mean of rows and its derivatives by eta, and which are at their limit."""

    mu: Any
    first: Any
    second: Any
    limit: Any


def curve(family: Family, eta: np.ndarray) -> Curve:
    """Of each row; flat at an infinite eta. family: its parameters broadcast against eta."""
    with jax.enable_x64(True):
        return jax.tree.map(np.asarray, _curve(typed(family, np.float64), jnp.asarray(eta)))


@jax.jit
def _curve(family: Family, eta: jax.Array) -> Curve:
    def slope(e: jax.Array) -> jax.Array:
        return family.link.mean(e).dmu_deta

    first, second = jax.jvp(slope, (eta,), (jnp.ones_like(eta),))
    limit = jnp.isinf(eta)
    return Curve(family.link.mean(eta).mu, jnp.where(limit, 0.0, first), jnp.where(limit, 0.0, second), limit)


@dataclass(frozen=True)
class Average:
    """Of every fit. value: (g,); gradient: by the coefficients, (g, p), NaN where there is none; count: rows; limit: how many
    have a mean at its limit, where there is no error; unknown: how many need what the fit's rows do not tell."""

    value: np.ndarray
    gradient: np.ndarray
    count: np.ndarray
    limit: np.ndarray
    unknown: np.ndarray

    @classmethod
    def nothing(cls, g: int, p: int) -> Average:
        return cls(np.zeros(g), np.zeros((g, p)), np.zeros(g), np.zeros(g), np.zeros(g))

    def finished(self) -> Average:
        """Means of what has been added up."""
        lost = self.unknown > 0
        with np.errstate(invalid="ignore", divide="ignore"):
            value, gradient = self.value / self.count, self.gradient / self.count[:, None]
        value[lost] = np.nan
        gradient[lost | (self.limit > 0)] = np.nan
        return replace(self, value=value, gradient=gradient)


Changing = list[tuple[Change, Average]]  # changes, and where what they add up to goes


def add_passes(result: Any, changing: Changing, response: bool, which: np.ndarray) -> None:
    """Add changes that are the same for all rows, of fits flagged by `which` (g,), in passes over their rows."""
    task = replace(result.task, family=result.family)
    b = counted(result.solution)
    places: Any = slice(None) if which.all() else which
    made: dict[bytes, Sums] = {}

    def sums(one: Any, keep: np.ndarray, add: np.ndarray) -> Sums:
        key = type(one).__name__.encode() + keep.tobytes() + add.tobytes()
        if key not in made:
            known = Asked(b, *(np.broadcast_to(values * 1.0, b.shape) for values in (keep, add)))
            made[key] = over_fits(one, task, known, which)
        return made[key]

    def put(total: Average, found: Sums, sign: float, gradient: np.ndarray) -> None:
        for out, values in ((total.value, found.value), (total.gradient, gradient)):
            out[places] += values[places] if sign > 0 else -values[places]

    for change, total in changing:
        if isinstance(change.high, Along):
            way = change.high.direction
            found, along = sums(Slopes(response), np.ones(len(way)), 0.0 * way), b @ way
            value = replace(found, value=found.value * along)
            gradient = along[:, None] * found.columns
            for j in np.flatnonzero(way):
                gradient[:, j] += found.slope * way[j]
            put(total, value, 1.0, gradient)
        else:
            for sign, side in ((1.0, change.high), (-1.0, change.low)):
                assert isinstance(side, Columns)
                found = sums(Values(response), side.keep, side.add)
                put(total, found, sign, found.columns * side.keep + found.slope[:, None] * side.add)
        total.count[places] += found.count[places]


def add_rows(
    result: Any, rows: Observations, changing: Changing, response: bool, silent: np.ndarray | None, which: np.ndarray
) -> None:
    """Add changes of any kind, of fits flagged by `which` (g,), row by row; silent: see `silent_directions`."""
    if not changing or not which.any():
        return
    weights = rows.prior_weights() if rows.weights is not None or rows.own is not None else None
    base, family = rows.rows(rows.offset, 0.0), rows.family(result.family)
    b, direction = counted(result.solution), result.solution.direction
    for part, X in rows.pieces(None if which.all() else np.flatnonzero(which)):
        here = np.ones(X.shape[:-1], bool) if weights is None else weights[part] > 0
        fits = part if rows.codes is None else np.maximum(rows.codes[part], 0)
        here = here if rows.codes is None else here & (rows.codes[part] >= 0)
        given, X = X, X if here.all() else np.where(here[..., None], X, 0.0)
        own = jax.tree.map(lambda leaf: leaf[part] if np.ndim(leaf) and len(leaf) == rows.shape[0] else leaf, family)  # noqa: B023
        known = np.where(here, base[part], 0.0)
        amount = None if rows.frequencies is None else np.broadcast_to(rows.frequencies, rows.shape)[part]
        place = Place.of(fits, rows.codes is not None, amount)
        at = _At(own, X, here, known, b[fits], direction[fits], response, place)
        for change, total in changing:
            changed = change.high(part, given)
            designs = (changed,) if change.low is None else (changed, change.low(part, given))
            (at.add_slopes if change.low is None else at.add_differences)(total, *designs)
            place.add(total.count, here * 1.0)
            if silent is not None:
                for design in designs:
                    place.add(total.unknown, here * _leads_out(design.X, silent, fits, here.shape))


@dataclass(frozen=True)
class Place:
    """Which fits some rows belong to. fits: of blocks of fits which, or of rows, sorted by them, those that occur; first: where
    each begins among rows, None for blocks; order: puts rows in the order of their fits, None where they are; amount: how many
    equal rows each stands for, None for one."""

    fits: Any
    first: np.ndarray | None = None
    order: np.ndarray | None = None
    amount: np.ndarray | None = None

    @classmethod
    def of(cls, fits: Any, by_row: bool, amount: np.ndarray | None) -> Place:
        if not by_row:
            return cls(fits, amount=amount)
        order = None if np.all(fits[:-1] <= fits[1:]) else np.argsort(fits, kind="stable")
        ordered = fits if order is None else fits[order]
        first = np.flatnonzero(np.diff(ordered, prepend=-1))
        return cls(ordered[first], first, order, amount)

    def __len__(self) -> int:
        """How many fits."""
        if self.first is not None:
            return len(self.first)
        return int(self.fits.stop - self.fits.start) if isinstance(self.fits, slice) else len(self.fits)

    @property
    def first_rows(self) -> np.ndarray:
        """A row of each fit."""
        assert self.first is not None
        return self.first if self.order is None else self.order[self.first]

    def add(self, out: np.ndarray, values: np.ndarray) -> None:
        """Add the sums of rows' values, (m,) or (b, n), to `out` (g,)."""
        self._add(out, values if self.amount is None else np.where(self.amount > 0, self.amount * values, 0.0))

    def _add(self, out: np.ndarray, values: np.ndarray) -> None:
        """The same of values of rows, (m,), (m, p) or (b, n), that are multiplied already."""
        if self.first is None:
            out[self.fits] += values.sum(axis=1)
        else:
            out[self.fits] += np.add.reduceat(values if self.order is None else values[self.order], self.first, axis=0)

    def add_products(self, out: np.ndarray, factor: np.ndarray, X: np.ndarray) -> None:
        """Add X' factor of every fit's rows to `out` (g, p)."""
        factor = factor if self.amount is None else np.where(self.amount > 0, self.amount * factor, 0.0)
        if self.first is not None:
            self._add(out, factor[:, None] * X)
        else:
            out[self.fits] += factor @ X if X.ndim == 2 else np.einsum("bn,bnp->bp", factor, X)


def silent_directions(result: Any) -> np.ndarray | None:
    """(g, p, p): for every aliased column the direction in which coefficients can move without changing any of the fit's rows,
    zeros for the others; None where nothing is aliased. What such a direction changes, the fit does not know."""
    solution = result.solution
    aliased = solution.aliased & ~is_lost(solution.status)[:, None]
    some = np.flatnonzero(aliased.any(axis=1))
    if not len(some) or result.observations is None:
        return None
    rows = result.observations
    plain = rows.weights is None and rows.own is None
    present = np.broadcast_to(True, rows.shape) if plain else rows.prior_weights() > 0
    gram = products(rows, present, present, some)[0][some]
    size = np.sqrt(np.diagonal(gram, axis1=1, axis2=2))
    size = np.where(size > 0, size, 1.0)
    gram = gram / size[:, :, None] / size[:, None, :]
    gone = aliased[some]
    kept = np.where(gone[:, :, None] | gone[:, None, :], np.eye(gone.shape[1]), gram)
    shares = np.linalg.pinv(kept, rcond=SINGULAR, hermitian=True) @ np.where(~gone[:, :, None] & gone[:, None, :], gram, 0.0)
    directions = np.where(gone[:, None, :], np.eye(gone.shape[1]) - shares, 0.0)
    out = np.zeros((len(aliased), *gram.shape[1:]))
    out[some] = np.where(np.abs(directions) > ROUNDING, directions, 0.0) / size[:, :, None]
    return out


def _leads_out(X: np.ndarray, silent: np.ndarray, fits: Any, shape: tuple[int, ...]) -> np.ndarray:
    """Which rows depend on a silent direction of their fit. fits: of each row, or of blocks of rows."""
    if X.ndim == 1:
        distinct, place = (fits, slice(None)) if isinstance(fits, slice) else np.unique(fits, return_inverse=True)
        own = silent[distinct]
        lost = np.any(np.abs(X @ own) > OUTSIDE * (np.abs(X) @ np.abs(own)), axis=-1)[place]
        return lost if len(shape) == 1 else lost[:, None]
    silent = silent[fits]
    lines = "mp,mpq->mq" if len(shape) == 1 else "bnp,bpq->bnq"
    rows = np.broadcast_to(X, (*shape, silent.shape[-1]))
    change = np.abs(np.einsum(lines, rows, silent))
    scale = np.einsum(lines, np.abs(rows), np.abs(silent))
    return np.any(change > OUTSIDE * scale, axis=-1)


@dataclass(frozen=True)
class _Sums:
    """Over the rows of each of some fits: of the curve's first derivative, (k,), of its second times the design's rows, (k, p),
    and of those at their limit, (k,)."""

    first: np.ndarray
    second: np.ndarray
    limit: np.ndarray


@dataclass(frozen=True)
class _At:
    """Some rows of fits. family: its parameters broadcast against rows; X: theirs; here: which are there; offset: in the rows'
    shape, (m,) or (b, n); b and direction: of each row's fit, (m, p), or of the fits, (b, p); response: whether effects are on
    the mean, not on eta; place: where sums go."""

    family: Family
    X: np.ndarray
    here: np.ndarray
    offset: np.ndarray
    b: np.ndarray
    direction: np.ndarray
    response: bool
    place: Place

    @cached_property
    def as_they_are(self) -> Curve:
        """The curve of the rows."""
        return self.curve(Setting(self.X, 0.0))

    def curve(self, design: Setting) -> Curve:
        """What is averaged as a function of eta; nothing of rows that are not there."""
        X = np.broadcast_to(design.X, (*self.offset.shape, self.b.shape[-1])) if design.X.ndim == 1 else design.X
        eta = _eta(X, self.b, self.direction, self.offset.shape) + self.offset + design.offset
        line = Curve(eta, np.ones_like(eta), np.zeros_like(eta), np.isinf(eta))
        found = curve(self.family, eta) if self.response else line
        return found if self.here.all() else jax.tree.map(lambda leaf: np.where(self.here, leaf, 0.0), found)

    def add_slopes(self, total: Average, way: Setting) -> None:
        """Add d mu / d v of rows, whose design changes by `way` with v."""
        if way.X.ndim == 1:
            self._add_column(total, way.X)
            return
        change, at = _dot(way.X, self.b, self.offset.shape) + way.offset, self.as_they_are
        self.place.add(total.value, np.where(self.here, at.first * change, 0.0))
        there = way.X if self.here.all() else np.where(self.here[..., None], way.X, 0.0)
        self.place.add_products(total.gradient, at.first, there)
        if self.response:
            self.place.add_products(total.gradient, np.where(self.here, at.second * change, 0.0), self.X)
            self.place.add(total.limit, at.limit * 1.0)

    @cached_property
    def sums(self) -> _Sums:
        """What slopes along columns have in common."""
        at, k = self.as_they_are, len(self.place)
        first, second, limit = np.zeros(k), np.zeros((k, self.b.shape[-1])), np.zeros(k)
        inside = replace(self.place, fits=np.arange(k))
        inside.add(first, at.first)
        if self.response:
            inside.add_products(second, at.second, self.X)
            inside.add(limit, at.limit * 1.0)
        return _Sums(first, second, limit)

    def _add_column(self, total: Average, way: np.ndarray) -> None:
        """Add slopes along one direction (p,) of all rows' designs."""
        fits, sums = self.place.fits, self.sums
        change = (self.b if self.place.first is None else self.b[self.place.first_rows]) @ way
        total.value[fits] += sums.first * change
        total.gradient[fits] += sums.first[:, None] * way + change[:, None] * sums.second
        total.limit[fits] += sums.limit

    def add_differences(self, total: Average, high: Setting, low: Setting) -> None:
        """Add the mean of rows at one design less that at another."""
        above, below = self.curve(high), self.curve(low)
        self.place.add(total.value, above.mu - below.mu)
        self.place.add(total.limit, 1.0 * np.maximum(above.limit, below.limit))
        for sign, at, design in ((1.0, above, high), (-1.0, below, low)):
            shape = (*self.here.shape, design.X.shape[-1])
            X = design.X if self.here.all() else np.where(self.here[..., None], np.broadcast_to(design.X, shape), 0.0)
            self.place.add_products(total.gradient, sign * at.first, X)


def _dot(X: np.ndarray, b: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """X b of rows: each with coefficients of its own, (m, p), or rows of b fits, (b, n)."""
    if len(shape) == 1:
        return np.sum(X * b, axis=-1)
    if X.ndim == 3:
        return np.einsum("bnp,bp->bn", X, b)
    return np.broadcast_to((b @ X.T) if X.ndim == 2 else (b @ X)[:, None], shape)


def _eta(X: np.ndarray, b: np.ndarray, direction: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """X b of rows, infinite where the direction of a separated fit takes it there."""
    eta = _dot(X, b, shape)
    if not direction.any():
        return eta
    way = infinite_eta(X, direction if len(shape) == 1 else direction[:, None, :])
    return np.where(way == 0, eta, np.copysign(np.inf, way))
