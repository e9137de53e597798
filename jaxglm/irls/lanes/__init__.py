"""Lanes of a CPU: whole fits side by side in the registers of its vector unit.

XLA computes a batched fit operation by operation, each of which goes through memory and is scheduled by itself. Here the
same functions of one fit, as JAX traces them, are translated into one loop of machine code in which every number is a vector
register, one fit a lane. `program` is what is translated; `translate`, `sums`, `entries` and `code` do it, `flow` looks
ahead, `parts` writes long stretches once, and once for a row what few fits need, and `folding` does what needs no program;
`functions` has what is not an instruction; `lookup` reads rows, and `kernel` goes over blocks and puts results away; `machine`
is the compiler (LLVM, by llvmlite, an extra), whose code is `kept` between processes where JAX's is; `run` has the parts of a
program compiled while others are being written, and deals groups out to threads; and `guard` says whether all that is possible.

    if available(job, device) is None:
        solve(job, found, groups)    # fills the arrays of found

Fits that come out `undecided` are for the general path, which is also there where lanes are not.
"""

from jaxglm.irls.lanes.guard import available
from jaxglm.irls.lanes.run import Job, Rows, ask, fits, solve

__all__ = ["Job", "Rows", "ask", "available", "fits", "solve"]
