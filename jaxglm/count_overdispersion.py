"""How the likelihood of negative binomial counts changes with their overdispersion alpha = 1 / theta.

With alpha in place of theta, Poisson is the point alpha = 0 and not a limit at infinity. A count y of mean mu has

    log p = sum over j < y of log(1 + alpha j)  -  (y + 1 / alpha) log(1 + alpha mu)  +  y log mu  -  log y!

whose derivative by alpha is

    sum over j < y of j / (1 + alpha j)  +  mu^2 phi(alpha mu)  -  y mu / (1 + alpha mu),
    phi(x) = (log(1 + x) - x / (1 + x)) / x^2,

at alpha = 0 half of (y - mu)^2 - y. In textbooks the sum is a difference of digamma functions and phi a difference of
logarithms, which keep no digit where alpha mu is small. Here the sum is by Stirling's series, small theta moved up by the
recurrence, with the terms that cancel taken out, and so is phi; both are valid for any y >= 0, whole or not.

Sources: Lawless, Negative binomial and mixed Poisson regression (1987); Abramowitz and Stegun 6.3.5 and 6.3.18.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array

from jaxglm.logarithms import log

_SERIES = (1 / 120, -1 / 252, 1 / 240, -1 / 132, 691 / 32760, -1 / 12, 3617 / 8160)  # digamma's, from the fourth power on
_SHIFT = 10  # thetas below are moved up by so much
_NEAR = 0.5  # up to here logarithms are by a series
_TERMS = 11  # of that series, for all digits


def score(y: Array, mu: Array, alpha: Array) -> tuple[Array, Array]:
    """The derivative by alpha >= 0 of the log-likelihood of counts y of means mu, and its derivative by alpha.

    >>> import jax
    >>> import jax.numpy as jnp
    >>> with jax.enable_x64(True):
    ...     first, second = score(jnp.asarray(3.0), jnp.asarray(1.0), jnp.asarray(0.0))
    >>> float(first), round(float(second), 12)
    (0.5, -2.666666666667)
    """

    def first(a: Array) -> Array:
        x = a * mu
        return sum_below(y, a) + mu * mu * phi(x) - y * (mu / (1.0 + x))

    return jax.jvp(first, (alpha,), (jnp.ones_like(alpha),))


def sum_below(y: Array, alpha: Array) -> Array:
    """The sum over whole j < y of j / (1 + alpha j), continued to all y >= 0."""
    low = alpha * _SHIFT > 1.0
    theta = 1.0 / jnp.where(low, alpha, 1.0)
    above = _by_series(y, alpha / (1.0 + jnp.where(low, _SHIFT, 0.0).astype(y.dtype) * alpha))
    # theta y - theta^2 (digamma(y + theta) - digamma(theta)), the digammas by those at theta + 10.
    steps = sum(1.0 / ((theta + k) * (y + theta + k)) for k in range(_SHIFT))
    up = theta + _SHIFT
    share = theta / up
    moved = share * share * above + y * theta * (1.0 - theta * steps - share)
    return jnp.where(low, moved, above)


def _by_series(y: Array, alpha: Array) -> Array:
    """`sum_below` for alpha up to 0.1."""
    z = alpha * y
    inverse = 1.0 / (1.0 + z)
    square, a2 = inverse * inverse, alpha * alpha
    more, power, scale = jnp.zeros_like(z), square, jnp.ones_like(alpha)
    for term in _SERIES:
        power, scale = power * square, scale * a2
        more = more + term * scale * (1.0 - power)
    return y * y * _chi(z) - 0.5 * y * inverse - z * (2.0 + z) * square / 12.0 + more


def phi(x: Array) -> Array:
    """(log(1 + x) - x / (1 + x)) / x^2 for x >= 0, 1/2 at 0."""
    near, u, series, x, logarithm = _parts(x)
    small = 0.5 * (1.0 - u) ** 2 * (1.0 / (1.0 + u) + series)
    return jnp.where(near, small, (logarithm - x / (1.0 + x)) / (x * x))


def _chi(x: Array) -> Array:
    """(x - log(1 + x)) / x^2 for x >= 0, 1/2 at 0."""
    near, u, series, x, logarithm = _parts(x)
    small = 0.5 * (1.0 - u) ** 2 * (1.0 / (1.0 - u) - series)
    return jnp.where(near, small, (x - logarithm) / (x * x))


def _parts(x: Array) -> tuple[Array, Array, Array, Array, Array]:
    """Whether x is small; if so u = x / (2 + x) and the sum over k > 0 of u^(2k-1) / (2k+1), which is
    (log(1 + x) / 2u - 1) / u; if not x itself and log(1 + x)."""
    near = x < _NEAR
    u = jnp.where(near, x, 0.0)
    u = u / (2.0 + u)
    square, series = u * u, jnp.zeros_like(u)
    for k in range(_TERMS, 0, -1):
        series = series * square + 1.0 / (2 * k + 1)
    far = jnp.where(near, 1.0, x)
    return near, u, u * series, far, log(1.0 + far)
