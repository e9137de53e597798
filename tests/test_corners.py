"""Corners where two features meet, each of which once gave a wrong answer."""

import numpy as np
import pandas as pd
import pytest

import jaxglm
from jaxglm import Status

RNG = np.random.default_rng(5)
N = 60
X = np.column_stack([np.ones(N), RNG.normal(size=N)])


def test_a_column_that_is_nearly_constant_spans_none():
    """Rows whose working weight is nothing count too."""
    column = np.ones((N, 1))
    column[-1] = 100.0
    y = np.arange(N) % 3 > 0
    fit = jaxglm.fit(column, y * 1.0, "binomial")
    assert fit.df_null == N
    assert fit.null_deviance == pytest.approx(2.0 * N * np.log(2.0), rel=1e-12)


@pytest.mark.parametrize("family", ["poisson", "gamma"])
def test_float32_has_the_null_model_of_float64(family):
    y = RNG.gamma(2.0, 1.5, (40, N)) + 0.1
    y = np.round(y) if family == "poisson" else y
    exact, short = (jaxglm.fit(X, y, family, precision=precision) for precision in ("float64", "float32"))
    assert (short.df_null == N - 1).all()
    np.testing.assert_allclose(short.null_deviance, exact.null_deviance, rtol=1e-4)


def test_a_tuple_names_a_row():
    keys = [("a", 1), ("b", 2)] * (N // 2)
    fit = jaxglm.fit(X, X[:, 1], groups=keys)
    assert fit.groups == [("a", 1), ("b", 2)]
    new = fit.predict(X[:2], groups=[("b", 2), ("b", 2)])
    np.testing.assert_allclose(new, X[:2] @ fit["b", 2].coefficients)


def test_a_key_called_fit_is_a_key():
    data = {"y": X[:, 1], "fit": np.repeat([0, 2, 10], N // 3)}
    result = jaxglm.glm("y ~ 1", data, by="fit")
    assert result[2].coefficients == result.coefficients[1]
    with pytest.raises(KeyError, match="no group 1"):
        result[1]


@pytest.mark.parametrize("by", ["term", "status", ["h", "h"]])
def test_keys_that_the_tables_could_not_hold(by):
    data = {"y": X[:, 1], "term": np.arange(N) % 2, "status": np.arange(N) % 2, "h": np.arange(N) % 2}
    with pytest.raises(ValueError, match="rename it"):
        jaxglm.glm("y ~ 1", data, by=by)


def test_the_first_category_is_failure_at_both_doors():
    use = pd.Categorical(["yes", "no", "no", "no"], categories=["yes", "no"])
    by_array = jaxglm.fit(np.ones((4, 1)), use, "binomial")
    by_table = jaxglm.glm("use ~ 1", {"use": use}, "binomial")
    assert by_array.coefficients[0] == pytest.approx(np.log(3.0))
    np.testing.assert_array_equal(by_array.coefficients, by_table.coefficients)


@pytest.mark.parametrize(("family", "link"), [("gamma", "inverse"), ("poisson", "identity"), ("poisson", "sqrt")])
def test_intervals_of_means_hold_the_estimate_and_stay_in_range(family, link):
    y = np.array([0.2, 3.0, 1.0, 9.0, 0.5]) if family == "gamma" else np.array([1.0, 3.0, 2.0, 9.0, 1.0])
    x = np.column_stack([np.ones(5), [0.0, 0.5, 1.0, 1.5, 0.2]])
    fit = jaxglm.fit(x, y, jaxglm.families.named(family, link))
    found = fit.prediction(np.array([[1.0, 0.1], [1.0, 1.0]]), level=0.999)
    assert (found.low <= found.estimate).all()
    assert (found.estimate <= found.high).all()
    assert (found.low >= 0.0).all()


def test_missing_covariates_make_all_responses_invalid_on_request():
    data = {"x": np.where(np.arange(N) == 3, np.nan, X[:, 1])}
    with pytest.warns(jaxglm.StatusWarning):
        fit = jaxglm.glm("~ x", data, responses=RNG.normal(size=(N, 2)), missing="invalid")
    assert (fit.status == Status.INVALID_DATA).all()


def test_parameters_in_columns_are_checked():
    data = {"y": np.arange(8) % 3, "g": np.arange(8) % 2, "size": np.where(np.arange(8) % 2, -1.0, 2.0)}
    with pytest.raises(ValueError, match="theta must be positive"):
        jaxglm.glm("y ~ 1", data, jaxglm.families.NegativeBinomial("size"), by="g")


def test_a_negative_response_under_a_log_link_separates():
    """Its mean tends to 0, and its part of the deviance to y^2."""
    flag = (np.arange(20) < 5) * 1.0
    y = np.where(flag > 0, -1.0, 2.0 + RNG.normal(size=20) * 0.1)
    with pytest.warns(jaxglm.StatusWarning):
        fit = jaxglm.fit(np.column_stack([np.ones(20), flag]), y, jaxglm.families.Gaussian("log"))
    rest = y[flag == 0]
    assert fit.status == Status.SEPARATED
    assert fit.infinite.tolist() == [0, -1]
    assert fit.deviance == pytest.approx(5.0 + np.sum((rest - rest.mean()) ** 2), rel=1e-10)
    assert fit.dispersion == pytest.approx(fit.deviance / 18, rel=1e-10)
    np.testing.assert_array_equal(fit.fitted[flag > 0], 0.0)


def test_predictions_want_the_offset_that_the_fit_had():
    fit = jaxglm.fit(X, np.arange(N) % 4, "poisson", offset=X[:, 1])
    with pytest.raises(ValueError, match="give offset= or exposure="):
        fit.predict(X[:3])
    np.testing.assert_allclose(fit.predict(X, offset=X[:, 1]), fit.fitted)
