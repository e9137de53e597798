"""Long stretches of a program become functions of their own: what goes there, that they are written once, and their numbers."""

import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from through_lanes import program_of, through_lanes

import jaxglm
from jaxglm.irls import lanes
from jaxglm.irls.lanes.parts import LONG, length

pytestmark = pytest.mark.skipif(importlib.util.find_spec("llvmlite") is None, reason="llvmlite is not installed")


@jax.jit
def long(x):
    """A sum of many numbers; something that is known before, and something simple."""
    return jnp.sum(x * jnp.arange(1.0, LONG, dtype=x.dtype)), jnp.ones_like(x), 1.0 - x


def twice(x):
    first, one, rest = long(x)
    second, _, other = long(jnp.exp(rest))
    return first + second * one - other


def length_of(function):
    return length(jax.make_jaxpr(function)(1.0).jaxpr)


def test_length():
    assert length_of(lambda x: jnp.exp(x) * 2.0) == 2
    assert LONG < length_of(long) < LONG * 4
    assert length_of(twice) > 2 * length_of(long)
    assert length_of(lambda x: jax.lax.while_loop(lambda y: y < 3.0, lambda y: y + 1.0, long(x)[0])) == np.inf


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_written_once(dtype):
    with jax.enable_x64(True):
        text = program_of(twice, 1, dtype)
    assert text.count("define internal void @part") == 1
    assert text.count("call void @part0") == 2
    x = np.linspace(-1.0, 1.0, 50).astype(dtype)
    total, y = np.arange(1, LONG).sum(), np.exp(1.0 - x)
    np.testing.assert_allclose(through_lanes(twice, x), x * total + y * total - 1.0 + y, rtol=1e3 * np.finfo(dtype).eps)


def test_what_is_the_same_in_all_lanes_stays_so():
    with jax.enable_x64(True):
        text = program_of(lambda x: x + long(jnp.ones_like(x))[0], 1, np.float64)
    assert "@part" not in text


def test_functions_that_hold_arrays():
    held = np.linspace(0.0, 1.0, LONG + 1)
    x = np.linspace(-1.0, 1.0, 20)
    summed = jax.jit(lambda x: jnp.sum(x * held))
    with jax.enable_x64(True):
        assert "call void @part0" in program_of(summed, 1, np.float64)
    np.testing.assert_allclose(through_lanes(summed, x), x * held.sum(), rtol=1e-12)


def test_matrix_products_leave_out_what_is_known_to_be_zero():
    with jax.enable_x64(True):
        text = program_of(lambda x: jnp.sum(jnp.triu(jnp.full((3, 3), x)) @ jnp.array([0.0, 1.0, 2.0])), 1, np.float64)
    assert text.count("fmul") == 2  # by 1 and by 2, each once
    x = np.array([1.0, -3.0, np.inf, np.nan])
    np.testing.assert_array_equal(through_lanes(lambda x: x * 0.0 + x, x), [1.0, -3.0, np.nan, np.nan])


@pytest.mark.filterwarnings("ignore::jaxglm.StatusWarning")
@pytest.mark.parametrize("family", ["binomial", "gaussian"])
def test_fits_of_many_columns(monkeypatch, family):
    """A fit of so many columns solves its systems in a function; one is deficient, one has no rows."""
    rng = np.random.default_rng(3)
    X = np.concatenate([np.ones((9, 120, 1)), rng.normal(size=(9, 120, 14))], axis=2)
    X[2, :, 5] = X[2, :, 4] - X[2, :, 3]
    y, weights = (rng.uniform(size=(9, 120)) < 0.4) * 1.0, np.arange(9)[:, None] != np.full((9, 120), 4)
    texts, written = [], lanes.run.written
    monkeypatch.setattr(lanes.run, "written", lambda *shape: texts.append(written(*shape)) or texts[-1])

    def call():
        return jaxglm.fit(X, y, weights=weights * 1.0, family=family).solution

    quick = call()
    assert "call void @part0" in texts[0][0]
    monkeypatch.setattr(lanes, "available", lambda job, device: "not wanted")
    general = call()
    for name in ("coefficients", "covariance", "deviance", "null_deviance", "log_likelihood", "dispersion", "rank", "status"):
        np.testing.assert_allclose(getattr(quick, name), getattr(general, name), rtol=1e-9, atol=1e-11, err_msg=name)
