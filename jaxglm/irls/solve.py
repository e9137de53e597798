"""One fit, as a pure function.

`solve` composes with `jit`, `vmap`, `grad` and `shard_map`; its arithmetic has the floating-point type of X. Its
derivatives come from the implicit function theorem: at the optimum the score is zero whatever the data, so a change of
the data moves the coefficients by the inverse of the observed information times the change of the score. Nothing is
differentiated through the iteration, and the deviance, the covariance and the rest follow from the coefficients.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxglm.designs import Appended, Dense, Shared, Twice, standardize
from jaxglm.devices import default_device
from jaxglm.family import Family
from jaxglm.irls.loop import optimise, start_eta
from jaxglm.irls.normal import NORMAL, ORTHOGONAL
from jaxglm.irls.options import IRLS
from jaxglm.irls.problem import Given, Problem, pose, typed
from jaxglm.irls.seldom import anywhere
from jaxglm.irls.solution import Solution, Statistics, conclude, null_intercept, reported, statistics
from jaxglm.irls.working import where_present, working
from jaxglm.links import STATIC, ArrayLike
from jaxglm.penalty import Ridge, as_matrix, pulled
from jaxglm.rows import Chunks, Rows

LARGE = 2**18  # numbers of a design from which on its rows are taken in chunks
CHUNK = 2**14  # numbers of a chunk


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Data:
    """What a fit is made from, all of it differentiable: X (n, p), y, weights, offset (n,), penalty (p,) or
    (p, p), family.

    own: (n,), a last column that is this fit's own; shared: whether X is that of many fits, which then share its work. All that
    goes by rows has an axis of chunks before them where there are many (`in_chunks`).
    """

    X: Any
    y: Any
    weights: Any
    offset: Any
    penalty: Any
    family: Family
    own: Any = None
    shared: bool = field(default=False, metadata=STATIC)

    def problem(self, start: Array | None = None, plain: bool = False) -> Problem:
        """The problem that these data pose. plain: for `irls.plain`; X is taken as it is, without scaling and without a look
        for values that are not finite, and nobody watches for separation."""
        if plain:
            return self._plain_problem(start)
        columns, scale, broken = standardize(jnp.swapaxes(self.X, -1, -2))
        design: Any = Shared.of(columns) if self.shared else Dense(columns)
        if self.own is not None:
            own, own_scale, own_broken = standardize(self.own[None, :])
            design, scale = Appended(design, own[0]), jnp.concatenate([scale, own_scale])
            broken |= own_broken
        rows = Rows(design, self.y, self.weights, self.offset, self._chunks()).prepared(self.family, broken)
        return pose(rows, self.family, scale, self.penalty, start)

    def _plain_problem(self, start: Array | None) -> Problem:
        shared = Shared.of(self.X.T) if self.shared else None

        def rows(X: Array, own: Array | None) -> Rows:
            design: Any = shared or Twice.of(X)
            return Rows(design if own is None else Appended(design, own), self.y, self.weights, self.offset, self._chunks())

        usable = rows(self.X, self.own).usable(self.family)

        def prepared() -> Rows:
            own = None if self.own is None else jnp.where(usable, self.own, 0.0)
            X = self.X if self.shared else jnp.where(usable[..., None], self.X, 0.0)
            return rows(X, own).prepared(self.family, jnp.zeros_like(usable))

        # Also a way to have rows made once: what comes out of a branch XLA does not make again for every use.
        ready = jax.lax.cond(anywhere(jnp.any(~usable)), prepared, lambda: rows(self.X, self.own))
        p = self.X.shape[-1] + (self.own is not None)
        return pose(ready, self.family, jnp.ones(p, self.X.dtype), self.penalty, start, watched=False)

    def _chunks(self) -> Chunks | None:
        return None if self.X.ndim == 2 else Chunks(jnp.zeros((), jnp.int32), jnp.asarray(len(self.X), jnp.int32))

    def posed(self, start: Array | None = None, plain: bool = False) -> Problem:
        """The same, as it is fitted best: with many rows in chunks."""
        return self.in_chunks().problem(start, plain)

    def in_chunks(self) -> Data:
        """The same, its rows in chunks that stay in a core's cache, where they are too many for it."""
        n, p = self.X.shape
        if self.shared or self.own is not None or n * p < LARGE or default_device().platform != "cpu":
            return self
        rows = max(1, CHUNK // p)
        count = -(-n // rows)

        def chunked(values: Any) -> Any:
            if values is None:
                return None
            padded = jnp.pad(values, [(0, count * rows - n)] + [(0, 0)] * (values.ndim - 1))
            return padded.reshape(count, rows, *values.shape[1:])

        by_rows = {name: chunked(getattr(self, name)) for name in ("X", "y", "weights", "offset")}
        return replace(self, **by_rows)


def gather_data(
    X: ArrayLike, y: ArrayLike, family: Family, weights: ArrayLike | None, offset: ArrayLike | None, penalty: Ridge | None
) -> Data:
    """Arguments of the user as arrays of one floating-point type. Raises on shapes that do not fit together."""
    given = Given.of(X, y, weights, offset, family)
    X, dtype = given.X, given.X.dtype
    if X.ndim != 2 or X.shape[1] == 0:
        raise ValueError(f"X must have shape (n, p) with p at least 1, not {X.shape}; map over many fits with jax.vmap")
    n, p = X.shape
    for name, shape in given.rows.items():
        if shape != (n,):
            raise ValueError(f"{name} must have shape ({n},), one value for each row of X, not {shape}")
    strength = None if penalty is None else penalty.of_one(p, dtype)
    return Data(X, given.y, given.weights, given.offset, strength, typed(family, dtype))


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
    penalty: `Ridge`; start: coefficients (p,) to start from. Returns a `Solution`; never raises because of values.
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
    return solve_data(options, data, start)


@partial(jax.jit, static_argnums=0)  # a second call does not compile again; transformations see through it
def solve_data(options: IRLS, data: Data, start: Array | None) -> Solution:
    """Solve one fit, with derivatives."""
    return _solve(options, data, start)


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _solve(options: IRLS, data: Data, start: Array | None) -> Solution:
    return reported(solve_problem(data.posed(start), options))


def solve_problem(problem: Problem, options: IRLS) -> Solution:
    """Solve a posed problem as `options.factorization` says; all that is known of it, not yet `reported`."""
    if options.factorization == "orthogonal":
        return conclude(problem, ORTHOGONAL, options, optimise(problem, ORTHOGONAL, options))
    fast = conclude(problem, NORMAL, options, optimise(problem, NORMAL, options))
    if options.factorization == "cholesky":
        return fast

    # A loop of at most one pass: under `vmap` it costs nothing unless some fit is undecided, where a cond would run.
    def again(solution: Solution) -> Solution:
        state = optimise(problem, ORTHOGONAL, options, wanted=solution.undecided)
        accurate = conclude(problem, ORTHOGONAL, options, state)
        return jax.tree.map(lambda a, b: jnp.where(solution.undecided, a, b), accurate, solution)

    return jax.lax.while_loop(lambda solution: solution.undecided, again, fast)


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
