"""Unit deviances that do not cancel.

A unit deviance is twice the gap between a row's saturated log-likelihood and its log-likelihood. Written out, it is a
difference of large numbers that nearly agree when y is near mu; a count of 1e8 with a residual of 1e2 keeps no digit of
`y * log(y / mu) - (y - mu)`. The forms here keep their relative accuracy for all y and mu; the idea is the deviance part
of Loader, Fast and accurate computation of binomial probabilities (2000), which R's `dpois` and `dbinom` use.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array

from jaxglm.links import ArrayLike
from jaxglm.logarithms import atanh_series, log, log_of_normal


@jax.jit
def relative_entropy(y: Array, mu: Array, log_mu: Array) -> Array:
    """y log(y / mu) - y + mu for y >= 0 and mu > 0, the common piece of Poisson, binomial, gamma and other deviances.

    Near y = mu it is summed as a series in v = (y - mu) / (y + mu).
    `log_mu` is log(mu), which links often know better than `jnp.log(mu)`.
    """
    total = y + mu
    gap = y - mu
    near = jnp.abs(gap) < 0.1 * total
    v = gap / jnp.where(total > 0, total, 1.0)
    v = jnp.where(near, v, 0.0)
    positive = y > 0
    ratio = log_of_normal(jnp.where(positive, y, 1.0)) - jnp.where(positive & ~near, log_mu, 0.0)
    return jnp.where(near, gap * v + 2.0 * y * v * atanh_series(v * v), jnp.where(positive, y * ratio, 0.0) - gap)


def gamma_deviance(y: Array, mean_mu: Array) -> Array:
    """2 (y / mu - 1 - log(y / mu)) for y > 0 and mu > 0."""
    return 2.0 * relative_entropy(mean_mu, y, log(y)) / mean_mu


_DIGAMMA = (1 / 12, -1 / 120, 1 / 252, -1 / 240, 1 / 132, -691 / 32760, 1 / 12)
_SHIFT = 12  # from here on the series has all digits


def expected_gamma_deviance(precision: Array) -> Array:
    """The mean of the gamma deviance of a row with this precision a, prior weight over dispersion: 2 (log a - digamma(a)).

    By the asymptotic series of digamma, small arguments moved up by its recurrence (Abramowitz and Stegun 6.3.18, 6.3.5).
    """
    small = precision < _SHIFT
    low = jnp.where(small, precision, 1.0)
    inverse = 1.0 / jnp.where(small, precision + _SHIFT, precision)
    square = inverse * inverse
    series = jnp.zeros_like(inverse)
    for term in reversed(_DIGAMMA):
        series = series * square + term
    moved = sum((1.0 / (low + k) for k in range(_SHIFT)), -jnp.log1p(_SHIFT / low))
    return 2.0 * (0.5 * inverse + series * square + jnp.where(small, moved, 0.0))


def power_deviance(y: Array, mu: Array, log_mu: Array, power: ArrayLike) -> Array:
    """The unit deviance of the variance function V(mu) = mu^power, continuous in power, for y >= 0 and mu > 0.

    2 (y (y^(1-k) - mu^(1-k)) / (1-k) - (y^(2-k) - mu^(2-k)) / (2-k)), with the limits k = 1 (Poisson) and k = 2 (gamma).
    At y = 0 it is finite for k < 2 only. Source: Jorgensen, The Theory of Dispersion Models (1997), chapter 4.
    """
    positive = y > 0
    log_ratio = jnp.where(positive, jnp.log(jnp.where(positive, y, 1.0)) - log_mu, 0.0)

    def growth(exponent: Array) -> Array:
        # (y^q - mu^q) / (q mu^q), by expm1; q -> 0 gives log(y / mu).
        flat = jnp.abs(exponent) < 1e-12
        safe = jnp.where(flat, 1.0, exponent)
        return jnp.where(flat, log_ratio, jnp.expm1(safe * log_ratio) / safe)

    first, second = jnp.asarray(1.0 - power, mu.dtype), jnp.asarray(2.0 - power, mu.dtype)
    inside = y * mu**first * growth(first) - mu**second * growth(second)
    at_zero = mu**second / jnp.where(second > 0, second, jnp.nan)
    return 2.0 * jnp.where(positive, inside, at_zero)


EXPECTED_DEVIANCES = {  # of families whose deviance is their likelihood's, by the precision of a row
    "gaussian": jnp.reciprocal,
    "inverse_gaussian": jnp.reciprocal,
    "gamma": expected_gamma_deviance,
}
