"""Hypotheses as text and as matrices, what they give in groups, and adjusted p-values against R."""

import json
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.interpolate import make_smoothing_spline

import jaxglm
from jaxglm import discovery
from jaxglm.hypotheses import hypotheses
from jaxglm.tails import upper_tail

R = json.loads((Path(__file__).parent / "reference" / "comparisons.json").read_text())
TERMS = ["Intercept", "x", "x2", "I(x^2)", "u[T.b]", "u[T.3+]", "x:u[T.b]", "C(year)[T.2001]", "a b", "log(x + 1)"]
RNG = np.random.default_rng(5)
X = np.column_stack([np.ones(40), RNG.normal(size=(40, 2))])
Y = RNG.poisson(np.exp(0.5 + 0.3 * X[:, 1]), (4, 40)).astype(float)


@pytest.mark.parametrize(
    ("text", "row", "value"),
    [
        ("x", {"x": 1}, 0),
        ("x = 0.5", {"x": 1}, 0.5),
        (" x2-x==1e-2", {"x2": 1, "x": -1}, 0.01),
        ("2*x - 3 * x2/4 = 1", {"x": 2, "x2": -0.75}, 1),
        ("x = x2", {"x": 1, "x2": -1}, 0),
        ("u[T.b] - u[T.3+] = 0", {"u[T.b]": 1, "u[T.3+]": -1}, 0),
        ("I(x^2)+x:u[T.b]", {"I(x^2)": 1, "x:u[T.b]": 1}, 0),
        ("-(x - 2*(x2 + 1)) = 3", {"x": -1, "x2": 2}, 1),
        ("`a b` + C(year)[T.2001] * -2", {"a b": 1, "C(year)[T.2001]": -2}, 0),
        ("a b - log(x + 1)", {"a b": 1, "log(x + 1)": -1}, 0),
        ("x + 1 = 1.5 + x2 - .5", {"x": 1, "x2": -1}, 0),
        ("3*x - x - x", {"x": 1}, 0),
        ("Intercept / 4", {"Intercept": 0.25}, 0),
    ],
)
def test_text(text, row, value):
    found = hypotheses(text, None, TERMS)
    assert found.names == (text.strip(),)
    np.testing.assert_allclose(found.matrix[0], [row.get(term, 0.0) for term in TERMS])
    np.testing.assert_allclose(found.values, [value], atol=1e-15)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("xx = 0", "no term 'xx'. Did you mean 'x"),
        ("u = 0", r"no term 'u'. It is a factor with the terms u\[T.b\], u\[T.3\+\]"),
        ("uTb = 0", r"no term 'uTb'. Did you mean 'u\[T.b\]'"),
        ("`a c` = 0", "no term 'a c'"),
        ("x * x2", "it multiplies coefficients, so it is not linear"),
        ("1 / x", "divides by a coefficient"),
        ("x / 0", "by zero"),
        ("x x2", "an operator is missing"),
        ("2 x", "an operator is missing"),
        ("(x", "a bracket is not closed"),
        ("x +", "something is missing at its end"),
        ("x = * 2", r"'\*' stands where"),
        ("x = 1 = 2", "one '=' a hypothesis"),
        ("x - x", "is about no coefficient"),
        ("1 = 1", "is about no coefficient"),
        (["x", "x"], "given twice"),
        (np.ones((2, 3)), r"shape \(k, 10\)"),
        (np.full((1, 10), np.nan), "finite numbers"),
        ([], "a column for each coefficient"),
    ],
)
def test_what_is_no_hypothesis(given, message):
    with pytest.raises(ValueError, match=message):
        hypotheses(given, None, TERMS)


def test_types_and_values():
    for given in (["x", 3], 7, [["a", "b"]]):
        with pytest.raises(TypeError):
            hypotheses(given, None, TERMS)
    with pytest.raises(ValueError, match="leave out values="):
        hypotheses("x = 1", 2.0, TERMS)
    with pytest.raises(ValueError, match="one a hypothesis"):
        hypotheses(["x", "x2"], [1.0, 2.0, 3.0], TERMS)
    named = hypotheses({"first": "x", "second": "x2"}, [1.0, 2.0], TERMS)
    assert named.names == ("first", "second")
    assert named.values.tolist() == [1.0, 2.0]
    assert hypotheses(np.eye(10)[1] - 2 * np.eye(10)[2], None, TERMS).names == ("x - 2 * x2",)
    assert hypotheses(np.eye(10)[1] * -1.0, None, TERMS).names == ("-x",)


def test_hypotheses_that_follow_from_others_count_once():
    found = hypotheses(["x = 1", "x2 = 2", "x + x2 = 3"], None, TERMS).independent()
    assert found.names == ("x = 1", "x2 = 2")
    with pytest.raises(ValueError, match="contradict each other"):
        hypotheses(["x = 1", "x2 = 2", "x + x2 = 4"], None, TERMS).independent()


def test_groups():
    """A group that cannot be fitted, or has no column, among others changes nothing, and has no number."""
    designs = np.stack([X] * 4)
    designs[2, :, 2] = 0.0
    responses = Y.copy()
    responses[1, 3] = -1.0
    with pytest.warns(jaxglm.StatusWarning):
        fits = jaxglm.fit(designs, responses, "poisson", names=["a", "b", "c"])
    alone = jaxglm.fit(designs[[0, 3]], responses[[0, 3]], "poisson", names=["a", "b", "c"])
    found, same = fits.contrast(["b - c", "a = 1"]), alone.contrast(["b - c", "a = 1"])
    assert found.estimate.shape == (4, 2)
    np.testing.assert_array_equal(found.estimate[[0, 3]], same.estimate)
    np.testing.assert_array_equal(found.standard_error[[0, 3]], same.standard_error)
    np.testing.assert_array_equal(np.isnan(found.estimate), [[False] * 2, [True] * 2, [True, False], [False] * 2])
    joint, both = fits.test(["b = c", "a = 1"]), alone.test(["b = c", "a = 1"])
    assert joint.statistic.shape == (4,)
    np.testing.assert_array_equal(joint.statistic[[0, 3]], both.statistic)
    assert np.isnan(joint.p_value[[1, 2]]).all()
    one = fits[0]
    for k, text in enumerate(["b - c", "a = 1"]):
        L = [[0, 1, -1], [1, 0, 0]][k]
        error = np.sqrt(L @ one.covariance @ L)
        np.testing.assert_allclose(found.standard_error[0, k], error)
        np.testing.assert_allclose(one.contrast(text).low, found.low[0, k])
    assert np.ndim(one.test("b = c").statistic) == 0
    table = found.tidy(adjust="holm")
    assert table["term"].tolist()[:2] == ["b - c", "a = 1"]
    np.testing.assert_allclose(table["q_value"], jaxglm.adjust(found.p_value, "holm").reshape(-1))
    assert list(joint.tidy().columns) == ["fit", "term", "df", "statistic", "df_error", "p_value", "log10_p", "status"]


def test_an_infinite_coefficient_has_no_contrast():
    y = np.array([0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 0.0, 1.0, 0.0, 1.0])
    d = np.array([1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0])
    z = np.linspace(-1, 1, 10) ** 2
    with pytest.warns(jaxglm.StatusWarning):
        fit = jaxglm.fit(np.column_stack([np.ones(10), d, z]), y, "binomial")
    assert fit.infinite.tolist() == [0, -1, 0]
    found = fit.contrast(["x1 + x3", "x1 + x2", "x2"])
    np.testing.assert_array_equal(np.isnan(found.estimate), [False, True, True])
    np.testing.assert_allclose(found.estimate[0], fit.coefficients[[0, 2]].sum())


@pytest.mark.parametrize("method", ["bonferroni", "holm", "hochberg", "bh", "by"])
def test_adjustments(method):
    known = R["adjusted"]
    np.testing.assert_allclose(jaxglm.adjust(known["p"], method), known[method], rtol=1e-13)
    p = np.column_stack([known["p"], known["p"][::-1]])
    p[5, 1] = np.nan
    found = jaxglm.adjust(p, method)
    np.testing.assert_allclose(found[:, 0], known[method], rtol=1e-13)
    rest = np.delete(p[:, 1], 5)
    np.testing.assert_array_equal(np.delete(found[:, 1], 5), jaxglm.adjust(rest, method))
    assert np.isnan(found[5, 1])


@pytest.mark.parametrize("method", discovery.METHODS)
def test_ties_and_threads_change_no_adjusted_value(monkeypatch, method):
    p = np.random.default_rng(0).integers(0, 40, (300, 3)) / 50.0
    found = jaxglm.adjust(p, method)
    mixed = np.random.default_rng(1).permutation(300)
    np.testing.assert_array_equal(jaxglm.adjust(p[mixed], method), found[mixed])
    monkeypatch.setattr(discovery, "PIECE", 10)
    np.testing.assert_array_equal(jaxglm.adjust(p, method), found)


def test_storey():
    """R's smoothing spline is a little off; SciPy's, whose degrees of freedom are found here, is not."""
    known = R["adjusted"]
    p = np.array(known["p"])
    np.testing.assert_allclose(discovery.null_share(p), known["pi0"], rtol=3e-5)
    np.testing.assert_allclose(jaxglm.adjust(p, "storey"), known["storey"], rtol=3e-5)
    raw = np.array([np.mean(p >= at) for at in discovery.LAMBDAS]) / (1 - discovery.LAMBDAS)

    def smoother(strength):
        return np.column_stack(
            [make_smoothing_spline(discovery.LAMBDAS, e, lam=np.exp(strength))(discovery.LAMBDAS) for e in np.eye(19)]
        )

    low, high = -20.0, 5.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if np.trace(smoother(middle)) > 3 else (low, middle)
    np.testing.assert_allclose(discovery.null_share(p), (smoother(middle) @ raw)[-1], rtol=1e-10)
    few = np.array([0.001, 0.02, 0.03])
    np.testing.assert_array_equal(jaxglm.adjust(few, "storey"), jaxglm.adjust(few, "bh"))


def test_what_cannot_be_adjusted():
    with pytest.raises(ValueError, match=r"no adjustment 'bonferoni'\. Did you mean 'bonferroni'"):
        jaxglm.adjust([0.1], "bonferoni")
    with pytest.raises(ValueError, match="between 0 and 1"):
        jaxglm.adjust([0.1, -3.0])
    with pytest.raises(ValueError, match="all p-values together"):
        jaxglm.adjust(0.1)
    assert np.isnan(jaxglm.adjust([np.nan, np.nan])).all()
    assert jaxglm.adjust(np.zeros((0, 3))).shape == (0, 3)


def test_tidy_adjusts_each_term_across_groups():
    fits = jaxglm.fit(X, Y, "poisson")
    table = fits.tidy(adjust="bh")
    assert list(table.columns)[5:9] == ["p_value", "log10_p", "q_value", "conf_low"]
    for j in range(3):
        np.testing.assert_allclose(table["q_value"][j::3], jaxglm.adjust(fits.p_values[:, j]))
    with pytest.raises(ValueError, match="no adjustment"):
        fits.tidy(adjust="fdr")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert isinstance(fits[0].tidy(adjust="bh"), pd.DataFrame)


def test_tails_against_r():
    found = upper_tail(np.array([3, 40, 3000]), np.array([2, 5, 7]))
    np.testing.assert_allclose(found.log10_p, R["tails"]["chisq"], rtol=1e-13)
    found = upper_tail(np.array([3, 40, 1e60]), np.array([2, 5, 7]), np.array([9, 30, 20]))
    np.testing.assert_allclose(found.log10_p, R["tails"]["f"], rtol=1e-12)
    nothing = upper_tail(np.array([1.0, np.nan, 1.0]), np.array([0, 1, 1]), np.array([5, 5, 0]))
    assert np.isnan(nothing.p_value).all()
    assert upper_tail(np.array([np.inf]), np.array([2])).p_value.tolist() == [0.0]
