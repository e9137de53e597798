"""Work that few fits need.

Under `vmap` a `cond` turns into both branches for everybody, which makes a thing that one fit in a thousand needs as dear
as one that all need. `seldom` keeps the branch: it is taken if any fit of the batch needs it, and what it gives is used by
those fits alone, so that no fit's numbers depend on its neighbours.

What is seldom done is compiled all the same. `by_row` names functions that say something of each row by itself, so that a
compiler that takes arrays apart (`irls.lanes`) may write them for one row and call them for each.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax import Array

T = TypeVar("T")
BY_ROW = "jaxglm_by_row"  # what JAX calls such functions


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


def by_row(function: Callable[..., T]) -> Callable[..., T]:
    """A function of arrays (n,) and of numbers, whose results are arrays (n,), each entry from the same entries alone."""

    @wraps(function)
    def each(*arguments: Any) -> T:
        return function(*arguments)

    each.__name__ = BY_ROW
    return jax.jit(each)
