"""What weights of each kind mean, against R: rows repeated, and svyglm."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from covariances import DATA, Y, assert_covariance

import jaxglm
from jaxglm import families
from jaxglm.leverage import hat_values
from jaxglm.status import Status, StatusWarning

CASES = json.loads((Path(__file__).parent / "reference" / "weights.json").read_text())["cases"]
NAMES = sorted({case["name"] for case in CASES})
X = np.column_stack([np.ones(60), DATA["x"], DATA["z"]])
DEVIANCES = ("deviance", "null_deviance", "dispersion")
TABLE = pd.DataFrame({name: DATA[name] for name in ("group", "x", "z", "weights", "offset", "frequency")})


def cases_of(name):
    return {case["part"]: case for case in CASES if case["name"] == name}


def fits_of(name, kind, values):
    """The whole and by group; binomial responses have trials, which only a table can say beside weights."""
    response, link = name.rsplit("_", 1)
    family = families.NegativeBinomial(2.0) if response == "negative_binomial" else families.named(response, link)
    weights = jaxglm.Weights(values, kind)
    if response == "binomial":
        counts = {"s": Y[response] * DATA["trials"], "f": (1.0 - Y[response]) * DATA["trials"]}
        table, formula = TABLE.assign(**counts), "cbind(s, f) ~ x + z"
        shared = {"family": family, "weights": weights, "offset": "offset"}
        return jaxglm.glm(formula, table, **shared), jaxglm.glm(formula, table, by="group", **shared)
    shared = {"family": family, "weights": weights, "offset": DATA["offset"]}
    return jaxglm.fit(X, Y[response], **shared), jaxglm.fit(X, Y[response], groups=DATA["group"], **shared)


def assert_alike(fit, reference, names):
    for name in names:
        np.testing.assert_allclose(getattr(fit, name), reference[name], rtol=1e-8, err_msg=name)


@pytest.mark.parametrize("name", NAMES)
def test_frequencies_are_repeated_rows(name):
    cases = cases_of(name)
    whole, parts = fits_of(name, "frequency", DATA["frequency"])
    counts = ("df_residual", "df_null", "n_obs", "log_likelihood", "n_parameters")
    for part, case in cases.items():
        fit, r = (whole if part == "all" else parts[part]), case["frequency"]
        assert_alike(fit, r, ("coefficients", *DEVIANCES, *counts))
        np.testing.assert_allclose(fit.aic, -2.0 * r["log_likelihood"] + 2.0 * r["n_parameters"], rtol=1e-8)
        np.testing.assert_allclose(fit.bic, -2.0 * r["log_likelihood"] + np.log(r["n_obs"]) * r["n_parameters"], rtol=1e-8)
        assert_covariance(fit.covariance, r["covariance"], 3)
        assert isinstance(fit.n_obs, int)
    for type in ("HC0", "HC1", "HC3"):
        assert_covariance(whole.robust(type).covariance, cases["all"]["frequency"][type], 3)
        made = parts.robust(type)
        for k, part in enumerate("abc"):
            assert_covariance(made.covariance[k], cases[part]["frequency"][type], 3)


@pytest.mark.parametrize("name", NAMES)
def test_sampling_weights_are_svyglm(name):
    cases = cases_of(name)
    whole, parts = fits_of(name, "sampling", DATA["weights"])
    for part, case in cases.items():
        fit, r = (whole if part == "all" else parts[part]), case["sampling"]
        assert_alike(fit, r, ("coefficients", *DEVIANCES, "df_residual", "p_values"))
        assert_covariance(fit.covariance, r["covariance"], 3)
        np.testing.assert_allclose(fit.conf_int()[1], r["interval"], rtol=1e-7)
        assert np.isnan([fit.log_likelihood, fit.aic, fit.bic]).all()
        assert (fit.covariance_type, fit.weights_kind) == ("linearized", "sampling")


@pytest.fixture(scope="module")
def repeated():
    """Rows of the gamma case, and the same repeated."""
    index = np.repeat(np.arange(60), DATA["frequency"])
    return index, jaxglm.fit(X[index], Y["gamma"][index], families.Gamma("log"))


@pytest.mark.parametrize("shape", ["shared design", "own designs", "replicates"])
def test_frequencies_of_fits_of_one_shape(repeated, shape):
    _, expected = repeated
    f = jaxglm.Weights(np.stack([DATA["frequency"]] * 2) if shape == "replicates" else DATA["frequency"], "frequency")
    A = np.stack([X] * 2) if shape == "own designs" else X
    fits = jaxglm.fit(
        A, np.stack([Y["gamma"]] * 2) if shape == "shared design" else Y["gamma"], families.Gamma("log"), weights=f
    )
    for name in ("coefficients", "covariance", "log_likelihood", "bic", "dispersion"):
        np.testing.assert_allclose(getattr(fits, name)[1], getattr(expected, name), rtol=1e-8)
    np.testing.assert_allclose(fits.robust("HC3").covariance[1], expected.robust("HC3").covariance, rtol=1e-8)


def test_rows_say_what_each_of_the_repeated_rows_does(repeated):
    index, expected = repeated
    fit = jaxglm.fit(X, Y["gamma"], families.Gamma("log"), weights=jaxglm.Weights(DATA["frequency"], "frequency"))
    for type in ("deviance", "pearson", "working"):
        np.testing.assert_allclose(fit.residuals(type)[index], expected.residuals(type), rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(fit.working_weights[index], expected.working_weights, rtol=1e-8)
    np.testing.assert_allclose(hat_values(fit)[index], hat_values(expected), rtol=1e-8)
    clusters = np.arange(60) % 7
    made = fit.robust("cluster", clusters, correction="HC1").covariance
    np.testing.assert_allclose(made, expected.robust("cluster", clusters[index], correction="HC1").covariance, rtol=1e-8)


def test_frequencies_need_not_be_whole():
    half = jaxglm.fit(X, Y["gaussian"], weights=jaxglm.Weights(DATA["frequency"] / 2, "frequency"))
    full = jaxglm.fit(X, Y["gaussian"], weights=jaxglm.Weights(DATA["frequency"], "frequency"))
    assert half.n_obs == full.n_obs / 2
    np.testing.assert_allclose(half.dispersion * half.df_residual, full.dispersion * full.df_residual / 2, rtol=1e-12)
    np.testing.assert_allclose(half.covariance / half.dispersion, 2 * full.covariance / full.dispersion, rtol=1e-12)


def test_fewer_rows_than_coefficients_but_not_when_repeated():
    y = np.array([1.0, 2.0, 4.0])
    counted = jaxglm.fit(X[:3], y, weights=jaxglm.Weights([2, 3, 4], "frequency"), penalty=jaxglm.Ridge([0.0, 0.5, 0.5]))
    index = np.repeat(np.arange(3), [2, 3, 4])
    plain = jaxglm.fit(X[index], y[index], penalty=jaxglm.Ridge([0.0, 0.5, 0.5]))
    for name in ("coefficients", "covariance", "dispersion", "log_likelihood"):
        np.testing.assert_allclose(getattr(counted, name), getattr(plain, name), rtol=1e-8, err_msg=name)


@pytest.mark.parametrize("kind", jaxglm.weights.KINDS)
def test_rows_that_are_not_there(kind):
    """Weight zero, and values that are missing, leave a row out, whatever else it holds."""
    w, y, A = DATA["weights"].copy(), Y["gaussian"].copy(), X.copy()
    there = w > 0
    A[~there], y[~there] = np.nan, np.inf
    fit = jaxglm.fit(A, y, weights=jaxglm.Weights(w, kind))
    rest = jaxglm.fit(A[there], y[there], weights=jaxglm.Weights(w[there], kind))
    features = np.column_stack([DATA["z"], DATA["z"]]).astype(float)
    features[~there, 1] = np.nan
    scanned = jaxglm.scan(X[:, :2], Y["gaussian"], features, weights=jaxglm.Weights(w + 1.0, kind), missing="drop")
    dropped = jaxglm.fit(X[there], Y["gaussian"][there], weights=jaxglm.Weights(w[there] + 1.0, kind))
    for name in ("coefficients", "covariance", "deviance", "dispersion", "df_residual", "log_likelihood"):
        np.testing.assert_allclose(getattr(fit, name), getattr(rest, name), rtol=1e-12)
        np.testing.assert_allclose(getattr(scanned, name)[1], getattr(dropped, name), rtol=1e-9, err_msg=name)


@pytest.mark.parametrize("kind", ["frequency", "sampling"])
def test_bad_groups_change_nothing_for_the_others(kind):
    ids = np.repeat(np.arange(5), 12)
    w, y = DATA["frequency"] + 1.0, Y["poisson"].copy()
    w[ids == 1] = np.where(np.arange(12) == 0, -1.0, w[ids == 1])
    y[ids == 2] = np.nan
    w[ids == 3] = np.where(np.arange(12) == 0, 1.0, 0.0)
    with pytest.warns(StatusWarning):
        fit = jaxglm.fit(X, y, "poisson", weights=jaxglm.Weights(w, kind), groups=ids)
    good = np.isin(ids, [0, 4])
    alone = jaxglm.fit(X[good], y[good], "poisson", weights=jaxglm.Weights(w[good], kind), groups=ids[good])
    for name in ("coefficients", "covariance", "deviance", "dispersion", "n_obs", "log_likelihood", "statistics"):
        np.testing.assert_allclose(getattr(fit, name)[[0, 4]], getattr(alone, name), rtol=1e-12, err_msg=name)
    assert fit.status.tolist()[1:3] == [Status.INVALID_DATA] * 2
    assert np.isnan(fit.covariance[[1, 2]]).all()
    assert np.isnan(fit.dispersion[[1, 2]]).all()


def test_a_table_names_a_column_and_says_what_it_means(tmp_path):
    table = TABLE.assign(y=Y["poisson"])
    fit = jaxglm.glm("y ~ x + z", table, "poisson", by="group", weights=jaxglm.Weights("weights", "sampling"), offset="offset")
    case = cases_of("poisson_log")["b"]["sampling"]
    assert_covariance(fit["b"].covariance, case["covariance"], 3)
    assert "Weights: sampling" in fit["b"].summary()
    assert "Covariance: linearized, statistics t" in fit.summary()
    prior = jaxglm.glm("y ~ x + z", table, "poisson", by="group", weights=jaxglm.Weights("weights"), offset="offset")
    plain = jaxglm.glm("y ~ x + z", table, "poisson", by="group", weights="weights", offset="offset")
    np.testing.assert_array_equal(prior.covariance, plain.covariance)
    many = jaxglm.glm("~ x + z", table, "poisson", responses=table[["y"]], weights=jaxglm.Weights("weights", "sampling"))
    one = jaxglm.glm("y ~ x + z", table, "poisson", weights=jaxglm.Weights("weights", "sampling"))
    np.testing.assert_allclose(many.covariance[0], one.covariance, rtol=1e-9)
    fit.save(tmp_path / "fit")
    again = jaxglm.load(tmp_path / "fit")
    np.testing.assert_array_equal(again.p_values, fit.p_values)
    assert again.weights_kind == "sampling"


def test_bad_requests():
    with pytest.raises(ValueError, match=r"no weights of kind 'freqency'. Did you mean 'frequency'"):
        jaxglm.Weights([1.0], "freqency")
    with pytest.raises(TypeError, match="Weights need values"):
        jaxglm.Weights(None, "sampling")
    with pytest.raises(ValueError, match="weights must have shape"):
        jaxglm.fit(X, Y["poisson"], weights=jaxglm.Weights(np.ones(59), "frequency"))
    with pytest.raises(TypeError, match="weights must be numbers"):
        jaxglm.fit(X, Y["poisson"], weights=jaxglm.Weights(["a"] * 60, "frequency"))
    with pytest.raises(ValueError, match="no column 'wt'"):
        jaxglm.glm("y ~ x", TABLE.assign(y=1.0), weights=jaxglm.Weights("wt", "sampling"))
