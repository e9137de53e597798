"""Infinite estimates: proofs that they are, and what stays finite.

A direction d separates if X d points no row with an infinite optimum (a binomial row with y = 0 or 1, a Poisson row with
y = 0) away from it, moves at least one towards it, and is zero on every other row. Then the likelihood rises along d for
ever. In the limit the rows that d moves are fitted perfectly and say nothing more; what is left is an ordinary fit of the
rows that d does not move. A coefficient is finite exactly if those rows determine it: if no vector that they cannot see
has a part in it. (Albert and Anderson 1984; Geyer 2009, "Likelihood inference in exponential families and directions of
recession"; Konis 2007 for the linear programme.)

The iteration finds d itself nearly always. `recession` makes it exact and checks it; `decide` asks a linear programme
where the iteration ended without an answer.
"""

from __future__ import annotations

import numpy as np

from jaxglm.recession import Rows, Separated, polish

AT_ONCE = 2000  # constraints taken in at a time


def decide(X: np.ndarray, side: np.ndarray, free: np.ndarray) -> Separated:
    """Find a direction that moves every row that any direction of separation moves, for one group.

    X: (n, p), rows of positive weight; side: (n,); free: (p,); as in `recession.Rows`. The answer is that of one group.

    First a programme in p unknowns tells whether there is one: maximise the sum of side * X d for |d| <= 1, with no row
    moved away. Then another finds the largest: maximise the sum of u, 0 <= u <= 1 and u <= side * X d; since directions
    can be scaled, u is 1 for every row that can be moved.
    """
    none = Separated.none(1, *X.shape)
    columns = np.flatnonzero(free)
    if not len(columns) or not (side != 0).any():
        return none
    reach = np.max(np.abs(X[:, columns]), axis=0)
    size = np.where(reach > 0, reach, 1.0)
    distinct, place = np.unique(np.column_stack([side, X[:, columns] / size]), axis=0, return_inverse=True)
    signs, rows = distinct[:, 0], distinct[:, 1:]
    towards, closed = signs[signs != 0, None] * rows[signs != 0], rows[signs == 0]
    if not _exists(towards, closed):
        return none
    found = _largest(towards, closed)
    if found is None:
        return none
    direction = np.zeros(X.shape[1])
    direction[columns] = found[: len(columns)] / size
    moved = np.zeros(len(distinct), bool)
    moved[signs != 0] = found[len(columns) :] > 0.5
    whole = Rows(X, side, np.array([len(X)]), free[None])
    return polish(whole, direction[None], moved[place.reshape(-1)])


def recedes(X: np.ndarray, side: np.ndarray, free: np.ndarray, term: int, way: float) -> bool:
    """Whether a coefficient can go to infinity that way along a direction that moves no row away from its infinite optimum
    and none that has a finite one; arguments as for `decide`, and the coefficient `term` and the sign `way`."""
    from scipy.optimize import linprog

    reach = np.max(np.abs(X), axis=0, initial=0.0)
    rows = X / np.where(reach > 0, reach, 1.0)
    towards, closed = side[side != 0, None] * rows[side != 0], rows[side == 0]
    result = linprog(
        c=np.where(np.arange(len(free)) == term, -way, 0.0),
        A_ub=-towards if len(towards) else None,
        b_ub=np.zeros(len(towards)) if len(towards) else None,
        A_eq=closed if len(closed) else None,
        b_eq=np.zeros(len(closed)) if len(closed) else None,
        bounds=[(-1.0, 1.0) if one else (0.0, 0.0) for one in free],
        method="highs",
    )
    return bool(result.status == 0 and -result.fun > 1e-6)


def _exists(towards: np.ndarray, closed: np.ndarray) -> bool:
    """Whether any direction gains, by constraints that are added as they are broken: few ever matter."""
    from scipy.optimize import linprog

    gain = towards.sum(axis=0)
    gain = gain / max(np.max(np.abs(gain)), 1e-300)
    rows = np.concatenate([-towards, closed, -closed])  # every one times d must not be positive
    used = np.linspace(0, len(rows) - 1, min(len(rows), AT_ONCE)).astype(int)
    while True:
        result = linprog(-gain, A_ub=rows[used], b_ub=np.zeros(len(used)), bounds=(-1.0, 1.0), method="highs")
        if result.status != 0 or -result.fun < 1e-9:
            return False
        broken = rows @ result.x
        worst = np.setdiff1d(np.argsort(-broken)[:AT_ONCE], used)
        worst = worst[broken[worst] > 1e-7]
        if not len(worst):
            return True
        used = np.concatenate([used, worst])


def _largest(towards: np.ndarray, closed: np.ndarray) -> np.ndarray | None:
    """d and u of the second programme."""
    from scipy import sparse
    from scipy.optimize import linprog

    k, p = towards.shape
    result = linprog(
        c=np.concatenate([np.zeros(p), -np.ones(k)]),
        A_ub=sparse.hstack([sparse.csr_array(-towards), sparse.eye_array(k)]).tocsc(),
        b_ub=np.zeros(k),
        A_eq=sparse.hstack([sparse.csr_array(closed), sparse.csr_array((len(closed), k))]).tocsc() if len(closed) else None,
        b_eq=np.zeros(len(closed)) if len(closed) else None,
        bounds=[(None, None)] * p + [(0.0, 1.0)] * k,
        method="highs",
    )
    return result.x if result.status == 0 and -result.fun > 0.5 else None
