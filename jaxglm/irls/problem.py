"""One fit's problem, made ready: sound rows, scaled columns, and what is known before the first step."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.tree_util import Partial

from jaxglm.family import Family
from jaxglm.penalty import diagonal, pulled
from jaxglm.rows import Rows, Shares, Totals, fold


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Problem:
    """A fit to be made. The design's columns are X / scale, so coefficients inside are the user's times scale.

    rows: `Rows` or `Shares`; penalty: (p,), or (p, p), and start: (p,), on the scaled coefficients, or None; n_obs: rows of
    nonzero weight; total_weight: the sum of the positive ones; mean_response: their weighted mean of y; sound: whether every
    row is finite and valid; bare: whether all rows are (`Family.bare`); keep: (p,), columns that are not nothing but zeros,
    like a dummy of a level that is absent; reach: (p,), the largest absolute value of each column, None where nobody watches
    for separation.
    """

    rows: Any
    family: Family
    scale: Array
    penalty: Array | None
    start: Array | None
    n_obs: Array
    total_weight: Array
    mean_response: Array
    sound: Array
    bare: Array
    keep: Array
    reach: Array | None

    @property
    def bared(self) -> Problem:
        """All but the rows, for functions that are given some rows at a time."""
        return replace(self, rows=None)

    @property
    def watched(self) -> bool:
        """Whether the iteration watches for separation."""
        return self.reach is not None

    @property
    def dtype(self) -> Any:
        """The floating-point type of all arithmetic."""
        return self.scale.dtype

    def extent_of(self, step: Array) -> Array:
        """How far each component of a step (p,) moves any eta, in a problem that is watched."""
        assert self.reach is not None
        return self.reach * jnp.abs(step)

    def penalty_at(self, coefficients: Array) -> Array:
        """What the penalty adds to the deviance."""
        return jnp.zeros((), self.dtype) if self.penalty is None else jnp.sum(coefficients * pulled(self.penalty, coefficients))

    def origins(self, *coefficients: Array | None) -> Array | None:
        """From where the penalty pulls to zero, (p, k), one column for each right-hand side; None among them means that it
        does not. None as a whole where there is no penalty."""
        if self.penalty is None:
            return None
        return jnp.stack([jnp.zeros_like(self.scale) if b is None else b for b in coefficients], axis=1)


def typed(family: Family, dtype: Any) -> Family:
    """The family with its shape parameters in the arithmetic's floating-point type."""
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), family)


@dataclass(frozen=True)
class Given:
    """The user's arguments as arrays of one floating-point type, that of X; weights are ones of shape (n,) by default."""

    X: Array
    y: Array
    weights: Array
    offset: Array | None

    @classmethod
    def of(cls, X: Any, y: Any, weights: Any, offset: Any, family: Any) -> Given:
        """Raises TypeError for what is not a family, ValueError for one whose shape is to be estimated."""
        if not isinstance(family, Family):
            raise TypeError(f"family must be a value of jaxglm.families, such as families.Poisson(), not {family!r}")
        if any(isinstance(value, float) and math.isnan(value) for value in family.parameters.values()):
            raise ValueError(f"{family!r} leaves a parameter to be estimated, which jaxglm.fit and glm do; here give a number")
        X = jnp.asarray(X)
        dtype = X.dtype if jnp.issubdtype(X.dtype, jnp.floating) else jnp.result_type(float)
        weights = jnp.ones(X.shape[-2:-1], dtype) if weights is None else jnp.asarray(weights, dtype)
        offset = None if offset is None else jnp.asarray(offset, dtype)
        return cls(X.astype(dtype), jnp.asarray(y, dtype), weights, offset)

    @property
    def rows(self) -> dict[str, tuple[int, ...]]:
        """The shapes of what goes by rows."""
        values = {"y": self.y, "weights": self.weights, "offset": self.offset}
        return {name: value.shape for name, value in values.items() if value is not None}


def _count(family: Family, part: Rows) -> Totals:
    weights = jnp.where(part.present, part.weights, 0.0)
    sums = (jnp.sum(part.weights != 0, dtype=jnp.int32), jnp.sum(weights), jnp.sum(weights * part.y))
    unsound, more = part.weights < 0, jnp.ones((), jnp.int32)
    if family.bare is not None:
        more = jnp.sum(part.present & ~family.bare(part.y), dtype=jnp.int32)
    return Totals((*sums, jnp.sum(unsound, dtype=jnp.int32), more), part.design.reach())


def pose(
    rows: Rows | Shares,
    family: Family,
    scale: Array,
    penalty: Array | None = None,
    start: Array | None = None,
    watched: bool = True,
) -> Problem:
    """The problem of fitting prepared `rows`, whose design's columns have been divided by `scale`; penalty and start
    are in the user's terms; watched: see `Problem`."""
    totals = fold(rows, Partial(_count, family))
    return replace(_posed(totals, family, scale, penalty, start, watched), rows=rows)


@partial(jax.jit, static_argnums=5)
def _posed(totals: Totals, family: Family, scale: Array, penalty: Array | None, start: Array | None, watched: bool) -> Problem:
    """The problem without its rows, of which these are the totals."""
    n_obs, total_weight, total_response, unsound, more = totals.sums
    reach = totals.peaks.astype(scale.dtype)
    return Problem(
        rows=None,
        family=family,
        scale=scale,
        penalty=penalty if penalty is None else penalty / (scale**2 if penalty.ndim == 1 else scale[:, None] * scale),
        start=None if start is None else start * scale,
        n_obs=n_obs,
        total_weight=total_weight,
        mean_response=total_response / jnp.where(total_weight > 0, total_weight, 1.0),
        sound=unsound == 0,
        bare=more == 0,
        keep=reach > 0 if penalty is None else (reach > 0) | (diagonal(penalty) > 0),
        reach=reach if watched else None,
    )
