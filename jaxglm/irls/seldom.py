"""Work that few fits need.

Under `vmap` a `cond` turns into both branches for everybody, which makes a thing that one fit in a thousand needs as dear
as one that all need. `seldom` keeps the branch: it is taken if any fit of the batch needs it, and what it gives is used by
those fits alone, so that no fit's numbers depend on its neighbours.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
from jax import Array

T = TypeVar("T")


@jax.custom_batching.custom_vmap
def anywhere(needed: Array) -> Array:
    """Whether any fit of a batch needs it; the same for all of them."""
    return needed


@anywhere.def_vmap
def _anywhere_of_many(size: int, batched: list[bool], needed: Array) -> tuple[Array, bool]:
    return anywhere(jnp.any(needed, axis=0)), False


def seldom(needed: Array, work: Callable[[], T], otherwise: T) -> T:
    """`work()` where it is `needed` (a flag), else `otherwise`; not done at all if no fit of a batch needs it."""
    if not isinstance(needed, jax.core.Tracer):
        return work() if needed else otherwise
    done = jax.lax.cond(anywhere(needed), work, lambda: otherwise)
    return jax.tree.map(lambda new, old: jnp.where(needed, new, old), done, otherwise)
