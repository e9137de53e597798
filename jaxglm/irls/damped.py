"""Damped Newton steps, inside a barrier at the edge of the valid means, for one fit.

Where the likelihood is not concave, the observed information need not be positive and full steps lead astray. Levenberg's and
Marquardt's remedy adds to it: with H the observed information, scaled to a unit diagonal of the expected one, and its
eigenvalues v taken by their absolute values, the step is (|H| + damping)^-1 times the score. The damping follows the ratio of
what a step has gained to what the quadratic model promised (Nielsen 1999): it falls where the model is good and rises where
it is not, or where a mean would not be valid.

Rows whose response lies at the edge of the valid means (`irls.edge`) would go straight through it. They get a barrier: to the
likelihood is added t times the logarithm of how far inside each is, for a t that falls in stages. The path leads to the
optimum whether it is inside or on the boundary, from where t over the distance tends to the multiplier of the row's bound.

Sources: Marquardt (1963); Nielsen, "Damping parameter in Marquardt's method" (1999); Nocedal and Wright, Numerical
Optimization (2006), sections 4.3 and 19.6.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
from jax import Array

from jaxglm.designs import HIGHEST
from jaxglm.irls.edge import edge_of, has_edge
from jaxglm.irls.problem import Problem
from jaxglm.irls.working import working
from jaxglm.penalty import as_matrix, pulled
from jaxglm.rows import Rows, accumulate

ANY = 1e30  # a floor that no observed weight is below
FIRST, LAST, FACTOR = 0.1, 1e-10, 0.1  # the barrier's t
CENTRAL = 10.0  # the t by which candidates are compared: from a point next to an edge there is no way
CENTERED = 0.1  # of t for each row: the squared length of a step below which the next stage begins
TINY = 1e-18  # the squared length of a step, in dispersions, that is the last
FLOOR = 1e-10  # of the largest scaled eigenvalue, the least that is divided by
PASSES = 400
STUCK = 1e16  # of the damping
GOOD = 1e-4  # of the promised gain, what has to come true


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Sight:
    """What the rows say at a point. loss; barrier: the weighted sum of logarithms; score, rise: (p,), of the two; information,
    bend, size: (p, p), the observed information, the barrier's, and what scales them; bounds: the weights times units of
    rows with an edge; deviance."""

    loss: Array
    barrier: Array
    score: Array
    rise: Array
    information: Array
    bend: Array
    size: Array
    bounds: Array
    deviance: Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class State:
    """Where a fit stands. at: (p,), the last accepted point, and `seen` there; step: (p,); promised: the gain of the step by
    the quadratic model; t; damping, growth: of Marquardt and Nielsen; passes; n_iterations; running."""

    at: Array
    seen: Sight
    step: Array
    promised: Array
    t: Array
    damping: Array
    growth: Array
    passes: Array
    n_iterations: Array
    running: Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Reached:
    """Where the steps have led: coefficients (p,), scaled; and how many were taken."""

    coefficients: Array
    n_iterations: Array


def look(problem: Problem, at: Array) -> Sight:
    """Look at the rows at a point. All the work on rows is here."""
    family = problem.family
    floor = None if family.is_canonical else jnp.asarray(-ANY, problem.dtype)

    def each(part: Rows) -> Sight:
        eta = part.eta(at)
        row, expected = working(family, part, eta, floor), working(family, part, eta)
        score, bend, rise, barrier, bounds = row.scores, 0.0 * eta, 0.0 * eta, jnp.zeros(()), jnp.zeros(())
        if has_edge(family):
            edge = edge_of(family, part.y, problem.mean_response)
            there, slack = (edge.side != 0) & part.present, edge.slack(eta)
            prior = jnp.where(there, part.weights * edge.unit, 0.0)
            safe = jnp.where(slack > 0, slack, 1.0)
            rise, bend = prior * edge.side / (safe * edge.unit), prior / (safe * edge.unit) ** 2
            barrier = jnp.sum(jnp.where(there, jnp.where(slack > 0, prior * jnp.log(safe), -jnp.inf), 0.0))
            bounds = jnp.sum(prior)
        return Sight(
            loss=jnp.sum(row.loss),
            barrier=barrier.astype(problem.dtype),
            score=part.design.transposed_dot(score[None, :])[:, 0],
            rise=part.design.transposed_dot(rise[None, :])[:, 0],
            information=part.design.gram(row.weights),
            bend=part.design.gram(bend),
            size=part.design.gram(jnp.maximum(jnp.abs(row.weights), expected.weights)),
            bounds=bounds.astype(problem.dtype),
            deviance=jnp.sum(jnp.where(part.present, row.deviance, 0.0)),
        )

    found = accumulate(problem.rows, each, lambda a, b: jax.tree.map(jnp.add, a, b))
    if problem.penalty is None:
        return found
    return replace(
        found,
        loss=found.loss + 0.5 * problem.penalty_at(at),
        score=found.score - pulled(problem.penalty, at),
        information=found.information + as_matrix(problem.penalty),
        size=found.size + jnp.abs(as_matrix(problem.penalty)),
    )


def value(seen: Sight, t: Array) -> Array:
    """What the steps make small, infinite where a mean is not valid or an edge is crossed."""
    total = seen.loss - jnp.where(t > 0, t * seen.barrier, 0.0)
    return jnp.where(jnp.isfinite(total) & jnp.isfinite(seen.barrier), total, jnp.inf)


def proposed(seen: Sight, t: Array, damping: Array, keep: Array) -> tuple[Array, Array, Array]:
    """The damped step (p,), the gain that the quadratic model promises of it, and the squared length of the undamped one."""
    uphill = jnp.where(keep, seen.score + t * seen.rise, 0.0)
    matrix = jnp.where(keep[:, None] & keep, seen.information + t * seen.bend, 0.0)
    diagonal = jnp.diagonal(seen.size + t * seen.bend)
    scale = jnp.where(keep & (diagonal > 0), jax.lax.rsqrt(jnp.where(diagonal > 0, diagonal, 1.0)), 0.0)
    scaled = matrix * scale[:, None] * scale + jnp.diag(jnp.where(scale > 0, 0.0, 1.0))
    scaled = jnp.where(jnp.isfinite(scaled), scaled, 0.0)
    values, vectors = jnp.linalg.eigh(scaled)
    along = jnp.matmul(vectors.T, uphill * scale, precision=HIGHEST)
    size = jnp.maximum(jnp.abs(values), FLOOR * jnp.max(jnp.abs(values)))
    step = scale * jnp.matmul(vectors, along / (size + damping), precision=HIGHEST)
    promised = jnp.sum(along**2 / (size + damping)) - 0.5 * jnp.sum(values * (along / (size + damping)) ** 2)
    return step, promised, jnp.sum(along**2 / size)


def solve_damped(problem: Problem, candidates: Array, keep: Array) -> Reached:
    """Go from the best of the candidates (k, p) towards the optimum, or to a point near one on the boundary. keep: (p,),
    columns that are not aliased. Where no candidate is valid the first comes back."""
    dtype, edged = problem.dtype, has_edge(problem.family)
    worth = jax.lax.map(lambda b: value(look(problem, b), jnp.asarray(CENTRAL, dtype)), candidates)
    start = jnp.where(keep, candidates[jnp.argmin(worth)], 0.0)
    seen, damping = look(problem, start), jnp.asarray(1e-3, dtype)
    t = jnp.where(edged & (seen.bounds > 0), FIRST, 0.0).astype(dtype)
    step, promised, _ = proposed(seen, t, damping, keep)
    count = jnp.zeros((), jnp.int32)
    running = jnp.isfinite(jnp.min(worth)) & jnp.isfinite(value(seen, t))
    two = jnp.asarray(2.0, dtype)
    state = State(start, seen, step, promised, t, damping, two, count, count, running)
    final = jax.lax.while_loop(lambda now: now.running, lambda now: _advance(problem, keep, now), state)
    return Reached(final.at, final.n_iterations)


def _advance(problem: Problem, keep: Array, state: State) -> State:
    """Try the step; take it or damp more; go on to the next stage of the barrier where this one's optimum is near."""
    trial = look(problem, state.at + state.step)
    before, after = value(state.seen, state.t), value(trial, state.t)
    slack = 64.0 * jnp.finfo(problem.dtype).eps * (jnp.abs(before) + jnp.abs(state.seen.deviance))
    ratio = (before - after) / state.promised
    accepted = jnp.isfinite(after) & ((ratio >= GOOD) | ((state.promised <= slack) & (after <= before + slack)))
    at = jnp.where(accepted, state.at + state.step, state.at)
    seen = jax.tree.map(lambda new, old: jnp.where(accepted, new, old), trial, state.seen)
    good = jnp.clip(jnp.where(state.promised <= slack, 1.0, ratio), 0.0, 1.0)
    change = jnp.where(accepted, jnp.maximum(1.0 / 9.0, 1.0 - (2.0 * good - 1.0) ** 3), state.growth)
    damping = state.damping * change
    damping = jnp.maximum(damping, 1e-15)
    growth = jnp.where(accepted, 2.0, jnp.minimum(2.0 * state.growth, 1e4))

    _, _, length = proposed(seen, state.t, damping, keep)
    unit = jnp.ones((), problem.dtype)
    if problem.family.dispersion is None:
        unit = jnp.maximum(seen.deviance / jnp.maximum(problem.n_obs, 1).astype(problem.dtype), jnp.finfo(problem.dtype).tiny)
    rows = jnp.maximum(problem.n_obs, 1).astype(problem.dtype)
    resting = (state.promised <= slack) & accepted
    done_here = (length <= jnp.maximum(CENTERED * state.t * seen.bounds / rows, TINY * unit)) | resting
    last = (state.t <= LAST) & ((length <= TINY * unit) | resting)
    t = jnp.where(done_here & (state.t > LAST), FACTOR * state.t, state.t)
    step, promised, _ = proposed(seen, t, damping, keep)
    passes = state.passes + 1
    running = ~last & (passes < PASSES) & (damping < STUCK) & jnp.isfinite(promised)
    return State(at, seen, step, promised, t, damping, growth, passes, state.n_iterations + accepted.astype(jnp.int32), running)
