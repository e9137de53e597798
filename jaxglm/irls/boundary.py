"""An optimum on the boundary of the valid means, for one fit.

The barrier's path (`irls.damped`) has led to within a hair of it, so that the rows that hold it there are known: those whose
distance from their edge is next to nothing. With A their part of the design, what remains is to maximise the likelihood of
the other rows where A b is at the edge, by Newton's steps in the null space of A, each of which also corrects what A b lacks.

The point that is reported lies a hair inside, on the way back to the path, further by a little than what rounding makes of
an eta: so that every mean is valid whoever computes it. That costs the likelihood less than rounding does.

Expected information is infinite there, and no normal approximation holds: covariances are NaN, as in R's logbin and addreg.
Whether the point is an optimum, the multipliers of the bounds have to tell: `jaxglm.boundary`.

Sources: Marschner and Gillett (2012), "Relative risk regression: reliable and flexible methods for log-binomial models"; de
Andrade and Andrade (2018), "Some results for maximum likelihood estimation of adjusted relative risks"; Nocedal and Wright,
Numerical Optimization (2006), section 16.2.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
from jax import Array

from jaxglm.designs import HIGHEST
from jaxglm.irls.damped import ANY
from jaxglm.irls.edge import Edge, edge_of
from jaxglm.irls.loop import State
from jaxglm.irls.normal import NORMAL
from jaxglm.irls.options import IRLS
from jaxglm.irls.problem import Problem
from jaxglm.irls.solution import Solution, conclude, null_intercept, statistics
from jaxglm.irls.working import working
from jaxglm.penalty import as_matrix, pulled
from jaxglm.rows import Rows, Totals, accumulate, fold
from jaxglm.status import Method, Status

STEPS = 25
DEPENDENT = 1e-11  # of the largest eigenvalue of A'A, what counts as none
ROUNDING = 128.0  # roundings of an eta, how far inside of its edge a row is left
ARRIVED = 1e-18  # the squared length of a step, in dispersions, that is the last


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Sight:
    """What rows say at a point, those held at an edge apart from the others. score: (p,), information: (p, p), of the others;
    held: (p, p), A'A; lacking: (p,), A' of what etas of held rows lack to their edge; all in units; terms: the sum of the
    sizes of what makes up the etas of held rows; deviance: of the others."""

    score: Array
    information: Array
    held: Array
    lacking: Array
    n_held: Array
    deviance: Array


def look(problem: Problem, center: Array, threshold: Array, at: Array) -> Sight:
    """Look at the rows at a point `at` (p,). Held are the rows that are within `threshold` of their edge at `center`."""
    family = problem.family
    floor = None if family.is_canonical else jnp.asarray(-ANY, problem.dtype)

    def each(part: Rows) -> Sight:
        edge, eta = edge_of(family, part.y, problem.mean_response), part.eta(at)
        there = (edge.side != 0) & part.present & (edge.slack(part.eta(center)) <= threshold)
        row = working(family, part, eta, floor)
        size = jnp.where(there, 1.0 / edge.unit, 0.0)
        return Sight(
            score=part.design.transposed_dot(jnp.where(there, 0.0, row.scores)[None, :])[:, 0],
            information=part.design.gram(jnp.where(there, 0.0, row.weights)),
            held=part.design.gram(size**2),
            lacking=part.design.transposed_dot((size**2 * (edge.end - eta))[None, :])[:, 0],
            n_held=jnp.sum(there, dtype=jnp.int32),
            deviance=jnp.sum(jnp.where(part.present & ~there, row.deviance, 0.0)),
        )

    found = accumulate(problem.rows, each, lambda a, b: jax.tree.map(jnp.add, a, b))
    if problem.penalty is None:
        return found
    return replace(
        found,
        score=found.score - pulled(problem.penalty, at),
        information=found.information + as_matrix(problem.penalty),
    )


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class _Held:
    """The eigenvectors (p, p) of A'A, in columns; fixed: those of eigenvalues that are not zero, and inverse: what these
    divide by."""

    vectors: Array
    fixed: Array
    inverse: Array

    def back(self, right: Array) -> Array:
        """The shortest solution d of A'A d = right, (p,)."""
        along = self.inverse * jnp.matmul(self.vectors.T, right, precision=HIGHEST)
        return jnp.matmul(self.vectors, along, precision=HIGHEST)


def _solved(held: Array, keep: Array) -> _Held:
    values, vectors = jnp.linalg.eigh(jnp.where(keep[:, None] & keep, held, 0.0))
    fixed = values > DEPENDENT * jnp.maximum(values[-1], jnp.finfo(held.dtype).tiny)
    return _Held(vectors, fixed, jnp.where(fixed, 1.0 / jnp.where(fixed, values, 1.0), 0.0))


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Polished:
    """at: (p,); arrived: whether the last step was next to nothing; curved: whether the likelihood curves downwards in all
    directions that the held rows leave."""

    at: Array
    arrived: Array
    curved: Array


def polish(problem: Problem, center: Array, threshold: Array, keep: Array) -> Polished:
    """The optimum with the rows held that are within `threshold` of their edge at `center` (p,)."""
    pairs, p = keep[:, None] & keep, len(keep)

    def step(index: Array, found: Polished) -> Polished:
        seen = look(problem, center, threshold, found.at)
        held = _solved(seen.held, keep)
        fixed, back = held.fixed, held.back(seen.lacking)
        null = jnp.where(fixed, 0.0, held.vectors)
        matrix = jnp.where(pairs, seen.information, jnp.zeros_like(seen.information)) + jnp.diag(jnp.where(keep, 0.0, 1.0))
        uphill = jnp.where(keep, seen.score - jnp.matmul(seen.information, back, precision=HIGHEST), 0.0)
        inner = jnp.matmul(null.T, jnp.matmul(matrix, null, precision=HIGHEST), precision=HIGHEST)
        diagonal = jnp.where(fixed, 1.0, jnp.diagonal(inner))
        scale = jax.lax.rsqrt(jnp.where(diagonal > 0, diagonal, 1.0))
        scaled = (inner + jnp.diag(jnp.where(fixed, 1.0, 0.0))) * scale[:, None] * scale
        along = jnp.matmul(null.T, uphill, precision=HIGHEST) * scale
        scaled = jnp.where(jnp.isfinite(scaled), scaled, jnp.eye(p))
        solved = jnp.linalg.solve(scaled, along)
        unit = jnp.ones((), problem.dtype)
        if problem.family.dispersion is None:
            unit = seen.deviance / jnp.maximum(problem.n_obs, 1).astype(problem.dtype)
        arrived = jnp.abs(jnp.sum(solved * along)) <= ARRIVED * unit
        move = back + jnp.matmul(null, scale * solved, precision=HIGHEST)
        curved = jnp.all(diagonal > 0) & (jnp.linalg.eigvalsh(scaled)[0] > 0)
        return Polished(jnp.where(jnp.isfinite(move), found.at + jnp.where(keep, move, 0.0), jnp.nan), arrived, curved)

    return jax.lax.fori_loop(0, STEPS, step, Polished(center, jnp.zeros((), bool), jnp.zeros((), bool)))


def _inside(problem: Problem, center: Array, threshold: Array, at: Array, keep: Array) -> Array:
    """`at`, moved inside until its held rows are clear of rounding: the shortest way, if there is one for all rows, else
    towards `center`."""
    family = problem.family

    def clearance(part: Rows) -> tuple[Edge, Array, Array, Array]:
        edge = edge_of(family, part.y, problem.mean_response)
        slack = edge.slack(part.eta(center))
        there = (edge.side != 0) & part.present & (slack <= threshold)
        known = jnp.zeros_like(part.y) if part.offset is None else jnp.abs(part.offset)
        terms = jnp.sqrt(part.design.quadratic(jnp.diag(at**2)) * len(at)) + known + jnp.abs(edge.end)
        wanted = ROUNDING * jnp.finfo(problem.dtype).eps * (terms / edge.unit + 1.0)
        return edge, there, slack, wanted

    def each(part: Rows) -> tuple[Array, Array, Totals]:
        edge, there, slack, wanted = clearance(part)
        right = jnp.where(there, edge.side * wanted / edge.unit, 0.0)
        share = jnp.max(jnp.where(there, wanted / jnp.where(slack > 0, slack, 1e-300), 0.0))
        gram = part.design.gram(jnp.where(there, edge.unit**-2.0, 0.0))
        return gram, part.design.transposed_dot(right[None, :])[:, 0], Totals((), share)

    held, right, totals = accumulate(problem.rows, each, lambda a, b: (a[0] + b[0], a[1] + b[1], a[2].merge(b[2])))
    shortest = _solved(held, keep).back(right)

    def short(part: Rows) -> Totals:
        edge, there, _, wanted = clearance(part)
        gained = edge.side * part.design.dot(shortest) / edge.unit
        return Totals((), jnp.any(there & (gained < 0.5 * wanted)))

    inside = jnp.where(fold(problem.rows, short).peaks, jnp.minimum(totals.peaks, 1.0) * (center - at), shortest)
    return at + inside


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Bounded:
    """A solution on the boundary, and the penalized score there, (p,), in the user's terms; sound: whether it is a
    candidate."""

    solution: Solution
    pull: Array
    sound: Array


def solve_boundary(problem: Problem, options: IRLS, center: Array, inside: Array, threshold: Array, keep: Array) -> Bounded:
    """The optimum near `center` (p,), the end of the barrier's path, with the rows that are within `threshold` of their edge
    held there; `inside`: (p,), some point inside, at which what belongs to the null model is computed."""
    found = polish(problem, center, threshold, keep)
    at = _inside(problem, center, threshold, found.at, keep)
    zero, none = jnp.zeros((), problem.dtype), jnp.zeros((), jnp.int32)
    state = State(
        status=jnp.where(problem.sound, Status.CONVERGED, Status.INVALID_DATA).astype(jnp.int32),
        coefficients=at,
        step=jnp.zeros_like(at),
        objective=zero,
        constant=zero,
        decrement=zero,
        floor_length=zero,
        halvings=none,
        n_iterations=none,
        keep=keep,
        doubtful=jnp.zeros((), bool),
        cautious=jnp.zeros((), bool),
    )
    solution = conclude(problem, NORMAL, options, state)
    null = statistics(problem, NORMAL, inside, keep, null_intercept(problem, options))
    solution = replace(
        solution,
        covariance=jnp.full_like(solution.covariance, jnp.nan),
        null_deviance=null.null_deviance,
        spans_constant=null.spans_constant,
        method=jnp.full_like(solution.method, Method.BOUNDARY),
    )
    pull = jnp.zeros_like(at) if problem.penalty is None else pulled(problem.penalty, at) * problem.scale
    valid = jnp.isfinite(solution.deviance) & jnp.all(jnp.isfinite(at)) & found.arrived & found.curved
    return Bounded(solution, pull, valid)
