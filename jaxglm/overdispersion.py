"""Whether responses vary more than their family says: Pearson's statistic, and the score test against a mixture.

Pearson's statistic over the residual degrees of freedom is about 1 where the variance function is right. As a test against
chi-square it needs means that are not small; with rare events it can be anything. The score test asks for a variance of the
mean itself, tau mu^2 for counts and tau mu (1 - mu) for proportions, which is what a negative binomial or a beta-binomial
has. Its statistic is standard normal without overdispersion, large with it, and needs no fit but the one at hand:

    counts       sum of w ((y - mu)^2 - y) + h mu                                over the root of 2 sum of w mu^2
    proportions  sum of ((k - m mu)^2 + mu (k - m mu) - k (1 - mu)) / (mu (1 - mu)) + h m
                                                                                 over the root of 2 sum of m (m - 1)

with k successes in m trials, and hat values h for what the estimates took from the squares (the adjusted statistic). The
score of tau is uncorrelated with that of the coefficients, whatever the link, so that the variance needs no correction.
Single trials, m = 1, cannot tell: their statistic is NaN.

Sources: McCullagh and Nelder (1989), section 4.5; Dean and Lawless (1989); Dean, Testing for overdispersion in Poisson and
binomial regression models (1992), whose P_B' and N_B these are; DCluster's `DeanB2` in R.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import special

from jaxglm import log_likelihoods
from jaxglm.distributions import Rows
from jaxglm.family import Family


@dataclass(frozen=True)
class Score:
    """What a row adds to the numerator of the score test, and to the variance of that."""

    numerator: np.ndarray
    variance: np.ndarray


def of_counts(rows: Rows, hat: np.ndarray) -> Score:
    """For Poisson rows."""
    excess = rows.weights * ((rows.y - rows.mu) ** 2 - rows.y)
    return Score(excess + hat * rows.mu, 2.0 * rows.weights * rows.mu**2)


def of_proportions(rows: Rows, hat: np.ndarray) -> Score:
    """For binomial rows, whose weights are their trials."""
    trials, p, q = rows.weights, rows.mu, rows.complement
    successes = trials * rows.y
    left = successes - trials * p
    excess = (left**2 + p * left - successes * q) / (p * q)
    return Score(excess + hat * trials, 2.0 * trials * (trials - 1.0))


def score_of(family: Family) -> Callable[[Rows, np.ndarray], Score] | None:
    """The score test's rows for a family; None where there is no such test."""
    known: dict[Any, Callable[[Rows, np.ndarray], Score]] = {
        log_likelihoods.poisson: of_counts,
        log_likelihoods.binomial: of_proportions,
    }
    return known.get(family.log_likelihood)


def statistic(numerator: np.ndarray, variance: np.ndarray) -> np.ndarray:
    """The standard normal statistic; NaN where nothing can be told."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(variance > 0, numerator / np.sqrt(np.where(variance > 0, variance, 1.0)), np.nan)


def upper_p_values(statistics: np.ndarray) -> np.ndarray:
    """Of standard normal statistics, one-sided: for more, not for less."""
    return special.ndtr(-statistics)


def pearson_p_values(chi_square: np.ndarray, degrees: np.ndarray) -> np.ndarray:
    """The chance of a chi-square at least as large; NaN without degrees of freedom."""
    return np.where(degrees > 0, special.chdtrc(np.where(degrees > 0, degrees, 1.0), chi_square), np.nan)
