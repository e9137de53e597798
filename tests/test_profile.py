"""Profile-likelihood intervals and tests against roots found in R, infinite ends, and groups that have none.

References are in tests/reference/bias.json (bias.R there). Binomial fits are groups of one call, so that each way of refitting
is compiled once: a plain one, one with weights, an offset and an aliased column, a separated one, and four bad ones.
"""

import json
from pathlib import Path

import numpy as np
import pytest

import jaxglm
from jaxglm import Ridge, Status, profile
from jaxglm.crossings import crossings
from jaxglm.packing import Crossed, Features

REFERENCE = json.loads((Path(__file__).parent / "reference" / "bias.json").read_text())
ROWS = {name: np.array(values, float) for name, values in REFERENCE["rows"].items() if name != "y"}
Y = {name: np.array(values, float) for name, values in REFERENCE["rows"]["y"].items()}
N = len(ROWS["offset"])
ONE, ZERO, PADDED = np.ones(N), np.zeros(N), np.insert(ROWS["X"], 2, 0.0, axis=1)
GOOD = {
    "plain": (PADDED, Y["binomial"], ROWS["weights"], ZERO),
    "rich": (ROWS["XA"], Y["binomial"], ROWS["weights"], ROWS["offset"]),
    "apart": (PADDED, np.array(REFERENCE["apart"][0]["y"], float), ONE, ZERO),
}
BAD = {
    "empty": (PADDED, Y["binomial"], ZERO, ZERO),
    "invalid": (PADDED, Y["binomial"] + 2.0, ONE, ZERO),
    "one row": (PADDED[:1], ONE[:1], ONE[:1], ZERO[:1]),
    "all alike": (PADDED, ONE, ONE, ZERO),
}
TOLERANCE = 1e-6
pytestmark = [pytest.mark.long, pytest.mark.filterwarnings("ignore::jaxglm.StatusWarning")]


def fitted(groups, family="binomial", **arguments):
    """Groups in one call, with their names as keys."""
    keys = np.repeat(list(groups), [len(part[1]) for part in groups.values()])
    X, y, weights, offset = (np.concatenate(part) for part in zip(*groups.values(), strict=True))
    return jaxglm.fit(X, y, family, groups=keys, weights=weights, offset=offset, **arguments)


def reference(family, link, case):
    """R's ends and statistics, in the places of four columns."""
    found = next(one for one in REFERENCE["profiles"] if (one["family"], one["link"], one["case"]) == (family, link, case))
    ends, tests = np.array(found["ends"], float), np.array(found["tests"], float)
    return (ends, tests) if len(ends) == 4 else (np.insert(ends, 2, np.nan, axis=0), np.insert(tests, 2, np.nan))


@pytest.fixture(scope="module")
def binomial():
    """The fits of all groups, their intervals and their tests."""
    fit = fitted({**GOOD, **BAD})
    return fit, fit.conf_int(method="profile"), fit.profile_tests()


def place(fit, key):
    """Where a group is."""
    return list(fit.groups).index(key)


@pytest.mark.parametrize("case", ["plain", "rich"])
def test_ends_are_roots(binomial, case):
    fit, ends, tests = binomial
    k = place(fit, case)
    known, statistics = reference("binomial", "logit", case)
    np.testing.assert_allclose(ends[k], known, rtol=TOLERANCE, atol=1e-9)
    np.testing.assert_allclose(tests.statistic[k], statistics, rtol=TOLERANCE, atol=1e-12)
    assert np.all((tests.p_value[k] < 0.05) == ((ends[k] > 0).all(axis=1) | (ends[k] < 0).all(axis=1)))


def test_a_separated_fit_has_finite_terms_and_one_finite_end(binomial):
    fit, ends, tests = binomial
    k, known = place(fit, "apart"), REFERENCE["apart"][0]
    assert fit.status[k] == Status.SEPARATED
    assert fit.infinite[k].tolist() == [0, 0, 0, 1]
    np.testing.assert_allclose(ends[k, :2], np.array(known["ends"]), rtol=TOLERANCE)
    np.testing.assert_allclose(ends[k, 3], [known["end"], np.inf], rtol=TOLERANCE)
    np.testing.assert_allclose(tests.statistic[k, 3], known["test"], rtol=TOLERANCE)


def test_bad_groups_have_no_ends_and_change_nothing(binomial):
    fit, ends, tests = binomial
    alone = fitted(GOOD)
    kept = [place(fit, key) for key in alone.groups]
    np.testing.assert_allclose(alone.conf_int(method="profile"), ends[kept], rtol=1e-12)
    np.testing.assert_allclose(alone.profile_tests().statistic, tests.statistic[kept], rtol=1e-9, atol=1e-12)
    for key in ("empty", "invalid"):
        assert np.isnan(ends[place(fit, key)]).all()
        assert np.isnan(tests.statistic[place(fit, key)]).all()
    # Of a response that is all ones, the intercept has a lowest value; nothing else is known.
    everything = ends[place(fit, "all alike")]
    assert np.isfinite(everything[0, 0])
    assert everything[0, 1] == np.inf
    assert everything[3].tolist() == [-np.inf, np.inf]
    assert np.isnan(everything[2]).all()


def test_one_fit_terms_and_levels(binomial):
    fit, ends, _ = binomial
    one = fit["plain"]
    assert one.conf_int(method="profile").shape == (4, 2)
    np.testing.assert_allclose(one.profile_interval(terms=["x4", 0]), ends[place(fit, "plain")][[3, 0]], rtol=1e-12)
    inner = one.profile_interval(level=0.5, terms=["x2"])
    assert ends[place(fit, "plain"), 1, 0] < inner[0, 0] < one.coefficients[1] < inner[0, 1]
    np.testing.assert_allclose(one.conf_int(method="wald"), one.conf_int())


def test_many_fits_of_one_design_have_the_ends_of_each():
    X, y, weights, _ = GOOD["plain"]
    weights, offset = np.stack([weights, ROWS["weights"]]), np.stack([ZERO, ROWS["offset"]])
    fits = jaxglm.fit(X, np.stack([y, y]), "binomial", weights=weights, offset=offset)
    ends = fits.profile_interval(terms=["x1", "x2", "x4"])
    np.testing.assert_allclose(ends[0], reference("binomial", "logit", "plain")[0][[0, 1, 3]], rtol=TOLERANCE)
    np.testing.assert_allclose(ends[1], reference("binomial", "logit", "rich")[0][[0, 1, 3]], rtol=TOLERANCE)


@pytest.mark.parametrize(("family", "link"), [("gamma", "log"), ("gaussian", "identity")])
def test_an_estimated_dispersion_has_t_quantiles(family, link):
    y = Y[{"gamma": "Gamma"}.get(family, family)]
    groups = {"plain": (PADDED, y, ONE, ZERO), "rich": (ROWS["XA"], y, ROWS["weights"], ROWS["offset"])}
    fit = fitted(groups, jaxglm.families.named(family, link))
    ends, tests = fit.conf_int(method="profile"), fit.profile_tests()
    for k, case in enumerate(fit.groups):
        known, statistics = reference(family, link, case)
        np.testing.assert_allclose(ends[k], known, rtol=TOLERANCE)
        np.testing.assert_allclose(tests.statistic[k], statistics, rtol=TOLERANCE, atol=1e-12)
    if family == "gaussian":
        np.testing.assert_allclose(ends, fit.conf_int(), rtol=1e-7)
        np.testing.assert_allclose(tests.p_value, fit.p_values, rtol=1e-7)


def test_penalised_profiles_are_those_of_logistf():
    groups = {
        "plain": GOOD["plain"], "offset": (PADDED, Y["binomial"], ROWS["weights"], ROWS["offset"]), "separated": GOOD["apart"],
    }  # fmt: skip
    fit = fitted(groups, bias_reduction="mean")
    ends, tests = fit.conf_int(method="profile"), fit.profile_tests()
    for known in REFERENCE["jeffreys"]:
        k, columns = place(fit, known["case"]), [0, 1, 3]
        np.testing.assert_allclose(fit.coefficients[k, columns], known["coefficients"], rtol=TOLERANCE, atol=1e-8)
        np.testing.assert_allclose(ends[k, columns], np.array(known["ends"]), rtol=TOLERANCE)
        np.testing.assert_allclose(tests.statistic[k, columns], known["tests"], rtol=TOLERANCE, atol=1e-10)
    # Only the separated group is reduced here, and has the same interval.
    some = fitted(groups, separated="firth")
    np.testing.assert_allclose(some["separated"].conf_int(method="profile"), ends[place(fit, "separated")], rtol=1e-8)


def test_rows_of_refits_hold_one_coefficient():
    values = np.array([[0.0, 1.0], [2.0, 3.0]])
    base = Crossed(np.ones((2, 1)), np.zeros(2), None, np.array([0.5, 0.25]), 2, Features(values))
    members = profile.Members(np.array([1, 0]), np.array([1, -1]), np.zeros((2, 2)), np.zeros(2, bool))
    held = profile.Held(base, members, np.array([10.0, 7.0]), np.zeros((2, 2), bool), keeps=False)
    picked = held.pick(np.array([[0], [1]]), np.arange(2))
    np.testing.assert_array_equal(picked.offset, [[20.5, 30.25], [0.5, 0.25]])
    np.testing.assert_array_equal(picked.X, [[[1.0, 0.0], [1.0, 0.0]], [[1.0, 0.0], [1.0, 1.0]]])
    assert held.sizes.tolist() == [2, 2]


def test_crossings_of_all_kinds():
    functions = [
        lambda x: x - 3.0, lambda x: np.arctan(x) - 2.0, lambda x: np.exp(x - 30.0) - 1e-3,
        lambda x: np.where(x < 1.7, x - 4.0, np.inf), lambda x: 0.1 * x**5 - 4.0,
    ]  # fmt: skip

    def evaluate(which, points):
        return np.array([functions[k](x) for k, x in zip(which, points, strict=True)])

    found = crossings(evaluate, np.ones(5), evaluate(range(5), np.zeros(5)), 1e-10)
    np.testing.assert_allclose(found, [3.0, np.inf, 30.0 + np.log(1e-3), np.nan, 40.0**0.2], rtol=1e-9)
    unknown = crossings(evaluate, np.array([0.0, 50.0, 0.0, 0.0, 8.0]), np.full(5, np.nan), 1e-10)
    np.testing.assert_allclose(unknown, found, rtol=1e-9)
    assert np.isnan(crossings(lambda which, x: np.exp(x), np.zeros(1), np.full(1, np.nan), 1e-10)).all()


def test_bad_requests(binomial, tmp_path):
    one = binomial[0]["plain"]
    with pytest.raises(ValueError, match="between 0 and 1"):
        one.conf_int(1.5, method="profile")
    with pytest.raises(ValueError, match='"wald" or "profile"'):
        one.conf_int(method="boot")
    with pytest.raises(KeyError, match="no term 'x9'"):
        one.profile_interval(terms=["x9"])
    with pytest.raises(TypeError, match="list of names"):
        one.profile_interval(terms="x1")
    one.save(tmp_path / "fit")
    with pytest.raises(ValueError, match="holds no rows"):
        jaxglm.load(tmp_path / "fit").conf_int(method="profile")
    X, y, _, _ = GOOD["plain"]
    with pytest.raises(ValueError, match="penalized"):
        jaxglm.fit(X, y > 0.5, "binomial", penalty=Ridge(1.0)).profile_interval()
