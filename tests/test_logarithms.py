"""Fast logarithms against many digits, and at the edges."""

import math
from decimal import Decimal, localcontext

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from jaxglm.logarithms import log, log1p, log_factorial, log_of_normal

RNG = np.random.default_rng(4)


def ulps(found, x):
    """The distance from the logarithm of x, in units in the last place of `found`'s type."""
    with localcontext() as context:
        context.prec = 40
        off = [Decimal(float(f)) - Decimal(float(value)).ln() for f, value in zip(found, x, strict=True)]
        return max(abs(o) / Decimal(float(np.spacing(np.abs(f)))) for o, f in zip(off, found, strict=True))


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_log_has_all_digits(x64, dtype):
    tiny, huge = np.finfo(dtype).tiny, np.finfo(dtype).max
    near_one = 1.0 + RNG.normal(size=200) * 10.0 ** RNG.uniform(-12, -1, 200)
    powers = 2.0 ** np.arange(-20, 20)
    spread = np.exp(RNG.uniform(math.log(tiny), math.log(huge), 500))
    edges = [tiny, huge, math.sqrt(2.0), math.sqrt(0.5), math.e]
    x = np.concatenate([near_one, powers, powers * (1 - np.finfo(dtype).eps), spread, edges]).astype(dtype)
    x = x[x != 1]
    found = np.asarray(log(jnp.asarray(x)))
    assert found.dtype == dtype
    assert ulps(found, x) <= 2
    assert ulps(np.asarray(log_of_normal(jnp.asarray(x))), x) <= 2


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_log_at_the_edges(x64, dtype):
    x = jnp.asarray([0.0, -0.0, 1.0, np.inf, -1.0, -np.inf, np.nan], dtype)
    np.testing.assert_array_equal(log(x), [-np.inf, -np.inf, 0.0, np.inf, np.nan, np.nan, np.nan])


def test_derivatives(x64):
    assert float(jax.grad(log)(jnp.asarray(4.0))) == 0.25
    assert float(jax.grad(jax.grad(log))(jnp.asarray(4.0))) == -0.0625
    assert float(jax.grad(jax.grad(log_of_normal))(jnp.asarray(4.0))) == -0.0625
    assert float(jax.grad(log_factorial)(jnp.asarray(5.5))) == pytest.approx(special.digamma(6.5), rel=1e-13)


def test_log1p(x64):
    near = np.sqrt(2.0) - 1.0 + np.array([-1e-16, 0.0, 1e-16, 1e-9])
    x = np.concatenate([10.0 ** RNG.uniform(-300, 300, 500), RNG.uniform(0, 2, 500), [0.0, 1e-17, 1.0, np.inf], near])
    for way in (log1p, jax.jit(log1p)):
        np.testing.assert_allclose(way(jnp.asarray(x)), np.log1p(x), rtol=5e-16)
    np.testing.assert_allclose(jax.vmap(jax.grad(log1p))(jnp.asarray(x[:500])), 1.0 / (1.0 + x[:500]), rtol=1e-14)


def test_log_factorial(x64):
    x = np.concatenate([np.arange(40.0), RNG.uniform(0, 20, 200), 10.0 ** RNG.uniform(1, 15, 100)])
    exact = np.array([math.lgamma(value + 1.0) for value in x])
    found = np.asarray(log_factorial(jnp.asarray(x)))
    # Between 0 and 1 the true value passes near zero: there digits are lost, but no more than of numbers near 1.
    np.testing.assert_allclose(found, exact, rtol=4e-15, atol=1e-14)
    np.testing.assert_array_equal(found[:2], 0.0)
    short = log_factorial(jnp.asarray(x[:240], jnp.float32))
    assert short.dtype == jnp.float32
    np.testing.assert_allclose(short, exact[:240], rtol=2e-6, atol=1e-5)
