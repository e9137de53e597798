"""Ragged groups by fused kernels.

Where a GPU can run them, kernels take the steps of the plain pass, for all groups of a call in one launch: groups lie in
tiles sorted by size, and what a group needs of rows is data. Where its steps have led, each group is then looked at in
blocks as ever (`irls.plain`), which decides whether that is its optimum.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import numpy as np

from jaxglm.family import Family
from jaxglm.irls import fused
from jaxglm.irls.fused.tiles import rounded
from jaxglm.irls.options import IRLS
from jaxglm.packing import EMPTY, Call, gather
from jaxglm.task import Task


@dataclass(frozen=True)
class Steps:
    """Where kernels have got with the groups of a call. coefficients: (T, lanes, p), NaN where that is nowhere;
    n_iterations: (T, lanes)."""

    coefficients: np.ndarray
    n_iterations: np.ndarray


def steps(task: Task, call: Call, device: Any) -> Steps | None:
    """The steps of a call's groups, None where no kernel can take them."""
    if task.start is not None or task.penalty is not None:
        return None
    lane = call.groups != EMPTY
    groups = call.groups[lane]
    parts = fused.parts_for(len(groups), int(task.source.sizes[groups].mean()))
    has_offset = task.source.pick(groups[:1], np.zeros(1, np.int64)).offset is not None
    given = fused.Given(task.source.p, np.dtype(task.dtype), parts, True, has_offset)
    if fused.available(task.family, given, device, task.options):
        return None
    rows = gather(task.source, groups)
    plan = fused.plan(rows.starts, rows.sizes, parts)
    plan = replace(plan, place=_filled(plan.place, rounded(len(groups))))

    def table(values: Any) -> Any:
        return None if values is None else _filled(np.asarray(values, task.dtype), rounded(len(rows.y)))

    def own(leaf: Any) -> Any:
        values = np.asarray(leaf, task.dtype)
        return _filled(values[groups], rounded(len(groups)), 1.0) if values.ndim else values

    family = jax.tree.map(own, task.family)
    fits = _run(task.options, plan, table(rows.X), table(rows.y), table(rows.weights), table(rows.offset), family)
    coefficients, n_iterations, decided = (np.asarray(values)[: len(groups)] for values in jax.tree.leaves(fits))
    found = Steps(np.full((*lane.shape, task.source.p), np.nan, task.dtype), np.zeros(lane.shape, np.int64))
    found.coefficients[lane] = np.where(decided[:, None], coefficients, np.nan)
    found.n_iterations[lane] = n_iterations
    return found


@partial(jax.jit, static_argnums=0)
def _run(options: IRLS, plan: fused.Plan, X: Any, y: Any, weights: Any, offset: Any, family: Family) -> fused.Fits:
    return fused.solve(fused.pack_rows(plan, X, y, weights, offset), family, options)


def _filled(values: np.ndarray, length: int, fill: float = 0.0) -> np.ndarray:
    """Values with more of them, to one of few lengths."""
    edges = [(0, length - len(values))] + [(0, 0)] * (values.ndim - 1)
    return np.pad(values, edges, constant_values=fill)
