"""A point inside of the valid means, for groups of which no ready start has one.

Under an identity link and without an intercept, say, neither the null model nor the regression of the responses need have
positive means everywhere, though some coefficients do. Means are valid where all etas are inside of an interval, which are
linear constraints: a linear programme finds the coefficients that keep the least slack as large as it can be, up to the
distance of the mean response from the interval's end.
"""

from __future__ import annotations

import numpy as np

from jaxglm.irls.edge import valid_etas
from jaxglm.links import Interval
from jaxglm.packing import Stacked
from jaxglm.task import Task

LEAST = 1e-6  # slack, in units of the mean response's, that counts as inside


def inside(task: Task, rows: Stacked, keep: np.ndarray) -> np.ndarray:
    """Coefficients (g, p) inside of the valid means of each group, NaN where there are none. rows: theirs, made by
    `packing.gather`; keep: (g, p), columns that may be used."""
    found = np.full(keep.shape, np.nan)
    for k in range(len(keep)):
        part = slice(rows.starts[k], rows.starts[k] + rows.sizes[k])
        present = rows.weights[part] > 0
        offset = np.zeros(present.sum()) if rows.offset is None else rows.offset[part][present]
        mean = np.average(rows.y[part][present], weights=rows.weights[part][present]) if present.any() else 0.0
        family = task.family.of(k)
        center = float(family.link(mean))
        one = _inside(rows.X[part][present][:, keep[k]], offset, valid_etas(family, center), center)
        if one is not None:
            found[k] = 0.0
            found[k, keep[k]] = one
    return found


def _inside(X: np.ndarray, offset: np.ndarray, etas: Interval, center: float) -> np.ndarray | None:
    """Coefficients with all of X b + offset inside of the valid etas, None if there are none. center: the eta of the mean
    response."""
    from scipy.optimize import linprog

    if not X.size or not np.isfinite(X).all() or not np.isfinite(offset).all():
        return None
    size = np.max(np.abs(X), axis=0)
    rows, limits = X / np.where(size > 0, size, 1.0), []
    for sign, end in ((1.0, etas.lower), (-1.0, etas.upper)):
        if np.isfinite(end):
            unit = abs(center - end) if np.isfinite(center) else 1.0
            limits.append(np.column_stack([-sign * rows, np.full(len(rows), unit), sign * (offset - end)]))
    if not limits:
        return None
    table = np.unique(np.concatenate(limits), axis=0)
    p = X.shape[1]
    bounds = [(None, None)] * p + [(0.0, 1.0)]
    result = linprog(np.append(np.zeros(p), -1.0), table[:, : p + 1], table[:, p + 1], bounds=bounds, method="highs")
    if result.status != 0 or -result.fun < LEAST:
        return None
    return np.asarray(result.x[:p] / np.where(size > 0, size, 1.0))
