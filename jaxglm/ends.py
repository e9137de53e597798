"""Rows of separated groups, row by row: where their likelihood has its infinite end, and what they add there.

Families and links are evaluated here for as many rows as the separated groups of a call happen to have: by lanes where these
are, and otherwise by one program for each function, for which rows are padded to a power of two.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxglm.aligned import empty
from jaxglm.devices import default_device
from jaxglm.families import Gaussian
from jaxglm.family import Family
from jaxglm.irls import lanes
from jaxglm.irls.edge import edge_of
from jaxglm.irls.loop import toward_infinity
from jaxglm.irls.options import IRLS
from jaxglm.irls.problem import typed
from jaxglm.irls.seldom import by_row
from jaxglm.packing import Stacked, owners
from jaxglm.rows import HARMLESS

FEWEST = 256  # rows that a program evaluates, at least
MANY = 256  # rows, from which on it is worth sorting them into kinds
TOGETHER = 16  # rows that are one fit to lanes


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Ends:
    """What rows at an infinite eta add to the deviance and to Pearson's statistic, (n,) of rows or (g,) of groups. Nothing
    where they are fitted perfectly, as in all families but those whose responses may lie beyond the means of their
    link."""

    deviance: Any
    chi_square: Any


def sides(family: Family, rows: Stacked) -> np.ndarray:
    """The sign of every row's infinite optimum, 0 where it is finite. family: of the groups of `rows`."""
    present = np.asarray(rows.weights > 0)
    return np.where(present, _of_rows(toward_infinity, family, owners(rows), np.where(present, rows.y, HARMLESS)), 0.0)


def ends(family: Family, rows: Stacked, which: np.ndarray) -> Ends:
    """What those rows that are flagged by `which` (n,) add to their groups, (g,), when their means are at their ends."""
    index = np.flatnonzero(which)
    owner, weights = owners(rows)[index], rows.weights[index]
    found = _of_rows(_ends, family, owner, rows.y[index])
    return jax.tree.map(lambda values: _summed(rows, owner, values, weights), found)


def log_likelihoods(family: Family, rows: Stacked, which: np.ndarray, eta: np.ndarray, dispersion: np.ndarray) -> np.ndarray:
    """The log-likelihoods (g,) of those rows that are flagged by `which` (n,) at eta (n,); dispersion: (g,)."""
    index = np.flatnonzero(which)
    owner = owners(rows)[index]
    found = _of_rows(_log_likelihoods, family, owner, rows.y[index], eta[index], rows.weights[index], dispersion[owner])
    return _summed(rows, owner, found)


def _summed(rows: Stacked, owner: np.ndarray, values: np.ndarray, weights: np.ndarray | float = 1.0) -> np.ndarray:
    """The sums (g,) of values of rows that have these owners; these are zero as a rule."""
    g = len(rows.sizes)
    return np.bincount(owner, weights * values, g) if values.any() else np.zeros(g)


def _ends(family: Family, y: Array) -> Ends:
    mean = family.link.mean(toward_infinity(family, y) * jnp.inf)
    left = y != mean.mu
    return Ends(
        jnp.where(left, family.unit_deviance_at(y, mean), 0.0),
        jnp.where(left, (y - mean.mu) ** 2 / family.variance_at(mean.mu), 0.0),
    )


def _log_likelihoods(family: Family, y: Array, eta: Array, weights: Array, dispersion: Array) -> Array:
    return family.log_likelihood_at(y, family.link.mean(eta), weights, dispersion)


def _of_rows(function: Callable[..., Any], family: Family, owner: np.ndarray, *values: np.ndarray) -> Any:
    """`function` of each row's family and values, as NumPy arrays; of many rows that are of a few kinds, it is asked once a
    kind. owner: (n,), the rows' groups."""
    family = jax.tree.map(np.asarray, family)
    apart = len(owner) < MANY or any(leaf.ndim for leaf in jax.tree.leaves(family))
    kinds = None if apart else _kinds([np.asarray(value, np.float64) for value in values])
    if kinds is None:
        return _of_each(function, family, owner, *values)
    found = _of_each(function, family, np.zeros(len(kinds.values[0]), np.int64), *kinds.values)
    return jax.tree.map(lambda leaf: leaf[kinds.kind], found)


@dataclass(frozen=True)
class _Kinds:
    """Rows that are of a few kinds. values: of each kind, arrays (k,); kind: (n,), of each row."""

    values: list[np.ndarray]
    kind: np.ndarray


def _kinds(values: list[np.ndarray]) -> _Kinds | None:
    """The kinds of rows whose values are one of two each, as those of separated rows often are; None if they are not."""
    kind, apart = np.zeros(len(values[0]), np.int64), list[tuple[Any, ...]]()
    for value in values:
        low, high = value.min(), value.max()
        if low == high:
            apart.append((low,))
            continue
        at_high = value == high
        if not (at_high | (value == low)).all():
            return None
        kind += kind
        kind += at_high
        apart.append((low, high))
    made = np.array(list(itertools.product(*apart)))
    return _Kinds(list(made.T), kind)


def _of_each(function: Callable[..., Any], family: Family, owner: np.ndarray, *values: np.ndarray) -> Any:
    """`_of_rows`, evaluated for every row."""
    n = len(owner)

    def filled(room: int) -> tuple[Family, list[np.ndarray]]:
        return family.of(np.append(owner, np.zeros(room - n, np.int64))), [_padded(value, room) for value in values]

    job = _asked(function, *filled(-(-n // TOGETHER) * TOGETHER))
    if n and lanes.available(job, default_device()) is None:
        found = lanes.ask(job, np.arange(len(job.rows.sizes)))
    else:
        of_row, padded = filled(max(FEWEST, 1 << max(n - 1, 0).bit_length()))
        found = _evaluate(function, typed(of_row, np.float64), *padded)
    return jax.tree.map(lambda leaf: np.asarray(leaf).reshape(-1)[:n], found)


@dataclass(frozen=True)
class _Rows:
    """A function of rows as one of a fit that knows them: its own rows do not matter."""

    function: Callable[..., Any]

    def __call__(self, rows: Any, family: Any, known: tuple[Family, list[Array]]) -> Any:
        return by_row(self.function)(known[0], *known[1])


def _asked(function: Callable[..., Any], of_row: Family, values: list[np.ndarray]) -> lanes.Job:
    """Fits that are asked what `function` says of rows (n,), each of some of them."""
    n = len(values[0])
    g = n // TOGETHER
    known = jax.tree.map(lambda leaf: np.broadcast_to(leaf, n).reshape(g, TOGETHER), (of_row, values))
    none = lanes.Rows(np.zeros((1, 1)), np.zeros(1), None, None, np.zeros(g, np.int64), np.ones(g, np.int64))
    return lanes.Job(none, Gaussian(), None, None, IRLS(), np.float64, one=_Rows(function), known=known)


def _padded(values: np.ndarray, room: int) -> np.ndarray:
    out = empty((room,), np.float64)
    out[: len(values)], out[len(values) :] = values, HARMLESS
    return out


@partial(jax.jit, static_argnums=0)
def _evaluate(function: Callable[..., Any], family: Family, *values: Array) -> Any:
    return function(family, *values)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class AtEdge:
    """Of each row, (n,): the `side` of its edge (`irls.edge`); its `slack`; its score and expected weight, prior weight
    included."""

    side: Any
    slack: Any
    score: Any
    weight: Any


def at_edges(family: Family, rows: Stacked, eta: np.ndarray, mean_response: np.ndarray) -> AtEdge:
    """How rows at eta (n,) stand to their edges; mean_response: of the groups. Absent rows have no edge, score or weight."""
    present = rows.weights > 0
    y, weights = np.where(present, rows.y, HARMLESS), np.where(present, rows.weights, 0.0)
    safe = np.where(present, eta, np.asarray(family.link(HARMLESS)) if not family.link.parameters else 0.5)
    owner = owners(rows)
    found = _of_rows(_at_edge, family, owner, y, safe, weights, mean_response[owner])
    return jax.tree.map(lambda leaf: np.where(present, leaf, 0.0), found)


def _at_edge(family: Family, y: Array, eta: Array, weights: Array, mean_response: Array) -> AtEdge:
    edge, mean = edge_of(family, y, mean_response), family.link.mean(eta)
    return AtEdge(edge.side, edge.slack(eta), weights * family.score_at(y, mean), weights * family.weight_at(mean))
