"""A pass over the rows of all fits, whose coefficients are known by now: what comes after fitting and needs the rows.

What is asked of one fit's rows is a pure function of one fit, like all of the core, and `over_fits` maps it over the fits of
any source, by lanes of a CPU or in the same blocks and the same threads as fitting, so that memory stays bounded.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxglm.aligned import placed
from jaxglm.calls import arithmetic, calls_of
from jaxglm.designs import Dense
from jaxglm.devices import default_device
from jaxglm.family import Family
from jaxglm.fitting import fits_in_a_call
from jaxglm.irls import lanes
from jaxglm.irls.blocks import CACHE, FEWEST_SHARED, MEMORY
from jaxglm.irls.options import IRLS
from jaxglm.irls.problem import typed
from jaxglm.irls.ragged import over_blocks
from jaxglm.packing import EMPTY, Call, Crossed, lane_rows, per_lane, tiles
from jaxglm.rows import Rows
from jaxglm.sorting import Order
from jaxglm.task import Task
from jaxglm.threads import in_threads

Pass = Callable[[Rows, Family, Any], Any]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class _Lane:
    """What is known of each fit besides its rows."""

    family: Family
    known: Any


def over_fits(one: Pass, task: Task, known: Any, which: np.ndarray | None = None) -> Any:
    """What `one` says of every fit, or of those `which` (g,): a pytree of NumPy arrays (g, ...), zero for others, and for fits
    without rows.

    one(rows, family, known): a pure function of a fit's prepared rows (`rows.Rows`, to be summed over by `rows.fold`), its
    family, and its part of `known`, to arrays; it must be hashable, such as a function of a module or a frozen dataclass, and
    is compiled once. known: a pytree of arrays (g, ...), float64. All arithmetic is float64.
    """
    groups = np.flatnonzero(task.source.sizes > 0 if which is None else which & (task.source.sizes > 0))
    with arithmetic(task.device):
        found = _by_lanes(one, task, known, groups, lane_rows(task.source))
        if found is not None:
            return found
        if isinstance(task.source, Crossed):
            size = fits_in_a_call(task.source, len(groups), default_device()) if len(groups) else 1
            parts = [groups[begin : begin + size] for begin in range(0, len(groups), size)]
            found = in_threads(partial(_crossed, one, task, known, size), parts, task.device)
        else:
            calls = calls_of(task, groups, True)
            parts = [call.members for call in calls]
            found = in_threads(partial(_ragged, one, task, known), calls, task.device)
        return _joined(one, task, known, zip(parts, found, strict=True))


@dataclass(frozen=True)
class Marks:
    """Marks of rows, and the order in which a pass goes along the rows of each fit. mark: in the shape of the rows, or (n,) for
    all fits; order: of rows of one table or of each fit's own, None for that of the source."""

    mark: np.ndarray
    order: Order | None = None


def over_marked(one: Pass, task: Task, known: Any, marks: Marks, which: np.ndarray) -> Any:
    """What `one` says of the fits flagged by `which` (g,), whose rows have marks, in their order; None where no lanes of a CPU
    can do it."""
    rows, order = lane_rows(task.source), marks.order
    if rows is None:
        return None
    if order is not None:
        if rows.shared and order.starts.any():
            return None
        X = rows.X[order.index] if rows.shared and order.index is not None else rows.X
        rows = replace(rows, X=X, order=order.index, starts=order.starts, sizes=order.sizes)
    with arithmetic(task.device):
        return _by_lanes(one, task, known, np.flatnonzero(which & (rows.sizes > 0)), replace(rows, mark=marks.mark))


def _by_lanes(one: Pass, task: Task, known: Any, groups: np.ndarray, rows: lanes.Rows | None) -> Any:
    """The same by lanes of a CPU; None where these cannot."""
    if rows is None or not len(groups):
        return None
    job = lanes.Job(rows, task.family, None, None, IRLS(), np.dtype(np.float64), one=one, known=known)
    if not lanes.fits(job, rows.sizes[groups]).all() or lanes.available(job, default_device()):
        return None
    return lanes.ask(job, groups)


def _joined(one: Pass, task: Task, known: Any, found: Any) -> Any:
    """The results of all parts, each in the places of its fits."""
    g, out = len(task.source.sizes), None
    for members, values in found:
        if out is None:
            out = jax.tree.map(lambda leaf: np.zeros((g, *leaf.shape[1:]), leaf.dtype), values)
        jax.tree.map(lambda whole, leaf: whole.__setitem__(members, leaf), out, values)  # noqa: B023
    if out is not None:
        return out
    row = jnp.zeros(1)
    rows, family = Rows(Dense(jnp.zeros((task.source.p, 1))), row, row, row), jax.tree.map(lambda leaf: row[0], task.family)
    shapes = jax.eval_shape(one, rows, family, jax.tree.map(lambda leaf: np.zeros(leaf.shape[1:], leaf.dtype), known))
    return jax.tree.map(lambda leaf: np.zeros((g, *leaf.shape), leaf.dtype), shapes)


def _of(known: Any, index: Any) -> Any:
    """The part of `known` of some fits."""
    return jax.tree.map(lambda leaf: leaf[index], known)


def _ragged(one: Pass, task: Task, known: Any, call: Call) -> Any:
    """Of the groups of a call."""
    with arithmetic(task.device):
        family = jax.tree.map(lambda leaf: per_lane(np.asarray(leaf, np.float64), call, 0), task.family)
        own = _of(known, np.maximum(call.groups, 0))
        found = _over_tiles(one, tiles(task.source, call, np.float64, scaled=False), _Lane(family, own))
        used = call.groups[: call.n_blocks] != EMPTY
        return jax.tree.map(lambda leaf: np.asarray(leaf)[: call.n_blocks][used], found)


@partial(jax.jit, static_argnums=0)
def _over_tiles(one: Pass, packed: Any, lanes: _Lane) -> Any:
    def fit(rows: Rows, lane: _Lane, scale: Array) -> Any:
        return one(rows, lane.family, lane.known)

    return over_blocks(fit, packed, lanes.family, lanes)


def _crossed(one: Pass, task: Task, known: Any, size: int, members: np.ndarray) -> Any:
    """Of some members of a source of fits with equally many rows, in a call of `size` fits."""
    source = task.source
    assert isinstance(source, Crossed)
    index = np.concatenate([members, np.full(size - len(members), members[0])])
    if members[-1] - members[0] == size - 1:
        index = slice(members[0], members[0] + size)  # type: ignore[assignment]  # a view, not a copy

    def part(values: Any, axes: int) -> Any:
        return None if values is None else placed(values if np.ndim(values) == axes else values[index], np.float64)

    X = part(source.X, 2)
    if not np.isfinite(X).all():  # rows of weight zero may hold anything; a fit with another is invalid
        X = np.where(np.isfinite(X), X, 0.0)
    weights = part(np.ones(X.shape[-2]) if source.weights is None else source.weights, 1)
    own = None
    if source.own is not None:
        own, weights = np.nan_to_num(source.own.numbers(index)), source.own.weights(weights, index)
    family = typed(jax.tree.map(lambda leaf: part(leaf, 0), task.family), np.float64)
    budget = (CACHE if default_device().platform == "cpu" else MEMORY) // (X.shape[-2] * (source.p + 1))
    lanes = max(1, min(size, max(1 if X.ndim == 3 else FEWEST_SHARED, budget)))
    arrays = (X, own, part(source.y, 1), weights, part(source.offset, 1))
    with arithmetic(task.device):
        found = _over_crossed(one, size, lanes, arrays, family, _of(known, index))
        return jax.tree.map(lambda leaf: np.asarray(leaf)[: len(members)], found)


@partial(jax.jit, static_argnums=(0, 1, 2))
def _over_crossed(one: Pass, size: int, lanes: int, arrays: Any, family: Family, known: Any) -> Any:
    X, own, y, weights, offset = arrays

    def fit(k: Array) -> Any:
        def row(values: Any) -> Any:
            return values if values is None or values.ndim == 1 else values[k]

        columns = (X if X.ndim == 2 else X[k]).T
        columns = columns if own is None else jnp.concatenate([columns, own[k][None, :]])
        model = jax.tree.map(lambda leaf: leaf if leaf.ndim == 0 else leaf[k], family)
        rows = Rows(Dense(columns), row(y), row(weights), row(offset)).prepared(model, jnp.zeros(columns.shape[1], bool))
        return one(rows, model, jax.tree.map(lambda leaf: leaf[k], known))

    return jax.lax.map(fit, jnp.arange(size), batch_size=lanes)
