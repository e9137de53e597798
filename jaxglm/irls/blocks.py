"""How many fits of one shape are run side by side, and whether by a kernel.

On a CPU a block's data should stay in the cache of a core; on a GPU a block has to keep thousands of lanes busy, and is
bounded by memory alone. What can be known of the shapes and of the device is decided here, on the host, before anything is
traced.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp

from jaxglm.irls import fused
from jaxglm.irls.data import Data
from jaxglm.irls.options import IRLS

CACHE = 2**15  # numbers of own data in a block on a CPU, a quarter of a megabyte in float64
MEMORY = 2**27  # the same on a GPU
FEW_LANES = 8  # fits in a block of those that are not plain
FEWEST_SHARED = 8  # fits in a block of those that share their design, whose products are then products of matrices
PRODUCTS = 2**25  # a shared design stores the products of its column pairs while they are not more numbers than this


@dataclass(frozen=True)
class Blocks:
    """lanes: fits in a block; parts: lanes of a kernel that share a fit, 0 where there is no kernel; weighted: whether a
    kernel has to look at prior weights."""

    lanes: int
    parts: int = 0
    weighted: bool = True

    @property
    def few(self) -> int:
        """Fits in a block of those that are not plain."""
        return min(self.lanes, FEW_LANES)


def blocks_of(data: Data, g: int, options: IRLS, device: Any, weighted: bool = True) -> Blocks:
    """How to run g fits with data of these shapes on this device. The plain pass is a kernel's where one can run."""
    n, p = data.X.shape[-2:]
    own = data.X.ndim == 3
    budget = CACHE if device.platform == "cpu" else MEMORY
    lanes = max(1, min(g, max(1 if own else FEWEST_SHARED, budget // max(1, n * ((p if own else 2) + 1)))))
    if not own or g == 0 or data.penalty is not None or data.own is not None:
        return Blocks(lanes)
    parts = fused.parts_for(g, n)
    given = fused.Given(p, jnp.dtype(data.X.dtype), parts, weighted, data.offset is not None)
    return Blocks(lanes) if fused.available(data.family, given, device, options) else Blocks(lanes, parts, weighted)


def shares(shape: tuple[int, ...]) -> bool:
    """Whether a design of this shape is shared and small enough for its products of columns."""
    return len(shape) == 2 and shape[0] * shape[1] * (shape[1] + 1) // 2 <= PRODUCTS
