"""Limited-memory BFGS on the likelihood, for one fit: the last resort, which needs no second derivatives.

What is made small is the loss, half the deviance up to a constant, plus half the penalty, in coordinates in which the expected
information at the start has a unit diagonal; it is infinite where a mean is not valid, and a backtracking line search stays
clear of there. The steps are optax's (Nocedal 1980; Liu and Nocedal 1989). They end near an optimum and not at it; the
ordinary solver does the rest.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxglm.irls.damped import Reached, Sight, look
from jaxglm.irls.problem import Problem

STEPS = 500
BACKTRACKS = 40
MEMORY = 20
SMALL = 1e-8  # of the gradient in those coordinates, in square roots of the dispersion


def solve_descent(problem: Problem, start: Array, keep: Array) -> Reached:
    """Descend from `start` (p,), a valid point; keep: (p,), columns that are not aliased."""
    import optax

    first = look(problem, jnp.where(keep, start, 0.0))
    diagonal = jnp.diagonal(first.size)
    usable = keep & (diagonal > 0) & jnp.isfinite(diagonal)
    scale = jnp.where(usable, jax.lax.rsqrt(jnp.where(usable, diagonal, 1.0)), 0.0)
    base = jnp.where(keep, start, 0.0)
    loss = _differentiable(problem, base, scale)
    search = optax.scale_by_backtracking_linesearch(max_backtracking_steps=BACKTRACKS, store_grad=True)
    rule = optax.lbfgs(memory_size=MEMORY, linesearch=search)
    unit = jnp.ones((), problem.dtype)
    if problem.family.dispersion is None:
        unit = jnp.sqrt(first.deviance / jnp.maximum(problem.n_obs, 1).astype(problem.dtype))

    def one_step(carried: tuple[Array, Any, Array, Array]) -> tuple[Array, Any, Array, Array]:
        at, memory, count, _ = carried
        level, slope = jax.value_and_grad(loss)(at)
        with jax.numpy_dtype_promotion("standard"):  # optax mixes types of integers
            update, memory = rule.update(slope, memory, at, value=level, grad=slope, value_fn=loss)
        further = at + update
        sound = jnp.all(jnp.isfinite(further)) & (loss(further) <= level)
        going = sound & (jnp.max(jnp.abs(slope)) > SMALL * unit) & jnp.any(further != at)
        return jnp.where(sound, further, at), memory, count + 1, going

    zero, count = jnp.zeros_like(base), jnp.zeros((), jnp.int32)
    begun = (zero, rule.init(zero), count, jnp.isfinite(first.loss))
    at, _, count, _ = jax.lax.while_loop(lambda now: now[3] & (now[2] < STEPS), one_step, begun)
    return Reached(base + scale * at, count)


def _differentiable(problem: Problem, base: Array, scale: Array) -> Callable[[Array], Array]:
    """The loss at base + scale * z, with the scores of the rows as its derivative."""

    def seen(z: Array) -> Sight:
        return look(problem, base + scale * z)

    def level(found: Sight) -> Array:
        return jnp.where(jnp.isfinite(found.loss), found.loss, jnp.inf)

    @jax.custom_vjp
    def loss(z: Array) -> Array:
        return level(seen(z))

    def forward(z: Array) -> tuple[Array, Array]:
        found = seen(z)
        return level(found), -scale * found.score

    def backward(slope: Array, change: Array) -> tuple[Array]:
        return (change * slope,)

    loss.defvjp(forward, backward)
    return loss
