"""Fits whose data are at hand, not traced: by lanes of a CPU, whose kernels are made in a fraction of the time that programs
of XLA take, and serve any number of rows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax
import numpy as np
from jax import Array

from jaxglm.aligned import placed
from jaxglm.irls import lanes
from jaxglm.irls.data import Data
from jaxglm.irls.options import IRLS
from jaxglm.irls.solution import Solution, nothing, reported

LARGEST = 2**16  # numbers of the design of one fit; in more, one lane alone is too slow


def are_traced(*trees: Any) -> bool:
    """Whether any number among these is traced."""
    return any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(trees))


def solve_at_hand(g: int, options: IRLS, data: Data, start: Array | None, device: Any) -> Solution | None:
    """Solve g fits, as far as lanes go: what they cannot do is left `undecided`. None where they are not for these fits at
    all. NumPy out."""
    given = (data.X, data.y, data.weights, data.offset, data.penalty, start)
    X, y, weights, offset, penalty, begin = (None if part is None else np.asarray(part) for part in given)
    assert X is not None
    assert y is not None
    rows = lanes.Rows(X, y, weights, offset, np.zeros(g, np.int64), np.full(g, X.shape[-2]), shared=X.ndim == 2)
    job = lanes.Job(rows, jax.tree.map(np.asarray, data.family), penalty, begin, options, X.dtype)
    if not lanes.fits(job, rows.sizes).all() or lanes.available(job, device):
        return None
    found = nothing(g, rows.p, [])
    lanes.solve(job, found, np.arange(g))
    for factorization in ("cholesky", "orthogonal"):
        again = np.flatnonzero(found.undecided)
        job = replace(job, options=replace(options, factorization=factorization), careful=True)
        if len(again) and not lanes.available(job, device):
            lanes.solve(job, found, again)
    return found


def solve_one_at_hand(options: IRLS, data: Data, start: Array | None, device: Any) -> Solution | None:
    """Solve one fit that is not large, None where lanes do not decide it. NumPy out."""
    if data.X.size > LARGEST:
        return None
    penalty = None if data.penalty is None else np.asarray(data.penalty)[None]
    one = replace(data, X=np.asarray(data.X)[None], penalty=penalty)
    found = solve_at_hand(1, options, one, start, device)
    return None if found is None or found.undecided[0] else jax.tree.map(lambda leaf: leaf[0], reported(found))


def on_device(solution: Solution, dtype: Any) -> Solution:
    """A solution in NumPy as JAX has it."""

    kinds = {"f": dtype, "i": np.int32, "b": bool}
    there: Solution = jax.device_put(jax.tree.map(lambda leaf: placed(leaf, kinds[leaf.dtype.kind]), solution))
    return there
