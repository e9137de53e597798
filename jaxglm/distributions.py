"""The distributions behind the families: how probable is a response as small, or as large, as this one.

A `Distribution` gives the logarithms of four probabilities of a row: P(Y < y), P(Y <= y), P(Y >= y), P(Y > y). Both sides
are given, and as logarithms, so that a response far out on either keeps its digits. Quasi families have no distribution.

What the prior weight w of a row means is what its likelihood makes of it: the trials of a binomial row, of which w y are
successes; the dispersion of a continuous response is phi / w; and a count with weight w is w equal rows, so that the
distribution of each is not changed by it. A response that should be whole and is not counts as the whole number below, as in
R's distribution functions.

Sources: R's `pbinom`, `ppois`, `pnbinom`, `pgamma`; statmod's `pinvgauss` (Giner and Smyth 2016); Dunn and Smyth (2005)
for the Tweedie series.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import special

from jaxglm import log_likelihoods
from jaxglm.family import Family
from jaxglm.log_tails import log_beta_lower, log_gamma_lower, log_gamma_upper

FUZZ = 1e-7  # what a whole number may lack, as in R
WIDE = 12.0  # standard deviations of a Poisson number that a series takes in
BLOCK = 2**20  # terms of a series worked on at a time
LONGEST = 200_000  # terms of a series


@dataclass(frozen=True)
class Rows:
    """What the distribution of a row depends on, arrays of one shape. complement: 1 - mu; weights: prior; dispersion: of
    the row's fit; parameters: of the family, theta or power."""

    y: np.ndarray
    mu: np.ndarray
    complement: np.ndarray
    weights: np.ndarray
    dispersion: np.ndarray
    parameters: dict[str, np.ndarray]


@dataclass(frozen=True)
class LogTails:
    """Logarithms of P(Y < y), P(Y <= y), P(Y >= y) and P(Y > y)."""

    before: np.ndarray
    upto: np.ndarray
    onward: np.ndarray
    after: np.ndarray


@dataclass(frozen=True)
class Distribution:
    """log_tails: of rows; likelihood: the log-likelihood of the family it belongs to; log_zero: of counts without an upper
    end, the logarithm of the probability of none; trials: whether prior weights are trials."""

    log_tails: Callable[[Rows], LogTails]
    likelihood: Any = None
    log_zero: Callable[[Rows], np.ndarray] | None = None
    trials: bool = False


def distribution_of(family: Family) -> Distribution | None:
    """The distribution of a family's responses; None where it has none, or where it is a family of one's own."""
    found = _NAMED.get(family.name)
    return found if found is not None and found.likelihood is family.log_likelihood else None


def _continuous(lower: np.ndarray, upper: np.ndarray) -> LogTails:
    return LogTails(lower, lower, upper, upper)


def _gaussian(rows: Rows) -> LogTails:
    z = (rows.y - rows.mu) * np.sqrt(rows.weights / rows.dispersion)
    return _continuous(special.log_ndtr(z), special.log_ndtr(-z))


def _binomial(rows: Rows) -> LogTails:
    n = rows.weights
    k = np.minimum(np.floor(n * rows.y + FUZZ), n)
    p, q = rows.mu, rows.complement
    return LogTails(
        before=np.where(k > 0, log_beta_lower(n - k + 1.0, k, q, p), -np.inf),
        upto=np.where(k < n, log_beta_lower(n - k, k + 1.0, q, p), 0.0),
        onward=np.where(k > 0, log_beta_lower(k, n - k + 1.0, p, q), 0.0),
        after=np.where(k < n, log_beta_lower(k + 1.0, n - k, p, q), -np.inf),
    )


def _poisson(rows: Rows) -> LogTails:
    return _poisson_tails(np.floor(rows.y + FUZZ), rows.mu)


def _poisson_tails(k: np.ndarray, mu: np.ndarray) -> LogTails:
    return LogTails(
        before=np.where(k > 0, log_gamma_upper(np.maximum(k, 1.0), mu), -np.inf),
        upto=log_gamma_upper(k + 1.0, mu),
        onward=np.where(k > 0, log_gamma_lower(np.maximum(k, 1.0), mu), 0.0),
        after=log_gamma_lower(k + 1.0, mu),
    )


def _negative_binomial(rows: Rows) -> LogTails:
    theta = rows.parameters["theta"]
    finite = np.isfinite(theta)
    size = np.where(finite, theta, 1.0)
    k, total = np.floor(rows.y + FUZZ), size + rows.mu
    p, q, some = size / total, rows.mu / total, np.maximum(k, 1.0)
    mixed = LogTails(
        before=np.where(k > 0, log_beta_lower(size, some, p, q), -np.inf),
        upto=log_beta_lower(size, k + 1.0, p, q),
        onward=np.where(k > 0, log_beta_lower(some, size, q, p), 0.0),
        after=log_beta_lower(k + 1.0, size, q, p),
    )
    return mixed if finite.all() else _chosen(finite, mixed, _poisson(rows))


def _negative_binomial_zero(rows: Rows) -> np.ndarray:
    theta = rows.parameters["theta"]
    size = np.where(np.isfinite(theta), theta, 1.0)
    return np.where(np.isfinite(theta), -size * np.log1p(rows.mu / size), -rows.mu)


def _gamma(rows: Rows) -> LogTails:
    shape = rows.weights / rows.dispersion
    x = shape * rows.y / rows.mu
    return _continuous(log_gamma_lower(shape, x), log_gamma_upper(shape, x))


def _inverse_gaussian(rows: Rows) -> LogTails:
    q, phi = rows.y / rows.mu, rows.dispersion * rows.mu / rows.weights  # of mean 1
    size = np.sqrt(phi * q)
    lower, upper = special.log_ndtr((q - 1.0) / size), special.log_ndtr((1.0 - q) / size)
    reflected = 2.0 / phi + special.log_ndtr(-(q + 1.0) / size)
    with np.errstate(divide="ignore"):
        above = upper + np.log1p(-np.exp(np.minimum(reflected - upper, 0.0)))
    far = (q > 1e6) & (0.5 * q / phi > 5e5)  # there the two terms are the same to all digits
    limit = 1.0 / phi - 0.5 * np.log(np.pi) - np.log(2.0 * phi) - 1.5 * np.log1p(0.5 * q / phi) - 0.5 * q / phi
    return _continuous(lower + np.log1p(np.exp(reflected - lower)), np.where(far, limit, above))


def _tweedie(rows: Rows) -> LogTails:
    """Power 1: a multiple of a Poisson number; between 1 and 2: a Poisson number of gamma variables; 2: gamma; 3: inverse
    Gaussian. For other powers there is no formula, and the probabilities are NaN."""
    power = rows.parameters["power"]
    nothing = np.full(np.shape(rows.y), np.nan)
    found = _continuous(nothing, nothing)
    ratio = rows.weights / rows.dispersion
    known = {
        1.0: lambda: _poisson_tails(np.floor(rows.y * ratio + FUZZ), rows.mu * ratio),
        2.0: lambda: _gamma(rows),
        3.0: lambda: _inverse_gaussian(rows),
    }
    for value, tails in known.items():
        if np.any(power == value):
            found = _chosen(power == value, tails(), found)
    compound = (power > 1.0) & (power < 2.0) & np.isfinite(rows.mu * ratio) & (rows.mu >= 0)
    if compound.any():
        at = [np.broadcast_to(values, nothing.shape)[compound] for values in (rows.y, rows.mu, ratio, power)]
        found = _placed(compound, _compound(*at), found)
    return found


def _compound(y: np.ndarray, mu: np.ndarray, ratio: np.ndarray, power: np.ndarray) -> LogTails:
    """Of a Poisson number N of gamma variables, (m,): sums over N, which is taken from around its mean to around the N that
    makes y most probable."""
    mean = ratio * mu ** (2.0 - power) / (2.0 - power)
    shape = (2.0 - power) / (power - 1.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        x = np.where(y > 0, y * ratio / ((power - 1.0) * mu ** (power - 1.0)), 0.0)
    peak = ratio * y ** (2.0 - power) / (2.0 - power)
    low, high = np.minimum(mean, peak), np.maximum(mean, peak)
    first = np.floor(np.maximum(1.0, low - WIDE * np.sqrt(low) - 20.0))
    count = np.minimum(np.ceil(high + WIDE * np.sqrt(high) + 20.0 - first), LONGEST)
    lower, upper = np.where(np.isfinite(mean), -mean, np.nan), np.full(len(y), -np.inf)
    step = max(1, BLOCK // max(1, len(y)))
    for begin in range(0, int(np.max(count, initial=0.0)), step):
        n = first[:, None] + np.arange(begin, begin + step)
        with np.errstate(divide="ignore", invalid="ignore"):
            chance = np.where(mean[:, None] > 0, n * np.log(mean)[:, None] - mean[:, None] - special.gammaln(n + 1.0), -np.inf)
            less, more = log_gamma_lower(n * shape[:, None], x[:, None]), log_gamma_upper(n * shape[:, None], x[:, None])
            lower = np.logaddexp(lower, special.logsumexp(chance + less, axis=1))
            upper = np.logaddexp(upper, special.logsumexp(chance + more, axis=1))
    none = y <= 0
    return LogTails(
        before=np.where(none, -np.inf, np.minimum(lower, 0.0)),
        upto=np.minimum(np.where(none, -mean, lower), 0.0),
        onward=np.where(none, 0.0, np.minimum(upper, 0.0)),
        after=np.where(none, np.log(-np.expm1(-np.maximum(mean, 1e-300))), np.minimum(upper, 0.0)),
    )


def _chosen(first: np.ndarray, one: LogTails, other: LogTails) -> LogTails:
    """One where flagged, else the other."""
    return LogTails(*(np.where(first, getattr(one, f), getattr(other, f)) for f in LogTails.__dataclass_fields__))


def _placed(where: np.ndarray, part: LogTails, whole: LogTails) -> LogTails:
    """The whole with a part put in where flagged."""

    def put(name: str) -> np.ndarray:
        out = np.array(getattr(whole, name))
        out[where] = getattr(part, name)
        return out

    return LogTails(*(put(name) for name in LogTails.__dataclass_fields__))


_NAMED = {
    "gaussian": Distribution(_gaussian, log_likelihoods.gaussian),
    "binomial": Distribution(_binomial, log_likelihoods.binomial, trials=True),
    "poisson": Distribution(_poisson, log_likelihoods.poisson, lambda rows: -rows.mu),
    "gamma": Distribution(_gamma, log_likelihoods.gamma),
    "inverse_gaussian": Distribution(_inverse_gaussian, log_likelihoods.inverse_gaussian),
    "negative_binomial": Distribution(_negative_binomial, log_likelihoods.negative_binomial, _negative_binomial_zero),
    "tweedie": Distribution(_tweedie),
}
