"""One fit, as a pure function.

`solve` composes with `jit`, `vmap`, `grad` and `shard_map` (with `check_vma=False`); its arithmetic has the floating-point
type of X. It becomes a program of XLA, unless it is small and its arrays are at hand: then it goes through lanes of a CPU, if
it can (`irls.at_hand`), whose kernels take less time to compile.

Derivatives come from the implicit function theorem: at the optimum the score is zero whatever the data, so a change of the
data moves the coefficients by the inverse of the observed information times the change of the score. Nothing is
differentiated through the iteration, and the deviance, the covariance and the rest follow from the coefficients.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxglm.family import Family
from jaxglm.irls.at_hand import are_traced, one_on_device, solve_one_at_hand
from jaxglm.irls.careful import solve_careful
from jaxglm.irls.data import Data, gather_data
from jaxglm.irls.loop import start_eta
from jaxglm.irls.normal import NORMAL
from jaxglm.irls.options import IRLS
from jaxglm.irls.solution import Solution, Statistics, null_intercept, reported, statistics
from jaxglm.irls.working import where_present, working
from jaxglm.links import ArrayLike
from jaxglm.penalty import Ridge, as_matrix, pulled


def _coefficients(name: str, values: ArrayLike, data: Data) -> Array:
    """Coefficients given by the user. Raises ValueError for another length."""
    values, p = jnp.asarray(values, data.X.dtype), data.X.shape[1]
    if values.shape != (p,):
        raise ValueError(f"{name} must have shape ({p},), one for each column of X, not {values.shape}")
    return values


def solve(
    X: ArrayLike,
    y: ArrayLike,
    family: Family,
    *,
    weights: ArrayLike | None = None,
    offset: ArrayLike | None = None,
    penalty: Ridge | None = None,
    start: ArrayLike | None = None,
    options: IRLS = IRLS(),  # noqa: B008
) -> Solution:
    """Fit one generalized linear model.

    X: (n, p); y: (n,); weights: prior weights (n,), zero where a row is not there; offset: (n,), added to eta;
    penalty: `Ridge`; start: coefficients (p,) to start from. Returns a `Solution`; never raises because of values. A small
    fit that is not traced is made by the kernels for CPUs where these can do it, and otherwise by a program like one that is
    traced: the numbers are the same up to rounding, but the kernels may count one iteration less, and so converge where
    `options` allow the program one too few.
    Derivatives with respect to X, y, weights, offset, the penalty and the family's parameters are exact at the optimum,
    of any order and in both modes; entries that are NaN (aliased coefficients) have no derivative.

    >>> import jax.numpy as jnp
    >>> from jaxglm import families, irls
    >>> X = jnp.array([[1.0, 0.0], [1.0, 1.0], [1.0, 2.0], [1.0, 3.0]])
    >>> fit = irls.solve(X, jnp.array([1.0, 2.0, 3.0, 9.0]), families.Poisson())
    >>> [round(float(b), 4) for b in fit.coefficients], int(fit.status)
    ([-0.1851, 0.7736], 0)
    """
    data = gather_data(X, y, family, weights, offset, penalty)
    start = None if start is None else _coefficients("start", start, data)
    found = None if are_traced(data, start) else solve_one_at_hand(options, data, start, weights is not None)
    return one_on_device(found, data.X.dtype) if found is not None else solve_data(options, data, start)


@partial(jax.jit, static_argnums=0)  # a second call does not compile again; transformations see through it
def solve_data(options: IRLS, data: Data, start: Array | None) -> Solution:
    """Solve one fit, with derivatives."""
    return _solve(options, data, start)


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _solve(options: IRLS, data: Data, start: Array | None) -> Solution:
    return reported(solve_careful(data.posed(start), options))


@_solve.defjvp
def _solve_jvp(options: IRLS, primals: tuple[Data, Array | None], tangents: tuple[Data, Any]) -> tuple[Solution, Solution]:
    (data, start), (data_dot, _) = primals, tangents
    solution = _solve(options, data, start)
    return solution, differentiate(options, data, data_dot, solution)


def differentiate(options: IRLS, data: Data, data_dot: Data, solution: Solution) -> Solution:
    """How a fit's solution moves as its data do."""
    aliased = jnp.isnan(solution.coefficients)
    coefficients = jnp.where(aliased, 0.0, solution.coefficients)
    score_dot = jax.jvp(lambda d: _score(d, coefficients), (data,), (data_dot,))[1]
    information = -jax.jacfwd(lambda b: _score(data, b))(coefficients)
    unit = jnp.eye(len(aliased), dtype=data.X.dtype)
    information = jnp.where(aliased[:, None] | aliased, unit, information)
    size = jax.lax.rsqrt(jnp.abs(jnp.diagonal(information)))
    scaled = information * size[:, None] * size
    b_dot = jnp.linalg.solve(scaled, jnp.where(aliased, 0.0, score_dot) * size) * size

    found_dot = jax.jvp(lambda d, b: _statistics(options, d, b, ~aliased), (data, coefficients), (data_dot, b_dot))[1]
    zero = jax.tree.map(_zero_tangent, solution)
    return replace(zero, coefficients=b_dot, **{name: getattr(found_dot, name) for name in _DIFFERENTIATED})


_DIFFERENTIATED = ("covariance", "deviance", "null_deviance", "log_likelihood", "dispersion")


def _zero_tangent(leaf: Array) -> Any:
    if jnp.issubdtype(leaf.dtype, jnp.floating):
        return jnp.zeros_like(leaf)
    return np.zeros(leaf.shape, jax.dtypes.float0)


def _score(data: Data, coefficients: Array) -> Array:
    """The derivative of the penalized log-likelihood at dispersion 1."""
    problem = data.problem()
    rows = problem.rows
    row = working(data.family, rows, rows.eta(coefficients * problem.scale))
    score = rows.design.transposed_dot(row.scores[None, :])[:, 0] * problem.scale
    return score if data.penalty is None else score - pulled(data.penalty, coefficients)


def _statistics(options: IRLS, data: Data, coefficients: Array, keep: Array) -> Statistics:
    """The statistics at given coefficients. The null model is at its own optimum, so that its derivative vanishes."""
    problem = data.problem()
    null = null_intercept(jax.lax.stop_gradient(problem), options)
    found = statistics(problem, NORMAL, coefficients * problem.scale, keep, null)
    return replace(found, covariance=found.covariance / problem.scale[:, None] / problem.scale)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Step:
    """One step of IRLS, taken apart.

    coefficients: (p,), after the step; increment: (p,); score: (p,), X's minus the penalty's pull; information: (p, p),
    X'WX plus the penalty; deviance: before the step; eta, mu, working_response, working_weights: (n,), before the step.
    """

    coefficients: Array
    increment: Array
    score: Array
    information: Array
    deviance: Array
    eta: Array
    mu: Array
    working_response: Array
    working_weights: Array


def step(
    X: ArrayLike,
    y: ArrayLike,
    family: Family,
    coefficients: ArrayLike | None = None,
    *,
    weights: ArrayLike | None = None,
    offset: ArrayLike | None = None,
    penalty: Ridge | None = None,
) -> Step:
    """One full step of Fisher scoring from `coefficients` (p,), or from the family's start values of mu if none are given.

    It is the weighted least-squares fit of the working response z = eta - offset + (y - mu) deta/dmu on X with working
    weights W = w (dmu/deta)^2 / V(mu), made as `solve` makes it: for the increment, from the score.

    >>> import jax.numpy as jnp
    >>> from jaxglm import families, irls
    >>> X, y = jnp.array([[1.0, 0.0], [1.0, 1.0], [1.0, 2.0], [1.0, 3.0]]), jnp.array([1.0, 2.0, 3.0, 9.0])
    >>> first = irls.step(X, y, families.Poisson())
    >>> second = irls.step(X, y, families.Poisson(), first.coefficients)
    >>> bool(second.deviance < 0.5)
    True
    """
    data = gather_data(X, y, family, weights, offset, penalty)
    problem = data.problem()
    rows, family = problem.rows, data.family
    known = jnp.zeros_like(data.y) if rows.offset is None else rows.offset
    if coefficients is None:
        eta = start_eta(family, rows, problem.mean_response)
        base = jnp.zeros_like(problem.scale)
    else:
        base = _coefficients("coefficients", coefficients, data) * problem.scale
        eta = rows.eta(base)
    row = working(family, rows, eta)
    mean = family.link.mean(where_present(family, rows, eta))
    # From coefficients the increment solves for the score; from start values of mu, for the working response itself.
    target = row.scores if coefficients is not None else row.scores + row.weights * (eta - known)
    collected = NORMAL.collect(rows.design, row.weights, target[None, :])
    solved = NORMAL.solve(collected, problem.penalty, problem.origins(base), problem.keep)
    information, score = NORMAL.normal(collected, len(base))
    if coefficients is None:
        score = rows.design.transposed_dot(row.scores[None, :])
    down = score[:, 0] if problem.penalty is None else score[:, 0] - pulled(problem.penalty, base)
    penalized = information if problem.penalty is None else information + as_matrix(problem.penalty)
    return Step(
        coefficients=(base + solved.increments[:, 0]) / problem.scale,
        increment=solved.increments[:, 0] / problem.scale,
        score=down * problem.scale,
        information=penalized * problem.scale[:, None] * problem.scale,
        deviance=jnp.sum(row.deviance),
        eta=eta,
        mu=mean.mu,
        working_response=eta - known + (rows.y - mean.mu) / mean.dmu_deta,
        working_weights=row.weights,
    )
