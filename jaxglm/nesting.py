"""Whether one result's models are nested in another's: the same rows, and columns that the larger model's span.

A design is looked at once for all groups, by the triangular factor of both designs side by side; where every fit has a design
of its own, fit by fit.
"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from jaxglm.errors import listed
from jaxglm.observations import PIECE, Observations

SPANNED = 1e-7  # of a column's length, what may be left of one that others span


def require_nested(small: Any, large: Any) -> None:
    """Raise ValueError unless the models of `small` are nested in those of `large`, fit by fit."""
    a, b = small.family, large.family
    if (a.name, a.link.name) != (b.name, b.link.name):
        raise ValueError(
            f"the models are not nested: one is {a.name} with link {a.link.name}, the other {b.name} with link {b.link.name}. "
            "A test needs one family and one link"
        )
    if not (same_shapes(small, large) or (a.estimator == b.estimator == "maximum_likelihood")):
        raise ValueError(
            f"the models are not nested: the shape parameters of their {a.name} families differ. Give both models the same"
            + (", or estimate both by maximum likelihood" if a.name == "negative_binomial" else "")
        )
    _require_same_groups(small, large)
    _require_same_rows(small, large)
    foreign = not_spanned(small, large)
    if foreign:
        raise ValueError(
            f"the models are not nested: {listed(map(repr, foreign))} of the smaller is no combination of the larger's columns "
            f"({listed(large.names, 20)})"
        )


def same_shapes(small: Any, large: Any) -> bool:
    """Whether the families of two results have the same shape parameters."""
    pairs = zip(jax.tree.leaves(small.family), jax.tree.leaves(large.family), strict=True)
    return all(np.array_equal(*pair, equal_nan=True) for pair in pairs)


def _require_same_groups(small: Any, large: Any) -> None:
    same = small.many == large.many and len(small) == len(large)
    if same and small.many:
        same = all(np.array_equal(*pair) for pair in zip(small.keys.keys, large.keys.keys, strict=False))
        same = same and len(small.keys.keys) == len(large.keys.keys)
    if not same:
        count = [f"{len(one)} fits" if one.many else "one fit" for one in (small, large)]
        raise ValueError(f"the models are of different groups: {count[0]} and {count[1]}, or other keys")


def _require_same_rows(small: Any, large: Any) -> None:
    a, b = small._rows(), large._rows()
    reason = "" if a.shape == b.shape else f"{a.shape} and {b.shape} rows"
    for name, default in (("y", 0.0), ("weights", 1.0), ("offset", 0.0)):
        first, second = getattr(a, name), getattr(b, name)
        if not reason and first is not second and not _equal(a.rows(first, default), b.rows(second, default)):
            reason = f"{name} differs"
    if not reason and a.codes is not None and not np.array_equal(a.codes, b.codes):
        reason = "rows belong to different groups"
    if reason:
        raise ValueError(
            f"the models are of different rows: {reason}. Usual where a variable of only one of them misses values; "
            "leave these rows out of both"
        )


def _equal(a: np.ndarray, b: np.ndarray) -> bool:
    return np.array_equal(a, b, equal_nan=True)


def not_spanned(small: Any, large: Any) -> list[str]:
    """The columns of the smaller models that those of the larger do not span, anywhere."""
    a, b = small._rows(), large._rows()
    own = a.own is not None and not (b.own is not None and _equal(a.own.values, b.own.values))
    names = small.names[: a.X.shape[-1]]
    width = b.X.shape[-1]
    places = {name: j for j, name in enumerate(large.names[:width])}
    other = [
        j for j, name in enumerate(names)
        if a.X.ndim != b.X.ndim or name not in places or not _equal(a.X[..., j], b.X[..., places[name]])
    ]  # fmt: skip
    if other:
        R = _triangles(a, b, other)
        size = np.linalg.norm(R, axis=-2)
        R = R / np.where(size > 0, size, 1.0)[..., None, :]
        larger, rest = R[..., :width], R[..., width:]
        left = rest - larger @ (np.linalg.pinv(larger, rcond=1e-11) @ rest)
        apart = np.linalg.norm(left, axis=-2) > SPANNED
        other = [j for j, far in zip(other, apart.reshape(-1, len(other)).any(axis=0), strict=True) if far]
    return [names[j] for j in other] + ([small.names[-1]] if own else [])


def _triangles(a: Observations, b: Observations, other: list[int]) -> np.ndarray:
    """The triangular factor of the larger design and of some columns of the smaller, side by side, (q, q) or (g, q, q)."""
    present = _present(a)
    if a.X.ndim == 3 or b.X.ndim == 3:
        shape = (a.g, a.X.shape[-2])
        parts = [np.broadcast_to(X, (*shape, X.shape[-1])) for X in (b.X, a.X[..., other])]
        rows = np.where(np.broadcast_to(present, shape)[..., None], np.concatenate(parts, axis=-1), 0.0)
        return _triangle(np.where(np.isfinite(rows), rows, 0.0))
    R = np.zeros((0, b.X.shape[1] + len(other)))
    here: np.ndarray = present if present.ndim == 1 else np.any(present, axis=0)
    for begin in range(0, len(a.X), PIECE):
        part = slice(begin, begin + PIECE)
        rows = np.concatenate([b.X[part], a.X[part][:, other]], axis=1)
        usable = here[part] & np.isfinite(rows).all(axis=1)
        R = _triangle(np.concatenate([R, np.where(usable[:, None], rows, 0.0)]))
    return R


def _triangle(rows: np.ndarray) -> np.ndarray:
    return np.asarray(np.linalg.qr(rows, mode="r"))


def _present(rows: Observations) -> np.ndarray:
    """Rows of nonzero weight, (N,), (n,) or (g, n)."""
    if rows.weights is None:
        return np.ones(rows.X.shape[-2], bool)
    return rows.weights != 0
