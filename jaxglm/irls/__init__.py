"""Iteratively reweighted least squares: the core, for research and for everything else in jaxglm.

`solve` fits one GLM as a pure function; `step` is one step of it, taken apart; `solve_many` is the batched solver.
"""

from jaxglm.irls.many import solve_many
from jaxglm.irls.options import IRLS
from jaxglm.irls.solution import Solution
from jaxglm.irls.solve import Step, solve, step

__all__ = ["IRLS", "Solution", "Step", "solve", "solve_many", "step"]
