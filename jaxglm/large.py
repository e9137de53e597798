"""One very large fit: its rows dealt out to the cores.

A fit of millions of rows leaves no other fits to keep the other cores busy. So its rows are cut into shares, and each sum over
rows is taken share by share, in threads (`rows.Shares`); what follows from the sums is small. The functions are those of the
plain pass; only its loop runs on the host.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxglm.designs import Dense
from jaxglm.family import Family
from jaxglm.irls.plain import solve_plain
from jaxglm.irls.problem import pose, typed
from jaxglm.irls.solution import Solution
from jaxglm.packing import piece, zeros
from jaxglm.rows import Chunks, Rows, Shares
from jaxglm.task import Task
from jaxglm.threads import cores, in_threads

LEAST = 2**22  # numbers of a design from which on its rows are dealt out
SHARES = 8  # for each core, so that cores finish together
CHUNK = 2**14  # numbers of a chunk of rows: what a core's cache holds with what is computed from them


def is_large(task: Task, groups: np.ndarray, device: Any) -> np.ndarray:
    """Which groups are to be fitted by themselves: only on a CPU, and with more than one core."""
    several = device.platform == "cpu" and cores() > 1 and task.options.factorization == "auto"
    return (task.source.sizes[groups] * task.source.p >= LEAST) & several


def solve_large(task: Task, group: int) -> Solution:
    """The plain pass over one group."""
    n, p = int(task.source.sizes[group]), task.source.p
    size = -(-n // (SHARES * cores()))
    rows = max(16, CHUNK // p)
    family = typed(jax.tree.map(np.asarray, task.family.of(group)), task.dtype)
    shares = [range(begin, min(begin + size, n)) for begin in range(0, n, size)]
    parts = tuple(in_threads(partial(_share, task, group, family, rows, -(-size // rows)), shares))
    penalty, start = (
        None if values is None else jnp.asarray(values if values.ndim == 1 else values[group], task.dtype)
        for values in (task.penalty, task.start)
    )
    problem = pose(Shares(parts), family, jnp.ones(p, task.dtype), penalty, start, watched=False)
    return solve_plain(problem, task.options)


def _share(task: Task, group: int, family: Family, rows: int, count: int, positions: range) -> Rows:
    """Some rows of a group, in so many chunks of so many rows, made ready."""
    picked = piece(task.source, group, positions)
    y, weights = (_chunked(values, rows, count, task.dtype) for values in (picked.y, picked.weights))
    offset = None if picked.offset is None else _chunked(picked.offset, rows, count, task.dtype)
    X = zeros((count, picked.X.shape[1], rows), task.dtype)
    n, full = len(picked.y), len(picked.y) // rows
    with np.errstate(over="ignore", invalid="ignore"):
        X[:full] = np.swapaxes(picked.X[: full * rows].reshape(full, rows, -1), 1, 2)
        if n > full * rows:
            X[full, :, : n - full * rows] = picked.X[full * rows :].T
        broken = None if np.isfinite(X.sum()) else ~np.isfinite(X).all(axis=1)
    if broken is not None:
        y, X = np.where(broken, np.nan, y), np.where(broken[:, None, :], 0.0, X)
    used = Chunks(jnp.zeros((), jnp.int32), jnp.asarray(-(-n // rows), jnp.int32))
    parts: list[Any] = [X, y, weights, offset]
    return _prepared(family, Rows(Dense(parts[0]), *parts[1:]), used)


def _chunked(values: np.ndarray, rows: int, count: int, dtype: Any) -> np.ndarray:
    """Numbers (n,) as (count, rows), with zeros at the end."""
    out = zeros((count, rows), dtype)
    out.reshape(-1)[: len(values)] = values
    return out


@jax.jit
def _prepared(family: Family, rows: Rows, chunks: Chunks) -> Rows:
    return replace(rows.prepared(family, jnp.zeros(rows.y.shape, bool)), chunks=chunks)
