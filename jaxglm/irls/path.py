"""The path of an elastic net for one GLM: fits along decreasing strengths, each from the one before.

The objective is glmnet's: minus the log-likelihood at dispersion 1 over the sum W of the weights, plus strength * sum of
factor_j * (mixing |c_j| + (1 - mixing) c_j^2 / 2), for coefficients c of standardized columns. It is worked on times W. At
every point the likelihood is expanded as IRLS does, and the quadratic with its absolute values is minimised exactly
(`irls.lasso`): a step of the proximal Newton method, which converges as Newton's does, and is halved where the objective
rises. A fit is done at a point from which the expansion there asks for no step beyond tolerance or rounding: the conditions
of Karush, Kuhn and Tucker hold. That last look at the rows is also what the next strength starts from.

Columns are centered, where there is an intercept, and scaled, whether the penalty counts in standard deviations or not; the
products of columns are then as far from singular as the design allows. Source: Friedman, Hastie and Tibshirani (2010).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxglm.designs import Dense
from jaxglm.irls.carry import packed, unpacked
from jaxglm.irls.lasso import Quadratic, factor_on, minimise
from jaxglm.irls.loop import OBSERVED_FLOOR, RUNNING, observes
from jaxglm.irls.options import IRLS
from jaxglm.irls.problem import Problem
from jaxglm.irls.seldom import seldom
from jaxglm.irls.solution import log_likelihood
from jaxglm.irls.working import working
from jaxglm.rows import Rows, Totals, fold
from jaxglm.status import Status

CONSTANT = 64.0  # in units of the last place, what rounding makes the deviation of a constant column
LEAST_MIXING = 1e-3  # glmnet's, where the largest strength is asked for: under a ridge no strength gives zeros
NEAR = 0.1  # once a step is shorter than this fraction of Pearson's statistic, observed weights are used
ULP = 8.0  # in units of the last place, by how much the terms of an objective may be off


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Shrinkage:
    """An elastic net without its strength, for coefficients of columns in standard deviations. mixing: from ridge, 0, to
    lasso, 1; factors: (p,), zero where a column is free; intercept: (p,), flags the column that is one, if any;
    standardized: whether the penalty counts in standard deviations, else in the columns' own units."""

    mixing: Any
    factors: Any
    intercept: Any
    standardized: Any


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class PathSolution:
    """A path of L fits. coefficients: (L, p), NaN where aliased; deviance, log_likelihood (NaN where it follows from the
    deviance, as it does where the dispersion is known), chi_square: Pearson's statistic; df: degrees of freedom, the number
    of coefficients that are not zero, or with a ridge part the trace of the hat matrix on them; status; n_iterations: (L,)."""

    coefficients: Any
    deviance: Any
    log_likelihood: Any
    chi_square: Any
    df: Any
    status: Any
    n_iterations: Any


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Standard:
    """Standardized columns (X - center) / spread, (p,), in a problem's scaled units, and how the penalty counts them: what
    a strength of 1 multiplies |c_j| (`absolute`) and c_j^2 / 2 (`square`) with, (p,), as under a lasso and a ridge alone;
    keep: (p,), the columns that may have a coefficient; mean: (p,); intercept: (p,), flags."""

    center: Array
    spread: Array
    absolute: Array
    square: Array
    keep: Array
    intercept: Array
    mean: Array

    def rows(self, part: Rows) -> Rows:
        """A chunk of rows with these columns."""
        columns = (part.design.columns - self.center[:, None]) / self.spread[:, None]
        return replace(part, design=Dense(columns))

    def coefficients(self, c: Array) -> Array:
        """Of the columns as they are, from those of standardized columns."""
        b = c / self.spread
        moved = jnp.sum(b * self.center)
        return b - jnp.where(self.intercept, moved / jnp.where(self.intercept, self.mean, 1.0), 0.0)

    def standardized(self, b: Array) -> Array:
        """Coefficients of standardized columns, from those of the columns as they are."""
        moved = jnp.sum(b * self.center)
        return (b + jnp.where(self.intercept, moved / jnp.where(self.intercept, self.mean, 1.0), 0.0)) * self.spread


def standardize(problem: Problem, shrinkage: Shrinkage, start: Array) -> Standard:
    """Means and standard deviations by weight and n. start: (p,), NaN where a free column is aliased."""
    weight = jnp.where(problem.total_weight > 0, problem.total_weight, 1.0)

    def means(part: Rows) -> Totals:
        return Totals(part.design.transposed_dot(jnp.where(part.present, part.weights, 0.0)[None, :])[:, 0])

    mean = fold(problem.rows, means).sums / weight

    def squares(part: Rows) -> Totals:
        away = jnp.where(part.present, part.design.columns - mean[:, None], 0.0)
        return Totals(jnp.sum(jnp.where(part.present, part.weights, 0.0) * away**2, axis=1), part.design.reach())

    totals = fold(problem.rows, squares)
    deviation = jnp.sqrt(totals.sums / weight)
    varies = deviation > CONSTANT * jnp.finfo(problem.dtype).eps * totals.peaks
    spread = jnp.where(varies & ~shrinkage.intercept, deviation, 1.0)
    own = jnp.where(shrinkage.standardized, 1.0, spread * problem.scale)
    free = shrinkage.factors == 0
    penalized = varies | (~shrinkage.standardized & (totals.peaks > 0))
    centered = jnp.any(shrinkage.intercept) & ~shrinkage.intercept
    return Standard(
        center=jnp.where(centered, mean, 0.0),
        spread=spread,
        absolute=shrinkage.factors * problem.total_weight / own,
        square=shrinkage.factors * problem.total_weight / own**2,
        keep=jnp.where(free, jnp.isfinite(start), penalized),
        intercept=shrinkage.intercept,
        mean=mean,
    )


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Seen:
    """What the rows say at a point: information (p, p), score (p,), loss, and by how much it may be off; chi_square:
    Pearson's statistic; offset_square: what the offset adds to the square of the length of eta."""

    information: Array
    score: Array
    loss: Array
    rounding: Array
    chi_square: Array
    offset_square: Array


def look(problem: Problem, standard: Standard, c: Array, floor: Array | None) -> Seen:
    """Look at the rows at coefficients c of standardized columns."""
    epsilon = jnp.finfo(problem.dtype).eps

    def each(part: Rows) -> Totals:
        part = standard.rows(part)
        eta = part.eta(c)
        row = working(problem.family, part, eta, floor)
        information, scores = part.design.normal(row.weights, row.scores[None, :])
        offset = jnp.zeros_like(eta) if part.offset is None else part.offset
        off = jnp.sum(jnp.abs(row.loss)) + jnp.sum(jnp.abs(row.scores * jnp.where(part.present, eta, 0.0)))
        square = jnp.sum(jnp.abs(row.weights) * offset**2)
        return Totals(Seen(information, scores[:, 0], jnp.sum(row.loss), ULP * epsilon * off, jnp.sum(row.chi_square), square))

    return fold(problem.rows, each).sums


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Point:
    """Where a fit stands. coefficients: (p,), the last accepted, of standardized columns; seen: there; target: (p,), where
    the expansion there leads; length: of the step to it, in the norm of the information; floor_length: what rounding makes
    of one; halvings; n_iterations; status."""

    status: Array
    coefficients: Array
    seen: Seen
    target: Array
    length: Array
    floor_length: Array
    halvings: Array
    n_iterations: Array


@dataclass(frozen=True)
class Stage:
    """One strength of a path. absolute, square: (p,), what multiplies |c_j| and c_j^2 / 2."""

    problem: Problem
    standard: Standard
    options: IRLS
    absolute: Array
    square: Array

    def penalty(self, c: Array) -> Array:
        """What the penalty adds to the loss."""
        return jnp.sum(self.absolute * jnp.abs(c)) + 0.5 * jnp.sum(self.square * c**2)

    def aim(self, point: Point) -> Point:
        """The point with the target of what has been seen there, and whether that is where it is."""
        seen, c, problem = point.seen, point.coefficients, self.problem
        quadratic = Quadratic(seen.information, seen.score, c, self.absolute, self.square, self.standard.keep)
        found = minimise(quadratic)
        step = found.coefficients - c
        length = jnp.sqrt(jnp.maximum(step @ (quadratic.curvature @ step), 0.0))
        of_eta = jnp.sqrt(seen.offset_square) + jnp.sum(jnp.abs(c) * jnp.sqrt(jnp.abs(jnp.diagonal(seen.information))))
        loss = jax.lax.rsqrt(jnp.where(found.smallest_pivot > 0, found.smallest_pivot, 1.0))
        noise = 4.0 * jnp.finfo(problem.dtype).eps * (of_eta + jnp.sqrt(seen.chi_square)) * loss
        unit = jnp.ones((), problem.dtype)
        if problem.family.dispersion is None:
            unit = jnp.sqrt(seen.chi_square / problem.n_obs.astype(problem.dtype))
        settled = (length <= jnp.maximum(self.options.tol * unit, noise)) & found.settled
        running = point.status == RUNNING
        status = jnp.where(running & ~jnp.isfinite(length), Status.STEP_FAILED, point.status)
        status = jnp.where(running & settled, Status.CONVERGED, status).astype(jnp.int32)
        return replace(point, status=status, target=found.coefficients, length=length, floor_length=noise)

    def one_pass(self, point: Point) -> Point:
        """Look at the trial point, accept it or halve the step, and aim again."""
        problem, c = self.problem, point.coefficients
        part = jnp.exp2(-point.halvings.astype(problem.dtype))
        trial = jnp.where(point.halvings == 0, point.target, c + part * (point.target - c))
        floor = None
        if observes(problem, self.options):
            near = point.length**2 <= NEAR * point.seen.chi_square
            floor = jnp.where(near, OBSERVED_FLOOR, 1.0).astype(problem.dtype)
        seen = look(problem, self.standard, trial, floor)
        before, after = point.seen.loss + self.penalty(c), seen.loss + self.penalty(trial)
        accepted = jnp.isfinite(after) & (after <= before + seen.rounding + point.seen.rounding)
        n_iterations = point.n_iterations + accepted.astype(jnp.int32)
        halvings = jnp.where(accepted, 0, point.halvings + 1)
        status = jnp.where(halvings > self.options.max_halvings, Status.STEP_FAILED, RUNNING)
        there = replace(
            point,
            status=status.astype(jnp.int32),
            coefficients=jnp.where(accepted, trial, c),
            seen=jax.tree.map(lambda new, old: jnp.where(accepted, new, old), seen, point.seen),
            halvings=halvings.astype(jnp.int32),
            n_iterations=n_iterations,
        )
        there = self.aim(there)
        out = (there.status == RUNNING) & (n_iterations >= self.options.max_iterations)
        return replace(there, status=jnp.where(out, Status.MAX_ITERATIONS, there.status).astype(jnp.int32))

    def run(self, point: Point) -> Point:
        """To the end, from where the strength before has led."""
        zero, running = jnp.zeros((), jnp.int32), jnp.asarray(RUNNING, jnp.int32)
        first = self.aim(replace(point, status=running, halvings=zero, n_iterations=zero))

        def one_pass(carried: Array) -> Array:
            return packed(self.one_pass(unpacked(carried, first)), self.problem.dtype)

        final = jax.lax.while_loop(lambda carried: carried[0] == RUNNING, one_pass, packed(first, self.problem.dtype))
        return unpacked(final, first)

    def df(self, point: Point) -> Array:
        """Degrees of freedom."""
        c, information = point.coefficients, point.seen.information
        which = self.standard.keep & ((c != 0) | (self.standard.absolute == 0))

        def trace() -> Array:
            inverse = factor_on(information + jnp.diag(self.square), which).inverse()
            return jnp.sum(jnp.where(which[:, None] & which, information * inverse, 0.0))

        return seldom(jnp.any(self.square > 0), trace, jnp.sum(which).astype(c.dtype))


def solve_path(problem: Problem, options: IRLS, shrinkage: Shrinkage, strengths: Array, start: Array) -> PathSolution:
    """Fit along strengths (L,), the largest first. start: (p,), the fit of the free columns alone, NaN where one of these is
    aliased, and anything elsewhere."""
    standard = standardize(problem, shrinkage, start)
    point, constant = _begin(problem, standard, shrinkage, start)

    def stage(point: Point, strength: Array) -> tuple[Point, PathSolution]:
        absolute, square = shrinkage.mixing * standard.absolute, (1.0 - shrinkage.mixing) * standard.square
        at = Stage(problem, standard, options, strength * absolute, strength * square)
        point = at.run(point)
        raw = standard.coefficients(point.coefficients)
        deviance = jnp.maximum(2.0 * point.seen.loss - constant, 0.0)
        likelihood = jnp.full_like(deviance, jnp.nan)
        if problem.family.counts_dispersion:
            likelihood = log_likelihood(problem, raw, deviance)
        aliased = (shrinkage.factors == 0) & ~standard.keep
        return point, PathSolution(
            coefficients=jnp.where(aliased, jnp.nan, raw / problem.scale),
            deviance=deviance,
            log_likelihood=likelihood,
            chi_square=point.seen.chi_square,
            df=at.df(point),
            status=jnp.where(problem.sound, point.status, Status.INVALID_DATA).astype(jnp.int32),
            n_iterations=point.n_iterations,
        )

    return jax.lax.scan(stage, point, strengths)[1]


def _begin(problem: Problem, standard: Standard, shrinkage: Shrinkage, start: Array) -> tuple[Point, Array]:
    """Where a path begins, and what a deviance is less than twice the loss."""
    free = (shrinkage.factors == 0) & standard.keep
    c = standard.standardized(jnp.where(free, start, 0.0) * problem.scale)
    seen = look(problem, standard, c, None)

    def each(part: Rows) -> Totals:
        part = standard.rows(part)
        row = working(problem.family, part, part.eta(c))
        return Totals(jnp.sum(2.0 * row.loss - row.deviance))

    zero = jnp.zeros((), jnp.int32)
    none = jnp.zeros((), problem.dtype)
    return Point(zero, c, seen, c, none, none, zero, zero), fold(problem.rows, each).sums


def largest_strength(problem: Problem, shrinkage: Shrinkage, start: Array) -> Array:
    """The least strength under which no penalized coefficient is different from zero; under a ridge glmnet's number, as if
    the mixing were 0.001."""
    standard = standardize(problem, shrinkage, start)
    point, _ = _begin(problem, standard, shrinkage, start)
    penalized = standard.keep & (standard.absolute > 0)
    enough = jnp.where(penalized, jnp.abs(point.seen.score) / jnp.where(penalized, standard.absolute, 1.0), 0.0)
    return jnp.max(enough) / jnp.maximum(shrinkage.mixing, LEAST_MIXING)
