"""Starts of fits that are alike: of scans, score tests made into coefficients; of replicates, the common fit."""

import warnings
from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import linalg

import jaxglm
from jaxglm import IRLS, families, irls
from jaxglm.irls.alike import are_alike, starts_of_alike
from jaxglm.irls.data import Data

RNG = np.random.default_rng(12)
N, M = 300, 9
X = np.column_stack([np.ones(N), RNG.normal(size=(N, 2))])
Z = RNG.binomial(2, 0.3, (M, N)).astype(float)
Y = (RNG.random(N) < 0.4) * 1.0
WEIGHTS = (RNG.random((M, N)) < 0.9) * 1.0


def posed(weights, own=Z, family=None):
    family = families.Binomial() if family is None else family
    return Data(*map(jnp.asarray, (X, Y, weights)), None, None, family, own=jnp.asarray(own), shared=True)


@pytest.mark.parametrize("missing", [False, True])
def test_a_start_is_one_newton_step_from_the_fit_without_features(x64, missing):
    weights = WEIGHTS if missing else np.ones(N)
    found = np.asarray(starts_of_alike(posed(weights), IRLS(), M))
    null = np.asarray(irls.solve(X, Y, families.Binomial()).coefficients)
    mu = 1.0 / (1.0 + np.exp(-X @ null))
    for k in range(M):
        z = Z[k] * (weights[k] if missing else 1.0)
        design = np.column_stack([X, z])
        step = linalg.solve(design.T @ (design * (mu * (1.0 - mu))[:, None]), design.T @ (Y - mu))
        np.testing.assert_allclose(found[k], [*(null + step[:-1]), step[-1]], rtol=1e-6, atol=1e-8)


def test_a_feature_that_the_covariates_span_starts_at_nothing(x64):
    own = np.stack([np.ones(N), 2.0 * X[:, 1] - 1.0, np.zeros(N), Z[0]])
    found = np.asarray(starts_of_alike(posed(np.ones(N), own), IRLS(), 4))
    np.testing.assert_array_equal(found[:3, -1], 0.0)
    assert np.isfinite(found).all()
    assert found[3, -1] != 0.0


def test_what_differs_in_more_is_not_alike(x64):
    alike = posed(np.ones(N))
    assert are_alike(alike)
    assert are_alike(posed(WEIGHTS))
    theta = families.NegativeBinomial(jnp.ones(M))
    replicates = replace(posed(WEIGHTS), own=None)
    assert are_alike(replicates)
    responses = replace(replicates, y=jnp.ones((M, N)))
    for other in (posed(np.ones(N), family=theta), posed(np.ones(N), own=Z[0]), replace(alike, own=None), responses):
        assert not are_alike(other)


def test_replicates_start_at_the_fit_without_weights(x64):
    weights = RNG.multinomial(N, np.ones(N) / N, 40).astype(float)
    data = replace(posed(weights), own=None)
    found = starts_of_alike(data, IRLS(), 40)
    one = irls.solve(X, Y, families.Binomial())
    np.testing.assert_allclose(found, np.tile(one.coefficients, (40, 1)), rtol=1e-7)


@pytest.mark.parametrize("monstrous", [np.nan, -1.0, 1e300, 0.0])
def test_no_replicate_changes_another(x64, monstrous):
    """Not even in the last bit."""
    weights = RNG.multinomial(N, np.ones(N) / N, 6).astype(float)
    before = irls.solve_many(X, Y, families.Binomial(), weights=weights)
    weights[2, ::2] = monstrous
    after = irls.solve_many(X, Y, families.Binomial(), weights=weights)
    others = np.array([0, 1, 3, 4, 5])
    np.testing.assert_array_equal(after.coefficients[others], before.coefficients[others])
    np.testing.assert_array_equal(after.n_iterations[others], before.n_iterations[others])


def test_rows_that_no_fit_has_do_not_spoil_the_start(x64):
    y, weights = Y.copy(), RNG.multinomial(N, np.ones(N) / N, 4).astype(float)
    y[7], weights[:, 7] = np.nan, 0.0
    data = replace(posed(weights), own=None, y=jnp.asarray(y))
    assert np.isfinite(starts_of_alike(data, IRLS(), 4)).all()
    hopeless = replace(data, y=jnp.asarray((X[:, 1] > 0) * 1.0))
    assert np.abs(starts_of_alike(hopeless, IRLS(), 4)).max() < 10.0


@pytest.mark.parametrize("broken", ["", "NaN", "negative", "none"])
def test_replicates_are_what_each_is_alone(broken):
    """Whatever one of them has for weights."""
    weights = RNG.multinomial(N, np.ones(N) / N, 5).astype(float)
    if broken:
        weights[2, :] = {"NaN": np.nan, "negative": -1.0, "none": 0.0}[broken]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", jaxglm.StatusWarning)
        found = jaxglm.fit(X, Y, "binomial", weights=weights)
        alone = [jaxglm.fit(X, Y, "binomial", weights=row) for row in weights]
    assert found.status.tolist() == [one.status for one in alone]
    for k, one in enumerate(alone):
        np.testing.assert_allclose(found[k].coefficients, one.coefficients, rtol=1e-9, atol=1e-11)
        np.testing.assert_allclose(found[k].standard_errors, one.standard_errors, rtol=1e-8)


def test_a_start_changes_no_answer():
    """Beside ordinary features: aliased, separating, hopeless and missing ones."""
    features = Z.T.copy()
    features[:, 0], features[:, 1], features[:, 2] = 1.0, Y, np.where(RNG.random(N) < 0.5, np.nan, features[:, 2])
    features[:, 3] *= 1e9
    with pytest.warns(jaxglm.StatusWarning):
        found = jaxglm.scan(X, Y, features, "binomial", missing="drop")
    for k in range(M):
        design, present = np.column_stack([X, features[:, k]]), ~np.isnan(features[:, k])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", jaxglm.StatusWarning)
            alone = jaxglm.fit(np.stack([design] * 2), np.stack([Y] * 2), "binomial", weights=present * 1.0)[0]
        assert found[k].status == alone.status
        np.testing.assert_allclose(found[k].coefficients, alone.coefficients, rtol=1e-8, atol=1e-10)
        np.testing.assert_allclose(found[k].standard_errors, alone.standard_errors, rtol=1e-7)
        np.testing.assert_allclose(found[k].deviance, alone.deviance, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("dtype", "code"), [(np.uint8, 255), (np.uint8, -9), (np.int16, -9), (np.float32, -9), (bool, None)])
def test_features_in_any_type_are_the_same_numbers(dtype, code):
    given = (Z.T > 0 if dtype is bool else Z.T).astype(dtype)
    exact = given.astype(float)
    if (code is not None and code >= 0) or dtype in (np.int16, np.float32):
        given[5, 2], exact[5, 2] = code, np.nan
    kept = given.copy()
    found = jaxglm.scan(X, Y, given, "binomial", missing="drop", missing_code=code)
    wide = jaxglm.scan(X, Y, exact, "binomial", missing="drop")
    np.testing.assert_array_equal(found.coefficients, wide.coefficients)
    np.testing.assert_array_equal(found.n_dropped, wide.n_dropped)
    np.testing.assert_array_equal(found.fitted, wide.fitted)
    np.testing.assert_array_equal(given, kept)
    assert found[2].n_obs == N - int(np.isnan(exact[5, 2]))
