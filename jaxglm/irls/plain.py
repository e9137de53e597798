"""The plain pass: full steps without precautions, and a close look at where they lead.

Nearly every fit is at its optimum after a handful of full steps from the start. So every fit of a batch first gets no more
than that: no look at the deviance, no halving, no watch for separation, normal equations alone, and a dozen steps at most.
What makes it safe is that the end is checked, not the way. Where the steps have led, the rows are looked at once more, as
everything that is reported needs it anyway, and the fit is decided only if there

- the score asks for no further step, beyond tolerance or rounding;
- that step moves no eta, as the steps of a separated fit always do, however short its weights make them seem;
- the Gram matrix can be trusted, and every mean is valid.

A fixed point of these steps is a maximum: they are uphill by their positive weights, and do not come to rest elsewhere. All
other fits are `undecided`, and are solved by `irls.loop`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.tree_util import Partial

from jaxglm.designs import Constant
from jaxglm.family import Family
from jaxglm.irls.carry import packed, unpacked
from jaxglm.irls.normal import PLAIN, Solved
from jaxglm.irls.options import IRLS
from jaxglm.irls.problem import Problem, typed
from jaxglm.irls.solution import NULL_TOLERANCE, Solution, Statistics, statistics
from jaxglm.irls.working import where_present, working
from jaxglm.rows import Rows, Shares, Totals, fold, with_design
from jaxglm.status import Method, Status

FEW = 12  # steps, what most fits can do with; a block waits for its slowest
PATIENCE, SLOW = 6, 0.3  # after so many steps, one that is more than this times the last may be a separated fit's
STILL = 1e-3  # what a last step may change all etas by; towards infinity no link makes it less in float64
NEAR = 0.1  # once a step promises to lower Pearson's statistic by less than this fraction, observed weights are used
SQUARE = 0.1  # of the tolerance, what the square of a step has to be within to be the last
ADDITIVE = ("log", "identity")  # links by which an intercept shifts or multiplies all means alike: it has a closed form
ANY = 1e30  # a floor that no weight is below


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Reached:
    """Where a fit is. running: whether there may be another step; coefficients: (p,); decrement: the squared length of the
    last step; chi_square: what stands for Pearson's statistic before it; n_iterations: steps taken; settled: whether what
    is left to go is within tolerance."""

    running: Array
    coefficients: Array
    decrement: Array
    chi_square: Array
    n_iterations: Array
    settled: Array


def solve_plain(problem: Problem, options: IRLS, arrived: bool = False) -> Solution:
    """Solve what full steps solve; all that is known of it, not yet `reported`. arrived: whether the problem's start is
    where such steps have led."""
    reached, null, known = begin(problem) if arrived else iterate(problem, options), None, jnp.ones((), bool)
    if problem.rows.offset is not None:
        null, known = _null_intercept(problem, options)
    keep = problem.keep
    found = statistics(problem, PLAIN, reached.coefficients, keep, null)
    return _concluded(problem.bared, options, reached, found, known)


def began(found: Solution) -> Any:
    """Of fits that this pass has left undecided, whether it took a step. Where it did not, the first normal equations could
    not be trusted, and others are not worth a try."""
    return found.n_iterations > 0


@partial(jax.jit, static_argnames="options")
def _concluded(problem: Problem, options: IRLS, reached: Reached, found: Statistics, known: Array) -> Solution:
    """The solution, from the statistics where the steps have led; known: whether the null model is."""
    keep = problem.keep
    status = jnp.where(problem.n_obs == 0, Status.NO_DATA, Status.CONVERGED)
    status = jnp.where(problem.sound, status, Status.INVALID_DATA).astype(jnp.int32)
    decided = (_is_optimum(problem, options, reached, found) & known) | (status != Status.CONVERGED)
    zero, coefficients = jnp.zeros(problem.scale.shape, jnp.int32), reached.coefficients + found.solved.increments[:, 1]
    return Solution(
        coefficients=jnp.where(keep, coefficients / problem.scale, jnp.nan),
        covariance=found.covariance / problem.scale[:, None] / problem.scale,
        deviance=found.deviance,
        null_deviance=found.null_deviance,
        log_likelihood=found.log_likelihood,
        dispersion=found.dispersion,
        rank=jnp.sum(keep, dtype=jnp.int32),
        n_obs=problem.n_obs,
        spans_constant=found.spans_constant,
        n_iterations=reached.n_iterations,
        status=status,
        method=jnp.full_like(status, Method.IRLS),
        infinite=zero,
        aliased=~keep & (problem.n_obs > 0),
        direction=zero.astype(problem.dtype),
        undecided=~decided,
    )


def _is_optimum(problem: Problem, options: IRLS, reached: Reached, found: Statistics) -> Array:
    """Whether the statistics at the coefficients reached say that these are the optimum."""
    length = jnp.sqrt(found.solved.decrements[1])
    within = options.tol * _unit(problem, found.chi_square)
    noise = _noise(found.solved, reached.coefficients, found.chi_square)
    still = (found.stir <= STILL**2) | (not problem.family.can_separate)
    return (length <= jnp.maximum(within, noise)) & still & found.valid & PLAIN.trusts(found.solved.factor)


def iterate(problem: Problem, options: IRLS) -> Reached:
    """Take full steps until what is left to go is within tolerance, or it leads nowhere."""
    few = min(options.max_iterations, FEW)
    first = begin(problem)

    def one_pass(carried: Array) -> Array:
        return packed(_step(problem, options, few, unpacked(carried, first)), problem.dtype)

    if isinstance(problem.rows, Shares):
        state = first
        while state.running:
            state = _step(problem, options, few, state)
        return state
    final = jax.lax.while_loop(lambda carried: carried[0] > 0, one_pass, packed(first, problem.dtype))
    return unpacked(final, first)


def begin(problem: Problem) -> Reached:
    """The start: one weighted least-squares fit of the linearised link at start values of mu."""
    if problem.start is not None:
        return _begun(problem.bared, problem.start, jnp.ones((), bool))
    solved = _linearised(problem)
    return _begun(problem.bared, solved.increments[:, 0], PLAIN.trusts(solved.factor))


@jax.jit
def _begun(problem: Problem, coefficients: Array, trusted: Array) -> Reached:
    """The state at a start."""
    zero = jnp.zeros((), problem.dtype)
    return Reached(
        running=problem.sound & (problem.n_obs > 0) & trusted,
        coefficients=jnp.where(trusted, coefficients, 0.0),  # a singular system leads far, where rows are looked at with care
        decrement=zero + jnp.inf,
        chi_square=zero,
        n_iterations=jnp.zeros((), jnp.int32),
        settled=jnp.zeros((), bool),
    )


def _linearised(problem: Problem) -> Solved:
    collected, _ = PLAIN.gather(problem.rows, Partial(_look_at_start, problem.bared))
    return PLAIN.solve(collected, problem.penalty, problem.origins(None), problem.keep)


def _look_at_start(problem: Problem, part: Rows) -> tuple[Array, Array, Totals]:
    eta = _start_eta(problem, part)
    row = working(problem.family, part, eta)
    wanted = row.scores + row.weights * (eta if part.offset is None else eta - part.offset)
    return row.weights, jnp.where(part.present, wanted, 0.0)[None, :], Totals(())


def _start_eta(problem: Problem, rows: Rows) -> Array:
    """Start values of eta, in single precision, which is much faster and makes no difference: the rows are linearised
    exactly wherever this is. The mean response stands in where there is none."""
    short = typed(problem.family, jnp.float32)
    mu = short.start_at(rows.y.astype(jnp.float32), rows.weights.astype(jnp.float32))
    eta = short.link(mu).astype(problem.dtype)
    return where_present(problem.family, rows, jnp.where(jnp.isfinite(eta), eta, problem.family.link(problem.mean_response)))


def _step(problem: Problem, options: IRLS, few: int, state: Reached) -> Reached:
    """One full step, and whether to take another."""
    family, floor = problem.family, None
    newton = options.information == "observed" and not family.is_canonical
    if newton:
        floor = jnp.where(state.decrement <= NEAR * state.chi_square, -ANY, 1.0).astype(problem.dtype)
    collected, totals = PLAIN.gather(problem.rows, Partial(_look, family, floor, state.coefficients))
    solved = PLAIN.solve(collected, problem.penalty, problem.origins(state.coefficients), problem.keep)
    # Where dispersion is known and no weights change, what is expected of Pearson's statistic does.
    chi_square = totals.sums if newton or family.dispersion is None else problem.total_weight
    return _moved(problem.bared, options, few, state, solved, chi_square)


def _look(family: Family, floor: Array | None, coefficients: Array, part: Rows) -> tuple[Array, Array, Totals]:
    row = working(family, part, part.eta(coefficients), floor)
    return row.weights, row.scores[None, :], Totals(jnp.sum(row.chi_square))


@partial(jax.jit, static_argnames=("options", "few"))
def _moved(problem: Problem, options: IRLS, few: int, state: Reached, solved: Solved, chi_square: Array) -> Reached:
    """Where a step leads."""
    family = problem.family
    decrement, n_iterations = solved.decrements[0], state.n_iterations + 1
    length, within = jnp.sqrt(decrement), options.tol * _unit(problem, chi_square)
    # The error left is at most rate / (1 - rate) of a step; the first has no rate, and has to be within tolerance itself.
    rate = jnp.where(state.n_iterations > 0, jnp.sqrt(decrement / state.decrement), 0.5)
    settled = (length * rate <= within * (1.0 - rate)) | (length <= _noise(solved, state.coefficients, chi_square))
    if family.is_canonical:  # what is left is about the square of the step; whether it is, the end will tell
        settled |= length**2 <= SQUARE * within * _unit(problem, chi_square)
    may = jnp.isfinite(decrement) & PLAIN.trusts(solved.factor)
    if family.can_separate:  # towards infinity steps shrink slowly, and others should not wait for it
        may &= (n_iterations < PATIENCE) | (decrement <= SLOW**2 * state.decrement)
    return Reached(
        running=may & ~settled & (n_iterations < few),
        coefficients=state.coefficients + solved.increments[:, 0],
        decrement=decrement,
        chi_square=chi_square,
        n_iterations=n_iterations,
        settled=settled,
    )


def _unit(problem: Problem, chi_square: Array) -> Array:
    """The square root of the dispersion."""
    if problem.family.dispersion is not None:
        return jnp.ones((), problem.dtype)
    return jnp.sqrt(chi_square / problem.n_obs.astype(problem.dtype))


def _noise(solved: Solved, coefficients: Array, chi_square: Array) -> Array:
    """The length of a step that is nothing but rounding of the rows: of eta, by its parts, and of the responses."""
    of_eta = jnp.sum(jnp.abs(coefficients) * solved.factor.lengths)
    return PLAIN.noise(solved.factor, of_eta + jnp.sqrt(chi_square))


def _null_intercept(problem: Problem, options: IRLS) -> tuple[Array, Array]:
    """The intercept of the null model, whose only other term is the offset, and whether it is known."""
    family, one = problem.family, jnp.ones(1, problem.dtype)
    total = jnp.where(problem.total_weight > 0, problem.total_weight, 1.0)
    mean, offset = (value / total for value in fold(problem.rows, Partial(_mean_at_offset, family)).sums)
    center = family.link(problem.mean_response)
    start = center - family.link(mean)  # where the mean mean is near the mean response
    if family.is_canonical and family.link.name in ADDITIVE:
        return start, jnp.isfinite(start)
    start = jnp.where(jnp.isfinite(start), start, center - offset)
    rows = with_design(problem.rows, Constant())
    null = replace(problem, rows=rows, scale=one, penalty=None, start=start[None], keep=one > 0)
    below = iterate(null, replace(options, tol=max(options.tol, NULL_TOLERANCE)))
    return below.coefficients[0], below.settled


def _mean_at_offset(family: Family, part: Rows) -> Totals:
    assert part.offset is not None
    offset = where_present(family, part, part.offset)
    weights = jnp.where(part.present, part.weights, 0.0)
    return Totals((jnp.sum(weights * family.link.mean(offset).mu), jnp.sum(weights * offset)))
