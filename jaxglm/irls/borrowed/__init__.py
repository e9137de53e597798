"""A design whose rows stay in the user's memory, for one fit of very many rows on a CPU.

What IRLS asks of a design are X b, X'WX with X'r, and the size of its columns. `Borrowed` answers from the user's own rows,
of which it knows the address, so that nothing is copied, and by kernels that work on a row or on a few columns at a time in
the registers of the vector unit. `instructions` writes the kernels, `calls` makes them known to XLA, so that programs as any
other may call them, and `design` is what the rest of IRLS sees.
"""

from jaxglm.irls.borrowed.calls import available
from jaxglm.irls.borrowed.design import MOST_COLUMNS, Borrowed, lend

__all__ = ["MOST_COLUMNS", "Borrowed", "available", "lend"]
