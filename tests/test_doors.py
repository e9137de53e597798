"""The table door against R, and what it takes: keys, columns, responses, missing values, and what it refuses.

The references are in tests/reference/doors.json (see doors.R there). Fits are shared between tests.
"""

import json
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import jaxglm
from jaxglm import Status, StatusWarning, families, wald

REFERENCE = Path(__file__).parent / "reference"
DOORS = json.loads((REFERENCE / "doors.json").read_text())
DISTRICTS = json.loads((REFERENCE / "districts.json").read_text())
CASES = {case["name"]: case for case in DOORS["cases"]}
FAMILIES = {
    "gamma": families.Gamma("log"),
    "inverse_gaussian": families.InverseGaussian("log"),
    "negative_binomial": families.NegativeBinomial(2.0),
}
TOLERANCE = 1e-8
every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


def frame(columns):
    """A pandas table of reference columns, in which R's NA is missing."""
    return pd.DataFrame({name: [None if value == "NA" else value for value in values] for name, values in columns.items()})


ROWS = frame(DOORS["rows"])
WOMEN = jaxglm.datasets.load("contraception")
LATER = {"rows": frame(DOORS["new"]), "contraception": frame(DOORS["new_women"])}


@cache
def fitted(name):
    """The fit of a case."""
    case = CASES[name]
    data = ROWS if case["data"] == "rows" else WOMEN
    family = FAMILIES.get(case["family"], case["family"])
    return jaxglm.glm(case["formula"], data, family=family, weights=case["weights"], exposure=case["exposure"])


@cache
def counts_by_shop(**keywords):
    """Poisson fits of three groups."""
    return jaxglm.glm("count ~ x + g", ROWS, family="poisson", by="f", exposure="t", **keywords)


def close(values, reference, unit=0.0, name=""):
    """Hold values against R's, relative to the reference or the unit, the larger. NaN must meet NaN."""
    reference = np.array(reference, float)
    unit = np.maximum(np.nan_to_num(np.abs(reference), nan=1.0), np.nan_to_num(np.array(unit, float), nan=1.0))
    unit = np.where(unit > 0, unit, 1.0)
    np.testing.assert_allclose(np.asarray(values, float) / unit, reference / unit, rtol=0, atol=TOLERANCE, err_msg=name)


def same(one, other, tolerance=1e-12):
    """Hold coefficients, errors and the rest of two results against each other."""
    for name in ("coefficients", "standard_errors", "deviance", "null_deviance", "log_likelihood", "aic", "dispersion"):
        np.testing.assert_allclose(getattr(one, name), getattr(other, name), rtol=tolerance, atol=tolerance, err_msg=name)
    for name in ("rank", "n_obs", "df_residual", "df_null", "status"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)


@every_case
def test_terms_are_rs(case):
    fit = fitted(case["name"])
    table = fit.tidy()
    assert fit.names == table["term"].tolist() == case["terms"]
    assert fit.status == Status.CONVERGED
    assert set(table["status"]) == {"converged"}
    close(table["estimate"], case["estimate"], case["std_error"], "estimate")
    close(table["statistic"], case["statistic"], 1.0, "statistic")
    for name in ("std_error", "p_value", "log10_p"):
        close(table[name], case[name], name=name)
    for name in ("conf_low", "conf_high"):
        close(table[name], case[name], case["std_error"], name)


@every_case
def test_scalars_are_rs(case):
    fit = fitted(case["name"])
    for name in ("rank", "n_obs", "n_dropped", "df_residual", "df_null"):
        assert getattr(fit, name) == case[name], name
    for name in ("deviance", "null_deviance", "dispersion", "log_likelihood", "aic", "bic"):
        close(getattr(fit, name), case[name], name=name)


@every_case
def test_rows_are_rs(case):
    fit = fitted(case["name"])
    show = slice(None) if case["show"] is None else case["show"]
    found = {"fitted": fit.fitted, "linear_predictor": fit.linear_predictor}
    found |= {"working_weights": fit.working_weights, "working_response": fit.working_response}
    expected = {name: np.array(case[name], float) for name in found}
    for name, values in case["residuals"].items():
        found[name], expected[name] = fit.residuals(name), np.array(values, float)
    for name, values in found.items():
        # R's reference has no values in rows of weight zero.
        out = np.isnan(expected[name]) if case["name"] == "zero weights" else False
        scale = np.sqrt(np.nanmean(expected[name] ** 2))
        close(np.where(out, np.nan, values[show]), expected[name], scale, name)


@every_case
def test_predictions_are_rs(case):
    fit, new, expected = fitted(case["name"]), LATER[case["data"]], case["predictions"]
    if expected is None:  # R's predict has no exposure: by hand
        link = fit.predict(new, "link")
        plain = fit.predict(new, "link", exposure=np.ones(len(new)))
        close(link, plain + np.log(new[case["exposure"]]), 1.0)
        return
    link, response = fit.prediction(new, "link"), fit.prediction(new, "response")
    close(link.estimate, expected["link"], 1.0)
    close(fit.predict(new, "link"), expected["link"], 1.0)
    close(link.standard_error, expected["link_error"])
    close(link.low, expected["low"], 1.0)
    close(link.high, expected["high"], 1.0)
    close(response.estimate, expected["response"])
    close(fit.predict(new), expected["response"])
    close(response.standard_error, expected["response_error"])
    inverse = {"gaussian": lambda eta: eta, "binomial": lambda eta: 1 / (1 + np.exp(-eta))}.get(case["family"], np.exp)
    close(response.low, inverse(np.array(expected["low"])))
    close(response.high, inverse(np.array(expected["high"])))


def test_extreme_p_values_are_rs():
    close(wald.log10_p_values(np.array([50.0]), None), [DOORS["extreme"]["z50"]])
    close(wald.log10_p_values(np.array([[80.0]]), np.array([[30]])), [[DOORS["extreme"]["t80_30"]]])
    assert wald.p_values(np.array([50.0]), None) == 0.0
    # Where the logarithm takes over, on both sides: p about 1e-279 and 1e-281 with 30 degrees of freedom.
    t = np.geomspace(1e9, 1e11, 25)
    log10_p = wald.log10_p_values(t, np.full(25, 30))
    slope = np.diff(log10_p) / np.diff(np.log10(t))
    np.testing.assert_allclose(slope, -30.0, rtol=1e-10)


def test_districts_are_rs():
    with pytest.warns(StatusWarning, match=r"36 of 60 fits .*: 36 separated \(\d+, \d+, \d+, \.\.\.\)") as told:
        fit = jaxglm.glm("use ~ age + I(age^2) + urban + livch", WOMEN, family="binomial", by="district")
    assert len(told) == 1
    assert fit.groups.tolist() == sorted(WOMEN["district"].unique())
    for case in DISTRICTS["districts"]:
        one = fit[int(case["district"])]
        assert (one.n_obs, one.rank) == (case["n_obs"], case["rank"])
        assert (one.status == Status.SEPARATED) == case["separated"]
        if not case["separated"]:
            close(one.coefficients, case["coefficients"], case["errors"])
            close(one.standard_errors, case["errors"])
            for name in ("deviance", "null_deviance", "aic", "log_likelihood"):
                close(getattr(one, name), case[name], name=name)


def test_exposure_and_offset_columns_arrays_and_terms_are_one():
    table = ROWS.assign(log_t=np.log(ROWS["t"]))
    expected = fitted("offset in the formula")
    same(fitted("exposure"), expected)
    for keywords in ({"offset": "log_t"}, {"offset": np.log(ROWS["t"])}, {"exposure": ROWS["t"].to_numpy()}):
        same(jaxglm.glm("count ~ x + g", table, family="poisson", **keywords), expected)
    both = jaxglm.glm("count ~ x + g + offset(-log(t))", table, family="poisson", exposure="t", offset="log_t")
    same(both, expected)


def test_weights_are_a_column_or_an_array():
    same(jaxglm.glm("y ~ x + g", ROWS, weights=ROWS["w"].to_numpy()), fitted("gaussian weighted"))


def test_a_logical_response_is_a_text_response():
    same(fitted("text response"), fitted("logical response"))


def test_by_is_a_fit_of_each_groups_rows():
    fit = counts_by_shop()
    assert fit.groups.tolist() == ["a", "b", "c"]
    for shop in fit.groups:
        same(fit[shop], jaxglm.glm("count ~ x + g", ROWS[ROWS["f"] == shop], family="poisson", exposure="t"))


def test_levels_and_transforms_are_those_of_the_whole_table():
    """Group "d" has only one level of g, whose dummy is aliased there; poly is that of all rows."""
    table = pd.concat([ROWS, ROWS[ROWS["g"] == "low"].assign(f="d")])
    fit = jaxglm.glm("y ~ x + g", table, by="f")
    assert fit.names == ["Intercept", "x", "g[T.low]"]
    assert np.isnan(fit["d"].coefficients).tolist() == [False, False, True]
    assert fit["d"].rank == 2
    same(fit["a"], jaxglm.glm("y ~ x + g", ROWS[ROWS["f"] == "a"]))
    curved = jaxglm.glm("y ~ poly(x, 2)", ROWS, by="f")
    design = curved.table.design.design(ROWS)
    np.testing.assert_allclose(design.T @ design, np.diag([len(ROWS), 1, 1]), atol=1e-12)
    np.testing.assert_allclose(curved.predict(ROWS), curved.fitted, rtol=1e-12)


def test_several_keys_are_tuples_in_their_order():
    table = ROWS.assign(year=np.where(ROWS.index % 2, 2020, 2021))
    fit = jaxglm.glm("y ~ x + z", table, by=["year", "f"])
    assert fit.groups == [(year, f) for year in (2020, 2021) for f in "abc"]
    inside = (table["year"] == 2021) & (table["f"] == "b")
    same(fit[2021, "b"], jaxglm.glm("y ~ x + z", table[inside]))
    assert list(fit.tidy().columns[:3]) == ["year", "f", "term"]
    assert list(fit.glance().columns[:2]) == ["year", "f"]


def test_theta_from_a_column():
    table = ROWS.assign(theta=ROWS["f"].map({"a": 1.0, "b": 2.0, "c": 5.0}))
    fit = jaxglm.glm("wide ~ x + g", table, family=families.NegativeBinomial("theta"), by="f")
    assert fit.theta.tolist() == [1.0, 2.0, 5.0]
    assert fit["b"].theta == 2.0
    same(fit["b"], jaxglm.glm("wide ~ x + g", ROWS[ROWS["f"] == "b"], family=families.NegativeBinomial(2.0)))
    array = jaxglm.glm("wide ~ x + g", ROWS, family=families.NegativeBinomial(np.array([1.0, 2.0, 5.0])), by="f")
    same(array, fit)
    np.testing.assert_allclose(fit.predict(table), fit.fitted, rtol=1e-12)
    with pytest.raises(ValueError, match=r"'theta'.*not constant within group 'b'"):
        jaxglm.glm("wide ~ x", table.assign(theta=table["x"]), family=families.NegativeBinomial("theta"), by="f")
    with pytest.raises(ValueError, match="Did you mean 'theta'"):
        jaxglm.glm("wide ~ x", table, family=families.NegativeBinomial("thta"), by="f")


def test_rows_with_missing_values_or_keys_are_counted():
    table = ROWS.assign(key=ROWS["f"].where(ROWS.index != 7))
    fit = jaxglm.glm("count_na ~ x_na + g_na", table, family="poisson", by="key", exposure="t_na", weights="w_na")
    gone = table[["count_na", "x_na", "g_na", "t_na", "w_na"]].isna().any(axis=1)
    assert fit.n_dropped.tolist() == gone.groupby(table["key"]).sum().tolist()
    assert fit.n_obs.tolist() == (~gone).groupby(table["key"]).sum().tolist()
    assert fit.n_unassigned == 1
    assert "7 rows with missing values, 1 without a group" in fit.summary()
    np.testing.assert_array_equal(np.isnan(fit.fitted), gone | table["key"].isna())
    one = jaxglm.glm("count_na ~ x_na + g_na", table[table["key"] == "a"], family="poisson", exposure="t_na", weights="w_na")
    same(fit["a"], one)


def test_missing_invalid_marks_the_group():
    with pytest.warns(StatusWarning, match=r"1 of 3 fits did not converge: 1 invalid_data \(b\)"):
        fit = jaxglm.glm("count_na ~ x + g", ROWS, family="poisson", by="f", exposure="t", missing="invalid")
    assert fit.status.tolist() == [Status.CONVERGED, Status.INVALID_DATA, Status.CONVERGED]
    assert fit.n_dropped.tolist() == [0, 0, 0]
    assert np.isnan(fit["b"].coefficients).all()
    same(fit["a"], counts_by_shop()["a"])
    assert fit.fitted.shape == (60,)


def test_groups_without_a_row_left_are_there():
    table = ROWS.assign(x=ROWS["x"].where(ROWS["f"] != "b"))
    with pytest.warns(StatusWarning, match=r"1 of 3 fits did not converge: 1 no_data \(b\)"):
        fit = jaxglm.glm("count ~ x + g", table, family="poisson", by="f", exposure="t")
    assert fit.groups.tolist() == ["a", "b", "c"]
    assert (fit["b"].status, fit["b"].n_dropped, fit["b"].n_obs) == (Status.NO_DATA, 20, 0)
    assert np.isnan(fit["b"].coefficients).all()
    assert np.isnan([fit["b"].deviance, fit["b"].null_deviance, fit["b"].aic, fit["b"].bic, fit["b"].dispersion]).all()
    same(fit["c"], counts_by_shop()["c"])


def test_weight_zero_is_a_row_that_is_not_there_whatever_it_holds():
    table = ROWS.assign(count=ROWS["count"].where(ROWS.index != 4, -3), w=np.where(ROWS.index == 4, 0.0, 1.0))
    fit = jaxglm.glm("count ~ x + g", table, family="poisson", by="f", exposure="t", weights="w")
    same(fit, jaxglm.glm("count ~ x + g", ROWS.drop(index=4), family="poisson", by="f", exposure="t"))
    missing = table.assign(count=table["count"].where(table.index != 4))
    fit = jaxglm.glm("count ~ x + g", missing, family="poisson", by="f", exposure="t", weights="w")
    assert fit.n_dropped.tolist() == [0, 0, 0]


def test_categorical_keys_keep_their_order():
    fit = jaxglm.glm("count ~ x + g", ROWS.assign(f=pd.Categorical(ROWS["f"], list("dcab"))), "poisson", by="f", exposure="t")
    assert fit.groups.tolist() == ["c", "a", "b"]
    same(fit["a"], counts_by_shop()["a"])


Y = np.column_stack([ROWS["y"], ROWS["positive"], 2.0 * ROWS["y"]])


def test_responses_share_one_design():
    fit = jaxglm.glm("~ x + g", ROWS, responses=Y)
    table = pd.DataFrame(Y, columns=["plain", "positive", "twice"])
    named = jaxglm.glm("~ x + g", ROWS, responses=table)
    same(fit, named)
    assert (fit.groups.tolist(), named.groups.tolist()) == ([0, 1, 2], ["plain", "positive", "twice"])
    same(named["plain"], fitted("gaussian plain"))
    same(fit[1], jaxglm.glm("positive ~ x + g", ROWS))
    assert named.fitted.shape == named.residuals().shape == (3, 60)
    assert list(named.tidy().columns[:2]) == ["response", "term"]
    np.testing.assert_allclose(named.fitted[2], 2.0 * named.fitted[0], rtol=1e-10)
    np.testing.assert_allclose(named.predict(ROWS), named.fitted, rtol=1e-12)
    np.testing.assert_allclose(named.predict(ROWS, groups=["twice"] * 60), named.fitted[2], rtol=1e-12)


def test_responses_miss_values_one_by_one():
    holes = Y.copy()
    holes[3, 0] = holes[8, 0] = holes[9, 2] = np.nan
    fit = jaxglm.glm("~ x + g_na", ROWS, responses=holes)
    assert fit.n_dropped.tolist() == [5, 3, 4]
    one = ROWS.assign(y=holes[:, 0])
    same(fit[0], jaxglm.glm("y ~ x + g_na", one))
    assert np.isnan(fit.fitted[:, ROWS["g_na"].isna()]).all()
    with pytest.warns(StatusWarning, match="2 of 3 fits"):
        fit = jaxglm.glm("~ x + g", ROWS, responses=holes, missing="invalid")
    assert fit.status.tolist() == [Status.INVALID_DATA, Status.CONVERGED, Status.INVALID_DATA]


def test_responses_that_do_not_fit():
    with pytest.raises(ValueError, match=r"transposed: pass responses\.T"):
        jaxglm.glm("~ x", ROWS, responses=Y.T)
    with pytest.raises(ValueError, match=r"responses has 3 rows, data has 60\. It looks transposed"):
        jaxglm.glm("~ x", ROWS, responses=pd.DataFrame(Y.T))
    with pytest.raises(ValueError, match="by= and responses= cannot be combined"):
        jaxglm.glm("~ x", ROWS, responses=Y, by="f")
    with pytest.raises(ValueError, match="response"):
        jaxglm.glm("y ~ x", ROWS, responses=Y)


REFUSED = {
    "a column": (("y ~ xx", {}), ValueError, "no column 'xx'"),
    "a key": (("y ~ x", {"by": "ff"}), ValueError, "no column 'ff'"),
    "weights": (("y ~ x", {"weights": "ww"}), ValueError, "weights: the table has no column 'ww'"),
    "text weights": (("y ~ x", {"weights": "g"}), TypeError, "weights: column 'g' holds"),
    "an array": (("y ~ x", {"offset": np.ones(3)}), ValueError, r"shape \(60,\), not \(3,\)"),
    "family": (("y ~ x", {"family": "possion"}), ValueError, "Did you mean 'poisson'"),
    "missing": (("y ~ x", {"missing": "omit"}), ValueError, "missing must be"),
    "names": (("y ~ x", {"names": ["one"]}), ValueError, "names must be 2 different names"),
    "precision": (("y ~ x", {"precision": "float16"}), ValueError, "precision must be"),
    "labels": (("label ~ x", {"family": "poisson"}), ValueError, "labels no, yes, which need a binomial family"),
    "cbind": (("cbind(s, fail) ~ x", {"family": "poisson"}), ValueError, "needs a binomial family, not poisson"),
    "levels": (("f ~ x", {"family": "binomial"}), ValueError, "has 3 levels .* needs two: failure, then success"),
    "start": (("y ~ x", {"start": np.ones(3)}), ValueError, "start must have shape"),
    "device": (("y ~ x", {"device": "quantum"}), ValueError, "no device 'quantum'"),
    "theta": (("count ~ x", {"family": families.NegativeBinomial(np.ones(2)), "by": "f"}), ValueError, r"shape \(3,\)"),
}


@pytest.mark.parametrize(("call", "error", "says"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused_before_anything_runs(call, error, says):
    with pytest.raises(error, match=says):
        jaxglm.glm(call[0], ROWS, **call[1])


def test_no_rows_left():
    with pytest.raises(ValueError, match="no rows are left"):
        jaxglm.glm("y ~ hole", ROWS.assign(hole=np.nan))


def test_names_and_progress():
    seen = []
    fit = jaxglm.glm("y ~ x + g", ROWS, names=["one", "two", "three"], progress=lambda done, total: seen.append((done, total)))
    assert fit.names == fit.tidy()["term"].tolist() == ["one", "two", "three"]
    assert seen[-1] == (1, 1)
    np.testing.assert_allclose(fit.predict(ROWS), fit.fitted, rtol=1e-12)


def test_prediction_of_groups_is_the_delta_method():
    fit, new = counts_by_shop(), ROWS.iloc[:8]
    design = np.column_stack([np.ones(8), new["x"], new["g"] == "low"])
    place = ["abc".index(shop) for shop in new["f"]]
    eta = np.einsum("ij,ij->i", design, fit.coefficients[place]) + np.log(new["t"])
    error = np.sqrt(np.einsum("ij,ijk,ik->i", design, fit.covariance[place], design))
    found = fit.prediction(new, level=0.8)
    np.testing.assert_allclose(found.estimate, np.exp(eta), rtol=1e-12)
    np.testing.assert_allclose(found.standard_error, error * np.exp(eta), rtol=1e-12)
    np.testing.assert_allclose(found.low, np.exp(eta - 1.2815515655446004 * error), rtol=1e-12)


def test_predict_refuses():
    fit, one = counts_by_shop(), fitted("gaussian plain")
    for new, error, says in (
        (ROWS.assign(f="d"), KeyError, "no fit for the group d; the fitted groups are a, b, c"),
        (ROWS.assign(f=None), KeyError, "missing group"),
        (ROWS.assign(g="middle"), ValueError, "column 'g' has levels that the fit has not seen: 'middle'"),
        (ROWS.drop(columns="x"), ValueError, "no column 'x'"),
        (ROWS.drop(columns="t"), ValueError, "exposure: the table has no column 't'"),
        (np.ones((4, 2)), ValueError, r"shape \(m, 3\), for the terms Intercept, x, g\[T\.low\], not \(4, 2\)"),
    ):
        with pytest.raises(error, match=says):
            fit.predict(new)
    for call, says in (
        ({"type": "terms"}, 'type must be "response" or "link"'),
        ({"groups": ["a"] * 60}, "this is one fit"),
        ({"offset": np.ones(7)}, "offset and exposure must have shape"),
    ):
        with pytest.raises(ValueError, match=says):
            one.predict(ROWS, **call)
    with pytest.raises(ValueError, match="one group for each of the 60 new rows, not 2"):
        fit.predict(ROWS, groups=["a", "b"])
