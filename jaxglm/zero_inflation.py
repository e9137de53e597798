"""Whether counts hold more zeros than their distribution says.

The expected number is the sum of each row's fitted probability of a zero. The score test asks for a share of rows that are
zero whatever their mean is. With p the probability of a zero, s the score of eta at a response of zero, and weights that
count as equal rows,

    S = sum of w (1{y = 0}/p - 1),        V = sum of w (1/p - 1) - c' (X'WX)^-1 c,        c = X' (w s)

and S^2 / V is chi-square with one degree of freedom. Its signed root is given: positive with too many zeros. For a Poisson
fit of an intercept this is van den Broek's statistic; the same holds for any distribution of counts whose shape is known. A
negative binomial whose theta was estimated is taken as if that were known.

Source: van den Broek, A score test for zero inflation in a Poisson distribution (1995); vcdExtra's `zero.test` in R.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxglm import wald
from jaxglm.family import Family
from jaxglm.irls.problem import typed

LEAST = 1e-250  # a probability below this counts as this much, so that sums of 1/p are finite


def probability_terms(y: np.ndarray, log_p: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What each row adds to S, and to the first part of V. log_p: of its probability of a zero."""
    odds = np.expm1(-np.maximum(log_p, np.log(LEAST)))
    return weights * np.where(y == 0, odds, -1.0), weights * odds


def statistic(score: np.ndarray, variance: np.ndarray, taken: np.ndarray) -> np.ndarray:
    """The signed root; taken: c'(X'WX)^-1 c. NaN where what is left of the variance is rounding."""
    left = variance - taken
    sound = left > 1e-10 * variance
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(sound, score / np.sqrt(np.where(sound, left, 1.0)), np.nan)


def p_values(statistics: np.ndarray) -> np.ndarray:
    """Of S^2 / V, chi-square with one degree of freedom: for too many and too few."""
    return wald.p_values(statistics, None)


def scores_of_zero(family: Family, eta: np.ndarray) -> np.ndarray:
    """The score of eta at a response of zero, 0 at a limit. family: its parameters broadcast against eta."""
    with jax.enable_x64(True):
        found: Any = _scores(typed(family, np.float64), jnp.asarray(np.where(np.isinf(eta), np.nan, eta)))
        return np.where(np.isinf(eta), 0.0, np.asarray(found))


@jax.jit
def _scores(family: Family, eta: jax.Array) -> jax.Array:
    return family.score_at(jnp.zeros_like(eta), family.link.mean(eta))
