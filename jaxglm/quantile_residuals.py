"""Randomized quantile residuals: the normal quantile of where a response lies in its fitted distribution.

Under the right model they are standard normal, whatever the family: also for counts and single trials, whose deviance
residuals lie on a few curves. A discrete response covers an interval of probabilities, from P(Y < y) to P(Y <= y), and a
uniform number picks a place in it; the midpoint is picked instead where nothing may be random, but midpoints are not
normal. A row at the limit of a separated fit has a response that is certain, and so any place at all.

The dispersion is that of the fit (Pearson's), so that continuous families have it inside. Both tails are computed by their
logarithms, so that a residual far out is a number and not infinite.

Source: Dunn and Smyth, Randomized quantile residuals (1996); statmod's `qresiduals`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy import special

from jaxglm.distributions import LogTails, Rows, distribution_of
from jaxglm.family import Family
from jaxglm.irls.problem import typed

MIDDLE = 0.5
PIECE = 2**18  # rows worked on at a time


def quantile_residuals(result: Any, seed: int, midpoint: bool) -> np.ndarray:
    """Of every row, in the rows' own shape; NaN where a row is not there or its fit has no estimates. Raises ValueError for
    a family without a distribution."""
    distribution = distribution_of(result.family)
    if distribution is None:
        raise ValueError(
            f"quantile residuals need a distribution, and the family {result.family.name!r} is none of jaxglm's that has "
            'one; look at residuals("deviance") or standardized residuals instead'
        )
    rows = fitted_rows(result, result._eta())
    places = np.full(rows.y.shape, MIDDLE) if midpoint else np.random.default_rng(seed).random(rows.y.shape)
    out = np.full(rows.y.shape, np.nan)
    present = np.flatnonzero(_present(rows))
    for begin in range(0, len(present), PIECE):
        part = present[begin : begin + PIECE]
        with np.errstate(all="ignore"):
            out.reshape(-1)[part] = scores(distribution.log_tails(some(rows, part)), places.reshape(-1)[part])
    return out


def scores(tails: LogTails, places: np.ndarray) -> np.ndarray:
    """Normal quantiles at places, between 0 and 1, in the intervals that responses cover; from the smaller tail."""
    inside = np.clip(places, 1e-16, 1.0 - 1e-16)
    low, high = np.log1p(-inside), np.log(inside)
    below = np.logaddexp(tails.before + low, tails.upto + high)
    above = np.logaddexp(tails.onward + low, tails.after + high)
    return np.where(below < above, special.ndtri_exp(below), -special.ndtri_exp(above))


def fitted_rows(result: Any, eta: np.ndarray) -> Rows:
    """Every row with its fitted mean, in the rows' own shape. eta: of the rows."""
    rows = result._rows()
    family = rows.family(result.family)
    mu, complement = _means(family, eta)
    codes = slice(None) if rows.codes is None else np.maximum(rows.codes, 0)
    dispersion = result.solution.dispersion[codes]
    return Rows(
        y=rows.rows(rows.y, 0.0),
        mu=mu,
        complement=complement,
        weights=rows.unit_weights(),
        dispersion=np.broadcast_to(dispersion[:, None] if rows.codes is None else dispersion, rows.shape),
        parameters={name: np.broadcast_to(np.asarray(value), rows.shape) for name, value in family.parameters.items()},
    )


@dataclass(frozen=True)
class Band:
    """Where n standard normal numbers lie when put in order, (n,): about their medians, and where 95 of 100 of each lie."""

    middle: np.ndarray
    low: np.ndarray
    high: np.ndarray


def normal_band(n: int) -> Band:
    """The band of n residuals under the right model: order statistics of uniform numbers are beta variables."""
    order = np.arange(1, n + 1)
    low, high = (special.ndtri(special.betaincinv(order, n - order + 1.0, chance)) for chance in (0.025, 0.975))
    return Band(special.ndtri((order - 0.375) / (n + 0.25)), low, high)


def some(rows: Rows, index: np.ndarray) -> Rows:
    """Some of the rows, by their numbers, (m,)."""

    def pick(values: np.ndarray) -> np.ndarray:
        return np.asarray(values.reshape(-1)[index], np.float64)

    named = ("y", "mu", "complement", "weights", "dispersion")
    return Rows(
        **{name: pick(getattr(rows, name)) for name in named}, parameters={k: pick(v) for k, v in rows.parameters.items()}
    )


def _present(rows: Rows) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        return (rows.weights > 0) & np.isfinite(rows.y) & ~np.isnan(rows.mu)


def _means(family: Family, eta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """mu and 1 - mu of each row."""
    with jax.enable_x64(True):
        mean = _mean(typed(family, np.float64), jnp.asarray(eta))
        return np.asarray(mean[0]), np.asarray(mean[1])


@jax.jit
def _mean(family: Family, eta: jax.Array) -> tuple[jax.Array, jax.Array]:
    mean = family.link.mean(eta)
    return mean.mu, mean.complement
