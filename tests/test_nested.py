"""Tests of nested models in every shape of call, bad groups among good ones, and models that are not nested."""

import numpy as np
import pytest

import jaxglm
from jaxglm import Ridge, Status, StatusWarning, reduced

RNG = np.random.default_rng(31)
N, GROUPS = 40, 5
X = np.column_stack([np.ones(N), RNG.normal(size=(N, 2)), np.arange(N) % 2])
Y = RNG.poisson(np.exp(0.4 + 0.5 * X[:, 1]), (GROUPS, N)).astype(float)
KINDS = ["lr", "score", "wald"]


@pytest.fixture(scope="module")
def shared():
    return jaxglm.fit(X, Y, "poisson")


def everything(found):
    return np.stack([found.statistic, found.p_value, found.log10_p, found.df, found.deviance, found.aic])


@pytest.mark.parametrize("kind", KINDS)
def test_every_shape_of_call(shared, kind):
    wanted = everything(shared.drop1(test=kind))
    own = jaxglm.fit(np.stack([X] * GROUPS), Y, "poisson")
    ragged = jaxglm.fit(np.tile(X, (GROUPS, 1)), Y.reshape(-1), "poisson", groups=np.repeat(np.arange(GROUPS), N))
    for other in (own, ragged):
        np.testing.assert_allclose(everything(other.drop1(test=kind)), wanted, rtol=1e-7, atol=1e-9)
        np.testing.assert_allclose(other[2].drop1(test=kind).statistic, wanted[0, 2], rtol=1e-7)
    assert shared.drop1().names == ("x2", "x3", "x4")


def test_sets_of_columns_and_names(shared):
    found = shared.drop1({"both": ["x2", "x3"], "last": "x4"})
    np.testing.assert_array_equal(found.df, [[2, 1]] * GROUPS)
    small = jaxglm.fit(X[:, [0, 3]], Y, "poisson", names=["x1", "x4"])
    np.testing.assert_allclose(found.statistic[:, :1], small.anova(shared).statistic, rtol=1e-7)
    np.testing.assert_allclose(shared.drop1("x4").statistic[:, 0], found.statistic[:, 1], rtol=1e-9)
    empty = shared.drop1({"all": ["x1", "x2", "x3", "x4"]})
    at_zero = 2 * np.sum(np.where(Y > 0, Y * np.log(np.where(Y > 0, Y, 1)), 0) - (Y - 1), axis=1)
    np.testing.assert_allclose(empty.deviance[:, 0], at_zero, rtol=1e-12)


def test_starts_and_narrow_designs_change_no_answer(shared, monkeypatch):
    """Also for a group without a start, and from starts that lead nowhere."""
    with pytest.warns(StatusWarning, match="1 separated"):
        fits = jaxglm.fit(X, np.concatenate([Y, np.zeros((1, N))]), "poisson")
    before = everything(fits.drop1("x2"))
    np.testing.assert_allclose(before[:, :-1], everything(shared.drop1("x2")), rtol=1e-8, atol=1e-9)
    monkeypatch.setattr(reduced, "PAYS", 0)
    np.testing.assert_allclose(everything(fits.drop1("x2")), before, rtol=1e-8, atol=1e-9)
    far = np.full((GROUPS + 1, 4), 500.0)
    monkeypatch.setattr(reduced, "constrained", lambda solution, gone: far)
    np.testing.assert_allclose(everything(fits.drop1("x2")), before, rtol=1e-8, atol=1e-9)
    monkeypatch.setattr(reduced, "zeroed", lambda task: False)
    np.testing.assert_allclose(everything(fits.drop1("x2")), before, rtol=1e-8, atol=1e-9)


def test_bad_groups_have_no_number_and_change_none(shared):
    """One row, none, an invalid one; and a group whose column is zero."""
    designs, responses, weights = np.stack([X] * 9), np.concatenate([Y, Y[:4]]), np.ones((9, N))
    weights[5, 1:], weights[6] = 0.0, 0.0
    responses[7, 3], designs[8, :, 2] = -1.0, 0.0
    good, kept = slice(0, 5), jaxglm.fit(np.stack([X] * GROUPS), Y, "poisson", weights=np.ones((GROUPS, N)))
    with pytest.warns(StatusWarning):
        fits = jaxglm.fit(designs, responses, "poisson", weights=weights)
    for kind in KINDS:
        found, same = fits.drop1(test=kind), kept.drop1(test=kind)
        np.testing.assert_allclose(everything(found)[:, good], everything(same), rtol=1e-12, atol=1e-12)
        assert np.isnan(found.p_value[5:8]).all()
        np.testing.assert_array_equal(found.df[5:], [[0] * 3, [0] * 3, [0] * 3, [1, 0, 1]])
        np.testing.assert_array_equal(np.isnan(found.p_value[8]), [False, True, False])
    assert fits.drop1().status[:, 0].tolist()[6:8] == [Status.NO_DATA, Status.INVALID_DATA]


def test_order_and_names_do_not_matter_but_spans_do(shared):
    rotated = X[:, [0, 1, 2]] @ np.array([[1.0, 2.0, 0.5], [0.0, 1.0, 1.0], [0.0, 0.0, -1.0]])
    small = jaxglm.fit(rotated, Y, "poisson", names=["p", "q", "r"])
    found, same = jaxglm.anova(shared, small), shared.drop1("x4")
    np.testing.assert_allclose(found.statistic, same.statistic, rtol=1e-7)
    assert found.names == ("model 2",)
    three = jaxglm.anova(jaxglm.fit(X[:, :1], Y, "poisson"), shared, jaxglm.fit(X[:, :2], Y, "poisson"))
    assert three.names == ("x2", "x3 + x4")
    with pytest.raises(ValueError, match="Wald test needs"):
        jaxglm.anova(small, shared, test="wald")


def test_models_that_are_not_nested(shared):
    own = jaxglm.fit(np.stack([X] * GROUPS), Y, "poisson")
    other = X.copy()
    other[7, 1] += 1e-3
    designs = np.stack([X[:, :2]] * 4 + [other[:, :2]])
    for small, message in [
        (jaxglm.fit(other[:, :2], Y, "poisson"), "'x2' of the smaller is no combination"),
        (jaxglm.fit(X[:, :2], Y + 1, "poisson"), "different rows: y differs"),
        (jaxglm.fit(X[:, :2], Y, "poisson", weights=np.full(N, 2.0)), "weights differs"),
        (jaxglm.fit(X[:, :2], Y, "poisson", offset=np.ones(N)), "offset differs"),
        (jaxglm.fit(X[:, :2], Y, "quasipoisson"), "one is quasipoisson with link log, the other poisson"),
        (jaxglm.fit(X[:, :2], Y[:3], "poisson"), "different groups: 3 fits and 5 fits"),
        (jaxglm.fit(X[:, :2], Y[0], "poisson"), "different groups: one fit and 5 fits"),
        (jaxglm.fit(X[:-1, :2], Y[:, :-1], "poisson"), r"different rows: \(5, 39\) and \(5, 40\)"),
    ]:
        with pytest.raises(ValueError, match=message):
            jaxglm.anova(small, shared)
    with pytest.raises(ValueError, match="'x2' of the smaller is no combination"):
        jaxglm.anova(jaxglm.fit(designs, Y, "poisson"), own)
    theta = [jaxglm.fit(X[:, :k], Y[0], jaxglm.families.NegativeBinomial(t)) for k, t in ((2, 1.0), (4, 2.0))]
    with pytest.raises(ValueError, match="shape parameters"):
        jaxglm.anova(*theta)


def test_bad_requests(shared, tmp_path):
    for asked, message in [
        ("x33", "no term 'x33'. Did you mean 'x3'"),
        ({"a": ["z"]}, "no column 'z'"),
        ({"a": []}, "has no columns"),
        (["x2", "x2"], "give different terms"),
        ([], "give different terms"),
    ]:
        with pytest.raises(ValueError, match=message):
            shared.drop1(asked)
    with pytest.raises(ValueError, match="no test 'chisq'"):
        shared.drop1(test="chisq")
    with pytest.raises(ValueError, match="F test needs an estimated dispersion"):
        shared.anova(test="f")
    with pytest.raises(ValueError, match="nothing but an intercept"):
        jaxglm.fit(X[:, :1], Y, "poisson").drop1()
    with pytest.raises(ValueError, match="penalized"):
        jaxglm.fit(X, Y, "poisson", penalty=Ridge(1.0)).drop1()
    with pytest.raises(TypeError, match="anova compares results"):
        jaxglm.anova(shared, X)
    shared.save(tmp_path / "fit")
    with pytest.raises(ValueError, match="holds no rows"):
        jaxglm.load(tmp_path / "fit").drop1()
