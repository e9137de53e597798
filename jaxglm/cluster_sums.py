"""A clustered sandwich, as a function of the rows of one fit, for `passes.over_marked`.

The cluster of a row is its mark. The meat is the sum of v v' over clusters, v being T' times the sum of the cluster's scores
s x; see `sandwich`. Of `FewClusters`, the sums of all are kept at once, and rows come in any order. Where clusters are many, or
one short order of rows serves all fits, rows are sorted by them first, and in `sandwich` scores are added up until the mark
changes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxglm.designs import HIGHEST, from_pairs
from jaxglm.family import Family
from jaxglm.groups import combine
from jaxglm.irls.seldom import seldom
from jaxglm.irls.working import working
from jaxglm.leverage import Known
from jaxglm.observations import Observations
from jaxglm.passes import Marks, Pass
from jaxglm.rows import Rows, Totals, along, fold
from jaxglm.sorting import Order, sort_rows, sort_within

FEW = 160  # sums, one for each cluster and column, that are kept at once
NEAR = 512  # numbers of a fit's rows, up to which these are read as fast in any order, and so are sorted
STEP = 4  # numbers of clusters are rounded up to a multiple of it, so that one program serves several


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Clustered:
    """Of one fit, or with a leading axis of many. covariance, unscaled: (p, p), the sandwich and its bread; n_clusters: how
    many clusters have a row that is there."""

    covariance: Any
    unscaled: Any
    n_clusters: Any


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class _Closed:
    """What clusters whose rows are added up have come to. number: of them; meat: its lower triangle, row by row."""

    number: Array
    meat: Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class _Open:
    """The cluster whose rows are being added up: its mark, the sum of scores (p,), and whether one of its rows is there; and
    the clusters before it."""

    mark: Array
    sums: Array
    there: Array
    before: _Closed


@dataclass(frozen=True)
class FewClusters:
    """The sandwich of one fit whose rows have marks below `count`, in any order."""

    count: int

    def __call__(self, rows: Rows, family: Family, known: Known) -> Clustered:
        def look(part: Rows) -> Totals:
            assert part.mark is not None
            inside = part.mark == jnp.arange(self.count, dtype=part.y.dtype)[:, None]
            weights = jnp.matmul(jnp.where(inside, 1.0, 0.0), part.weights, precision=HIGHEST)
            scores = jnp.where(inside, _scores(part, family, known), 0.0)
            return Totals((jnp.matmul(scores, part.design.matrix(), precision=HIGHEST), weights))

        sums, weights = fold(rows, look).sums
        v = jnp.matmul(sums, known.root, precision=HIGHEST)
        return _sandwich(known.root, jnp.matmul(v.T, v, precision=HIGHEST), jnp.sum(jnp.where(weights > 0, 1.0, 0.0)))


def sandwich(rows: Rows, family: Family, known: Known) -> Clustered:
    """The sandwich of one fit whose rows come cluster by cluster, of few rows at a time."""
    root, p = known.root, len(known.root)
    left, right = np.tril_indices(p)

    def closed(state: _Open) -> _Closed:
        v = jnp.matmul(root.T, state.sums, precision=HIGHEST)
        return _Closed(state.before.number + state.there, state.before.meat + v[left] * v[right])

    def step(state: _Open, part: Rows) -> _Open:
        assert part.mark is not None
        scores, there = _scores(part, family, known), jnp.where(part.present, 1.0, 0.0)
        x = part.design.matrix()
        for i in range(len(scores)):
            changes = part.mark[i] != state.mark
            before = seldom(changes, partial(closed, state), state.before)
            own = scores[i] * x[i]
            state = _Open(
                mark=part.mark[i],
                sums=jnp.where(changes, own, state.sums + own),
                there=jnp.where(changes, there[i], jnp.maximum(state.there, there[i])),
                before=before,
            )
        return state

    zero = jnp.zeros((), root.dtype)
    nothing = _Closed(zero, jnp.zeros(len(left), root.dtype))
    found = closed(along(rows, _Open(zero - jnp.inf, jnp.zeros(p, root.dtype), zero, nothing), step))
    return _sandwich(root, from_pairs(found.meat, p), found.number)


def _scores(part: Rows, family: Family, known: Known) -> Array:
    """s of some rows, zero where a row is absent."""
    return jnp.where(part.present, working(family, part, part.eta(known.coefficients)).scores, 0.0)


def _sandwich(root: Array, meat: Array, number: Array) -> Clustered:
    half = jnp.matmul(root, meat, precision=HIGHEST)
    around, bread = (jnp.matmul(part, root.T, precision=HIGHEST) for part in (half, root))
    return Clustered(around, bread, number)


def marks_of(rows: Observations, kinds: list[np.ndarray]) -> tuple[Pass, Marks]:
    """What to ask of the rows of every fit, and their marks. kinds: codes of clusters that broadcast to the rows' shape; those
    of several kinds make a cluster of each combination."""
    cluster = _combined(kinds) if rows.codes is not None else _of_equal(rows, kinds)
    count = STEP * (int(cluster.max(initial=0)) // STEP + 1)
    p = rows.X.shape[-1] + (rows.own is not None)
    small = rows.codes is None and cluster.ndim == 1 and len(cluster) * p <= NEAR  # one short order for all fits
    if count * p <= FEW and not small:
        return FewClusters(count), Marks(cluster)
    if rows.codes is not None:
        return sandwich, Marks(cluster, sort_within(rows.codes, rows.g, cluster))
    (g, n), order = rows.shape, np.argsort(cluster, axis=-1, kind="stable").reshape(-1)
    return sandwich, Marks(cluster, Order(order, np.arange(g) * (n if cluster.ndim == 2 else 0), np.full(g, n)))


def of_fits(rows: Observations, fits: np.ndarray, *values: np.ndarray) -> list[np.ndarray]:
    """Values of some fits' rows, one fit after the other, in the order in which `packing.gather` has them. values: each in the
    shape of the rows, or (n,) for all fits."""
    if rows.codes is None:
        return [np.broadcast_to(each, rows.shape)[fits].reshape(-1) for each in values]
    order = sort_rows(rows.codes, rows.g)
    index = np.concatenate([order.of_group(fit) for fit in fits])
    return [each[index] for each in values]


def count(clusters: np.ndarray, weights: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """How many clusters of each fit have a row of positive weight, (k,). clusters, weights: of the rows of one fit after the
    other; sizes: (k,), of their rows."""
    there, most = weights != 0, int(clusters.max(initial=0)) + 1
    owner = np.repeat(np.arange(len(sizes)), sizes)
    return np.bincount(np.unique(owner[there] * most + clusters[there]) // most, minlength=len(sizes))


def _of_equal(rows: Observations, kinds: list[np.ndarray]) -> np.ndarray:
    """The clusters of fits with equally many rows, (n,) where they are the same for all, else (g, n)."""
    shape = rows.shape[1:] if all(kind.ndim == 1 for kind in kinds) else rows.shape
    return _combined([np.broadcast_to(kind, shape).reshape(-1) for kind in kinds]).reshape(shape)


def _combined(kinds: list[np.ndarray]) -> np.ndarray:
    """One code for each combination of clusters that occurs; those of clusters that are missing are one more of their kind."""
    codes = [np.where(kind < 0, kind.max(initial=-1) + 1, kind) if (kind < 0).any() else kind for kind in kinds]
    codes = [code.astype(np.int64, copy=False) for code in codes]
    if len(codes) == 1:
        return codes[0]
    levels = [np.arange(code.max(initial=0) + 1) for code in codes]
    return combine([f"kind_{i}" for i in range(len(codes))], levels, codes).codes
