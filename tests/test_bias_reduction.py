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

import jaxglm
from jaxglm import Status, families
from jaxglm.irls.adjusted import METHODS, evaluate
from jaxglm.irls.normal import ORTHOGONAL
from jaxglm.irls.problem import typed
from jaxglm.irls.solve import Data

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
        return evaluate(problem, ORTHOGONAL, kind, point, keep, None).length

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
