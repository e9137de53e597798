"""Fits of any sizes in one compiled program.

The data of a call are `Tiles`: chunks of rows, with several fits side by side as lanes of a block. Where a block's chunks
begin and how many they are is data, and so is the number of blocks: a loop over blocks runs each block's whole iteration
and stops when the last block is done. `jaxglm.packing` makes the tiles.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax import Array

from jaxglm.designs import Dense
from jaxglm.family import Family
from jaxglm.irls.options import IRLS
from jaxglm.irls.plain import solve_plain
from jaxglm.irls.problem import pose
from jaxglm.irls.solution import Solution
from jaxglm.irls.solve import solve_problem
from jaxglm.rows import Chunks, Rows

T = TypeVar("T")


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Tiles:
    """T chunks of rows, of up to T blocks of lanes.

    X: (T, lanes, p, rows); y, weights: (T, lanes, rows); offset likewise or None; scale: (T, lanes, p), by block, what
    the columns have been divided by; first, count: (T,), the chunks of each block; owner: (T,), the block of each chunk;
    n_blocks: how many blocks there are. Rows whose X is not finite must have a y of NaN and zeros in X.
    """

    X: Any
    y: Any
    weights: Any
    offset: Any
    scale: Any
    first: Any
    count: Any
    owner: Any
    n_blocks: Any


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Lanes:
    """What each fit has besides rows, with leading axes (T, lanes): its family's parameters, penalty and start (p,)."""

    family: Family
    penalty: Any = None
    start: Any = None


@partial(jax.jit, static_argnums=(0, 1), static_argnames="arrived")
def solve_tiles(options: IRLS, plain: bool, tiles: Tiles, lanes: Lanes, *, arrived: bool = False) -> Solution:
    """Solve every block; plain: what normal equations solve in a few passes, the rest being `undecided`; arrived: whether
    such passes have led to the starts. All fields of the `Solution` have leading axes (T, lanes); beyond n_blocks they are
    zero."""

    def fit(rows: Rows, lane: Lanes, scale: Array) -> Solution:
        problem = pose(rows, lane.family, scale, lane.penalty, lane.start, watched=not plain)
        return solve_plain(problem, options, arrived) if plain else solve_problem(problem, options)

    return by_blocks(tiles, lanes, fit)


def by_blocks(tiles: Tiles, lanes: Any, fit: Callable[[Rows, Any, Array], T]) -> T:
    """Map `fit`, of the prepared rows of one fit, what else it has (a value with a `family`) and its columns' scale, over
    the fits of every block."""
    prepared = _prepare(tiles, lanes.family)

    def one(rows: Rows, chunks: Chunks, lane: Any, scale: Array) -> T:
        return fit(Rows(rows.design, rows.y, rows.weights, rows.offset, chunks), lane, scale)

    @jax.jit  # so that asking for shapes and doing the work are traced once
    def block(index: Array) -> T:
        chunks = Chunks(tiles.first[index], tiles.count[index])
        lane = jax.tree.map(lambda leaf: leaf[index], lanes)
        # Every array of rows has its lanes second, after the chunks, so that a chunk of all lanes is one slice.
        return jax.vmap(one, in_axes=(1, None, 0, 0))(prepared, chunks, lane, tiles.scale[index])

    total = tiles.first.shape[0]
    none = jnp.zeros_like(tiles.n_blocks)
    shapes = jax.eval_shape(block, none)
    empty = jax.tree.map(lambda leaf: jnp.zeros((total, *leaf.shape), leaf.dtype), shapes)

    def next_block(index: Array, found: T) -> T:
        return jax.tree.map(lambda out, leaf: out.at[index].set(leaf), found, block(index))

    return jax.lax.fori_loop(none, tiles.n_blocks, next_block, empty)


def _prepare(tiles: Tiles, family: Family) -> Rows:
    """Sound rows in all chunks, each by the family of its lane."""
    by_chunk = jax.tree.map(lambda leaf: leaf[tiles.owner], family)
    rows = Rows(Dense(tiles.X), tiles.y, tiles.weights, tiles.offset)

    def prepare(part: Rows, of_lane: Family) -> Rows:
        return part.prepared(of_lane, jnp.zeros(part.y.shape, bool))

    return jax.vmap(jax.vmap(prepare))(rows, by_chunk)
