"""The careful way: every step is judged before it is taken, and what normal equations cannot tell is asked of orthogonal
factorization.

`irls.loop` holds the steps, `irls.normal` the two ways to an increment; here it is decided which of the two a fit goes by.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
from jax import Array

from jaxglm.irls.loop import optimise
from jaxglm.irls.normal import NORMAL, ORTHOGONAL, either
from jaxglm.irls.options import IRLS
from jaxglm.irls.problem import Problem
from jaxglm.irls.seldom import anywhere
from jaxglm.irls.solution import Solution, conclude
from jaxglm.rows import zeros


def solve_careful(problem: Problem, options: IRLS) -> Solution:
    """Solve a posed problem as `options.factorization` says; all that is known of it, not yet `reported`."""
    if options.factorization != "auto":
        algebra = ORTHOGONAL if options.factorization == "orthogonal" else NORMAL
        return conclude(problem, algebra, options, optimise(problem, algebra, options))

    @jax.jit  # so that asking for shapes and doing the work are traced once
    def attempt(accurate: Array, wanted: Array) -> Solution:
        algebra = either(accurate)
        return conclude(problem, algebra, options, optimise(problem, algebra, options, wanted))

    # A loop of one pass or two, so that both ways are one program, and a second pass costs nothing unless some fit needs it.
    def again(tried: _Tried) -> _Tried:
        return _Tried(tried.times + 1, attempt(anywhere(tried.times > 0), tried.solution.undecided))

    true = jnp.ones((), bool)
    none = replace(zeros(jax.eval_shape(attempt, true, true)), undecided=true)
    begin = _Tried(jnp.zeros((), jnp.int32), none)
    return jax.lax.while_loop(lambda tried: tried.solution.undecided & (tried.times < 2), again, begin).solution


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class _Tried:
    """How often a fit has been tried, and what was found the last time: before the first, nothing but that it is undecided."""

    times: Array
    solution: Solution
