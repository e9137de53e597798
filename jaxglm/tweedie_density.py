"""The density of Tweedie responses of a power between 1 and 2: a Poisson number of gamma variables, and its limit, gamma.

A row of mean mu, power p and dispersion phi, divided by its prior weight, is zero with probability exp(-l), where l, the mean
of the Poisson number, is mu^(2-p) / (phi (2-p)). Elsewhere the density is a series over that number, which has no closed form.
It belongs to y alone once the deviance is taken out,

    log f(y; mu) = log f(y; y) - d(y, mu) / 2 phi,

and at mu = y every term is a Poisson probability times a gamma density, which in Loader's form lose no digits:

    f(y; y) = sqrt(a) / (2 pi y)  sum over j > 0 of exp(-(1 + a) D(j, l) - S(j) - S(a j)),

with a = (2 - p) / (p - 1) the shape of each gamma variable, D the relative entropy j log(j / l) - j + l, and S what Stirling's
formula leaves of log j!. The largest terms are those around l = y^(2-p) / (phi (2-p)), and they fall like a normal
distribution of variance l (p - 1). Where that is wide, one in so many terms is enough: to all digits the sum is the
integral, and so is a sum over a wider grid (the trapezoidal rule of a smooth function that has vanished at both ends). So
there are never more than `MOST` terms, whatever y and phi.

Derivatives by log(phi) are moments of j under these terms. At p = 2 the density is that of a gamma variable.

Sources: Dunn and Smyth, Series evaluation of Tweedie exponential dispersion model densities (2005), whose series this is;
Loader, Fast and accurate computation of binomial probabilities (2000); Trefethen and Weideman, The exponentially convergent
trapezoidal rule (2014).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import Array
from jax.scipy.special import digamma, polygamma

from jaxglm.deviances import relative_entropy
from jaxglm.logarithms import log, log_factorial

MOST = 96  # terms of a series
BELOW, ABOVE = 8.5, 11.0  # standard deviations of j around its peak that hold all but the last digits
NEXT_TO = 1e-6  # of power 2, from where on the series is not looked at
_STIRLING = (1 / 12, -1 / 360, 1 / 1260, -1 / 1680, 1 / 1188, -691 / 360360, 1 / 156)
_FAR = 8.0  # from here on that series has all digits


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Saturated:
    """log f(y; mu = y) of rows, (n,), and its first two derivatives by log(phi)."""

    value: Array
    first: Array
    second: Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class _Sums:
    """Of terms: their sum, and the sums of the terms times j - l and its square."""

    one: Array
    gap: Array
    square: Array


def saturated(y: Array, precision: Array, power: Array) -> Saturated:
    """Rows at mu = y >= 0. precision: prior weight over dispersion, (n,); power: in (1, 2), or 2, a scalar.

    >>> import jax
    >>> import jax.numpy as jnp
    >>> with jax.enable_x64(True):
    ...     found = saturated(jnp.asarray([0.0, 2.0]), jnp.ones(2), jnp.asarray(1.5))
    >>> [round(float(value), 6) for value in found.value]
    [0.0, -1.512185]
    """
    positive = y > 0
    safe = jnp.where(positive, y, 1.0)
    compound = _compound(safe, precision, jnp.minimum(power, 2.0 - NEXT_TO))
    limit = _gamma(safe, precision)
    return jax.tree.map(lambda a, b: jnp.where(positive, jnp.where(power < 2.0, a, b), 0.0), compound, limit)


def stirling_remainder(x: Array) -> Array:
    """log x! - (x + 1/2) log x + x - log(2 pi) / 2, for x > 0."""
    far = x >= _FAR
    near = jnp.where(far, 1.0, x)
    exact = log_factorial(near) - (near + 0.5) * log(near) + near - 0.5 * math.log(2.0 * math.pi)
    inverse = 1.0 / jnp.where(far, x, _FAR)
    square, series = inverse * inverse, jnp.zeros_like(x)
    for term in reversed(_STIRLING):
        series = series * square + term
    return jnp.where(far, series * inverse, exact)


def _compound(y: Array, precision: Array, power: Array) -> Saturated:
    """Of positive rows, 1 < power < 2."""
    shape = (2.0 - power) / (power - 1.0)
    peak = precision * y ** (2.0 - power) / (2.0 - power)
    log_peak = log(peak)

    def term(j: Array) -> Array:
        return -(1.0 + shape) * relative_entropy(j, peak, log_peak) - stirling_remainder(j) - stirling_remainder(shape * j)

    # Where the terms lie changes nothing, so that derivatives are at fixed places.
    at = jax.lax.stop_gradient(peak)
    spread = jnp.sqrt(at * jax.lax.stop_gradient(power - 1.0))
    first = jnp.maximum(1.0, jnp.floor(at - BELOW * spread - 1.0))
    width = at + ABOVE * spread + 8.0 - first
    stride = jnp.maximum(1.0, width / (MOST - 1))
    count = jnp.minimum(jnp.ceil(jnp.max(width / stride, initial=1.0)) + 1.0, MOST).astype(jnp.int32)
    lower = jnp.maximum(jnp.floor(at), 1.0)
    largest = jax.lax.stop_gradient(jnp.maximum(term(lower), term(lower + 1.0)))

    def add(k: Array, sums: _Sums) -> _Sums:
        j = first + k.astype(y.dtype) * stride
        part, gap = jnp.exp(term(j) - largest), j - peak
        return _Sums(sums.one + part, sums.gap + gap * part, sums.square + gap * gap * part)

    zero = jnp.zeros_like(peak)
    sums = jax.lax.fori_loop(0, count, add, _Sums(zero, zero, zero))
    mean = sums.gap / sums.one
    variance = sums.square / sums.one - mean * mean
    value = largest + log(sums.one * stride) + 0.5 * log(shape) - math.log(2.0 * math.pi) - log(y)
    slow = 1.0 + shape
    return Saturated(value, -slow * mean, slow * (slow * variance - peak))


def _gamma(y: Array, precision: Array) -> Saturated:
    """Of gamma rows, whose shape is the precision."""
    gap = precision * (log(precision) - digamma(precision))
    value = precision * log(precision) - precision - log_factorial(precision) + log(precision) - log(y)
    return Saturated(value, -gap, gap + precision * (1.0 - precision * polygamma(1, precision)))
