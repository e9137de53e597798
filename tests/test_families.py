"""Families: every one against automatic differentiation, their likelihoods against scipy, their deviances at the ends."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import every_family, own_family, softplus
from scipy import stats

from jaxglm import families, links
from jaxglm.check import check_family
from jaxglm.deviances import relative_entropy


def name(family):
    return "-".join(
        [family.name, family.link.name, *(f"{v:g}" for v in (*family.parameters.values(), *family.link.parameters.values()))]
    )


@pytest.mark.parametrize("family", every_family(), ids=name)
def test_family_agrees_with_autodiff(family):
    report = check_family(family)
    assert report, str(report)


WRONG = {
    "score": (
        replace(families.Poisson(), score=lambda y, mean: 0.5 * (y - mean.mu) * mean.dlog_mu),
        {"score: derivative of deviance", "score: (y - mu) dmu/deta / V", "score: derivative of log-likelihood"},
    ),
    "variance": (
        replace(own_family, variance=lambda mu: mu),
        {"variance: curvature of deviance", "score: derivative of deviance"},
    ),
    "sign of the variance": (replace(families.Poisson(), variance=lambda mu: -mu), {"variance: positive"}),
    "deviance": (
        replace(families.Gamma("log"), unit_deviance=lambda y, mean: (y - mean.mu) ** 2 / mean.mu),
        {"variance: curvature of deviance", "score: derivative of deviance"},
    ),
    "constant of the deviance": (
        replace(families.Gaussian(), unit_deviance=lambda y, mean: (y - mean.mu) ** 2 - 0.1),
        {"deviance: zero at the mean", "deviance: not negative"},
    ),
    "deviance at zero counts": (
        replace(families.Poisson(), unit_deviance=lambda y, mean: 2.0 * (y * (jnp.log(y) - mean.log_mu) - y + mean.mu)),
        {"deviance: finite", "deviance: finite towards 0"},
    ),
    "weight": (
        replace(families.Binomial(), weight=lambda mean: mean.mu),
        {"weight: (dmu/deta)^2 / V", "weight: observed where canonical"},
    ),
    "likelihood": (
        replace(families.Poisson(), log_likelihood=lambda y, mean, weights, phi: y * mean.log_mu - mean.mu),
        {"score: derivative of log-likelihood"},
    ),
    "start": (replace(families.Poisson(), start=None), {"start: a valid mean"}),
    "canonical": (replace(families.Poisson("sqrt"), canonical="sqrt"), {"weight: observed where canonical"}),
    "inverse": (families.Poisson(replace(softplus, inverse=jnp.exp)), {"link: inverse undoes forward"}),
    "slope": (
        families.Gaussian(replace(links.log, name="mine", exact=lambda eta: {"mu": jnp.exp(eta), "dmu_deta": eta})),
        {"link: derivative of inverse", "link: monotone"},
    ),
    "forms of the mean": (
        families.Binomial(replace(links.logit, name="mine", exact=lambda eta: {"complement": jnp.exp(-eta)})),
        {"link: forms of the mean"},
    ),
    "infinite": (families.Poisson(replace(links.sqrt, name="mine", infinite_at=(0.0,))), {"link: infinite where it says so"}),
    "float32": (
        replace(families.Binomial(), score=lambda y, mean: (y - mean.mu) * (mean.dmu_deta / (mean.mu * (1.0 - mean.mu)))),
        {"float32: score"},
    ),
}


@pytest.mark.parametrize("slip", WRONG)
def test_wrong_families_are_caught(slip):
    family, expected = WRONG[slip]
    report = check_family(family)
    assert not report
    assert expected <= set(report.failures), str(report)


def test_report_shows_where():
    report = check_family(replace(families.Poisson(), variance=lambda mu: 2.0 * mu))
    check = report["weight: (dmu/deta)^2 / V"]
    assert not check.passed
    assert check.error == pytest.approx(1.0)
    assert check.where.found == pytest.approx(2.0 * check.where.expected)
    assert check.where.eta is not None
    lines = str(report).splitlines()
    assert "checks FAILED" in lines[0]
    assert len({line.index("ok" if " ok " in line else "FAILED") for line in lines[2:]}) == 1
    assert "should be" in next(line for line in lines if line.strip().startswith("weight: (dmu"))
    assert repr(report) == str(report)
    good = check_family(families.Poisson())
    assert good.failures == ()
    assert "FAILED" not in str(good)


def test_check_family_takes_values_and_arrays_of_shapes(x64):
    assert check_family(families.NegativeBinomial(jnp.asarray([2.0, 5.0])))
    assert check_family(families.Binomial(), responses=[0.0, 0.5], eta=[-3.0, 0.2])
    with pytest.raises(TypeError, match="check_family takes a value"):
        check_family("poisson")
    with pytest.raises(TypeError, match="column 'theta'"):
        check_family(families.NegativeBinomial("theta"))
    with pytest.raises(ValueError, match="no response"):
        check_family(families.Binomial(), responses=[2.0])
    with pytest.raises(ValueError, match="no eta"):
        check_family(families.Poisson("identity"), eta=[-1.0])


def test_check_family_leaves_the_configuration_alone():
    before = jax.config.read("jax_enable_x64")
    check_family(families.Poisson())
    assert jax.config.read("jax_enable_x64") == before
    assert jnp.asarray(1.5).dtype == (jnp.float64 if before else jnp.float32)


def log_likelihood(family, y, mu, weights, dispersion=1.0):
    arrays = [jnp.asarray(np.broadcast_to(v, np.shape(y)), jnp.float64) for v in (y, mu, weights)]
    return np.asarray(family.log_likelihood_at(arrays[0], links.identity.mean(arrays[1]), arrays[2], dispersion))


def test_likelihoods_have_their_constants(x64):
    counts, mu = np.array([0.0, 1.0, 4.0, 60.0]), np.array([0.3, 1.5, 3.0, 70.0])
    positive, w = np.array([0.2, 1.0, 4.5, 60.0]), np.array([1.0, 2.0, 3.0, 0.5])
    trials, successes, p = np.array([1.0, 5.0, 10.0, 40.0]), np.array([1.0, 0.0, 4.0, 40.0]), np.array([0.3, 0.1, 0.5, 0.97])
    found_and_expected = [
        (log_likelihood(families.Gaussian(), positive, mu, w, 2.5), stats.norm.logpdf(positive, mu, np.sqrt(2.5 / w))),
        (log_likelihood(families.Binomial(), successes / trials, p, trials), stats.binom.logpmf(successes, trials, p)),
        (log_likelihood(families.Poisson(), counts, mu, w), w * stats.poisson.logpmf(counts, mu)),
        (log_likelihood(families.Gamma(), positive, mu, w, 0.4), w * stats.gamma.logpdf(positive, 2.5, scale=0.4 * mu)),
        (
            log_likelihood(families.InverseGaussian(), positive, mu, w, 0.4),
            w * stats.invgauss.logpdf(positive, 0.4 * mu, scale=2.5),
        ),
        (
            log_likelihood(families.NegativeBinomial(2.0), counts, mu, w),
            w * stats.nbinom.logpmf(counts, 2.0, 2.0 / (2.0 + mu)),
        ),
        (
            log_likelihood(families.NegativeBinomial(50.0), counts, mu, w),
            w * stats.nbinom.logpmf(counts, 50.0, 50.0 / (50.0 + mu)),
        ),
    ]
    for found, expected in found_and_expected:
        np.testing.assert_allclose(found, expected, rtol=2e-12, atol=1e-13)


def test_negative_binomial_nears_poisson(x64):
    y, mu = np.array([0.0, 3.0, 17.0]), np.array([0.5, 3.5, 12.0])
    poisson = log_likelihood(families.Poisson(), y, mu, 1.0)
    np.testing.assert_array_equal(log_likelihood(families.NegativeBinomial(np.inf), y, mu, 1.0), poisson)
    # log f = Poisson's + ((y - mu)^2 - y) / (2 theta) + O(1 / theta^2)
    near = log_likelihood(families.NegativeBinomial(1e9), y, mu, 1.0)
    np.testing.assert_allclose(near - poisson, ((y - mu) ** 2 - y) / 2e9, rtol=1e-4, atol=2e-15 * 40)


def test_quasi_families_have_no_likelihood(x64):
    for family in (families.QuasiPoisson(), families.Tweedie(1.5), families.Quasi("mu^2")):
        assert np.isnan(log_likelihood(family, np.array([1.0]), np.array([2.0]), 1.0)).all()


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_binomial_far_out(x64, dtype):
    family = families.Binomial()
    eta = jnp.asarray([-1e4, -700.0, -40.0, 0.0, 40.0, 700.0, 1e4], dtype)
    mean = family.link.mean(eta)
    for y in (0.0, 0.3, 1.0):
        ys = jnp.full_like(eta, y)
        exact = y * np.logaddexp(0.0, -np.asarray(eta, float)) + (1 - y) * np.logaddexp(0.0, np.asarray(eta, float))
        entropy = -sum(v * np.log(v) for v in (y, 1 - y) if v > 0)
        tolerance = {"rtol": 1e-6 if dtype == jnp.float32 else 1e-13, "atol": 1e-38}
        np.testing.assert_allclose(family.unit_deviance_at(ys, mean), 2 * (exact - entropy), **tolerance)
        likelihood = family.log_likelihood_at(ys, mean, jnp.ones_like(eta), 1.0)
        assert np.isfinite(likelihood).all()
        if y != 0.3:
            np.testing.assert_allclose(likelihood, -exact, rtol=tolerance["rtol"], atol=1e-6 if dtype == jnp.float32 else 1e-15)


def test_deviances_do_not_cancel(x64):
    y = np.array([1e8, 1e8, 3.0, 1e-300, 5.0])
    mu = np.array([1e8 + 1e2, 1e8 - 3.0, 3.0 + 1e-9, 2e-300, 5.0])
    gap = np.asarray(mu, np.longdouble) - y
    ratio = gap / y
    series = ratio**2 * (0.5 - ratio * (1 / 3 - ratio * (1 / 4 - ratio / 5)))
    exact = np.where(np.abs(ratio) < 1e-4, y * series, y * (ratio - np.log1p(ratio)))
    np.testing.assert_allclose(
        relative_entropy(*(jnp.asarray(v) for v in (y, mu, np.log(mu)))), exact.astype(float), rtol=1e-12
    )


@pytest.mark.parametrize(("power", "limit"), [(1.0, families.Poisson), (2.0, families.Gamma)])
@pytest.mark.parametrize("gap", [0.0, 1e-13, -1e-13, 1e-9])
def test_tweedie_is_continuous_in_power(x64, power, limit, gap):
    y, mean = jnp.asarray([0.4, 3.0, 20.0]), links.log.mean(jnp.asarray([0.5, 0.9, 2.0]))
    tweedie = families.Tweedie(jnp.asarray(power + gap))
    expected = limit("log").unit_deviance_at(y, mean)
    np.testing.assert_allclose(tweedie.unit_deviance_at(y, mean), expected, rtol=10 * abs(gap) + 1e-12)


def test_shape_parameters_are_leaves(x64):
    thetas = jnp.asarray([0.5, 2.0, np.inf])
    y, mu = jnp.asarray([0.0, 4.0]), jnp.asarray([1.5, 2.5])
    variances = jax.vmap(lambda family: family.variance_at(mu))(families.NegativeBinomial(thetas))
    np.testing.assert_allclose(variances, np.asarray(mu) + np.asarray(mu) ** 2 / np.asarray(thetas)[:, None])
    weights = jnp.ones_like(y)

    def likelihood(theta):
        return jnp.sum(families.NegativeBinomial(theta).log_likelihood_at(y, links.identity.mean(mu), weights, 1.0))

    def deviance(power):
        return jnp.sum(families.Tweedie(power).unit_deviance_at(y, links.identity.mean(mu)))

    for function, at in ((likelihood, 2.0), (likelihood, 40.0), (deviance, 1.5)):
        h = 1e-5 * at
        difference = (float(function(at + h)) - float(function(at - h))) / (2 * h)
        assert float(jax.grad(function)(at)) == pytest.approx(difference, rel=1e-6)


def test_responses_that_are_valid(x64):
    y = jnp.asarray([-1.0, 0.0, 0.5, 1.0, 1.5, np.inf, np.nan])
    valid = {
        families.Gaussian: [1, 1, 1, 1, 1, 0, 0],
        families.Binomial: [0, 1, 1, 1, 0, 0, 0],
        families.Poisson: [0, 1, 1, 1, 1, 0, 0],
        families.Gamma: [0, 0, 1, 1, 1, 0, 0],
    }
    for build, expected in valid.items():
        np.testing.assert_array_equal(build().valid_response_at(y), np.array(expected, bool))
    np.testing.assert_array_equal(families.Tweedie(1.5).valid_response_at(y), families.Poisson().valid_response_at(y))
    np.testing.assert_array_equal(families.Tweedie(2.0).valid_response_at(y), families.Gamma().valid_response_at(y))


NAMED_ERRORS = [
    (("possion",), {}, ValueError, r"no family 'possion'\. Did you mean 'poisson'\?"),
    (("poisson", "logit"), {}, ValueError, "the poisson family has no link 'logit'. Its links: log, identity"),
    (("poisson", "logg"), {}, ValueError, r"no link 'logg'\. Did you mean 'log'\?"),
    (("negative_binomial",), {"theta": -1.0}, ValueError, "theta must be positive"),
    (("tweedie",), {"power": 0.5}, ValueError, "power must be at least 1"),
    (("poisson",), {"theta": 1.0}, ValueError, "no parameter 'theta'"),
    (("quasi",), {"variance": "mu^x"}, ValueError, "no variance function 'mu\\^x'"),
    ((families.Poisson,), {}, TypeError, r"Did you mean Poisson\(\)\?"),
    ((families.Poisson(), "sqrt"), {}, ValueError, "inside the family object"),
    ((7,), {}, TypeError, "a family is a name"),
]


@pytest.mark.parametrize(("arguments", "shapes", "error", "message"), NAMED_ERRORS)
def test_errors_of_named(arguments, shapes, error, message):
    with pytest.raises(error, match=message):
        families.named(*arguments, **shapes)


def test_named():
    assert families.named("Poisson").name == "poisson"
    assert families.named("negative_binomial", theta=2).parameters == {"theta": 2}
    assert families.named("quasi", "probit", variance="mu(1-mu)").link is links.probit
    assert families.named("poisson", softplus).link is softplus
    assert families.named(own_family) is own_family
    assert repr(families.Tweedie(1.5)) == "<family tweedie, link log, power=1.5>"
