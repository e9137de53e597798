"""One table of cases that feeds all tests: every family with each of its links, and how to draw data for it.

A case fixes a linear predictor well inside the link's domain and a distribution for the responses, so that the optimum is
interior and the fit is unremarkable. What is remarkable has tests of its own.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxglm import families, links
from jaxglm.family import Family

N, P = 48, 3

softplus = links.Link(
    "softplus",
    forward=lambda mu: mu + jnp.log(-jnp.expm1(-mu)),
    inverse=lambda eta: jnp.logaddexp(eta, 0.0),
    means=links.POSITIVE,
    infinite_at=(0.0,),
)


def _root_deviance(y, mean):
    """The unit deviance of V(mu) = sqrt(mu): 2 times the integral from mu to y of (y - t) / sqrt(t)."""
    return 2.0 * (4.0 / 3.0 * y**1.5 - 2.0 * y * jnp.sqrt(mean.mu) + 2.0 / 3.0 * mean.mu**1.5)


own_family = Family(
    "root",
    link=softplus,
    variance=jnp.sqrt,
    unit_deviance=_root_deviance,
    start=lambda y, weights: y + 0.1,
    responses=families.NONNEGATIVE,
    means=links.POSITIVE,
)


class Data(NamedTuple):
    """A data set of N rows and P columns, and the coefficients that it was drawn from."""

    X: np.ndarray
    y: np.ndarray
    weights: np.ndarray
    offset: np.ndarray
    coefficients: np.ndarray


@dataclass(frozen=True, eq=False)
class Case:
    """A family with its link; eta = coefficients[0] + coefficients[1] x + coefficients[2] z, |x| <= 1 and z in {0, 1};
    draw(rng, mu, weights): responses with these means."""

    name: str
    family: Family
    coefficients: tuple[float, float, float]
    draw: Callable[[np.random.Generator, np.ndarray, np.ndarray], np.ndarray]
    trials: bool = False

    def __str__(self) -> str:
        return self.name


def _normal(rng, mu, weights):
    return mu + 0.1 * rng.normal(size=mu.shape) / np.sqrt(weights)


def _proportion(rng, mu, weights):
    return rng.binomial(weights.astype(int), mu) / weights


def _poisson(rng, mu, weights):
    return rng.poisson(mu).astype(float)


def _gamma(rng, mu, weights):
    return rng.gamma(5.0 * weights, mu / (5.0 * weights))


def _inverse_gaussian(rng, mu, weights):
    return rng.wald(mu, 8.0 * weights)


def _negative_binomial(rng, mu, weights):
    return rng.poisson(rng.gamma(2.0, mu / 2.0)).astype(float)


def _compound(rng, mu, weights):
    """A Poisson number of gamma variables, power 1.5, dispersion 1: some responses are exactly zero."""
    counts = rng.poisson(2.0 * np.sqrt(mu))
    return np.where(counts > 0, rng.gamma(np.maximum(counts, 1), np.sqrt(mu) / 2.0), 0.0)


_PROPORTIONS = {
    "logit": (0.2, 0.6, -0.5),
    "probit": (0.2, 0.5, -0.4),
    "cauchit": (0.1, 0.5, -0.4),
    "log": (-1.2, 0.3, 0.2),
    "cloglog": (-0.4, 0.4, 0.3),
    "loglog": (0.4, 0.4, -0.3),
    "identity": (0.5, 0.15, -0.1),
}
_COUNTS = {"log": (1.2, 0.5, -0.4), "identity": (6.0, 2.0, 1.5), "sqrt": (2.5, 0.5, -0.4), "power": (1.8, 0.2, 0.2)}
_POSITIVES = {
    "inverse": (0.9, 0.3, 0.2),
    "identity": (3.0, 1.0, 0.5),
    "log": (0.8, 0.4, -0.3),
    "power": (1.6, 0.3, 0.2),
    "inverse_squared": (0.9, 0.3, 0.2),
}
_EXPONENT = 1.0 / 3.0


def _over(name, build, coefficients, draw, trials=False, only=None):
    """The cases of one family over its links."""
    chosen = coefficients if only is None else {link: coefficients[link] for link in only}
    for link, b in chosen.items():
        family = build(links.Power(_EXPONENT) if link == "power" else link)
        yield Case(f"{name}-{link}", family, b, draw, trials)


def _cases():
    g = {"identity": (1.0, 0.5, -0.3), "log": (0.5, 0.4, -0.3), "inverse": (0.9, 0.3, 0.2), "power": (1.6, 0.3, 0.2)}
    yield from _over("gaussian", families.Gaussian, g, _normal)
    yield from _over("binomial", families.Binomial, _PROPORTIONS, _proportion, trials=True)
    yield from _over("poisson", families.Poisson, _COUNTS, _poisson)
    yield from _over("gamma", families.Gamma, _POSITIVES, _gamma, only=("inverse", "identity", "log", "power"))
    four = ("inverse_squared", "inverse", "identity", "log")
    yield from _over("inverse_gaussian", families.InverseGaussian, _POSITIVES, _inverse_gaussian, only=four)
    nb = functools.partial(families.NegativeBinomial, 2.0)
    yield from _over("negative_binomial", nb, _COUNTS, _negative_binomial, only=("log", "sqrt", "identity"))
    tweedie = functools.partial(families.Tweedie, 1.5)
    yield from _over("tweedie", tweedie, _COUNTS, _compound, only=("log", "identity", "power"))
    yield from _over("quasibinomial", families.QuasiBinomial, _PROPORTIONS, _proportion, trials=True, only=("logit",))
    yield from _over("quasipoisson", families.QuasiPoisson, _COUNTS, _poisson, only=("log",))
    constant = functools.partial(families.Quasi, "constant")
    yield from _over("quasi", constant, _PROPORTIONS, _normal, only=("logit", "cauchit"))
    yield from _over("quasi-mu^0.5", functools.partial(families.Quasi, "mu^0.5"), _COUNTS, _poisson, only=("sqrt",))
    yield Case("own-softplus", own_family, (2.0, 0.8, -0.5), _poisson)
    yield Case("poisson-softplus", families.Poisson(softplus), (2.0, 0.8, -0.5), _poisson)


CASES = tuple(_cases())
BY_NAME = {case.name: case for case in CASES}

# A fit takes seconds to compile; the solver sees a family only through its score, weight and deviance, which are checked
# for all. So fits are made of every family, of nearly every link, and of what is known to be hard.
_SOLVED = """
gaussian-inverse binomial-logit binomial-probit binomial-log binomial-cloglog poisson-log poisson-identity poisson-sqrt
gamma-inverse inverse_gaussian-inverse_squared negative_binomial-log tweedie-log own-softplus
"""
SOLVED = tuple(BY_NAME[name] for name in _SOLVED.split())


@functools.cache
def simulate(case: Case, seed: int = 0) -> Data:
    """Draw a data set for a case. Weights are whole numbers: trials for proportions, from 1 to 3 for others."""
    rng = np.random.default_rng([seed, *case.name.encode()])
    X = np.column_stack([np.ones(N), rng.uniform(-1.0, 1.0, N), np.arange(N) % 2])
    weights = rng.integers(8, 20, N).astype(float) if case.trials else rng.integers(1, 4, N).astype(float)
    offset = rng.uniform(-0.05, 0.05, N)
    b = np.array(case.coefficients)
    with jax.enable_x64(True), jax.ensure_compile_time_eval():
        mu = np.asarray(case.family.link.mean(jnp.asarray(X @ b + offset)).mu)
    return Data(X, case.draw(rng, mu, weights), weights, offset, b)


def every_family() -> list[Family]:
    """All families with all their links, with several shape parameters and exponents of the power link."""
    found = [case.family for case in CASES]
    found += [families.Quasi("mu(1-mu)", links.Power(-1.5) if link == "power" else link) for link in families.LINKS["quasi"]]
    found += [families.Quasi(variance, "log") for variance in ("mu", "mu^2", "mu^3", "mu^1.3", "mu^0")]
    found += [families.Poisson(links.Power(k)) for k in (0.5, -0.5, 2.0)]
    found += [families.NegativeBinomial(theta) for theta in (0.3, 1e6, np.inf)]
    found += [families.Tweedie(power) for power in (1.0, 2.0, 3.0)]
    return [*found, families.QuasiPoisson("sqrt"), families.Gamma(softplus)]
