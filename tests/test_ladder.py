"""Fits on which the ordinary iteration fails: what climbs the ladder, where it ends, and that nobody else notices."""

import json
import math
from pathlib import Path

import jax
import numpy as np
import pandas as pd
import pytest
from scipy.optimize import brentq, linprog

import jaxglm
from jaxglm import IRLS, Status, StatusWarning, families, ladder
from jaxglm.irls.data import gather_data
from jaxglm.irls.descent import solve_descent

pytestmark = pytest.mark.long

PUBLISHED = json.loads(Path(__file__).with_name("reference").joinpath("ladder.json").read_text())["cases"]
RUNGS = ("other_start", "damped", "lbfgs")
x = np.arange(8.0)
LINE = np.column_stack([np.ones(8), x])
SUCCESSES = np.array([0.0, 0, 1, 0, 1, 1, 1, 1])
COUNTS = np.array([0.0, 0, 0, 1, 5, 9, 20, 30])


def log_binomial_at_the_edge(y):
    """The optimum with eta = 0 at the largest x: eta = b (x - 7), the score of b has one zero."""

    def score(b):
        eta = b * (x[:-1] - 7)
        mu = np.exp(eta)
        return np.sum((y[:-1] - mu) / (1 - mu) * (x[:-1] - 7))

    b = brentq(score, 1e-3, 5, xtol=1e-15, rtol=1e-15)
    return np.array([-7 * b, b])


def at_the_edge(X, y, weights, offset, family, beta):
    """Which rows a constraint holds, signed so that inside is positive, and the score there and per row's information."""
    eta = X @ beta + offset
    if family.link.name == "log":
        mu, bound = np.exp(eta), (y == 1) & (eta > -1e-9)
        score, size, side = weights * np.where(bound, 1.0, (y - mu) / -np.expm1(eta)), weights * mu / -np.expm1(eta), -1.0
    else:
        mu, bound, side = eta, (y == 0) & (eta < 1e-9), 1.0
        score, size = weights * np.where(bound, -1.0, y / mu - 1), weights / mu
    information = np.sum(np.where(bound, 0.0, size)[:, None] * X**2, axis=0)
    return X[bound] * side, X.T @ score, np.sqrt(np.maximum(information, 1e-12))


def violation(X, y, family, beta, weights=1.0, offset=0.0):
    """The least that nonnegative multipliers leave of the score, in standard errors, as a linear programme finds them."""
    A, score, size = at_the_edge(X, y, weights, offset, family, beta)
    m, p = A.shape
    cost = np.append(np.zeros(m), 1.0)
    rows = np.column_stack([(A / size).T, -np.ones(p)])
    other = np.column_stack([-(A / size).T, -np.ones(p)])
    tight = {"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10}
    bound = np.concatenate([-score / size, score / size])
    found = linprog(cost, np.vstack([rows, other]), bound, bounds=[(0, None)] * (m + 1), options=tight)
    return found.fun


def test_a_log_binomial_optimum_on_the_boundary():
    fit = jaxglm.fit(LINE, SUCCESSES, family=families.Binomial("log"))
    assert (fit.status, fit.method) == (Status.CONVERGED, "boundary")
    np.testing.assert_allclose(fit.coefficients, log_binomial_at_the_edge(SUCCESSES), rtol=1e-9)
    eta = (LINE @ log_binomial_at_the_edge(SUCCESSES))[:-1]
    expected = np.sum(np.where(SUCCESSES[:-1] == 1, eta, np.log(-np.expm1(eta))))
    np.testing.assert_allclose(fit.log_likelihood, expected, rtol=1e-10)
    assert np.isnan(fit.standard_errors).all()
    assert (fit.fitted < 1).all()
    assert fit.fitted[-1] == pytest.approx(1, abs=1e-10)
    assert np.isfinite(fit.residuals("pearson")).all()
    assert "boundary" in fit.summary()
    assert "on the boundary" in fit.glance()["verdict"].iloc[0]


def test_an_identity_poisson_optimum_on_the_boundary():
    """The mean is zero at x = 0, and the slope then the ratio of the sums."""
    fit = jaxglm.fit(LINE, COUNTS, family=families.Poisson("identity"))
    assert (fit.status, fit.method) == (Status.CONVERGED, "boundary")
    np.testing.assert_allclose(fit.coefficients, [0.0, COUNTS.sum() / x.sum()], rtol=1e-10, atol=1e-10)
    assert fit.df_residual == 6
    mu = COUNTS.sum() / x.sum() * x[1:]
    logs = np.where(COUNTS[1:] > 0, COUNTS[1:] * np.log(np.maximum(COUNTS[1:], 1) / mu), 0.0)
    np.testing.assert_allclose(fit.deviance, 2 * np.sum(logs - (COUNTS[1:] - mu)), rtol=1e-10)
    assert fit.null_deviance == pytest.approx(jaxglm.fit(LINE, COUNTS, family="poisson").null_deviance, rel=1e-12)


def many(kind, g=24):
    rng = np.random.default_rng(5)
    X = np.concatenate([np.ones((g, 40, 1)), rng.uniform(size=(g, 40, 2))], axis=2)
    if kind == "log":
        return X, (rng.uniform(size=(g, 40)) < np.exp(np.minimum(-1.3 + 1.2 * X[..., 1] + 0.3 * X[..., 2], -0.01))) * 1.0
    return X, rng.poisson(np.maximum(0.1 + 2 * X[..., 1] - 0.05 * X[..., 2], 0)) * 1.0


@pytest.mark.parametrize(
    ("kind", "family"), [("log", families.Binomial("log")), ("identity", families.Poisson("identity"))], ids=["log", "identity"]
)
def test_many_fits_end_at_optima_and_in_every_shape_the_same(kind, family):
    X, Y = many(kind)
    fit = jaxglm.fit(X, Y, family=family)
    assert (fit.status == Status.CONVERGED).all()
    assert (fit.method == "boundary").sum() >= 5
    assert (fit.method == "irls").sum() >= 2
    for k in range(len(X)):
        assert violation(X[k], Y[k], family, fit.coefficients[k]) < 1e-8
    ids = np.repeat(np.arange(len(X)), 40)
    order = np.random.default_rng(0).permutation(len(ids))
    ragged = jaxglm.fit(X.reshape(-1, 3)[order], Y.reshape(-1)[order], family=family, groups=ids[order])
    np.testing.assert_allclose(ragged.coefficients, fit.coefficients, rtol=1e-7, atol=1e-8)
    assert ragged.method.tolist() == fit.method.tolist()
    table = pd.DataFrame(X.reshape(-1, 3)[:, 1:], columns=["a", "b"]).assign(y=Y.reshape(-1), id=ids)
    by = jaxglm.glm("y ~ a + b", table, family=family, by="id")
    np.testing.assert_allclose(by.coefficients, fit.coefficients, rtol=1e-7, atol=1e-8)
    good = np.flatnonzero(fit.method == "irls")
    alone = jaxglm.fit(X[good], Y[good], family=family)
    for name in ("coefficients", "covariance", "deviance", "log_likelihood"):
        np.testing.assert_array_equal(getattr(alone, name), getattr(fit, name)[good])


@pytest.mark.parametrize("what", ["weights", "offset", "aliased", "zero weights"])
def test_what_crosses_the_boundary(what):
    X, Y = many("identity", 12)
    family, rng = families.Poisson("identity"), np.random.default_rng(2)
    weights, offset = np.ones(Y.shape), np.zeros(Y.shape)
    if what == "weights":
        weights = rng.integers(1, 5, Y.shape) * 1.0
    if what == "offset":
        offset = rng.uniform(0, 0.2, Y.shape)
    if what == "aliased":
        X = np.concatenate([X, X[..., 1:2] + X[..., 2:]], axis=2)
    if what == "zero weights":
        weights[:, :5], Y[:, 0] = 0.0, np.nan
    fit = jaxglm.fit(X, Y, family=family, weights=weights, offset=offset if what == "offset" else None)
    assert (fit.status == Status.CONVERGED).all()
    assert (fit.method == "boundary").sum() >= 3
    assert (np.isnan(fit.coefficients[:, -1]) == (what == "aliased")).all()
    for k in range(len(X)):
        used, b = weights[k] > 0, ~np.isnan(fit.coefficients[k])
        one = (X[k][used][:, b], Y[k][used], family, fit.coefficients[k][b], weights[k][used], offset[k][used])
        assert violation(*one) < 1e-8


def test_a_ridge_on_the_boundary():
    fit = jaxglm.fit(LINE, COUNTS, family=families.Poisson("identity"), penalty=jaxglm.Ridge(np.array([0.0, 3.0])))
    assert (fit.status, fit.method) == (Status.CONVERGED, "boundary")
    total, length = COUNTS.sum(), x.sum()  # 3 b^2 + 28 b = 65
    np.testing.assert_allclose(fit.coefficients[1], (-length + np.sqrt(length**2 + 12 * total)) / 6, rtol=1e-9)


@pytest.mark.parametrize("started", [False, True], ids=["", "from R's start"])
@pytest.mark.parametrize("case", PUBLISHED, ids=[case["case"] for case in PUBLISHED])
def test_published_cases(case, started):
    """At R's optimum, wherever `glm` starts from, and also where it fails from there."""
    X, y, weights = (np.array(case[name], float) for name in ("X", "y", "weights"))
    family = families.named(case["family"], link=case["link"])
    fit = jaxglm.fit(X, y, family=family, weights=weights, start=case["start"] if started else None)
    assert fit.converged
    assert (fit.method == "boundary") == case["boundary"]
    size = np.ones(X.shape[1]) if case["boundary"] else np.array(case["errors"])
    assert np.max(np.abs(fit.coefficients - case["coefficients"]) / np.maximum(size, np.abs(case["coefficients"]))) < 1e-7
    assert math.isclose(fit.deviance, case["deviance"], rel_tol=1e-9)
    if not case["boundary"]:
        np.testing.assert_allclose(fit.standard_errors, case["errors"], rtol=1e-7)


def test_a_start_inside_where_no_ready_one_is(monkeypatch):
    """The last row's mean is positive at some coefficients, but not at the null model, the regression, or between them."""
    rng = np.random.default_rng(8)
    X = np.array([[1.0, 0.0]] * 30 + [[-1.0, 1.1]] * 6 + [[1.0, -0.9]])
    X = np.stack([X * rng.uniform(0.95, 1.05, (37, 1)) for _ in range(6)])
    Y = np.concatenate([rng.poisson(1.0, (6, 30)), rng.poisson(5.0, (6, 6)), np.ones((6, 1))], axis=1) * 1.0
    family = families.Poisson("identity")
    fit = jaxglm.fit(X, Y, family=family)
    assert (fit.status == Status.CONVERGED).all()
    for k in range(len(X)):
        mu = X[k] @ fit.coefficients[k]
        assert (mu > 0).all()
        score = X[k].T @ (Y[k] / mu - 1)
        assert np.max(np.abs(score) * fit.standard_errors[k]) < 1e-6
    monkeypatch.setattr(ladder.Climb, "_look_inside", lambda self: None)
    with pytest.warns(StatusWarning):
        assert (jaxglm.fit(X, Y, family=family).status == Status.STEP_FAILED).any()


def test_a_start_inside_under_the_inverse_link():
    """An infinite mean has eta = 0, which bounds the valid ones too."""
    rng = np.random.default_rng(4)
    X = np.array([[1.0, 0.0]] * 30 + [[-1.0, 1.1]] * 6 + [[1.0, -0.9]])
    X = np.stack([X * rng.uniform(0.95, 1.05, (37, 1)) for _ in range(4)])
    Y = np.concatenate([rng.gamma(5.0, 0.2, (4, 30)), rng.gamma(5.0, 0.02, (4, 6)), np.full((4, 1), 2.0)], axis=1)
    fit = jaxglm.fit(X, Y, family=families.Gamma())
    assert (fit.status == Status.CONVERGED).all()
    for k in range(len(X)):
        eta = X[k] @ fit.coefficients[k]
        assert (eta > 0).all()
        assert np.max(np.abs(X[k].T @ (1 / eta - Y[k])) * fit.standard_errors[k] / fit.dispersion[k]) < 1e-6


def test_where_no_mean_is_valid_nothing_is_found():
    with pytest.warns(StatusWarning):
        fit = jaxglm.fit(np.array([[1.0], [-1.0], [2.0]]), [1.0, 2.0, 1.0], family=families.Poisson("identity"))
    assert fit.status == Status.STEP_FAILED
    assert np.isnan(fit.coefficients).all()


def test_few_steps_were_meant():
    with pytest.warns(StatusWarning):
        fit = jaxglm.fit(LINE, COUNTS, family="poisson", options=IRLS(max_iterations=2))
    assert fit.status == Status.MAX_ITERATIONS


@pytest.mark.parametrize(
    ("family", "start"),
    [
        (families.Gaussian("log"), [400.0, 60.0]),
        (families.Binomial("cauchit"), [1e9, 1e9]),
        (families.Binomial("cloglog"), [500.0, -900.0]),
    ],
    ids=["gaussian log", "cauchit", "cloglog"],
)
def test_bad_starts(family, start):
    y = np.array([0.0, 0, 1, 0, 1, 0, 1, 1]) if family.name == "binomial" else np.array([-0.3, 0.1, 0.9, 1.0, 2.5, 4, 7, 12.0])
    good = jaxglm.fit(LINE, y, family=family)
    bad = jaxglm.fit(LINE, y, family=family, start=start)
    assert good.converged
    assert good.method == "irls"
    assert bad.converged
    np.testing.assert_allclose(bad.coefficients, good.coefficients, rtol=1e-7)
    np.testing.assert_allclose(bad.standard_errors, good.standard_errors, rtol=1e-7)
    assert bad.method == "other_start"


@pytest.mark.parametrize(
    "family", [families.Binomial("cauchit"), families.Binomial("cloglog"), families.Poisson(), families.Gamma("log")]
)
def test_descent_by_itself_leads_to_the_optimum(family):
    rng = np.random.default_rng(3)
    X = np.column_stack([np.ones(60), rng.normal(size=(60, 2))])
    y = (rng.uniform(size=60) < 0.4) * 1.0 if family.name == "binomial" else rng.poisson(3, 60) + 0.5
    with jax.enable_x64(True):
        data = gather_data(X, y, family, None, None, None)
        problem = data.problem()
        found = solve_descent(problem, np.zeros(3), np.ones(3, bool))
        coefficients = np.asarray(found.coefficients / problem.scale)
    np.testing.assert_allclose(coefficients, jaxglm.fit(X, y, family=family).coefficients, rtol=1e-5, atol=1e-5)


def test_every_rung_is_climbed_where_those_below_fail(monkeypatch):
    """With only one rung to climb, it supplies the start from which the fit converges."""
    y, family = np.array([0.0, 0, 1, 0, 1, 0, 1, 1]), families.Binomial("cauchit")
    good = jaxglm.fit(LINE, y, family=family)
    finish = ladder.Climb._finish
    for rung in RUNGS:

        def only(self, method, starts, rung=rung):
            if method.label == rung:
                finish(self, method, starts)

        monkeypatch.setattr(ladder.Climb, "_finish", only)
        bad = jaxglm.fit(LINE, y, family=family, start=[1e9, 1e9])
        assert (bad.status, bad.method) == (Status.CONVERGED, rung)
        np.testing.assert_allclose(bad.coefficients, good.coefficients, rtol=1e-7)


def test_likelihood_ratios_on_the_boundary():
    family = families.Poisson("identity")
    table = pd.DataFrame({"x": x, "y": COUNTS})
    large, small = jaxglm.glm("y ~ x", table, family=family), jaxglm.glm("y ~ 1", table, family=family)
    assert large.method == "boundary"
    found = jaxglm.anova(small, large)
    np.testing.assert_allclose(found.statistic[-1], small.deviance - large.deviance, rtol=1e-12)
    assert np.isnan(large.conf_int(method="profile")).all()


def test_separated_groups_on_the_boundary():
    """A dummy of rows without a success diverges; what remains ends on the boundary, as by itself."""
    rows = np.concatenate([x, np.arange(4.0)])
    X = np.column_stack([np.ones(12), rows, np.arange(12) >= 8])
    family = families.Binomial("log")
    with pytest.warns(StatusWarning, match="separated"):
        fit = jaxglm.fit(X, np.concatenate([SUCCESSES, np.zeros(4)]), family=family)
    alone = jaxglm.fit(LINE, SUCCESSES, family=family)
    assert (fit.status, fit.method) == (Status.SEPARATED, "boundary")
    assert fit.infinite.tolist() == [0, 0, -1]
    np.testing.assert_allclose(fit.coefficients[:2], alone.coefficients, rtol=1e-9)
    np.testing.assert_allclose([fit.deviance, fit.log_likelihood], [alone.deviance, alone.log_likelihood], rtol=1e-9)
