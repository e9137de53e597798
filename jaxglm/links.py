"""Link functions: how the linear predictor eta becomes the mean mu.

A generalized linear model says g(mu) = eta = X b + offset. A `Link` is a value that holds g (`forward`), its inverse
and, where plain arithmetic would lose digits, the forms of the mean that the likelihood really needs. Take a binomial
row with y = 1 under a logit link at eta = 40: its score is 1 - mu, which is 4e-18, but `1 - 1 / (1 + exp(-40))` is 0.
`Link.mean` therefore returns a `Mean`: mu together with its complement, both logarithms and both logarithmic
derivatives, each computed so that it keeps its relative accuracy as eta runs to either end, in float64 and float32.
What a family does not use is never computed under `jit`.

A link of one's own needs two pure JAX functions:

>>> import jax.numpy as jnp
>>> from jaxglm import links
>>> softplus = links.Link("softplus", forward=lambda mu: jnp.log(jnp.expm1(mu)), inverse=lambda eta: jnp.log1p(jnp.exp(eta)),
...                       means=links.POSITIVE, infinite_at=(0.0,))
>>> round(float(softplus.mean(0.5).dmu_deta), 5)
0.62246

Sources: McCullagh and Nelder, Generalized Linear Models (1989), sections 2.2 and 4.3; R's `make.link` and `power`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.scipy.special import ndtr, ndtri

from jaxglm.errors import did_you_mean

ArrayLike = Any


@dataclass(frozen=True)
class Interval:
    """A range of numbers. `lower_included` and `upper_included` say whether the end points belong to it."""

    lower: float = -math.inf
    upper: float = math.inf
    lower_included: bool = False
    upper_included: bool = False

    def contains(self, values: ArrayLike) -> Any:
        """Which of `values` lie in the interval (NaN never does)."""
        above = values >= self.lower if self.lower_included else values > self.lower
        below = values <= self.upper if self.upper_included else values < self.upper
        return above & below

    def covers(self, other: Interval) -> bool:
        """Whether the interior of `other` lies in this interval."""
        return self.lower <= other.lower and other.upper <= self.upper

    def __str__(self) -> str:
        return f"{'[' if self.lower_included else '('}{self.lower:g}, {self.upper:g}{']' if self.upper_included else ')'}"


STATIC = {"static": True}  # marks a dataclass field that is part of the pytree's structure, not a leaf

REAL = Interval()
POSITIVE = Interval(0.0)
UNIT = Interval(0.0, 1.0)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Mean:
    """The mean of a row at its eta, in every form that a family may need. All fields have eta's shape."""

    mu: Array
    complement: Array  # 1 - mu
    dmu_deta: Array
    log_mu: Array
    log_complement: Array  # log(1 - mu)
    dlog_mu: Array  # dmu_deta / mu
    dlog_complement: Array  # dmu_deta / (1 - mu)

    @classmethod
    def at(cls, mu: Array, dmu_deta: Array | None = None, **exact: Array) -> Mean:
        """A mean from mu alone; forms given in `exact` replace those that plain arithmetic gives."""
        slope = jnp.ones_like(mu) if dmu_deta is None else dmu_deta
        complement = exact.pop("complement", 1.0 - mu)
        plain = {
            "log_mu": jnp.log(mu),
            "log_complement": jnp.log(complement),
            "dlog_mu": slope / mu,
            "dlog_complement": slope / complement,
        }
        return cls(mu=mu, complement=complement, dmu_deta=slope, **{**plain, **exact})


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Link:
    """A link function as a value: a pytree whose leaves are its shape parameters.

    forward, inverse: pure functions of arrays, mu to eta and back, called with `parameters` as keywords.
    exact: optional; takes eta to a dictionary of those fields of `Mean` that it computes better than plain arithmetic.
    means: the interval that mu runs through; etas: the interval of eta on which the link is defined and monotone.
    infinite_at: the values of mu at which eta is infinite. Estimates can be infinite only if a response sits there.
    """

    name: str = field(metadata=STATIC)
    forward: Callable[..., Array] = field(metadata=STATIC)
    inverse: Callable[..., Array] = field(metadata=STATIC)
    exact: Callable[..., dict[str, Array]] | None = field(default=None, metadata=STATIC)
    means: Interval = field(default=REAL, metadata=STATIC)
    etas: Interval = field(default=REAL, metadata=STATIC)
    infinite_at: tuple[float, ...] = field(default=(), metadata=STATIC)
    parameters: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, mu: ArrayLike) -> Array:
        """eta = g(mu)."""
        return self.forward(mu, **self.parameters)

    def mean(self, eta: ArrayLike) -> Mean:
        """The mean at eta, in all its forms."""
        eta = jnp.asarray(eta)
        known = dict(self.exact(eta, **self.parameters)) if self.exact else {}
        if "mu" in known and "dmu_deta" in known:
            return Mean.at(**known)
        mu, slope = jax.jvp(lambda e: self.inverse(e, **self.parameters), (eta,), (jnp.ones_like(eta),))
        return Mean.at(**{"mu": mu, "dmu_deta": slope, **known})

    def __repr__(self) -> str:
        shape = "".join(f", {key}={value}" for key, value in self.parameters.items())
        return f"<link {self.name}{shape}>"


def _absolute(eta: Array) -> Array:
    """|eta|, with the derivative 1 (not 0) at 0, so that what is built from it differentiates rightly there."""
    return jnp.where(eta >= 0, eta, -eta)


def _log_one_minus_exp(eta: Array) -> Array:
    """log(1 - exp(eta)) for eta < 0, to full relative accuracy (Maechler 2012)."""
    near = eta > -math.log(2.0)
    by_log, by_log1p = -jnp.expm1(jnp.where(near, eta, -1.0)), -jnp.exp(jnp.where(near, -1.0, eta))
    return jnp.where(near, jnp.log(by_log), jnp.log1p(by_log1p))


def _identity_exact(eta: Array) -> dict[str, Array]:
    return {"mu": eta, "dmu_deta": jnp.ones_like(eta), "log_complement": jnp.log1p(-eta)}


def _log_exact(eta: Array) -> dict[str, Array]:
    mu = jnp.exp(eta)
    complement = -jnp.expm1(eta)
    return {
        "mu": mu,
        "dmu_deta": mu,
        "complement": complement,
        "log_mu": eta,
        "log_complement": _log_one_minus_exp(eta),
        "dlog_mu": jnp.ones_like(eta),
    }


@jax.jit
def _log1p_fraction(x: Array) -> Array:
    """log(1 + x) = 2 atanh(x / (2 + x)) for 0 <= x <= 1, in arithmetic that XLA vectorizes, as it does not `log1p`."""
    far = x > 0.4
    part = jnp.where(far, (x - 0.5) / 1.5, x)
    t = part / (2.0 + part)  # at most 1/6, where the last term is below the rounding unit
    square = t * t
    series = jnp.zeros_like(t)
    for k in range(10, 0, -1):
        series = (series + 1.0 / (2 * k + 1)) * square
    return jnp.where(far, math.log(1.5), 0.0) + 2.0 * t * (1.0 + series)


def _logit_exact(eta: Array) -> dict[str, Array]:
    decay = jnp.exp(-_absolute(eta))
    scale = 1.0 / (1.0 + decay)
    high, low, positive = scale, decay * scale, eta >= 0
    mu, complement = jnp.where(positive, high, low), jnp.where(positive, low, high)
    fold = _log1p_fraction(decay)
    return {
        "mu": mu,
        "complement": complement,
        "dmu_deta": decay / ((1.0 + decay) * (1.0 + decay)),
        "log_mu": jnp.where(positive, 0.0, eta) - fold,
        "log_complement": jnp.where(positive, -eta, 0.0) - fold,
        "dlog_mu": complement,
        "dlog_complement": mu,
    }


def _probit_exact(eta: Array) -> dict[str, Array]:
    # Everything from the smaller tail, Phi(-|eta|) = phi(eta) * mills. Beyond a cut, where Phi nears underflow, by the
    # asymptotic series of Mills' ratio (Abramowitz and Stegun 26.2.12), whose first term left out is below rounding there.
    size, positive = _absolute(eta), eta >= 0
    cut = 25.0 if eta.dtype == jnp.float64 else 8.0
    far = size > cut
    tail, body = jnp.where(far, size, 2.0 * cut), jnp.where(far, 0.0, size)
    inverse_square = 1.0 / (tail * tail)
    series = jnp.ones_like(eta)
    for k in (13.0, 11.0, 9.0, 7.0, 5.0, 3.0, 1.0):
        series = 1.0 - k * inverse_square * series
    mills = series / tail
    density = jnp.exp(-0.5 * size * size) / math.sqrt(2.0 * math.pi)
    near = 0.5 * jax.lax.erfc(body * math.sqrt(0.5))
    low = jnp.where(far, density * mills, near)
    log_far = -0.5 * tail * tail - 0.5 * math.log(2.0 * math.pi) + jnp.log(mills)
    log_low, log_high = jnp.where(far, log_far, jnp.log(near)), jnp.log1p(-low)
    dlog_low, dlog_high = jnp.where(far, 1.0 / mills, density / near), density / (1.0 - low)
    return {
        "mu": jnp.where(positive, 1.0 - low, low),
        "complement": jnp.where(positive, low, 1.0 - low),
        "dmu_deta": density,
        "log_mu": jnp.where(positive, log_high, log_low),
        "log_complement": jnp.where(positive, log_low, log_high),
        "dlog_mu": jnp.where(positive, dlog_high, dlog_low),
        "dlog_complement": jnp.where(positive, dlog_low, dlog_high),
    }


def _cauchit_exact(eta: Array) -> dict[str, Array]:
    low = jnp.arctan2(jnp.ones_like(eta), _absolute(eta)) / math.pi
    positive = eta >= 0
    high, log_low, log_high = 1.0 - low, jnp.log(low), jnp.log1p(-low)
    return {
        "mu": jnp.where(positive, high, low),
        "complement": jnp.where(positive, low, high),
        "dmu_deta": 1.0 / (math.pi * (1.0 + eta * eta)),
        "log_mu": jnp.where(positive, log_high, log_low),
        "log_complement": jnp.where(positive, log_low, log_high),
    }


def _cauchit_forward(mu: ArrayLike) -> Array:
    low = jnp.where(mu < 0.5, mu, 1.0 - mu)
    return jnp.where(mu < 0.5, -1.0, 1.0) / jnp.tan(math.pi * low)


def _cloglog_exact(eta: Array) -> dict[str, Array]:
    # Beyond the clip every form has reached its limit; it only keeps exp(eta) finite.
    hazard = jnp.exp(jnp.minimum(eta, 300.0 if eta.dtype == jnp.float64 else 40.0))
    small = eta < -40.0
    safe = jnp.where(small, 1.0, hazard)
    mu = -jnp.expm1(-hazard)
    return {
        "mu": mu,
        "complement": jnp.exp(-hazard),
        "dmu_deta": hazard * jnp.exp(-hazard),
        "log_mu": jnp.where(small, eta, _log_one_minus_exp(-safe)),
        "log_complement": -hazard,
        "dlog_mu": jnp.where(small, 1.0, safe * jnp.exp(-safe) / -jnp.expm1(-safe)),
        "dlog_complement": hazard,
    }


def _loglog_exact(eta: Array) -> dict[str, Array]:
    mirrored = _cloglog_exact(-eta)
    return {
        "mu": mirrored["complement"],
        "complement": mirrored["mu"],
        "dmu_deta": mirrored["dmu_deta"],
        "log_mu": mirrored["log_complement"],
        "log_complement": mirrored["log_mu"],
        "dlog_mu": mirrored["dlog_complement"],
        "dlog_complement": mirrored["dlog_mu"],
    }


def _power_exact(eta: Array, exponent: ArrayLike) -> dict[str, Array]:
    mu = eta ** (1.0 / exponent)
    slope = 1.0 / (exponent * eta)
    log_mu = jnp.log(eta) / exponent
    return {"mu": mu, "dmu_deta": mu * slope, "complement": -jnp.expm1(log_mu), "log_mu": log_mu, "dlog_mu": slope}


def _inverse_exact(eta: Array) -> dict[str, Array]:
    mu = 1.0 / eta
    return {"mu": mu, "dmu_deta": -mu * mu, "complement": (eta - 1.0) / eta, "log_mu": -jnp.log(eta), "dlog_mu": -mu}


def _inverse_squared_exact(eta: Array) -> dict[str, Array]:
    return _power_exact(eta, -2.0)


def _sqrt_exact(eta: Array) -> dict[str, Array]:
    return {"mu": eta * eta, "dmu_deta": 2.0 * eta, "log_mu": 2.0 * jnp.log(eta), "dlog_mu": 2.0 / eta}


identity = Link("identity", forward=lambda mu: mu * 1.0, inverse=lambda eta: eta, exact=_identity_exact)
log = Link("log", forward=jnp.log, inverse=jnp.exp, exact=_log_exact, means=POSITIVE, infinite_at=(0.0,))
logit = Link(
    "logit",
    forward=lambda mu: jnp.log(mu) - jnp.log1p(-mu),
    inverse=jax.nn.sigmoid,
    exact=_logit_exact,
    means=UNIT,
    infinite_at=(0.0, 1.0),
)
probit = Link("probit", forward=ndtri, inverse=ndtr, exact=_probit_exact, means=UNIT, infinite_at=(0.0, 1.0))
cauchit = Link(
    "cauchit",
    forward=_cauchit_forward,
    inverse=lambda eta: 0.5 + jnp.arctan(eta) / math.pi,
    exact=_cauchit_exact,
    means=UNIT,
    infinite_at=(0.0, 1.0),
)
cloglog = Link(
    "cloglog",
    forward=lambda mu: jnp.log(-jnp.log1p(-mu)),
    inverse=lambda eta: -jnp.expm1(-jnp.exp(eta)),
    exact=_cloglog_exact,
    means=UNIT,
    infinite_at=(0.0, 1.0),
)
loglog = Link(
    "loglog",
    forward=lambda mu: -jnp.log(-jnp.log(mu)),
    inverse=lambda eta: jnp.exp(-jnp.exp(-eta)),
    exact=_loglog_exact,
    means=UNIT,
    infinite_at=(0.0, 1.0),
)
# 1/eta is monotone on either side of 0; a mean of either sign is allowed where the family allows it.
inverse = Link("inverse", forward=lambda mu: 1.0 / mu, inverse=lambda eta: 1.0 / eta, exact=_inverse_exact, infinite_at=(0.0,))
inverse_squared = Link(
    "inverse_squared",
    forward=lambda mu: mu**-2.0,
    inverse=lambda eta: eta**-0.5,
    exact=_inverse_squared_exact,
    means=POSITIVE,
    etas=POSITIVE,
    infinite_at=(0.0,),
)
sqrt = Link("sqrt", forward=jnp.sqrt, inverse=jnp.square, exact=_sqrt_exact, means=POSITIVE, etas=POSITIVE)

_NAMED = {link.name: link for link in (identity, log, logit, probit, cloglog, loglog, cauchit, inverse, inverse_squared, sqrt)}


def _power_forward(mu: ArrayLike, exponent: ArrayLike) -> Array:
    return jnp.asarray(mu) ** exponent


def _power_inverse(eta: ArrayLike, exponent: ArrayLike) -> Array:
    return jnp.asarray(eta) ** (1.0 / exponent)


def Power(exponent: float) -> Link:
    """The link eta = mu ** exponent, for positive means. Exponent 0 is `log`, exponent 1 `identity`.

    R's `power` is the log link for every negative exponent; this one is what it says.

    >>> from jaxglm import links
    >>> float(links.Power(0.5)(9.0))
    3.0
    """
    if isinstance(exponent, (int, float)):
        if not math.isfinite(exponent):
            raise ValueError(f"a power link needs a finite exponent, not {exponent!r}")
        if exponent in (0, 1):
            return identity if exponent == 1 else log
        exponent = float(exponent)
    return Link(
        "power",
        forward=_power_forward,
        inverse=_power_inverse,
        exact=_power_exact,
        means=POSITIVE,
        etas=POSITIVE,
        infinite_at=() if isinstance(exponent, float) and exponent > 0 else (0.0,),
        parameters={"exponent": exponent},
    )


def named(link: str | Link) -> Link:
    """The link with this name; a `Link` is returned as it is. Raises ValueError with the names there are."""
    if isinstance(link, Link):
        return link
    if not isinstance(link, str):
        raise TypeError(f"a link is a name or a value of jaxglm.links, not {type(link).__name__}")
    if link not in _NAMED:
        raise ValueError(f"there is no link {link!r}.{did_you_mean(link, _NAMED)} Links: {', '.join(_NAMED)}, links.Power(k)")
    return _NAMED[link]
