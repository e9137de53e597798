"""The IRLS iteration, written for one fit: one step, one loop.

Each pass evaluates one trial point, coefficients + step: deviance, domain, and from the same look at the rows the next
increment. If the trial is valid and its deviance no higher, it becomes the new point and its increment the next step; if
not, the step is halved and the next pass tries again from the same point. There is no loop in the loop, and no branch
that one fit takes and another does not, so that under `vmap` a fit that halves costs the others nothing but its own passes.

The stop rule works with the length of an increment d in the norm of the information, sqrt(d' X'WX d), which bounds every
|d_j| in units of its standard error at dispersion 1. With `rate` the ratio of two successive lengths, the error left
after the last increment is at most rate / (1 - rate) of its length, also where convergence is only linear. A fit also
stops when the increment is down to what rounding makes of the rows. Comparisons are written so that NaN ends a fit.

Separation is proved on the way. If X d never points against a row whose response lies where the link is infinite, and
is zero on all other rows, then the likelihood rises along d for ever and no finite maximum exists (Albert and Anderson
1984; Correia, Guimaraes and Zylkin 2021 for counts). The last increment is such a d as soon as there is one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxglm.family import Family
from jaxglm.irls.carry import packed, unpacked
from jaxglm.irls.normal import Algebra
from jaxglm.irls.options import IRLS
from jaxglm.irls.problem import Problem
from jaxglm.irls.working import Working, where_present, working
from jaxglm.penalty import diagonal, pulled
from jaxglm.rows import HARMLESS, Rows, Totals
from jaxglm.status import Status

RUNNING = -1
ALIASED = 1e-11  # R's glm.fit: min(1e-7, epsilon / 1000) with its default epsilon of 1e-8
OBSERVED_FLOOR = 0.01  # of the expected weight; keeps the information positive where observed weights are not
ANY = 1e30  # a floor that no weight is below
NEAR = 0.1  # once a step promises to lower the deviance by less than this fraction, observed weights are used
MOVING = 0.1  # a step that changes an eta by more than this, beside the largest |eta| and 1, is none to stop at
SEPARATION = 1e-9  # how far, relative to the largest gain, a direction of separation may point against a row


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class State:
    """Where a fit stands. Vectors are (p,), the rest scalars.

    coefficients: the last accepted point; step: what is added to it next, `halvings` times halved; objective: deviance
    plus penalty there; constant: what the deviance is less than twice the loss; decrement: the squared length of the full
    step; floor_length: the length that rounding gives to an increment; keep: columns that are not aliased; doubtful:
    whether the factorization could not be trusted; cautious: whether observed weights once made the information
    indefinite.
    """

    status: Array
    coefficients: Array
    step: Array
    objective: Array
    constant: Array
    decrement: Array
    floor_length: Array
    halvings: Array
    n_iterations: Array
    keep: Array
    doubtful: Array
    cautious: Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Trial:
    """What one look at the rows says of a trial point: `objective`; `valid`; the next `increment` with its `decrement`
    and `floor_length`; whether the factorization is `doubtful`; and of the step that led here, whether it is too long to
    stop at, or the rows have no information left (`moving`), and whether it proves separation (`separates`); the two are
    None where the problem is not watched."""

    objective: Array
    valid: Array
    increment: Array
    decrement: Array
    floor_length: Array
    doubtful: Array
    moving: Array | None
    separates: Array | None


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Seen:
    """What the rows say at a trial point: what the algebra collects, the loss, what the offset adds to the square of the
    length of eta, and what is `Watched`, None where the problem is not watched."""

    collected: Any
    loss: Array
    offset_square: Array
    watched: Watched | None


def look(problem: Problem, algebra: Algebra, options: IRLS, state: State) -> Seen:
    """Look at the rows at the trial point of `state`. All the work on rows is here."""
    family = problem.family
    coefficients = state.coefficients + state.step
    floor = observed_floor(problem, algebra, state) if observes(problem, options) else None

    def at(part: Rows) -> tuple[Array, Array, Totals]:
        eta = part.eta(coefficients)
        row = working(family, part, eta, floor)
        sums = (jnp.sum(row.loss), _offset_square(part, row))
        peaks = watched(family, part, eta, part.design.dot(state.step), row) if problem.watched else None
        return row.weights, row.scores[None, :], Totals(sums, peaks)

    collected, totals = algebra.gather(problem.rows, at)
    loss, square = totals.sums
    return Seen(collected, loss, square, totals.peaks)


def evaluate(problem: Problem, algebra: Algebra, state: State, seen: Seen) -> Trial:
    """What has been seen at the trial point of `state`, weighed up."""
    coefficients = state.coefficients + state.step
    solved = algebra.solve(seen.collected, problem.penalty, problem.origins(coefficients), state.keep)
    objective = 2.0 * seen.loss - state.constant + problem.penalty_at(coefficients)
    # The length of eta, by its parts, and of the responses.
    of_eta = jnp.sqrt(seen.offset_square) + jnp.sum(jnp.abs(coefficients) * solved.factor.lengths)
    moving, separates = (None, None) if seen.watched is None else judged(problem, state, seen.watched)
    return Trial(
        objective=objective,
        valid=jnp.isfinite(objective),
        increment=solved.increments[:, 0],
        decrement=solved.decrements[0],
        floor_length=algebra.noise(solved.factor, of_eta + jnp.sqrt(jnp.abs(objective))),
        doubtful=~algebra.trusts(solved.factor),
        moving=moving,
        separates=separates,
    )


def _offset_square(rows: Rows, row: Working) -> Array:
    """What the offset adds to the square of the length of eta."""
    if rows.offset is None:
        return jnp.zeros((), rows.y.dtype)
    return jnp.sum(jnp.abs(row.weights) * rows.offset**2)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Watched:
    """What tells separation from convergence, the largest over rows: informed: a row with a working weight that is not
    zero; extent: |eta|; reach: |change| of eta by the step; gain, against: see `separation`."""

    informed: Array
    extent: Array
    reach: Array
    gain: Array
    against: Array


def watched(family: Family, rows: Rows, eta: Array, change: Array, row: Working) -> Watched:
    """Watch the rows as a step changes eta."""
    eta, change = jnp.where(rows.present, eta, 0.0), jnp.where(rows.present, change, 0.0)
    gain, against = separation(family, rows, change)
    return Watched(jnp.any(row.weights != 0), jnp.max(jnp.abs(eta)), jnp.max(jnp.abs(change)), gain, against)


def judged(problem: Problem, state: State, seen: Watched) -> tuple[Array, Array]:
    """Whether the step is too long to stop at, and whether it proves separation."""
    epsilon, against = jnp.finfo(problem.dtype).eps, seen.against
    if problem.penalty is not None:
        penalized = diagonal(problem.penalty)
        held = pulled(problem.penalty, state.step) / jnp.where(penalized > 0, penalized, 1.0)
        against = jnp.maximum(against, jnp.max(jnp.where(penalized > 0, problem.extent_of(held), 0.0)))
    moving = ((seen.reach > MOVING * (1.0 + seen.extent)) & problem.family.can_separate) | ~seen.informed
    return moving, (seen.gain > jnp.sqrt(epsilon) * seen.extent) & (against <= SEPARATION * seen.gain)


def observes(problem: Problem, options: IRLS) -> bool:
    """Whether working weights may differ from the expected ones."""
    return options.information == "observed" and not problem.family.is_canonical


def observed_floor(problem: Problem, algebra: Algebra, state: State) -> Array:
    """The least working weight allowed, as a fraction of the expected one. Far from the optimum all of it. Near, none:
    negative weights too if the algebra can use them, until they once made the information indefinite (`cautious`)."""
    newton = jnp.where(state.cautious | jnp.logical_not(algebra.squares), OBSERVED_FLOOR, -ANY)
    return jnp.where(state.decrement <= NEAR * state.objective, newton, 1.0).astype(problem.dtype)


def separation(family: Family, rows: Rows, change: Array) -> tuple[Array, Array]:
    """How far a change of eta moves rows towards responses at which the link is infinite (`gain`, the largest), and how
    far it moves any row away from its response (`against`). It separates if `against` is nothing beside `gain`."""
    if not family.can_separate:
        return jnp.zeros((), change.dtype), jnp.zeros((), change.dtype)
    side = toward_infinity(family, rows.y)
    along = side * change
    gain = jnp.max(jnp.maximum(along, 0.0))
    against = jnp.max(jnp.where(rows.present, jnp.where(side == 0, jnp.abs(change), jnp.maximum(-along, 0.0)), 0.0))
    return gain, against


def toward_infinity(family: Family, y: Array) -> Array:
    """The sign of the infinite eta at which a row's likelihood is highest, 0 where that eta is finite. A response beyond
    the means that the link can reach (a negative one under a log link) is fitted best at their end."""
    link, side = family.link, jnp.zeros_like(y)
    for end in link.infinite_at:
        at_end = (y <= end) if end == link.means.lower else (y >= end) if end == link.means.upper else y == end
        saturated = link(jnp.asarray(end, y.dtype))
        side = jnp.where(at_end & jnp.isinf(saturated), jnp.sign(saturated), side)
    return side


def initial(problem: Problem, algebra: Algebra, tolerance: float) -> State:
    """The state before the first trial.

    The first trial is the family's start: one weighted least-squares fit of the linearised link at start values of mu. It is
    reached as a step from a safer point, so that it can be halved like any other: zero coefficients, or where these are
    not valid, the least-squares fit of a constant mean.
    """
    family, rows = problem.family, problem.rows
    level = family.link(problem.mean_response)

    def look(part: Rows) -> tuple[Array, Array, Totals]:
        offset = jnp.zeros_like(part.y) if part.offset is None else part.offset
        eta = start_eta(family, part, problem.mean_response)
        row, at_zero = working(family, part, eta), working(family, part, offset)
        wanted = jnp.stack([row.scores + row.weights * (eta - offset), row.weights * (level - offset)])
        wanted = jnp.where(part.present, wanted, 0.0)
        return row.weights, wanted, Totals((jnp.sum(2.0 * row.loss - row.deviance), jnp.sum(at_zero.loss)))

    collected, totals = algebra.gather(rows, look)
    solved = algebra.solve(collected, problem.penalty, problem.origins(None, None), problem.keep, tolerance)
    start, safe = solved.increments[:, 0], solved.increments[:, 1]
    constant, at_zero = totals.sums
    zero_valid = jnp.isfinite(at_zero)
    base = jnp.where(zero_valid, 0.0, safe)
    infinite = jnp.asarray(jnp.inf, problem.dtype)
    objective = jnp.where(zero_valid, 2.0 * at_zero - constant, infinite)
    if problem.start is not None:
        base, start, objective = problem.start, problem.start, infinite
    doubtful = ~algebra.trusts(solved.factor)
    status = jnp.where(doubtful, Status.STEP_FAILED, RUNNING)
    status = jnp.where(problem.n_obs == 0, Status.NO_DATA, status)
    status = jnp.where(problem.sound, status, Status.INVALID_DATA)
    count = jnp.zeros((), jnp.int32)
    return State(
        coefficients=base,
        step=start - base,
        objective=objective,
        constant=constant,
        decrement=infinite,
        floor_length=jnp.zeros((), problem.dtype),
        halvings=count,
        n_iterations=count,
        status=status.astype(jnp.int32),
        keep=~solved.factor.aliased,
        doubtful=doubtful & (status == Status.STEP_FAILED),
        cautious=jnp.zeros((), bool),
    )


def start_eta(family: Family, rows: Rows, mean_response: Array) -> Array:
    """Start values of eta; where a row's is not valid, that of the mean response, and failing that a harmless one."""
    eta = where_present(family, rows, family.link(family.start_at(rows.y, rows.weights)))
    for fallback in (mean_response, jnp.asarray(HARMLESS, eta.dtype)):
        valid = family.valid_mean_at(eta, family.link.mean(eta).mu)
        eta = jnp.where(valid, eta, family.link(fallback))
    return eta


def advance(problem: Problem, algebra: Algebra, options: IRLS, state: State, seen: Seen) -> State:
    """The rest of a pass: judge the trial point, and accept it or halve the step."""
    trial = evaluate(problem, algebra, state, seen)
    accepted = trial.valid & (trial.objective <= state.objective + _slack(problem, state, trial))
    # Where observed weights, not the design, made the information indefinite, the same trial is looked at once more.
    again = accepted & trial.doubtful & ~state.cautious & (observes(problem, options) & algebra.squares)
    accepted = accepted & ~again
    n_iterations = state.n_iterations + accepted.astype(jnp.int32)

    converged = accepted & is_small(problem, options, state, trial)
    if trial.moving is not None:
        converged &= ~trial.moving
    failed = ~jnp.isfinite(trial.decrement) | (trial.doubtful & ~converged)
    rejected = ~accepted & ~again
    stuck = rejected & (state.halvings >= options.max_halvings)

    status = jnp.where(accepted & (n_iterations >= options.max_iterations), Status.MAX_ITERATIONS, RUNNING)
    status = jnp.where((accepted & failed) | stuck, Status.STEP_FAILED, status)
    status = jnp.where(converged, Status.CONVERGED, status)
    # Where the family's start is worse than the safe point it was reached from, the iteration starts from the latter.
    no_start = (n_iterations == 0) & jnp.isfinite(state.objective)
    shorter = jnp.where(no_start, 0.0, jnp.where(rejected, 0.5, 1.0)).astype(problem.dtype) * state.step
    step = jnp.where(accepted, trial.increment, shorter)
    if trial.separates is not None:
        status = jnp.where(trial.separates, Status.SEPARATED, status)
        step = jnp.where(trial.separates, state.step, step)
    coefficients = jnp.where(accepted, state.coefficients + state.step, state.coefficients)
    return State(
        coefficients=jnp.where(converged & jnp.isfinite(trial.decrement), coefficients + trial.increment, coefficients),
        step=step,
        objective=jnp.where(accepted, trial.objective, state.objective),
        constant=state.constant,
        decrement=jnp.where(accepted, trial.decrement, state.decrement),
        floor_length=jnp.where(accepted, trial.floor_length, state.floor_length),
        halvings=jnp.where(accepted, 0, state.halvings + rejected.astype(jnp.int32)),
        n_iterations=n_iterations,
        status=status.astype(jnp.int32),
        keep=state.keep,
        doubtful=accepted & trial.doubtful & (status == Status.STEP_FAILED),
        cautious=state.cautious | again,
    )


def _slack(problem: Problem, state: State, trial: Trial) -> Array:
    """By how much the objective may rise: by what rounding eta by a few units in the last place, and the loss, make of it."""
    by_eta = state.floor_length * (2.0 * jnp.sqrt(jnp.abs(state.objective)) + state.floor_length)
    slack = by_eta + 8.0 * jnp.finfo(problem.dtype).eps * _size(state, trial)
    return jnp.where(jnp.isfinite(slack), slack, 0.0)


def _size(state: State, trial: Trial) -> Array:
    """The size of the numbers whose difference is the objective."""
    return jnp.abs(state.constant) + jnp.abs(trial.objective + state.constant)


def is_small(problem: Problem, options: IRLS, state: State, trial: Trial) -> Array:
    """The stop rule: whether the next increment, and what may come after it, is within tolerance or down to rounding."""
    length = jnp.sqrt(trial.decrement)
    rate = jnp.where(state.halvings == 0, length / jnp.sqrt(state.decrement), 1.0)
    unit = jnp.ones((), problem.dtype)
    if problem.family.dispersion is None:
        least = jnp.finfo(problem.dtype).eps * _size(state, trial)
        unit = jnp.sqrt(jnp.maximum(trial.objective, least) / problem.n_obs.astype(problem.dtype))
    small = (length <= options.tol * unit) & (length * rate <= options.tol * unit * (1.0 - rate))
    return small | (length <= trial.floor_length)


def optimise(problem: Problem, algebra: Algebra, options: IRLS, wanted: Array | None = None) -> State:
    """Run to the end. Under `vmap`, fits that are not `wanted` (a flag) take no passes."""
    state = initial(problem, algebra, ALIASED)
    if wanted is not None:
        state = replace(state, status=jnp.where(wanted, state.status, Status.STEP_FAILED))

    def one_pass(carried: Array) -> Array:
        current = unpacked(carried, state)
        seen = look(problem, algebra, options, current)
        return packed(advance(problem, algebra, options, current, seen), problem.dtype)

    final = jax.lax.while_loop(lambda carried: carried[0] == RUNNING, one_pass, packed(state, problem.dtype))
    return unpacked(final, state)
