"""Many tests at once: p-values adjusted so that errors among all of them are under control.

A fit a group makes as many tests of each term as there are groups. "bonferroni", "holm" and "hochberg" bound the chance of any
false rejection; "bh" and "by" (Benjamini and Hochberg 1995; Benjamini and Yekutieli 2001, under any dependence) bound the
expected share of false ones among the rejections, and so does "storey" (Storey and Tibshirani 2003), which also estimates the
share of true null hypotheses, pi0. Numbers are those of R's `p.adjust` and of `qvalue` with its default, the smoother. The
spline of pi0 is exact here; R's `smooth.spline` has 0.333 for a third in its penalty, and stops its search for three degrees
of freedom a little early, which moves pi0 by some 1e-5.

A test without a p-value is not counted.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np

from jaxglm.errors import did_you_mean
from jaxglm.threads import PIECE, for_each

METHODS = ("bonferroni", "holm", "hochberg", "bh", "by", "storey")
STOREY_FREEDOM = 3.0  # degrees of freedom of the smoother of pi0
LAMBDAS = np.arange(1, 20) / 20.0  # beyond which p-values are taken to be those of true null hypotheses


def adjust(p: np.ndarray, method: str = "bh") -> np.ndarray:
    """Adjusted p-values, each family along the first axis: (g,) or (g, ...), NaN where p is.

    method: "bonferroni", "holm", "hochberg", "bh", "by" or "storey". Rejecting where the adjusted value is at most a level
    keeps the error rate of the method at that level. Where pi0 cannot be estimated, by "storey" from few p-values or none
    near 1, it is taken as 1, which makes "bh" of it. Raises ValueError for an unknown method and for p outside of [0, 1].

    >>> import jaxglm
    >>> jaxglm.adjust([0.01, 0.02, 0.03, 0.5], "bh").round(3).tolist()
    [0.04, 0.04, 0.04, 0.5]
    """
    require_method(method)
    values = np.asarray(p, np.float64)
    if values.ndim == 0:
        raise ValueError("adjust needs all p-values together, an array of shape (g,) or (g, ...), not one number")
    with np.errstate(invalid="ignore"):
        if np.any((values < 0) | (values > 1)):
            raise ValueError("p-values lie between 0 and 1; some of these do not. Are they statistics, or logarithms?")
    columns = values.reshape(len(values), math.prod(values.shape[1:]))
    out = np.full(columns.shape, np.nan)

    def put(j: int) -> None:
        tested = ~np.isnan(columns[:, j])
        if tested.any():
            out[tested, j] = _adjusted(columns[tested, j], method)

    if len(columns) < PIECE:
        list(map(put, range(columns.shape[1])))
    else:
        for_each(put, range(columns.shape[1]))
    return out.reshape(values.shape)


def require_method(method: str) -> None:
    """Raise ValueError for an unknown method."""
    if method not in METHODS:
        raise ValueError(f"there is no adjustment {method!r}.{did_you_mean(method, METHODS)} Methods: {', '.join(METHODS)}")


def _adjusted(p: np.ndarray, method: str) -> np.ndarray:
    """One family of tests without NaN."""
    m = len(p)
    if method == "bonferroni":
        return np.minimum(1.0, m * p)
    order = np.argsort(p)  # equal ones, in whatever order, come out equal
    rank, ascending, out = np.arange(1, m + 1), p[order], np.empty(m)
    if method == "holm":
        out[order] = np.minimum(1.0, np.maximum.accumulate((m + 1 - rank) * ascending))
        return out
    factor = (m + 1 - rank) if method == "hochberg" else m / rank
    if method == "by":
        factor = factor * np.sum(1.0 / rank)
    out[order] = np.minimum(1.0, np.minimum.accumulate((factor * ascending)[::-1])[::-1])
    return out * (null_share(p) if method == "storey" else 1.0)


def null_share(p: np.ndarray) -> float:
    """pi0, the estimated share of true null hypotheses among tests with these p-values (m,)."""
    beyond = np.array([np.count_nonzero(p >= limit) for limit in LAMBDAS])
    raw = beyond / (len(p) * (1.0 - LAMBDAS))
    share = float(_last_row_of_smoother() @ raw)
    return min(share, 1.0) if share > 0 else 1.0


@cache
def _last_row_of_smoother() -> np.ndarray:
    """What a cubic smoothing spline with three degrees of freedom makes of values at `LAMBDAS`, at the last of them, is this
    combination of the values (Green and Silverman 1994, section 2.3.3)."""
    n, h = len(LAMBDAS), LAMBDAS[1] - LAMBDAS[0]
    second = np.zeros((n, n - 2))
    for j in range(n - 2):
        second[j : j + 3, j] = np.array([1.0, -2.0, 1.0]) / h
    bending = (np.diag(np.full(n - 2, 4.0)) + np.eye(n - 2, k=1) + np.eye(n - 2, k=-1)) * h / 6.0
    size, vectors = np.linalg.eigh(second @ np.linalg.solve(bending, second.T))
    size = np.where(np.arange(n) < 2, 0.0, size)  # straight lines do not bend
    low, high = -60.0, 60.0  # of the logarithm of the penalty
    for _ in range(200):
        middle = 0.5 * (low + high)
        freedom = np.sum(1.0 / (1.0 + np.exp(middle) * size))
        low, high = (middle, high) if freedom > STOREY_FREEDOM else (low, middle)
    return (vectors[-1] / (1.0 + np.exp(middle) * size)) @ vectors.T
