"""The plain pass: what it decides is what the careful way finds, and what it cannot decide it says.

Batches go through normal equations and a dozen iterations without precautions first; everything that is not plain is solved
again with all of them. So the two must agree wherever the first decides, and it must never decide wrongly.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxglm import IRLS, Ridge, Status, families, irls
from jaxglm.irls.blocks import Blocks
from jaxglm.irls.data import Data
from jaxglm.irls.many import axes_of, solve_plain_batch
from jaxglm.irls.problem import typed
from jaxglm.linalg import LARGEST, small_solve

G, N = 11, 40
RNG = np.random.default_rng(3)
XS = np.stack([np.column_stack([np.ones(N), RNG.normal(size=(N, 2))]) for _ in range(G)])
ETA = 0.4 + 0.6 * XS[:, :, 1] - 0.3 * XS[:, :, 2]
OFFSET = RNG.uniform(-0.5, 0.5, (G, N))
WEIGHTS = RNG.integers(0, 4, (G, N)) / 2.0
RESPONSES = {
    "binomial": (RNG.random((G, N)) < 1 / (1 + np.exp(-ETA))) * 1.0,
    "poisson": RNG.poisson(np.exp(ETA)) * 1.0,
    "gamma": np.exp(ETA) * RNG.gamma(3.0, 1 / 3.0, (G, N)),
}
FAMILIES = {
    "binomial": families.Binomial(),
    "gamma": families.Gamma("log"),
    "cloglog": families.Binomial("cloglog"),
    "poisson": families.NegativeBinomial(2.0),
}


@partial(jax.jit, static_argnums=3)
def solved(X, y, weights, link):
    """Both passes."""
    return irls.solve_many(X, y, families.Binomial(link), weights=weights)


@pytest.fixture(autouse=True)
def _x64():
    with jax.enable_x64(True):
        yield


def plain(X, y, family, options=None, weights=None, offset=None):
    """The plain pass alone."""
    weights = np.ones(X.shape[-2]) if weights is None else weights
    data = Data(jnp.asarray(X), jnp.asarray(y), jnp.asarray(weights), offset, None, typed(family, np.float64))
    return jax.jit(lambda data: solve_plain_batch(len(y), options or IRLS(), Blocks(4), data, None, 0))(data)


@pytest.mark.parametrize("name", FAMILIES)
def test_what_it_decides_is_what_the_careful_way_finds(name):
    family, y = FAMILIES[name], RESPONSES["binomial" if name == "cloglog" else name]
    fast = plain(XS, y, family, weights=WEIGHTS, offset=OFFSET)
    careful = irls.solve_many(XS, y, family, weights=WEIGHTS, offset=OFFSET, options=IRLS(factorization="cholesky"))
    assert not np.asarray(fast.undecided).any()
    for field in ("coefficients", "covariance", "deviance", "null_deviance", "log_likelihood", "dispersion"):
        np.testing.assert_allclose(getattr(fast, field), getattr(careful, field), rtol=1e-9, atol=1e-9, err_msg=field)
    for field in ("status", "rank", "n_obs", "spans_constant", "infinite"):
        np.testing.assert_array_equal(getattr(fast, field), getattr(careful, field), err_msg=field)


def spoiled():
    """Responses and designs of which all but 0, 5 and 10 are not plain, or have a status of their own."""
    X, y, weights = XS.copy(), RESPONSES["binomial"].copy(), np.ones((G, N))
    y[1] = X[1, :, 1] > 0  # separated
    y[2] = 1.0
    X[3, :, 2] = 2.0 * X[3, :, 1] - 1.0  # aliased
    X[4, 7, 1] = np.nan
    y[6, 3] = 2.0
    weights[7] = 0.0
    X[8, :, 1] *= 1e200
    X[9, 5, 2] = np.inf
    return X, y, weights


@pytest.mark.parametrize("link", ["logit", "cloglog"])
def test_what_is_not_plain_is_undecided_and_then_solved(link):
    X, y, weights = spoiled()
    fast = plain(X, y, families.Binomial(link), weights=weights)
    assert np.flatnonzero(~np.asarray(fast.undecided)).tolist() == [0, 5, 6, 7, 10]
    found = solved(X, y, weights, link)
    expected = [0, 1, 1, 0, Status.INVALID_DATA, 0, Status.INVALID_DATA, Status.NO_DATA, 0, Status.INVALID_DATA, 0]
    assert found.status.tolist() == expected
    assert found.rank.tolist() == [3, 3, 3, 2, 0, 3, 0, 0, 3, 0, 3]
    clean = solved(XS, RESPONSES["binomial"], np.ones((G, N)), link)
    for field in ("coefficients", "covariance", "deviance", "null_deviance"):
        np.testing.assert_array_equal(getattr(found, field)[::5], getattr(clean, field)[::5], err_msg=field)


def test_a_column_of_zeros_is_left_out():
    """As the dummies of absent levels are, in the plain pass too; a penalty keeps it, at zero."""
    X, y, weights = XS.copy(), RESPONSES["binomial"], np.ones((G, N))
    X[::2, :, 2] = 0.0
    fast = plain(X, y, families.Binomial(), weights=weights)
    assert not np.asarray(fast.undecided).any()
    careful = irls.solve_many(X, y, families.Binomial(), weights=weights, options=IRLS(factorization="orthogonal"))
    narrow = plain(X[:, :, :2], y, families.Binomial(), weights=weights)
    for field in ("coefficients", "covariance", "deviance", "aliased", "rank", "dispersion", "status"):
        np.testing.assert_allclose(getattr(fast, field), getattr(careful, field), rtol=1e-9, atol=1e-11, err_msg=field)
    np.testing.assert_allclose(fast.coefficients[::2, :2], narrow.coefficients[::2], rtol=1e-12)
    assert fast.aliased[::2].tolist() == [[False, False, True]] * len(X[::2])
    ridge = irls.solve_many(X, y, families.Binomial(), penalty=Ridge(0.5))
    np.testing.assert_array_equal(ridge.coefficients[::2, 2], 0.0)
    assert ridge.rank.tolist() == [3] * G


def test_a_separated_fit_is_never_taken_for_converged():
    """Under cloglog the weights of fitted rows vanish so fast that an increment is short long before eta is far."""
    y = np.stack([(X[:, 1] > np.quantile(X[:, 1], 0.1 + 0.08 * k)) * 1.0 for k, X in enumerate(XS)])
    for link in ("cloglog", "probit"):
        fast = plain(XS, y, families.Binomial(link))
        assert np.asarray(fast.undecided).all(), link


def test_where_the_first_system_cannot_be_trusted_no_step_is_taken():
    """And the rows are looked at where they are cheap: at zero, not where a singular system leads."""
    X = XS.copy()
    X[:, :, 2] = X[:, :, 1] * (1.0 + 1e-14)
    fast = plain(X, RESPONSES["binomial"], families.Binomial(), weights=np.ones((G, N)))
    assert np.asarray(fast.undecided).all()
    np.testing.assert_array_equal(fast.n_iterations, 0)
    np.testing.assert_allclose(fast.deviance, 2.0 * N * np.log(2.0), rtol=1e-12)


def test_nothing_but_stragglers():
    X, y, weights = spoiled()
    alone = solved(X, y, weights, "logit")
    every = np.array([1, 2, 3, 8, 1, 2, 3, 8, 4, 9, 1])
    found = solved(X[every], y[every], weights[every], "logit")
    np.testing.assert_array_equal(found.status, alone.status[every])
    np.testing.assert_array_equal(found.coefficients, alone.coefficients[every])


def test_ridge_start_and_derivatives_go_through_both():
    y = np.stack([RESPONSES["binomial"][0], (XS[0, :, 1] > 0) * 1.0])
    found = irls.solve_many(XS[0], y, families.Binomial(), penalty=Ridge(0.5), start=np.array([0.1, 0.2, 0.0]))
    assert found.status.tolist() == [0, 0]

    def total(y):
        return irls.solve_many(XS[0], y, families.Binomial(), penalty=Ridge(0.5)).coefficients.sum()

    def alone(y):
        return irls.solve(XS[0], y, families.Binomial(), penalty=Ridge(0.5)).coefficients.sum()

    expected = [jax.jit(jax.grad(alone))(jnp.asarray(row)) for row in y]
    np.testing.assert_allclose(jax.jit(jax.grad(total))(jnp.asarray(y)), expected, rtol=1e-8, atol=1e-12)


def test_axes_are_those_of_the_arrays():
    data = Data(jnp.ones((2, 3)), jnp.ones((5, 2)), jnp.ones(2), None, None, families.NegativeBinomial(jnp.ones(5)))
    axes = axes_of(data)
    assert (axes.X, axes.y, axes.weights, axes.offset) == (None, 0, None, None)
    assert jax.tree.leaves(axes.family) == [0]


@pytest.mark.parametrize("p", [1, 2, 5, LARGEST])
def test_small_systems(p):
    root = RNG.normal(size=(3, 4, 2 * p + 2, p)) * 10.0 ** RNG.uniform(-3, 3, (3, 4, 1, p))
    information = jnp.asarray(np.swapaxes(root, -1, -2) @ root)
    b = jnp.asarray(RNG.normal(size=(3, 4, p, 2)))
    every = jnp.ones(p, bool)
    factor, increments, decrements = jax.vmap(jax.vmap(small_solve, (0, 0, None)), (0, 0, None))(information, b, every)
    inverse = jax.vmap(jax.vmap(lambda small: small.inverse()))(factor)
    # In units of the diagonal, as condition numbers of columns of different scale mean nothing.
    size = np.sqrt(np.diagonal(information, axis1=-2, axis2=-1))
    scaled = np.linalg.inv(information / size[..., :, None] / size[..., None, :])
    np.testing.assert_allclose(inverse * size[..., :, None] * size[..., None, :], scaled, rtol=1e-9, atol=1e-9)
    expected = np.asarray(inverse @ b)
    np.testing.assert_allclose(increments, expected, rtol=1e-8, atol=1e-9 * np.abs(expected).max())
    np.testing.assert_allclose(decrements, np.sum(np.asarray(b) * np.asarray(increments), axis=-2), rtol=1e-8)
    np.testing.assert_allclose(factor.lengths, size, rtol=1e-12)
    one = small_solve(information[0, 0], b[0, 0], every)
    np.testing.assert_allclose(one[1], increments[0, 0], rtol=1e-12)
    singular = jnp.ones((p + 1, p + 1))
    assert not small_solve(singular, jnp.ones((p + 1, 1)), jnp.ones(p + 1, bool))[0].smallest_pivot > 1e-8
    # A column of zeros is left out, and what is left is solved as without it.
    wider = jnp.zeros((p + 1, p + 1)).at[1:, 1:].set(information[0, 0])
    without, increments, decrements = small_solve(wider, jnp.zeros((p + 1, 2)).at[1:].set(b[0, 0]), jnp.arange(p + 1) > 0)
    units, expected = np.append(1.0, size[0, 0])[:, None], np.vstack([np.zeros((1, 2)), one[1]])
    np.testing.assert_allclose(increments * units, expected * units, rtol=1e-13, atol=1e-13 * np.abs(expected * units).max())
    np.testing.assert_allclose(decrements, one[2], rtol=1e-13)
    assert without.aliased.tolist() == [True] + [False] * p
    np.testing.assert_allclose(without.smallest_pivot, one[0].smallest_pivot, rtol=1e-13)


def test_the_score_at_start_values(x64):
    """The start for counts is mu = y + 3/8, which leaves X'(y - mu) = -3/8 X'1."""
    X = np.column_stack([np.ones(6), np.arange(6.0)])
    first = irls.step(X, np.array([0.0, 1, 1, 4, 2, 7]), families.Poisson())
    np.testing.assert_allclose(first.score, -0.375 * X.sum(axis=0), rtol=1e-6)
