"""One very large fit: its rows dealt out to the cores.

A fit of millions of rows leaves no other fits to keep the other cores busy. So its rows are cut into shares, and each sum over
rows is taken share by share, in threads (`rows.Shares`); what follows from the sums is small. The functions are those of the
plain pass; only its loop runs on the host. The design stays in the user's memory where `irls.borrowed` can read it there, and
is copied into chunks elsewhere.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxglm.aligned import zeros
from jaxglm.designs import Dense
from jaxglm.family import Family
from jaxglm.irls.borrowed import MOST_COLUMNS, available, lend
from jaxglm.irls.plain import solve_plain
from jaxglm.irls.problem import pose, typed
from jaxglm.irls.solution import Solution
from jaxglm.packing import Stacked, piece
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
    used = Chunks(jnp.zeros((), jnp.int32), jnp.asarray(-(-len(picked.y) // rows), jnp.int32))
    of_rows = (picked.y, picked.weights, picked.offset)
    chunked: list[Any] = [None if values is None else _chunked(values, rows, count, task.dtype) for values in of_rows]
    if _can_be_lent(picked.X, task):
        return replace(_prepared(family, Rows(None, *chunked), used), design=lend(picked.X, rows, count))
    X: Any = zeros((count, picked.X.shape[1], rows), task.dtype)
    n, full = len(picked.y), len(picked.y) // rows
    with np.errstate(over="ignore", invalid="ignore"):
        X[:full] = np.swapaxes(picked.X[: full * rows].reshape(full, rows, X.shape[1]), 1, 2)
        if n > full * rows:
            X[full, :, : n - full * rows] = picked.X[full * rows :].T
        broken = None if np.isfinite(X.sum()) else ~np.isfinite(X).all(axis=1)
    if broken is not None:
        chunked[0], X = np.where(broken, np.nan, chunked[0]), np.where(broken[:, None, :], 0.0, X)
    # The design is put in here, since a program would copy it.
    return replace(_prepared(family, Rows(None, *chunked), used), design=Dense(X))


def _can_be_lent(X: np.ndarray, task: Task) -> bool:
    """Whether a design can stay where it is: it is the user's, which is there as long as the task is, and no copy; its rows are
    of the arithmetic's type, one number after the other, and finite."""
    held = isinstance(task.source, Stacked) and np.may_share_memory(X, task.source.X)
    in_place = held and X.dtype == task.dtype and X.strides[1] == X.itemsize and X.shape[1] <= MOST_COLUMNS
    with np.errstate(over="ignore", invalid="ignore"):
        return in_place and available(X.dtype.name) and bool(np.isfinite(X.sum()))


def _chunked(values: np.ndarray, rows: int, count: int, dtype: Any) -> np.ndarray:
    """Numbers (n,) as (count, rows), with zeros at the end."""
    out = zeros((count, rows), dtype)
    out.reshape(-1)[: len(values)] = values
    return out


@jax.jit
def _prepared(family: Family, rows: Rows, chunks: Chunks) -> Rows:
    return replace(rows.prepared(family, jnp.zeros(rows.y.shape, bool)), chunks=chunks)
