"""Checks of many groups at once: every shape of call, bad groups among good ones, and the verdict's rules."""

import numpy as np
import pandas as pd
import pytest

import jaxglm
from jaxglm import StatusWarning, families, portions, verdict

RNG = np.random.default_rng(17)
N = 40
X = np.column_stack([np.ones(N), np.linspace(-1, 1, N), np.arange(N) % 2])
COUNTS = {
    "sound": RNG.poisson(np.exp(1.0 + 0.5 * X[:, 1])),
    "wide": RNG.negative_binomial(0.7, 0.7 / (0.7 + np.exp(2.0 + 0.5 * X[:, 1]))),
    "zeros": np.where(np.arange(N) % 3 == 0, 0, RNG.poisson(6.0, N)),
    "outlier": np.where(np.arange(N) == 0, 60, RNG.poisson(2.0, N)),
    "separated": np.where(X[:, 2] == 1, 0, RNG.poisson(5.0, N)),
    "aliased": RNG.poisson(4.0, N),
    "empty": np.zeros(N),
    "invalid": np.where(np.arange(N) == 5, -1.0, 2.0),
    "saturated": RNG.poisson(4.0, N) + 1,
}
EXPECTED = {  # by the rows; by the fit alone
    "sound": ("ok", "ok"),
    "aliased": ("aliased: 1 term", "aliased: 1 term"),
    "empty": ("no data", "no data"),
    "invalid": ("invalid data", "invalid data"),
    "saturated": ("saturated", "saturated"),
}
KEYS = sorted(COUNTS)
WEIGHTS = np.ones((len(KEYS), N))
WEIGHTS[KEYS.index("empty")] = 0.0
WEIGHTS[KEYS.index("saturated"), 3:] = 0.0
Y = np.array([COUNTS[key] for key in KEYS], float)
OWN = np.stack([X] * len(KEYS))
OWN[KEYS.index("aliased"), :, 2] = 0.5
SHUFFLED = RNG.permutation(len(KEYS) * N)


def ragged(keys=KEYS, order=True):
    """The groups in one table, in any order."""
    which = [KEYS.index(key) for key in keys]
    rows = np.concatenate([OWN[k] for k in which]), np.concatenate(Y[which]), np.concatenate(WEIGHTS[which])
    labels = np.repeat(keys, N)
    shuffled = SHUFFLED[len(labels) > SHUFFLED] if order else np.arange(len(labels))
    design, y, weights = (values[shuffled] for values in rows)
    return jaxglm.fit(design, y, family="poisson", weights=weights, groups=labels[shuffled]), shuffled


@pytest.fixture(scope="module")
def many():
    """All groups, and where their rows are."""
    with pytest.warns(StatusWarning):
        return ragged()


@pytest.fixture(scope="module")
def crossed():
    """All groups as fits with equally many rows."""
    with pytest.warns(StatusWarning):
        return jaxglm.fit(OWN, Y, family="poisson", weights=WEIGHTS)


def test_verdicts_of_rows_and_of_fits(many):
    fit, _ = many
    by_rows = dict(zip(KEYS, fit.diagnostics()["verdict"], strict=True))
    for key, (rows, alone) in EXPECTED.items():
        assert (by_rows[key], fit[key].verdict) == (rows, alone), key
    assert by_rows["separated"] == "separated: 1 term infinite"
    assert by_rows["wide"].startswith("overdispersed (")
    assert fit["wide"].verdict.startswith("overdispersed (")
    assert "; zero-inflated (" in by_rows["zeros"]
    assert by_rows["outlier"].endswith("1 row influential")
    assert fit["outlier"].diagnostics()["verdict"].tolist() == [by_rows["outlier"]]
    np.testing.assert_array_equal(fit.glance()["verdict"], fit.verdict)
    table = fit.diagnostics().set_index("group")
    ratio = table.loc["wide", "pearson"] / fit["wide"].df_residual
    assert by_rows["wide"].startswith(f"overdispersed ({ratio:.1f})")
    observed, expected = table.loc["zeros", ["zeros", "zeros_expected"]]
    assert f"zero-inflated ({observed:.0f} zeros, {expected:.1f} expected)" in by_rows["zeros"]


def test_lost_groups_have_no_numbers(many):
    table = many[0].diagnostics().set_index("group")
    numbers = [name for name in table.columns if name not in ("n_obs", "df_residual", "n_influential", "verdict")]
    for key in ("empty", "invalid"):
        assert table.loc[key, numbers].isna().all(), key
        assert table.loc[key, "n_influential"] == 0
    assert not table.loc["sound", numbers].isna().any()


def assert_same(one, other, columns, rtol=1e-8):
    """Two tables of diagnostics agree."""
    pd.testing.assert_frame_equal(one[columns], other[columns], rtol=rtol, atol=1e-10, check_dtype=False)


def test_shapes_of_calls_agree(many, crossed, monkeypatch):
    fit, order = many
    table, other = fit.diagnostics(), crossed.diagnostics()
    columns = [name for name in table.columns if name != "group"]
    assert_same(table, other, columns)
    inverse = np.argsort(order)
    for name in ("hat", "cooks_distance", "residual_studentized", "sigma", "dffits"):
        np.testing.assert_allclose(
            getattr(fit.influence(), name)[inverse].reshape(-1, N), getattr(crossed.influence(), name), rtol=1e-7, atol=1e-10
        )
    np.testing.assert_allclose(fit.dfbetas()[inverse].reshape(-1, N, 3), crossed.dfbetas(), rtol=1e-7, atol=1e-10)
    middle = fit.quantile_residuals(midpoint=True)[inverse].reshape(-1, N)
    np.testing.assert_allclose(middle, crossed.quantile_residuals(midpoint=True), rtol=1e-8, atol=1e-10)
    k = KEYS.index("zeros")
    inside = order[order // N == k] % N
    one, other_one = fit["zeros"].influence(), crossed[k].influence()
    for name in ("hat", "cooks_distance"):
        np.testing.assert_allclose(getattr(one, name), getattr(other_one, name)[inside], rtol=1e-7)
    monkeypatch.setattr("jaxglm.diagnostics.PORTION", 3 * N)
    parts = list(portions.portions(fit, 3 * N))
    assert [len(part) for part in parts] == [3, 3, 3]
    assert_same(fit.diagnostics(), table, columns, 1e-12)
    assert_same(crossed.diagnostics(), table, columns)


def test_a_bad_group_changes_nothing_for_the_others(many):
    fit, _ = many
    good = ["outlier", "sound", "wide", "zeros"]
    alone, _ = ragged(good, order=False)
    table, whole = alone.diagnostics().set_index("group"), fit.diagnostics().set_index("group").loc[good]
    columns = [name for name in table.columns if name != "verdict"]
    assert_same(table, whole, columns, 1e-12)
    assert table["verdict"].tolist() == whole["verdict"].tolist()


def test_rows_at_their_limit_and_rows_that_are_not_there(many, crossed):
    k, found = KEYS.index("separated"), crossed.influence()
    moved = X[:, 2] == 1
    for name in ("hat", "cooks_distance", "residual_standardized", "residual_studentized"):
        values = getattr(found, name)[k]
        assert np.isnan(values[moved]).all(), name
        assert np.isfinite(values[~moved]).all(), name
    assert np.isfinite(crossed.quantile_residuals()[k]).all()
    np.testing.assert_allclose(np.nansum(found.hat[k]), 2.0, rtol=1e-8)
    rest = jaxglm.fit(X[~moved][:, :2], Y[k][~moved], family="poisson")
    np.testing.assert_allclose(found.hat[k][~moved], rest.influence().hat, rtol=1e-7)
    assert np.isnan(crossed.dfbetas()[k, :, 2]).all()
    gone = KEYS.index("saturated")
    assert np.isnan(found.hat[gone, 3:]).all()
    np.testing.assert_array_equal(found.hat[gone, :3], 1.0)
    assert np.isnan(found.residual_standardized[gone]).all()
    assert np.isnan(crossed.quantile_residuals()[gone, 3:]).all()


def test_scans_and_shared_designs():
    features = RNG.integers(0, 3, (N, 5)).astype(float)
    features[3, 2] = np.nan
    y = COUNTS["sound"]
    fit = jaxglm.scan(X[:, :2], y, features, family="poisson", missing="drop")
    table = fit.diagnostics()
    used = np.isfinite(features[:, 2])
    one = jaxglm.fit(np.column_stack([X[:, :2], features[:, 2]])[used], y[used], family="poisson")
    columns = [name for name in table.columns if name != "feature"]
    assert_same(table.iloc[[2]].reset_index(drop=True), one.diagnostics(), columns)
    shared = jaxglm.fit(X[:, :2], np.stack([y, COUNTS["wide"]]), family="poisson")
    np.testing.assert_allclose(shared.influence().hat[0].sum(), 2.0, rtol=1e-9)
    assert shared.diagnostics()["verdict"][0] == "ok"


def test_perfect_fits():
    x = np.linspace(0, 1, 12)
    design = np.column_stack([np.ones(12), x])
    y = np.stack([1.0 + 2.0 * x, np.full(12, 3.0), np.zeros(12), np.sin(40.0 * x)])
    fit = jaxglm.fit(design, y)
    assert fit.verdict.tolist() == ["perfect fit"] * 3 + ["ok"]
    assert fit.diagnostics()["verdict"].tolist()[3] == "ok"
    np.testing.assert_allclose(fit.influence().hat.sum(axis=1), 2.0, rtol=1e-9)
    large = jaxglm.fit(design, 1e9 + RNG.normal(size=12))
    assert large.verdict == "ok"


def test_rare_events_raise_no_alarm_in_glance():
    y = (RNG.random((200, 300)) < 0.01).astype(float)
    y[0] = 0.0
    with pytest.warns(StatusWarning):
        fit = jaxglm.fit(np.ones((300, 1)), y, family="poisson")
    known = np.array([text for text in fit.verdict if not text.startswith("separated")])
    assert set(known) == {"ok"}
    single = fit.diagnostics()
    trials = jaxglm.fit(X, COUNTS["sound"] > 2, family="binomial")
    assert (single["overdispersion_p"] < 0.001).mean() < 0.03
    assert np.isnan(trials.diagnostics()[["overdispersion_z", "pearson_p"]]).all(axis=None)


def test_lines_of_findings():
    zero = np.zeros(4)
    found = verdict.Findings(
        status=np.array([0, 1, 2, 4]), infinite=np.array([0, 2, 0, 0]), aliased=np.array([0, 1, 0, 0]),
        saturated=np.array([False, True, False, False]), perfect=zero > 0, overdispersed=np.array([2.44, 0.0, 123.4, 0.0]),
        zeros=np.array([30.0, 0, 0, 0]), expected=np.array([12.14, 0, 0, 0]), influential=np.array([12, 0, 1, 0]),
        bounded=np.array([True, False, False, False]),
    )  # fmt: skip
    codes, labels = verdict.lines(found)
    assert [labels[code] for code in codes] == [
        "on the boundary; overdispersed (2.4); zero-inflated (30 zeros, 12.1 expected); 12 rows influential",
        "separated: 2 terms infinite; aliased: 1 term; saturated",
        "max iterations; overdispersed (123.0); 1 row influential",
        "no data",
    ]


def test_augment_has_the_measures_in_the_users_rows():
    table = pd.DataFrame({"y": Y[KEYS.index("wide")], "x": X[:, 1], "key": np.repeat(["a", "b"], N // 2)})
    table.loc[3, "x"] = np.nan
    fit = jaxglm.glm("y ~ x", table, family="poisson", by="key")
    rows, found = fit.augment(), fit.influence()
    for name in ("hat", "cooks_distance", "residual_standardized", "residual_studentized"):
        np.testing.assert_array_equal(rows[name], getattr(found, name))
        assert np.isnan(rows[name]).tolist() == (np.arange(N) == 3).tolist()
    assert np.isnan(fit.quantile_residuals()).sum() == 1
    assert fit.dfbeta().shape == (N, 2)


def test_what_needs_rows_says_so(tmp_path, many):
    fit = many[0]
    fit.save(tmp_path / "fit.npz")
    loaded = jaxglm.load(tmp_path / "fit.npz")
    np.testing.assert_array_equal(loaded.verdict, fit.verdict)
    for name in ("diagnostics", "influence", "dfbetas", "quantile_residuals"):
        with pytest.raises(ValueError, match="loaded from a file, which holds no rows"):
            getattr(loaded, name)()
    own = families.Family(
        "mine", link=jaxglm.links.log, variance=lambda mu: mu, unit_deviance=lambda y, mean: (y - mean.mu) ** 2
    )
    with pytest.raises(ValueError, match="the family 'mine' is none of jaxglm's that has one"):
        jaxglm.fit(X[:, :1], Y[0] + 1.0, family=own).quantile_residuals()


def test_frequencies_are_repeated_rows():
    f, y = RNG.integers(1, 4, N), COUNTS["wide"]
    one = jaxglm.fit(X, y, family="poisson", weights=jaxglm.Weights(f.astype(float), "frequency"))
    other = jaxglm.fit(np.repeat(X, f, 0), np.repeat(y, f), family="poisson")
    assert_same(one.diagnostics(), other.diagnostics(), list(one.diagnostics().columns))
    first = np.cumsum(f) - f
    for name in ("hat", "sigma", "cooks_distance", "residual_studentized"):
        np.testing.assert_allclose(getattr(one.influence(), name), getattr(other.influence(), name)[first], rtol=1e-9)
    np.testing.assert_allclose(one.dfbetas(), other.dfbetas()[first], rtol=1e-8, atol=1e-12)
