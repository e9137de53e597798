"""jaxglm against R: every family under every link, and contraceptive use by district.

The references in tests/reference are R's numbers at estimates polished to the last digits (see the README there). Cases
of one family and link are mapped over together, so each is given weights and an offset. For families with a likelihood,
cases without aliased columns are factored by Cholesky, the others orthogonally. Quasi families are made of the same
functions; to save compiling, all their cases are factored orthogonally, a fourth column of zeros (aliased) where there
are three. The districts go through "auto", where both factorizations decide.
"""

import csv
import json
from collections import defaultdict
from functools import cache
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxglm
from jaxglm import families, irls, links
from jaxglm.status import Status

pytestmark = pytest.mark.long

REFERENCE = Path(__file__).parent / "reference"
FAMILIES = json.loads((REFERENCE / "families.json").read_text())
DISTRICTS = json.loads((REFERENCE / "districts.json").read_text())
TOLERANCE = 1e-8
QUICK_COMPILE = {"xla_backend_optimization_level": 0, "xla_cpu_use_fusion_emitters": False}

CASES = defaultdict(list)  # by family and link
for _case in FAMILIES["cases"]:
    _shape = "" if _case["parameter"] is None else f"({_case['parameter']})"
    CASES[f"{_case['family']}{_shape}-{_case['link']}"].append(_case)


def array(values):
    """Numbers of a reference, NaN where R has NA."""
    return np.array(values, float)


def family_of(case):
    """The family of a case, with its link."""
    link = links.Power(case["exponent"]) if case["link"] == "power" else case["link"]
    parameter = {"negative_binomial": "theta", "tweedie": "power", "quasi": "variance"}.get(case["family"])
    return families.named(case["family"], link, **({} if parameter is None else {parameter: case["parameter"]}))


def data_of(case, width):
    """X with so many columns, y, weights and offset of a case."""
    X = array(FAMILIES["designs"].get(case["case"], FAMILIES["designs"]["plain"]))
    y = array(case["y"])
    weights = np.ones_like(y) if case["weights"] is None else array(case["weights"])
    offset = np.zeros_like(y) if case["offset"] is None else array(case["offset"])
    return np.pad(X, ((0, 0), (0, width - X.shape[1]))), y, weights, offset


@cache
def compiler_options():
    """Options that halve the time to compile, where this version of XLA has them."""
    try:
        jax.jit(jnp.negative, compiler_options=QUICK_COMPILE)(1.0)
    except jax.errors.JaxRuntimeError:
        return None
    return QUICK_COMPILE


def solve_all(batch, family, factorization):
    """Fit a batch of (X, y, weights, offset), and give a list of solutions."""

    def one(X, y, weights, offset):
        return irls.solve(X, y, family, weights=weights, offset=offset, options=irls.IRLS(factorization=factorization))

    stacked = [jnp.asarray(np.stack(part)) for part in zip(*batch, strict=True)]
    fits = jax.tree.map(np.asarray, jax.jit(jax.vmap(one), compiler_options=compiler_options())(*stacked))
    return [jax.tree.map(lambda leaf, i=i: leaf[i], fits) for i in range(len(batch))]


def assert_close(value, reference, least, name):
    """Hold a value against R's, relative to the reference or the least unit, the larger. NaN must meet NaN."""
    reference = array(reference)
    unit = np.maximum(*np.nan_to_num([least * np.ones_like(reference), np.abs(reference)], nan=1.0))
    np.testing.assert_allclose(value / unit, reference / unit, rtol=0.0, atol=TOLERANCE, err_msg=name)


def check(name, fit, case, family):
    """Hold one fit against R's."""
    assert fit.status == Status.CONVERGED, (name, Status(int(fit.status)).label)
    padding = [None] * (len(fit.coefficients) - len(case["errors"]))
    expected, errors = (array(case[key] + padding) for key in ("coefficients", "errors"))
    assert_close(fit.coefficients, expected, errors, f"{name} coefficients")
    assert_close(np.sqrt(np.diagonal(fit.covariance)), errors, 0.0, f"{name} errors")
    assert (fit.rank, fit.n_obs) == (case["rank"], case["n_obs"]), name
    aic = -2.0 * fit.log_likelihood + 2.0 * (fit.rank + family.counts_dispersion)
    assert_close(fit.deviance, case["deviance"], 1.0, f"{name} deviance")
    assert_close(fit.null_deviance, case["null_deviance"], 1.0, f"{name} null deviance")
    assert_close(fit.log_likelihood, case["log_likelihood"], 0.0, f"{name} log-likelihood")
    assert_close(aic, case["aic"], 0.0, f"{name} AIC")
    assert_close(fit.dispersion, case["dispersion"], 0.0, f"{name} dispersion")


@pytest.mark.parametrize("cases", CASES.values(), ids=CASES)
def test_families(x64, cases):
    family = family_of(cases[0])
    simple = [case for case in cases if case["case"] in ("plain", "weights", "offset")]
    aliased = [case for case in cases if case not in simple]
    likelihood = family.log_likelihood is not None
    batches = [(simple, 3, "cholesky"), (aliased, 4, "orthogonal")] if likelihood else [(cases, 4, "orthogonal")]
    for batch, width, factorization in batches:
        fits = solve_all([data_of(case, width) for case in batch], family, factorization)
        for case, fit in zip(batch, fits, strict=True):
            check(case["case"], fit, case, family)


def contraception():
    """The design, the response and the district of all women."""
    with open(Path(jaxglm.__file__).parent / "datasets" / "contraception.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    age = array([row["age"] for row in rows])
    dummies = [[row["urban"] == "Y"] + [row["livch"] == level for level in ("1", "2", "3+")] for row in rows]
    X = np.column_stack([np.ones_like(age), age, age**2, array(dummies)])
    return X, array([row["use"] == "Y" for row in rows]), np.array([row["district"] for row in rows])


def test_districts(x64):
    X, y, district = contraception()
    zero = np.zeros_like(y)
    batch = [(X, y, np.float64(district == entry["district"]), zero) for entry in DISTRICTS["districts"]]
    batch.append((X, y, np.ones_like(y), zero))
    family = families.Binomial()
    entries = [*DISTRICTS["districts"], DISTRICTS["whole"]]
    for case, fit in zip(entries, solve_all(batch, family, "auto"), strict=True):
        name = f"district {case.get('district', 'all')}"
        if case["separated"]:
            assert (fit.status, fit.rank) == (Status.SEPARATED, case["rank"]), name
        else:
            check(name, fit, case, family)
    assert sum(case["separated"] for case in entries) == 36
