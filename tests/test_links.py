"""Links at the ends of their domains: every form of the mean keeps its digits, in float64 and in float32."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import softplus
from scipy import special

from jaxglm import families, links

ALL = [*links._NAMED.values(), links.Power(0.5), links.Power(-1.5), softplus]
FIELDS = ("mu", "complement", "dmu_deta", "log_mu", "log_complement", "dlog_mu", "dlog_complement")
FAR = [-1e4, -700.0, -40.0, -30.0, -3.0, 0.0, 3.0, 30.0, 40.0, 700.0, 1e4]
FAR_32 = [-1e4, -80.0, -20.0, -8.0, -1.0, 0.0, 1.0, 8.0, 20.0, 80.0, 1e4]


def exact_logit(eta):
    e = np.exp(-np.abs(eta))
    high, low = 1 / (1 + e), e / (1 + e)
    up = eta >= 0
    mu, complement = np.where(up, high, low), np.where(up, low, high)
    log_low, log_high = -np.abs(eta) - np.log1p(e), -np.log1p(e)
    logs = np.where(up, log_high, log_low), np.where(up, log_low, log_high)
    return mu, complement, e / (1 + e) ** 2, *logs, complement, mu


def exact_cloglog(eta):
    hazard = np.exp(np.minimum(eta, 11000.0))
    mu, complement = -np.expm1(-hazard), np.exp(-hazard)
    with np.errstate(over="ignore"):
        dlog = np.where(hazard > 1e-4000, hazard / np.expm1(hazard), 1.0)
    likely = np.log1p(-np.where(hazard > 1, complement, 0.0))
    log_mu = np.where(eta < -40, eta, np.where(hazard > 1, likely, np.log(mu)))
    return mu, complement, hazard * complement, log_mu, -hazard, dlog, hazard


def exact_loglog(eta):
    mu, complement, slope, log_mu, log_complement, dlog_mu, dlog_complement = exact_cloglog(-eta)
    return complement, mu, slope, log_complement, log_mu, dlog_complement, dlog_mu


def exact_cauchit(eta):
    pi = np.longdouble("3.14159265358979323846264338327950288")
    low = np.arctan2(np.ones_like(eta), np.abs(eta)) / pi
    mu, complement = np.where(eta < 0, low, 1 - low), np.where(eta < 0, 1 - low, low)
    slope = 1 / (pi * (1 + eta**2))
    log_low, log_high = np.log(low), np.log1p(-low)
    logs = np.where(eta < 0, log_low, log_high), np.where(eta < 0, log_high, log_low)
    return mu, complement, slope, *logs, slope / mu, slope / complement


def exact_probit(eta):
    eta = eta.astype(float)
    slope = np.exp(-0.5 * eta**2) / np.sqrt(2 * np.pi)
    hazard = [np.sqrt(2 / np.pi) / special.erfcx(-e / np.sqrt(2)) for e in (eta, -eta)]
    return special.ndtr(eta), special.ndtr(-eta), slope, special.log_ndtr(eta), special.log_ndtr(-eta), *hazard


EXACT = {
    "logit": exact_logit,
    "cloglog": exact_cloglog,
    "loglog": exact_loglog,
    "cauchit": exact_cauchit,
    "probit": exact_probit,
}


def assert_forms(link, etas, dtype, relative, tiny):
    """All forms of the mean against closed forms in extended precision; what is below `tiny` may be anything as small,
    what is above the largest number anything as large."""
    mean = link.mean(jnp.asarray(etas, dtype))
    largest = float(np.finfo(dtype).max) / 4
    for field, expected in zip(FIELDS, EXACT[link.name](np.asarray(etas, np.longdouble)), strict=True):
        found = getattr(mean, field)
        assert found.dtype == dtype
        for eta, f, e in zip(etas, np.asarray(found, np.longdouble), expected, strict=True):
            if abs(e) < tiny:
                assert abs(f) <= tiny, (field, eta, f, e)
            elif abs(e) > largest or (field in ("log_mu", "log_complement", "dlog_mu", "dlog_complement") and abs(e) > 1e15):
                assert np.isfinite(f), (field, eta, f, e)
                assert abs(f) > 1e15, (field, eta, f, e)
            else:
                assert abs(f - e) <= relative * abs(e), (field, eta, f, e)


@pytest.mark.parametrize("name", EXACT)
def test_forms_of_the_mean_far_out_in_float64(x64, name):
    relative = 1e-14 if name == "logit" else 2e-13
    assert_forms(
        links.named(name), FAR if name != "probit" else [e for e in FAR if abs(e) != 700], jnp.float64, relative, 1e-306
    )


@pytest.mark.parametrize("name", EXACT)
def test_forms_of_the_mean_far_out_in_float32(x64, name):
    assert_forms(links.named(name), FAR_32, jnp.float32, 1e-5, 1.2e-38)


@pytest.mark.parametrize("eta", [-700.0, -40.0, 40.0, 700.0])
def test_binomial_weight_far_out(x64, eta):
    e = np.exp(np.longdouble(-abs(eta)))
    weight = float(families.Binomial().weight_at(links.logit.mean(eta)))
    assert abs(weight - float(e / (1 + e) ** 2)) <= 1e-14 * weight


def test_complement_is_not_a_subtraction(x64):
    assert float(links.logit.mean(40.0).complement) == pytest.approx(np.exp(-40.0), rel=1e-14)
    assert float(links.log.mean(-1e-20).complement) == pytest.approx(1e-20, rel=1e-14)
    assert float(links.log.mean(-1e-20).log_complement) == pytest.approx(np.log(1e-20), rel=1e-14)
    assert float(links.identity.mean(1e-20).log_complement) == pytest.approx(-1e-20, rel=1e-14)
    score = families.Binomial().score_at(jnp.asarray([1.0, 0.0]), links.logit.mean(jnp.asarray([40.0, -40.0])))
    np.testing.assert_allclose(score, [np.exp(-40.0), -np.exp(-40.0)], rtol=1e-14)


@pytest.mark.parametrize("link", [links.logit, links.probit, links.cauchit, links.cloglog, links.loglog], ids=lambda v: v.name)
def test_derivatives_of_logarithms_far_out(x64, link):
    etas = jnp.asarray([-200.0, -40.0, -29.0, -1.0, 0.0, 1.0, 5.0, 29.0, 40.0, 200.0])
    ones = jnp.ones_like(etas)
    mean, tangent = jax.jvp(link.mean, (etas,), (ones,))
    np.testing.assert_allclose(tangent.log_mu, mean.dlog_mu, rtol=1e-9, atol=1e-300)
    np.testing.assert_allclose(tangent.log_complement, -mean.dlog_complement, rtol=1e-9, atol=1e-300)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
@pytest.mark.parametrize("name", EXACT)
def test_second_derivatives_are_finite(x64, name, dtype):
    etas = jnp.linspace(-50.0, 50.0, 401, dtype=dtype)
    tangent = jax.jvp(links.named(name).mean, (etas,), (jnp.ones_like(etas),))[1]
    for field in ("dmu_deta", "dlog_mu", "dlog_complement"):
        wrong = ~np.isfinite(getattr(tangent, field))
        assert not wrong.any(), (field, np.asarray(etas)[wrong])


@pytest.mark.parametrize("link", ALL, ids=lambda v: f"{v.name}{v.parameters.get('exponent', '')}")
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_type_of_eta_is_kept(x64, link, dtype):
    mean = link.mean(jnp.asarray([0.3, 0.7], dtype))
    assert {leaf.dtype for leaf in jax.tree.leaves(mean)} == {jnp.dtype(dtype)}
    assert link(mean.mu).dtype == dtype


def test_power_links_with_a_name():
    assert links.Power(0) is links.log
    assert links.Power(1) is links.identity
    for bad in (np.nan, np.inf):
        with pytest.raises(ValueError, match="finite exponent"):
            links.Power(float(bad))


@pytest.mark.parametrize("exponent", [0.5, 1.0 / 3.0, 2.0, -0.5, -2.0])
def test_power_says_where_it_is_infinite(exponent):
    infinite = [mu for mu in (0.0,) if np.isinf(float(links.Power(exponent)(jnp.asarray(mu))))]
    assert list(links.Power(exponent).infinite_at) == infinite


def test_exponents_are_leaves(x64):
    def mu(exponent):
        return links.Power(exponent).mean(jnp.asarray(2.0)).mu

    exponents = jnp.asarray([0.5, 2.0, -1.0])
    np.testing.assert_allclose(jax.vmap(mu)(exponents), 2.0 ** (1.0 / np.asarray(exponents)), rtol=1e-15)
    np.testing.assert_allclose(jax.grad(mu)(0.5), -np.log(2.0) / 0.25 * 4.0, rtol=1e-14)


def test_errors_of_named():
    with pytest.raises(ValueError, match=r"no link 'lgit'. Did you mean 'logit'\?"):
        links.named("lgit")
    with pytest.raises(TypeError, match="a link is a name"):
        links.named(3)
    assert links.named(softplus) is softplus
    assert links.named("log") is links.log


def test_intervals():
    half = links.Interval(0.0, 1.0, lower_included=True)
    np.testing.assert_array_equal(half.contains(np.array([-0.1, 0.0, 0.5, 1.0, np.nan])), [False, True, True, False, False])
    assert str(half) == "[0, 1)"
    assert links.REAL.covers(half)
    assert not half.covers(links.POSITIVE)


def test_repr():
    assert repr(links.logit) == "<link logit>"
    assert repr(links.Power(0.5)) == "<link power, exponent=0.5>"
