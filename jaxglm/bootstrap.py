"""The bootstrap: rows, or clusters of rows, drawn again and again with replacement, and every fit made again each time.

A replicate is the same rows with other weights, as often as each was drawn; so all replicates of a fit share its design, and
those of many fits are one batch for `fitting.fit`. Where rows have frequencies, each of the rows that they stand for is drawn.
Draws depend on the seed and the place of the fit alone. Replicates without finite estimates of all terms, as of separated
draws, are left out, and counted.

The covariance is that of the replicates. Intervals are normal ones from it, percentiles of the replicates, or these shifted
and stretched for bias and skewness (BCa): with z0 = Phi^-1 of the share of replicates below the estimate and the acceleration
a = sum L^3 / (6 (sum L^2)^1.5), ends are the percentiles Phi(z0 + (z0 + z) / (1 - a (z0 + z))). L is how an estimate moves
with the weight of a row or cluster, H^-1 times its score, H the observed information. Between order statistics percentiles
are interpolated on the normal scale.

Sources: R's boot, `boot.ci`; Efron, Better bootstrap confidence intervals (1987); Davison and Hinkley, Bootstrap Methods and
their Application (1997), chapters 2 and 5; sandwich, `vcovBS`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy import special

from jaxglm.designs import HIGHEST
from jaxglm.family import Family
from jaxglm.fitting import fit
from jaxglm.irls.working import where_present, working
from jaxglm.leverage import Known, known, over_limits, whitened
from jaxglm.linalg import cholesky
from jaxglm.links import STATIC
from jaxglm.packing import Crossed, Picked, Stacked, gather, owners
from jaxglm.penalty import pulled
from jaxglm.rows import Rows, Totals, fold
from jaxglm.sandwich import clusters_of, scores_of, sums_by_cluster
from jaxglm.sorting import Order
from jaxglm.status import Status
from jaxglm.task import Task

INTERVALS = ("percentile", "bca", "normal")
BUDGET = 2**23  # weights of replicates at a time


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Bootstrap:
    """Replicates of g fits. coefficients: (g, R, p), NaN in replicates that were left out; acceleration: (g, p), None unless
    intervals are "bca"; intervals: which of `INTERVALS`."""

    coefficients: Any
    acceleration: Any
    intervals: str = field(metadata=STATIC)

    @property
    def counts(self) -> np.ndarray:
        """How many replicates have estimates, (g,)."""
        return np.sum(~np.isnan(self.coefficients).all(axis=2), axis=1)


@dataclass(frozen=True)
class Replicated:
    """Each group of a table again and again, with other weights: replicate j of group k of the table is group k R + j.

    rows: a table sorted by group; counts: (R, M), by what the weights of its rows are multiplied."""

    rows: Stacked
    counts: np.ndarray

    @property
    def p(self) -> int:
        return self.rows.p

    @property
    def sizes(self) -> np.ndarray:
        return np.repeat(self.rows.sizes, len(self.counts))

    def pick(self, groups: np.ndarray, positions: np.ndarray) -> Picked:
        group, replicate = np.divmod(groups, len(self.counts))
        picked = self.rows.pick(group, positions)
        return replace(picked, weights=picked.weights * self.counts[replicate, self.rows.starts[group] + positions])

    def only(self, columns: np.ndarray) -> Replicated:
        return replace(self, rows=self.rows.only(columns))


@dataclass(frozen=True)
class Units:
    """What is drawn of each fit. counts: (g,), how many; codes: of all rows, (N,) by fit, or (g, n), the unit of each row
    inside its fit, -1 where a row is not there; chances: None, or in the same shape of the rows (which then are the units)
    how often each is there."""

    counts: np.ndarray
    codes: np.ndarray
    chances: np.ndarray | None = None


def draw(units: Units, fit: int, inside: Any, generator: np.random.Generator, size: int) -> np.ndarray:
    """By what the weight of each row of a fit is multiplied, (size, n): how often it was drawn, over how often it is there;
    inside: where its rows are."""
    code, count = units.codes[inside], int(units.counts[fit])
    if units.chances is not None:
        chance = np.where(code >= 0, units.chances[inside], 0.0)
        total = chance.sum()
        drawn = generator.multinomial(round(total), chance / total, size)
        return drawn / np.where(chance > 0, chance, 1.0)
    drawn = generator.integers(0, count, (size, count))
    drawn += count * np.arange(size)[:, None]
    found = np.bincount(drawn.reshape(-1), minlength=size * count).reshape(size, count)
    return np.where(code >= 0, found[:, code], 0)


def replicates(task: Task, aliased: np.ndarray, fits: np.ndarray, units: Units, size: int, seed: Any) -> np.ndarray:
    """Coefficients (g, R, p) of `size` replicates of some fits, NaN for the others and where there are none. aliased:
    (g, p), the columns that are left out of every replicate."""
    out = np.full((len(aliased), size, aliased.shape[1]), np.nan)
    root = np.random.SeedSequence(seed)
    for part in _portions(task, fits, size):
        seeds = [np.random.SeedSequence(root.entropy, spawn_key=(int(k),)) for k in part]
        generators = [np.random.default_rng(seed) for seed in seeds]
        rows = _rows_of(task, part)
        step = max(1, BUDGET // max(1, sum(len(places) for places in rows)))
        for begin in range(0, size, step):
            now = min(step, size - begin)
            draws = zip(part, rows, generators, strict=True)
            counts = [draw(units, k, (k, places) if units.codes.ndim == 2 else places, one, now) for k, places, one in draws]
            out[part, begin : begin + now] = refitted(task, aliased, part, counts)
    return out


def _portions(task: Task, fits: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """Fits in portions whose replicates have not too many rows."""
    portion = np.cumsum(task.source.sizes[fits] * size) // BUDGET
    yield from (part for part in np.split(fits, np.flatnonzero(np.diff(portion)) + 1) if len(part))


def _rows_of(task: Task, fits: np.ndarray) -> list[np.ndarray]:
    """Where the rows of each fit are, in the order of the source."""
    source: Any = task.source
    if isinstance(source, Crossed):
        return [np.arange(source.X.shape[-2])] * len(fits)
    order = Order(source.order, source.starts, source.sizes)
    return [order.of_group(k) for k in fits]


def refitted(task: Task, aliased: np.ndarray, fits: np.ndarray, counts: list[np.ndarray]) -> np.ndarray:
    """Coefficients (b, R, p) of some fits, each made again with its rows' weights multiplied by each row of its counts (R, n),
    NaN where such a fit has no estimates of all columns that are not `aliased`, (g, p)."""
    size, source = len(counts[0]), task.source

    def repeated(values: Any, axes: int) -> Any:
        return values if values is None or np.ndim(values) == axes else np.repeat(np.asarray(values)[fits], size, axis=0)

    family = jax.tree.map(lambda leaf: repeated(leaf, 0), task.family)
    net = None if task.net is None else replace(task.net, strengths=repeated(task.net.strengths, 1))
    again = replace(task, family=family, penalty=repeated(task.penalty, 1), net=net, start=None, dtype=np.float64)
    left_out = aliased[fits]
    if isinstance(source, Crossed) and source.X.ndim == 2 and source.own is None and (left_out == left_out[0]).all():
        X = np.where(left_out[0], 0.0, source.X)
        weights = 1.0 if source.weights is None else repeated(source.weights, 1)
        weights = weights * np.concatenate(counts)
        rows: Any = Crossed(X, repeated(source.y, 1), weights, repeated(source.offset, 1), len(fits) * size)
    else:
        table = gather(source, fits)
        table = replace(table, X=np.where(left_out[owners(table)], 0.0, table.X))
        rows = Replicated(table, np.concatenate(counts, axis=1))
        if len(fits) == 1:
            rows = Crossed(table.X, table.y, table.weights * counts[0], table.offset, size)
    found = fit(replace(again, source=rows), limits=False)
    coefficients = found.coefficients.reshape(len(fits), size, -1)
    complete = (np.isfinite(coefficients) | left_out[:, None, :]).all(axis=2)
    complete &= found.status.reshape(len(fits), size) == Status.CONVERGED
    return np.where(complete[:, :, None] & ~left_out[:, None, :], coefficients, np.nan)


def units_of(result: Any, kinds: list[np.ndarray] | None) -> Units:
    """What is drawn of each fit of a `GLMResults`: its rows, or the clusters that codes tell, in the shape of the rows."""
    rows = result.observations
    frequent = kinds is None and rows.frequencies is not None
    clusters = clusters_of(rows, [np.arange(rows.shape[-1])] if kinds is None else kinds)
    counts = np.bincount(clusters.keys[0], minlength=rows.g)
    first = np.cumsum(counts) - counts
    codes = clusters.codes.reshape(rows.shape)
    codes = np.where(codes < 0, -1, codes - rows.by_row(first)).astype(np.int64)
    chances = np.broadcast_to(rows.frequencies, rows.shape) if frequent else None
    return Units(counts, codes, chances)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Moved:
    """How estimates move with the weights of rows: inverse: (p, p), of the observed information; squares, cubes: (p,), sums of
    the powers of what each row moves them by."""

    inverse: Any
    squares: Any
    cubes: Any


def influence(rows: Rows, family: Family, known: Known) -> Moved:
    """How the estimates of one fit move with the weights of its rows."""
    root = known.root

    def look(part: Rows) -> Totals:
        eta = where_present(family, part, part.eta(known.coefficients))
        weights = jnp.maximum(part.weights, 0.0) * family.observed_weight_at(part.y, eta)
        z = whitened(part, root)
        return Totals(jnp.matmul(z * weights, z.T, precision=HIGHEST))

    information = fold(rows, look).sums + jnp.matmul(root.T, pulled(known.penalty, root), precision=HIGHEST)
    inner = cholesky(information, 0.0).inverse()
    inverse = jnp.matmul(jnp.matmul(root, inner, precision=HIGHEST), root.T, precision=HIGHEST)

    def powers(part: Rows) -> Totals:
        scores = working(family, part, part.eta(known.coefficients)).scores
        moves = whitened(part, inverse) * scores
        return Totals((jnp.sum(moves**2, axis=1), jnp.sum(moves**3, axis=1)))

    return Moved(inverse, *fold(rows, powers).sums)


def acceleration(result: Any, kinds: list[np.ndarray] | None) -> np.ndarray:
    """a (g, p) of BCa intervals of a `GLMResults`, rows or clusters being drawn."""
    rows = result.observations
    moved = over_limits(influence, result, known(result))
    squares, cubes = moved.squares, moved.cubes
    if kinds is not None or rows.frequencies is not None:
        clusters = clusters_of(rows, [np.arange(rows.shape[-1])] if kinds is None else kinds)
        counts = np.ones(len(clusters))
        if kinds is None:  # each of the rows that a row stands for moves the estimates by itself
            there = clusters.codes >= 0
            counts[clusters.codes[there]] = np.broadcast_to(rows.frequencies, rows.shape).reshape(-1)[there]
        sums = sums_by_cluster(rows, scores_of(result), clusters) / counts[:, None]
        moves = (sums[:, None, :] @ moved.inverse[clusters.keys[0]])[:, 0]
        squares, cubes = (
            np.stack([np.bincount(clusters.keys[0], counts * column**power, rows.g) for column in moves.T], axis=1)
            for power in (2, 3)
        )
    with np.errstate(divide="ignore", invalid="ignore"):
        return cubes / (6.0 * squares**1.5)


def covariance(made: Bootstrap) -> np.ndarray:
    """(g, p, p): of the replicates that have estimates; NaN where there are fewer than two."""
    count = made.counts[:, None, None]
    there = np.isfinite(made.coefficients)
    center = np.where(there, made.coefficients, 0.0).sum(axis=1, keepdims=True) / np.maximum(count, 1)
    gaps = np.where(there, made.coefficients - center, 0.0)
    return np.where(count > 1, np.swapaxes(gaps, 1, 2) @ gaps / np.maximum(count - 1, 1), np.nan)


def require_enough(size: int, level: float, intervals: str) -> None:
    """Raise ValueError where so many replicates have no percentile as far out as the level asks for."""
    if intervals != "normal" and (size + 1) * (1.0 - level) / 2.0 < 1.0 - 1e-9:
        need = int(np.ceil(2.0 / (1.0 - level) - 1e-9)) - 1
        raise ValueError(
            f"{size} replicates are too few for {intervals} intervals at level {level}, which need at least {need}, and a "
            'thousand to be any good. Raise replicates=, or ask for intervals="normal"'
        )


def interval(made: Bootstrap, estimates: np.ndarray, level: float) -> np.ndarray:
    """(g, p, 2): percentile or BCa intervals around estimates (g, p). Raises ValueError for too few replicates."""
    require_enough(made.coefficients.shape[1], level, made.intervals)
    ordered, count = np.sort(made.coefficients, axis=1), made.counts[:, None]
    z = special.ndtri(np.array([0.5 - level / 2.0, 0.5 + level / 2.0]))
    shares = np.broadcast_to(special.ndtr(z), (*estimates.shape, 2))
    if made.intervals == "bca":
        with np.errstate(divide="ignore", invalid="ignore"):
            below = np.sum(made.coefficients < estimates[:, None, :], axis=1) / np.maximum(count, 1)
            shift = special.ndtri(below)[:, :, None]
            moved = shift + z
            shares = special.ndtr(shift + moved / (1.0 - made.acceleration[:, :, None] * moved))
        shares = np.where(np.isfinite(shift), shares, np.nan)
    return np.stack([percentile(ordered, count, shares[..., end]) for end in range(2)], axis=-1)


def percentile(ordered: np.ndarray, count: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Percentiles (g, p) at shares (g, p) of the first `count` (g, 1) of ordered values (g, R, p), as boot's `norm.inter`."""
    known, count = np.isfinite(shares) & (count > 0), np.maximum(count, 1)
    rank = np.where(known, (count + 1) * shares, 1.0)
    near = np.round(rank)
    rank = np.where(np.abs(rank - near) < 1e-9, near, rank)
    below = np.clip(np.floor(rank), 1, count).astype(np.int64)
    above = np.minimum(below + 1, count)
    low, high = (np.take_along_axis(ordered, place[:, None, :] - 1, axis=1)[:, 0] for place in (below, above))
    at, left, right = (special.ndtri(np.clip(k / (count + 1), 0.0, 1.0)) for k in (rank, below, above))
    inside = (rank > below) & (above > below)
    part = np.where(inside, (at - left) / np.where(inside, right - left, 1.0), 0.0)
    return np.where(known, low + part * (high - low), np.nan)
