"""Negative binomial fits with an estimated theta: against R, in every shape of call, and among bad groups."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import chi2

import jaxglm
from jaxglm import families, fitting, irls, theta
from jaxglm.calls import arithmetic
from jaxglm.packing import Crossed
from jaxglm.status import Status
from jaxglm.task import Task

pytestmark = pytest.mark.long

CASES = json.loads((Path(__file__).parent / "reference" / "theta.json").read_text())["cases"]
LOG = [case for case in CASES if case["link"] == "log"]
N, WIDTH = 48, 4
RNG = np.random.default_rng(7)
X = np.column_stack([np.ones(N), np.round(RNG.uniform(-1, 1, N), 2), np.arange(N) % 2])
OFFSET = np.round(RNG.uniform(-0.3, 0.3, N), 2)
ML, CR = families.NegativeBinomial(), families.NegativeBinomial(adjusted=True)


def counts(size, mean, g, seed=3):
    """Negative binomial counts, (g, N), of this theta and with means around exp(mean)."""
    rng = np.random.default_rng(seed)
    mu = np.exp(X @ [mean, 0.5, -0.4] + OFFSET)
    return rng.poisson(rng.gamma(size, mu / size, (g, N))).astype(float)


def array(values, width=None):
    """Numbers of a reference, NaN where R has NA and beyond."""
    values = np.array(values, float)
    return values if width is None else np.pad(values, (0, width - len(values)), constant_values=np.nan)


def stacked(cases):
    """The rows of cases one after the other, four columns wide, as arguments of `jaxglm.fit`."""
    columns = [np.pad(array(case["X"]), ((0, 0), (0, WIDTH - len(case["X"][0])))) for case in cases]
    weights = [np.ones(N) if case["weights"] is None else array(case["weights"]) for case in cases]
    offset = [np.zeros(N) if case["offset"] is None else array(case["offset"]) for case in cases]
    rows = {"weights": np.concatenate(weights), "offset": np.concatenate(offset)}
    y = np.concatenate([array(case["y"]) for case in cases])
    return {"X": np.concatenate(columns), "y": y, "groups": np.repeat([case["case"] for case in cases], N), **rows}


@pytest.fixture(scope="module")
def shared():
    """A design that fits share, by maximum likelihood and adjusted; the last counts vary less than Poisson's."""
    Y = np.concatenate([counts(2.0, 1.5, 5), counts(40.0, 3.0, 2), np.round(np.exp(X @ [2.0, 0.5, -0.4] + OFFSET))[None]])
    return Y, jaxglm.fit(X, Y, ML, offset=OFFSET), jaxglm.fit(X, Y, CR, offset=OFFSET)


@pytest.fixture(scope="module")
def ragged():
    """R's cases under the log link as ragged groups, by maximum likelihood and adjusted."""
    rows = stacked(LOG)
    return {"ml": jaxglm.fit(family=ML, **rows), "cr": jaxglm.fit(family=CR, **rows)}


def hold(fits, how, case, tolerance):
    """Hold a group against R's numbers."""
    fit, expected = fits[case["case"]], case[how]
    assert fit.status == Status.CONVERGED
    errors = array(expected["errors"], WIDTH)
    np.testing.assert_allclose(fit.theta, expected["theta"], rtol=tolerance)
    unit = np.maximum(np.abs(array(expected["coefficients"], WIDTH)), errors)
    np.testing.assert_allclose(fit.coefficients / unit, array(expected["coefficients"], WIDTH) / unit, rtol=0, atol=tolerance)
    np.testing.assert_allclose(fit.standard_errors, errors, rtol=tolerance)
    for name in ("log_likelihood", "aic", "deviance", "null_deviance"):
        np.testing.assert_allclose(getattr(fit, name), expected[name], rtol=tolerance, err_msg=name)
    if how == "ml":
        np.testing.assert_allclose(fit.theta_standard_error, expected["theta_error"], rtol=tolerance)


@pytest.mark.parametrize("how", ["ml", "cr"])
@pytest.mark.parametrize("case", LOG, ids=[case["case"] for case in LOG])
def test_log_link_is_glm_nb(ragged, how, case):
    hold(ragged[how], how, case, 1e-8 if how == "ml" else 1e-7)


@pytest.mark.parametrize(("link", "how"), [("sqrt", "cr"), ("identity", "ml")])
def test_other_links(link, how):
    cases = [case for case in CASES if case["link"] == link]
    family = families.NegativeBinomial(link=link, adjusted=how == "cr")
    hold(jaxglm.fit(family=family, **stacked(cases)), how, cases[0], 1e-8)


def test_underdispersed_counts_are_poisson(shared):
    Y, *fits = shared
    poisson = jaxglm.fit(X, Y[-1], "poisson", offset=OFFSET)
    for fit in fits:
        assert (fit[7].theta, fit[7].status) == (np.inf, Status.CONVERGED)
        assert np.isnan(fit[7].theta_standard_error)
        np.testing.assert_allclose(fit[7].coefficients, poisson.coefficients, rtol=1e-11)
        np.testing.assert_allclose(fit[7].log_likelihood, poisson.log_likelihood, rtol=1e-13)
        np.testing.assert_allclose(fit[7].aic, poisson.aic + 2.0, rtol=1e-13)


def test_adjusted_score_is_zero_and_the_careful_way_agrees(shared):
    """The careful way goes by fits at given thetas alone, and sees the likelihood itself."""
    Y, *fits = shared
    g = len(Y)
    for fit, adjusted in zip(fits, (False, True), strict=True):
        task = Task(Crossed(X, Y, None, np.broadcast_to(OFFSET, Y.shape), g), ML.given(theta=np.inf))
        with arithmetic():
            known = theta._carefully(task, fitting.fit(task), np.arange(g), adjusted)
        np.testing.assert_allclose(known.alpha, 1.0 / fit.theta, rtol=1e-8)
        np.testing.assert_allclose(known.coefficients, fit.coefficients, rtol=1e-8)
        _, inner = theta._orthonormal(task, fitting.fit(task), np.arange(g), theta.gather(task.source, np.arange(g)))
        finite = np.flatnonzero(np.isfinite(fit.theta))
        alpha = 1.0 / fit.theta[finite]
        here, above, below = (theta._profile(inner, finite, alpha * e, adjusted) for e in (1.0, 1.001, 0.999))
        unit = np.sqrt(-here.curvature)
        np.testing.assert_allclose(here.slope / unit, 0.0, atol=1e-8)
        quotient = (above.slope - below.slope) / (0.002 * alpha)
        np.testing.assert_allclose(quotient, here.curvature, rtol=0.02)
        rise = (above.value - here.value, below.value - here.value)
        np.testing.assert_allclose(rise, np.tile(0.5e-6 * alpha**2 * here.curvature, (2, 1)), rtol=0.05)


def test_every_shape_of_call_gives_the_same(shared):
    Y, _, fit = shared
    g = len(Y)
    own = jaxglm.fit(np.tile(X, (g, 1, 1)), Y, CR, offset=OFFSET)
    groups = np.repeat(np.arange(g), N)
    rows = jaxglm.fit(np.tile(X, (g, 1)), Y.ravel(), CR, groups=groups, offset=np.tile(OFFSET, g))
    one = jaxglm.fit(X, Y[2], CR, offset=OFFSET)
    table = {"x": X[:, 1], "f": X[:, 2], "o": OFFSET}
    many = {name: np.tile(values, g) for name, values in table.items()} | {"y": Y.ravel(), "shop": groups}
    by = jaxglm.glm("y ~ x + f", many, CR, by="shop", offset="o")
    responses = jaxglm.glm("~ x + f", table, CR, responses=Y.T, offset="o")
    for other in (own, rows, by, responses):
        np.testing.assert_allclose(other.theta, fit.theta, rtol=1e-9)
        np.testing.assert_allclose(other.theta_standard_error, fit.theta_standard_error, rtol=1e-8)
        np.testing.assert_allclose(other.coefficients, fit.coefficients, rtol=1e-9)
    np.testing.assert_allclose([one.theta, one.aic], [fit.theta[2], fit.aic[2]], rtol=1e-9)
    assert isinstance(one.theta, float)
    assert {"theta"} < set(by.glance().columns)


def test_bad_groups_change_nothing_for_others(shared):
    """Zeros throughout, a missing value, a single row; zeros in one level, which leaves the fit of the other."""
    Y, _, fit = shared
    one_level, missing = Y[:1] * X[:, 2], Y[:1] + np.where(np.arange(N) == 3, np.nan, 0.0)
    bad = np.concatenate([Y[:5], np.zeros((1, N)), missing, Y[:1], one_level, one_level])
    weights = np.ones_like(bad)
    weights[7, 1:] = 0.0
    weights[9] = X[:, 2]
    with pytest.warns(jaxglm.StatusWarning):
        found = jaxglm.fit(X, bad, CR, offset=OFFSET, weights=weights)
    np.testing.assert_allclose(found.theta[:5], fit.theta[:5], rtol=1e-11)
    np.testing.assert_allclose(found.coefficients[:5], fit.coefficients[:5], rtol=1e-11)
    labels = [Status(code).label for code in found.status[5:]]
    assert labels == ["separated", "invalid_data", "converged", "separated", "converged"]
    assert np.isnan(found.theta[[5, 6]]).all()
    assert np.isinf(found.theta[7])
    np.testing.assert_allclose(found.theta[8], found.theta[9], rtol=1e-9)
    np.testing.assert_allclose(found.log_likelihood[8], found.log_likelihood[9], rtol=1e-10)
    np.testing.assert_array_equal(found.infinite[8], [-1, 0, 1])


def test_adjusted_likelihood_without_a_maximum_is_reported():
    """One count among zeros on either side: the adjustment outweighs what a single count says."""
    x = np.array([-1.0, -1.0, 0.0, 1.0, 1.0])
    with pytest.warns(jaxglm.StatusWarning):
        fit = jaxglm.fit(np.column_stack([np.ones(5), x, [1.0, -1.0, 0.0, -1.0, 1.0]]), [0, 0, 1, 0, 0], CR)
    assert fit.status == Status.MAX_ITERATIONS
    assert np.isnan(fit.standard_errors).all()


def test_penalty_and_saving(tmp_path, shared):
    Y, _, _ = shared
    penalty = jaxglm.Ridge([0.0, 3.0, 3.0])
    fit = jaxglm.fit(X, Y[:5], ML, offset=OFFSET, penalty=penalty)
    thetas = (families.NegativeBinomial(fit.theta * e) for e in (0.999, 1.0, 1.001))
    around = [jaxglm.fit(X, Y[:5], family, offset=OFFSET, penalty=penalty) for family in thetas]
    given = around[1]
    np.testing.assert_allclose(given.coefficients, fit.coefficients, rtol=1e-10)
    objective = [f.log_likelihood - 1.5 * np.sum(f.coefficients[:, 1:] ** 2, axis=1) for f in around]
    rise = (objective[2] - objective[0]) / (objective[0] + objective[2] - 2 * objective[1])
    np.testing.assert_allclose(rise, 0.0, atol=5e-3)  # in steps of a thousandth
    fit.save(tmp_path / "fit.npz")
    again = jaxglm.load(tmp_path / "fit.npz")
    assert again.family.estimator == "maximum_likelihood"
    np.testing.assert_array_equal(again.theta_standard_error, fit.theta_standard_error)
    np.testing.assert_array_equal(again.aic, fit.aic)
    np.testing.assert_allclose(fit.aic - given.aic, 2.0)
    assert np.isnan(given.theta_standard_error).all()


def test_by_name_and_bad_requests():
    assert families.named("negative_binomial").estimator == "maximum_likelihood"
    assert families.named("negative_binomial", "sqrt", adjusted=True).estimator == "cox_reid"
    with pytest.raises(ValueError, match="leave out one"):
        families.NegativeBinomial(2.0, adjusted=True)
    with pytest.raises(ValueError, match="no parameter 'adjusted'"):
        families.named("poisson", adjusted=True)
    with pytest.raises(ValueError, match="to be estimated"):
        irls.solve(X, np.ones(N), ML)
    with pytest.raises(ValueError, match="to be estimated"):
        jaxglm.check_family(ML)


def test_models_that_have_thetas_of_their_own(ragged):
    """As MASS's `anova.negbin`: twice the difference of the log-likelihoods."""
    rows = stacked(LOG)
    small = jaxglm.fit(rows.pop("X")[:, :2], family=ML, **rows)
    found = jaxglm.anova(small, ragged["ml"])
    for k, name in enumerate(small.groups):
        case = next(case for case in LOG if case["case"] == name)
        below, above = case["smaller"]["log_likelihood"], case["ml"]["log_likelihood"]
        np.testing.assert_allclose(small[name].theta, case["smaller"]["theta"], rtol=1e-7)
        np.testing.assert_allclose(found.statistic[k, 0], 2 * (above - below), rtol=1e-6)
        np.testing.assert_allclose(found.p_value[k, 0], chi2.sf(2 * (above - below), 1), rtol=1e-6)
        np.testing.assert_allclose(found.aic[k, 0], -2 * below + 2 * (2 + 1), rtol=1e-8)
        assert found.df[k, 0] == 1


def test_what_cannot_be_compared_with_other_thetas(ragged):
    rows = stacked(LOG)
    X = rows.pop("X")
    small = jaxglm.fit(X[:, :2], family=ML, **rows)
    with pytest.raises(ValueError, match='use test="lr"'):
        jaxglm.anova(small, ragged["ml"], test="score")
    with pytest.raises(ValueError, match="estimate both by maximum likelihood"):
        jaxglm.anova(small, ragged["cr"])
    with pytest.raises(ValueError, match="estimate both by maximum likelihood"):
        jaxglm.anova(jaxglm.fit(X[:, :2], family=families.NegativeBinomial(2.0), **rows), ragged["ml"])
