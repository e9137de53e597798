"""Whether a point on the boundary of the valid means is the constrained optimum: the proof.

At an optimum the score need not be zero on the boundary, but it has to push against it: X's = -A' lambda with lambda >= 0,
where the rows of A are those that are held at their edge, signed so that inside is positive (Karush, Kuhn and Tucker).
Nonnegative least squares finds the multipliers, or says that there are none.
"""

from __future__ import annotations

import numpy as np

from jaxglm.ends import at_edges
from jaxglm.packing import Stacked, owners
from jaxglm.task import Task

LEFT = 1e-8  # what the multipliers may leave of the score, in standard errors
HELD = 1e-7  # a row that is nearer to its edge, in units of the mean response's distance, is held there


def proved(task: Task, rows: Stacked, coefficients: np.ndarray, pull: np.ndarray, dispersion: np.ndarray) -> np.ndarray:
    """Which groups' coefficients (g, p) are a constrained optimum, (g,). rows: theirs, made by `packing.gather`, of the task;
    pull: (g, p), of the penalty; dispersion: (g,)."""
    g, owner = len(rows.sizes), owners(rows)
    present = rows.weights > 0
    weights = np.where(present, rows.weights, 0.0)
    total = np.bincount(owner, weights, g)
    mean = np.bincount(owner, weights * np.where(present, rows.y, 0.0), g) / np.where(total > 0, total, 1.0)
    X = np.where(present[:, None], rows.X, 0.0)
    beta = np.where(np.isnan(coefficients), 0.0, coefficients)
    eta = np.sum(X * beta[owner], axis=1) + (0.0 if rows.offset is None else np.where(present, rows.offset, 0.0))
    seen = at_edges(task.family, rows, eta, mean)
    held = (seen.side != 0) & (seen.slack <= HELD)
    flags = np.zeros(g, bool)
    for k in range(g):
        inside = slice(rows.starts[k], rows.starts[k] + rows.sizes[k])
        used = ~np.isnan(coefficients[k])
        part, at = X[inside][:, used], held[inside]
        score = part.T @ seen.score[inside] - pull[k, used]
        square = np.sum(np.where(at, 0.0, seen.weight[inside])[:, None] * part**2, axis=0) + 1e-300
        size = np.sqrt(np.where(square > 0, square, np.nan))  # negative where a mean is not valid
        bounds = np.unique(seen.side[inside][at, None] * part[at], axis=0)
        unit = 1.0 if task.family.dispersion is not None else np.sqrt(dispersion[k])
        usable = len(bounds) > 0 and bool(used.any() and np.isfinite(score).all() and np.isfinite(size).all())
        flags[k] = usable and _left(bounds, score, size) <= LEFT * unit
    return flags


def _left(bounds: np.ndarray, score: np.ndarray, size: np.ndarray) -> float:
    """The largest component of what nonnegative multipliers of `bounds` (m, p) leave of a score (p,), over `size` (p,). A
    column that only held rows have is measured by them."""
    from scipy.optimize import nnls

    size = np.maximum(size, 1e-8 * np.sqrt(np.sum(bounds**2, axis=0)))
    size = np.where(size > 0, size, 1.0)
    matrix = -(bounds / size).T
    length = np.sqrt(np.sum(matrix**2, axis=0))
    try:
        multipliers = nnls(matrix / length, score / size, maxiter=100 * len(length) + 1000)[0]
    except RuntimeError:  # no end in sight
        return np.inf
    at = multipliers > 0
    refined = np.linalg.lstsq((matrix / length)[:, at], score / size, rcond=None)[0]
    if (refined >= 0).all():
        multipliers[at] = refined
    return float(np.max(np.abs(score / size - (matrix / length) @ multipliers)))
