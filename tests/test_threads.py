"""All cores at work: windows of fits, threads, and programs that are safe to run beside each other."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from jaxglm import families, irls, threads
from jaxglm.irls import many
from jaxglm.irls.seldom import seldom
from jaxglm.linalg import LARGEST
from jaxglm.penalty import Ridge

RNG = np.random.default_rng(8)
G = 1001  # does not divide into windows or blocks
X = np.concatenate([np.ones((G, 40, 1)), RNG.normal(size=(G, 40, 2))], axis=2)
Y = RNG.poisson(np.exp(0.4 * X[..., 1])).astype(float)


@pytest.mark.parametrize("shared", [False, True])
def test_windows_change_no_fit(x64, monkeypatch, without_lanes, shared):
    design, start = (X[0] if shared else X), RNG.normal(size=(G, 3)) * 0.01
    weights = RNG.integers(0, 3, (G, 40)).astype(float)

    def solved(cores):
        monkeypatch.setattr(many, "cores", lambda: cores)
        monkeypatch.setattr(threads, "cores", lambda: cores)
        return irls.solve_many(design, Y, families.Poisson(), weights=weights, start=start)

    whole, found = solved(1), solved(3)
    assert found.coefficients.shape == (G, 3)
    for name in ("coefficients", "covariance", "deviance", "log_likelihood"):
        np.testing.assert_allclose(getattr(found, name), getattr(whole, name), rtol=1e-10, atol=1e-13)
    np.testing.assert_array_equal(found.n_obs, np.sum(weights > 0, axis=1))
    for k in (0, 500, G - 1):
        one = irls.solve(design if shared else design[k], Y[k], families.Poisson(), weights=weights[k])
        np.testing.assert_allclose(found.coefficients[k], one.coefficients, rtol=1e-7, atol=1e-9)


def test_items_come_in_order_and_one_by_one(monkeypatch):
    monkeypatch.setattr(threads, "cores", lambda: 4)
    seen = []
    for found in threads.in_threads(lambda k: seen.append(k) or k**2, list(range(50))):
        assert len(seen) <= int(found**0.5) + 1 + 2 * 4
        assert found == int(found**0.5) ** 2
    assert sorted(seen) == list(range(50))
    assert list(threads.in_threads(lambda k: k, [])) == []


def test_threads_keep_the_callers_arithmetic(monkeypatch):
    monkeypatch.setattr(threads, "cores", lambda: 2)
    for wide in (False, True):
        with jax.enable_x64(wide):
            found = list(threads.in_threads(lambda k: jnp.asarray(float(k)).dtype, list(range(6))))
        assert set(map(str, found)) == {"float64" if wide else "float32"}


def test_what_a_thread_raises_arrives(monkeypatch):
    monkeypatch.setattr(threads, "cores", lambda: 2)

    def work(k):
        if k == 3:
            raise RuntimeError("broken at 3")
        return k

    with pytest.raises(RuntimeError, match="broken at 3"):
        list(threads.in_threads(work, list(range(9))))


def test_for_each_raises_too():
    seen = []
    threads.for_each(seen.append, range(5))
    assert sorted(seen) == list(range(5))
    with pytest.raises(ZeroDivisionError):
        threads.for_each(lambda k: 1 / k, range(2))


@pytest.mark.parametrize("shapes", [[(9, 5), (9, 1)], [(70,), ()], [(1, 8, 9), (8, 1)], [(3, 0), (1,)], [(), ()]])
def test_pieces_are_those_of_the_whole(monkeypatch, shapes):
    monkeypatch.setattr(threads, "PIECE", 4)
    x, degrees = (RNG.uniform(1.0, 9.0, shape) for shape in shapes)
    found = threads.in_pieces(special.stdtr, degrees, x)
    np.testing.assert_array_equal(found, special.stdtr(degrees, x))
    assert found.shape == np.broadcast_shapes(*shapes)


@pytest.mark.parametrize("penalty", [None, Ridge(1.0)])
def test_no_library_call_that_threads_could_wait_for(x64, penalty):
    design, y = jnp.ones((3, 40, LARGEST + 1)), jnp.ones((3, 40))
    for factorization in ("auto", "orthogonal"):
        options = irls.IRLS(factorization=factorization)
        program = str(jax.make_jaxpr(lambda X, y, o=options: many.solve_many(
            X, y, families.Gamma("log"), offset=y, penalty=penalty, options=o))(design, y))  # fmt: skip
        assert "while" in program
        assert not [name for name in ("cholesky[", "triangular_solve[", "qr[", "eigh[", "svd[", "lu[") if name in program]


def test_seldom_is_done_for_those_in_need_only(x64):
    def one(x):
        return seldom(x > 2, lambda: jnp.sqrt(jnp.abs(x - 2)), -x)

    x = jnp.asarray([0.0, 6.0, 1.0, 11.0])
    np.testing.assert_array_equal(jax.vmap(one)(x), [0.0, 2.0, -1.0, 3.0])
    np.testing.assert_array_equal(jax.vmap(jax.vmap(one))(x.reshape(2, 2)), [[0.0, 2.0], [-1.0, 3.0]])
    assert "select_n" in str(jax.make_jaxpr(jax.vmap(one))(x))
    assert "cond" in str(jax.make_jaxpr(jax.vmap(one))(x))
    np.testing.assert_allclose(jax.vmap(jax.grad(one))(x), [-1.0, 0.25, -1.0, 1 / 6])


def test_for_pieces():
    seen: list[slice] = []
    threads.for_pieces(seen.append, 7, 3)
    assert sorted((part.start, part.stop) for part in seen) == [(0, 3), (3, 6), (6, 9)]
    threads.for_pieces(seen.append, 0, 3)
    assert len(seen) == 3
    with pytest.raises(ZeroDivisionError):
        threads.for_pieces(lambda part: 1 / part.start, 2, 1)
