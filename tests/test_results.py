"""What a fit gives back: tables, intervals, predictions, single groups, words, files, and the limits of separated groups.

Fits are made once; what a result does with its numbers is tested on them, numbers against R in test_doors.
"""

import datetime
import json
from dataclasses import replace
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from cases import own_family
from scipy import stats

import jaxglm
from jaxglm import Status, StatusWarning, families, links
from jaxglm.groups import Groups

SEPARATED = json.loads((Path(__file__).parent / "reference" / "doors.json").read_text())["separated"]
RNG = np.random.default_rng(3)
N = 90
X_VALUES = [None if i in (4, 31) else round(float(value), 3) for i, value in enumerate(RNG.uniform(-1, 1, N))]
COLUMNS = {
    "store": [None if i == 50 else ("south", "east", "north")[i % 3] for i in range(N)],
    "sku": [7 + (i // 3) % 2 for i in range(N)],
    "x": X_VALUES,
    "promo": [int(value) for value in RNG.integers(0, 2, N)],
    "days": [float(value) for value in RNG.integers(1, 6, N)],
}
COLUMNS["count"] = [int(value) for value in RNG.poisson(2.0 * np.array(COLUMNS["days"]))]
TABLE = pd.DataFrame(COLUMNS)
GONE = TABLE["x"].isna() | TABLE["store"].isna()
KINDS = {
    "pandas": (lambda: TABLE, pd.DataFrame),
    "polars": (lambda: pl.DataFrame(COLUMNS), pl.DataFrame),
    "pyarrow": (lambda: pa.table(COLUMNS), pa.Table),
    "duckdb": (lambda: duckdb.from_arrow(pa.table(COLUMNS)), pa.Table),
}
QUANTITIES = [
    "fitted", "linear_predictor", "residual_deviance", "residual_pearson", "residual_response", "residual_working",
    "working_weight", "hat", "residual_standardized", "residual_studentized", "cooks_distance",
]  # fmt: skip
TIDY = ["term", "estimate", "std_error", "statistic", "p_value", "log10_p", "conf_low", "conf_high", "status"]
GLANCE = [
    "deviance", "null_deviance", "log_likelihood", "aic", "bic", "dispersion", "theta", "power", "df_residual", "df_null",
    "rank", "n_obs", "n_iterations", "status", "converged", "method", "n_dropped", "verdict",
]  # fmt: skip
X = np.column_stack([np.ones(24), np.linspace(-1, 1, 24), np.arange(24) % 2])
Y = RNG.poisson(np.exp(0.7 + 0.4 * X[:, 1]), (3, 24)).astype(float)


def by_store(data):
    """Six Poisson fits of a table."""
    return jaxglm.glm("count ~ x + promo", data, family="poisson", by=["store", "sku"], exposure="days")


@pytest.fixture(scope="module")
def many():
    return by_store(TABLE)


@pytest.fixture(scope="module")
def one():
    """A Gaussian fit of a table."""
    return jaxglm.glm("count ~ x + promo", TABLE)


@pytest.fixture(scope="module")
def crossed():
    """Three Poisson fits of arrays that share a design."""
    return jaxglm.fit(X, Y, family="poisson")


def pandas_of(table):
    """Any table as pandas."""
    return table if isinstance(table, pd.DataFrame) else table.to_pandas()


@pytest.mark.parametrize(("make", "kind"), KINDS.values(), ids=KINDS)
def test_tables_come_out_in_the_kind_that_went_in(many, make, kind):
    fit = by_store(make())
    for name, columns in {"tidy": ["store", "sku", *TIDY], "glance": ["store", "sku", *GLANCE]}.items():
        table = getattr(fit, name)()
        assert isinstance(table, kind), name
        found, expected = pandas_of(table), getattr(many, name)()
        assert list(found.columns) == columns
        pd.testing.assert_frame_equal(found.astype(object), expected.astype(object), check_dtype=False)
    table = fit.augment()
    assert isinstance(table, kind)
    assert list(pandas_of(table).columns) == [*COLUMNS, *QUANTITIES]
    found = pandas_of(table)
    np.testing.assert_array_equal(found["count"], TABLE["count"])
    for name in QUANTITIES:
        np.testing.assert_array_equal(np.isnan(found[name]), GONE, err_msg=name)
    np.testing.assert_array_equal(found["fitted"], many.fitted)
    np.testing.assert_allclose(fit.predict(make_known(make())), many.fitted[~GONE], rtol=1e-12)


def make_known(data):
    """The rows of a table that are complete."""
    if isinstance(data, pd.DataFrame):
        return data[~GONE]
    if isinstance(data, pl.DataFrame):
        return data.filter(pl.Series(~GONE.to_numpy()))
    return data.filter(pa.array(~GONE)) if isinstance(data, pa.Table) else data.filter("x is not null and store is not null")


def test_tidy_has_a_row_a_group_and_term(many):
    table = many.tidy()
    assert table["term"].tolist() == ["Intercept", "x", "promo"] * 6
    assert list(zip(table["store"][::3], table["sku"][::3], strict=True)) == many.groups
    np.testing.assert_array_equal(table["estimate"], many.coefficients.ravel())
    np.testing.assert_array_equal(table["std_error"], many.standard_errors.ravel())
    np.testing.assert_array_equal(table["statistic"], (many.coefficients / many.standard_errors).ravel())
    np.testing.assert_array_equal(table[["conf_low", "conf_high"]], many.conf_int().reshape(-1, 2))
    np.testing.assert_allclose(table["log10_p"], np.log10(table["p_value"]), rtol=1e-10)
    assert set(table["status"]) == {"converged"}
    plain, ratio = many.tidy(level=0.9), many.tidy(level=0.9, exponentiate=True)
    for name in ("estimate", "conf_low", "conf_high"):
        np.testing.assert_allclose(ratio[name], np.exp(plain[name]), rtol=1e-14)
    for name in ("std_error", "statistic", "p_value", "log10_p"):
        np.testing.assert_array_equal(ratio[name], plain[name])


def test_glance_holds_the_scalars(many, one):
    table = many.glance()
    for name in set(GLANCE) - {"status"}:
        np.testing.assert_array_equal(table[name], getattr(many, name), err_msg=name)
    assert list(one.glance().columns) == GLANCE
    assert one.glance()["deviance"].item() == one.deviance
    assert one.tidy().columns.tolist() == TIDY


def test_intervals_have_their_level(many, one):
    for level in (0.5, 0.95, 0.999):
        half = stats.norm.ppf(0.5 + level / 2) * many.standard_errors
        expected = np.stack([many.coefficients - half, many.coefficients + half], axis=-1)
        np.testing.assert_allclose(many.conf_int(level), expected, rtol=1e-12)
        half = stats.t.ppf(0.5 + level / 2, one.df_residual) * one.standard_errors
        np.testing.assert_allclose(one.conf_int(level)[:, 1], one.coefficients + half, rtol=1e-12)
    assert many.conf_int().shape == (6, 3, 2)
    with pytest.raises(ValueError, match=r"level must be between 0 and 1, such as 0\.95, not 95"):
        one.tidy(level=95)


def test_predict_finds_groups_offsets_and_columns(many, crossed):
    new = make_known(TABLE)
    np.testing.assert_allclose(many.predict(new), many.fitted[~GONE], rtol=1e-12)
    keys = (new["store"].to_numpy(), new["sku"].to_numpy())
    np.testing.assert_allclose(many.predict(new.drop(columns=["store", "sku"]), groups=keys), many.predict(new), rtol=1e-12)
    np.testing.assert_allclose(many.predict(new, exposure=np.ones(len(new))) * new["days"], many.predict(new), rtol=1e-12)
    part = many["east", 8].predict(new)
    here = (new["store"] == "east") & (new["sku"] == 8)
    np.testing.assert_allclose(part[here], many.predict(new)[here], rtol=1e-12)
    np.testing.assert_allclose(crossed.predict(X), crossed.fitted, rtol=1e-12)
    np.testing.assert_allclose(crossed.predict(X[:3], groups=[2, 0, 2]), crossed.fitted[[2, 0, 2], [0, 1, 2]], rtol=1e-12)
    np.testing.assert_allclose(crossed.predict(np.stack([X] * 3), offset=np.ones(24)), np.e * crossed.fitted, rtol=1e-12)
    with_gap = crossed[0].predict(np.array([[1.0, np.nan, 0.0], [1.0, 0.0, 0.0]]))
    assert np.isnan(with_gap).tolist() == [True, False]


def test_one_group_by_key_or_position(many, crossed):
    part = many["north", 7]
    place = many.groups.index(("north", 7))
    assert (part.many, part.groups, part.n_dropped) == (False, None, many.n_dropped[place])
    np.testing.assert_array_equal(part.coefficients, many.coefficients[place])
    inside = (TABLE["store"] == "north") & (TABLE["sku"] == 7) & ~GONE
    np.testing.assert_array_equal(part.fitted, many.fitted[inside])
    assert len(part.augment()) == inside.sum()
    np.testing.assert_array_equal(crossed[-1].coefficients, crossed.coefficients[2])
    np.testing.assert_array_equal(crossed[np.int64(1)].residuals(), crossed.residuals()[1])
    with pytest.raises(KeyError) as told:
        many["nort", 7]
    assert "there is no group ('nort', 7). Did you mean \"('north', 7)\"? Groups: ('east', 7), " in told.value.args[0]
    with pytest.raises(KeyError, match=r"named by 2 values \(store, sku\), not by 'north'"):
        many["north"]
    for key in (3, -4, "a"):
        with pytest.raises(KeyError, match="there are 3, from 0 on"):
            crossed[key]


def test_row_wise_shapes_and_order(many, crossed):
    names = ("fitted", "linear_predictor", "working_response", "working_weights")
    for fit, shape in ((many, (N,)), (crossed, (3, 24)), (crossed[0], (24,))):
        assert {getattr(fit, name).shape for name in names} == {shape}
        assert {fit.residuals(type).shape for type in ("deviance", "pearson", "response", "working")} == {shape}
    np.testing.assert_allclose(crossed.residuals("response"), Y - crossed.fitted, rtol=1e-12)
    np.testing.assert_allclose((crossed.residuals() ** 2).sum(axis=1), crossed.deviance, rtol=1e-12)
    with pytest.raises(ValueError, match=r"no 'devance' residuals\. Did you mean 'deviance'"):
        crossed.residuals("devance")


def test_augment_keeps_the_users_table():
    table = TABLE.set_index(np.arange(N) * 2 + 5)
    fit = jaxglm.glm("count ~ x + promo", table)
    assert fit.augment().index.tolist() == table.index.tolist()
    assert list(table.columns) == list(COLUMNS)
    with pytest.raises(ValueError, match="already has a column 'fitted'"):
        jaxglm.glm("count ~ x + promo", TABLE.assign(fitted=1.0)).augment()


def test_summary_and_repr_of_one(one):
    text = one.summary()
    for part in (
        "Generalized linear model: gaussian family, identity link", "Formula: count ~ x + promo", "Std. error", " t ",
        "Dispersion (estimated): ", f"Null deviance:     {one.null_deviance:.6g} on 87 degrees of freedom",
        f"Residual deviance: {one.deviance:.6g} on 85 degrees of freedom", f"AIC: {one.aic:.6g}", f"BIC: {one.bic:.6g}",
        "Rows: 88 (2 dropped)", "Status: converged",
    ):  # fmt: skip
        assert part in text, part
    assert [line.split()[0] for line in text.splitlines()[4:7]] == ["Intercept", "x", "promo"]
    assert repr(one) == "<GLMResults: gaussian (identity), 3 terms, 88 rows, converged>"


def test_summary_and_repr_of_many(many):
    text = many.summary()
    left_out = "Left out: 2 rows with missing values, 1 without a group"
    for part in ("poisson family, log link", "6 fits of 3 terms; rows: 87", left_out, "converged              6"):
        assert part in text, part
    assert repr(many) == "<GLMResults: 6 fits, poisson (log), 3 terms; 6 converged>"
    assert " z " in many["east", 7].summary()


# --- files ----------------------------------------------------------------------------------------------------------


def again(fit, path, **keywords):
    """A result that was saved and loaded."""
    fit.save(path / "fit.npz")
    return jaxglm.load(path / "fit.npz", **keywords)


def assert_same(one, other):
    """Everything but the rows is the same."""
    for name in ("coefficients", "covariance", "deviance", "null_deviance", "aic", "bic", "theta", "n_dropped", "status"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)
    assert (one.names, repr(one), one.n_unassigned) == (other.names, repr(other), other.n_unassigned)
    assert list(one.groups if one.many else [0]) == list(other.groups if other.many else [0])
    assert one.summary() == other.summary()


@pytest.mark.parametrize("kind", KINDS)
def test_a_table_result_in_a_file(tmp_path, kind):
    make, native = KINDS[kind]
    fit = by_store(make())
    loaded = again(fit, tmp_path)
    assert_same(fit, loaded)
    assert isinstance(loaded.tidy(), native)
    pd.testing.assert_frame_equal(pandas_of(loaded.tidy()), pandas_of(fit.tidy()))
    pd.testing.assert_frame_equal(pandas_of(loaded.glance()), pandas_of(fit.glance()))
    np.testing.assert_array_equal(loaded.predict(make_known(TABLE)), fit.predict(make_known(TABLE)))
    assert_same(loaded["south", 8], fit["south", 8])


def test_rows_are_not_in_files(tmp_path, crossed, one):
    for fit in (crossed, one):
        loaded = again(fit, tmp_path)
        assert_same(fit, loaded)
        for name in ("fitted", "linear_predictor", "residuals", "working_weights", "working_response", "augment"):
            with pytest.raises(ValueError, match=r"loaded from a file, which holds no rows.*Use predict\(new\)"):
                getattr(loaded, name)()
    np.testing.assert_array_equal(again(crossed, tmp_path).predict(X), crossed.predict(X))
    assert [path.name for path in tmp_path.iterdir()] == ["fit.npz"]


MODELS = [
    families.Binomial("cloglog"), families.Poisson(links.Power(1 / 3)), families.NegativeBinomial(np.array([1.0, 2.0, 3.0])),
    families.Tweedie(1.5), families.Quasi("mu(1-mu)", "probit"), families.Quasi("mu^1.3", "log"), families.QuasiPoisson(),
]  # fmt: skip


@pytest.mark.parametrize("model", MODELS, ids=lambda model: f"{model.name}-{model.link.name}")
def test_families_in_files(tmp_path, crossed, model):
    fit = replace(crossed, family=model)
    assert_same(fit, again(fit, tmp_path))
    np.testing.assert_array_equal(jaxglm.load(tmp_path / "fit.npz").predict(np.abs(X)), fit.predict(np.abs(X)))


def test_a_family_of_ones_own_has_to_be_given(tmp_path, crossed):
    fit = replace(crossed, family=own_family)
    with pytest.raises(ValueError, match=r"a family of your own; give it: jaxglm\.load\(path, family=\.\.\.\)"):
        again(fit, tmp_path)
    np.testing.assert_array_equal(again(fit, tmp_path, family=own_family).predict(X), fit.predict(X))


KEYS = {
    "integers": [[3, 5, 9]], "numbers": [[0.5, 1.5, 2.5]], "booleans and text": [[False, True, True], ["x", "x", "y"]],
    "days": [np.array(["2024-01-01", "2024-01-02", "2024-02-01"], "datetime64[D]")],
    "text": [np.array(["a", "ä", "c"], object)], "mixed": [np.array([1, 2.5, 10**12], object)],
    "dates": [np.array([datetime.date(2024, 1, day) for day in (1, 2, 3)], object)],
    "times and text": [np.array(["2024-01-01", "2024-01-02", "2024-02-01"], "datetime64[ns]"), ["x", "x", "y"]],
}  # fmt: skip


@pytest.mark.parametrize("keys", KEYS.values(), ids=KEYS)
def test_keys_in_files(tmp_path, crossed, keys):
    arrays = tuple(np.asarray(key) for key in keys)
    fit = replace(crossed, keys=Groups(tuple("ab"[: len(keys)]), arrays, np.zeros(0, np.int64)), observations=None)
    loaded = again(fit, tmp_path)
    assert_same(fit, loaded)
    label = fit.groups[1]
    np.testing.assert_array_equal(loaded[label].coefficients, fit[label].coefficients)


def test_files_that_are_no_results(tmp_path):
    (tmp_path / "text.npz").write_text("a,b\n1,2\n")
    np.savez(tmp_path / "other.npz", a=np.ones(3))
    for name in ("text.npz", "other.npz"):
        with pytest.raises(ValueError, match="is not a result that jaxglm saved"):
            jaxglm.load(tmp_path / name)
    with pytest.raises(FileNotFoundError, match="there is no file"):
        jaxglm.load(tmp_path / "nothing.npz")


# --- separated groups -----------------------------------------------------------------------------------------------


def separated(case):
    """Three groups: the second is the case's, the first all ones or zeros, the third as the case without d = 1."""
    rows = {name: np.array(values, float) for name, values in case["rows"].items()}
    decided = np.full(12, float(case["family"] == "binomial"))
    y = np.concatenate([decided, rows["y"], rows["y"][:20]])
    x, d = (np.concatenate([values[:12], values, values[:20]]) for values in (rows["x"], rows["d"]))
    d[-20:] = np.arange(20) % 2
    table = pd.DataFrame({"y": y, "x": x, "d": d, "key": np.repeat(["all", "mixed", "sound"], [12, 30, 20])})
    with pytest.warns(StatusWarning) as told:
        fit = jaxglm.glm("y ~ x + d", table, family=case["family"], by="key")
    (warning,) = told
    assert "2 of 3 fits did not converge: 2 separated (all, mixed). See fit.status" in str(warning.message)
    assert warning.filename == __file__
    return fit, table


@pytest.fixture(scope="module", params=SEPARATED, ids=lambda case: case["family"])
def limits(request):
    """A case and its fits."""
    return request.param, *separated(request.param)


def test_what_is_finite_is_the_fit_of_the_undecided_rows(limits):
    case, fit, _ = limits
    mixed, sign = fit["mixed"], 1 if case["family"] == "binomial" else -1
    assert fit.status.tolist() == [Status.SEPARATED, Status.SEPARATED, Status.CONVERGED]
    assert mixed.infinite.tolist() == [0, 0, sign]
    np.testing.assert_allclose(mixed.coefficients[:2], case["coefficients"], rtol=1e-8)
    np.testing.assert_allclose(mixed.standard_errors[:2], case["errors"], rtol=1e-8)
    assert sign * mixed.coefficients[2] > 10
    assert np.isnan([mixed.standard_errors[2], *mixed.covariance[2]]).all()
    for name in ("deviance", "null_deviance", "log_likelihood"):
        np.testing.assert_allclose(getattr(mixed, name), case[name], rtol=1e-8, err_msg=name)
    assert (mixed.rank, mixed.n_obs, mixed.df_residual) == (3, 30, 27)
    np.testing.assert_allclose(mixed.aic, -2 * case["log_likelihood"] + 6, rtol=1e-8)


def test_fitted_values_are_the_limits(limits):
    case, fit, _ = limits
    limit = float(case["family"] == "binomial")
    mixed, moved = fit["mixed"], np.arange(30) >= 20
    assert (mixed.fitted[moved] == limit).all()
    np.testing.assert_allclose(mixed.fitted[~moved], case["fitted"], rtol=1e-8)
    assert (np.sign(mixed.linear_predictor[moved]) * np.inf == mixed.linear_predictor[moved]).all()
    still = [mixed.residuals(name)[moved] for name in ("deviance", "pearson", "response")] + [mixed.working_weights[moved]]
    assert not np.any(still)
    np.testing.assert_allclose(np.sum(mixed.residuals() ** 2), mixed.deviance, rtol=1e-10)
    new = mixed.prediction(pd.DataFrame({"x": [0.5, 0.5], "d": [0.0, 1.0]}))
    assert (new.estimate[1], np.isnan(new.standard_error).tolist()) == (limit, [False, True])
    whole = fit["all"]
    assert (whole.fitted == limit).all()
    assert (whole.deviance, whole.log_likelihood, whole.infinite[0]) == (0.0, 0.0, 1 if limit else -1)
    np.testing.assert_array_equal(fit.fitted, np.concatenate([fit[key].fitted for key in fit.groups]))


def test_the_deviance_is_that_of_huge_coefficients(limits):
    case, fit, table = limits
    rows = table[table["key"] == "mixed"]
    y, x, d = (rows[name].to_numpy() for name in ("y", "x", "d"))
    eta = case["coefficients"][0] + case["coefficients"][1] * x + 500.0 * fit["mixed"].infinite[2] * d
    if case["family"] == "binomial":
        brute = 2 * np.sum(np.logaddexp(0.0, np.where(y == 1, -eta, eta)))
    else:
        brute = 2 * np.sum(np.where(y > 0, y * (np.log(np.maximum(y, 1)) - eta), 0.0) - (y - np.exp(eta)))
    np.testing.assert_allclose(fit["mixed"].deviance, brute, rtol=1e-10)


def test_separated_groups_in_tables_words_and_files(limits, tmp_path):
    case, fit, _ = limits
    assert fit.tidy()["status"].tolist() == ["separated"] * 6 + ["converged"] * 3
    assert ("+infinite" if case["family"] == "binomial" else "-infinite") in fit["mixed"].summary()
    assert Status.SEPARATED.message in fit["mixed"].summary()
    assert "2 separated" in repr(fit)
    loaded = again(fit, tmp_path)
    new = pd.DataFrame({"x": [0.2, 0.2], "d": [0.0, 1.0], "key": "mixed"})
    np.testing.assert_array_equal(loaded.predict(new), fit.predict(new))
    assert_same(loaded, fit)
