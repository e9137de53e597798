"""Adjusted scores: estimates with less bias, which are finite where those of maximum likelihood need not be.

Maximum likelihood solves X's = 0, with the scores s of the rows at dispersion 1. A bias-reduced fit solves X's + phi A = 0
with an adjustment A(b) of the size of one row. With W the working weights, h = w_i x_i' (X'WX)^-1 x_i the hat values,
r = d log(dmu/deta) / deta and q = d log W / deta, the adjustments are

    mean       X' (h r / 2)                           the estimates' bias falls from order 1/n to 1/n^2
    jeffreys   X' (h q / 2)                           maximises the likelihood times |X'WX|^(1/2); under canonical links as mean
    median     X' (h r / 2) + X'WX m,                 each estimate is as likely too high as too low, up to order n^(-3/2)
               m_j = - sum_i W_i (r_i + q_i) z_ij^3 / (6 v_jj),   z_i = (X'WX)^-1 x_i,   v = (X'WX)^-1

An estimated dispersion has an adjusted score of its own and is estimated along with the coefficients, on the scale of the
dispersion itself. With e(a) the expected unit deviance of a row of precision a = w / phi (`Family.expected_deviance`), D the
deviance, S2 = - sum a^2 e'(a), S3 = sum a^3 e''(a) and p independent columns, it solves D / phi = sum a e(a) - k with
k = p - 2 + S3 / S2 (mean), p + S3 / (3 S2) (median), or S3 / S2 - p - 4 (jeffreys); so D / (n - p) under mean adjustment for
normal and inverse Gaussian rows. A family that has no likelihood has Pearson's dispersion in its place. Where no degrees of
freedom are left there is no dispersion: phi A is zero and the estimates are those of maximum likelihood.

The iteration is quasi-Fisher scoring: f = (X'WX)^-1 (X's + phi A) is the increment of the coefficients, and log(D / phi) less
the logarithm of the right-hand side above that of log phi. That alone converges linearly, so it is corrected by what
successive increments tell of the slope of f (Broyden's rank-one updates, in the metric of the information), which makes
convergence superlinear. A corrected step has to shorten the increment, in that metric. A plain one is halved while the
adjusted score at its end points back along it by more than half; that the increment may be longer there is no reason to, since
the metric changes. Where estimates may be infinite, no step changes an eta by more than 10, beyond which its row is silent.

Sources: Firth (1993); Kosmidis and Firth (2009); Kenne Pagui, Salvan and Sartori (2017); Kosmidis, Kenne Pagui and Sartori,
"Mean and median bias reduction in generalized linear models" (2020), and their R package brglm2; Broyden (1965).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxglm.designs import HIGHEST
from jaxglm.family import Family
from jaxglm.irls.carry import packed, unpacked
from jaxglm.irls.loop import ALIASED, RUNNING, initial
from jaxglm.irls.normal import NORMAL, ORTHOGONAL, Algebra
from jaxglm.irls.options import IRLS
from jaxglm.irls.problem import Problem
from jaxglm.irls.solution import Solution, conclude
from jaxglm.irls.working import where_present, working
from jaxglm.linalg import Factor
from jaxglm.rows import Rows, Totals, fold
from jaxglm.status import Method, Status

METHODS = {
    "mean": Method.MEAN_BIAS_REDUCED,
    "median": Method.MEDIAN_BIAS_REDUCED,
    "jeffreys": Method.JEFFREYS,
}
FAR = 10.0  # the largest change of an eta in one step, where estimates may be infinite: beyond, rows have nothing to say
MOVING = 0.1  # there, a step that changes an eta by more is none to stop at
NOISE = 1e-3  # the longest increment, in standard errors, that may be rounding
TURNED = 0.5  # of the adjusted score along a step, how much of it against the step at its end means that it was too long


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class State:
    """Where a fit stands. at: (p + 1,), the coefficients and the logarithm of the dispersion, of the last accepted point;
    step: what is added to it next; increment: f there; score: the adjusted one, the metric times f; length: of f, in
    standard errors, infinite before the first point; correction: (p + 1, p + 1), what makes a step of an increment; plain:
    whether the step is an increment or part of one; the others as in `irls.loop.State`."""

    status: Array
    at: Array
    step: Array
    increment: Array
    score: Array
    length: Array
    correction: Array
    plain: Array
    halvings: Array
    n_iterations: Array
    doubtful: Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Trial:
    """What the rows say at a trial point: `at`, which has a dispersion even if the trial had none; the `increment` from
    there, the `score`, the increment's `length`, and the length that rounding gives it; root: (p + 1, p + 1), of the metric
    of increments; reach: the largest change of an eta by the step here, where estimates may be infinite, else 0."""

    at: Array
    increment: Array
    score: Array
    length: Array
    floor_length: Array
    root: Array
    reach: Array
    valid: Array
    doubtful: Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Slopes:
    """Of each row, logarithmic derivatives by eta: `mean` of dmu/deta, called r above, `weight` of the working weight, q."""

    mean: Array
    weight: Array


def slopes(family: Family, rows: Rows, eta: Array) -> Slopes:
    """The slopes of rows, zero where a row has no weight left."""
    eta = where_present(family, rows, eta)

    def both(e: Array) -> tuple[Array, Array]:
        mean = family.link.mean(e)
        return mean.dmu_deta, family.weight_at(mean)

    (dmu, weight), (d2mu, dweight) = jax.jvp(both, (eta,), (jnp.ones_like(eta),))

    def ratio(derivative: Array, value: Array) -> Array:
        found = derivative / jnp.where(value != 0, value, 1.0)
        return jnp.where((value != 0) & jnp.isfinite(found), found, 0.0)

    return Slopes(ratio(d2mu, dmu), ratio(dweight, weight))


def adjustment(problem: Problem, factor: Factor, coefficients: Array, kind: str) -> Array:
    """A(b), (p,), of a factored information matrix at these coefficients."""
    family = problem.family

    def look(part: Rows) -> Totals:
        eta = part.eta(coefficients)
        weights, slope = working(family, part, eta).weights, slopes(family, part, eta)
        whitened = factor.whiten(part.design.matrix().T)
        hat = weights * jnp.sum(whitened**2, axis=0)
        pulled = 0.5 * hat * (slope.weight if kind == "jeffreys" else slope.mean)
        total = part.design.transposed_dot(pulled[None, :])[:, 0]
        if kind != "median":
            return Totals((total,))
        cubes = factor.unwhiten(whitened) ** 3
        skew = weights * (slope.mean + slope.weight)
        return Totals((total, jnp.matmul(cubes, skew, precision=HIGHEST)))

    sums = fold(problem.rows, look).sums
    if kind != "median":
        return sums[0]
    variances = jnp.diagonal(factor.inverse())
    shift = -sums[1] / (6.0 * jnp.where(variances > 0, variances, 1.0))
    upper = jnp.where(factor.aliased[:, None], 0.0, factor.upper)
    return sums[0] + _information(upper, factor, shift)


def _information(upper: Array, factor: Factor, vector: Array) -> Array:
    """X'WX times a vector, from its factor."""
    root = upper / factor.scale
    return jnp.matmul(root.T, jnp.matmul(root, vector, precision=HIGHEST), precision=HIGHEST)


def expected_spread(problem: Problem, kind: str, dispersion: Array, rank: Array) -> Array:
    """What an estimated dispersion divides the deviance by, or Pearson's statistic: sum a e(a) - k, or n - p."""
    family = problem.family
    known = family.expected_deviance
    if known is None:
        return (problem.n_obs - rank).astype(problem.dtype)
    first, second = jax.grad(known), jax.grad(jax.grad(known))

    def look(part: Rows) -> Totals:
        precision = jnp.where(part.present, part.weights, 1.0) / dispersion
        terms = (
            precision * known(precision),
            -(precision**2) * jax.vmap(first)(precision),
            precision**3 * jax.vmap(second)(precision),
        )
        return Totals(tuple(jnp.sum(jnp.where(part.present, term, 0.0)) for term in terms))

    mean, variance, third = fold(problem.rows, look).sums
    p, skew = rank.astype(problem.dtype), third / variance
    return mean - {"mean": p - 2.0 + skew, "median": p + skew / 3.0, "jeffreys": skew - p - 4.0}[kind]


def _dispersion(problem: Problem, kind: str, given: Array, spread: Array, rank: Array) -> tuple[Array, Array]:
    """The logarithm of the dispersion, as given or, where that is NaN, from its spread, and its increment."""
    if problem.family.dispersion is not None:
        return jnp.full_like(spread, jnp.log(problem.family.dispersion)), jnp.zeros_like(spread)
    degrees = jnp.maximum(problem.n_obs - rank, 1).astype(problem.dtype)
    log_dispersion = jnp.where(jnp.isnan(given), jnp.log(spread / degrees), given)
    dispersion = jnp.exp(log_dispersion)
    expected = expected_spread(problem, kind, dispersion, rank)
    increment = jnp.log(spread / (dispersion * jnp.where(expected > 0, expected, degrees)))
    return log_dispersion, jnp.where(problem.n_obs > rank, increment, 0.0)


def evaluate(
    problem: Problem, algebra: Algebra, kind: str, point: Array, step: Array, keep: Array, held: Array | None
) -> Trial:
    """Look at the rows at a point, that `step` led to: coefficients, and the logarithm of the dispersion, NaN where there is
    none yet."""
    family, dtype, coefficients = problem.family, problem.dtype, point[:-1]

    def look(part: Rows) -> tuple[Array, Array, Totals]:
        row = working(family, part, part.eta(coefficients))
        offset = jnp.zeros_like(part.y) if part.offset is None else part.offset
        spread = row.chi_square if family.expected_deviance is None else row.deviance
        sums = (jnp.sum(row.loss), jnp.sum(spread), jnp.sum(jnp.abs(row.weights) * offset**2))
        change = jnp.where(part.present, jnp.abs(part.design.dot(step[:-1])), 0.0)
        return row.weights, row.scores[None, :], Totals(sums, jnp.max(change))

    collected, totals = algebra.gather(problem.rows, look)
    loss, spread, offset_square = totals.sums
    whole = algebra.solve(collected, None, None, keep)
    factor, rank = whole.factor, jnp.sum(keep, dtype=jnp.int32)
    assert isinstance(factor, Factor)
    of_eta = jnp.sqrt(offset_square) + jnp.sum(jnp.abs(coefficients) * factor.lengths)
    floor_length = algebra.noise(factor, of_eta + jnp.sqrt(jnp.abs(spread)))
    spread = jnp.maximum(spread, floor_length**2)  # what is less is rounding
    log_dispersion, log_increment = _dispersion(problem, kind, point[-1], spread, rank)
    dispersion = jnp.exp(log_dispersion)

    known = family.dispersion is not None
    added = jnp.where((problem.n_obs > rank) | known, dispersion, 0.0) * adjustment(problem, factor, coefficients, kind)
    solved = whole if held is None else algebra.solve(collected, None, None, keep & ~held)
    free = solved.factor
    assert isinstance(free, Factor)
    increment = solved.increments[:, 0] + free.unwhiten(free.whiten(added[:, None]))[:, 0]
    corner = jnp.sqrt(0.5 * jnp.maximum(problem.n_obs - rank, 1).astype(dtype))
    sides = jnp.pad(free.upper / free.scale / jnp.sqrt(dispersion), ((0, 0), (0, 1)))
    root = jnp.concatenate([sides, jnp.append(jnp.zeros_like(coefficients), corner)[None]])
    full = jnp.append(increment, log_increment)
    white = jnp.matmul(root, full, precision=HIGHEST)
    return Trial(
        at=jnp.append(coefficients, log_dispersion),
        increment=full,
        score=jnp.matmul(root.T, white, precision=HIGHEST),
        length=jnp.sqrt(jnp.sum(white**2)),
        floor_length=floor_length / jnp.sqrt(dispersion),
        root=root,
        reach=jnp.where(family.can_separate, totals.peaks, 0.0),
        valid=jnp.isfinite(loss),
        doubtful=~algebra.trusts(factor),
    )


def advance(options: IRLS, state: State, trial: Trial) -> State:
    """Judge a trial point, and accept it or go less far."""
    begun = jnp.isfinite(state.length)
    sound = trial.valid & jnp.isfinite(trial.length) & ~trial.doubtful
    turned = jnp.sum(state.step * trial.score) < -TURNED * jnp.sum(state.step * state.score)
    shorter = trial.length <= state.length
    better = jnp.where(state.plain, ~turned, shorter) & (trial.reach <= FAR)
    resting = trial.length <= jnp.minimum(trial.floor_length, NOISE)
    accepted = sound & (~begun | better | resting)
    n_iterations = state.n_iterations + accepted.astype(jnp.int32)
    rate = jnp.where((state.halvings == 0) & begun, trial.length / state.length, 0.5)
    small = (trial.length <= options.tol) & (trial.length * rate <= options.tol * (1.0 - rate))
    converged = accepted & (small | resting) & (trial.reach <= MOVING)
    stuck = ~accepted & (state.halvings >= options.max_halvings)
    status = jnp.where(accepted & (n_iterations >= options.max_iterations), Status.MAX_ITERATIONS, RUNNING)
    status = jnp.where(stuck, Status.STEP_FAILED, status)
    status = jnp.where(converged, Status.CONVERGED, status)

    unit = jnp.eye(len(state.at), dtype=state.at.dtype)
    correction = jnp.where(begun & (shorter | (state.halvings > 0)), _corrected(state, trial), unit)
    onward = jnp.matmul(correction, trial.increment, precision=HIGHEST)
    share = jnp.minimum(0.5, jnp.where(trial.reach > FAR, FAR / trial.reach, 1.0))
    less = jnp.where(state.plain, share * state.step, state.increment)
    at = jnp.where(accepted, trial.at, state.at)
    return State(
        status=status.astype(jnp.int32),
        at=at,
        step=jnp.where(accepted, onward, less),
        increment=jnp.where(accepted, trial.increment, state.increment),
        score=jnp.where(accepted, trial.score, state.score),
        length=jnp.where(accepted, trial.length, state.length),
        correction=jnp.where(accepted, correction, unit),
        plain=~accepted | jnp.all(correction == unit),
        halvings=jnp.where(accepted, 0, state.halvings + state.plain.astype(jnp.int32)),
        n_iterations=n_iterations,
        doubtful=stuck & trial.doubtful,
    )


def _corrected(state: State, trial: Trial) -> Array:
    """The correction that also explains the last step: Broyden's update, in the metric of the information."""
    moved, changed = trial.at - state.at, trial.increment - state.increment
    root = trial.root
    along = jnp.matmul(root.T, jnp.matmul(root, moved, precision=HIGHEST), precision=HIGHEST)
    seen = jnp.matmul(state.correction, changed, precision=HIGHEST)
    scale = jnp.sum(along * seen)
    enough = jnp.abs(scale) > 0.1 * jnp.sum(along * moved)  # else the step says too little
    rank_one = (moved + seen)[:, None] * jnp.matmul(along, state.correction, precision=HIGHEST)
    updated = state.correction - rank_one / jnp.where(enough, scale, 1.0)
    return jnp.where(enough & jnp.all(jnp.isfinite(updated)), updated, jnp.eye(len(moved), dtype=moved.dtype))


def solve_adjusted(problem: Problem, options: IRLS, kind: str, held: Array | None = None) -> Solution:
    """Solve the adjusted scores of kind "mean", "median" or "jeffreys"; all that is known of it, not yet `reported`.

    held: (p,), coefficients that are held at zero while their columns stay in the information; the score of the others is
    solved. The factorization is that of the options, "orthogonal" or else normal equations.
    """
    algebra = ORTHOGONAL if options.factorization == "orthogonal" else NORMAL
    begin = initial(problem, algebra, ALIASED)
    safe, step = begin.coefficients, begin.step
    if held is not None:
        safe, step = jnp.where(held, 0.0, safe), jnp.where(held, 0.0, step)
    nan, infinite = jnp.full((1,), jnp.nan, problem.dtype), jnp.asarray(jnp.inf, problem.dtype)
    zero = jnp.zeros(len(safe) + 1, problem.dtype)
    state = State(
        status=begin.status,
        at=jnp.concatenate([safe, nan]),
        step=jnp.append(step, jnp.zeros((), problem.dtype)),
        increment=zero,
        score=zero,
        length=infinite,
        correction=jnp.eye(len(zero), dtype=problem.dtype),
        plain=jnp.ones((), bool),
        halvings=jnp.zeros((), jnp.int32),
        n_iterations=jnp.zeros((), jnp.int32),
        doubtful=begin.doubtful,
    )

    def one_pass(carried: Array) -> Array:
        current = unpacked(carried, state)
        trial = evaluate(problem, algebra, kind, current.at + current.step, current.step, begin.keep, held)
        return packed(advance(options, current, trial), problem.dtype)

    final = unpacked(jax.lax.while_loop(lambda carried: carried[0] == RUNNING, one_pass, packed(state, problem.dtype)), state)
    ended = replace(
        begin,
        status=final.status,
        coefficients=final.at[:-1],
        step=jnp.zeros_like(step),
        n_iterations=final.n_iterations,
        doubtful=final.doubtful,
    )
    return _with_dispersion(problem, conclude(problem, algebra, options, ended), jnp.exp(final.at[-1]), kind)


def _with_dispersion(problem: Problem, solution: Solution, dispersion: Array, kind: str) -> Solution:
    """The solution with the dispersion that was estimated along with it."""
    solution = replace(solution, method=jnp.full_like(solution.status, METHODS[kind]))
    if problem.family.dispersion is not None:
        return solution
    estimated = jnp.where(problem.n_obs > solution.rank, dispersion, jnp.nan)
    pearson: Any = solution.dispersion
    ratio = jnp.where(pearson > 0, estimated / jnp.where(pearson > 0, pearson, 1.0), 1.0)
    return replace(solution, dispersion=estimated, covariance=solution.covariance * ratio)
