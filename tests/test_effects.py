"""Average effects in tables and arrays, by finite differences of predictions; the references from R are in
test_comparisons."""

import warnings
from datetime import date

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import jaxglm
from jaxglm import StatusWarning, effects

RNG = np.random.default_rng(8)
N = 120
TABLE = pd.DataFrame({
    "x": np.round(RNG.uniform(0.2, 3.0, N), 3),
    "t": np.round(RNG.uniform(1.0, 4.0, N), 2),
    "b": RNG.random(N) < 0.5,
    "u": np.array(["a", "b", "c"])[np.arange(N) % 3],
    "year": np.array([2001, 2002, 2004])[RNG.integers(0, 3, N)],
    "w": RNG.integers(0, 3, N).astype(float),
    "shop": np.array(["east", "west", "south"])[np.arange(N) // 40],
    "day": [date(2020, 1, 1)] * N,
})  # fmt: skip
TABLE["y"] = RNG.poisson(TABLE["t"] * np.exp(0.2 * TABLE["x"] + 0.3 * TABLE["b"]))
RIGHT = "log(x) + bs(x, df=4) + b * x + u + C(year) + offset(log(t))"  # the splines span x


@pytest.fixture(scope="module")
def fit():
    return jaxglm.glm(f"y ~ {RIGHT}", TABLE, family="poisson", weights="w")


@pytest.fixture(scope="module")
def shops():
    return jaxglm.glm("y ~ x + b + u", TABLE, family="poisson", by="shop", exposure="t")


def predicted(fit, table, coefficients=None, **changes):
    """The mean prediction over the rows of nonzero weight with some columns changed."""
    used = table[table["w"] > 0].assign(**changes)
    if coefficients is None:
        return fit.predict(used).mean()
    X = fit.table.design.design(used)
    return np.exp(X @ coefficients + np.log(used["t"])).mean()


def error_of(fit, function):
    """By the delta method, with derivatives by differences."""
    b, gradient = np.nan_to_num(fit.coefficients), np.zeros(len(fit.coefficients))
    for j in range(len(b)):
        step = np.where(np.arange(len(b)) == j, 1e-5, 0.0)
        gradient[j] = (function(b + step) - function(b - step)) / 2e-5
    return np.sqrt(gradient @ np.nan_to_num(fit.covariance) @ gradient)


def test_all_kinds_of_variables(fit):
    """The splines span x, which is aliased, but its effect is known."""
    assert np.isnan(fit.coefficients).any()
    found = fit.effects()
    assert list(zip(found.names, found.contrast, strict=True)) == [
        ("x", "slope"), ("b", "True - False"), ("u", "b - a"), ("u", "c - a"), ("year", "2002 - 2001"), ("year", "2004 - 2001"),
    ]  # fmt: skip
    x = TABLE.loc[TABLE["w"] > 0, "x"]

    def slope_at(b, h=1e-4):
        """By differences of second order, from inside the ends of the spline."""
        center = np.clip(x, TABLE["x"].min() + h, TABLE["x"].max() - h)
        used, at, total = TABLE[TABLE["w"] > 0], (x - center) / h, 0.0
        for k, share in ((-1, at - 0.5), (0, -2 * at), (1, at + 0.5)):
            eta = fit.table.design.design(used.assign(x=center + k * h)) @ b + np.log(used["t"])
            total = total + share * np.exp(eta) / h
        return np.mean(total)

    np.testing.assert_allclose(found.estimate[0], slope_at(np.nan_to_num(fit.coefficients)), rtol=1e-6)
    np.testing.assert_allclose(found.standard_error[0], error_of(fit, slope_at), rtol=1e-5)
    pairs = [("b", True, False), ("u", "b", "a"), ("u", "c", "a"), ("year", 2002, 2001), ("year", 2004, 2001)]
    for k, (name, high, low) in enumerate(pairs, 1):
        np.testing.assert_allclose(
            found.estimate[k], predicted(fit, TABLE, **{name: high}) - predicted(fit, TABLE, **{name: low}), rtol=1e-9
        )

        def change(b, name=name, high=high, low=low):
            return predicted(fit, TABLE, b, **{name: high}) - predicted(fit, TABLE, b, **{name: low})

        np.testing.assert_allclose(found.standard_error[k], error_of(fit, change), rtol=1e-6)


def test_changes_of_numbers_and_of_the_offset(fit):
    found = fit.effects({"t": (1, 2), "x": (0.5, 1.5), "u": ("b", "c"), "b": (True, False)})
    assert found.contrast == ("2 - 1", "1.5 - 0.5", "c - b", "False - True")
    wanted = [
        predicted(fit, TABLE, t=2.0) - predicted(fit, TABLE, t=1.0),
        predicted(fit, TABLE, x=1.5) - predicted(fit, TABLE, x=0.5),
        predicted(fit, TABLE, u="c") - predicted(fit, TABLE, u="b"),
        predicted(fit, TABLE, b=False) - predicted(fit, TABLE, b=True),
    ]
    np.testing.assert_allclose(found.estimate, wanted, rtol=1e-9)
    rows = TABLE[TABLE["w"] > 0]
    np.testing.assert_allclose(fit.effects("t").estimate[0], np.mean(fit.predict(rows) / rows["t"]), rtol=1e-9)
    on_eta = fit.effects("u", type="link")
    np.testing.assert_allclose(on_eta.estimate, fit.coefficients[[fit.names.index(f"u[T.{u}]") for u in "bc"]], rtol=1e-12)


@pytest.fixture(params=["by rows", "in passes"])
def way(request, monkeypatch):
    """Both ways to sums over rows: what is the same for all rows is left to passes where there are many."""
    if request.param == "in passes":
        monkeypatch.setattr(effects, "PAYS", 0)


def test_groups(shops, way):
    found = shops.effects()
    assert found.estimate.shape == (3, 4)
    for k, shop in enumerate(["east", "south", "west"]):
        rows = TABLE[TABLE["shop"] == shop]
        alone = jaxglm.glm("y ~ x + b + u", rows, family="poisson", exposure="t").effects()
        np.testing.assert_allclose(found.estimate[k], alone.estimate, rtol=1e-7)
        np.testing.assert_allclose(found.standard_error[k], alone.standard_error, rtol=1e-7)
        given = shops[shop].effects(data=rows)
        np.testing.assert_allclose(given.estimate, found.estimate[k], rtol=1e-12)
    everyone = shops.effects("x", data=TABLE.drop(columns="shop"), groups=TABLE["shop"].to_numpy())
    np.testing.assert_allclose(everyone.estimate, found.estimate[:, :1], rtol=1e-12)
    table = found.tidy(adjust="bh")
    assert list(table.columns)[:4] == ["shop", "term", "contrast", "estimate"]
    assert len(table) == 12


@pytest.mark.parametrize("kind", [pl.DataFrame, lambda data: pa.table(data)], ids=["polars", "pyarrow"])
def test_kinds_of_tables(shops, kind):
    data = kind({name: TABLE[name].to_list() for name in TABLE.columns})
    found = jaxglm.glm("y ~ x + b + u", data, family="poisson", by="shop", exposure="t").effects()
    np.testing.assert_array_equal(found.estimate, shops.effects().estimate)
    assert type(found.tidy()) is type(data)


def test_responses_and_missing_values(way):
    """Rows that miss a response are not there for it."""
    Y = np.column_stack([TABLE["y"], TABLE["y"][::-1]]).astype(float)
    Y[:5, 1] = np.nan
    table = TABLE.copy()
    table.loc[7, "x"] = np.nan
    found = jaxglm.glm("~ x + I(x^2) + u", table, responses=Y, family="poisson").effects()
    for k in range(2):
        alone = jaxglm.glm("y ~ x + I(x^2) + u", table.assign(y=Y[:, k]), family="poisson").effects()
        np.testing.assert_allclose(found.estimate[k], alone.estimate, rtol=1e-7)
        np.testing.assert_allclose(found.standard_error[k], alone.standard_error, rtol=1e-7)


def test_arrays_of_every_shape(way):
    X = np.column_stack([np.ones(N), TABLE["x"], TABLE["b"]])
    Y = np.stack([TABLE["y"], TABLE["y"][::-1], TABLE["y"] + 1.0])
    shared = jaxglm.fit(X, Y, "poisson")
    asked = {"x2": None, "x3": (0, 1)}
    found = shared.effects(asked)
    own = jaxglm.fit(np.stack([X] * 3), Y, "poisson").effects(asked)
    ragged = jaxglm.fit(np.tile(X, (3, 1)), Y.reshape(-1), "poisson", groups=np.repeat(np.arange(3), N)).effects(asked)
    for other in (own, ragged):
        np.testing.assert_allclose(other.estimate, found.estimate, rtol=1e-8)
        np.testing.assert_allclose(other.standard_error, found.standard_error, rtol=1e-8)
    mu = shared.fitted
    np.testing.assert_allclose(found.estimate[:, 0], shared.coefficients[:, 1] * mu.mean(axis=1), rtol=1e-12)
    high, low = (shared.predict(np.where(np.arange(3) == 2, at, X)) for at in (1.0, 0.0))
    np.testing.assert_allclose(found.estimate[:, 1], (high - low).mean(axis=1), rtol=1e-12)
    assert shared.effects().names == ("x2", "x3")
    scan = jaxglm.scan(X[:, :2], Y[0], X[:, 2:], "poisson")
    np.testing.assert_allclose(scan.effects({"feature": (0, 1)}).estimate[0, 0], found.estimate[0, 1], rtol=1e-8)
    new = shared.effects("x2", X[:7])
    np.testing.assert_allclose(new.estimate[:, 0], shared.coefficients[:, 1] * mu[:, :7].mean(axis=1), rtol=1e-12)


def test_bad_groups_have_no_effects_and_change_none(way):
    """Separated, aliased and invalid ones."""
    table = pd.concat([TABLE.assign(shop=shop) for shop in "abcd"], ignore_index=True).assign(
        z=0.0, y=np.tile(TABLE["y"] > 3, 4) * 1.0
    )
    here = table["shop"]
    table.loc[here == "b", "y"] = (table["x"] > 1.5) * 1.0  # x separates
    table.loc[here == "c", "b"] = False  # its dummy is zero
    table.loc[(here == "d") & (table.index % 7 == 0), "y"] = 2.0  # no proportion
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", StatusWarning)
        found = jaxglm.glm("y ~ x + b", table, family="binomial", by="shop").effects()
    alone = jaxglm.glm("y ~ x + b", table[here == "a"], family="binomial", by="shop").effects()
    np.testing.assert_allclose(found.estimate[0], alone.estimate[0], rtol=1e-10)
    np.testing.assert_allclose(found.standard_error[0], alone.standard_error[0], rtol=1e-9)
    assert np.isnan(found.standard_error[1]).all()
    np.testing.assert_array_equal(np.isnan(found.estimate[2]), [False, True])
    assert np.isfinite(found.standard_error[2, 0])
    assert np.isnan(found.estimate[3]).all()


def test_bad_requests(fit, shops, tmp_path):
    for asked, message in [
        ("z", "no variable 'z' in"), (["x", "yeer"], "'yeer' in the model. Did you mean 'year'"), ([], "no variable that"),
        ({"x": "a"}, "must be a number to add or a pair"), ({"x": np.nan}, "must be a number"),
        ({"u": ("a", "z")}, r"one level to another, as \(from, to\)"), ({"u": "b"}, r"as \(from, to\), not 'b'"),
        ("t_", "Did you mean 't'"),
    ]:  # fmt: skip
        with pytest.raises(ValueError, match=message):
            fit.effects(asked)
    with pytest.raises(ValueError, match='type must be "response" or "link"'):
        fit.effects(type="eta")
    with pytest.raises(ValueError, match="level must be between"):
        fit.effects("u", level=95)
    with pytest.raises(ValueError, match="give data="):
        shops["east"].effects()
    shops.save(tmp_path / "fit")
    loaded = jaxglm.load(tmp_path / "fit")
    with pytest.raises(ValueError, match="holds no rows"):
        loaded.effects()
    np.testing.assert_allclose(loaded.effects(data=TABLE).estimate, shops.effects().estimate, rtol=1e-12)
    with pytest.raises(ValueError, match="data must be a table"):
        fit.effects(data=np.ones((3, len(fit.names))), offset=0.0)
