"""What is known of a fit when the iteration has ended.

Conventions are R's. Covariances come from the expected information at the estimates, times the dispersion; an estimated
dispersion is Pearson's statistic over the residual degrees of freedom; the null model is the intercept, with the offset,
if the columns span a constant, and the offset alone if they do not. Sources: R's `glm.fit`, `summary.glm`, `logLik.glm`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.tree_util import Partial

from jaxglm.aligned import empty
from jaxglm.designs import Constant
from jaxglm.family import Family
from jaxglm.irls.loop import State, optimise
from jaxglm.irls.normal import NORMAL, Algebra, Solved
from jaxglm.irls.options import IRLS
from jaxglm.irls.problem import Problem
from jaxglm.irls.seldom import by_row, seldom
from jaxglm.irls.working import where_present, working
from jaxglm.linalg import cholesky
from jaxglm.links import Mean
from jaxglm.rows import Rows, Totals, fold
from jaxglm.status import Method, Status

NULL_TOLERANCE = 1e-7  # of the null model, in standard errors of its intercept
DEPENDENT = 1e-10  # what may be left of the square of a column that others span, in the regression of 1 on all columns
SPANS = 64.0  # in square roots of the rounding unit: what a regression of 1 on columns that span it may leave


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Solution:
    """One fit. p coefficients; everything else is a scalar unless a shape is given.

    coefficients: (p,), NaN where aliased; covariance: (p, p); deviance, null_deviance, log_likelihood, dispersion;
    rank: independent columns; n_obs: rows of nonzero weight; spans_constant: whether the null model has an intercept;
    n_iterations; status: a `jaxglm.Status`; infinite: (p,), the direction -1, 0, 1 of diverging coefficients;
    method: a `jaxglm.status.Method`; aliased: (p,), columns that depend on those before them;
    direction: (p,), along which the likelihood rises for ever if the status is SEPARATED, else zero; undecided:
    whether this way of solving could not tell, as normal equations cannot where columns nearly depend on each other.

    From `irls.solve` and `irls.solve_many` a SEPARATED fit is the iterate at which separation was proved, and `direction`
    is the proof: finite coefficients are near their optimum at best, and covariance, deviance, log-likelihood and
    dispersion are those of the iterate. `jaxglm.fit` and `glm` put in the limits, of the finite terms and their errors
    too, and ask a linear programme about fits that stopped without an answer, which may be separated as well.
    """

    coefficients: Any
    covariance: Any
    deviance: Any
    null_deviance: Any
    log_likelihood: Any
    dispersion: Any
    rank: Any
    n_obs: Any
    spans_constant: Any
    n_iterations: Any
    status: Any
    method: Any
    infinite: Any
    aliased: Any
    direction: Any
    undecided: Any


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Statistics:
    """What the rows say at given coefficients: everything about a fit that can be differentiated, and what tells whether
    it is at its optimum.

    solved: the factored information, with the regression of 1 on the columns and the step that the score still asks for;
    stir: the sum over rows of the square of what that step changes eta by; valid: whether all rows have valid means;
    chi_square: Pearson's statistic, or what stands for it where the dispersion is known.
    """

    covariance: Array
    deviance: Array
    null_deviance: Array
    log_likelihood: Array
    dispersion: Array
    spans_constant: Array
    solved: Solved
    stir: Array
    valid: Array
    chi_square: Array


def statistics(problem: Problem, algebra: Algebra, coefficients: Array, keep: Array, null: Array | None) -> Statistics:
    """The statistics at scaled coefficients; null is the null model's intercept where there is an offset."""
    family = problem.family
    known = not isinstance(problem.bare, jax.core.Tracer) and bool(problem.bare)
    look = Partial(_look_at_bare if known else _look, problem.bared, coefficients, null)
    collected, totals = algebra.gather(problem.rows, look)
    deviance, null_deviance, likelihood, chi_square, invalid = totals.sums
    chi_square = chi_square if family.dispersion is None else problem.total_weight
    solved = algebra.solve(collected, problem.penalty, problem.origins(None, coefficients), keep)
    ones, step = solved.increments[:, 0], solved.increments[:, 1]
    if problem.penalty is not None:
        ones = _regressed(*algebra.normal(collected, problem.scale.shape[0]))
    left, stir = _looked_along(problem, ones, step)
    lacks = _lacks_constant(left, problem.n_obs)
    if family.dispersion is None:
        likelihood = seldom(~problem.bare, lambda: log_likelihood(problem, coefficients, deviance), -0.5 * deviance)
    factor = solved.factor
    # Where nothing can be said of the columns, another way of solving will tell.
    null_deviance = seldom(lacks & algebra.trusts(factor), lambda: _deviance_of_nothing(problem), null_deviance)
    covariance, dispersion = _covariance(factor.inverse(), factor.aliased, problem.n_obs, chi_square, family.dispersion)
    return Statistics(
        covariance=covariance,
        deviance=deviance,
        null_deviance=null_deviance,
        log_likelihood=likelihood,
        dispersion=dispersion,
        spans_constant=~lacks,
        solved=solved,
        stir=stir,
        valid=invalid == 0,
        chi_square=chi_square,
    )


@jax.jit
def _lacks_constant(left: Array, n_obs: Array) -> Array:
    """Whether the columns do not span a constant, from what their regression of 1 leaves of it."""
    return ~((left <= SPANS**2 * jnp.finfo(left.dtype).eps) & (n_obs > 0))


@partial(jax.jit, static_argnums=4)
def _covariance(inverse: Array, aliased: Array, n_obs: Array, chi_square: Array, known: float | None) -> tuple[Array, Array]:
    """The covariance of scaled coefficients, from the inverse of the information, and the dispersion, Pearson's unless it is
    known."""
    degrees = n_obs - jnp.sum(~aliased, dtype=jnp.int32)
    dispersion = jnp.where(degrees > 0, chi_square / degrees.astype(chi_square.dtype), jnp.nan)
    if known is not None:
        dispersion = jnp.full_like(dispersion, known)
    return jnp.where(aliased[:, None] | aliased, jnp.nan, inverse * dispersion), dispersion


def _look(problem: Problem, coefficients: Array, null: Array | None, part: Rows) -> tuple[Array, Array, Totals]:
    """What some rows say at the coefficients: the sums are deviance, null deviance, log-likelihood where the dispersion is
    known, Pearson's statistic where it is not, and how many means are not valid."""
    family, eta = problem.family, part.eta(coefficients)
    row = working(family, part, eta)
    loss = jnp.sum(row.loss)
    below = _null_working(family, problem.mean_response, null, part)
    simple = (2.0 * loss, 2.0 * jnp.sum(below.loss), -loss)

    def exact() -> Any:
        each = _exact if family.bare is None else _exact_by_row  # without bare responses it is not seldom
        return tuple(map(jnp.sum, each(family, problem.mean_response, null, replace(part, design=None), eta)))

    deviances = seldom(~problem.bare, exact, simple)
    chi_square = jnp.sum(row.chi_square) if family.dispersion is None else jnp.zeros_like(loss)
    sums = (*deviances, chi_square, jnp.sum(~row.valid, dtype=jnp.int32))
    return row.weights, jnp.stack([row.weights, row.scores]), Totals(sums)


def _look_at_bare(problem: Problem, coefficients: Array, null: Array | None, part: Rows) -> tuple[Array, Array, Totals]:
    """The same where all rows are known to be bare, so that nothing else is compiled."""
    known: Any = np.True_
    return _look(replace(problem, bare=known), coefficients, null, part)


def _regressed(information: Array, scores: Array) -> Array:
    """(X'WX)^- X'W1, where X'WX may be singular."""
    factor = cholesky(information, DEPENDENT)
    return factor.unwhiten(factor.whiten(scores[:, :1]))[:, 0]


def _looked_along(problem: Problem, ones: Array, step: Array) -> tuple[Array, Array]:
    """The sums of squares, over rows, of what the regression of 1 on the columns leaves, which is nothing if they span a
    constant, and of what a step changes eta by."""
    return fold(problem.rows, Partial(_squares_along, ones, step)).sums


def _squares_along(ones: Array, step: Array, part: Rows) -> Totals:
    def total(values: Array) -> Array:
        return jnp.sum(jnp.where(part.present, values**2, 0.0))

    return Totals((total(part.design.dot(ones) - 1.0), total(part.design.dot(step))))


def _exact(family: Family, mean_response: Array, null: Array | None, rows: Rows, eta: Array) -> tuple[Array, Array, Array]:
    """Each row's part of the deviance, of the null model's, and of the log-likelihood where the dispersion is known."""
    deviance, likelihood = working(family, rows, eta).deviance, jnp.zeros_like(eta)
    if family.dispersion is not None:
        likelihood = _each_log_likelihood(family, rows, eta, jnp.asarray(family.dispersion, eta.dtype))
    return deviance, _null_working(family, mean_response, null, rows).deviance, likelihood


_exact_by_row = by_row(_exact)


def _each_log_likelihood(family: Family, rows: Rows, eta: Array, dispersion: Array) -> Array:
    weights = jnp.where(rows.present, rows.weights, 1.0)
    mean = family.link.mean(where_present(family, rows, eta))
    return jnp.where(rows.present, family.log_likelihood_at(rows.y, mean, weights, dispersion), 0.0)


def log_likelihood(problem: Problem, coefficients: Array, deviance: Array) -> Array:
    """At scaled coefficients; an estimated dispersion is the deviance over rows or weights there."""
    family, dtype = problem.family, problem.dtype
    if family.dispersion is not None:
        dispersion = jnp.asarray(family.dispersion, dtype)
    else:
        dispersion = deviance / (problem.n_obs.astype(dtype) if family.likelihood_rows == "rows" else problem.total_weight)
    return fold(problem.rows, Partial(_total_log_likelihood, family, coefficients, dispersion)).sums


def _total_log_likelihood(family: Family, coefficients: Array, dispersion: Array, part: Rows) -> Totals:
    return Totals(jnp.sum(_each_log_likelihood(family, part, part.eta(coefficients), dispersion)))


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class _Below:
    """What the rows have under the null model: see `Working`."""

    loss: Array
    deviance: Array


def _null_working(family: Family, mean_response: Array, null: Array | None, rows: Rows) -> _Below:
    """Under the null model with an intercept: the mean response, or, with an offset, the intercept `null`."""
    if rows.offset is None:
        return _at_mean(family, rows, Mean.at(mean_response))
    eta = where_present(family, rows, rows.offset if null is None else rows.offset + null)
    return _at_mean(family, rows, family.link.mean(eta))


def _at_mean(family: Family, rows: Rows, mean: Mean) -> _Below:
    prior = jnp.maximum(rows.weights, 0.0)

    def total(unit: Array) -> Array:
        return jnp.where(rows.present, prior * unit, 0.0)

    return _Below(total(family.loss_at(rows.y, mean)), total(family.unit_deviance_at(rows.y, mean)))


def _deviance_of_nothing(problem: Problem) -> Array:
    """The deviance of the null model without an intercept, the offset alone."""
    return fold(problem.rows, Partial(_deviance_at_offset, problem.family)).sums


def _deviance_at_offset(family: Family, part: Rows) -> Totals:
    return Totals(jnp.sum(_each_deviance_at_offset(family, replace(part, design=None))))


@by_row
def _each_deviance_at_offset(family: Family, rows: Rows) -> Array:
    eta = jnp.zeros_like(rows.y) if rows.offset is None else where_present(family, rows, rows.offset)
    return _at_mean(family, rows, family.link.mean(eta)).deviance


def null_intercept(problem: Problem, options: IRLS) -> Array | None:
    """The intercept of the null model where there is an offset, by the same iteration; else None: it has closed form.

    A null model whose intercept is infinite has the intercept of the last iterate, and a deviance that is as good as 0.
    """
    if problem.rows.offset is None:
        return None
    one = jnp.ones(1, problem.dtype)
    rows, start = replace(problem.rows, design=Constant()), _null_start(problem)
    null = replace(problem, rows=rows, scale=one, penalty=None, start=start[None], keep=one > 0, reach=None)
    # The deviance changes with the square of what is left to go.
    enough = replace(options, tol=max(options.tol, NULL_TOLERANCE))
    return optimise(null, NORMAL, enough).coefficients[0]


def _offset(rows: Rows) -> Array:
    return jnp.zeros_like(rows.y) if rows.offset is None else rows.offset


def _null_start(problem: Problem) -> Array:
    """Where to start a null model with an offset: the mean response at the mean offset; where some row's mean is not
    valid or overflows there, at the largest offset; else at zero."""
    family, total = problem.family, problem.total_weight

    def look(part: Rows) -> Totals:
        offset = jnp.where(part.present, _offset(part), 0.0)
        return Totals(jnp.sum(jnp.where(part.present, part.weights * offset, 0.0)), jnp.max(jnp.abs(offset)))

    offsets = fold(problem.rows, look)
    center = family.link(family.start_at(problem.mean_response, total))
    candidates = jnp.stack([center - offsets.sums / jnp.where(total > 0, total, 1.0), center - offsets.peaks])

    def check(part: Rows) -> Totals:
        rows = jax.vmap(lambda c: working(family, part, c + _offset(part)))(candidates)
        return Totals(jnp.sum(rows.loss, axis=1))

    good = jnp.isfinite(fold(problem.rows, check).sums) & jnp.isfinite(candidates)
    return jnp.where(good[0], candidates[0], jnp.where(good[1], candidates[1], 0.0))


def conclude(problem: Problem, algebra: Algebra, options: IRLS, state: State) -> Solution:
    """All that is known of a final state, in the user's terms, whatever its status; `reported` hides what is no answer."""
    keep = state.keep
    found = statistics(problem, algebra, state.coefficients, keep, null_intercept(problem, options))
    separated = state.status == Status.SEPARATED
    size = problem.extent_of(state.step)
    diverging = separated & (size > 1e-6 * jnp.max(size))
    covariance = found.covariance / problem.scale[:, None] / problem.scale
    return Solution(
        coefficients=jnp.where(keep, state.coefficients / problem.scale, jnp.nan),
        covariance=jnp.where(diverging[:, None] | diverging, jnp.nan, covariance),
        deviance=found.deviance,
        null_deviance=found.null_deviance,
        log_likelihood=found.log_likelihood,
        dispersion=found.dispersion,
        rank=jnp.sum(keep, dtype=jnp.int32),
        n_obs=problem.n_obs,
        spans_constant=found.spans_constant,
        n_iterations=state.n_iterations,
        status=state.status,
        method=jnp.full_like(state.status, Method.IRLS),
        infinite=jnp.where(diverging, jnp.sign(state.step), 0.0).astype(jnp.int32),
        aliased=~keep & (problem.n_obs > 0),
        direction=jnp.where(separated, state.step / problem.scale, 0.0),
        undecided=state.doubtful,
    )


def nothing(g: int, p: int, of: Any = slice(None)) -> Solution:
    """Room for the solutions of g fits. of: those that are told to have no data; the others are not set."""

    def room(shape: tuple[int, ...], kind: Any, value: Any) -> np.ndarray:
        out = empty(shape, kind)
        out[of] = value
        return out

    numbers = {name: room((g,), float, np.nan) for name in ("deviance", "null_deviance", "log_likelihood", "dispersion")}
    counts = {name: room((g,), np.int64, 0) for name in ("rank", "n_obs", "n_iterations")}
    return Solution(
        coefficients=room((g, p), float, np.nan),
        covariance=room((g, p, p), float, np.nan),
        spans_constant=room((g,), bool, False),
        status=room((g,), np.int64, Status.NO_DATA),
        method=room((g,), np.int64, Method.IRLS),
        infinite=room((g, p), np.int64, 0),
        aliased=room((g, p), bool, False),
        direction=room((g, p), float, 0.0),
        undecided=room((g,), bool, False),
        **numbers,
        **counts,
    )


def store(found: Any, groups: np.ndarray | slice, solution: Any) -> None:
    """Put solutions of some groups, or other arrays by group, where they belong."""
    jax.tree.map(lambda out, new: out.__setitem__(groups, np.asarray(new)), found, solution)


def is_lost(status: Any) -> Any:
    """Which fits have no estimates at all: without data, or without a valid step."""
    return (status == Status.INVALID_DATA) | (status == Status.NO_DATA) | (status == Status.STEP_FAILED)


def reported(solution: Solution) -> Solution:
    """What may be told of a solution, or of many: of fits that are lost nothing, and the last iterate of one that ran out
    of steps has no errors. NumPy in, NumPy out."""
    status = solution.status
    where = status.__array_namespace__().where
    lost = is_lost(status)
    uncertain = lost | (status == Status.MAX_ITERATIONS)
    if isinstance(uncertain, np.ndarray) and not uncertain.any():
        return solution
    nan = float("nan")
    scalars = ("deviance", "null_deviance", "log_likelihood", "dispersion")
    return replace(
        solution,
        coefficients=where(lost[..., None], nan, solution.coefficients),
        covariance=where(uncertain[..., None, None], nan, solution.covariance),
        rank=where(lost, 0, solution.rank),
        **{name: where(lost, nan, getattr(solution, name)) for name in scalars},
    )
