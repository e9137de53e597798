"""Other places to start from, for one fit.

Start values are, as in R, the responses, moved a little into the valid means; their regression on the columns may still have
means that are not valid, or lie in a part of the likelihood that leads nowhere. Here there are two more: the null model, which
is a constant mean, and the unweighted regression of the transformed response, drawn back towards the null model until all
means are valid (the step-halving of Marschner 2011, "glm2: Fitting generalized linear models with convergence problems").
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array

from jaxglm.irls.loop import start_eta
from jaxglm.irls.normal import NORMAL
from jaxglm.irls.problem import Problem
from jaxglm.irls.working import working
from jaxglm.rows import Rows, Totals, fold

HALVINGS = 12


def other_starts(problem: Problem, keep: Array) -> Array:
    """Candidates (3, p): the null model, the regression of the transformed response drawn back, and zero; none of them need
    be valid. keep: (p,), columns that are not aliased."""
    family = problem.family
    level = family.link(problem.mean_response)

    def each(part: Rows) -> tuple[Array, Array, Totals]:
        prior = jnp.where(part.present, part.weights, 0.0)
        known = jnp.zeros_like(part.y) if part.offset is None else part.offset
        eta = start_eta(family, part, problem.mean_response)
        wanted = jnp.stack([prior * (level - known), prior * (eta - known)])
        return prior, jnp.where(part.present, wanted, 0.0), Totals(())

    collected, _ = NORMAL.gather(problem.rows, each)
    solved = NORMAL.solve(collected, None, None, keep)
    null, regression = (jnp.where(keep & jnp.isfinite(b), b, 0.0) for b in solved.increments.T)
    shares = 0.5 ** jnp.arange(HALVINGS, dtype=problem.dtype)
    drawn = null + shares[:, None] * (regression - null)
    valid = jnp.isfinite(jax.lax.map(lambda b: objective(problem, b), drawn))
    return jnp.stack([null, drawn[jnp.argmax(valid)], jnp.zeros_like(null)])


def objective(problem: Problem, coefficients: Array) -> Array:
    """Deviance plus penalty at coefficients (p,), infinite where a mean is not valid."""

    def each(part: Rows) -> Totals:
        row = working(problem.family, part, part.eta(coefficients))
        return Totals(jnp.sum(jnp.where(row.valid, row.deviance, jnp.where(part.present, jnp.inf, 0.0))))

    value = fold(problem.rows, each).sums + problem.penalty_at(coefficients)
    return jnp.where(jnp.isfinite(value), value, jnp.inf)
