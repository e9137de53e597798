"""The core for one fit: every case of the table, and then everything that is not ordinary."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import BY_NAME, SOLVED, N, P, simulate

from jaxglm import families, irls
from jaxglm.irls import IRLS
from jaxglm.penalty import Ridge
from jaxglm.status import Status

CHOLESKY, ORTHOGONAL = IRLS(factorization="cholesky"), IRLS(factorization="orthogonal")
ONE_EACH = ("gaussian-inverse", "binomial-probit", "negative_binomial-log")


def fit(case, data, options=CHOLESKY, **changes):
    """Fit a case without its offset, so that all fits of a case share one compiled program."""
    arguments = {"X": data.X, "y": data.y, "weights": data.weights, **changes}
    return irls.solve(arguments.pop("X"), arguments.pop("y"), case.family, options=options, **arguments)


def errors_of(solution):
    return np.sqrt(np.diag(np.asarray(solution.covariance)))


def assert_same(one, other, shift=0.0, scale=1.0, tolerance=1e-8):
    """The same estimates, up to a fraction of their standard errors."""
    difference = np.asarray(one.coefficients) - np.asarray(other.coefficients) * scale - shift
    assert np.abs(difference / errors_of(one)).max() <= tolerance
    np.testing.assert_allclose(one.deviance, other.deviance, rtol=1e-9)


def expected_quantities(case, data, b):
    """eta, mean and the rows of score and information at b, from the family alone."""
    family = case.family
    mean = family.link.mean(jnp.asarray(data.X @ np.asarray(b)))
    y, w = jnp.asarray(data.y), data.weights
    score = np.asarray(family.score_at(y, mean)) * w
    weight = np.asarray(family.weight_at(mean)) * w
    deviance = float(np.sum(w * np.asarray(family.unit_deviance_at(y, mean))))
    pearson = float(np.sum(w * (data.y - np.asarray(mean.mu)) ** 2 / np.asarray(family.variance_at(mean.mu))))
    return data.X.T @ score, data.X.T @ (weight[:, None] * data.X), deviance, pearson


@pytest.mark.parametrize("case", SOLVED, ids=str)
def test_case_is_solved_to_its_optimum(x64, case):
    data = simulate(case)
    found = fit(case, data)
    assert int(found.status) == Status.CONVERGED
    score, information, deviance, pearson = expected_quantities(case, data, found.coefficients)
    dispersion = case.family.dispersion or pearson / (N - P)
    inverse = np.linalg.inv(information)
    assert np.sqrt(score @ inverse @ score / dispersion) <= 1e-9
    np.testing.assert_allclose(found.covariance, inverse * dispersion, rtol=1e-8, atol=1e-13)
    np.testing.assert_allclose([found.deviance, found.dispersion], [deviance, dispersion], rtol=1e-11)
    assert np.abs((np.asarray(found.coefficients) - data.coefficients) / errors_of(found)).max() < 6.0
    assert (int(found.rank), int(found.n_obs), bool(found.spans_constant)) == (P, N, True)
    assert not np.asarray(found.infinite).any()
    assert not np.asarray(found.direction).any()
    assert float(found.null_deviance) >= float(found.deviance)
    assert np.isnan(float(found.log_likelihood)) == (case.family.log_likelihood is None)


@pytest.mark.parametrize("case", SOLVED, ids=str)
def test_weights_repeat_rows_and_weight_zero_removes_them(x64, case):
    data = simulate(case, seed=1)
    rows = np.r_[np.arange(32), np.arange(16)]
    twice = fit(case, data, X=data.X[rows], y=data.y[rows], weights=data.weights[rows])
    assert int(twice.status) == Status.CONVERGED
    weights = np.where(np.arange(N) < 16, 2.0, 1.0) * data.weights
    weights[32:] = 0.0
    absent = fit(case, data, weights=weights)
    assert_same(twice, absent)
    assert int(absent.n_obs) == 32
    if case.family.dispersion is not None:
        np.testing.assert_allclose(twice.covariance, absent.covariance, rtol=1e-8, atol=1e-13)
    X, y = data.X.copy(), data.y.copy()
    X[32:37], X[40, 1] = np.nan, np.inf
    y[36:44], y[44:] = np.nan, -np.inf
    garbage = fit(case, data, X=X, y=y, weights=weights)
    for one, other in zip(jax.tree.leaves(absent), jax.tree.leaves(garbage), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("case", SOLVED, ids=str)
def test_scales_of_columns_do_not_matter(x64, case):
    data = simulate(case)
    units = np.array([1.0, 1e8, 1e-8])
    assert_same(fit(case, data), fit(case, data, X=data.X * units), scale=units)


@pytest.mark.parametrize("name", ONE_EACH)
def test_factorizations_agree(x64, name):
    case = BY_NAME[name]
    data = simulate(case)
    fast, accurate = fit(case, data), fit(case, data, ORTHOGONAL)
    assert_same(fast, accurate)
    np.testing.assert_allclose(fast.covariance, accurate.covariance, rtol=1e-8, atol=1e-13)
    np.testing.assert_allclose(fast.log_likelihood, accurate.log_likelihood, rtol=1e-10)


def test_offsets_starts_and_expected_information(x64):
    case = BY_NAME["poisson-sqrt"]
    data = simulate(case)
    plain = fit(case, data)
    shift = np.array([0.1, 0.02, -0.03])
    offset = fit(case, data, offset=data.X @ shift)
    assert_same(plain, offset, shift=shift)
    np.testing.assert_allclose(plain.covariance, offset.covariance, rtol=1e-8)
    assert_same(plain, fit(case, data, start=1.3 * data.coefficients))
    assert_same(plain, fit(case, data, IRLS(factorization="cholesky", information="expected")))


def test_agreement_with_statsmodels(x64):
    sm = pytest.importorskip("statsmodels.api")
    f, l = sm.families, sm.families.links
    theirs = {
        "gaussian-inverse": f.Gaussian(l.InversePower()),
        "binomial-logit": f.Binomial(),
        "binomial-cloglog": f.Binomial(l.CLogLog()),
        "poisson-sqrt": f.Poisson(l.Sqrt()),
        "gamma-inverse": f.Gamma(),
        "inverse_gaussian-inverse_squared": f.InverseGaussian(),
        "negative_binomial-log": f.NegativeBinomial(alpha=0.5),
        "tweedie-log": f.Tweedie(var_power=1.5),
    }
    for name, family in theirs.items():
        case = BY_NAME[name]
        data = simulate(case)
        ours = fit(case, data)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = sm.GLM(data.y, data.X, family, var_weights=data.weights).fit(tol=1e-14, maxiter=300)
        np.testing.assert_allclose(ours.coefficients, model.params, rtol=1e-6)
        np.testing.assert_allclose(errors_of(ours), model.bse, rtol=1e-6)
        np.testing.assert_allclose(ours.deviance, model.deviance, rtol=1e-9)
        np.testing.assert_allclose(ours.null_deviance, model.null_deviance, rtol=1e-7)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", ["poisson-identity", "gamma-inverse", "binomial-log", "gaussian-inverse"])
def test_hard_data_still_reach_an_optimum_or_say_so(x64, name, seed):
    """Steep effects, at which full steps leave the domain."""
    case = BY_NAME[name]
    data = simulate(case, seed=10 + seed)
    steep = {
        "poisson-identity": lambda x, u: np.floor(8.0 * (x + 1.0) + 2.0 * u),
        "gamma-inverse": lambda x, u: (0.2 + u) / (0.05 + (x + 1.0) ** 2),
        "binomial-log": lambda x, u: np.clip(np.round(6 * np.exp(1.4 * (x - 1.0)) * (0.5 + u)) / 6, 0.0, 1.0),
        "gaussian-inverse": lambda x, u: 0.2 * (u - 0.5) + 1.0 / (0.05 + x + 1.0),
    }[name]
    found = fit(case, data, y=steep(data.X[:, 1], np.random.default_rng(seed).uniform(size=N)))
    assert int(found.status) in (Status.CONVERGED, Status.STEP_FAILED, Status.MAX_ITERATIONS)
    if int(found.status) == Status.CONVERGED:
        y = steep(data.X[:, 1], np.random.default_rng(seed).uniform(size=N))
        score, information, _, pearson = expected_quantities(case, data._replace(y=y), found.coefficients)
        dispersion = case.family.dispersion or pearson / (N - P)
        assert np.sqrt(score @ np.linalg.inv(information) @ score / dispersion) <= 1e-8


def test_max_iterations(x64):
    case = BY_NAME["poisson-log"]
    found = fit(case, simulate(case), IRLS(factorization="cholesky", max_iterations=2))
    assert int(found.status) == Status.MAX_ITERATIONS
    assert int(found.n_iterations) == 2
    assert np.isfinite(found.coefficients).all()
    assert np.isfinite(float(found.deviance))
    assert np.isnan(found.covariance).all()


def test_ridge_on_gaussian_is_least_squares_with_more_rows(x64):
    case = BY_NAME["gaussian-identity"]
    data = simulate(case)
    strength = np.array([0.0, 2.0, 30.0])
    root = np.sqrt(data.weights)
    rows = np.vstack([data.X * root[:, None], np.diag(np.sqrt(strength))])
    expected = np.linalg.lstsq(rows, np.r_[data.y * root, np.zeros(P)], rcond=None)[0]
    for options in (CHOLESKY, ORTHOGONAL):
        found = fit(case, data, options, penalty=Ridge(strength))
        np.testing.assert_allclose(found.coefficients, expected, rtol=1e-11)
        inverse = np.linalg.inv(rows.T @ rows)
        np.testing.assert_allclose(found.covariance, inverse * float(found.dispersion), rtol=1e-10)
        assert bool(found.spans_constant)


def test_step_by_step(x64):
    case = BY_NAME["gamma-inverse"]
    data = simulate(case)
    offset, penalty = 0.01 * data.X[:, 1], Ridge(0.3)
    solved = fit(case, data, offset=offset, penalty=penalty)
    step = jax.jit(lambda b: irls.step(data.X, data.y, case.family, b, weights=data.weights, offset=offset, penalty=penalty))
    now = step(None)
    for _ in range(12):
        before, now = now, step(now.coefficients)
    np.testing.assert_allclose(now.coefficients, solved.coefficients, rtol=1e-9)
    np.testing.assert_allclose(now.deviance, solved.deviance, rtol=1e-12)
    scale = np.sqrt(np.diag(now.information))
    assert np.abs(np.asarray(now.score) / scale).max() < 1e-9
    np.testing.assert_allclose(np.asarray(before.coefficients) + np.asarray(now.increment), now.coefficients, rtol=1e-14)
    information = data.X.T @ (np.asarray(now.working_weights)[:, None] * data.X) + 0.3 * np.eye(P)
    np.testing.assert_allclose(now.information, information, rtol=1e-12)
    mean = case.family.link.mean(now.eta)
    np.testing.assert_allclose(now.mu, mean.mu, rtol=1e-15)
    z = np.asarray(now.eta) - offset + (data.y - np.asarray(now.mu)) / np.asarray(mean.dmu_deta)
    np.testing.assert_allclose(now.working_response, z, rtol=1e-13)
    again = np.linalg.solve(information, data.X.T @ (np.asarray(now.working_weights) * z))
    np.testing.assert_allclose(now.coefficients, again, rtol=1e-10)


def test_float32_in_float32_out():
    case = BY_NAME["poisson-log"]
    data = simulate(case)
    single = [np.asarray(a, np.float32) for a in (data.X, data.y, data.weights)]
    found = irls.solve(*single[:2], case.family, weights=single[2], options=CHOLESKY)
    assert int(found.status) == Status.CONVERGED
    assert {leaf.dtype for leaf in jax.tree.leaves(found) if jnp.issubdtype(leaf.dtype, jnp.floating)} == {np.dtype("float32")}
    with jax.enable_x64(True):
        exact = fit(case, data)
        again = irls.solve(jnp.asarray(single[0]), single[1], case.family, weights=single[2], options=CHOLESKY)
    assert again.coefficients.dtype == jnp.float32
    assert np.abs((np.asarray(found.coefficients) - np.asarray(exact.coefficients)) / errors_of(exact)).max() < 1e-3
    np.testing.assert_allclose(errors_of(found), errors_of(exact), rtol=1e-4)
    np.testing.assert_allclose(found.deviance, exact.deviance, rtol=1e-5)


@pytest.mark.parametrize(
    "bad",
    [
        {"tol": 0.0},
        {"tol": 1.0},
        {"max_iterations": 0},
        {"max_halvings": -1},
        {"factorization": "qr"},
        {"information": "fisher"},
    ],
)
def test_options_are_checked(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        IRLS(**bad)


@pytest.mark.parametrize("door", [irls.solve, irls.step])
def test_shapes_are_checked(door):
    X, y, family = np.ones((5, 2)), np.ones(5), families.Poisson()
    for bad in (np.ones(5), np.ones((2, 5, 2)), np.ones((5, 0))):
        with pytest.raises(ValueError, match="X must have shape"):
            door(bad, y, family)
    with pytest.raises(ValueError, match=r"y must have shape \(5,\)"):
        door(X, np.ones(4), family)
    with pytest.raises(ValueError, match="weights must have shape"):
        door(X, y, family, weights=np.ones((5, 1)))
    with pytest.raises(ValueError, match="offset must have shape"):
        door(X, y, family, offset=1.0)


@pytest.mark.parametrize("door", [irls.solve, irls.step])
def test_shape_of_the_penalty_is_checked(door):
    with pytest.raises(ValueError, match="strength must have shape"):
        door(np.ones((5, 2)), np.ones(5), families.Poisson(), penalty=Ridge(np.ones(3)))


def test_shapes_of_coefficients_are_checked():
    X, y, family = np.ones((5, 2)), np.ones(5), families.Poisson()
    with pytest.raises(ValueError, match="start must have shape"):
        irls.solve(X, y, family, start=np.zeros(3))
    with pytest.raises(ValueError, match="coefficients must have shape"):
        irls.step(X, y, family, np.zeros(3))


# What is not ordinary: twelve rows and three columns throughout, so that each family is compiled once.

X12 = np.column_stack([np.ones(12), np.linspace(-1.0, 1.0, 12), np.tile([0.0, 0.0, 1.0], 4)])
MIXED = np.array([0, 1, 0, 1, 0, 0, 1, 1, 0, 1, 1, 0.0])
COUNTS = np.array([2, 0, 3, 1, 4, 2, 0, 6, 3, 5, 2, 7.0])
BINOMIAL, POISSON, GAUSSIAN = families.Binomial(), families.Poisson(), families.Gaussian()


def solve12(family, y, X=X12, weights=None, **arguments):
    return irls.solve(X, y, family, weights=np.ones(12) if weights is None else weights, **arguments)


def assert_nothing(found, status):
    assert int(found.status) == status
    for name in ("coefficients", "covariance", "deviance", "null_deviance", "log_likelihood", "dispersion"):
        assert np.isnan(getattr(found, name)).all()
    assert int(found.rank) == 0


def test_complete_separation(x64):
    y = (X12[:, 1] > 0.1).astype(float)
    found = solve12(BINOMIAL, y)
    assert int(found.status) == Status.SEPARATED
    assert int(found.infinite[1]) == 1
    towards = (2 * y - 1) * (X12 @ np.asarray(found.direction))
    assert towards.min() >= -1e-8 * towards.max()
    assert towards.max() > 0
    assert np.isfinite(found.coefficients).all()
    assert np.isnan(np.diag(found.covariance)[np.asarray(found.infinite) != 0]).all()
    assert np.isfinite(float(found.deviance))


@pytest.mark.parametrize(("family", "y", "sign"), [(BINOMIAL, MIXED, 1), (BINOMIAL, MIXED, -1), (POISSON, COUNTS, -1)])
def test_quasi_complete_separation(x64, family, y, sign):
    y = np.where(X12[:, 2] == 1, float(sign > 0), y)
    found = solve12(family, y)
    assert int(found.status) == Status.SEPARATED
    np.testing.assert_array_equal(found.infinite, [0, 0, sign])
    assert np.sign(float(found.coefficients[2])) == sign
    direction = np.asarray(found.direction) / np.abs(found.direction).max()
    np.testing.assert_allclose(direction, [0, 0, sign], atol=1e-8)
    assert int(found.rank) == 3
    assert np.isnan(float(found.covariance[2, 2]))


def test_ridge_makes_separated_data_finite(x64):
    y = (X12[:, 1] > 0.1).astype(float)
    found = solve12(BINOMIAL, y, penalty=Ridge(np.array([0.1, 0.1, 0.1])), options=CHOLESKY)
    assert int(found.status) == Status.CONVERGED
    b = np.asarray(found.coefficients)
    np.testing.assert_allclose(X12.T @ (y - 1 / (1 + np.exp(-X12 @ b))), 0.1 * b, rtol=1e-8, atol=1e-12)
    free = solve12(BINOMIAL, y, penalty=Ridge(np.array([0.1, 0.0, 0.1])), options=CHOLESKY)
    assert int(free.status) == Status.SEPARATED or np.isfinite(free.coefficients).all()


def with_entry(array, index, value):
    changed = array.astype(float).copy()
    changed[index] = value
    return changed


INVALID = {
    "NaN in X": {"X": with_entry(X12, (3, 1), np.nan)},
    "infinity in X": {"X": with_entry(X12, (0, 2), np.inf)},
    "NaN in y": {"y": with_entry(MIXED, 5, np.nan)},
    "y above one": {"y": with_entry(MIXED, 5, 1.5)},
    "y below zero": {"y": with_entry(MIXED, 5, -0.1)},
    "NaN in weights": {"weights": with_entry(np.ones(12), 2, np.nan)},
    "infinite weight": {"weights": with_entry(np.ones(12), 2, np.inf)},
    "negative weight": {"weights": with_entry(np.ones(12), 2, -1.0)},
}


@pytest.mark.parametrize("what", INVALID)
def test_invalid_data(x64, what):
    assert_nothing(solve12(BINOMIAL, **{"y": MIXED, **INVALID[what]}), Status.INVALID_DATA)


def test_no_data(x64):
    assert_nothing(solve12(BINOMIAL, MIXED, weights=np.zeros(12)), Status.NO_DATA)
    assert_nothing(solve12(BINOMIAL, MIXED * np.nan, weights=np.zeros(12)), Status.NO_DATA)
    assert_nothing(solve12(BINOMIAL, MIXED, weights=with_entry(np.zeros(12), 0, -1.0)), Status.INVALID_DATA)


@pytest.mark.parametrize(
    ("third", "aliased"),
    [(lambda x: 2 * x - 3, [0, 0, 1]), (lambda x: x + 1e-12 * x**2, [0, 0, 1]), (lambda x: 0 * x, [0, 0, 1])],
)
@pytest.mark.parametrize(("family", "y"), [(BINOMIAL, MIXED), (POISSON, COUNTS), (GAUSSIAN, COUNTS)])
def test_aliased_columns(x64, family, y, third, aliased):
    x = X12[:, 1]
    found = solve12(family, y, X=np.column_stack([np.ones(12), x, third(x)]))
    assert int(found.status) == Status.CONVERGED
    np.testing.assert_array_equal(np.isnan(found.coefficients), np.array(aliased, bool))
    np.testing.assert_array_equal(np.isnan(np.diag(found.covariance)), np.array(aliased, bool))
    assert int(found.rank) == 2
    # In another order, the column that comes later is the one that is aliased.
    other = solve12(family, y, X=np.column_stack([third(x), np.ones(12), x]))
    assert int(other.rank) == 2
    np.testing.assert_allclose(other.deviance, found.deviance, rtol=1e-10)
    np.testing.assert_array_equal(np.isnan(other.coefficients), [not third(x).any(), False, bool(third(x).any())])


def test_nearly_dependent_columns_are_kept(x64):
    x = X12[:, 1]
    found = solve12(GAUSSIAN, COUNTS, X=np.column_stack([np.ones(12), x, x + 1e-9 * x**2]))
    assert int(found.rank) == 3
    expected = np.linalg.lstsq(np.column_stack([np.ones(12), x, x**2]), COUNTS, rcond=None)
    np.testing.assert_allclose(found.deviance, expected[1][0], rtol=1e-6)


def test_as_many_coefficients_as_rows_or_more(x64):
    weights = np.zeros(12)
    weights[[0, 4, 8]] = 1.0
    exact = solve12(GAUSSIAN, COUNTS, weights=weights)
    assert (int(exact.status), int(exact.rank), int(exact.n_obs)) == (Status.CONVERGED, 3, 3)
    assert float(exact.deviance) < 1e-20
    assert np.isnan(float(exact.dispersion))
    weights[[4, 8]] = 0.0
    one = solve12(GAUSSIAN, COUNTS, weights=weights)
    assert (int(one.status), int(one.rank), int(one.n_obs)) == (Status.CONVERGED, 1, 1)
    np.testing.assert_allclose(one.coefficients, [COUNTS[0], np.nan, np.nan])
    short = irls.solve(X12[:1], COUNTS[:1], POISSON)
    assert (int(short.status), int(short.rank)) == (Status.CONVERGED, 1)
    np.testing.assert_allclose(short.coefficients, [np.log(COUNTS[0]), np.nan, np.nan], rtol=1e-12)
