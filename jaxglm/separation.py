"""Infinite estimates: proofs that they are, and what stays finite.

A direction d separates if X d points no row with an infinite optimum (a binomial row with y = 0 or 1, a Poisson row with
y = 0) away from it, moves at least one towards it, and is zero on every other row. Then the likelihood rises along d for
ever. In the limit the rows that d moves are fitted perfectly and say nothing more; what is left is an ordinary fit of the
rows that d does not move. A coefficient is finite exactly if those rows determine it: if no vector that they cannot see
has a part in it. (Albert and Anderson 1984; Geyer 2009, "Likelihood inference in exponential families and directions of
recession"; Konis 2007 for the linear programme.)

The iteration finds d itself nearly always. `polish` makes it exact and checks it; `decide` asks a linear programme where
the iteration ended without an answer.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

MOVED = 1e-8  # of the largest move: what is less belongs to rows that the direction leaves alone
BLIND = 1e-10  # relative singular value below which rows do not determine a combination of coefficients
ROUNDING = 1e-12  # of the largest component: what is less is zero


@dataclass(frozen=True)
class Separated:
    """One group's proof. direction: (p,), zero if there is none; moved: (n,), the rows that it moves; determined: (p,),
    the coefficients that the other rows determine. One that is neither determined nor moved may have any value."""

    direction: np.ndarray
    moved: np.ndarray
    determined: np.ndarray

    @property
    def proved(self) -> bool:
        """Whether the group is separated."""
        return bool(np.any(self.moved))


def polish(X: np.ndarray, side: np.ndarray, free: np.ndarray, direction: np.ndarray) -> Separated:
    """Turn a direction that separates up to rounding into one that does, if it does.

    X: (n, p), the rows of positive weight; side: (n,), the sign of a row's infinite optimum, 0 where it is finite; free:
    (p,), coefficients that are neither aliased nor penalized.
    """
    reach = np.max(np.abs(X), axis=0, initial=0.0)
    size = np.where(free & (reach > 0), reach, 1.0)
    scaled, start = np.where(free, X / size, 0.0), np.where(free, direction * size, 0.0)
    change = scaled @ start
    moved = np.abs(change) > MOVED * np.max(np.abs(change), initial=0.0)
    blind = _null_space(scaled[~moved], free)
    exact = blind @ (blind.T @ start)
    exact[np.abs(exact) <= ROUNDING * np.max(np.abs(exact), initial=0.0)] = 0.0
    along = side[moved] * (scaled[moved] @ exact)
    if not moved.any() or along.min() <= 0 or not np.all(np.isfinite(exact)):
        return Separated(np.zeros_like(direction), np.zeros(len(X), bool), np.ones(len(free), bool))
    return Separated(exact / size, moved, ~np.any(np.abs(blind) > 1e-7, axis=1))


def decide(X: np.ndarray, side: np.ndarray, free: np.ndarray) -> Separated:
    """Find a direction that separates as many rows as any does, by a linear programme; arguments as for `polish`.

    It maximises the sum of u with 0 <= u <= 1 and u <= side * X d on rows with an infinite optimum, X d = 0 on others.
    """
    from scipy.optimize import linprog

    none = Separated(np.zeros(X.shape[1]), np.zeros(len(X), bool), np.ones(len(free), bool))
    open_rows, columns = side != 0, np.flatnonzero(free)
    if not open_rows.any() or not len(columns):
        return none
    reach = np.max(np.abs(X[:, columns]), axis=0)
    scaled = X[:, columns] / np.where(reach > 0, reach, 1.0)
    unique = np.unique(np.column_stack([side, scaled]), axis=0)
    signs, rows = unique[:, 0], unique[:, 1:]
    gains, k = signs[signs != 0, None] * rows[signs != 0], int(np.sum(signs != 0))
    closed = rows[signs == 0]
    result = linprog(
        c=np.concatenate([np.zeros(len(columns)), -np.ones(k)]),
        A_ub=np.hstack([-gains, np.eye(k)]),
        b_ub=np.zeros(k),
        A_eq=np.hstack([closed, np.zeros((len(closed), k))]) if len(closed) else None,
        b_eq=np.zeros(len(closed)) if len(closed) else None,
        bounds=[(None, None)] * len(columns) + [(0.0, 1.0)] * k,
        method="highs",
    )
    if result.status != 0 or -result.fun < 0.5:
        return none
    direction = np.zeros(X.shape[1])
    direction[columns] = result.x[: len(columns)] / np.where(reach > 0, reach, 1.0)
    return polish(X, side, free, direction)


def _null_space(X: np.ndarray, free: np.ndarray) -> np.ndarray:
    """An orthonormal basis (p, k) of the vectors in the free coordinates that the rows of X (m, p) cannot see."""
    columns = np.flatnonzero(free)
    inside = X[:, columns]
    if len(inside) > len(columns):
        inside = np.asarray(np.linalg.qr(inside, mode="r"))
    _, values, right = np.linalg.svd(inside, full_matrices=True)
    rank = int(np.sum(values > BLIND * np.max(values, initial=1.0)))
    basis = np.zeros((X.shape[1], len(columns) - rank))
    basis[columns] = right[rank:].T
    return basis
