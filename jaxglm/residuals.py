"""Row by row: fitted means, residuals and working quantities at given linear predictors.

Formulas are R's `residuals.glm`. A row whose eta is infinite, because its group is separated, has its limits: the mean
its response, deviance and Pearson residuals zero, working weight zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxglm.errors import did_you_mean
from jaxglm.family import Family
from jaxglm.irls.problem import typed

TYPES = ("deviance", "pearson", "response", "working")


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class RowQuantities:
    """Quantities of rows, all of one shape. mu; deviance, pearson, response, working: the residuals; working_weights;
    working_response: R's z, without the offset."""

    mu: Any
    deviance: Any
    pearson: Any
    response: Any
    working: Any
    working_weights: Any
    working_response: Any


def means(family: Family, eta: np.ndarray) -> np.ndarray:
    """The mean of each row. family: its parameters broadcast against eta."""
    with jax.enable_x64(True):
        return np.asarray(_means(typed(family, np.float64), jnp.asarray(eta)))


@jax.jit
def _means(family: Family, eta: jax.Array) -> jax.Array:
    return family.link.mean(eta).mu


def slopes(family: Family, eta: np.ndarray) -> np.ndarray:
    """dmu / deta of each row."""
    with jax.enable_x64(True):
        return np.asarray(typed(family, np.float64).link.mean(jnp.asarray(eta)).dmu_deta)


def row_quantities(family: Family, y: np.ndarray, weights: np.ndarray, eta: np.ndarray, offset: Any) -> RowQuantities:
    """All quantities of rows, arrays of one shape; eta includes the offset."""
    with jax.enable_x64(True):
        found = _quantities(typed(family, np.float64), *map(jnp.asarray, (y, weights, eta, offset)))
        return jax.tree.map(np.asarray, found)


@jax.jit
def _quantities(family: Family, y: jax.Array, weights: jax.Array, eta: jax.Array, offset: jax.Array) -> RowQuantities:
    mean = family.link.mean(eta)
    unit, score, weight = family.unit_deviance_at(y, mean), family.score_at(y, mean), family.weight_at(mean)
    limit = jnp.isinf(eta)
    # (y - mu) / sqrt(V) as score / sqrt(weight), which does not cancel where mu is next to y; the score has the sign of y - mu
    # only where the link rises.
    pearson = jnp.sign(mean.dmu_deta) * score * jax.lax.rsqrt(jnp.where(weight > 0, weight, 1.0)) * jnp.sqrt(weights)
    working = jnp.where(weight > 0, score / jnp.where(weight > 0, weight, 1.0), jnp.nan)
    valid = jnp.isfinite(y) & ~jnp.isnan(eta)

    def at_limit(value: jax.Array, limiting: float = 0.0) -> jax.Array:
        return jnp.where(valid, jnp.where(limit, limiting, value), jnp.nan)

    return RowQuantities(
        mu=mean.mu,
        deviance=at_limit(jnp.sign(y - mean.mu) * jnp.sqrt(jnp.maximum(weights * unit, 0.0))),
        pearson=at_limit(pearson),
        response=at_limit(y - mean.mu),
        working=at_limit(working, jnp.nan),
        working_weights=at_limit(weights * weight),
        working_response=at_limit(eta - offset + working, jnp.nan),
    )


def scores(family: Family, y: np.ndarray, weights: np.ndarray, eta: np.ndarray) -> np.ndarray:
    """Minus half the derivative of the deviance by eta of each row, zero at a limit and where a row is not there."""
    with jax.enable_x64(True):
        return np.asarray(_scores(typed(family, np.float64), *map(jnp.asarray, (y, weights, eta))))


@jax.jit
def _scores(family: Family, y: jax.Array, weights: jax.Array, eta: jax.Array) -> jax.Array:
    return jnp.where(jnp.isinf(eta) | (weights == 0), 0.0, weights * family.score_at(y, family.link.mean(eta)))


def require_type(type: str) -> None:
    """Raise ValueError for an unknown type of residuals."""
    if type not in TYPES:
        raise ValueError(f"there are no {type!r} residuals.{did_you_mean(type, TYPES)} Types: {', '.join(TYPES)}")
