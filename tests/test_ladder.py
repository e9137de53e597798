"""Fits that the ordinary iteration loses: at an optimum all the same, on the boundary of the valid means if it is there.

The judge is an optimiser that knows nothing of jaxglm (SciPy's SLSQP with the bounds as constraints), or a solution in closed
form.
"""

import warnings

import numpy as np
import pandas as pd
import pytest
from scipy import optimize

import jaxglm
from jaxglm import Status, families
from jaxglm.status import Method, maximise_likelihood

N = 10
X1 = np.column_stack([np.ones(N), np.arange(1.0, N + 1)])
EVENTS = np.array([0, 0, 0, 0, 1, 0, 1, 1, 1, 1.0])
COUNTS = np.array([0, 0, 1, 2, 0, 3, 5, 4, 7, 8.0])
LOG, IDENTITY = families.Binomial("log"), families.Poisson("identity")


def loss(name, y, weights, eta):
    """Half the deviance up to a constant, and its derivative by eta, of a log-binomial or an identity Poisson model."""
    if name == "binomial":
        left = -np.expm1(np.minimum(eta, -1e-15))
        value = -weights * (y * eta + np.where(y < 1, (1 - y) * np.log(left), 0.0))
        return value.sum(), -weights * (y - np.where(y < 1, (1 - y) * np.exp(eta) / left, 0.0))
    mu = np.maximum(eta, 1e-15)
    return (weights * (mu - y * np.log(mu))).sum(), weights * (1 - y / mu)


def constrained(name, X, y, weights, offset, start):
    """The optimum of an optimiser that has the valid means as constraints."""
    there = weights > 0
    X, y, weights, offset = X[there], y[there], weights[there], offset[there]
    sign = -1.0 if name == "binomial" else 1.0

    def value(b):
        level, slope = loss(name, y, weights, X @ b + offset)
        return level, X.T @ slope

    bounds = {"type": "ineq", "fun": lambda b: sign * (X @ b + offset), "jac": lambda b: sign * X}
    found = optimize.minimize(
        value, start, jac=True, constraints=bounds, method="SLSQP", options={"ftol": 1e-15, "maxiter": 1000}
    )
    return found.x, value(found.x)[0]


def half_deviance(name, X, y, weights, offset, b):
    there = weights > 0
    return loss(name, y[there], weights[there], X[there] @ np.nan_to_num(b) + offset[there])[0]


def test_log_binomial_on_the_boundary():
    """A risk of 1 at x = 10: with eta = b (x - 10), b is the root of the score in closed form."""
    x = X1[:, 1] - 10.0

    def score(b):
        m = np.exp(b * x[EVENTS == 0])
        return np.sum(x[EVENTS == 1]) - np.sum(x[EVENTS == 0] * m / (1 - m))

    b = optimize.brentq(score, 0.1, 0.4, xtol=1e-15)
    fit = jaxglm.fit(X1, EVENTS, LOG)
    assert (fit.status, fit.method) == (Status.CONVERGED, "boundary")
    np.testing.assert_allclose(fit.coefficients, [-10 * b, b], rtol=1e-8)
    assert fit.fitted.max() <= 1.0
    assert np.isnan(fit.standard_errors).all()  # no normal approximation holds there


def test_identity_poisson_on_the_boundary():
    """A mean of 0 at x = 1: with mu = b (x - 1), b is the sum of the counts over that of x - 1."""
    fit = jaxglm.fit(X1, COUNTS, IDENTITY)
    assert (fit.status, fit.method) == (Status.CONVERGED, "boundary")
    np.testing.assert_allclose(fit.coefficients, np.array([-1.0, 1.0]) * COUNTS.sum() / np.sum(X1[:, 1] - 1), rtol=1e-8)


def group(name, seed, n=24):
    """A group whose optimum lies on the boundary more often than not, with weights, some of them zero, and an offset."""
    rng = np.random.default_rng(seed)
    x = np.sort(rng.uniform(0, 4, n))
    X = np.column_stack([np.ones(n), x, 2.0 * x + 1.0 if seed % 3 == 0 else rng.integers(0, 2, n)])
    weights = rng.integers(0, 3, n).astype(float)
    weights[[0, -1]] = 1.0
    if name == "binomial":
        y = (rng.random(n) < np.minimum(np.exp(-2.5 + 0.62 * x), 1)) * 1.0
        y[-3:] = 1.0
        return X, y, weights, -0.05 * rng.random(n)
    return X, rng.poisson(1.5 * x).astype(float) * (x > 0.6), weights, 0.01 * rng.random(n)


@pytest.fixture(scope="module", params=["binomial", "poisson"])
def groups(request):
    """Many such groups, alone, as fits of one shape, ragged, and from a table."""
    name, family = request.param, LOG if request.param == "binomial" else IDENTITY
    made = [group(name, seed) for seed in range(12)]
    X, y, weights, offset = (np.stack(part) for part in zip(*made, strict=True))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        many = jaxglm.fit(X, y, family, weights=weights, offset=offset)
    return name, family, made, many


def test_many_groups_are_at_the_constrained_optimum(groups):
    name, _, made, many = groups
    assert (many.status == Status.CONVERGED).all()
    assert (many.method == "boundary").sum() >= 3
    for k, (X, y, weights, offset) in enumerate(made):
        kept = ~np.isnan(many.coefficients[k])
        start = np.zeros(3)
        start[0] = -1.0 if name == "binomial" else 2.0
        b, best = constrained(name, X[:, kept], y, weights, offset, start[kept])
        found = half_deviance(name, X, y, weights, offset, many.coefficients[k])
        assert found <= best + 1e-8 * (1 + abs(best)), k
        np.testing.assert_allclose(many.coefficients[k][kept], b, rtol=2e-4, atol=2e-4)


def test_every_shape_gives_the_same(groups):
    _, family, made, many = groups
    X, y, weights, offset = (np.concatenate(part) for part in zip(*made, strict=True))
    ids = np.repeat(np.arange(len(made)), len(made[0][1]))
    shuffled = np.random.default_rng(1).permutation(len(ids))
    table = pd.DataFrame({"y": y, "a": X[:, 1], "b": X[:, 2], "w": weights, "o": offset, "id": ids})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ragged = jaxglm.fit(
            X[shuffled], y[shuffled], family, groups=ids[shuffled], weights=weights[shuffled], offset=offset[shuffled]
        )
        tables = jaxglm.glm("y ~ a + b", table, family=family, by="id", weights="w", offset="o")
    for other in (ragged, tables):
        assert (other.status == many.status).all()
        np.testing.assert_allclose(other.deviance, many.deviance, rtol=1e-9)
        np.testing.assert_allclose(other.coefficients, many.coefficients, rtol=1e-6, atol=1e-7)
        assert (other.method == many.method).mean() > 0.8


def test_a_group_that_climbs_changes_nothing_for_the_others():
    rng = np.random.default_rng(2)
    x = rng.uniform(0, 1, (6, 30))
    X = np.stack([np.ones_like(x), x], axis=2)
    y = (rng.random((6, 30)) < np.exp(-1.5 + 0.5 * x)) * 1.0
    alone = jaxglm.fit(X, y, LOG)
    bad = np.stack([np.ones(30), np.linspace(1, 10, 30)], axis=1)
    both = jaxglm.fit(np.concatenate([X, bad[None]]), np.concatenate([y, (bad[:, 1] > 6)[None] * 1.0]), LOG)
    np.testing.assert_array_equal(both.coefficients[:6], alone.coefficients)
    np.testing.assert_array_equal(both.covariance[:6], alone.covariance)


def test_bad_starts_of_cauchit_and_cloglog():
    """From here full steps lead away for ever; the optimum is that of any other start."""
    for link, start in (("cauchit", [30.0, -40.0]), ("cloglog", [9.0, 3.0])):
        family = families.Binomial(link)
        wanted, found = jaxglm.fit(X1, EVENTS, family), jaxglm.fit(X1, EVENTS, family, start=start)
        assert found.converged
        np.testing.assert_allclose(found.coefficients, wanted.coefficients, rtol=1e-6)
        np.testing.assert_allclose(found.deviance, wanted.deviance, rtol=1e-10)


def test_gaussian_with_log_link_and_negative_responses():
    """R finds no valid starting values."""
    y = np.array([-0.5, 0.1, 0.3, 0.2, 1.2, 2.0, 4.1, 8.0, 16.0, 33.0])
    fit = jaxglm.fit(X1, y, families.Gaussian("log"))
    best = optimize.least_squares(lambda b: np.exp(X1 @ b) - y, [-3.5, 0.7], xtol=1e-15, ftol=1e-15, gtol=1e-15)
    assert fit.converged
    np.testing.assert_allclose(fit.coefficients, best.x, rtol=1e-6)
    np.testing.assert_allclose(fit.deviance, 2 * best.cost, rtol=1e-10)


def test_few_steps_were_meant():
    with pytest.warns(jaxglm.StatusWarning, match="max_iterations"):
        fit = jaxglm.fit(X1, EVENTS, LOG, options=jaxglm.IRLS(max_iterations=2))
    assert (fit.status, fit.method) == (Status.MAX_ITERATIONS, "irls")


def test_methods_say_what_they_maximise():
    inside = maximise_likelihood(np.array([int(method) for method in Method]))
    assert [method.name for method, one in zip(Method, inside, strict=True) if one] == [
        "IRLS",
        "OTHER_START",
        "DAMPED",
        "LBFGS",
    ]
