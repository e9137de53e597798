"""Long stretches of a program become functions of their own: what goes there, that they are written once, and their numbers."""

import importlib.util
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from through_lanes import program_of, through_lanes

import jaxglm
from jaxglm import families, irls
from jaxglm.irls import lanes
from jaxglm.irls.lanes.entries import Untranslatable
from jaxglm.irls.lanes.parts import LONG, length
from jaxglm.irls.seldom import by_row

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
        parts = program_of(twice, 1, dtype)
    assert len(parts) == 2
    assert parts[1].count("call void @part0") == 2
    x = np.linspace(-1.0, 1.0, 50).astype(dtype)
    total, y = np.arange(1, LONG).sum(), np.exp(1.0 - x)
    np.testing.assert_allclose(through_lanes(twice, x), x * total + y * total - 1.0 + y, rtol=1e3 * np.finfo(dtype).eps)


def test_what_is_the_same_in_all_lanes_stays_so():
    with jax.enable_x64(True):
        parts = program_of(lambda x: x + long(jnp.ones_like(x))[0], 1, np.float64)
    assert len(parts) == 1


def test_functions_that_hold_arrays():
    held = np.linspace(0.0, 1.0, LONG + 1)
    x = np.linspace(-1.0, 1.0, 20)
    summed = jax.jit(lambda x: jnp.sum(x * held))
    with jax.enable_x64(True):
        assert "call void @part0" in program_of(summed, 1, np.float64)[1]
    np.testing.assert_allclose(through_lanes(summed, x), x * held.sum(), rtol=1e-12)


def test_matrix_products_leave_out_what_is_known_to_be_zero():
    with jax.enable_x64(True):
        parts = program_of(lambda x: jnp.sum(jnp.triu(jnp.full((3, 3), x)) @ jnp.array([0.0, 1.0, 2.0])), 1, np.float64)
    assert parts[0].count("fmul") == 1  # by 2, since by 1 nothing changes
    x = np.array([1.0, -3.0, np.inf, np.nan])
    np.testing.assert_array_equal(through_lanes(lambda x: x * 0.0 + x, x), [1.0, -3.0, np.nan, np.nan])


def test_arrays_are_taken_apart():
    x = np.linspace(-1.0, 1.0, 20)
    rows = lambda x: jnp.stack([x, jnp.exp(x), x * x, 1.0 - x]).reshape(2, 2)  # noqa: E731
    np.testing.assert_allclose(through_lanes(lambda x: sum(k * row[0] for k, row in enumerate(rows(x), 1)), x), x + 2.0 * x * x)
    np.testing.assert_allclose(
        through_lanes(lambda x: sum(k * one for k, one in enumerate(rows(x)[1], 1)), x), x * x + 2 - 2 * x
    )


@by_row
def of_rows(level, y):
    """What two rows say beside a number; something that is known; and what does not depend on rows."""
    return jnp.exp(level - y) * y, jnp.ones_like(y), jnp.full_like(y, level)


def test_functions_of_rows_are_written_for_one():
    def summed(x):
        each, one, level = of_rows(x, jnp.stack([x * 2.0, x - 1.0, 3.0 * x]))
        return jnp.sum(each) + 10.0 * jnp.sum(one) + level[2]

    with jax.enable_x64(True):
        parts = program_of(summed, 1, np.float64)
    assert len(parts) == 2
    assert parts[1].count("call void @part0") == 3
    x = np.linspace(-1.0, 1.0, 21)
    wanted = sum(np.exp(x - y) * y for y in (x * 2.0, x - 1.0, 3.0 * x)) + 30.0 + x
    np.testing.assert_allclose(through_lanes(summed, x), wanted, rtol=1e-13)


@pytest.mark.filterwarnings("ignore::jaxglm.StatusWarning")
def test_rows_that_are_seldom_looked_at(monkeypatch, x64):
    """Trials of several and of one, with and without an intercept: what rows add to deviance and likelihood, by calls."""
    rng = np.random.default_rng(8)
    X, trials = rng.normal(size=(9, 30, 3)), np.where(np.arange(9)[:, None] % 2, rng.integers(1, 9, (9, 30)), 1.0)
    X[:5, :, 0], y = 1.0, rng.binomial(trials.astype(int), 0.4) / trials
    texts, compiled = [], lanes.run.compiled
    monkeypatch.setattr(lanes.run, "compiled", lambda text: texts.append(text) or compiled(text))
    lanes.run._kernel.cache_clear()
    lanes.guard._untranslatable.cache_clear()
    for offset in (None, rng.normal(size=(9, 30))):
        found = jaxglm.fit(X, y, weights=trials, offset=offset, family="binomial").solution
        wanted = jax.vmap(lambda X, y, w, o: irls.solve(X, y, families.Binomial(), weights=w, offset=o))(
            X, y, trials, np.zeros((9, 30)) if offset is None else offset
        )
        for name in ("coefficients", "deviance", "null_deviance", "log_likelihood", "spans_constant", "status"):
            np.testing.assert_allclose(getattr(found, name), getattr(wanted, name), rtol=1e-9, atol=1e-12, err_msg=name)
    assert sum(text.count("call void @part0") for text in texts) >= 2 * lanes.run.CHUNK


def test_threads_that_want_one_kernel_write_it_once(monkeypatch):
    """A kernel is written by whoever asks first; others, and those of other kernels, get theirs too. One that cannot be written
    stops nobody."""
    columns, written = [], lanes.run.written

    def writing(shape, n_lanes, ready):
        columns.append(shape.p)
        if shape.p == 4:
            ready("define void @nobody() {\nentry:\n  ret void\n}")
            raise Untranslatable("no")
        return written(shape, n_lanes, ready)

    monkeypatch.setattr(lanes.run, "written", writing)
    lanes.run._kernel.cache_clear()
    X, y = np.random.default_rng(2).normal(size=(2, 40, 4)), np.arange(80.0).reshape(2, 40) % 3
    family, options = families.Gaussian(), irls.IRLS()

    def job(p):
        rows = lanes.Rows(X[..., :p], y, None, None, np.zeros(2, np.int64), np.full(2, 40))
        return lanes.Job(rows, family, None, None, options, np.float64)

    with pytest.raises(Untranslatable):
        lanes.run.kernel(lanes.run.shape_of(job(4)))
    found = {}
    threads = [
        threading.Thread(target=lambda i=i: found.update({i: lanes.run.kernel(lanes.run.shape_of(job(2 + i % 2)))}))
        for i in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(columns) == [2, 3, 4]
    assert len({id(found[i]) for i in range(6)}) == 2
    assert all(found[i] is found[i % 2] for i in range(6))


@pytest.mark.filterwarnings("ignore::jaxglm.StatusWarning")
@pytest.mark.parametrize("family", ["binomial", "gaussian"])
def test_fits_of_many_columns(monkeypatch, family):
    """A fit of so many columns solves its systems in a function; one is deficient, one has no rows."""
    rng = np.random.default_rng(3)
    X = np.concatenate([np.ones((9, 120, 1)), rng.normal(size=(9, 120, 14))], axis=2)
    X[2, :, 5] = X[2, :, 4] - X[2, :, 3]
    y, weights = (rng.uniform(size=(9, 120)) < 0.4) * 1.0, np.arange(9)[:, None] != np.full((9, 120), 4)
    texts, compiled = [], lanes.run.compiled
    monkeypatch.setattr(lanes.run, "compiled", lambda text: texts.append(text) or compiled(text))

    def call():
        return jaxglm.fit(X, y, weights=weights * 1.0, family=family).solution

    quick = call()
    assert any("call void @part0" in text for text in texts)
    monkeypatch.setattr(lanes, "available", lambda job, device: "not wanted")
    general = call()
    for name in ("coefficients", "covariance", "deviance", "null_deviance", "log_likelihood", "dispersion", "rank", "status"):
        np.testing.assert_allclose(getattr(quick, name), getattr(general, name), rtol=1e-9, atol=1e-11, err_msg=name)
