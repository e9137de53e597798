"""Groups of any size whose logistic fits are finite, and a few whose are not, on purpose.

Random 0/1 responses of a small group are separated more often than not: of n points in p dimensions, those that a plane
through the origin can separate are, of all labellings, a fraction 2^(1-n) * sum_{k<p} C(n-1, k), which is a half at n = 2p
(Cover 1965). A benchmark that asks for one separated group in a hundred has to make the others overlap. In groups of fewer
than OVERLAP rows the responses are therefore the signs of residuals: if c = z - X b is the residual of regressing any z on
X, then X'c = 0, so no direction d can have sign(c_i) x_i'd >= 0 for all rows unless X d = 0. Larger groups overlap by
themselves.

Sizes are log-uniform from 5 to 2,000. Fewer than p + 1 rows cannot overlap at all, so groups below that have p + 1.
"""

from __future__ import annotations

import numpy as np

from benchmarks.problems import DEFICIENT, GOOD, SEPARATED, Problem

P = 6
CONSTANT, DUMMY = 4, 5  # the column that is constant in a deficient group; the one that separates in a separated group
SMALLEST, LARGEST, OVERLAP = 5, 2000, 60
FLAWED = 0.01  # of all groups, each kind
PIECE = 5000  # groups made at a time


def ragged_logistic(name: str, groups: int, seed: int, flawed: bool) -> Problem:
    """Groups of 7 to 2,000 rows with 6 columns: an intercept, four numbers and a dummy. If flawed, in one of a hundred
    groups all responses are 1 where the dummy is, and in another one of a hundred the last number is a constant."""
    rng = np.random.default_rng(seed)
    drawn = np.exp(rng.uniform(np.log(SMALLEST), np.log(LARGEST + 1), groups)).astype(np.int64)
    sizes = np.maximum(drawn, P + 1)
    bounds = np.concatenate([[0], np.cumsum(sizes)])
    flaws = np.full(groups, GOOD)
    if flawed:
        count = max(1, round(FLAWED * groups))
        chosen = rng.permutation(groups)
        flaws[chosen[:count]], flaws[chosen[count : 2 * count]] = SEPARATED, DEFICIENT
    X, y = np.empty((bounds[-1], P)), np.empty(bounds[-1])
    starts = range(0, groups, PIECE)
    for begin, stream in zip(starts, np.random.SeedSequence(seed + 1).spawn(len(starts)), strict=True):
        part = slice(begin, begin + PIECE)
        rows = slice(bounds[begin], bounds[min(begin + PIECE, groups)])
        X[rows], y[rows] = table(np.random.default_rng(stream), sizes[part], flaws[part])
    what = f"logistic, groups of {P + 1} to 2,000 rows x 6{', 1% separated, 1% rank-deficient' if flawed else ''}"
    return Problem(name, what, "ragged", "binomial", X, y, bounds=bounds, flaws=flaws)


def table(rng: np.random.Generator, sizes: np.ndarray, flaws: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """X (N, p) and y (N,) of groups of these sizes. Flaws are put in last, so that the other groups do not depend on them."""
    groups, bounds = len(sizes), np.concatenate([[0], np.cumsum(sizes)])
    group = np.repeat(np.arange(groups), sizes)
    X = rng.standard_normal((bounds[-1], P))
    X[:, 0] = 1.0
    X[:, DUMMY] = (np.arange(len(X)) - bounds[group]) % 2
    b = rng.uniform(-0.7, 0.7, (groups, P))
    y = (rng.logistic(size=len(X)) < np.einsum("np,np->n", X, b[group])).astype(np.float64)
    for size in np.unique(sizes[sizes < OVERLAP]):
        rows = bounds[:-1][sizes == size, None] + np.arange(size)
        y[rows] = overlapping(X[rows], rng.logistic(size=rows.shape))
    y[(flaws[group] == SEPARATED) & (X[:, DUMMY] == 1.0)] = 1.0
    deficient = flaws[group] == DEFICIENT
    X[deficient, CONSTANT] = rng.normal(size=groups)[group[deficient]]
    return X, y


def overlapping(X: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Labels that are not separated: where the residual of z (k, n) on X (k, n, p) is positive."""
    gram = np.matmul(X.transpose(0, 2, 1), X)
    b = np.linalg.solve(gram, np.matmul(X.transpose(0, 2, 1), z[..., None]))
    return (z > np.matmul(X, b)[..., 0]).astype(np.float64)
