"""Fits whose data are at hand, not traced: by lanes of a CPU, whose kernels are made in a fraction of the time that programs
of XLA take, and serve any number of rows.

Lanes read arrays where they lie, so their shapes have to be checked before, and what lies on another device, or on several, is
not for them.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import jax
import numpy as np
from jax import Array

from jaxglm.aligned import placed
from jaxglm.devices import default_device
from jaxglm.irls import lanes
from jaxglm.irls.data import Data
from jaxglm.irls.options import IRLS
from jaxglm.irls.plain import began
from jaxglm.irls.solution import Solution, nothing, reported

MOST = 2**16  # numbers of the design of one fit; in more, one lane alone is too slow


def are_traced(*trees: Any) -> bool:
    """Whether any number among these is traced."""
    return any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(trees))


def solve_at_hand(g: int, options: IRLS, data: Data, start: Array | None, weighted: bool) -> Solution | None:
    """Solve g fits, as far as lanes go: what they cannot do is left `undecided`. None where lanes can make none of them.
    weighted: whether weights are other than ones. NumPy out."""
    return _solved(g, options, data, start, weighted) if _lie_here(data, start) else None


def solve_one_at_hand(options: IRLS, data: Data, start: Array | None, weighted: bool) -> Solution | None:
    """Solve one fit that is not large, None where lanes do not decide it. NumPy out."""
    if data.X.size > MOST or not _lie_here(data, start):
        return None
    penalty = None if data.penalty is None else np.asarray(data.penalty)[None]
    found = _solved(1, options, replace(data, X=np.asarray(data.X)[None], penalty=penalty), start, weighted)
    return None if found is None or found.undecided[0] else jax.tree.map(lambda leaf: leaf[0], reported(found))


def _lie_here(*trees: Any) -> bool:
    """Whether all arrays among these lie on the CPU that is JAX's default device, and nowhere else."""
    device = default_device()
    return device.platform == "cpu" and all(leaf.devices() == {device} for leaf in jax.tree.leaves(trees))


def _solved(g: int, options: IRLS, data: Data, start: Array | None, weighted: bool) -> Solution | None:
    """`solve_at_hand` of arrays that lie here, or of NumPy's."""
    assert data.own is None
    data, device = data if weighted else replace(data, weights=None), default_device()
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

    def carefully(factorization: str, again: np.ndarray) -> None:
        careful = replace(job, options=replace(options, factorization=factorization), careful=True)
        if again.any() and not lanes.available(careful, device):
            lanes.solve(careful, found, np.flatnonzero(again))

    carefully("cholesky", found.undecided & began(found))
    carefully("orthogonal", found.undecided)
    return found


def on_device(solution: Solution, dtype: Any) -> Solution:
    """Solutions in NumPy as JAX has them, not copied where they have the right type."""
    there: Solution = jax.device_put(jax.tree.map(lambda leaf: placed(leaf, _as_in_jax(leaf, dtype)), solution))
    return there


@partial(jax.jit, static_argnums=1)  # many times faster than putting one small array there after the other
def one_on_device(solution: Solution, dtype: Any) -> Solution:
    """One solution in NumPy as JAX has it."""
    there: Solution = jax.tree.map(lambda leaf: leaf.astype(_as_in_jax(leaf, dtype)), solution)
    return there


def _as_in_jax(leaf: Any, dtype: Any) -> Any:
    """The type of a solution's numbers, where the floating-point ones are of this type."""
    return {"f": dtype, "i": np.int32, "b": bool}[leaf.dtype.kind]
