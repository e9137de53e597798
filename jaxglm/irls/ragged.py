"""Fits of any sizes in one compiled program.

The data of a call are `Tiles`: chunks of rows, with several fits side by side as lanes of a block. Where a block's chunks
begin and how many they are is data, and so is the number of blocks: a loop over blocks runs each block's whole iteration
and stops when the last block is done. `jaxglm.packing` makes the tiles.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxglm.designs import Dense
from jaxglm.family import Family
from jaxglm.irls.adjusted import solve_adjusted
from jaxglm.irls.careful import solve_careful
from jaxglm.irls.options import IRLS
from jaxglm.irls.path import PathSolution, Shrinkage, largest_strength, solve_path
from jaxglm.irls.plain import solve_plain
from jaxglm.irls.problem import pose
from jaxglm.irls.solution import Solution
from jaxglm.irls.working import working
from jaxglm.rows import Chunks, Rows, Totals, fold


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
    """What each fit has besides rows, with leading axes (T, lanes): its family's parameters, penalty and start (p,), and
    flags (p,) of coefficients that are held where scores are adjusted."""

    family: Family
    penalty: Any = None
    start: Any = None
    held: Any = None


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class PathLanes:
    """What each fit has along a path, with leading axes (T, lanes): its family's parameters, strengths (L,), and start (p,)."""

    family: Family
    strengths: Any
    start: Any


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class LossLanes:
    """What each fit has where its rows are to be predicted, with leading axes (T, lanes): its family's parameters, and L
    vectors of coefficients (L, p)."""

    family: Family
    coefficients: Any


@partial(jax.jit, static_argnums=(0, 1), static_argnames=("arrived", "bias_reduction"))
def solve_tiles(
    options: IRLS, plain: bool, tiles: Tiles, lanes: Lanes, *, arrived: bool = False, bias_reduction: str | None = None
) -> Solution:
    """Solve every block; plain: what normal equations solve in a few passes, the rest being `undecided`; arrived: whether
    such passes have led to the starts; bias_reduction: how scores are adjusted, if they are. All fields of the `Solution`
    have leading axes (T, lanes); beyond n_blocks they are zero."""

    def fit(rows: Rows, lane: Lanes, scale: Array) -> Solution:
        problem = pose(rows, lane.family, scale, lane.penalty, lane.start, watched=not plain)
        if bias_reduction is not None:
            return solve_adjusted(problem, options, bias_reduction, lane.held)
        return solve_plain(problem, options, arrived) if plain else solve_careful(problem, options)

    return over_blocks(fit, tiles, lanes.family, lanes)


@partial(jax.jit, static_argnums=0)
def path_tiles(options: IRLS, tiles: Tiles, shrinkage: Shrinkage, lanes: PathLanes) -> PathSolution:
    """The path of an elastic net in every lane of every block; see `irls.path`."""

    def fit(rows: Rows, lane: PathLanes, scale: Array) -> PathSolution:
        problem = pose(rows, lane.family, scale, watched=False)
        return solve_path(problem, options, shrinkage, lane.strengths, lane.start)

    return over_blocks(fit, tiles, lanes.family, lanes)


@jax.jit
def largest_strengths(tiles: Tiles, shrinkage: Shrinkage, lanes: Lanes) -> Array:
    """The strength at which each lane's path begins, (T, lanes), from the `start` of its free columns."""

    def fit(rows: Rows, lane: Lanes, scale: Array) -> Array:
        return largest_strength(pose(rows, lane.family, scale, watched=False), shrinkage, lane.start)

    return over_blocks(fit, tiles, lanes.family, lanes)


@jax.jit
def losses_of_tiles(tiles: Tiles, lanes: LossLanes) -> Array:
    """The deviance of each lane's rows at its L vectors of coefficients, (T, lanes, L)."""

    def fit(rows: Rows, lane: LossLanes, scale: Array) -> Array:
        def one(coefficients: Array) -> Array:
            def each(part: Rows) -> Totals:
                return Totals(jnp.sum(working(lane.family, part, part.eta(coefficients * scale)).deviance))

            return fold(rows, each).sums

        return jax.lax.map(one, lane.coefficients)

    return over_blocks(fit, tiles, lanes.family, lanes)


def over_blocks(one: Callable[[Rows, Any, Array], Any], tiles: Tiles, family: Family, lanes: Any) -> Any:
    """`one` of every fit, block by block: of its rows, of its part of `lanes` and of its scale. family: has leading axes (T,
    lanes), as all of `lanes` and what comes out."""
    prepared = _prepare(tiles, family)

    def fit(rows: Rows, chunks: Chunks, lane: Any, scale: Array) -> Any:
        return one(replace(rows, chunks=chunks), lane, scale)

    @jax.jit  # so that asking for shapes and doing the work are traced once
    def block(index: Array) -> Any:
        chunks = Chunks(tiles.first[index], tiles.count[index])
        lane = jax.tree.map(lambda leaf: leaf[index], lanes)
        # Every array of rows has its lanes second, after the chunks, so that a chunk of all lanes is one slice.
        return jax.vmap(fit, in_axes=(1, None, 0, 0))(prepared, chunks, lane, tiles.scale[index])

    total = tiles.first.shape[0]
    none = jnp.zeros_like(tiles.n_blocks)
    shapes = jax.eval_shape(block, none)
    empty = jax.tree.map(lambda leaf: jnp.zeros((total, *leaf.shape), leaf.dtype), shapes)

    def next_block(index: Array, found: Any) -> Any:
        return jax.tree.map(lambda out, leaf: out.at[index].set(leaf), found, block(index))

    return jax.lax.fori_loop(none, tiles.n_blocks, next_block, empty)


def _prepare(tiles: Tiles, family: Family) -> Rows:
    """Sound rows in all chunks, each by the family of its lane."""
    by_chunk = jax.tree.map(lambda leaf: leaf[tiles.owner], family)
    rows = Rows(Dense(tiles.X), tiles.y, tiles.weights, tiles.offset)

    def prepare(part: Rows, of_lane: Family) -> Rows:
        return part.prepared(of_lane, jnp.zeros(part.y.shape, bool))

    return jax.vmap(jax.vmap(prepare))(rows, by_chunk)
