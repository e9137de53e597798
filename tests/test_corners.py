"""Corners where two features meet, each of which once gave a wrong answer."""

from dataclasses import replace

import numpy as np
import pandas as pd
import polars as pl
import pyarrow
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


@pytest.mark.parametrize("family", [jaxglm.families.NegativeBinomial, jaxglm.families.Tweedie])
def test_a_parameter_out_of_range_makes_its_group_invalid(family):
    data = {"y": np.arange(8) % 3, "g": np.arange(8) % 2, "size": np.where(np.arange(8) % 2, -1.0, 1.5)}
    with pytest.warns(jaxglm.StatusWarning, match="1 invalid_data"):
        fit = jaxglm.glm("y ~ 1", data, family("size", "log"), by="g")
    assert fit.status.tolist() == [Status.CONVERGED, Status.INVALID_DATA]
    assert fit.n_obs.tolist() == [4, 4]
    alone = jaxglm.glm("y ~ 1", {"y": data["y"][::2]}, family(1.5, "log"))
    np.testing.assert_allclose(fit.coefficients[0], alone.coefficients, rtol=1e-12)
    with pytest.warns(jaxglm.StatusWarning, match="1 invalid_data"):
        fit = jaxglm.fit(np.ones((4, 1)), np.stack([data["y"][::2]] * 2), family([np.nan, 1.5], "log"))
    np.testing.assert_allclose(fit.coefficients[1], alone.coefficients, rtol=1e-12)
    with pytest.raises(ValueError, match="must be"):
        family(-1.0)


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


def test_a_frame_at_the_array_door_is_read_by_name():
    frame = pd.DataFrame(X, columns=["one", "x"])
    fit = jaxglm.fit(frame, np.arange(N) % 4, "poisson")
    np.testing.assert_allclose(fit.predict(frame[["x", "one"]]), fit.fitted)
    again = jaxglm.fit(pyarrow.table({"one": X[:, 0], "x": X[:, 1]}), np.arange(N) % 4, "poisson")
    assert again.names == ["one", "x"]
    np.testing.assert_array_equal(again.coefficients, fit.coefficients)


def test_predictions_want_the_offset_that_the_fit_had():
    fit = jaxglm.fit(X, np.arange(N) % 4, "poisson", offset=X[:, 1])
    with pytest.raises(ValueError, match="give offset= or exposure="):
        fit.predict(X[:3])
    np.testing.assert_allclose(fit.predict(X, offset=X[:, 1]), fit.fitted)


def test_arrays_predict_for_a_fit_with_an_exposure_once_it_is_given():
    data = {"y": np.arange(N) % 4, "x": X[:, 1], "days": np.arange(N) % 3 + 1.0}
    fit = jaxglm.glm("y ~ x", data, "poisson", exposure="days")
    np.testing.assert_allclose(fit.predict(X, exposure=data["days"]), fit.fitted, rtol=1e-12)
    np.testing.assert_allclose(fit.predict(data), fit.fitted, rtol=1e-12)


def test_predictions_read_the_columns_of_a_table_by_name():
    table = pl.DataFrame({"one": X[:, 0], "x": X[:, 1], "z": np.arange(N) % 5 * 1.0})
    fit = jaxglm.fit(table, np.arange(N) % 4, "poisson")
    np.testing.assert_array_equal(fit.predict(table.select("z", "one", "x")), fit.predict(table))
    np.testing.assert_allclose(fit.predict(table), fit.fitted, rtol=1e-12)


def test_a_design_of_nothing_but_aliased_columns_has_fitted_values():
    """As in R, whose fit has rank 0 and the means of eta = 0."""
    fit = jaxglm.fit(np.zeros((N, 1)), np.arange(N) % 4, "poisson")
    assert (fit.status, fit.rank) == (Status.CONVERGED, 0)
    np.testing.assert_array_equal(fit.fitted, 1.0)
    np.testing.assert_array_equal(fit.predict(np.ones((2, 1))), 1.0)
    assert "aliased" in fit.summary()
    with pytest.warns(jaxglm.StatusWarning):
        failed = jaxglm.fit(np.zeros((N, 1)), np.full(N, -1.0), "poisson")
    assert np.isnan(failed.fitted).all()
    assert "not estimated" in failed.summary()


def test_what_has_no_estimate_is_not_taken_for_aliased():
    """The other rows of a separated group may have no valid fit; its decided rows keep their means."""
    flag = (np.arange(N) < 5) * 1.0
    with pytest.warns(jaxglm.StatusWarning):
        fit = jaxglm.fit(np.column_stack([X, flag]), np.where(flag > 0, 0, np.arange(N) % 3 + 1), "poisson")
    known = fit.solution.coefficients * [[1.0, np.nan, 1.0]]
    fit = replace(fit, solution=replace(fit.solution, coefficients=known))
    for found in (fit.fitted, fit.predict(np.column_stack([X, flag]))):
        np.testing.assert_array_equal(found[flag > 0], 0.0)
        assert np.isnan(found[flag == 0]).all()
    assert "not estimated" in fit.summary()
    assert "aliased" not in fit.summary()


@pytest.mark.parametrize("rows", [slice(0), slice(None)], ids=["no rows", "no row with a group"])
def test_results_without_groups(rows):
    fit = jaxglm.fit(X[rows], X[rows, 1], groups=np.full(N, np.nan)[rows])
    assert (len(fit), fit.predict(X).shape, fit.prediction(X).low.shape) == (0, (0, N), (0, N))
    assert np.isnan(fit.fitted).all()
    table = fit.augment()
    assert len(table) == len(X[rows])
    assert table["group"].isna().all()


def test_a_term_called_like_another_column_of_augment():
    data = pd.DataFrame({"one": 1.0, "weight": X[:, 1]})
    fit = jaxglm.fit(data, X[:, 1] ** 2)
    with pytest.raises(ValueError, match="the term 'weight' is called like another column"):
        fit.augment()
    again = jaxglm.fit(data, X[:, 1] ** 2, names=["one", "kilograms"]).augment()
    np.testing.assert_array_equal(again["kilograms"], X[:, 1])


KEYS = {
    "text of NumPy's": (list(np.array(["a", "b"])), ["a", "b"]),
    "text of variable width": (np.array(["a", "b"], np.dtypes.StringDType()), ["a", "b"]),
    "numbers of NumPy's": (np.array([np.int64(3), np.float64(4.5)], object), [3, 4.5]),
}


@pytest.mark.parametrize("keys", KEYS)
def test_keys_of_numpys_types_in_files(tmp_path, keys):
    given, expected = KEYS[keys]
    fit = jaxglm.fit(X, X[:, 1], groups=[*given] * (N // 2) if isinstance(given, list) else np.tile(given, N // 2))
    fit.save(tmp_path / "fit")
    loaded = jaxglm.load(tmp_path / "fit")
    assert list(loaded.groups) == expected
    np.testing.assert_array_equal(loaded[expected[1]].coefficients, fit.coefficients[1])


def test_variances_of_new_rows_are_never_negative():
    fit = jaxglm.fit(X, np.arange(N) % 4, "poisson")
    flat = 1e8 * np.array([[[1.0, -1.0], [-1.0, 1.0 - 1e-15]]])
    found = replace(fit, solution=replace(fit.solution, covariance=flat)).prediction(np.array([[1.0, 1.0]]))
    assert found.standard_error.tolist() == [0.0]
    far = fit.prediction(np.array([[1.0, np.inf], [1.0, np.nan]]))
    assert np.isnan(far.standard_error).all()


@pytest.mark.parametrize(("family", "estimated"), [("gaussian", 1), ("poisson", 0), ("quasipoisson", 0)])
def test_criteria_count_the_parameters(family, estimated):
    one = jaxglm.fit(X, np.arange(N) % 4, family)
    many = jaxglm.fit(X, np.stack([np.arange(N) % 4] * 2), family)
    assert (type(one.aic), type(one.bic), one.n_parameters) == (float, float, 2 + estimated)
    np.testing.assert_array_equal(many.n_parameters, 2 + estimated)
    np.testing.assert_allclose([one.aic] * 2, -2.0 * many.log_likelihood + 2.0 * (2 + estimated), rtol=1e-12)
    np.testing.assert_allclose(many.bic - many.aic, (np.log(N) - 2.0) * many.n_parameters + 0.0 * many.bic, rtol=1e-9)
