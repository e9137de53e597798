"""Tweedie fits with an estimated power: the density, the profile against R, every shape of call, and bad groups."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, optimize, special, stats

import jaxglm
from jaxglm import families, links
from jaxglm.status import Status
from jaxglm.tweedie_density import saturated

pytestmark = pytest.mark.long

CASES = json.loads((Path(__file__).parent / "reference" / "power.json").read_text())["cases"]
LOG = [case for case in CASES if case["link"] == 0]
N = 60
RNG = np.random.default_rng(11)
X = np.column_stack([np.ones(N), np.round(RNG.uniform(-1, 1, N), 2), np.arange(N) % 2])
OFFSET = np.round(RNG.uniform(-0.3, 0.3, N), 2)


def draw(rng, mu, phi, power):
    """Poisson numbers of gamma variables."""
    count = rng.poisson(mu ** (2 - power) / (phi * (2 - power)))
    amounts = rng.gamma(np.maximum(count, 1) * (2 - power) / (power - 1), phi * (power - 1) * mu ** (power - 1))
    return np.where(count > 0, amounts, 0.0)


compiled = jax.jit(saturated)


def at_mean(y, phi, power):
    """log f(y; mu = y) by `jaxglm`, in float64, and its derivatives."""
    with jax.enable_x64(True):
        y, phi = np.broadcast_arrays(np.asarray(y, float), phi)
        return jax.tree.map(np.asarray, compiled(y.ravel(), 1.0 / phi.ravel(), np.float64(power)))


def log_density(y, mu, phi, power):
    """Of one response: the series as it is written, over as many terms as there can be."""
    exponent = (y * mu ** (1 - power) / (1 - power) if y > 0 else 0.0) - mu ** (2 - power) / (2 - power)
    if y == 0:
        return exponent / phi
    a = (2 - power) / (power - 1)
    log_z = a * np.log(y / (power - 1)) - (1 + a) * np.log(phi) - np.log(2 - power)
    peak = y ** (2 - power) / (phi * (2 - power))
    j = np.arange(1, int(3 * peak + 60 * np.sqrt(peak) + 300))
    terms = j * log_z - special.gammaln(j + 1.0) - special.gammaln(a * j)
    return special.logsumexp(terms) - np.log(y) + exponent / phi


@pytest.mark.parametrize("power", [1.03, 1.2, 1.7, 1.95, 1.99])
def test_density_is_the_series(power):
    """Over a million-fold range of y and of dispersions, where the written series has digits left."""
    phi, y = (values.ravel() for values in np.meshgrid([0.01, 0.3, 2.0, 30.0], [1e-4, 0.2, 1.0, 7.3, 250.0]))
    expected = [log_density(y[i], y[i], phi[i], power) for i in range(len(y))]
    largest = y ** (2 - power) / (phi * (power - 1) * (2 - power))  # of the terms that cancel in the written series
    lost = 30e-16 * largest * np.log(1e4 + y / phi)
    error = np.abs(at_mean(y, phi, power).value - expected)
    assert np.all(error <= 1e-12 * (1.0 + np.abs(expected)) + lost)


def test_density_of_power_three_halves_is_a_bessel_function():
    """There the series is sqrt(z) I1(2 sqrt(z)), z = 4 y / phi^2: a judge for terms by the million as well."""
    y, phi = np.meshgrid(np.geomspace(1e-8, 1e8, 33), np.geomspace(1e-4, 1e3, 15))
    root = 2.0 * np.sqrt(y) / phi
    with np.errstate(divide="ignore"):
        bessel = np.where(
            root < 1e6, np.log(special.ive(1, 2.0 * root)), -0.5 * np.log(4.0 * np.pi * root) - 3.0 / (16.0 * root)
        )
    expected = np.log(root) + bessel - np.log(y)  # exp(2 root) is cancelled by exp(-4 sqrt(y) / phi)
    np.testing.assert_allclose(at_mean(y, phi, 1.5).value, expected.ravel(), rtol=1e-12, atol=2e-12)


@pytest.mark.parametrize("power", [1.1, 1.5, 1.9])
def test_density_integrates_to_one(power):
    mu, phi = 1.3, 0.9
    log_y = np.linspace(-400.0, 5.0, 40_001)
    y = np.exp(log_y)
    with jax.enable_x64(True):
        deviance = families.Tweedie(power).unit_deviance_at(jnp.asarray(y), links.log.mean(jnp.log(jnp.asarray(mu))))
    density = np.exp(at_mean(y, phi, power).value - 0.5 * np.asarray(deviance) / phi)
    none = np.exp(-(mu ** (2 - power)) / (phi * (2 - power)))
    np.testing.assert_allclose(none + integrate.trapezoid(density * y, log_y), 1.0, atol=1e-8)


def test_density_towards_gamma_and_its_derivatives():
    y = np.array([0.3, 2.0, 9.0])
    np.testing.assert_allclose(at_mean(y, 0.7, 2.0).value, stats.gamma.logpdf(y, 1 / 0.7, scale=0.7 * y), rtol=1e-12)
    np.testing.assert_allclose(at_mean(y, 0.7, 1.99999).value, at_mean(y, 0.7, 2.0).value, atol=1e-4)
    for power in (1.05, 1.5, 1.9, 2.0):
        one = at_mean(y, 0.7, power)
        h = 1e-3
        near = [at_mean(y, 0.7 * np.exp(k * h), power).value for k in (-2, -1, 0, 1, 2)]
        first = (near[0] - 8 * near[1] + 8 * near[3] - near[4]) / (12 * h)
        second = (-near[0] + 16 * near[1] - 30 * near[2] + 16 * near[3] - near[4]) / (12 * h * h)
        np.testing.assert_allclose(one.first, first, rtol=1e-6, atol=1e-7)
        np.testing.assert_allclose(one.second, second, rtol=1e-5, atol=1e-6)


@pytest.fixture(scope="module")
def ragged():
    """R's cases under the log link, as ragged groups."""
    rows = {name: np.concatenate([np.array(case[name], float) for case in LOG]) for name in ("X", "y", "weights", "offset")}
    groups = np.repeat([case["case"] for case in LOG], [len(case["y"]) for case in LOG])
    return jaxglm.fit(rows["X"], rows["y"], "tweedie", weights=rows["weights"], offset=rows["offset"], groups=groups)


def hold(fit, case):
    """Hold a fit against R's profile."""
    assert fit.status == Status.CONVERGED
    np.testing.assert_allclose(fit.power, case["power"], atol=2e-7)
    np.testing.assert_allclose(fit.power_standard_error, case["power_error"], rtol=1e-4)
    np.testing.assert_allclose(fit.log_likelihood, case["value"], rtol=1e-9)
    np.testing.assert_allclose(fit.coefficients, case["coefficients"], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(fit.aic, -2 * case["value"] + 2 * (3 + 2), rtol=1e-9)


@pytest.mark.parametrize("case", LOG, ids=[case["case"] for case in LOG])
def test_log_link_is_the_profile_of_r(ragged, case):
    hold(ragged[case["case"]], case)


def test_identity_link():
    (case,) = [case for case in CASES if case["link"] == 1]
    hold(jaxglm.fit(case["X"], case["y"], families.Tweedie(link="identity"), weights=case["weights"]), case)


@pytest.fixture(scope="module")
def shared():
    """A design that fits share, powers from 1.2 to 1.8."""
    rng = np.random.default_rng(4)
    mu = np.exp(X @ [0.7, 0.5, -0.3] + OFFSET)
    Y = np.stack([draw(rng, mu, 1.4, power) for power in (1.2, 1.4, 1.5, 1.65, 1.8)])
    return Y, jaxglm.fit(X, Y, "tweedie", offset=OFFSET)


def test_brute_force_agrees(shared):
    """All parameters at once by a simplex, on the series as it is written."""
    Y, fits = shared
    for y, fit in zip(Y[[0, 3]], [fits[0], fits[3]], strict=True):

        def loss(at, y=y):
            mu = np.exp(X @ at[:3] + OFFSET)
            power = 1.0 + special.expit(at[4])
            return -sum(log_density(y[i], mu[i], np.exp(at[3]), power) for i in range(N))

        start = [*fit.coefficients + 0.02, np.log(fit.dispersion), special.logit(fit.power - 1.0) + 0.1]
        found = optimize.minimize(loss, start, method="Nelder-Mead", options={"xatol": 1e-6, "fatol": 1e-9, "maxiter": 4000})
        np.testing.assert_allclose(fit.log_likelihood, -found.fun, atol=1e-6)
        assert fit.log_likelihood >= -found.fun - 1e-8
        np.testing.assert_allclose(fit.power, 1.0 + special.expit(found.x[4]), atol=2e-4)
        np.testing.assert_allclose(fit.coefficients, found.x[:3], atol=2e-3)


def test_it_is_the_fit_of_that_power(shared):
    """Everything but the likelihood is as if the power had been given."""
    Y, fits = shared
    same = jaxglm.fit(X, Y, families.Tweedie(fits.power), offset=OFFSET)
    for name in ("coefficients", "standard_errors", "deviance", "null_deviance", "dispersion"):
        np.testing.assert_allclose(getattr(fits, name), getattr(same, name), rtol=1e-10, err_msg=name)
    np.testing.assert_array_equal(same.power, fits.power)
    assert np.isnan([*same.log_likelihood, *same.power_standard_error, *fits.theta, *fits.theta_standard_error]).all()
    np.testing.assert_array_equal(fits.n_parameters, same.n_parameters + 2)


def test_every_shape_of_call_gives_the_same(shared, tmp_path):
    Y, fits = shared
    g = len(Y)
    own = jaxglm.fit(np.tile(X, (g, 1, 1)), Y, "tweedie", offset=OFFSET)
    rows = jaxglm.fit(np.tile(X, (g, 1)), Y.ravel(), "tweedie", groups=np.repeat(np.arange(g), N), offset=np.tile(OFFSET, g))
    one = jaxglm.fit(X, Y[2], "tweedie", offset=OFFSET)
    table = {"x": np.tile(X[:, 1], g), "f": np.tile(X[:, 2], g), "o": np.tile(OFFSET, g), "y": Y.ravel()}
    by = jaxglm.glm("y ~ x + f", {**table, "shop": np.repeat(np.arange(g), N)}, "tweedie", by="shop", offset="o")
    for other in (own, rows, by):
        for name in ("power", "power_standard_error", "coefficients", "log_likelihood", "bic"):
            np.testing.assert_allclose(getattr(other, name), getattr(fits, name), rtol=1e-6, err_msg=name)
    np.testing.assert_allclose([one.power, one.aic], [fits.power[2], fits.aic[2]], rtol=1e-7)
    assert isinstance(one.power, float)
    np.testing.assert_array_equal(by.glance()["power"], by.power)
    fits.save(tmp_path / "fits.npz")
    again = jaxglm.load(tmp_path / "fits.npz")
    assert again.family.estimator == "profile_likelihood"
    for name in ("power", "power_standard_error", "aic"):
        np.testing.assert_array_equal(getattr(again, name), getattr(fits, name))


def test_bad_groups_change_nothing_for_others(shared):
    """Zeros throughout; no variation; as many coefficients as rows; a missing value; zeros in one level, the other left."""
    Y, fits = shared
    level = X[:, 2] == 1
    some, missing = np.where(level, Y[1], 0.0), np.where(np.arange(N) == 4, np.nan, Y[1])
    bad = np.stack([*Y, np.zeros(N), np.exp(X @ [0.7, 0.5, -0.3] + OFFSET), Y[1] + 0.1, missing, some, some])
    weights = np.ones_like(bad)
    weights[7, 3:] = 0.0
    weights[10] = level
    with pytest.warns(jaxglm.StatusWarning):
        found = jaxglm.fit(X, bad, "tweedie", offset=OFFSET, weights=weights)
    np.testing.assert_allclose(found.power[:5], fits.power, rtol=1e-8)
    np.testing.assert_allclose(found.coefficients[:5], fits.coefficients, rtol=1e-8)
    labels = [Status(code).label for code in found.status[5:]]
    assert labels == ["separated", "converged", "converged", "invalid_data", "separated", "converged"]
    assert np.isnan(found.power[5:9]).all()
    assert np.isnan(found.log_likelihood[5:9]).all()
    np.testing.assert_allclose(found.coefficients[6], [0.7, 0.5, -0.3], rtol=1e-9)  # fitted exactly, at any power
    np.testing.assert_allclose(found.power[9], found.power[10], rtol=1e-6)
    np.testing.assert_allclose(found.log_likelihood[9], found.log_likelihood[10], rtol=1e-9)
    np.testing.assert_array_equal(found.infinite[9], [-1, 0, 1])


def test_ends():
    """Responses of variance mu^3 end at gamma, with its likelihood at the best shape; counts at quasi-Poisson, without one."""
    rng, rows = np.random.default_rng(3), np.tile(X, (4, 1))
    mu = np.exp(rows @ [1.0, 0.4, -0.3])
    Y = np.stack([rng.wald(mu, 4.0), rng.poisson(mu)])
    fits = jaxglm.fit(rows, Y, "tweedie")
    np.testing.assert_array_equal(fits.power, [2.0, 1.0])
    assert np.isnan(fits.power_standard_error).all()
    gamma = jaxglm.fit(rows, Y[0], families.Gamma("log"))
    poisson = jaxglm.fit(rows, Y[1], families.QuasiPoisson())
    np.testing.assert_allclose(fits.coefficients, [gamma.coefficients, poisson.coefficients], rtol=1e-8)
    best = optimize.minimize_scalar(
        lambda shape: -np.sum(stats.gamma.logpdf(Y[0], shape, scale=gamma.fitted / shape)), bounds=(1, 20), method="bounded"
    )
    np.testing.assert_allclose(fits.log_likelihood[0], -best.fun, rtol=1e-9)
    assert np.isnan(fits.log_likelihood[1])


def test_by_name_and_bad_requests(shared):
    Y, _ = shared
    assert families.named("tweedie").estimator == "profile_likelihood"
    assert families.named("tweedie", power=1.5).estimator is None
    with pytest.raises(ValueError, match="without penalty= and bias_reduction="):
        jaxglm.fit(X, Y, "tweedie", penalty=jaxglm.Ridge(1.0))
    with pytest.raises(ValueError, match="without penalty= and bias_reduction="):
        jaxglm.fit(X, Y, "tweedie", bias_reduction="mean")
    with pytest.raises(ValueError, match="to be estimated"):
        jaxglm.irls.solve(X, Y[0], families.Tweedie())
