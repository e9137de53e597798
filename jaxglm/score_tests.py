"""Rao's score test: what the smaller fit's scores say about columns that it lacks.

At the smaller fit, with working weights W and scores s of its rows, and the columns X of the larger model, the statistic is
s'X (X'WX)^-1 X's over the dispersion. It needs the smaller fit alone. Source: Rao (1948); R's `anova(test = "Rao")`, which
computes the same as a weighted regression of working residuals.
"""

from __future__ import annotations

import numpy as np

from jaxglm.contrasts import quadratic_form
from jaxglm.observations import Observations


def score_statistics(rows: Observations, weights: np.ndarray, scores: np.ndarray, left_out: np.ndarray) -> np.ndarray:
    """s'X (X'WX)^-1 X's of every fit, (g,). rows: with the larger model's columns; weights, scores: in the rows' shape;
    left_out: (g, p), columns that do not count."""
    gram, product = products(rows, weights, scores)
    return quadratic_form(gram, product, left_out)


def products(
    rows: Observations, weights: np.ndarray, scores: np.ndarray, fits: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """X'WX (g, p, p) and X's (g, p) of every fit, or of some `fits` and zeros for others; rows without a working weight, which
    may also be a flag, add nothing, whatever they hold."""
    p = rows.X.shape[-1] + (rows.own is not None)
    gram, product = np.zeros((rows.g, p, p)), np.zeros((rows.g, p))
    for part, X in rows.pieces(fits):
        W, s = weights[part], scores[part]
        there = W > 0
        if rows.codes is None:
            X = np.where(there[..., None], X, 0.0)
            gram[part] = np.matmul((X * np.where(there, W, 0.0)[..., None]).transpose(0, 2, 1), X)
            product[part] = np.matmul(np.where(there, s, 0.0)[:, None, :], X)[:, 0]
            continue
        codes = rows.codes[part]
        there &= codes >= 0
        order = np.flatnonzero(there)[np.argsort(codes[there], kind="stable")]
        if not len(order):
            continue
        first = np.flatnonzero(np.diff(codes[order], prepend=-1))
        groups = codes[order][first]
        columns = np.ascontiguousarray(X[order].T)
        product[groups] += np.add.reduceat(columns * s[order], first, axis=1).T
        weighted = columns * W[order]
        for j in range(p):
            gram[groups, j, j:] += np.add.reduceat(columns[j:] * weighted[j], first, axis=1).T
    if rows.codes is not None:
        below = np.tril_indices(p, -1)
        gram[:, below[0], below[1]] = gram[:, below[1], below[0]]
    return gram, product
