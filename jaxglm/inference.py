"""What can be concluded from a result: the methods of `GLMResults` beyond estimates and rows.

Each method is thin. What it does is in a module of its own, a function of a result; what that computes is in functions over
arrays there.
"""

from __future__ import annotations

from jaxglm.diagnosed import Diagnosed
from jaxglm.pictured import Pictured


class Inference(Diagnosed, Pictured):
    """Methods that `GLMResults` has for tests, intervals and further looks at its fits."""
