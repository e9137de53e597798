"""The families that come with jaxglm, and how to make one's own.

| family | variance function V(mu) | dispersion |
|---|---|---|
| `Gaussian` | 1 | estimated |
| `Binomial` | mu (1 - mu) | 1 |
| `Poisson` | mu | 1 |
| `Gamma` | mu^2 | estimated |
| `InverseGaussian` | mu^3 | estimated |
| `NegativeBinomial(theta)` | mu + mu^2 / theta | 1, theta given or estimated |
| `Tweedie(power)` | mu^power | estimated; power given or estimated |
| `Quasi(variance)`, `QuasiBinomial`, `QuasiPoisson` | as named | estimated, no likelihood |

Each is a function that returns a `Family`. One of your own needs a variance function and a unit deviance:

>>> from jaxglm import families, links
>>> cubic = families.Family("cubic", link=links.log, variance=lambda mu: mu**3,
...                         unit_deviance=lambda y, mean: (y - mean.mu) ** 2 / (y * mean.mu**2),
...                         responses=links.POSITIVE, means=links.POSITIVE)
>>> float(cubic.weight_at(cubic.link.mean(0.0)))
1.0

Sources: McCullagh and Nelder, Generalized Linear Models (1989), chapter 2; R's `family`, MASS's `negative.binomial`,
statmod's `tweedie`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxglm import links, log_likelihoods
from jaxglm.deviances import EXPECTED_DEVIANCES, gamma_deviance, power_deviance, relative_entropy
from jaxglm.errors import did_you_mean
from jaxglm.family import Family
from jaxglm.links import POSITIVE, UNIT, ArrayLike, Interval, Link, Mean

NONNEGATIVE = Interval(0.0, lower_included=True)
PROPORTION = Interval(0.0, 1.0, lower_included=True, upper_included=True)


def _binomial_deviance(y: Array, mean: Mean) -> Array:
    return 2.0 * (relative_entropy(y, mean.mu, mean.log_mu) + relative_entropy(1.0 - y, mean.complement, mean.log_complement))


def _binomial_score(y: Array, mean: Mean) -> Array:
    return y * mean.dlog_mu - (1.0 - y) * mean.dlog_complement


def _binomial_loss(y: Array, mean: Mean) -> Array:
    return -y * mean.log_mu - (1.0 - y) * mean.log_complement


def _poisson_loss(y: Array, mean: Mean) -> Array:
    return mean.mu - y * mean.log_mu


def _poisson_deviance(y: Array, mean: Mean) -> Array:
    return 2.0 * relative_entropy(y, mean.mu, mean.log_mu)


def _poisson_score(y: Array, mean: Mean) -> Array:
    return y * mean.dlog_mu - mean.dmu_deta


def _gamma_deviance(y: Array, mean: Mean) -> Array:
    return gamma_deviance(y, mean.mu)


def _gamma_score(y: Array, mean: Mean) -> Array:
    return (y - mean.mu) / mean.mu * mean.dlog_mu


def _inverse_gaussian_deviance(y: Array, mean: Mean) -> Array:
    return ((y - mean.mu) / mean.mu) ** 2 / y


def _negative_binomial_deviance(y: Array, mean: Mean, theta: ArrayLike) -> Array:
    finite = jnp.isfinite(theta)
    theta = jnp.where(finite, theta, 1.0)
    counts = relative_entropy(y, mean.mu, mean.log_mu)
    mixed = relative_entropy(y + theta, mean.mu + theta, jnp.log(mean.mu + theta))
    return 2.0 * (counts - jnp.where(finite, mixed, 0.0))


def _negative_binomial_loss(y: Array, mean: Mean, theta: ArrayLike) -> Array:
    finite = jnp.isfinite(theta)
    shape = jnp.where(finite, theta, 1.0)
    return jnp.where(finite, (y + shape) * jnp.log1p(mean.mu / shape), mean.mu) - y * mean.log_mu


def _negative_binomial_variance(mu: Array, theta: ArrayLike) -> Array:
    return mu + mu * mu / theta


def _negative_binomial_score(y: Array, mean: Mean, theta: ArrayLike) -> Array:
    return (y * mean.dlog_mu - mean.dmu_deta) / (1.0 + mean.mu / theta)


def _negative_binomial_weight(mean: Mean, theta: ArrayLike) -> Array:
    return mean.dlog_mu * mean.dmu_deta / (1.0 + mean.mu / theta)


def _negative_binomial_start(y: Array, weights: Array, theta: ArrayLike) -> Array:
    return jnp.where(y == 0, 1.0 / 6.0, y)


def _negative_binomial_response(y: Array, theta: ArrayLike) -> Array:
    return (y >= 0) & (jnp.asarray(theta, y.dtype) > 0)


def _tweedie_deviance(y: Array, mean: Mean, power: ArrayLike) -> Array:
    return power_deviance(y, mean.mu, mean.log_mu, power)


def _tweedie_score(y: Array, mean: Mean, power: ArrayLike) -> Array:
    return (y * mean.dlog_mu - mean.dmu_deta) * _mu_power(mean, 1.0 - power)


def _tweedie_weight(mean: Mean, power: ArrayLike) -> Array:
    return mean.dlog_mu * mean.dmu_deta * _mu_power(mean, 1.0 - power)


def _tweedie_response(y: Array, power: ArrayLike) -> Array:
    power = jnp.asarray(power, y.dtype)
    return ((y > 0) | (power < 2.0)) & (power >= 1.0) & jnp.isfinite(power)


def _mu_power(mean: Mean, exponent: ArrayLike) -> Array:
    return mean.mu ** jnp.asarray(exponent, mean.mu.dtype)


# One row of the table of families: the functions of a variance function, shared by likelihood and quasi families.
_BINOMIAL = {
    "variance": lambda mu: mu * (1.0 - mu),
    "bare": lambda y: (y == 0) | (y == 1),
    "unit_deviance": _binomial_deviance,
    "loss": _binomial_loss,
    "score": _binomial_score,
    "weight": lambda mean: mean.dlog_mu * mean.dlog_complement,
    "start": lambda y, weights: (weights * y + 0.5) / (weights + 1.0),
    "responses": PROPORTION,
    "means": UNIT,
    "canonical": "logit",
}
_POISSON = {
    "variance": lambda mu: mu * 1.0,
    "unit_deviance": _poisson_deviance,
    "loss": _poisson_loss,
    "score": _poisson_score,
    "weight": lambda mean: mean.dlog_mu * mean.dmu_deta,
    "start": lambda y, weights: y + 0.375,  # Anscombe (1948); with R's 0.1 a count of 0 lies far from the others
    "responses": NONNEGATIVE,
    "means": POSITIVE,
    "canonical": "log",
}
_GAMMA = {
    "variance": jnp.square,
    "unit_deviance": _gamma_deviance,
    "loss": lambda y, mean: y / mean.mu + mean.log_mu,
    "score": _gamma_score,
    "weight": lambda mean: mean.dlog_mu**2,
    "responses": POSITIVE,
    "means": POSITIVE,
    "canonical": "inverse",
}
_INVERSE_GAUSSIAN = {
    "variance": lambda mu: mu**3,
    "unit_deviance": _inverse_gaussian_deviance,
    "score": lambda y, mean: (y - mean.mu) / mean.mu**2 * mean.dlog_mu,
    "weight": lambda mean: mean.dlog_mu**2 / mean.mu,
    "responses": POSITIVE,
    "means": POSITIVE,
    "canonical": "inverse_squared",
}
_CONSTANT = {
    "variance": jnp.ones_like,
    "unit_deviance": lambda y, mean: (y - mean.mu) ** 2,
    "score": lambda y, mean: (y - mean.mu) * mean.dmu_deta,
    "weight": lambda mean: mean.dmu_deta**2,
    "canonical": "identity",
}
_POWER = {
    "variance": lambda mu, power: mu ** jnp.asarray(power, mu.dtype),
    "unit_deviance": _tweedie_deviance,
    "score": _tweedie_score,
    "weight": _tweedie_weight,
    "start": lambda y, weights, power: jnp.where(y == 0, 0.1, y),
    "valid_response": lambda y, power: (y > 0) | (jnp.asarray(power, y.dtype) < 2.0),
    "responses": NONNEGATIVE,
    "means": POSITIVE,
}
QUASI = {"constant": _CONSTANT, "mu": _POISSON, "mu(1-mu)": _BINOMIAL, "mu^2": _GAMMA, "mu^3": _INVERSE_GAUSSIAN}

_ANY = ("identity", "log", "logit", "probit", "cauchit", "cloglog", "loglog", "inverse", "inverse_squared", "sqrt", "power")
LINKS = {
    "gaussian": ("identity", "log", "inverse", "power"),
    "binomial": ("logit", "probit", "cauchit", "log", "cloglog", "loglog", "identity"),
    "poisson": ("log", "identity", "sqrt", "power"),
    "gamma": ("inverse", "identity", "log", "power"),
    "inverse_gaussian": ("inverse_squared", "inverse", "identity", "log"),
    "negative_binomial": ("log", "sqrt", "identity"),
    "tweedie": ("log", "identity", "power"),
    "quasi": _ANY,
    "quasibinomial": ("logit", "probit", "cauchit", "log", "cloglog", "loglog", "identity"),
    "quasipoisson": ("log", "identity", "sqrt", "power"),
}


def _build(name: str, link: str | Link | None, functions: Mapping[str, Any], **changes: Any) -> Family:
    allowed = LINKS[name]
    chosen = links.named(allowed[0] if link is None else link)
    # A link of the user's own is the user's business; of ours, only those that make sense for the family.
    if chosen.name not in allowed and chosen.name in _ANY:
        raise ValueError(f"the {name} family has no link {chosen.name!r}. Its links: {', '.join(allowed)}")
    expected = EXPECTED_DEVIANCES.get(name)
    return Family(name=name, link=chosen, expected_deviance=expected, **{**functions, **changes})


def Gaussian(link: str | Link | None = None) -> Family:
    """Normal responses, V(mu) = 1, dispersion estimated. Links: identity, log, inverse, Power."""
    return _build("gaussian", link, _CONSTANT, log_likelihood=log_likelihoods.gaussian, likelihood_rows="rows")


def Binomial(link: str | Link | None = None) -> Family:
    """Proportions y in [0, 1] whose prior weights are the trials, V(mu) = mu (1 - mu), dispersion 1.

    Links: logit, probit, cauchit, log, cloglog, loglog, identity.
    """
    return _build("binomial", link, _BINOMIAL, log_likelihood=log_likelihoods.binomial, dispersion=1.0)


def Poisson(link: str | Link | None = None) -> Family:
    """Counts, V(mu) = mu, dispersion 1. Links: log, identity, sqrt, Power."""
    return _build("poisson", link, _POISSON, log_likelihood=log_likelihoods.poisson, dispersion=1.0)


def Gamma(link: str | Link | None = None) -> Family:
    """Positive responses, V(mu) = mu^2, dispersion estimated. Links: inverse, identity, log, Power."""
    return _build("gamma", link, _GAMMA, log_likelihood=log_likelihoods.gamma)


def InverseGaussian(link: str | Link | None = None) -> Family:
    """Positive responses, V(mu) = mu^3, dispersion estimated. Links: inverse_squared, inverse, identity, log."""
    return _build("inverse_gaussian", link, _INVERSE_GAUSSIAN, log_likelihood=log_likelihoods.inverse_gaussian)


def NegativeBinomial(theta: Any = None, link: str | Link | None = None, *, adjusted: bool = False) -> Family:
    """Counts with V(mu) = mu + mu^2 / theta, dispersion 1 (as MASS's `glm.nb`). Links: log, sqrt, identity.

    theta: a positive number, one a fit (an array in the order of the fits), or at the table door the name of a column
    that is constant within groups. Infinity is the Poisson limit. Without one, `jaxglm.fit` and `glm` estimate it for each
    fit, by maximum likelihood, or with adjusted=True by Cox and Reid's adjusted profile likelihood, which is less biased
    where rows are few (`jaxglm.theta`). Raises ValueError for a theta that is not positive, and for one that is given and to
    be adjusted.

    >>> from jaxglm import families
    >>> families.NegativeBinomial(theta=2.0).parameters["theta"], families.NegativeBinomial().estimator
    (2.0, 'maximum_likelihood')
    """
    estimator = None if theta is not None else "cox_reid" if adjusted else "maximum_likelihood"
    if theta is not None and adjusted:
        raise ValueError("adjusted=True says how theta is estimated, but a theta is given; leave out one of them")
    theta = math.nan if theta is None else _shape_parameter("theta", theta)
    return _build(
        "negative_binomial",
        link,
        {**_POISSON, "canonical": None},
        variance=_negative_binomial_variance,
        unit_deviance=_negative_binomial_deviance,
        loss=_negative_binomial_loss,
        score=_negative_binomial_score,
        weight=_negative_binomial_weight,
        start=_negative_binomial_start,
        valid_response=_negative_binomial_response,
        log_likelihood=log_likelihoods.negative_binomial,
        dispersion=1.0,
        estimator=estimator,
        parameters={"theta": theta},
    )


def Tweedie(power: Any = None, link: str | Link | None = None) -> Family:
    """Nonnegative responses with V(mu) = mu^power, power >= 1, dispersion estimated. Links: log, identity, Power.

    power: a number, one a fit, or the name of a column. From 2 upwards, responses must be positive. The likelihood has
    no closed form: log-likelihood, AIC and BIC are NaN. Without a power, `jaxglm.fit` and `glm` estimate it for each fit by
    profile likelihood, between 1 and 2 (`jaxglm.power`); its maximum is then the log-likelihood, and AIC counts the power.
    Raises ValueError for a power below 1.

    >>> from jaxglm import families
    >>> families.Tweedie(1.5).parameters["power"], families.Tweedie().estimator
    (1.5, 'profile_likelihood')
    """
    estimator = "profile_likelihood" if power is None else None
    power = math.nan if power is None else _shape_parameter("power", power)
    shape = {"valid_response": _tweedie_response, "parameters": {"power": power}, "estimator": estimator}
    return _build("tweedie", link, _POWER, **shape)


def Quasi(variance: str = "constant", link: str | Link | None = None) -> Family:
    """A quasi-likelihood with the given variance function and any link; dispersion estimated, no likelihood.

    variance: "constant", "mu", "mu(1-mu)", "mu^2", "mu^3", or "mu^k" with any number k, as in `Quasi("mu^1.5")`.
    """
    if variance in QUASI:
        return _build("quasi", link, QUASI[variance])
    base, _, exponent = str(variance).replace(" ", "").partition("^")
    try:
        power = float(exponent) if base == "mu" else math.nan
    except ValueError:
        power = math.nan
    if not math.isfinite(power):
        raise ValueError(f"there is no variance function {variance!r}. Give one of {', '.join(QUASI)}, or mu^k with a number k")
    return _build("quasi", link, _POWER, parameters={"power": power})


def QuasiBinomial(link: str | Link | None = None) -> Family:
    """Binomial with an estimated dispersion; no likelihood."""
    return _build("quasibinomial", link, _BINOMIAL)


def QuasiPoisson(link: str | Link | None = None) -> Family:
    """Poisson with an estimated dispersion; no likelihood."""
    return _build("quasipoisson", link, _POISSON)


_VALID: dict[str, tuple[Callable[[Any], Any], str]] = {
    "theta": (lambda value: value > 0, "positive"),
    "power": (lambda value: value >= 1, "at least 1 (below 1 there is no such distribution; 0 is Gaussian)"),
}


def _shape_parameter(name: str, value: Any) -> Any:
    """A number, an array or the name of a column; lists and columns become arrays. Raises ValueError for a number out of
    range; a value out of range among many makes the rows of its fit invalid (`Family.valid_response`)."""
    if isinstance(value, (list, tuple)) or hasattr(value, "to_numpy"):
        value = np.asarray(value, np.float64)
    valid, what = _VALID[name]
    if isinstance(value, (int, float, np.number)) and not valid(value):
        raise ValueError(f"{name} must be {what}, not {value!r}")
    return value


_NAMED: dict[str, Callable[..., Family]] = {
    "gaussian": Gaussian,
    "binomial": Binomial,
    "poisson": Poisson,
    "gamma": Gamma,
    "inverse_gaussian": InverseGaussian,
    "negative_binomial": NegativeBinomial,
    "tweedie": Tweedie,
    "quasi": Quasi,
    "quasibinomial": QuasiBinomial,
    "quasipoisson": QuasiPoisson,
}


def named(family: str | Family, link: str | Link | None = None, **parameters: Any) -> Family:
    """The family with this name, its link and its shape parameters (`theta`, `power`, `variance`); a negative binomial
    without a theta estimates it, and so does a Tweedie family without a power.

    A `Family` is returned as it is. Raises ValueError for unknown names, links and shape parameters.
    """
    if isinstance(family, Family):
        if link is not None or parameters:
            raise ValueError(
                "give the link and the shape parameters inside the family object, for example families.Poisson('sqrt')"
            )
        return family
    if not isinstance(family, str):
        hint = f" Did you mean {family.__name__}()?" if family in _NAMED.values() else ""
        raise TypeError(f"a family is a name or a value of jaxglm.families, not {family!r}.{hint}")
    key = family.lower()
    if key not in _NAMED:
        raise ValueError(f"there is no family {family!r}.{did_you_mean(family, _NAMED)} Families: {', '.join(_NAMED)}")
    shapes = {"negative_binomial": {"theta", "adjusted"}, "tweedie": {"power"}, "quasi": {"variance"}}.get(key, set())
    for name in parameters:
        if name not in shapes:
            raise ValueError(f"the {key} family has no parameter {name!r}")
    return _NAMED[key](link=link, **parameters)
