"""Does a family mean what it says? Every formula of a family held against automatic differentiation.

A family gives several functions that must agree with each other: the score is a derivative of the deviance and also a
quotient with the variance function in it, the weight is its Fisher information, the log-likelihood has the score as its
derivative. A slip in one of them still gives a fit, only a wrong one. `check_family` evaluates all of them on a grid of
responses and linear predictors, in float64, and compares each with what automatic differentiation makes of the others;
then it does the same arithmetic in float32 to see whether the formulas survive there.

Source: McCullagh and Nelder, Generalized Linear Models (1989), sections 2.2 and 9.2, for the identities.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxglm.family import Family
from jaxglm.links import ArrayLike, Interval, Mean

TOLERANCE = 1e-7  # what autodiff of a sound formula keeps in float64
TOLERANCE_32 = 1e-4
CANCELLING = 0.01  # differences are measured against their result plus this fraction of their parts
RANGE_32 = (1e-30, 1e30)  # beyond, float32 has no digits to give
REACH_32 = 50.0  # how far out eta goes in float32
FAR = (10.0, 100.0, 1e3, 1e4)


class Place(NamedTuple):
    """Where the largest error was: the response and linear predictor (None if they play no part), and both values."""

    y: float | None
    eta: float | None
    found: float
    expected: float | None

    def __str__(self) -> str:
        at = ", ".join(f"{name} = {v:.6g}" for name, v in (("y", self.y), ("eta", self.eta)) if v is not None)
        return f"at {at}: {self.found:.9g}, should be {'finite' if self.expected is None else f'{self.expected:.9g}'}"


class Check(NamedTuple):
    """One identity: its name, whether it holds, the largest error, relative and without unit, and where that was."""

    name: str
    passed: bool
    error: float
    where: Place | None


@dataclass(frozen=True)
class Report:
    """What `check_family` found: true if all checks passed, and a table when printed."""

    family: str
    checks: tuple[Check, ...]

    def __bool__(self) -> bool:
        return all(check.passed for check in self.checks)

    def __getitem__(self, name: str) -> Check:
        """The check with this name."""
        return {check.name: check for check in self.checks}[name]

    @property
    def failures(self) -> tuple[str, ...]:
        """The names of the checks that failed."""
        return tuple(check.name for check in self.checks if not check.passed)

    def __str__(self) -> str:
        bad = len(self.failures)
        verdict = f"{bad} of {len(self.checks)} checks FAILED" if bad else f"all {len(self.checks)} checks ok"
        width = max(len(check.name) for check in self.checks)
        lines = [f"{self.family}: {verdict}", f"  {'check':<{width}}  {'result':<6}  largest error"]
        for check in self.checks:
            line = f"  {check.name:<{width}}  {'ok' if check.passed else 'FAILED':<6}  {check.error:13.1e}"
            lines.append(line if check.passed or check.where is None else f"{line}  {check.where}")
        return "\n".join(lines)

    __repr__ = __str__


@dataclass(frozen=True)
class _Grid:
    """All pairs of a response and a linear predictor, flat, in float64. middle: an eta well inside the domain."""

    family: Family
    family32: Family
    y: Array
    eta: Array
    mean: Mean
    responses: Array
    etas: Array
    middle: float

    @property
    def variance(self) -> Array:
        return self.family.variance_at(self.mean.mu)

    @property
    def parts(self) -> Array:
        """The size of the two terms whose difference is the score."""
        return (jnp.abs(self.y) + jnp.abs(self.mean.mu)) * jnp.abs(self.mean.dmu_deta) / self.variance


def check_family(family: Family, responses: ArrayLike | None = None, eta: ArrayLike | None = None) -> Report:
    """Hold a family, with its link, against automatic differentiation.

    responses, eta: values to check at; if not given, grids that cover the family's and the link's domains. Of shape
    parameters with one value a fit, the first is used. Returns a `Report`, which is true if everything agrees and prints
    as a table. Raises TypeError for what is not a `Family`, ValueError if no value given is valid for it.

    >>> from dataclasses import replace
    >>> from jaxglm import check_family, families
    >>> bool(check_family(families.Poisson()))
    True
    >>> check_family(replace(families.Poisson(), variance=lambda mu: mu**2)).failures
    ('variance: curvature of deviance', 'score: (y - mu) dmu/deta / V', 'weight: (dmu/deta)^2 / V')
    """
    if not isinstance(family, Family):
        raise TypeError(f"check_family takes a value of jaxglm.families, such as families.Poisson(), not {family!r}")
    with jax.enable_x64(True):
        grid = _grid(family, responses, eta)
        return Report(repr(family), tuple(check for part in _PARTS for check in part(grid)))


def _first(family: Family, dtype: Any) -> Family:
    """The family of the first fit, its shape parameters in this floating-point type."""
    for name, value in [*family.parameters.items(), *family.link.parameters.items()]:
        if isinstance(value, str):
            raise TypeError(f"{name} is the column {value!r} of a table; check the family with a number in its place")
        if isinstance(value, float) and math.isnan(value):
            raise ValueError(f"{name} is to be estimated; check the family with a number in its place")
    return jax.tree.map(lambda leaf: jnp.asarray(np.ravel(np.asarray(leaf))[0], dtype), family)


def _grid(family: Family, responses: ArrayLike | None, eta: ArrayLike | None) -> _Grid:
    family64 = _first(family, jnp.float64)
    both = _intersection(family.means, family.link.means)
    if not both.lower < both.upper:
        raise ValueError(f"no mean is valid for both: the family's are {family.means}, the link's {family.link.means}")
    etas = family64.link(jnp.asarray(_points(both))) if eta is None else jnp.ravel(jnp.asarray(eta, jnp.float64))
    y = jnp.asarray(_responses(family.responses) if responses is None else np.ravel(np.asarray(responses, np.float64)))
    mu = family64.link.mean(etas).mu
    etas = _valid_only("eta", etas, family64.valid_mean_at(etas, mu) & both.contains(mu))
    y = _valid_only("response", y, family64.valid_response_at(y))
    pair_y, pair_eta = jnp.repeat(y, len(etas)), jnp.tile(etas, len(y))
    mean = family64.link.mean(pair_eta)
    return _Grid(family64, _first(family, jnp.float32), pair_y, pair_eta, mean, y, etas, float(etas[len(etas) // 2]))


def _intersection(a: Interval, b: Interval) -> Interval:
    return Interval(max(a.lower, b.lower), min(a.upper, b.upper))


def _valid_only(name: str, values: Array, valid: Array) -> Array:
    """Values with the invalid ones replaced by a valid one, which keeps the shape."""
    if not bool(jnp.any(valid)):
        raise ValueError(f"no {name} given is valid for the family")
    places = np.flatnonzero(np.asarray(valid))
    return jnp.where(valid, values, values[places[len(places) // 2]])


def _points(interval: Interval) -> np.ndarray:
    """64 numbers inside an interval, dense towards its ends."""
    lower, upper = interval.lower, interval.upper
    if math.isfinite(lower) and math.isfinite(upper):
        return lower + (upper - lower) / (1.0 + np.exp(-np.linspace(-9.0, 9.0, 64)))
    far = np.geomspace(1e-2, 1e2, 64)
    if math.isfinite(lower):
        return lower + far
    if math.isfinite(upper):
        return upper - far
    half = np.geomspace(1e-2, 1e2, 32)
    return np.concatenate([-half[::-1], half])


def _responses(interval: Interval) -> np.ndarray:
    """A dozen responses, whole and not, with the end points that belong to the interval."""
    lower, upper = interval.lower, interval.upper
    if math.isfinite(lower) and math.isfinite(upper):
        return lower + (upper - lower) * np.array([0.0, 1e-3, 0.02, 0.1, 0.25, 0.4, 0.5, 2.0 / 3.0, 0.8, 0.95, 0.999, 1.0])
    counts = np.array([0.0, 0.01, 0.3, 0.5, 1.0, 1.7, 2.0, 3.0, 7.5, 12.0, 40.0, 150.0])
    if math.isfinite(lower):
        return lower + counts
    return upper - counts if math.isfinite(upper) else counts * np.resize([1.0, -1.0], len(counts))


def _derivative(function: Callable[[Array], Array], at: Array) -> Array:
    return jax.jvp(function, (at,), (jnp.ones_like(at),))[1]


def _compare(
    name: str,
    found: ArrayLike,
    expected: ArrayLike,
    y: Array | None,
    eta: Array | None,
    *,
    parts: ArrayLike = 0.0,
    where: ArrayLike = True,
    tolerance: float = TOLERANCE,
) -> Check:
    """The largest error of `found`, relative to `expected` plus the `parts` that it is a difference of."""
    a, b, size, use = np.broadcast_arrays(*(np.asarray(v) for v in (found, expected, parts, where)))
    with np.errstate(all="ignore"):
        error = np.abs(a - b) / (np.abs(b) + CANCELLING * np.abs(size))
    error = np.where(a == b, 0.0, np.where(np.isnan(error), np.inf, error))
    error = np.where(use, error, 0.0)
    i = int(np.argmax(error))
    place = Place(_entry(y, i), _entry(eta, i), float(a[i]), float(b[i]))
    return Check(name, bool(error[i] <= tolerance), float(error[i]), place)


def _entry(values: Array | None, i: int) -> float | None:
    return None if values is None else float(values[i])


def _worst(name: str, checks: list[Check]) -> Check:
    return max(checks, key=lambda check: (not check.passed, check.error))._replace(name=name)


def _finite(name: str, values: Array, y: Array, eta: Array, where: ArrayLike = True) -> Check:
    sound = np.isfinite(np.asarray(values)) | ~np.asarray(where)
    i = int(np.argmin(sound))
    place = Place(float(y[i]), float(eta[i]), float(values[i]), None)
    return Check(name, bool(sound.all()), 0.0 if sound.all() else math.inf, place)


def _positive(name: str, values: Array, y: Array | None, eta: Array, slack: float = 0.0) -> Check:
    """Whether all values are above minus `slack`; the error is the worst one."""
    plain = np.asarray(values)
    i = int(np.argmin(np.where(np.isnan(plain), -np.inf, plain)))
    place = Place(_entry(y, i), _entry(eta, i), float(plain[i]), 0.0)
    return Check(name, bool(plain[i] > -slack), max(0.0, -float(plain[i])), place)


def _link_checks(grid: _Grid) -> list[Check]:
    link, eta = grid.family.link, grid.etas
    mean = link.mean(eta)
    mu = mean.mu

    def plain(e: Array) -> Array:
        return link.inverse(e, **link.parameters)

    slope = mean.dmu_deta
    away = jnp.abs(1.0 - mu) > 1e-6
    forms = [
        _compare("mu", mu, plain(eta), None, eta),
        _compare("complement", mean.complement, 1.0 - mu, None, eta, parts=1.0),
        _compare("log_mu", jnp.exp(mean.log_mu), mu, None, eta, where=mu > 0),
        _compare("log_complement", jnp.exp(mean.log_complement), 1.0 - mu, None, eta, where=mu < 1),
        _compare("dlog_mu", mean.dlog_mu, mean.dmu_deta / mu, None, eta, where=mu != 0),
        _compare("dlog_complement", mean.dlog_complement, mean.dmu_deta / (1.0 - mu), None, eta, where=away),
    ]
    ends = jnp.asarray(link.infinite_at, jnp.float64)
    checks = [
        _compare("link: inverse undoes forward", plain(link(mu)), mu, None, eta),
        _compare("link: derivative of inverse", mean.dmu_deta, _derivative(plain, eta), None, eta),
        _positive("link: monotone", slope * jnp.sign(slope[len(slope) // 2]), None, eta),
        _worst("link: forms of the mean", forms),
    ]
    if link.infinite_at:
        checks.append(_compare("link: infinite where it says so", jnp.abs(link(ends)), math.inf, ends, None))
    return checks


def _variance_checks(grid: _Grid) -> list[Check]:
    family, eta = grid.family, grid.etas
    mu = family.link.mean(eta).mu
    variance = family.variance_at(mu)
    checks = [_positive("variance: positive", variance, None, eta)]

    def slope(m: Array) -> Array:
        return _derivative(lambda n: family.unit_deviance_at(mu, Mean.at(n)), m)

    curvature = _derivative(slope, mu)
    valid = family.valid_response_at(mu)
    checks.append(_compare("variance: curvature of deviance", curvature, 2.0 / variance, mu, eta, where=valid))
    return checks


def _score_checks(grid: _Grid) -> list[Check]:
    family, y, eta, mean = grid.family, grid.y, grid.eta, grid.mean
    score, weight = family.score_at(y, mean), family.weight_at(mean)
    fall = -0.5 * _derivative(lambda e: family.unit_deviance_at(y, family.link.mean(e)), eta)
    quotient = (y - mean.mu) * mean.dmu_deta / grid.variance
    drop = -_derivative(lambda e: family.loss_at(y, family.link.mean(e)), eta)
    checks = [
        _compare("score: derivative of deviance", score, fall, y, eta, parts=grid.parts),
        _compare("loss: its derivative is minus the score", drop, score, y, eta, parts=grid.parts),
        _compare("score: (y - mu) dmu/deta / V", score, quotient, y, eta, parts=grid.parts),
    ]
    if family.log_likelihood is not None:
        weights, dispersion = jnp.full_like(y, 3.0), family.dispersion or 0.7
        rise = _derivative(lambda e: family.log_likelihood_at(y, family.link.mean(e), weights, dispersion), eta)
        scaled = weights * score / dispersion
        checks.append(_compare("score: derivative of log-likelihood", scaled, rise, y, eta, parts=grid.parts))
    checks.append(_compare("weight: (dmu/deta)^2 / V", weight, mean.dmu_deta**2 / grid.variance, y, eta))
    if family.is_canonical:
        observed = family.observed_weight_at(y, eta)
        size = weight + grid.parts
        checks.append(_compare("weight: observed where canonical", observed, weight, y, eta, parts=size))
    return checks


def _deviance_checks(grid: _Grid) -> list[Check]:
    family, y, eta, mean = grid.family, grid.y, grid.eta, grid.mean
    own = family.link.mean(grid.etas)
    size = own.mu**2 / family.variance_at(own.mu) / CANCELLING
    deviance = family.unit_deviance_at(y, mean)
    scaled = deviance / ((y**2 + mean.mu**2) / grid.variance)
    valid = family.valid_response_at(own.mu)
    at_mean = family.unit_deviance_at(own.mu, own)
    checks = [
        _compare("deviance: zero at the mean", at_mean, 0.0, own.mu, grid.etas, parts=size, where=valid),
        _positive("deviance: not negative", scaled, y, eta, slack=TOLERANCE),
        _finite("deviance: finite", deviance, y, eta),
    ]
    rising = bool(own.dmu_deta[len(own.mu) // 2] > 0)
    for y_end, side in ((family.responses.lower, -1.0), (family.responses.upper, 1.0)):
        if y_end not in family.link.infinite_at or not bool(family.valid_response_at(jnp.asarray(y_end))):
            continue
        far = jnp.asarray(FAR) * (side if rising else -side)
        limit = family.link.mean(far)
        ends = jnp.full_like(far, y_end)
        valid = family.valid_mean_at(far, limit.mu)
        values = jnp.where(valid, family.unit_deviance_at(ends, limit), 0.0)
        checks.append(_finite(f"deviance: finite towards {y_end:g}", values, ends, far))
    return checks


def _start_checks(grid: _Grid) -> list[Check]:
    family, y = grid.family, grid.responses
    means = family.means
    start = jnp.concatenate([family.start_at(y, jnp.full_like(y, w)) for w in (1.0, 0.25, 40.0)])
    valid = np.asarray(means.contains(start) & jnp.isfinite(start))
    i = int(np.argmin(valid))
    nearest = float(np.clip(start[i], means.lower, means.upper))
    place = Place(float(y[i % len(y)]), None, float(start[i]), nearest)
    return [Check("start: a valid mean", bool(valid.all()), 0.0 if valid.all() else math.inf, place)]


def _broad_checks(grid: _Grid) -> list[Check]:
    """Score and weight in float32 against float64 at the same numbers, and observed weights, which the derivatives of a
    fit need, in both; out to where the mean or V leave float32."""
    family, family32 = grid.family, grid.family32
    wide = jnp.concatenate([grid.etas, jnp.linspace(-REACH_32, REACH_32, 41)])
    wide = wide.astype(jnp.float32).astype(jnp.float64)
    mu = family.link.mean(wide).mu
    inside = family.valid_mean_at(wide, mu) & (jnp.abs(wide) <= REACH_32) & _representable(mu)
    wide = jnp.where(inside, wide, jnp.asarray(grid.middle).astype(jnp.float32).astype(jnp.float64))
    y = jnp.repeat(grid.responses, len(wide)).astype(jnp.float32).astype(jnp.float64)
    eta = jnp.tile(wide, len(grid.responses))
    mean, mean32 = family.link.mean(eta), family32.link.mean(eta.astype(jnp.float32))
    y32, eta32 = y.astype(jnp.float32), eta.astype(jnp.float32)
    score, weight = family.score_at(y, mean), family.weight_at(mean)
    score32, weight32 = family32.score_at(y32, mean32), family32.weight_at(mean32)
    observed, observed32 = family.observed_weight_at(y, eta), family32.observed_weight_at(y32, eta32)
    usable = _representable(mean.dmu_deta) & _representable(weight) & _representable(mean.dmu_deta**2 / weight)
    # The derivative of a quotient squares its denominator.
    moderate = usable & _representable((mean.dmu_deta**2 / weight) ** 2) & _representable(mean.mu**2 * (1.0 + observed**2))
    ends = (y == family.responses.lower) | (y == family.responses.upper)
    distinct = ends | (jnp.abs(y - mean.mu) > 0.1 * (jnp.abs(y) + jnp.abs(mean.mu)))
    use = usable & distinct & _representable(score) & family.valid_response_at(y)
    return [
        _finite("weight: observed is finite", observed, y, eta, jnp.isfinite(score) & jnp.isfinite(weight)),
        _finite("float32: observed weight is finite", observed32, y, eta, moderate),
        _compare("float32: score", score32, score, y, eta, where=use, tolerance=TOLERANCE_32),
        _compare("float32: weight", weight32, weight, None, eta, where=usable, tolerance=TOLERANCE_32),
    ]


def _representable(values: Array) -> Array:
    return (jnp.abs(values) > RANGE_32[0]) & (jnp.abs(values) < RANGE_32[1])


_PARTS = (_link_checks, _variance_checks, _score_checks, _deviance_checks, _start_checks, _broad_checks)
