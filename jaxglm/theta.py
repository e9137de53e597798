"""Negative binomial fits whose theta is estimated: by maximum likelihood, or by the likelihood that Cox and Reid adjust.

A Poisson fit of every group comes first: it is where iteration begins, the limit theta = infinity, and it finds what is
separated or aliased, which no theta changes. Then `irls.joint` takes theta and coefficients to their optimum together. Rows
that a separated group moves to its limits say nothing of theta; they and the columns that only they determine are left
out. What the iteration leaves undecided is taken with all precautions (`_carefully`): from a grid of thetas, with the
coefficients at their optimum for each, to the root of the profile's derivative beside the best of them. Last, every group is
fitted at its theta, and all that is reported comes from there.

theta is infinite where the Poisson limit is best, as it is for counts that vary less than Poisson's. It is NaN where the
rows say nothing of it, as where all counts are zero. Where the adjusted likelihood rises for ever towards theta = 0, as it
may with few counts that are not zero, the fit gets the status MAX_ITERATIONS.

Its standard error is from the observed information at fixed means, as MASS's `theta.ml` has it; for the adjusted likelihood
with the adjustment's part. NaN where theta is infinite.

Sources: MASS's `glm.nb`; McCarthy, Chen and Smyth (2012), equations of section 2; see `irls.joint`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import numpy as np

from jaxglm import fitting
from jaxglm.aligned import placed
from jaxglm.calls import arithmetic, calls_of
from jaxglm.devices import default_device
from jaxglm.family import Family
from jaxglm.irls.blocks import shares
from jaxglm.irls.joint import Estimate, Group, Point, Seen, estimate_shared, estimate_tiles, profile_tiles
from jaxglm.irls.solution import Solution, is_lost, store
from jaxglm.limits import remaining
from jaxglm.packing import EMPTY, Call, Crossed, Stacked, gather, owners, reweighted, tiles
from jaxglm.status import Status
from jaxglm.task import Task
from jaxglm.threads import in_threads

CACHE, MEMORY = 2**13, 2**24  # counts in a block of fits that share a design, on a CPU and on a GPU
CALL = 2**19  # counts in a call of them
GRID = np.concatenate([[0.0], np.geomspace(1e-6, 1e8, 29)])  # of alpha times the mean response
STEPS = 60  # towards a root, each at least a bisection
CLOSE = 1e-10  # of a standard error, what a bracket has left


@dataclass(frozen=True)
class Fitted:
    """A solution at the estimates; theta and its standard errors, (g,)."""

    solution: Solution
    theta: np.ndarray
    standard_errors: np.ndarray

    def of(self, family: Family) -> Family:
        """A family with the estimates."""
        return family.with_parameters(theta=self.theta)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Known:
    """What is known of theta, (g,). alpha: 1 / theta, NaN where nothing is known; information: of alpha; open: whether the
    likelihood rises for ever with alpha; coefficients: (g, p), the best for it."""

    alpha: Any
    information: Any
    open: Any
    coefficients: Any


def fit(task: Task, progress: fitting.Progress | None = None) -> Fitted:
    """Fit every group of a task whose family leaves theta to be estimated."""
    if task.net is not None or task.bias_reduction is not None:
        raise ValueError(
            "theta is estimated beside estimates of maximum likelihood, or with a Ridge; with an ElasticNet or bias_reduction= "
            "give it, for example the one found without them: NegativeBinomial(theta=fit.theta)"
        )
    poisson = replace(task, family=task.family.given(theta=np.inf))
    base = fitting.fit(poisson)
    known = _estimate(poisson, base, task.family.estimator == "cox_reid")
    alpha = np.where(np.isnan(known.alpha), 0.0, known.alpha)
    with np.errstate(divide="ignore"):
        theta = 1.0 / alpha
    # Under the log link there is one optimum, and without starts the program is the one that made the Poisson fits.
    start = None if task.family.link.name == "log" else np.where(np.isnan(known.coefficients), 0.0, known.coefficients)
    solution = fitting.fit(replace(task, family=task.family.given(theta=theta), start=start), progress)
    open_ended = known.open & (solution.status == Status.CONVERGED)
    solution.status[open_ended] = Status.MAX_ITERATIONS
    solution.covariance[open_ended] = np.nan
    lost = np.isnan(known.alpha) | is_lost(solution.status)
    with np.errstate(invalid="ignore"):
        errors = np.where(alpha > 0, theta**2 / np.sqrt(known.information), np.nan)
    errors[lost | known.open] = np.nan
    return Fitted(solution, np.where(lost, np.nan, theta), errors)


def _nothing(g: int, p: int) -> Known:
    return Known(np.full(g, np.nan), np.full(g, np.nan), np.zeros(g, bool), np.full((g, p), np.nan))


def _estimate(task: Task, base: Solution, adjusted: bool) -> Known:
    """What is known of all groups, from their Poisson fits."""
    known = _nothing(*base.coefficients.shape)
    known.coefficients[:] = base.coefficients
    groups = np.flatnonzero(base.status == Status.CONVERGED)
    if len(groups):
        estimates = (_shared if _shares(task.source) else _ragged)(task, base, groups, adjusted)
        closed = np.zeros(len(groups), bool)
        store(known, groups, Known(estimates.alpha, estimates.information, closed, estimates.coefficients))
        doubtful = ~estimates.decided | (estimates.falls & (estimates.alpha > 0))
        if doubtful.any():
            some = groups[doubtful]
            store(known, some, _carefully(task, base, some, adjusted))
    separated = np.flatnonzero(base.status == Status.SEPARATED)
    if len(separated):
        store(known, separated, _of_the_rest(task, base, separated, adjusted))
    return known


def _of_the_rest(task: Task, base: Solution, groups: np.ndarray, adjusted: bool) -> Known:
    """What the rows say of separated groups that their directions leave alone."""
    inner = remaining(task, base, groups)
    found = fitting.fit(inner)
    again = found.status == Status.SEPARATED  # a direction that the first has left alone moves no row that it has not
    found.status[again] = Status.STEP_FAILED
    return _estimate(inner, found, adjusted)


def _shares(source: Any) -> bool:
    return isinstance(source, Crossed) and source.own is None and shares(source.X.shape)


def _group(task: Task, base: Solution, groups: np.ndarray) -> Group:
    """What the groups have besides rows."""
    if task.penalty is not None and task.penalty.ndim == 3:
        raise ValueError("theta cannot be estimated with a penalty that is a matrix; give theta, or strengths for the columns")
    penalty = None if task.penalty is None else np.broadcast_to(task.penalty, base.coefficients.shape)[groups]
    keep, start = ~base.aliased[groups], base.coefficients[groups]
    family = jax.tree.map(lambda leaf: np.broadcast_to(np.asarray(leaf, float), len(base.status))[groups], task.family)
    return Group(family, penalty, keep, np.where(keep, start, 0.0))


def _padded(tree: Any, size: int) -> Any:
    """The leaves of a tree with their first entries repeated up to `size`."""
    return jax.tree.map(lambda leaf: np.concatenate([leaf, np.repeat(leaf[:1], size - len(leaf), axis=0)]), tree)


def _shared(task: Task, base: Solution, groups: np.ndarray, adjusted: bool) -> Estimate:
    """Estimates of groups that share a design."""
    source = task.source
    assert isinstance(source, Crossed)
    n = len(source.X)
    budget = CACHE if default_device().platform == "cpu" else MEMORY
    lanes = 1 << max(0, min(budget // n, len(groups)).bit_length() - 1)
    size = lanes * max(1, min(CALL // (n * lanes), -(-len(groups) // lanes)))
    X = np.where(np.isfinite(source.X), source.X, 0.0)

    def solve(members: np.ndarray) -> Estimate:
        picked = [np.broadcast_to(1.0 if v is None else v, (source.g, n))[members] for v in (source.y, source.weights)]
        offset = None if source.offset is None else np.broadcast_to(source.offset, (source.g, n))[members]
        given = _padded((*picked, offset, _group(task, base, members)), size)
        with arithmetic(task.device):
            found = estimate_shared(placed(X, float), *given, lanes=lanes, adjusted=adjusted)
            return jax.tree.map(lambda leaf: np.asarray(leaf)[: len(members)], found)

    parts = [groups[first : first + size] for first in range(0, len(groups), size)]
    return _joined(in_threads(solve, parts, task.device))


def _joined(parts: Any) -> Any:
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)


def _ragged(task: Task, base: Solution, groups: np.ndarray, adjusted: bool) -> Estimate:
    """Estimates of groups with rows of their own."""
    program = partial(estimate_tiles, adjusted=adjusted)
    return _in_tiles(task, groups, program, _group(task, base, groups))


def _in_tiles(task: Task, groups: np.ndarray, program: Any, values: Any) -> Any:
    """Run a program of `irls.joint` over ragged groups; values: what they have besides rows, in the order of `groups`."""
    place = np.zeros(len(task.source.sizes), np.int64)
    place[groups] = np.arange(len(groups))

    def solve(call: Call) -> Any:
        with arithmetic(task.device):
            packed = tiles(task.source, call, np.float64, scaled=True)
            index = place[np.maximum(call.groups, 0)]
            lane = jax.tree.map(lambda leaf: np.asarray(leaf)[index], values)
            scale = packed.scale
            lane = replace(lane, start=lane.start * scale)
            if lane.penalty is not None:
                lane = replace(lane, penalty=lane.penalty / scale**2)
            found = program(packed, lane)
            if hasattr(found, "coefficients"):
                found = replace(found, coefficients=found.coefficients / scale)
            used = call.groups != EMPTY
            return jax.tree.map(lambda leaf: np.asarray(leaf)[used], found)

    calls = list(calls_of(task, groups, True))
    found = _joined(in_threads(solve, calls, task.device))
    order = np.argsort(place[np.concatenate([call.members for call in calls])])
    return jax.tree.map(lambda leaf: leaf[order], found)


@dataclass(frozen=True)
class Profile:
    """The profile at given alphas, (m,). value: the likelihood, minus infinity where it cannot be had; slope, curvature: by
    alpha; information; coefficients: (m, p)."""

    value: Any
    slope: Any
    curvature: Any
    information: Any
    coefficients: Any


def _carefully(task: Task, base: Solution, groups: np.ndarray, adjusted: bool) -> Known:
    """The best of a grid of alphas, and the root of the slope beside it, with coefficients that are at their optimum."""
    rows = gather(task.source, groups)
    back, inner = _orthonormal(task, base, groups, rows)
    g, k = len(groups), len(GRID)
    weights = np.maximum(rows.weights, 0.0)
    owner = owners(rows)
    total, response = np.bincount(owner, weights, g), np.bincount(owner, weights * np.where(weights > 0, rows.y, 0.0), g)
    level = np.where(response > 0, response, 1.0) / np.where(response > 0, total, 1.0)
    grid = _profile(inner, np.repeat(np.arange(g), k), (GRID / level[:, None]).reshape(-1), adjusted)
    value = grid.value.reshape(g, k)
    best = value.argmax(axis=1)
    alpha, low, high = (GRID[np.clip(best + i, 0, k - 1)] / level for i in (0, -1, 1))
    known = _nothing(g, task.source.p)
    poisson = (best == 0) & (grid.slope.reshape(g, k)[:, 0] <= 0)
    alpha = np.where((best == 0) & ~poisson, 0.5 * high, alpha)
    active = np.arange(g)[np.isfinite(value.max(axis=1))]
    known.open[active] = best[active] == k - 1
    for _ in range(STEPS):
        if not len(active):
            break
        here = _profile(inner, active, alpha[active], adjusted)
        store(known, active, Known(alpha[active], here.information, known.open[active], here.coefficients))
        up = here.slope > 0
        low[active], high[active] = np.where(up, alpha[active], low[active]), np.where(up, high[active], alpha[active])
        target, length = _toward_root(here, alpha[active], low[active], high[active], level[active])
        going = (length > CLOSE) & ~poisson[active] & ~known.open[active] & np.isfinite(here.value)
        alpha[active] = np.where(going, target, alpha[active])
        active = active[going]
    known.coefficients[:] = np.einsum("gij,gj->gi", back, known.coefficients)
    known.coefficients[base.aliased[groups]] = np.nan
    return known


def _toward_root(
    here: Profile, alpha: np.ndarray, low: np.ndarray, high: np.ndarray, level: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Where to look next for a zero of the slope between `low` and `high`, and how far that is in standard errors: a step of
    Newton's method in log(1 + alpha level), or where that leads outside, halfway."""
    rise = alpha + 1.0 / level
    slope, curvature = here.slope * rise, here.curvature * rise**2 + here.slope * rise
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        step = np.where(curvature < 0, -slope / curvature, np.nan)
        target = np.expm1(np.log1p(alpha * level) + step) / level
    inside = (target > low) & (target < high)
    halfway = np.expm1(0.5 * (np.log1p(low * level) + np.log1p(high * level))) / level
    step = np.where(inside, step, np.log1p(high * level) - np.log1p(low * level))
    return np.where(inside, target, halfway), np.abs(step) * np.sqrt(np.abs(curvature))


def _profile(task: Task, groups: np.ndarray, alpha: np.ndarray, adjusted: bool) -> Profile:
    """The profile of some groups, which may occur more than once, at these alphas."""
    source = task.source
    assert isinstance(source, Stacked)
    with np.errstate(divide="ignore"):
        family = task.family.with_parameters(theta=1.0 / alpha)
    rows = replace(source, starts=source.starts[groups], sizes=source.sizes[groups])
    some = replace(task.subset(rows, groups), family=family)
    found = fitting.fit(some)
    everyone = np.arange(len(groups))
    at = _group(replace(some, family=family.with_parameters(theta=np.inf)), found, everyone)
    point = Point(at.family, at.penalty, at.keep, np.where(np.isnan(at.start), 0.0, at.start), alpha)
    seen: Seen = _in_tiles(some, everyone, partial(profile_tiles, adjusted=adjusted), point)
    pull = 0.0 if point.penalty is None else 0.5 * np.sum(point.penalty * point.start**2, axis=1)
    value = found.log_likelihood - pull - 0.5 * (seen.log_determinant if adjusted else 0.0)
    sound = (found.status == Status.CONVERGED) & np.isfinite(value) & np.isfinite(seen.slope)
    return Profile(np.where(sound, value, -np.inf), seen.slope, seen.curvature, seen.information, found.coefficients)


def _orthonormal(task: Task, base: Solution, groups: np.ndarray, rows: Stacked) -> tuple[np.ndarray, Task]:
    """The task of fitting some groups, with `rows`, in columns that are orthonormal, which changes neither likelihood nor
    leverage, and (g, p, p), what makes its coefficients those of the given columns. A penalty belongs to the columns as they
    are, and leaves them so."""
    p = rows.p
    back = np.broadcast_to(np.eye(p), (len(groups), p, p)).copy()
    if task.penalty is not None:
        return back, task.subset(rows, groups)
    X = np.where((rows.weights > 0)[:, None], rows.X, 0.0)
    for place, group in enumerate(groups):
        kept = np.flatnonzero(~base.aliased[group])
        inside = slice(rows.starts[place], rows.starts[place] + rows.sizes[place])
        size = np.linalg.norm(X[inside][:, kept], axis=0)
        Q, R = np.linalg.qr(X[inside][:, kept] / size)
        X[inside] = 0.0
        X[inside, : len(kept)] = Q
        back[place] = 0.0
        back[place][kept, : len(kept)] = np.linalg.inv(R) / size[:, None]
    return back, task.subset(reweighted(rows, rows.weights, X), groups)
