"""Tweedie fits whose power is estimated by profile likelihood, between 1 and 2.

For every power the coefficients are those of the fit with that power, and the dispersion is the one that makes these
responses most likely (`tweedie_density`), not Pearson's. What is left is a likelihood of the power alone, as R's
`tweedie.profile` has it. It is computed for all groups at once, at a grid of powers first, and between the neighbours of
each group's best one goes on to the zero of its derivative. Because coefficients and dispersion are at their maximum, that
derivative is the one at fixed means and dispersion, which a single look at the rows gives.

The standard error is from the profile's curvature, and so takes in what is lost by estimating coefficients and dispersion.

The log-likelihood of such a fit is the profile's maximum, and AIC and BIC count the power and the dispersion. `dispersion`
and standard errors of coefficients rest on Pearson's statistic at the estimated power, as those of a given power do.

Where the likelihood rises towards an end, the power is that end, and its error NaN. At 2, for responses without zeros, the
fit is a gamma fit and the likelihood gamma's. At 1 it is that of quasi-Poisson, and the likelihood NaN: there the responses
lie on a grid, as counts do, and densities have no limit. The likelihood is looked at from 1.02 to 1.98 (with zeros among the
responses as near to 2 as it takes); it may have more than one maximum, near 1 above all, and that of the grid's best power
is meant.

The power is NaN where the rows say nothing of it: zeros throughout, no residual degrees of freedom, responses that are fitted
exactly; such groups are fitted with power 1.5. Rows that a separated group moves to its limits say nothing, and are left out.

Sources: Dunn and Smyth (2005), section 7; R's tweedie, `tweedie.profile`; Jorgensen, The Theory of Dispersion Models (1997).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxglm import fitting
from jaxglm.family import Family
from jaxglm.irls.solution import Solution, is_lost, store
from jaxglm.irls.working import where_present
from jaxglm.limits import remaining
from jaxglm.packing import gather
from jaxglm.passes import over_fits
from jaxglm.rows import Rows, Totals, fold
from jaxglm.status import Status
from jaxglm.task import Task
from jaxglm.tweedie_density import Saturated, saturated

MIDDLE = 1.5  # the power of the fits that come first
GRID = np.array([1.02, 1.06, 1.12, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7, 1.8, 1.88, 1.94, 1.98])
NEAREST = 2.0 - 1e-5  # to 2, where zeros keep the power from it
STEPS = 60  # towards a root, each at least a bisection
CLOSE = 1e-8  # of a standard error, what a step has left
ASIDE = 1e-3  # of the distance to the nearer end: where the curvature is taken from
PERFECT = 1e-12  # of the null deviance, what is less is an exact fit
NEWTON, MOVE = 25, 1.5  # of log(phi): steps, and the longest
SETTLED, ROUGHLY = 1e-5, 0.01  # the last, in standard errors, of which the error is the square; on the grid


@dataclass(frozen=True)
class Fitted:
    """A solution at the estimates; the powers and their standard errors, (g,)."""

    solution: Solution
    power: np.ndarray
    standard_errors: np.ndarray

    def of(self, family: Family) -> Family:
        """A family with the estimates."""
        return family.with_parameters(power=self.power)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Profile:
    """The profile at a power: value, minus infinity where it cannot be had; slope, by power; zeros: how many there are; lift:
    the logarithm of the dispersion over Pearson's, which hardly changes with the power."""

    value: Any
    slope: Any
    zeros: Any
    lift: Any


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Known:
    """What is known of powers, (g,): the power, NaN where nothing is; its standard error; the profile's maximum."""

    power: Any
    error: Any
    likelihood: Any


@dataclass(frozen=True)
class Bracket:
    """Where the zero of each group's slope is looked for, (g,): powers, slope and its derivative `bend` there; the zero is
    between `low`, where the slope is positive, and `high`."""

    power: np.ndarray
    slope: np.ndarray
    bend: np.ndarray
    low: np.ndarray
    high: np.ndarray


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class _Start:
    """Of a fit at some power: coefficients, (p,), zero where aliased; log of Pearson's dispersion; lift: see `Profile`;
    settled: how short the last step must be."""

    coefficients: Any
    log_pearson: Any
    lift: Any
    settled: Any


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class _Search:
    """Where the dispersion's maximum is looked for: log(phi), the length of the last step, the number of steps."""

    log_phi: Array
    length: Array
    steps: Array


def fit(task: Task, progress: fitting.Progress | None = None) -> Fitted:
    """Fit every group of a task whose family leaves the power to be estimated. Raises ValueError with a penalty or bias
    reduction, under which coefficients are not at the likelihood's maximum."""
    if task.penalty is not None or task.net is not None or task.bias_reduction is not None:
        raise ValueError(
            "a Tweedie power is estimated by the likelihood of fits without penalty= and bias_reduction=. Leave these out, or "
            "give the power, for example the one found without them"
        )
    middle = replace(task, family=task.family.given(power=MIDDLE))
    known = _of_all(middle, fitting.fit(middle))
    power = np.where(np.isnan(known.power), MIDDLE, known.power)
    solution = fitting.fit(replace(task, family=task.family.given(power=power)), progress)
    lost = is_lost(solution.status)
    solution.log_likelihood[:] = np.where(lost, np.nan, known.likelihood)
    return Fitted(solution, np.where(lost, np.nan, known.power), np.where(lost, np.nan, known.error))


def _nothing(g: int) -> Known:
    return Known(*(np.full(g, np.nan) for _ in range(3)))


def _of_all(task: Task, base: Solution) -> Known:
    """What is known of all groups, from their fits at the middle."""
    known = _nothing(len(base.status))
    told = (base.n_obs > base.rank) & (base.deviance > PERFECT * base.null_deviance)
    groups = np.flatnonzero((base.status == Status.CONVERGED) & told)
    if len(groups):
        everyone = len(groups) == len(base.status)
        store(known, groups, _estimate(task if everyone else task.subset(gather(task.source, groups), groups)))
    separated = np.flatnonzero(base.status == Status.SEPARATED)
    if len(separated):
        rest = remaining(task, base, separated)
        found = fitting.fit(rest)
        again = found.status == Status.SEPARATED  # a direction that the first has left alone moves no row that it has not
        found.status[again] = Status.STEP_FAILED
        store(known, separated, _of_all(rest, found))
    return known


def _estimate(task: Task) -> Known:
    """The powers of groups whose rows say something of them."""
    g, last = len(task.source.sizes), len(GRID) - 1
    everyone = np.arange(g)
    grid: list[Profile] = []
    for value in GRID:
        grid.append(profile(task, np.full(g, value), lift=grid[-1].lift if grid else None, settled=ROUGHLY))
    values, slopes = np.stack([at.value for at in grid]), np.stack([at.slope for at in grid])
    zeros = grid[0].zeros > 0
    best = values.argmax(axis=0)
    slope, sound = slopes[best, everyone], np.isfinite(values.max(axis=0))
    power = GRID[best]
    low = np.where(slope > 0, power, GRID[np.maximum(best - 1, 0)])
    high = np.where(slope > 0, np.where(best < last, GRID[np.minimum(best + 1, last)], NEAREST), power)
    at_one = sound & (best == 0) & (slope <= 0)
    at_two = sound & (best == last) & (slope >= 0) & ~zeros
    below, above = np.maximum(best - 1, 0), np.minimum(best + 1, last)
    bend = (slopes[above, everyone] - slopes[below, everyone]) / (GRID[above] - GRID[below])
    inside = sound & ~at_one & ~at_two
    lift = np.stack([at.lift for at in grid])[best, everyone]
    power = _roots(task, Bracket(np.where(inside, power, MIDDLE), slope, bend, low, high), lift, inside)
    power = np.where(at_one, 1.0, np.where(at_two, 2.0, power))
    return _known(task, power, lift, sound, inside)


def _roots(task: Task, begin: Bracket, lift: np.ndarray, active: np.ndarray) -> np.ndarray:
    """Zeros of the slope of groups that are `active`: by the secant of the last two powers, or where that leads outside,
    halfway."""
    power, slope, bend, low, high = begin.power, begin.slope, begin.bend, begin.low, begin.high
    for _ in range(STEPS):
        with np.errstate(divide="ignore", invalid="ignore"):
            target = np.where(bend < 0, power - slope / bend, np.nan)
        secant = (target > low) & (target < high)
        target = np.where(secant, target, 0.5 * (low + high))
        unit = np.sqrt(np.abs(np.where(np.isfinite(bend), bend, 1.0)))
        active = active & (np.where(secant, np.abs(target - power), high - low) * unit > CLOSE)
        if not active.any():
            break
        target = np.where(active, target, power)
        new = profile(task, target, active, lift).slope
        with np.errstate(divide="ignore", invalid="ignore"):
            bend = np.where(active, (new - slope) / (target - power), bend)
        up = new > 0
        low, high = np.where(active & up, target, low), np.where(active & ~up, target, high)
        power, slope = target, np.where(active, new, slope)
    return power


def _known(task: Task, power: np.ndarray, lift: np.ndarray, sound: np.ndarray, inside: np.ndarray) -> Known:
    """What the profile says at its maximum."""
    value = profile(task, np.where(sound & (power > 1), power, MIDDLE), sound, lift).value
    aside = ASIDE * np.minimum(power - 1.0, 2.0 - power)
    above, below = (profile(task, np.where(inside, power + side, MIDDLE), inside, lift).slope for side in (aside, -aside))
    with np.errstate(divide="ignore", invalid="ignore"):
        curvature = (above - below) / (2.0 * aside)
        error = np.where(inside & (curvature < 0), 1.0 / np.sqrt(-curvature), np.nan)
    return Known(np.where(sound, power, np.nan), error, np.where(sound & (power > 1), value, np.nan))


def profile(
    task: Task, power: np.ndarray, which: np.ndarray | None = None, lift: np.ndarray | None = None, settled: float = SETTLED
) -> Profile:
    """The profile of all groups, or of those flagged, at these powers in (1, 2], (g,). lift: where the dispersion's maximum is
    looked for first."""
    at = replace(task, family=task.family.with_parameters(power=power), start=None)
    found = fitting.fit(at)
    sound = (found.status == Status.CONVERGED) & (found.dispersion > 0)
    near = np.zeros(len(sound)) if lift is None else np.where(np.isfinite(lift), lift, 0.0)
    log_pearson = np.log(np.where(sound, found.dispersion, 1.0))
    start = _Start(np.nan_to_num(found.coefficients), log_pearson, near, np.full(len(near), settled))
    seen: Profile = over_fits(profile_of_rows, at, start, sound if which is None else sound & which)
    return replace(seen, value=np.where(sound & np.isfinite(seen.value), seen.value, -np.inf))


def profile_of_rows(rows: Rows, family: Family, start: _Start) -> Profile:
    """The profile of one fit at its power and the coefficients that are best for it."""

    def of(part: Rows, log_phi: Array, power: Array) -> Saturated:
        # The log-likelihood of some rows and its derivatives by log(phi), added up.
        eta = where_present(family, part, part.eta(start.coefficients))
        prior = jnp.maximum(part.weights, 0.0)
        precision = jnp.where(part.present, prior, 1.0) * jnp.exp(-log_phi)
        shared = 0.5 * precision * family.unit_deviance(part.y, family.link.mean(eta), power=power)
        alone = saturated(part.y, precision, power)
        whole = Saturated(alone.value - shared, alone.first + shared, alone.second - shared)
        return jax.tree.map(lambda each: jnp.sum(jnp.where(part.present, each, 0.0)), whole)

    power = jnp.asarray(family.parameters["power"], start.lift.dtype)

    def step(at: _Search) -> _Search:
        seen: Saturated = fold(rows, lambda part: Totals(of(part, at.log_phi, power))).sums
        first, second = seen.first, seen.second
        unit = jnp.where(second < 0, second, -1.0)
        move = jnp.clip(jnp.where(second < 0, -first / unit, jnp.sign(first)), -MOVE, MOVE)
        return _Search(at.log_phi + move, jnp.abs(move) * jnp.sqrt(-unit), at.steps + 1)

    zero = jnp.zeros_like(start.lift)
    search = _Search(start.log_pearson + start.lift, zero + jnp.inf, jnp.zeros((), jnp.int32))
    search = jax.lax.while_loop(lambda at: (at.length > start.settled) & (at.steps < NEWTON), step, search)
    settled = search.length <= start.settled

    def last(part: Rows) -> Totals:
        value, slope = jax.jvp(lambda p: of(part, search.log_phi, p).value, (power,), (jnp.ones_like(power),))
        return Totals((value, slope, jnp.sum(part.present & (part.y == 0), dtype=value.dtype)))

    value, slope, zeros = fold(rows, last).sums
    return Profile(jnp.where(settled, value, -jnp.inf), slope, zeros, search.log_phi - start.log_pearson)
