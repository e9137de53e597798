"""A clustered sandwich, as a function of the rows of one fit, for `passes.over_marked`.

Where rows come cluster by cluster, with the cluster as their mark, the scores s x of one cluster are added up until the mark
changes, and then v v' is added to the meat, v being T' times the sum; see `sandwich`.
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
from jaxglm.passes import Marks
from jaxglm.rows import Rows, along
from jaxglm.sorting import Order, sort_rows, sort_within


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
class _Open:
    """The cluster whose rows are being added up: its mark, the sum of scores (p,), and whether one of its rows is there; and
    what the clusters before it have come to: their number, and the meat's lower triangle, row by row."""

    mark: Array
    sums: Array
    there: Array
    number: Array
    meat: Array


def sandwich(rows: Rows, family: Family, known: Known) -> Clustered:
    """The sandwich of one fit, of few rows at a time."""
    root, p = known.root, len(known.root)
    left, right = np.tril_indices(p)

    def closed(state: _Open) -> tuple[Array, Array]:
        v = jnp.matmul(root.T, state.sums, precision=HIGHEST)
        return state.number + state.there, state.meat + v[left] * v[right]

    def step(state: _Open, part: Rows) -> _Open:
        assert part.mark is not None
        row, x = working(family, part, part.eta(known.coefficients)), part.design.matrix()
        scores, there = jnp.where(part.present, row.scores, 0.0), jnp.where(part.present, 1.0, 0.0)
        for i in range(len(scores)):
            changes = part.mark[i] != state.mark
            number, meat = seldom(changes, partial(closed, state), (state.number, state.meat))
            own = scores[i] * x[i]
            state = _Open(
                mark=part.mark[i],
                sums=jnp.where(changes, own, state.sums + own),
                there=jnp.where(changes, there[i], jnp.maximum(state.there, there[i])),
                number=number,
                meat=meat,
            )
        return state

    zero = jnp.zeros((), root.dtype)
    none = _Open(zero - jnp.inf, jnp.zeros(p, root.dtype), zero, zero, jnp.zeros(len(left), root.dtype))
    number, meat = closed(along(rows, none, step))
    half = jnp.matmul(root, from_pairs(meat, p), precision=HIGHEST)
    around, bread = (jnp.matmul(part, root.T, precision=HIGHEST) for part in (half, root))
    return Clustered(around, bread, number)


def marks_of(rows: Observations, kinds: list[np.ndarray]) -> Marks:
    """The rows of every fit, cluster by cluster. kinds: codes of clusters that broadcast to the rows' shape; those of several
    kinds make a cluster of each combination."""
    if rows.codes is None:
        return _of_equal(rows, kinds)
    cluster = _combined(kinds)
    return Marks(cluster, sort_within(rows.codes, rows.g, cluster))


def labels_of(marks: Marks, rows: Observations, fits: np.ndarray) -> np.ndarray:
    """The marks of some fits' rows, one fit after the other, in the order in which `packing.gather` has them."""
    if rows.codes is None:
        return np.concatenate([np.broadcast_to(marks.mark, rows.shape)[fit] for fit in fits])
    order = sort_rows(rows.codes, rows.g)
    return marks.mark[np.concatenate([order.of_group(fit) for fit in fits])]


def count(marks: Marks, weights: np.ndarray, fit: int) -> int:
    """How many clusters of one fit have a row of positive weight. weights: in the rows' shape."""
    rows = marks.order.of_group(fit)
    mark = marks.mark if marks.mark.ndim == 1 else marks.mark[fit]
    there = (weights if weights.ndim == 1 else weights[fit])[rows] != 0
    return len(np.unique(mark[rows][there]))


def _of_equal(rows: Observations, kinds: list[np.ndarray]) -> Marks:
    """The same of fits with equally many rows."""
    g, n = rows.shape
    shape = (n,) if all(kind.ndim == 1 for kind in kinds) else (g, n)
    cluster = _combined([np.broadcast_to(kind, shape).reshape(-1) for kind in kinds]).reshape(shape)
    order = np.argsort(cluster, axis=-1, kind="stable").reshape(-1)
    return Marks(cluster, Order(order, np.arange(g) * (n if len(shape) == 2 else 0), np.full(g, n)))


def _combined(kinds: list[np.ndarray]) -> np.ndarray:
    """One code for each combination of clusters that occurs; those of clusters that are missing are one more of their kind."""
    codes = [np.where(kind < 0, kind.max(initial=-1) + 1, kind) if (kind < 0).any() else kind for kind in kinds]
    codes = [code.astype(np.int64, copy=False) for code in codes]
    if len(codes) == 1:
        return codes[0]
    levels = [np.arange(code.max(initial=0) + 1) for code in codes]
    return combine([f"kind_{i}" for i in range(len(codes))], levels, codes).codes
