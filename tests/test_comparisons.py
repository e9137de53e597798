"""Tests of nested models, contrasts and effects against R, over families, links, weights and offsets; and districts.

The references are made by reference/comparisons.R. In two cases an aliased column (d = 1 - 2 x) is added last, which changes
nothing but that x alone has nothing left to test.
"""

import json
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import jaxglm
from jaxglm import Status, families
from jaxglm.terms import terms_of

pytestmark = pytest.mark.long

R = json.loads((Path(__file__).parent / "reference" / "comparisons.json").read_text())
ROWS = pd.DataFrame(R["rows"])
CASES = R["cases"]
ALIASED = (1, 4)
TERMS = ["x", "z", "f", "I(z^2)"]
RIGHT = "x + z + f + I(z^2)"
CLOSE = {"rtol": 1e-7, "atol": 1e-10}
WOMEN = jaxglm.datasets.load("contraception")
DISTRICTS = R["districts"]


def fitted(case, right):
    """A case's model with this right side."""
    shape = {"theta": 2.0} if case["family"] == "negative_binomial" else {}
    family = families.named(case["family"], case["link"], **shape)
    given = {role: case[role] for role in ("weights", "offset") if case[role] != [""]}
    given = {role: name if isinstance(name, str) else name[0] for role, name in given.items()}
    return jaxglm.glm(f"{case['y']} ~ {right}", ROWS, family=family, **given)


@pytest.fixture(scope="module", params=range(len(CASES)), ids=lambda i: f"{CASES[i]['family']}-{CASES[i]['link']}-{i}")
def case(request):
    """A reference, the fit, and whether it has an aliased column."""
    i = request.param
    return CASES[i], fitted(CASES[i], RIGHT + (" + d" if i in ALIASED else "")), i in ALIASED


@pytest.fixture(scope="module", params=[1, 2, 9], ids=lambda i: f"{CASES[i]['family']}-{i}")
def other(request):
    """Some of the cases, for what needs more programs to be compiled."""
    i = request.param
    return CASES[i], fitted(CASES[i], RIGHT + (" + d" if i in ALIASED else "")), i in ALIASED


def kinds(reference):
    return [kind for kind in ("lr", "f", "score") if kind in reference["drops"][0]]


def expected(reference, kind, dispersion):
    """R prints what is not divided by the dispersion, but for F."""
    raw = np.array(reference[kind]["raw"])
    return raw if kind == "f" else raw / dispersion


def test_dropping_terms(case):
    reference, fit, aliased = case
    for kind in kinds(reference):
        found = fit.drop1(TERMS, test=kind)
        for j, drop in enumerate(reference["drops"]):
            if aliased and j == 0:
                assert found.df[0] == 0
                assert np.isnan([found.statistic[0], found.p_value[0]]).all()
                continue
            assert found.df[j] == drop[kind]["df"][0]
            np.testing.assert_allclose(found.statistic[j], expected(drop, kind, reference["dispersion"])[0], **CLOSE)
            np.testing.assert_allclose(found.p_value[j], drop[kind]["p"][0], rtol=1e-7)
            np.testing.assert_allclose(found.log10_p[j], np.log10(drop[kind]["p"][0]), rtol=1e-7)
            np.testing.assert_allclose(found.deviance[j], drop["deviance"][0], rtol=1e-9)
            if drop["aic"][0] is not None and not aliased:
                np.testing.assert_allclose(found.aic[j], drop["aic"][0], rtol=1e-9)
    default = fit.drop1(TERMS)
    assert default.kind == ("f" if "f" in kinds(reference) else "lr")


def test_terms_in_sequence(case):
    reference, fit, aliased = case
    for kind in kinds(reference):
        found = fit.anova(test=kind)
        assert found.names == (*TERMS, "d")[: 5 if aliased else 4]
        np.testing.assert_array_equal(found.df[:4], reference["sequence"][kind]["df"])
        np.testing.assert_allclose(found.statistic[:4], expected(reference["sequence"], kind, reference["dispersion"]), **CLOSE)
        np.testing.assert_allclose(found.p_value[:4], reference["sequence"][kind]["p"], rtol=1e-7)
        if aliased:
            assert found.df[4] == 0


def test_two_models(other):
    reference, fit, aliased = other
    small = fitted(reference, "x + f")
    for kind in kinds(reference):
        found = jaxglm.anova(fit, small, test=kind)
        assert found.df[0] == reference["pair"][kind]["df"][0]
        np.testing.assert_allclose(found.statistic, expected(reference["pair"], kind, reference["dispersion"]), **CLOSE)
        np.testing.assert_allclose(found.p_value, reference["pair"][kind]["p"], rtol=1e-7)
    assert found.names == ("z + I(z^2) + d" if aliased else "z + I(z^2)",)
    by_wald, joint = fit.anova(small, test="wald"), fit.test(["z", "I(z^2)"])
    np.testing.assert_allclose(by_wald.statistic[0], joint.statistic, rtol=1e-10)
    np.testing.assert_allclose(by_wald.p_value[0], joint.p_value, rtol=1e-10)


def test_linear_hypotheses(case):
    reference, fit, _ = case
    about = ["x = z", "f[T.b] - 2*f[T.c] = 0.5"]
    found = fit.test(about, form="chi-square")
    np.testing.assert_allclose([found.df, found.statistic, found.p_value], reference["chisq"], rtol=1e-7)
    if "f" in reference:
        found = fit.test(about)
        np.testing.assert_allclose([found.df, found.statistic, found.p_value], reference["f"], rtol=1e-7)
        assert found.df_error == fit.df_residual
    else:
        with pytest.raises(ValueError, match="F test needs an estimated dispersion"):
            fit.test(about, form="f")
    found = fit.contrast(about)
    np.testing.assert_allclose([*found.estimate, *found.standard_error], reference["contrasts"], **CLOSE)
    np.testing.assert_allclose(found.statistic, (found.estimate - [0, 0.5]) / found.standard_error, rtol=1e-12)


def test_average_effects(case):
    """No row tells what x does while d = 1 - 2 x stays as it is."""
    reference, fit, aliased = case
    known = {name: np.array(values, float) for name, values in reference["effects"].items()}
    if aliased:
        known["x"], known["x_more"] = np.full(2, np.nan), np.full(2, np.nan)
    found = fit.effects(["x", "z", "f"])
    rows = list(zip(found.names, found.contrast, strict=True))
    assert rows == [("x", "slope"), ("z", "slope"), ("f", "b - a"), ("f", "c - a")]
    wanted = np.array([known[name] for name in ("x", "z", "fb", "fc")])
    np.testing.assert_allclose(found.estimate, wanted[:, 0], **CLOSE)
    np.testing.assert_allclose(found.standard_error, wanted[:, 1], rtol=1e-7)
    found = fit.effects({"x": 0.5, "z": (-1, 1), "f": ("a", "c")})
    wanted = np.array([known[name] for name in ("x_more", "z_pair", "fc")])
    assert found.contrast == ("+0.5", "1 - -1", "c - a")
    np.testing.assert_allclose(found.estimate, wanted[:, 0], **CLOSE)
    np.testing.assert_allclose(found.standard_error, wanted[:, 1], rtol=1e-7)


@pytest.mark.parametrize("other", [2, 9], indirect=True)
def test_score_scan(other):
    reference, fit, _ = other
    rows = fit.observations
    X = np.column_stack([np.ones(len(ROWS)), ROWS["x"], ROWS["f"] == "b", ROWS["f"] == "c"])
    found = jaxglm.score_scan(
        X, rows.y, np.array(R["features"]), fit.family, weights=rows.weights, offset=rows.offset, refit=0.4
    )
    np.testing.assert_allclose(found.statistic, reference["score"], rtol=1e-7)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", jaxglm.StatusWarning)
        full = jaxglm.scan(X, rows.y, np.array(R["features"]), fit.family, weights=rows.weights, offset=rows.offset)
    by_refit = full.drop1("feature", test="score").statistic[:, 0] * full.dispersion
    np.testing.assert_allclose(found.statistic**2 * found.dispersion, by_refit, rtol=1e-7)
    again = found.method == "irls"
    assert list(again) == list(found.p_value < 0.4)
    np.testing.assert_allclose(found.estimate[again], full.coefficients[again, -1], rtol=1e-7)
    np.testing.assert_allclose(found.standard_error[again], full.standard_errors[again, -1], rtol=1e-7)


# --- districts --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def districts():
    with pytest.warns(jaxglm.StatusWarning):
        return jaxglm.glm("use ~ age + urban + livch", WOMEN, family="binomial", by="district")


@pytest.mark.parametrize("kind", ["lr", "score"])
def test_terms_of_districts(districts, kind):
    """Separated ones too, whose deviances are limits; and those where levels are absent."""
    found = districts.drop1(test=kind)
    assert found.names == ("age", "urban", "livch")
    separated = 0
    for k, reference in enumerate(DISTRICTS):
        df = np.array(reference["df"])
        np.testing.assert_array_equal(found.df[k], df)
        known = (df > 0) & (np.array([kind == "lr"] * 3) | ~np.array(reference["small_separated"]))
        np.testing.assert_array_equal(np.isnan(found.statistic[k]), ~known)
        np.testing.assert_allclose(found.statistic[k][known], np.array(reference[kind])[known], rtol=1e-7, atol=1e-9)
        separated += districts.status[k] == Status.SEPARATED and known.any()
    assert separated > 10


def test_a_district_alone_and_its_table(districts):
    together, alone = districts.drop1(), districts[31].drop1()
    k = list(districts.groups).index(31)
    np.testing.assert_allclose(alone.statistic, together.statistic[k], rtol=1e-8, equal_nan=True)
    table = together.tidy(adjust="bh")
    assert list(table.columns) == [
        "district", "term", "df", "deviance", "aic", "statistic", "df_error", "p_value", "log10_p", "q_value", "status",
    ]  # fmt: skip
    assert len(table) == 180
    np.testing.assert_allclose(table["q_value"][::3], jaxglm.adjust(together.p_value[:, 0]))
    assert repr(together) == "<Comparisons (lr): 60 fits, age, urban, livch>"
    by_wald = districts.drop1(test="wald")
    whole = np.isfinite(by_wald.statistic[:, 1])
    np.testing.assert_allclose(by_wald.statistic[whole, 1], districts.statistics[whole, 2] ** 2, rtol=1e-9)


@pytest.mark.parametrize("layout", ["one", "shared", "own", "scan"])
def test_columns_of_one_number_are_intercepts(layout):
    """Missing rows apart; also where it is not the first thousand rows that tell."""
    rng = np.random.default_rng(4)
    X = np.column_stack([np.full(2500, 2.0), rng.normal(size=2500), np.ones(2500), np.full(2500, np.nan)])
    X[1, 0], X[2400, 2] = np.nan, 3.0
    y = rng.normal(size=2500)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit = {
            "one": lambda: jaxglm.fit(X[:, :3], y, missing="drop"),
            "shared": lambda: jaxglm.fit(X[:, :3], np.stack([y, -y]), missing="drop"),
            "own": lambda: jaxglm.fit(np.stack([X[:, :3], X[:, :3]]), np.stack([y, -y]), missing="drop"),
            "scan": lambda: jaxglm.scan(X[:, :3], y, rng.integers(0, 3, (2500, 2)), missing="drop"),
        }[layout]()
        assert [term.name for term in terms_of(fit) if not term.factors] == ["x1"]
        assert fit.drop1().names == tuple(fit.names[1:])
        assert fit.drop1(["x1"], test="lr").names == ("x1",)
