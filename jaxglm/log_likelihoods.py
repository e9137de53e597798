"""Log-likelihoods of rows, with R's constants, so that AIC agrees with R.

Each takes y, the `Mean` at its eta, prior weights and the dispersion, all by rows. Where R rounds a binomial response to
whole successes, ours uses the gamma function, and so agrees wherever the response is whole. Sources: R's `family`
objects (`aic`) and `logLik.glm`; MASS's `negative.binomial`.
"""

from __future__ import annotations

import math

import jax.numpy as jnp
from jax import Array
from jax.scipy.special import gammaln

from jaxglm.links import ArrayLike, Mean
from jaxglm.logarithms import log, log1p, log_factorial


def gaussian(y: Array, mean: Mean, weights: Array, dispersion: ArrayLike) -> Array:
    """The normal density."""
    residual = weights * (y - mean.mu) ** 2
    scaled = jnp.where(residual > 0, residual / dispersion, 0.0)  # a perfect fit has dispersion 0
    return -0.5 * (jnp.log(2.0 * math.pi * dispersion) - jnp.log(weights) + scaled)


def binomial(y: Array, mean: Mean, weights: Array, dispersion: ArrayLike) -> Array:
    """weights y successes in `weights` trials."""
    successes, failures = weights * y, weights * (1.0 - y)
    choose = log_factorial(weights) - log_factorial(successes) - log_factorial(failures)
    return choose + _times_log(successes, mean.log_mu) + _times_log(failures, mean.log_complement)


def _times_log(count: Array, log_value: Array) -> Array:
    """count * log_value, 0 where count is 0 whatever the logarithm."""
    return jnp.where(count > 0, count * jnp.where(count > 0, log_value, 0.0), 0.0)


def poisson(y: Array, mean: Mean, weights: Array, dispersion: ArrayLike) -> Array:
    """Counts of mean mu."""
    return weights * (_times_log(y, mean.log_mu) - mean.mu - log_factorial(y))


def gamma(y: Array, mean: Mean, weights: Array, dispersion: ArrayLike) -> Array:
    """The gamma density with shape 1 / dispersion."""
    shape = 1.0 / dispersion
    scaled = y / mean.mu
    return weights * (shape * (jnp.log(shape) + jnp.log(scaled) - scaled) - jnp.log(y) - gammaln(shape))


def inverse_gaussian(y: Array, mean: Mean, weights: Array, dispersion: ArrayLike) -> Array:
    """The inverse Gaussian density."""
    deviance = ((y - mean.mu) / mean.mu) ** 2 / y
    return -0.5 * weights * (jnp.log(2.0 * math.pi * dispersion) + 3.0 * jnp.log(y) + deviance / dispersion)


def negative_binomial(y: Array, mean: Mean, weights: Array, dispersion: ArrayLike, theta: ArrayLike) -> Array:
    """Counts of variance mu + mu^2 / theta; Poisson where theta is infinite."""
    finite = jnp.isfinite(theta)
    theta = jnp.where(finite, theta, 1.0) * jnp.ones_like(y)
    mixed = _log_rising(y, theta) - log_factorial(y) + _times_log(y, mean.log_mu) - (y + theta) * log1p(mean.mu / theta)
    return jnp.where(finite, weights * mixed, poisson(y, mean, weights, dispersion))


def _log_rising(y: Array, theta: Array) -> Array:
    """lgamma(y + theta) - lgamma(theta) - y log(theta), by Stirling's series where the difference would cancel."""
    large = theta >= 30.0
    big = jnp.where(large, theta, 30.0)

    def correction(x: Array) -> Array:
        square = 1.0 / (x * x)
        return (1.0 / 12.0 - square * (1.0 / 360.0 - square * (1.0 / 1260.0 - square / 1680.0))) / x

    stirling = (big + y - 0.5) * log1p(y / big) - y + correction(big + y) - correction(big)
    small = jnp.where(large, 1.0, theta)
    rising = log_factorial(y + small) - log(y + small) - log_factorial(small) + log(small)
    return jnp.where(large, stirling, rising - y * log(small))
