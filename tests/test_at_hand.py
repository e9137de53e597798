"""`irls.solve` of arrays that are at hand: the same as in a program, whichever way it goes."""

import sys

import jax
import numpy as np
import pytest

from jaxglm import IRLS, Ridge, Status, families, irls
from jaxglm.irls import at_hand

MODULE = sys.modules["jaxglm.irls.solve"]  # its name is that of its function
NUMBERS = ("coefficients", "covariance", "deviance", "null_deviance", "log_likelihood", "dispersion")
EXACT = ("spans_constant", "status", "rank", "n_obs", "aliased", "infinite")


@pytest.fixture(autouse=True)
def double():
    with jax.enable_x64(True):
        yield


def rows(n=40, seed=0):
    """A design of an intercept and two numbers, and counts."""
    rng = np.random.default_rng(seed)
    X = np.column_stack([np.ones(n), rng.normal(size=(n, 2))])
    return X, rng.poisson(np.exp(0.3 * X[:, 1] + 0.5)) * 1.0


def cases():
    X, counts = rows()
    binary = (counts > 1) * 1.0
    weights, offset = np.arange(40) % 4 * 1.0, np.linspace(-1, 1, 40)
    poisson, binomial = families.Poisson(), families.Binomial()
    deficient = np.column_stack([X, X[:, 1] - 2 * X[:, 0]])
    return {
        "poisson": (X, counts, poisson, {}),
        "weights and offset": (X, counts, poisson, {"weights": weights, "offset": offset}),
        "gamma": (X, counts + 0.5, families.Gamma("log"), {}),
        "theta": (X, counts, families.NegativeBinomial(1.5), {"offset": offset}),
        "ridge": (X, binary, binomial, {"penalty": Ridge([0.0, 1.0, 2.0])}),
        "a matrix": (X, binary, binomial, {"penalty": Ridge(0.0, matrix=np.diag([0.0, 1.0, 2.0]))}),
        "start": (X, binary, binomial, {"start": np.array([0.1, 0.2, 0.0])}),
        "deficient": (deficient, binary, binomial, {}),
        "separated": (X, (X[:, 1] > 0.2) * 1.0, binomial, {}),
        "nobody": (X, binary, binomial, {"weights": np.zeros(40)}),
        "invalid": (X, counts - 5.0, poisson, {}),
        "orthogonal": (X, counts, poisson, {"options": IRLS(factorization="orthogonal")}),
        "expected": (X, counts + 0.5, families.Gamma("log"), {"options": IRLS(information="expected")}),
    }


@pytest.mark.parametrize("name", cases())
def test_arrays_at_hand_and_traced_ones_give_the_same(name):
    X, y, family, given = cases()[name]
    static = {key: given[key] for key in given if key in ("options", "penalty")}
    arrays = {key: given[key] for key in given if key not in static}
    direct = irls.solve(X, y, family, **given)
    traced = jax.jit(lambda X, y, arrays: irls.solve(X, y, family, **arrays, **static))(X, y, arrays)
    for field in EXACT[name == "invalid" :]:  # nothing is said of the columns of a fit that is not made
        np.testing.assert_array_equal(getattr(direct, field), getattr(traced, field), err_msg=field)
    for field in NUMBERS:
        np.testing.assert_allclose(
            getattr(direct, field), getattr(traced, field), rtol=1e-7, atol=1e-9, err_msg=f"{field} of {name}"
        )
    expected = {"separated": Status.SEPARATED, "nobody": Status.NO_DATA, "invalid": Status.INVALID_DATA}
    assert direct.status == expected.get(name, Status.CONVERGED)
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), direct) == jax.tree.map(lambda a: (a.shape, a.dtype), traced)


@pytest.mark.parametrize("name", ["poisson", "weights and offset", "deficient", "separated", "nobody"])
def test_small_fits_at_hand_need_no_program(name, monkeypatch):
    pytest.importorskip("llvmlite")

    def none(*arguments):
        raise AssertionError("a program is compiled")

    monkeypatch.setattr(MODULE, "solve_data", none)
    X, y, family, given = cases()[name]
    irls.solve(X, y, family, **given)


def test_what_lanes_do_not_decide_or_is_large_goes_to_a_program(monkeypatch):
    asked = []
    program = MODULE.solve_data
    monkeypatch.setattr(MODULE, "solve_data", lambda *arguments: (asked.append(1), program(*arguments))[1])
    X, y = rows()
    wide = np.column_stack([X, X[:, 1:2] ** np.arange(2, 12)])
    irls.solve(wide, y, families.Poisson(), penalty=Ridge(1e-3))
    before = len(asked)
    monkeypatch.setattr(at_hand, "LARGEST", X.size - 1)
    found = irls.solve(X, y, families.Poisson())
    assert len(asked) == before + 1
    assert found.status == Status.CONVERGED


def test_single_precision_stays_single():
    X, y = (values.astype(np.float32) for values in rows())
    fit = irls.solve(X, y, families.Poisson())
    assert fit.coefficients.dtype == np.float32
    np.testing.assert_allclose(fit.coefficients, irls.solve(*rows(), families.Poisson()).coefficients, rtol=2e-5)
