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
LEFTOVER = 0.03  # of the largest component of a direction: what is less may be a leftover
AT_ONCE = 2000  # constraints taken in at a time


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


def polish(
    X: np.ndarray, side: np.ndarray, free: np.ndarray, direction: np.ndarray, moved: np.ndarray | None = None
) -> Separated:
    """Turn a direction that separates up to rounding into one that does, if it does.

    X: (n, p), the rows of positive weight; side: (n,), the sign of a row's infinite optimum, 0 where it is finite; free:
    (p,), coefficients that are neither aliased nor penalized; moved: (n,), the rows that it moves, where that is known.
    """
    reach = np.max(np.abs(X), axis=0, initial=0.0)
    size = np.where(free & (reach > 0), reach, 1.0)
    scaled, start = np.where(free, X / size, 0.0), np.where(free, direction * size, 0.0)
    if moved is None:
        change = scaled @ start
        moved = np.abs(change) > MOVED * np.max(np.abs(change), initial=0.0)
    blind = _null_space(scaled[~moved], free)
    exact = blind @ (blind.T @ start)
    # Small components are leftovers of the iteration, unless the direction needs them.
    small = np.flatnonzero((exact != 0) & (np.abs(exact) <= LEFTOVER * np.max(np.abs(exact), initial=0.0)))
    dropped: list[int] = []
    for component in small[np.argsort(np.abs(exact[small]))]:
        fewer = _null_space(scaled[~moved], free & ~np.isin(np.arange(len(free)), [*dropped, component]))
        without = fewer @ (fewer.T @ start)
        if _separates(scaled, side, moved, without):
            exact, dropped = without, [*dropped, int(component)]
    if not _separates(scaled, side, moved, exact):
        return Separated(np.zeros_like(direction), np.zeros(len(X), bool), np.ones(len(free), bool))
    exact = exact / np.max(np.abs(exact))
    return Separated(exact / size, moved, ~np.any(np.abs(blind) > 1e-7, axis=1))


def _separates(X: np.ndarray, side: np.ndarray, moved: np.ndarray, direction: np.ndarray) -> bool:
    """Whether a direction moves every moved row towards its infinite optimum; the others it cannot see."""
    along = side[moved] * (X[moved] @ direction)
    return bool(len(along) and np.all(np.isfinite(direction)) and along.min() > 0)


def decide(X: np.ndarray, side: np.ndarray, free: np.ndarray) -> Separated:
    """Find a direction that moves every row that any direction of separation moves; arguments as for `polish`.

    First a programme in p unknowns tells whether there is one: maximise the sum of side * X d for |d| <= 1, with no row
    moved away. Then another finds the largest: maximise the sum of u, 0 <= u <= 1 and u <= side * X d; since directions
    can be scaled, u is 1 for every row that can be moved.
    """
    none = Separated(np.zeros(X.shape[1]), np.zeros(len(X), bool), np.ones(len(free), bool))
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
    return polish(X, side, free, direction, moved[place.reshape(-1)])


def recedes(X: np.ndarray, side: np.ndarray, free: np.ndarray, term: int, way: float) -> bool:
    """Whether a coefficient can go to infinity that way along a direction that moves no row away from its infinite optimum
    and none that has a finite one; arguments as for `polish`, of the coefficient `term` and the sign `way`."""
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
