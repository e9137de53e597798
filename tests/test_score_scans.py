"""Scans by score tests: missing values, features that cannot be tested, and fits only where they pay. Against R in
test_comparisons."""

import warnings

import numpy as np
import pandas as pd
import pytest

import jaxglm
from jaxglm import Status, StatusWarning, families

RNG = np.random.default_rng(21)
N, M, CODE = 150, 12, -9
X = np.column_stack([np.ones(N), RNG.normal(size=(N, 2))])
G = RNG.binomial(2, 0.3, (N, M)).astype(np.int8)
G[:, 3] = 1  # constant
G[5:9, 4], G[5:9, 6], G[20, 7] = CODE, CODE, CODE
Y = (RNG.random(N) < 1 / (1 + np.exp(-0.4 * X[:, 1] - 0.5 * (G[:, 1] - 0.6)))) * 1.0
WEIGHTS = np.where(np.arange(N) % 10 == 0, 0.0, 1.0 + np.arange(N) % 3)


@pytest.fixture(scope="module")
def scanned():
    """All features, those with missing values among them."""
    return jaxglm.score_scan(X, Y, G, "binomial", weights=WEIGHTS, missing="drop", missing_code=CODE, refit=0.2)


def alone(z, X=X):
    """The score test of one feature by two fits and the larger design."""
    here = ~np.isnan(z) & (WEIGHTS > 0)
    null = jaxglm.fit(X[here], Y[here], "binomial", weights=WEIGHTS[here])
    z = (
        z[here]
        - X[here]
        @ np.linalg.lstsq(
            X[here] * np.sqrt(null.working_weights)[:, None], z[here] * np.sqrt(null.working_weights), rcond=None
        )[0]
    )
    scores = WEIGHTS[here] * (Y[here] - null.fitted)
    return z @ scores / np.sqrt(z**2 @ null.working_weights)


def test_every_feature_is_tested_on_the_rows_that_it_has(scanned):
    numbers = np.where(G == CODE, np.nan, G)
    for k in (0, 4, 7):
        np.testing.assert_allclose(scanned.statistic[k], alone(numbers[:, k]), rtol=1e-9)
    assert np.isnan(scanned.statistic[3])
    assert scanned.status[3] == Status.CONVERGED
    as_floats = jaxglm.score_scan(X, Y, numbers, "binomial", weights=WEIGHTS, missing="drop")
    np.testing.assert_allclose(as_floats.statistic, scanned.statistic, rtol=1e-12)
    np.testing.assert_allclose(as_floats.p_value, 10**as_floats.log10_p, rtol=1e-12)


def test_one_step_and_fits_where_they_pay(scanned):
    again = scanned.method == "irls"
    assert list(again) == list(scanned.p_value < 0.2)
    assert 0 < again.sum() < M
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", StatusWarning)
        full = jaxglm.scan(X, Y, G, "binomial", weights=WEIGHTS, missing="drop", missing_code=CODE)
    np.testing.assert_allclose(scanned.refits.coefficients, full.coefficients[again], rtol=1e-7)
    assert list(scanned.refits.groups) == list(np.flatnonzero(again))
    np.testing.assert_allclose(scanned.estimate[again], full.coefficients[again, -1], rtol=1e-7)
    step = scanned.score / scanned.information
    np.testing.assert_allclose(scanned.estimate[~again], step[~again])
    np.testing.assert_allclose(scanned.statistic, step * np.sqrt(scanned.information))
    by_refit = full.drop1("feature", test="score")
    np.testing.assert_allclose(by_refit.statistic[:, 0], scanned.statistic**2, rtol=1e-8)
    np.testing.assert_allclose(by_refit.p_value[:, 0], scanned.p_value, rtol=1e-7)
    table = scanned.tidy(adjust="bh")
    assert list(table.columns) == [
        "feature", "estimate", "std_error", "statistic", "p_value", "log10_p", "q_value", "method", "status",
    ]  # fmt: skip
    np.testing.assert_allclose(table["q_value"], jaxglm.adjust(scanned.p_value))
    assert repr(scanned).startswith(f"<ScoreScan: {M} features, {again.sum()} of them fitted")
    assert scanned.null.names == ["x1", "x2", "x3"]


def test_features_near_the_columns_and_far_from_zero(scanned):
    """Where the products of columns cancel, the feature's rest is made itself."""
    extra = RNG.normal(size=N)
    features = np.column_stack([
        X[:, 1] + 1e-6 * extra, 1e9 + G[:, 0], 1e-12 * G[:, 0], X @ [1.0, 2.0, -1.0], np.zeros(N), 1e150 * G[:, 0],
    ])  # fmt: skip
    found = jaxglm.score_scan(X, Y, features, "binomial", weights=WEIGHTS)
    np.testing.assert_allclose(found.statistic[0], alone(extra), rtol=1e-6)
    np.testing.assert_allclose(found.statistic[[1, 2, 5]], scanned.statistic[0], rtol=1e-7)
    assert np.isnan(found.statistic[3:5]).all()


def test_a_bad_feature_changes_no_other(scanned):
    features = G.astype(float)
    features[G == CODE] = np.nan
    features[3, 1], features[4, 8] = np.nan, np.inf
    features[10, 2] = np.nan  # of weight zero
    found = jaxglm.score_scan(X, Y, features, "binomial", weights=WEIGHTS)
    invalid = found.status == Status.INVALID_DATA
    assert np.flatnonzero(invalid).tolist() == [1, 4, 6, 8]  # what 7 misses has weight zero
    assert np.isnan(found.statistic[invalid]).all()
    np.testing.assert_allclose(found.statistic[~invalid], scanned.statistic[~invalid], rtol=1e-12)


def test_a_null_fit_that_fails_is_told():
    with pytest.warns(StatusWarning, match="separated"):
        found = jaxglm.score_scan(X, (X[:, 1] > 0) * 1.0, G, "binomial", missing_code=CODE)
    assert np.isin(found.status, [Status.SEPARATED, Status.INVALID_DATA]).all()
    assert np.isnan(found.statistic).all()


def test_names_and_refits_of_none(scanned):
    table = pd.DataFrame(G[:, :3], columns=["rs1", "rs2", "rs3"])
    found = jaxglm.score_scan(X, Y, table, "binomial", weights=WEIGHTS, refit=1e-12, names=["a", "b", "c"])
    assert found.features.tolist() == ["rs1", "rs2", "rs3"]
    assert len(found.refits) == 0
    np.testing.assert_allclose(found.statistic, scanned.statistic[:3], rtol=1e-12)
    assert found.tidy()["feature"].tolist() == ["rs1", "rs2", "rs3"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"refit": 0.0}, "refit is the p-value"),
        ({"refit": 2}, "refit is the p-value"),
        ({"family": families.NegativeBinomial(np.ones(M))}, "numbers for parameters"),
        ({"missing": "mean"}, "missing must be"),
        ({"features": G.T}, "looks transposed"),
        ({"weights": np.ones(3)}, "weights must have shape"),
        ({"names": ["a", "b"]}, "3 different names"),
    ],
)
def test_bad_requests(change, message):
    with pytest.raises(ValueError, match=message):
        jaxglm.score_scan(**({"X": X, "y": Y, "features": G, "family": "binomial"} | change))
