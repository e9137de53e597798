"""Bias-reduced fits against brglm2, and separated groups that get finite estimates.

References are in tests/reference/bias.json (bias.R there). A family's cases of one shape go through one call, each a group.
"""

import json
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import digamma, polygamma

import jaxglm
from jaxglm import Ridge, Status, StatusWarning, families
from jaxglm.irls.adjusted import METHODS, evaluate
from jaxglm.irls.data import Data
from jaxglm.irls.normal import ORTHOGONAL
from jaxglm.irls.problem import typed

pytestmark = pytest.mark.long

REFERENCE = json.loads((Path(__file__).parent / "reference" / "bias.json").read_text())
ROWS = {name: np.array(values, float) for name, values in REFERENCE["rows"].items() if name != "y"}
WOMEN = jaxglm.datasets.load("contraception")
FORMULA = "use ~ age + I(age^2) + urban + livch"
TOLERANCE = 1e-7
NAMES = {"gamma": "Gamma", "inverse_gaussian": "inverse.gaussian"}


def family_of(case):
    """The family of a case, with its link."""
    shape = {"theta": 2.0} if case["family"] == "negative_binomial" else {}
    return families.named(case["family"], case["link"], **shape)


def data_of(case):
    """X with four columns, of which the third is zeros where the case has three; y, weights, offset."""
    rich = case["case"] == "rich"
    y = np.array(REFERENCE["rows"]["y"][NAMES.get(case["family"], case["family"])], float)
    X = ROWS["XA"] if rich else np.insert(ROWS["X"], 2, 0.0, axis=1)
    weights = ROWS["weights"] if rich or case["family"] == "binomial" else np.ones_like(y)
    offset = ROWS["offset"] if rich and case["link"] not in ("inverse", "sqrt") else np.zeros_like(y)
    return X, y, weights, offset


def cases():
    """By family and link, the cases of all kinds of reduction."""
    found = {}
    for case in REFERENCE["reduced"]:
        found.setdefault((case["family"], case["link"]), []).append(case)
    return found


def close(value, reference, error, name):
    """To the tolerance, relative to the reference or its standard error."""
    reference, error = np.array(reference, float), np.array(error, float)
    assert np.array_equal(np.isnan(value), np.isnan(reference)), name
    unit = np.maximum(np.abs(reference), error)
    np.testing.assert_allclose(value / unit, reference / unit, rtol=0, atol=TOLERANCE, err_msg=name)


def given_of(case):
    """The data of a case, and the estimates and the dispersion where brglm2 ends."""
    return (*data_of(case), padded(case["coefficients"]), np.array(case["dispersion"], float))


def padded(values):
    """Numbers of a case with three columns in the places of four."""
    return np.insert(np.array(values, float), 2, np.nan) if len(values) == 3 else np.array(values, float)


@pytest.mark.parametrize("model", cases(), ids="-".join)
def test_adjusted_scores_are_zero_where_brglm2_ends(x64, model):
    """The increment that is left there, in standard errors, by all kinds, with weights, an offset and an aliased column."""
    found = cases()[model]
    family = typed(family_of(found[0]), jnp.float64)

    def left(kind, X, y, weights, offset, b, dispersion):
        problem = Data(X, y, weights, offset, None, family).problem()
        keep = ~jnp.isnan(b)
        point = jnp.append(jnp.where(keep, b, 0.0) * problem.scale, jnp.log(dispersion))
        return evaluate(problem, ORTHOGONAL, kind, point, 0.0 * point, keep, None).length

    @jax.jit
    def lengths(by_kind):
        return [jax.vmap(partial(left, kind))(*given) for kind, given in by_kind.items()]

    given = {kind: [case for case in found if case["kind"] == kind] for kind in METHODS}
    given = {kind: [np.stack(part) for part in zip(*map(given_of, both), strict=True)] for kind, both in given.items()}
    np.testing.assert_allclose(lengths(given), 0.0, atol=1e-7)


FITTED = [
    ("binomial", "logit", "mean"), ("binomial", "probit", "median"), ("poisson", "log", "median"), ("gamma", "log", "mean"),
]  # fmt: skip


@pytest.mark.parametrize("which", FITTED, ids="-".join)
def test_fits_against_brglm2(which):
    *model, kind = which
    found = [case for case in cases()[tuple(model)] if case["kind"] == kind]
    X, y, weights, offset = (np.concatenate(part) for part in zip(*map(data_of, found), strict=True))
    groups = np.repeat([case["case"] for case in found], len(y) // len(found))
    fit = jaxglm.fit(X, y, family_of(found[0]), groups=groups, weights=weights, offset=offset, bias_reduction=kind)
    for case in found:
        one, name = fit[case["case"]], f"{which} {case['case']}"
        assert one.status == Status.CONVERGED, name
        errors = padded(case["errors"])
        close(one.coefficients, padded(case["coefficients"]), errors, name)
        close(one.standard_errors, errors, errors, name)
        close(one.dispersion, case["dispersion"], 0.0, name)
        close(one.deviance, case["deviance"], 1.0, name)
        assert not one.infinite.any()
        assert one.method == {"mean": "mean_bias_reduced", "median": "median_bias_reduced"}[kind]


def small(n, seed):
    """Columns and a binary response of n rows."""
    rng = np.random.default_rng(seed)
    X = np.column_stack([np.ones(n), rng.normal(size=n), np.zeros(n), rng.integers(0, 2, n)])
    return X, (rng.random(n) < 0.4).astype(float)


@pytest.fixture(scope="module")
def districts():
    """Contraceptive use by district, separated districts with finite estimates."""
    return jaxglm.glm(FORMULA, WOMEN, family="binomial", by="district", separated="firth")


def test_every_district_has_finite_estimates(districts):
    with pytest.warns(StatusWarning, match="36 separated"):
        limits = jaxglm.glm(FORMULA, WOMEN, family="binomial", by="district")
    apart = limits.status == Status.SEPARATED
    np.testing.assert_array_equal(districts.status, limits.status)
    assert (np.isfinite(districts.coefficients) | limits.solution.aliased).all()
    assert np.isfinite(districts.standard_errors[~limits.solution.aliased]).all()
    assert not districts.infinite.any()
    assert districts.method[apart].tolist() == ["mean_bias_reduced"] * 36
    assert set(districts.method[~apart]) == {"irls"}
    for name in ("coefficients", "covariance", "deviance", "log_likelihood", "n_iterations"):
        np.testing.assert_array_equal(getattr(districts, name)[~apart], getattr(limits, name)[~apart])
    known = {entry["district"]: np.array(entry["coefficients"], float) for entry in REFERENCE["districts"]}
    for k in np.flatnonzero(apart):
        b = known[districts.groups[k]]
        close(districts.coefficients[k], b, districts.standard_errors[k], f"district {districts.groups[k]}")


def test_what_follows_uses_the_finite_estimates(districts):
    fitted = districts.fitted
    assert ((fitted > 0) & (fitted < 1)).all()
    rows = districts.observations
    b = np.nan_to_num(districts.coefficients)[rows.codes]
    np.testing.assert_allclose(districts.linear_predictor, np.sum(rows.X * b, axis=1), rtol=1e-12)
    one = districts[districts.groups[np.flatnonzero(districts.status == Status.SEPARATED)[0]]]
    assert np.isfinite(one.prediction(WOMEN[:5]).standard_error).all()
    text = one.summary()
    assert "separated, estimates mean bias reduced" in text
    assert "Some estimates are infinite" not in text
    assert one.glance()["method"].tolist() == ["mean_bias_reduced"]


def test_separated_groups_among_others_and_bad_ones():
    """Poisson groups: a separated one is reduced as when all are, and bad groups change nothing for the others."""
    X, y = small(30, 0)
    calm, apart = np.where(X[:, 3] == 1, 2.0 + y, 1.0 + y), np.where(X[:, 3] == 1, 0.0, 1.0 + y)
    parts = {"a calm": calm, "b apart": apart, "c invalid": calm - 9.0, "d missing": calm * np.nan}
    groups, y = np.repeat(list(parts), 30), np.concatenate(list(parts.values()))
    weights, X = np.ones(len(y)), np.tile(X, (4, 1))
    weights[groups == "d missing"] = 0.0
    with pytest.warns(StatusWarning, match=r"2 of 4 fits did not converge: 1 no_data \(d missing\); 1 invalid_data"):
        some = jaxglm.fit(X, y, "poisson", groups=groups, weights=weights, separated="firth")
    assert some.status.tolist() == [Status.CONVERGED, Status.SEPARATED, Status.INVALID_DATA, Status.NO_DATA]
    assert np.isnan(some.coefficients[2:]).all()
    good = groups <= "b apart"
    every = jaxglm.fit(X[good], y[good], "poisson", groups=groups[good], bias_reduction="mean")
    assert every.converged.all()
    np.testing.assert_allclose(some.coefficients[1], every.coefficients[1], rtol=1e-9)
    np.testing.assert_allclose(some.covariance[1], every.covariance[1], rtol=1e-9)
    plain = jaxglm.fit(X[good], y[good], "poisson", groups=groups[good], separated="firth")
    np.testing.assert_array_equal(plain.coefficients, some.coefficients[:2])


def test_shapes_of_calls_agree():
    """One fit, responses of one design, designs of their own and groups, one of them constant responses."""
    X, y = small(20, 1)
    Y = np.stack([y, np.ones(20), 1.0 - y])
    shared = jaxglm.fit(X, Y, "binomial", bias_reduction="jeffreys")
    assert shared.converged.all()
    own = jaxglm.fit(np.stack([X] * 3), Y, "binomial", bias_reduction="jeffreys")
    ragged = jaxglm.fit(np.tile(X, (3, 1)), Y.reshape(-1), "binomial", groups=np.repeat([0, 1, 2], 20), bias_reduction="mean")
    one = jaxglm.fit(X, Y[1], "binomial", bias_reduction="mean")
    np.testing.assert_allclose(own.coefficients, shared.coefficients, rtol=1e-12)
    np.testing.assert_allclose(ragged.coefficients, shared.coefficients, rtol=1e-8, atol=1e-9)
    np.testing.assert_allclose(one.coefficients, shared.coefficients[1], rtol=1e-8, atol=1e-9)
    assert (shared.method == "jeffreys").all()
    np.testing.assert_allclose(shared.coefficients[0], -shared.coefficients[2], rtol=1e-7, atol=1e-8)


def test_without_degrees_of_freedom_there_is_no_dispersion():
    """A normal fit of as many rows as columns is exact, one of more has D / (n - p), and a perfect one has next to none."""
    X = np.column_stack([np.ones(6), np.arange(6.0), np.zeros(6), np.zeros(6)])
    y = np.array([1.0, 3.0, 2.0, 5.0, 4.0, 6.0])
    groups = ["few"] * 2 + ["many"] * 6 + ["exact"] * 6
    fit = jaxglm.fit(
        np.concatenate([X[:2], X, X]), np.concatenate([y[:2], y, 2.0 * X[:, 1]]), groups=groups, bias_reduction="median"
    )
    assert fit.converged.all()
    np.testing.assert_allclose(fit["few"].coefficients[:2], [1.0, 2.0], rtol=1e-12)
    assert np.isnan(fit["few"].dispersion)
    np.testing.assert_allclose(fit["many"].dispersion, fit["many"].deviance / (6 - 2 - 2 / 3), rtol=1e-10)
    assert fit["exact"].dispersion < 1e-20


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"bias_reduction": "firth"}, '"mean", "median", "jeffreys" or None'),
        ({"bias_reduction": "meen"}, "Did you mean 'mean'"),
        ({"separated": "drop"}, '"limits" or "firth"'),
        ({"separated": "firth", "bias_reduction": "mean"}, "all groups are reduced"),
        ({"separated": "firth", "penalty": Ridge(1.0)}, "a penalty and bias reduction cannot be combined"),
        ({"bias_reduction": "mean", "penalty": Ridge(1.0)}, "a penalty and bias reduction cannot be combined"),
    ],
)
def test_bad_requests(arguments, message):
    X, y = small(12, 2)
    with pytest.raises(ValueError, match=message):
        jaxglm.fit(X, y, "binomial", **arguments)


def test_estimates_without_a_likelihood_have_no_profile():
    X, y = small(20, 1)
    fit = jaxglm.fit(X, y, "binomial", bias_reduction="median")
    with pytest.raises(ValueError, match="maximise no likelihood"):
        fit.conf_int(method="profile")


def test_what_families_expect_of_their_deviance(x64):
    """The asymptotic series, and its derivatives, which stand for the cumulants."""
    a = np.array([1e-3, 0.1, 1.0, 7.0, 11.9, 12.1, 50.0, 1e6])
    expected = families.Gamma().expected_deviance
    np.testing.assert_allclose(expected(a)[:7], 2.0 * (np.log(a) - digamma(a))[:7], rtol=1e-12)
    slope = jax.vmap(jax.grad(expected))(a)
    np.testing.assert_allclose(slope[:7], 2.0 / a[:7] - 2.0 * polygamma(1, a)[:7], rtol=1e-11)
    np.testing.assert_allclose(expected(a)[7] * a[7], 1.0, rtol=1e-6)
    assert families.Quasi("mu^2").expected_deviance is None
