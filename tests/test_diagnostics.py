"""Influence measures, quantile residuals, score tests and verdicts, against R and against fitting again."""

import json
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

import jaxglm
from jaxglm import diagnostics, families
from jaxglm.distributions import Rows, distribution_of
from jaxglm.influence import Influence
from jaxglm.log_tails import log_beta_lower, log_gamma_lower, log_gamma_upper
from jaxglm.quantile_residuals import fitted_rows, scores

R = json.loads((Path(__file__).parent / "reference" / "diagnostics.json").read_text())
ROWS = {name: np.array(values, float) for name, values in R["rows"].items()}
N = len(ROWS["x"])
X = np.column_stack([np.ones(N), ROWS["x"], ROWS["z"], ROWS["double"]])  # the last is aliased
MEASURES = [field.name for field in fields(Influence)]
RNG = np.random.default_rng(8)


def model(about):
    """The family of a case."""
    more = {"theta": 2.0} if about["family"] == "negative_binomial" else {}
    return families.named(about["family"], about["link"], **more)


def fitted(about):
    """The fit of a case, with an aliased column where there are weights; else without, which is less to compile."""
    offset = about["shift"] * ROWS["offset"]
    design = X if about["weights"] in ("w", "w0") else X[:, :3]
    return jaxglm.fit(design, ROWS[about["y"]], family=model(about), weights=ROWS[about["weights"]], offset=offset)


@pytest.fixture(scope="module", params=R["cases"], ids=lambda case: case["name"])
def case(request):
    """A case and its fit."""
    return request.param, fitted(request.param)


def test_influence_is_that_of_r(case):
    about, fit = case
    there = ROWS[about["weights"]] > 0
    np.testing.assert_allclose(fit.coefficients[:3], about["coefficients"], rtol=1e-9)
    found = fit.influence()
    for name in MEASURES:
        values = getattr(found, name)
        np.testing.assert_allclose(values[there], about[name], rtol=1e-7, atol=1e-9, err_msg=name)
        assert np.isnan(values[~there]).all(), name
    falling = -1.0 if about["link"] == "inverse" else 1.0  # where R has the sign of the change wrong
    for name in ("dfbeta", "dfbetas"):
        values = falling * getattr(fit, name)()
        assert np.isnan(values[:, 3:]).all()
        np.testing.assert_allclose(values[there, :3], about[name], rtol=1e-7, atol=1e-9, err_msg=name)


def test_quantile_residuals_are_those_of_statmod(case):
    about, fit = case
    if "quantile" not in about:
        with pytest.raises(ValueError, match=r"need a distribution, and the family 'quasipoisson'.*standardized residuals"):
            fit.quantile_residuals()
        return
    tails = distribution_of(fit.family).log_tails(fitted_rows(fit, fit.linear_predictor))
    expected = np.array(about["quantile"])
    there = ROWS[about["weights"]] > 0
    np.testing.assert_allclose(scores(tails, np.array(about["uniform"]))[there], expected[there], rtol=1e-7, atol=1e-9)
    again = fit.quantile_residuals(seed=3)
    np.testing.assert_array_equal(again, fit.quantile_residuals(seed=3))
    np.testing.assert_allclose(again[there], scores(tails, np.random.default_rng(3).random(N))[there], rtol=1e-12)
    np.testing.assert_allclose(fit.quantile_residuals(midpoint=True)[there], scores(tails, np.full(N, 0.5))[there], rtol=1e-12)


# --- distributions --------------------------------------------------------------------------------------------------


def columns(name):
    """A table of the reference as arrays."""
    return {key: np.array(values, float) for key, values in R[name].items()}


def test_tails_of_gamma_and_beta():
    table = columns("gamma")
    np.testing.assert_allclose(log_gamma_lower(table["a"], table["x"]), table["lower"], rtol=1e-10, atol=1e-15)
    np.testing.assert_allclose(log_gamma_upper(table["a"], table["x"]), table["upper"], rtol=1e-10, atol=1e-15)
    table = columns("beta")
    found = log_beta_lower(table["a"], table["b"], table["x"], 1.0 - table["x"])
    np.testing.assert_allclose(found, table["lower"], rtol=1e-10, atol=1e-15)


def tails(name, y, mu, dispersion=1.0, weights=1.0, **parameters):
    """The tails of rows with these means."""
    family = families.named(name, **parameters)
    y, mu = np.asarray(y, float), np.broadcast_to(np.asarray(mu, float), np.shape(y))
    full = {key: np.broadcast_to(np.asarray(value, float), y.shape) for key, value in family.parameters.items()}
    rows = Rows(y, mu, 1.0 - mu, np.full(y.shape, weights), np.broadcast_to(dispersion, y.shape), full)
    with np.errstate(all="ignore"):
        return distribution_of(family).log_tails(rows)


def test_tails_far_out():
    far = R["far"]
    wald = tails("inverse_gaussian", far["wald"]["y"], 1.3, 0.4)
    np.testing.assert_allclose(wald.upto, far["wald"]["lower"], rtol=1e-12)
    np.testing.assert_allclose(wald.after, far["wald"]["upper"], rtol=1e-12)
    np.testing.assert_allclose(tails("poisson", far["poisson"]["y"], 2.0).after, far["poisson"]["after"], rtol=1e-12)
    found = tails("binomial", far["binomial"]["y"], 0.01, weights=2000.0).after
    np.testing.assert_allclose(found, far["binomial"]["after"], rtol=1e-11, atol=1e-15)
    found = tails("negative_binomial", far["negative_binomial"]["y"], 3.0, theta=2.0).after
    np.testing.assert_allclose(found, far["negative_binomial"]["after"], rtol=1e-11)
    outlier = jaxglm.fit(np.ones((400, 1)), np.r_[np.ones(399), 3000.0], family="poisson").quantile_residuals(midpoint=True)
    assert np.isfinite(outlier).all()
    assert 170 < outlier[-1] < 172  # about the root of the unit deviance


def test_tails_of_tweedie():
    table = columns("tweedie")
    found = tails("tweedie", table["y"], table["mu"], table["phi"], power=table["power"])
    np.testing.assert_allclose(np.exp(found.upto), table["upto"], rtol=1e-9)
    np.testing.assert_allclose(np.exp(found.after), table["after"], rtol=1e-7, atol=1e-14)
    zero = table["y"] == 0
    assert np.isneginf(found.before[zero]).all()
    np.testing.assert_array_equal(found.before[~zero], found.upto[~zero])
    y = np.array([0.5, 2.0, 4.0])
    for power, other in ((1.0, "poisson"), (2.0, "gamma"), (3.0, "inverse_gaussian")):
        one, two = tails("tweedie", y, 1.7, power=power), tails(other, y, 1.7)
        np.testing.assert_array_equal(one.after, two.after)
    assert np.isnan(tails("tweedie", y, 1.7, power=2.5).upto).all()


MU = np.exp(0.3 + 0.6 * RNG.normal(size=4000))
DRAWN = {
    "poisson": (RNG.poisson(MU), MU, {}),
    "binomial": (RNG.binomial(5, MU / (1.0 + MU)) / 5.0, MU / (1.0 + MU), {"weights": 5.0}),
    "negative_binomial": (RNG.negative_binomial(2.0, 2.0 / (2.0 + MU)), MU, {"theta": 2.0}),
    "gamma": (RNG.gamma(3.0, MU / 3.0), MU, {"dispersion": 1.0 / 3.0}),
    "inverse_gaussian": (RNG.wald(MU, 2.0), MU, {"dispersion": 0.5}),
}


@pytest.mark.parametrize("name", DRAWN)
def test_quantile_residuals_are_normal_under_the_model(name):
    y, mu, more = DRAWN[name]
    places = np.random.default_rng(1).random(len(y))
    assert stats.kstest(scores(tails(name, y, mu, **more), places), "norm").pvalue > 0.01
    assert stats.kstest(scores(tails(name, y, np.full_like(mu, mu.mean()), **more), places), "norm").pvalue < 1e-6


# --- what leaving out does ------------------------------------------------------------------------------------------


def test_one_step_by_pearson_residuals_is_near_to_leaving_out():
    y = ROWS["single"]
    fit = jaxglm.fit(X[:, :3], y, family="binomial")
    without = jaxglm.fit(X[:, :3], y, family="binomial", weights=1.0 - np.eye(N))
    moved = fit.coefficients - without.coefficients
    miss = {type: np.abs(fit.dfbeta(type) - moved).mean() / np.abs(moved).mean() for type in ("deviance", "pearson")}
    assert miss["pearson"] < 0.1
    assert miss["pearson"] < 0.5 * miss["deviance"]
    falls = jaxglm.fit(X[:, :3], ROWS["positive"], family="gamma")
    moved = falls.coefficients - jaxglm.fit(X[:, :3], ROWS["positive"], family="gamma", weights=1.0 - np.eye(N)).coefficients
    assert np.mean(np.sign(falls.dfbeta()) == np.sign(moved)) > 0.95
    plain = jaxglm.fit(X[:, :3], ROWS["normal"])
    without = jaxglm.fit(X[:, :3], ROWS["normal"], weights=1.0 - np.eye(N))
    np.testing.assert_allclose(plain.dfbeta(), plain.coefficients - without.coefficients, rtol=1e-9, atol=1e-12)
    found = plain.influence()
    np.testing.assert_allclose(found.sigma, np.sqrt(without.dispersion), rtol=1e-9)
    out = plain.residuals("response") / (1.0 - found.hat)
    np.testing.assert_allclose(np.sum((X[:, :3] @ plain.dfbeta().T) ** 2, axis=0) / 3 / plain.dispersion, found.cooks_distance)
    np.testing.assert_allclose(ROWS["normal"] - np.sum(X[:, :3] * without.coefficients, axis=1), out, rtol=1e-9)
    with pytest.raises(ValueError, match=r"no dfbeta by 'devance' residuals\. Did you mean 'deviance'"):
        fit.dfbetas("devance")


# --- checks of groups -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("about", R["tests"], ids=lambda about: f"{about['y']}-{about['family']}-{about['link']}")
def test_score_tests(about):
    found = diagnostics.checks(fitted(about))
    keys = {"z": "overdispersion_z", "expected": "zeros_expected", "score_z": "zeros_score_z", "excess_z": "zeros_z"}
    for name in ("z", "zeros", "expected", "score_z", "excess_z"):
        values = getattr(found, keys.get(name, name))
        if name in about:
            np.testing.assert_allclose(values, about[name], rtol=1e-7, err_msg=name)
        else:
            assert np.isnan(values).all(), name
    np.testing.assert_allclose(found.zeros_p, stats.chi2.sf(found.zeros_z**2, 1), rtol=1e-9)
    np.testing.assert_allclose(found.overdispersion_p, stats.norm.sf(found.overdispersion_z), rtol=1e-9)


def test_zeros_of_a_mean_are_van_den_broeks():
    found = diagnostics.checks(jaxglm.fit(np.ones((N, 1)), ROWS["inflated"], family="poisson"))
    np.testing.assert_allclose(found.zeros_score_z**2, R["van_den_broek"], rtol=1e-9)
    np.testing.assert_allclose(found.zeros_z, found.zeros_score_z, rtol=1e-9)  # with one mean they are the same


def test_weights_of_counts_are_equal_rows():
    y, w = ROWS["wide"], np.tile([1.0, 2.0, 3.0], N // 3)
    weighted, repeated = (
        diagnostics.checks(jaxglm.fit(design, response, family="poisson", weights=given))
        for design, response, given in ((X, y, w), (np.repeat(X, w.astype(int), 0), np.repeat(y, w.astype(int)), None))
    )
    for name in ("pearson", "zeros", "zeros_expected", "zeros_z", "zeros_score_z", "overdispersion_z"):
        np.testing.assert_allclose(getattr(weighted, name), getattr(repeated, name), rtol=1e-9, err_msg=name)
