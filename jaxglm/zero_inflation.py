"""Whether counts hold more zeros than their distribution says.

The expected number of zeros is the sum of each row's fitted probability p of one. Two statistics, both standard normal if
the distribution is right and positive with too many zeros, are made from scores of rows u, whose sum is

    the excess    u = 1{y = 0} - p              observed less expected, with the variance p (1 - p)
    the score     u = 1{y = 0}/p - 1            of a share of rows that are zero whatever their mean is: (1 - p)/p

each weighted by a share f of the odds, 1 or 1/p. What the estimates took away is c' (X'WX)^-1 c, where c = X'(f p s w) with
the score s of eta at a response of zero, and is subtracted from the variance. A weight counts as that many equal rows.

The score test is locally the best against a constant share, and for a Poisson fit of an intercept its square is van den
Broek's statistic. Where means differ widely it listens nearly only to the rows whose zeros are least likely, and may miss
an excess that anyone sees in the numbers; the other does not, and is the one that the verdict goes by. A negative binomial
whose theta was estimated is taken as if that were known.

Sources: van den Broek, A score test for zero inflation in a Poisson distribution (1995), and vcdExtra's `zero.test` in R; He,
Zhang, Ye and Tang, A test of inflated zeros for Poisson regression models (2019).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxglm import wald
from jaxglm.family import Family
from jaxglm.irls.problem import typed

LEAST = 1e-250  # a probability below this counts as this much, so that sums of 1/p are finite


@dataclass(frozen=True)
class Terms:
    """What each row adds to a statistic: to its numerator, to its variance, and to c what is to be multiplied with X."""

    numerator: np.ndarray
    variance: np.ndarray
    pull: np.ndarray


def excess_terms(zero: np.ndarray, log_p: np.ndarray, score: np.ndarray, weights: np.ndarray) -> Terms:
    """Of the excess. zero: whether y is 0; log_p: of the probability of that; score: of eta at zero."""
    p = np.exp(log_p)
    return Terms(weights * (zero - p), weights * p * -np.expm1(log_p), p * score)


def score_terms(zero: np.ndarray, log_p: np.ndarray, score: np.ndarray, weights: np.ndarray) -> Terms:
    """Of the score, with the same arguments."""
    odds = np.expm1(-np.maximum(log_p, np.log(LEAST)))
    return Terms(weights * np.where(zero, odds, -1.0), weights * odds, score)


def statistic(numerator: np.ndarray, variance: np.ndarray, taken: np.ndarray) -> np.ndarray:
    """The standard normal statistic; taken: c'(X'WX)^-1 c. NaN where what is left of the variance is rounding."""
    left = variance - taken
    sound = left > 1e-10 * variance
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(sound, numerator / np.sqrt(np.where(sound, left, 1.0)), np.nan)


def p_values(statistics: np.ndarray) -> np.ndarray:
    """For too many and too few: the square is chi-square with one degree of freedom."""
    return wald.p_values(statistics, None)


def scores_of_zero(family: Family, eta: np.ndarray) -> np.ndarray:
    """The score of eta at a response of zero, by weight 1, and 0 at a limit. family: its parameters broadcast against eta."""
    with jax.enable_x64(True):
        found: Any = _scores(typed(family, np.float64), jnp.asarray(np.where(np.isinf(eta), np.nan, eta)))
        return np.where(np.isinf(eta), 0.0, np.asarray(found))


@jax.jit
def _scores(family: Family, eta: jax.Array) -> jax.Array:
    return family.score_at(jnp.zeros_like(eta), family.link.mean(eta))
