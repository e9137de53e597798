"""Covariances that hold where the model's variance does not: heteroscedasticity-consistent and clustered.

With scores u_i = s_i x_i, the derivative of row i's log-likelihood at dispersion 1, and the bread B = (X'WX)^-1, the sandwich
is B M B. The meat M is the sum of u_i u_i' where rows are independent, each divided by a function of its hat value h_i:

| type | of u_i u_i' |
|---|---|
| HC0 | 1 |
| HC1 | n / (n - rank) |
| HC2 | 1 / (1 - h) |
| HC3 | 1 / (1 - h)^2 |
| HC4 | 1 / (1 - h)^min(4, n h / rank) |

and the sum of v_c v_c' over clusters, v_c being the sum of the scores in cluster c, where only clusters are: times C / (C - 1),
and for HC1 times (n - 1) / (n - rank). With clusters of several kinds at once, each kind's meat is added, that of each pair of
kinds taken off, that of each three added again, and so on. Everything is computed from T'x with T T' = B, see `leverage`. A
row of weight zero is not there; a fit's weights multiply its scores; frequencies stand for as many rows.

Sources: R's sandwich, `vcovHC` and `vcovCL`; Zeileis, Object-oriented computation of sandwich estimators (2006); Zeileis,
Köll and Graham, Various versatile variances (2020); Cribari-Neto, Asymptotic inference under heteroskedasticity (2004).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from scipy.sparse import csr_array

from jaxglm import cluster_sums, residuals
from jaxglm.cluster_sums import Clustered
from jaxglm.designs import HIGHEST
from jaxglm.family import Family
from jaxglm.groups import Groups, combine
from jaxglm.irls.solution import Solution, store
from jaxglm.irls.working import working
from jaxglm.leverage import Known, at_limits, known, over_limits, whitened
from jaxglm.limits import remaining
from jaxglm.observations import Observations, counted
from jaxglm.passes import Marks, over_fits, over_marked
from jaxglm.rows import Rows, Totals, fold
from jaxglm.sorting import sort_within
from jaxglm.status import Status

TYPES = ("HC0", "HC1", "HC2", "HC3", "HC4")
BY_HAT = TYPES[2:]  # which need hat values
PIECE = 2**11  # clusters worked on at a time, what fits into cache
FULL = 1.0 - 1e-10  # from this hat value on, a row says nothing of its own error: its residual is rounding


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Sandwich:
    """Of one fit, or with a leading axis of many. covariance, unscaled: (p, p), the sandwich and its bread; full: how many
    rows with a hat value of 1 there are."""

    covariance: Any
    unscaled: Any
    full: Any


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Meat:
    """Of one fit, or with a leading axis of many. meat: (p, p), of T'u; full: see `Sandwich`."""

    meat: Any
    full: Any


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Exponent:
    """What 1 - h is raised to, min(most, base + slope h): numbers, or (g,)."""

    most: Any
    base: Any
    slope: Any


@dataclass(frozen=True)
class Independent:
    """The sandwich of one fit whose rows are independent. by_hat: whether squares are divided by powers of 1 - h; copies:
    what says for how many equal rows each stands: nothing, its "weights", or the "first" column."""

    by_hat: bool
    copies: str = ""

    def __call__(self, rows: Rows, family: Family, at: tuple[Known, Exponent]) -> Sandwich:
        known, exponent = at
        root = known.root

        def look(part: Rows) -> Totals:
            row = working(family, part, part.eta(known.coefficients))
            count = self._count(part)
            z, squares, full = whitened(part, root), row.scores * (row.scores / count), jnp.zeros((), jnp.int32)
            if self.by_hat:
                hat = row.weights / count * jnp.sum(z * z, axis=0)
                left = jnp.maximum(1.0 - hat, 1.0 - FULL)
                squares /= left ** jnp.minimum(exponent.most, exponent.base + exponent.slope * hat)
                full = jnp.sum(hat > FULL, dtype=jnp.int32)
            return Totals(Meat(jnp.matmul(z * squares, z.T, precision=HIGHEST), full))

        found = fold(rows, look).sums
        half = jnp.matmul(root, found.meat, precision=HIGHEST)
        around, bread = (jnp.matmul(left, root.T, precision=HIGHEST) for left in (half, root))
        return Sandwich(around, bread, found.full)

    def _count(self, part: Rows) -> Array | float:
        if not self.copies:
            return 1.0
        return jnp.where(part.present, part.weights if self.copies == "weights" else part.design.matrix()[:, 0], 1.0)


def independent(result: Any, type: str) -> Sandwich:
    """The sandwiches of all fits of a `GLMResults`, rows being independent."""
    at = known(result)
    most, base = {"HC2": (1.0, 1.0), "HC3": (2.0, 2.0), "HC4": (4.0, 0.0)}.get(type, (0.0, 0.0))
    slope = at.n_obs / np.maximum(at.rank, 1.0) if type == "HC4" else np.zeros(len(result))
    exponent = Exponent(np.full(len(result), most), np.full(len(result), base), slope)
    found = _independent(result, at, exponent, type in BY_HAT)
    if type == "HC1":
        found.covariance[:] *= _ratio(at.n_obs, at.n_obs - at.rank)[:, None, None]
    return found


def _independent(result: Any, known: Known, exponent: Exponent, by_hat: bool) -> Sandwich:
    rows = result.observations
    if rows.frequencies is None:
        return cast(Sandwich, over_limits(Independent(by_hat), result, (known, exponent)))
    if rows.codes is None or np.array_equal(rows.frequencies, rows.weights):
        return cast(Sandwich, over_limits(Independent(by_hat, "weights"), result, (known, exponent)))
    # Rows are trials as well: their frequencies go along as a column without a coefficient.
    task = at_limits(result)
    source: Any = task.source
    X = np.column_stack([rows.frequencies, source.X])
    padded = jax.tree.map(lambda leaf: np.pad(leaf, [(0, 0)] + [(1, 0)] * (leaf.ndim - 1)), known)
    found = over_fits(Independent(by_hat, "first"), replace(task, source=replace(source, X=X)), (padded, exponent))
    return replace(found, covariance=found.covariance[:, 1:, 1:], unscaled=found.unscaled[:, 1:, 1:])


def clustered(result: Any, kinds: list[np.ndarray], correction: str, cadjust: bool) -> Clustered:
    """The sandwiches of all fits of a `GLMResults`, only clusters being independent; where there are several kinds, n_clusters
    is the fewest. kinds: codes of the clusters in the shape of the rows, one array a kind; correction: "HC0" or "HC1";
    cadjust: whether to multiply by C / (C - 1)."""
    at, total = known(result), None
    for size in range(1, len(kinds) + 1):
        for chosen in combinations(kinds, size):
            one = _by_marks(result, at, list(chosen)) or _by_cluster(result, at, list(chosen))
            if cadjust:
                one.covariance[:] *= _ratio(one.n_clusters, one.n_clusters - 1)[:, None, None]
            if total is None:
                total = one
            else:
                total.covariance[:] += one.covariance if size % 2 else -one.covariance
                total.n_clusters[:] = np.minimum(total.n_clusters, one.n_clusters)
    assert total is not None
    if correction == "HC1":
        total.covariance[:] *= _ratio(at.n_obs - 1, at.n_obs - at.rank)[:, None, None]
    return total


def _by_marks(result: Any, at: Known, kinds: list[np.ndarray]) -> Clustered | None:
    """What `cluster_sums` finds in a pass; None where there can be none."""
    rows, separated = result._rows(), result.solution.direction.any(axis=1)
    one, marks = cluster_sums.marks_of(rows, kinds)
    found: Clustered | None = over_marked(one, result.task, at, marks, ~separated)
    if found is None or not separated.any():
        return found
    # Rows at their limits say nothing, but clusters of them are clusters.
    apart = np.flatnonzero(separated)
    rest, sizes = remaining(result.task, result.solution, apart), result.task.source.sizes[apart]
    labels, weights = cluster_sums.of_fits(rows, apart, marks.mark, rows.prior_weights())
    order = None if marks.order is None else sort_within(np.repeat(np.arange(len(apart)), sizes), len(apart), labels)
    more = over_marked(one, rest, jax.tree.map(lambda leaf: leaf[apart], at), Marks(labels, order), apart >= 0)
    if more is None:
        return None
    store(found, apart, more)
    found.n_clusters[apart] = cluster_sums.count(labels, weights, sizes)
    return found


def _by_cluster(result: Any, at: Known, kinds: list[np.ndarray]) -> Clustered:
    """What `cluster_sums` finds, from sums over the rows of each cluster."""
    rows = result._rows()
    clusters = clusters_of(rows, kinds)
    sums = sums_by_cluster(rows, scores_of(result), clusters)
    counts = np.bincount(clusters.keys[0], minlength=len(result)).astype(float)
    transposed = np.swapaxes(at.root, 1, 2)
    meat = products(sums, at.root, clusters.keys[0])
    return Clustered(at.root @ meat @ transposed, at.root @ transposed, counts)


def scores_of(result: Any) -> np.ndarray:
    """s of every row of a `GLMResults`, weights included, in the shape of the rows."""
    rows, solution = result.observations, result.solution
    if solution.direction.any():
        eta = result._eta()
    else:
        b, eta = counted(solution), np.zeros(rows.shape) if rows.offset is None else rows.rows(rows.offset, 0.0).copy()
        for part, X in rows.pieces():
            coefficients = b[part, :, None] if rows.codes is None else b[rows.codes[part]]
            eta[part] += (X @ coefficients)[..., 0] if rows.codes is None else np.einsum("np,np->n", X, coefficients)
    return residuals.scores(rows.family(result.family), rows.rows(rows.y, 0.0), rows.prior_weights(), eta)


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    return above / np.where(below > 0, below, np.nan)


def clusters_of(rows: Observations, kinds: list[np.ndarray]) -> Groups:
    """The combinations of fit and cluster (of each of the kinds) that occur; codes: of all rows, flat, -1 where one is not
    there; keys[0]: the fit of each cluster."""
    fits = np.arange(rows.g)[:, None] if rows.codes is None else rows.codes
    there = (rows.prior_weights() != 0) & (fits >= 0)
    codes = [np.where(there, np.broadcast_to(code, rows.shape), -1).reshape(-1) for code in (fits, *kinds)]
    names = ["fit", *(f"kind_{i}" for i in range(len(kinds)))]
    return combine(names, [np.arange(code.max(initial=-1) + 1) for code in codes], codes)


def sums_by_cluster(rows: Observations, scores: np.ndarray, clusters: Groups) -> np.ndarray:
    """The sums of s x over the rows of each cluster, (C, p)."""
    codes = clusters.codes.reshape(rows.shape)
    out = np.zeros((len(clusters), rows.X.shape[-1] + (rows.own is not None)))
    for part, X in rows.pieces():
        code, score, X = codes[part].reshape(-1), scores[part].reshape(-1), X.reshape(-1, out.shape[1])
        inside = code >= 0
        if not inside.any():
            continue
        code, score, X = (values if inside.all() else values[inside] for values in (code, score, X))
        first, last = code.min(), code.max()
        by_row = csr_array((score, code - first, np.arange(len(code) + 1)), shape=(len(code), last - first + 1))
        out[first : last + 1] += by_row.T @ X
    return out


def products(sums: np.ndarray, root: np.ndarray, fits: np.ndarray) -> np.ndarray:
    """The sum of v v' over the clusters of each fit, (g, p, p), where v = T's for its sum of scores s, (C, p). fits: (C,),
    the fit of each cluster, sorted."""
    out = np.zeros_like(root)
    for begin in range(0, len(sums), PIECE):
        fit = fits[begin : begin + PIECE]
        v = np.matmul(sums[begin : begin + PIECE, None, :], root[fit])
        first = np.flatnonzero(np.diff(fit, prepend=-1))
        out[fit[first]] += np.add.reduceat(np.swapaxes(v, 1, 2) * v, first, axis=0)
    return out


def put(result: Any, covariance: np.ndarray, unscaled: np.ndarray, type: str, degrees: np.ndarray | None) -> Any:
    """The result with another covariance, NaN where terms have no variance: aliased, infinite, of fits without estimates."""
    solution = result.solution
    known = np.isfinite(solution.coefficients) & (solution.infinite == 0)
    has = has_estimates(solution)[:, None] & known
    if not has.all():
        covariance = np.where(has[:, :, None] & has[:, None, :], covariance, np.nan)
    solution = replace(solution, covariance=covariance)
    return replace(result, solution=solution, covariance_type=type, degrees=degrees, unscaled=unscaled, bootstrapped=None)


def has_estimates(solution: Solution) -> np.ndarray:
    """Which fits have estimates with errors, at least of some terms, (g,)."""
    return (solution.status == Status.CONVERGED) | (solution.status == Status.SEPARATED)
