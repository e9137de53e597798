"""Elastic nets against R's glmnet, the conditions of their optimum, and every shape and corner of a call."""

import json
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pandas as pd
import pytest

import jaxglm
from jaxglm import ElasticNet, Status, StatusWarning, families

pytestmark = pytest.mark.long

R = json.loads((Path(__file__).parent / "reference" / "penalties.json").read_text())
X = np.column_stack([np.ones(50), np.array(R["X"])])  # a b c d e f k; the last is constant
NAMES = ["one", *"abcdefk"]
W, TRIALS, OFFSET = (np.array(R[name], float) for name in ("w", "trials", "o"))
RESPONSE = {name: np.array(values, float) for name, values in R["responses"].items()}
FAMILIES = {
    "gaussian": "gaussian", "binomial": "binomial", "proportion": "binomial", "poisson": "poisson",
    "probit": families.Binomial("probit"), "gamma": families.Gamma("log"), "sqrt": families.Poisson("sqrt"),
    "negative_binomial": families.NegativeBinomial(2.0),
}  # fmt: skip
CASES = {
    "plain": {},
    "both": {"weights": W, "offset": OFFSET},
    "factors": {"mixing": 0.6, "weights": W, "offset": OFFSET, "factors": [9, 1, 2, 0, 1, 0.5, 1, 1]},
    "raw": {"mixing": 0.3, "weights": W, "offset": OFFSET, "standardize": False},
    "ridge": {"mixing": 0.0},
}


def close(value, reference, tolerance=1e-6):
    """Hold numbers against R's, relative to them or to the largest of their column."""
    reference = np.array(reference, float)
    size = np.maximum(np.abs(reference), 1e-2 * np.abs(reference).max(axis=0, initial=1e-9))
    np.testing.assert_allclose(np.asarray(value) / size, reference / size, rtol=0, atol=tolerance)


def conditions(path, X, y, family, *, mixing=1.0, standardize=True, factors=None, weights=None, offset=0.0):
    """By how much a path misses the conditions of its optimum, beside the largest strength (Karush, Kuhn and Tucker)."""
    weights = np.ones(len(y)) if weights is None else weights
    share = weights / weights.sum()
    spread = np.sqrt(share @ (X - share @ X) ** 2)
    free = np.arange(X.shape[1]) == 0 if (X[:, 0] == 1).all() else np.zeros(X.shape[1], bool)
    factors = np.where(free, 0.0, 1.0 if factors is None else factors)
    factors = factors * (~free).sum() / factors.sum()
    varies = (spread > 1e-9) | free
    unit = np.where(varies & ~free, spread, 1.0) if standardize else np.ones(len(spread))
    worst = 0.0
    for strength, b in zip(path.lambdas, path.coefficients, strict=True):
        eta = X @ b + offset
        with jax.enable_x64(True):
            score = np.asarray(family.score_at(y, family.link.mean(jax.numpy.asarray(eta))))
        down = (share * score) @ X / unit - strength * factors * (1.0 - mixing) * b * unit
        bound = strength * factors * mixing
        miss = np.where(b != 0, down - bound * np.sign(b), np.maximum(np.abs(down) - bound, 0.0))
        worst = max(worst, np.abs(miss[varies]).max())
    return worst / max(path.lambdas[0], 1e-300)


def fits_of(name):
    """The cases of a family: name, keywords and reference."""
    for key, expected in R["fits"].items():
        family, _, case = key.rpartition("-")
        if family == name:
            keywords = dict(CASES[case])
            if name == "proportion":
                keywords["weights"] = TRIALS * keywords.get("weights", 1.0)
            keywords.setdefault("offset", np.zeros(50))  # one program for all
            yield keywords, expected


@pytest.mark.parametrize("name", FAMILIES)
def test_paths_are_glmnets(name):
    for keywords, expected in fits_of(name):
        y = RESPONSE[expected["response"]]
        path = jaxglm.regularization_path(X, y, FAMILIES[name], lambdas=expected["lambda"][::-1], names=NAMES, **keywords)
        assert path.converged.all()
        assert path.lambdas.tolist() == expected["lambda"]
        close(path.coefficients, expected["coefficients"])
        close(path.explained, expected["explained"])
        close(path.null_deviance, expected["null_deviance"], 1e-7)
        assert (np.sum(path.coefficients[:, 1:] != 0, axis=1)).tolist() == expected["nonzero"]
        assert conditions(path, X, y, path.family, **keywords) < 1e-8
        if keywords.get("mixing", 1.0) == 1.0:
            assert path.df.tolist() == [count + 1 for count in expected["nonzero"]]


@pytest.mark.parametrize("case", CASES)
def test_a_path_begins_where_glmnets_does(case):
    largest = R["fits"][f"poisson-{case}"]["largest"]
    path = jaxglm.regularization_path(X, RESPONSE["count"], "poisson", lambdas=5, **CASES[case])
    np.testing.assert_allclose(path.lambdas, largest * 10.0 ** -np.arange(5), rtol=1e-10)
    free = np.flatnonzero(np.r_[0, CASES[case].get("factors", np.ones(8))[1:]] == 0)
    if CASES[case].get("mixing", 1.0) > 0:
        assert np.flatnonzero(np.abs(path.coefficients[0]) > 1e-12).tolist() == free.tolist()
        assert (np.abs(path.coefficients[1, 1:]) > 0).sum() > len(free) - 1


def test_glmnets_own_gaussian_is_that_of_a_standardized_response():
    y = RESPONSE["gaussian"]
    size = y.std()
    path = jaxglm.regularization_path(X, y / size, mixing=0.5, lambdas=np.array(R["own_gaussian"]["lambda"]) / size)
    close(path.coefficients * size, R["own_gaussian"]["coefficients"])


def test_without_an_intercept():
    bare, expected = X[:, 1:6], R["bare"]
    path = jaxglm.regularization_path(bare, RESPONSE["count"], "poisson", offset=OFFSET, lambdas=expected["lambda"])
    close(path.coefficients, expected["coefficients"])
    close(path.null_deviance, expected["null_deviance"], 1e-8)
    assert conditions(path, bare, RESPONSE["count"], path.family, offset=OFFSET) < 1e-8


FOLDS = np.arange(50) % 5


@pytest.mark.parametrize("name", ["gaussian", "binomial", "poisson"])
def test_cross_validation_is_glmnets(name):
    expected, y = R["cross"][name], RESPONSE[R["fits"][f"{name}-both"]["response"]]
    path = jaxglm.regularization_path(X, y, name, weights=W, offset=OFFSET, lambdas=expected["lambda"], folds=FOLDS)
    close(path.losses.mean, expected["mean"], 1e-7)
    close(path.losses.standard_error, expected["error"], 1e-7)
    assert path.lambdas[path.choose("cv")] == expected["lambda_min"]
    assert path.lambdas[path.choose("cv", "1se")] == expected["lambda_1se"]
    fit = path.select("cv", "1se")
    np.testing.assert_array_equal(fit.coefficients, path.coefficients[path.choose("cv", "1se")])


# ---- one strength, at both doors ---------------------------------------------------------------------------------------


def test_one_strength_is_a_result_like_any_other(tmp_path):
    fit = jaxglm.fit(X, RESPONSE["count"], "poisson", penalty=ElasticNet(0.1), offset=OFFSET, names=NAMES)
    path = jaxglm.regularization_path(X, RESPONSE["count"], "poisson", lambdas=[0.1], offset=OFFSET)
    np.testing.assert_allclose(fit.coefficients, path.coefficients[0], rtol=1e-8, atol=1e-12)
    assert (fit.status, fit.method, fit.rank) == (Status.CONVERGED, "elastic_net", int(path.df[0]))
    assert np.isnan([*fit.standard_errors, *fit.p_values, *fit.conf_int().ravel()]).all()
    mu = np.exp(X @ fit.coefficients + OFFSET)
    np.testing.assert_allclose(fit.fitted, mu, rtol=1e-12)
    np.testing.assert_allclose(np.sum(fit.residuals() ** 2), fit.deviance, rtol=1e-10)
    plain = jaxglm.fit(X[:, :3], RESPONSE["count"], "poisson", offset=OFFSET)
    y, other = RESPONSE["count"], np.exp(X[:, :3] @ plain.coefficients + OFFSET)
    gap = np.sum(y * np.log(mu) - mu) - np.sum(y * np.log(other) - other)
    np.testing.assert_allclose(fit.log_likelihood, plain.log_likelihood + gap, rtol=1e-12)
    assert fit.aic == -2 * fit.log_likelihood + 2 * fit.rank
    assert "no standard errors" in fit.summary()
    assert fit.tidy()["std_error"].isna().all()
    fit.save(tmp_path / "fit")
    np.testing.assert_array_equal(jaxglm.load(tmp_path / "fit").coefficients, fit.coefficients)


def test_the_dispersion_of_a_gaussian_counts_what_is_not_zero():
    y = RESPONSE["gaussian"]
    fit = jaxglm.fit(X, y, penalty=ElasticNet(0.2), weights=W)
    loss = np.sum(W * (y - fit.fitted) ** 2)
    np.testing.assert_allclose([fit.deviance, fit.dispersion], [loss, loss / (50 - fit.rank)], rtol=1e-12)
    likelihood = -0.5 * np.sum(np.log(2 * np.pi * loss / 50 / W) + W * (y - fit.fitted) ** 2 / (loss / 50))
    np.testing.assert_allclose(fit.log_likelihood, likelihood, rtol=1e-12)
    net = jaxglm.fit(X, y, penalty=ElasticNet(0.2, 0.5), weights=W)
    used = np.flatnonzero(net.coefficients)
    design = X[:, used] - np.where(used > 0, W @ X[:, used] / W.sum(), 0.0)
    information = (design.T * W) @ design
    ridge = np.where(used > 0, 0.1 * np.diag(information), 0.0)
    np.testing.assert_allclose(net.rank, np.trace(np.linalg.solve(information + np.diag(ridge), information)), rtol=1e-9)


def test_the_table_door_by_group_and_by_name():
    table = pd.DataFrame(X[:, 1:7], columns=list("abcdef")).assign(y=RESPONSE["count"], w=W, o=OFFSET, shop=np.arange(50) % 2)
    penalty = ElasticNet([0.05, 0.2], 0.7, factors={"a": 0.0, "c": 2.0})
    fit = jaxglm.glm("y ~ a + b + c + d", table, "poisson", by="shop", weights="w", offset="o", penalty=penalty)
    for shop in (0, 1):
        here = table["shop"] == shop
        one = jaxglm.fit(
            X[here, :5], table["y"][here], "poisson", weights=table["w"][here], offset=table["o"][here],
            penalty=ElasticNet([0.05, 0.2][shop], 0.7, factors=[0, 0, 1, 2, 1]),
        )  # fmt: skip
        np.testing.assert_allclose(fit[shop].coefficients, one.coefficients, rtol=1e-10, atol=1e-12)
        assert fit[shop].aic == pytest.approx(one.aic, rel=1e-12)
        assert fit[shop].coefficients[1] != 0


# ---- what is refused ---------------------------------------------------------------------------------------------------

REFUSED = {
    "mixing": (lambda: ElasticNet(1.0, 1.5), "mixing must be a number from 0"),
    "mixing of a path": (lambda: jaxglm.regularization_path(X, X[:, 1], mixing=-0.1), "mixing must be a number from 0"),
    "strength": (lambda: jaxglm.fit(X, X[:, 1], penalty=ElasticNet(-1.0)), "strength must be finite and nonnegative"),
    "strengths": (lambda: jaxglm.fit(X, X[:, 1], penalty=ElasticNet([1.0, 2.0])), r"a number or have shape \(1,\), not \(2,\)"),
    "a name": (lambda: jaxglm.fit(X, X[:, 1], names=NAMES, penalty=ElasticNet(1.0, factors={"g": 0})), "no column 'g'"),
    "factors": (lambda: jaxglm.fit(X, X[:, 1], penalty=ElasticNet(1.0, factors=[1, 2])), r"factors must have shape \(8,\)"),
    "a factor": (lambda: jaxglm.fit(X, X[:, 1], penalty=ElasticNet(1.0, factors=[-1] * 8)), "factors must be finite and non"),
    "nothing": (lambda: jaxglm.fit(X[:, :1], X[:, 1], penalty=ElasticNet(1.0)), "nothing is penalized"),
    "start": (lambda: jaxglm.fit(X, X[:, 1], penalty=ElasticNet(1.0), start=np.zeros(8)), "start has no use"),
    "lambdas": (lambda: jaxglm.regularization_path(X, X[:, 1], lambdas=[1.0, -1.0]), "lambdas must be finite and nonnegative"),
    "a number": (lambda: jaxglm.regularization_path(X, X[:, 1], lambdas=0), "lambdas must be a whole number"),
    "shape": (lambda: jaxglm.regularization_path(X, X[:, 1], lambdas=np.ones((2, 3))), r"shape \(L,\) or \(1, L\)"),
    "ratio": (lambda: jaxglm.regularization_path(X, X[:, 1], ratio=2.0), "ratio must be between 0 and 1"),
    "folds": (lambda: jaxglm.regularization_path(X, X[:, 1], folds=1), "folds must be a whole number from 2"),
    "fold labels": (lambda: jaxglm.regularization_path(X, X[:, 1], folds=np.ones(3)), r"folds must have shape \(50,\)"),
    "one fold": (lambda: jaxglm.regularization_path(X, X[:, 1], folds=np.ones(50)), "at least two different labels"),
}


@pytest.mark.parametrize(("call", "says"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused_before_anything_runs(call, says):
    with pytest.raises(ValueError, match=says):
        call()


def test_what_a_path_refuses():
    path = jaxglm.regularization_path(X, RESPONSE["count"], "poisson", lambdas=[0.1], offset=OFFSET)
    quasi = replace(path, family=families.QuasiPoisson())
    for call, says in (
        (lambda: path.choose("cv"), "made without cross-validation"),
        (lambda: quasi.choose("bic"), "needs a likelihood"),
        (lambda: path.choose("bics"), "Did you mean 'bic'"),
        (lambda: path.choose("aic", "1se"), 'rule must be "min"'),
        (lambda: path.at([0, 1]), "place must be a whole number"),
    ):
        with pytest.raises(ValueError, match=says):
            call()
    with pytest.raises(IndexError, match="the path has 1 fits"):
        path.at(1)
    with pytest.warns(StatusWarning, match="invalid_data"):
        bad = jaxglm.regularization_path(X, -RESPONSE["count"], "poisson", lambdas=[0.1], offset=OFFSET)
    assert bad.status.tolist() == [Status.INVALID_DATA]
    assert np.isnan(bad.coefficients).all()
