"""Fused kernels for GPUs: whole fits in one launch.

Between the operations that XLA compiles, everything goes through memory: in a batched fit the rows are read, and things of
their size written, half a dozen times in every pass. A kernel of one's own reads them once. Here that is done for many fits
with designs of their own and few columns, in Pallas for Mosaic GPU: `tiles` puts the rows in the order in which a kernel
reads them, `recipes` takes apart the family, `programs` and `special` make of its functions what a kernel can compute,
`kernel` is the iteration, `unrolled` its linear algebra, `launch` runs it, and `guard` says whether all that is possible.

    if available(family, Given(p, dtype, parts), device) is None:
        fits = solve(pack(X, y, weights, offset, parts), family, options)    # inside jit

Fits that do not come out `decided` are for the general path, which is also there where kernels are not.
"""

from jaxglm.irls.fused.guard import available
from jaxglm.irls.fused.launch import Fits, solve
from jaxglm.irls.fused.recipes import Given
from jaxglm.irls.fused.tiles import Plan, Tiles, pack, pack_rows, parts_for, plan

__all__ = ["Fits", "Given", "Plan", "Tiles", "available", "pack", "pack_rows", "parts_for", "plan", "solve"]
