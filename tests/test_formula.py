"""Formulas: reading them, and arrays from them. R's habits and formulaic's traps."""

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from tables_of_formulas import CONTRACEPTION, KINDS, TABLE, N, X, make

from jaxglm import formula, frames


@pytest.fixture(params=list(KINDS))
def kind(request):
    return KINDS[request.param]


def test_contraception_in_every_kind(kind):
    made = make("use ~ age + I(age^2) + urban + livch", kind(CONTRACEPTION))
    assert made.names == ("Intercept", "age", "I(age^2)", "urban[T.Y]", "livch[T.1]", "livch[T.2]", "livch[T.3+]")
    age = CONTRACEPTION["age"].astype(float)
    dummies = [CONTRACEPTION["livch"] == level for level in ("1", "2", "3+")]
    expected = np.column_stack([np.ones(N), age, age**2, CONTRACEPTION["urban"] == "Y", *dummies])
    np.testing.assert_array_equal(made.X, expected)
    np.testing.assert_array_equal(made.y, CONTRACEPTION["use"] == "Y")
    assert (made.X.dtype, made.y.dtype, made.levels) == (np.float64, np.float64, ("N", "Y"))
    assert (made.response, made.trials, made.offset) == ("use", None, None)


def test_required_columns_are_those_used_and_no_more():
    parsed = formula.parse("cbind(s, n - s) ~ np.log(x) + C(u, Treatment('b')) + `my col`:z + offset(log(t) + w)")
    assert formula.required(parsed) == ("s", "n", "x", "u", "my col", "z", "t", "w")
    assert parsed.offsets == ("log(t) + w",)
    assert (parsed.response.kind, parsed.response.expressions) == ("cbind", ("s", "n - s"))
    assert (parsed.design_variables, parsed.offset_variables) == (("x", "u", "my col", "z"), ("t", "w"))
    assert parsed.text.startswith("cbind(s, n - s) ~")


# --- the right side -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("right", "names"),
    [
        ("x", ["Intercept", "x"]),
        ("1", ["Intercept"]),
        ("x - 1", ["x"]),
        ("0 + x", ["x"]),
        ("x + 0", ["x"]),
        ("0 + u", ["u[a]", "u[b]", "u[c]"]),
        ("x:v", ["Intercept", "x:v[p]", "x:v[q]"]),
        ("x*v", ["Intercept", "x", "v[T.q]", "x:v[T.q]"]),
        ("(x + k + t)^2", ["Intercept", "x", "k", "t", "x:k", "x:t", "k:t"]),
        ("(x + k)**2 - x", ["Intercept", "k", "x:k"]),
        ("k:x + x", ["Intercept", "x", "k:x"]),
        ("C(k)", ["Intercept", "C(k)[T.2]", "C(k)[T.3]"]),
        ("factor(k)", ["Intercept", "factor(k)[T.2]", "factor(k)[T.3]"]),
        ('C(u, Treatment("b"))', ["Intercept", "C(u, Treatment('b'))[T.a]", "C(u, Treatment('b'))[T.c]"]),
        ("log(x) + sqrt(x)", ["Intercept", "log(x)", "sqrt(x)"]),
        ("log(x^2):v", ["Intercept", "log(x^2):v[p]", "log(x^2):v[q]"]),
        ("I(x^2)*I( k ^ 2 )", ["Intercept", "I(x^2)", "I( k ^ 2 )", "I(x^2):I( k ^ 2 )"]),
        ("poly(x^2, 2)", ["Intercept", "poly(x^2, 2)[1]", "poly(x^2, 2)[2]"]),
        ("I(x**2)", ["Intercept", "I(x ** 2)"]),
        ("I(x > 2)", ["Intercept", "I(x > 2)"]),
        ("{x^2}", ["Intercept", "x^2"]),
        ("t", ["Intercept", "t"]),
        ("C(t)", ["Intercept", "C(t)[T.1]"]),
        ("offset(x) + k", ["Intercept", "k"]),
    ],
)
def test_names(right, names, kind):
    made = make(f"y ~ {right}", kind(TABLE))
    assert list(made.names) == names
    assert made.X.shape == (6, len(names))
    assert made.X.dtype == np.float64


@pytest.mark.parametrize(
    ("term", "values"),
    [
        ("I(x^2)", X**2),
        ("I(k^2)", TABLE["k"] ** 2.0),
        ("I(k^-1)", 1.0 / TABLE["k"]),
        ("I(-k^2)", -(TABLE["k"] ** 2.0)),
        ("I(2^k)", 2.0 ** TABLE["k"]),
        ("log(x^2)", np.log(X**2)),
        ("log2(x)", np.log2(X)),
        ("log10(x)", np.log10(X)),
        ("log1p(x)", np.log1p(X)),
        ("expm1(k)", np.expm1(TABLE["k"])),
        ("exp(k)", np.exp(TABLE["k"])),
        ("exp10(k)", 10.0 ** TABLE["k"]),
        ("sqrt(x)", np.sqrt(X)),
        ("abs(x - 3)", np.abs(X - 3)),
        ("t", TABLE["t"].astype(float)),
        ("I(t + t)", 2.0 * TABLE["t"]),
        ("I(u == 'a')", (TABLE["u"] == "a").astype(float)),
        ("scale(x)", (X - X.mean()) / X.std(ddof=1)),
        ("np.maximum(x, 3)", np.maximum(X, 3)),
        ("2:x", 2 * X),
        ('Q("x")', X),
    ],
)
def test_values(term, values, kind):
    np.testing.assert_allclose(make(f"y ~ 0 + {term}", kind(TABLE)).X[:, 0], values, rtol=1e-14)


def test_a_power_in_a_string_or_a_name_stays(kind):
    table = {"y": [0.0, 1, 2], "u": ["a^b", "c", "c"], "p^q": [1.0, 2, 3]}
    made = make("y ~ C(u, Treatment('c')) + log(`p^q`^2) + `p^q`", kind(table))
    assert made.names == ("Intercept", "C(u, Treatment('c'))[T.a^b]", "log(`p^q`^2)", "p^q")
    np.testing.assert_allclose(made.X[:, 2], np.log(np.array([1.0, 4, 9])))


def test_integers_do_not_overflow():
    table = {"y": [0.0, 1], "n": np.array([5_000_000_000, 2]), "b": np.array([200, 100], dtype=np.uint8)}
    made = make("y ~ 0 + I(n^2) + I(100 - b) + I(b + b)", table)
    assert made.X.tolist() == [[2.5e19, -100, 400], [4, 0, 200]]


def test_the_dot_is_every_other_column(kind):
    table = {"s": [1, 2, 3], "n": [4, 5, 6], "x": [1.0, 2, 4], "my x": [0.0, 1, 0], "g": [1, 2, 3]}
    assert make("cbind(s, n - s) ~ .", kind(table), exclude=["g"]).names == ("Intercept", "x", "my x")
    assert make("s ~ . - x", kind(table), exclude=["g"]).names == ("Intercept", "n", "my x")
    assert make("s ~ (.)^2", kind(table), exclude=["g", "my x"]).names == ("Intercept", "n", "x", "n:x")
    with pytest.raises(ValueError, match="all other columns of a table"):
        formula.parse("y ~ .")


def test_columns_named_like_functions_and_keywords(kind):
    table = {"y": [0.0, 1, 2], "log": [1.0, 2, 4], "class": [0.0, 1, 0], "C": ["a", "b", "a"], "x.1": [3.0, 4, 4]}
    made = make("y ~ log + class + C + x.1", kind(table))
    assert made.names == ("Intercept", "log", "class", "C[T.b]", "x.1")
    np.testing.assert_allclose(make("y ~ exp(log)", kind(table)).X[:, 1], np.exp([1, 2, 4]))
    np.testing.assert_allclose(make("y ~ log(`x.1`)", kind(table)).X[:, 1], np.log([3, 4, 4]))
    with pytest.raises(ValueError, match=r"put the column in backticks, `x\.1`"):
        make("y ~ log(x.1)", kind(table))


def test_categories(kind):
    text = make("y ~ u", kind(TABLE))
    assert text.names == ("Intercept", "u[T.b]", "u[T.c]")
    ordered = {
        pd.DataFrame: lambda: pd.DataFrame(TABLE).assign(u=pd.Categorical(TABLE["u"], ["z", "c", "b", "a"], ordered=True)),
        KINDS["duckdb"]: lambda: kind(TABLE).project("y, u::ENUM('z', 'c', 'b', 'a') AS u"),
        pl.DataFrame: lambda: pl.DataFrame(TABLE).with_columns(pl.col("u").cast(pl.Enum(["z", "c", "b", "a"]))),
    }.get(kind, lambda: _arrow_categories(kind))()
    made = make("y ~ u", ordered)
    assert made.names == ("Intercept", "u[T.b]", "u[T.a]")
    assert made.X[:, 1:].tolist() == [[1, 0], [0, 1], [0, 0], [0, 1], [1, 0], [0, 0]]


def _arrow_categories(kind):
    codes = pa.array([["z", "c", "b", "a"].index(level) for level in TABLE["u"]])
    return kind({**TABLE, "u": pa.DictionaryArray.from_arrays(codes, ["z", "c", "b", "a"])})


def test_categories_of_numbers():
    table = pd.DataFrame({"y": [0.0, 1, 2], "k": pd.Categorical([3, 1, 3], categories=[2, 3, 1])})
    assert make("y ~ k", table).names == ("Intercept", "k[T.1]")


def test_poly_and_bs_are_rs():
    x = np.arange(1.0, 11.0)
    made = make("y ~ poly(x, 2) + bs(x, df=4)", {"y": x, "x": x})
    # R: poly(1:10, 2)[1:2, ]; bs(1:10, df = 4)[2, ]
    np.testing.assert_allclose(made.X[:2, 1], [-0.49543369, -0.38533732], atol=1e-8)
    np.testing.assert_allclose(made.X[:2, 2], [0.52223297, 0.17407766], atol=1e-8)
    np.testing.assert_allclose(made.X[:, 3:].sum(axis=1)[1:], 1 - (1 - (x[1:] - 1) / 4.5).clip(0) ** 3, atol=1e-12)


def test_offsets(kind):
    made = make("y ~ offset(log(x)) + k + offset(k) + offset(2)", kind(TABLE))
    assert made.names == ("Intercept", "k")
    np.testing.assert_allclose(made.offset, np.log(X) + TABLE["k"] + 2)
    np.testing.assert_allclose(make("y ~ offset(x^2)", kind(TABLE)).offset, X**2)
    made = make("y ~ offset(scale(x))", kind(TABLE))
    np.testing.assert_allclose(made.spec.offset(kind({"x": [X.mean(), X.mean()]})), [0, 0], atol=1e-15)
    assert make("y ~ x", kind(TABLE)).spec.offset(kind(TABLE)) is None


def test_cells_that_are_not_finite_stay(kind):
    table = {"y": [1.0, 2, 3, 4], "x": [0.0, -1, 1, np.inf]}
    made = make("y ~ log(x) + I(1/x) + offset(sqrt(x))", kind(table))
    np.testing.assert_array_equal(made.X[:, 1], [-np.inf, np.nan, 0, np.inf])
    np.testing.assert_array_equal(made.X[:, 2], [np.inf, -1, 1, 0])
    np.testing.assert_array_equal(made.offset, [0, np.nan, 1, np.inf])
    np.testing.assert_array_equal(make("log(x) ~ 1", kind(table)).y, [-np.inf, np.nan, 0, np.inf])


def test_an_index_of_the_users_does_not_matter():
    table = pd.DataFrame(TABLE, index=[5, 5, 1, 0, 9, 9])
    np.testing.assert_array_equal(make("y ~ x*u", table).X, make("y ~ x*u", TABLE).X)


# --- the left side --------------------------------------------------------------------------------------------------


def test_cbind(kind):
    table = {"s": [1, 0, 3, 0], "n": [4, 5, 3, 0], "x": [1.0, 2, 3, 4]}
    made = make("cbind(s, n - s) ~ x", kind(table))
    assert made.trials.tolist() == [4, 5, 3, 0]
    assert made.y.tolist() == [0.25, 0, 1, 0]
    assert (made.levels, made.response) == (None, "cbind(s, n - s)")
    table = {"number of": [1.0, -1, 1], "f": [1.0, 2, -1], "x": [1.0, 2, 3]}
    made = make("cbind(`number of`, f) ~ x", kind(table))
    np.testing.assert_array_equal(made.y, [0.5, np.nan, np.nan])
    np.testing.assert_array_equal(made.trials, [2, np.nan, np.nan])
    with pytest.raises(ValueError, match="cbind takes two columns, successes and failures, not 3"):
        formula.parse("cbind(a, b, c) ~ x")


@pytest.mark.parametrize(
    ("left", "values", "levels"),
    [
        ("y", TABLE["y"], None),
        ("`y`", TABLE["y"], None),
        ("k", TABLE["k"], None),
        ("y/x", TABLE["y"] / X, None),
        ("1 - y", 1 - TABLE["y"], None),
        ("x^2", X**2, None),
        ("I(x^2)", X**2, None),
        ("log(x)", np.log(X), None),
        ("y + x", TABLE["y"] + X, None),
        ("x > 2", X > 2, ("False", "True")),
        ("u == 'a'", TABLE["u"] == "a", ("False", "True")),
        ("t", TABLE["t"], ("False", "True")),
        ("v", TABLE["v"] == "q", ("p", "q")),
        ("factor(y)", TABLE["y"], ("0", "1")),
        ("C(v)", TABLE["v"] == "q", ("p", "q")),
    ],
)
def test_left_sides(left, values, levels, kind):
    made = make(f"{left} ~ 1", kind(TABLE))
    np.testing.assert_allclose(made.y, values)
    assert (made.levels, made.response) == (levels, left.strip("`"))


def test_levels_of_a_response():
    for u, levels in (("ab", "'a', 'b'"), ("abc", "'a', 'b', 'c'")):
        table = {"u": [*u], "x": [1.0, 2, 3][: len(u)]}
        if len(u) == 2:
            assert make("u ~ x", table).levels == ("a", "b")
        else:
            with pytest.raises(ValueError, match=rf"the response 'u' has 3 levels \({levels}\)"):
                make("u ~ x", table)
    with pytest.raises(ValueError, match=r"the response 'u' has only one level \('a'\)"):
        make("u ~ x", {"u": ["a", "a"], "x": [1.0, 2]})
    one = pd.DataFrame({"u": pd.Categorical(["b", "b"], categories=["c", "b"]), "x": [1.0, 2]})
    made = make("u ~ x", one)
    assert (made.levels, made.y.tolist()) == (("c", "b"), [1, 1])
    made = make("u ~ x", pl.DataFrame({"u": pl.Series(["b", "b"], dtype=pl.Enum(["b", "c"])), "x": [1.0, 2]}))
    assert (made.levels, made.y.tolist()) == (("b", "c"), [0, 0])
    three = pd.DataFrame({"u": pd.Categorical(["c", "a"], categories=["c", "b", "a"]), "x": [1.0, 2]})
    assert make("u ~ x", three).levels == ("c", "a")
    assert make("t ~ x", {"t": [True, True], "x": [1.0, 2]}).y.tolist() == [1, 1]
    missing = pd.DataFrame({"t": pd.Series([True, None, False], dtype=object), "x": [1.0, 2, 3]})
    table = frames.frame(missing)
    parsed = formula.parse("t ~ x")
    kept = frames.keep(table, ~frames.missing(table, formula.required(parsed)))
    assert formula.materialise(parsed, kept).y.tolist() == [1, 0]


def test_without_a_left_side(kind):
    made = make("~ v + x", kind(TABLE), responses=True)
    assert made.names == ("Intercept", "v[T.q]", "x")
    assert made.y is made.trials is made.levels is made.response is None


# --- errors ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("y", "has no '~'. A formula is 'response ~ terms'"),
        ("y ~ x ~ z", r"has 2 '~' \(characters 3, 7\)"),
        ("~ x", "has no response: write 'y ~ x'"),
        ("y ~", "nothing on its right side: write 'y ~ 1'"),
        ("y ~ x + (1|g)", r"'\|' is incorrectly used. At character 11: '\|'. Mixed models .* by='g'"),
        ("y ~ I(a^2) + x + (1 | g)", "At character 21"),
        ("y ~ 1 | g", "Mixed models"),
        ("y ~ x +", "too few arguments and/or is misplaced. At character 7: '+'".replace("+'", r"\+'")),
        ("y ~ x z", "Missing operator between 'x' and 'z'"),
        ("y ~ x > 3", r"Unknown operator '>'. At character 7: '>'. Comparisons go inside I"),
        ("y ~ log(x", r"Expected: \)"),
        ("y ~ x + 'b'", "String literals are not valid"),
        ("y ~ 2*x", "Numeric literals"),
        ("y ~ d$x", r"Name columns alone: 'x', not 'data\$x'"),
        ("y ~ as.factor(u)", r"Write factor\(u\) or C\(u\)"),
        ("y ~ log(x y)", "inside one of its calls is not an expression"),
        ("y + ~ x", r"the left side 'y \+' is not an expression"),
        ("1 ~ x", "the left side '1' names no column"),
        ("y ~ 0", "no terms to estimate"),
        ("y ~ 0 + offset(x)", "no terms to estimate"),
        ("y ~ u*offset(x)", r"an offset has no coefficient, so it cannot interact: u:offset\(x\)"),
        ("y ~ y + x", "the response 'y' is on the right side too"),
        ("y ~ a^b", "positive integer"),
    ],
)
def test_what_cannot_be_read(text, says):
    with pytest.raises(ValueError, match=says) as caught:
        formula.parse(text)
    assert text in str(caught.value)
    assert "\x1b" not in str(caught.value)


def test_other_errors_of_reading():
    with pytest.raises(ValueError, match="with responses= it has no left side: write '~ x'"):
        formula.parse("y ~ x", responses=True)
    with pytest.raises(TypeError, match="a formula is text"):
        formula.parse(3)


def test_what_cannot_be_made(kind):
    with pytest.raises(ValueError, match=r"the table has no column 'agee'\. Did you mean 'age'"):
        make("use ~ agee", kind(CONTRACEPTION))
    with pytest.raises(ValueError, match=r"the term 'u' has one level \(of 'u' only 'a'\)"):
        make("y ~ u", kind({"y": [0.0, 1], "u": ["a", "a"]}))
    with pytest.raises(ValueError, match=r"formula 'y ~ nope\(x\)': .*nope"):
        make("y ~ nope(x)", kind(TABLE))
    with pytest.raises(ValueError, match=r"formula 'y ~ log\(u\)'"):
        make("y ~ log(u)", kind(TABLE))
    with pytest.raises(ValueError, match="offset"):
        make("y ~ offset(u)", kind(TABLE))
    with pytest.raises(TypeError, match=r"the response 'log\(u\)'|formula"):
        make("log(u) ~ 1", kind(TABLE))
    with pytest.raises(ValueError, match="levels that are not among its own: 'c'"):
        make("y ~ C(u, levels=['a', 'b'])", kind(TABLE))
    with pytest.raises(ValueError, match="two columns of the same name: Intercept"):
        make("y ~ Intercept", kind({"y": [1.0, 2], "Intercept": [1.0, 2]}))
    with pytest.raises(ValueError, match="poly of degree 3 needs more than 3 distinct values"):
        make("y ~ poly(k, 3)", kind(TABLE))
    with pytest.raises(ValueError, match="one number a row"):
        make("y.mean() ~ x", kind(TABLE))
    with pytest.raises(ValueError, match="2 rows have missing values"):
        make("y ~ x", kind({"y": [1.0, 2, 3], "x": [1.0, np.nan, np.nan]}))


def test_columns_that_are_no_covariates(kind):
    days = np.array(["2020-01-01", "2020-01-02"], dtype="datetime64[us]")
    with pytest.raises(TypeError, match=r"column 'd' holds dates or times\. Make it a number"):
        make("y ~ d", kind({"y": [1.0, 2], "d": days}))
    with pytest.raises(TypeError, match="the response 'd' holds Datetime"):
        make("d ~ y", kind({"y": [1.0, 2], "d": days}))


def test_mixed_types_are_named():
    with pytest.raises(TypeError, match="column 'm' mixes types"):
        make("y ~ m", pd.DataFrame({"y": [1.0, 2], "m": [1, "a"]}))


def test_no_rows_are_left():
    table = frames.frame({"y": [1.0], "x": [np.nan]})
    parsed = formula.parse("y ~ x")
    with pytest.raises(ValueError, match=r"no rows are left\. Every row misses a value in y, x"):
        formula.materialise(parsed, frames.keep(table, ~frames.missing(table, parsed.variables)))
