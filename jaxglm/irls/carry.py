"""A loop's state as one vector, since every array that a loop carries costs a choice between old and new under `vmap`."""

from __future__ import annotations

import itertools
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

State = TypeVar("State")


def packed(state: Any, dtype: Any) -> Array:
    """The leaves of a state one after the other."""
    return jnp.concatenate([jnp.ravel(leaf).astype(dtype) for leaf in jax.tree.leaves(state)])


def unpacked(vector: Array, like: State) -> State:
    """The state in a vector, with the shapes and types of another."""
    leaves = jax.tree.leaves(like)
    ends = np.cumsum([0, *(leaf.size for leaf in leaves)])
    pieces = [vector[begin:end] for begin, end in itertools.pairwise(ends)]
    shaped = [piece.reshape(leaf.shape).astype(leaf.dtype) for piece, leaf in zip(pieces, leaves, strict=True)]
    return jax.tree.unflatten(jax.tree.structure(like), shaped)
