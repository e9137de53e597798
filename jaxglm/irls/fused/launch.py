"""Running the kernel: from tiles to the fits that it decided."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxglm.family import Family
from jaxglm.irls.fused.kernel import BATCH, DECIDED, Row, Tile, Totals, iterate
from jaxglm.irls.fused.recipes import Recipe, recipe_for
from jaxglm.irls.fused.tiles import LANES, Tiles
from jaxglm.irls.options import IRLS


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Fits:
    """What kernels say of g fits. coefficients: (g, p); n_iterations, decided: (g,). Of a fit that is not decided nothing
    else is known; those that are have converged, in all columns."""

    coefficients: Array
    n_iterations: Array
    decided: Array


def solve(tiles: Tiles, family: Family, options: IRLS = IRLS()) -> Fits:  # noqa: B008
    """Fit all that tiles hold. The family's parameters are numbers or (g,). A pure function for use inside `jit`."""
    recipe = recipe_for(tiles, family, options)
    dtype, (n_tiles, lanes) = recipe.given.dtype, tiles.fit.shape
    fit = jnp.maximum(tiles.fit, 0)
    leaves = [jnp.asarray(leaf, dtype) for leaf in jax.tree.leaves(family)]
    leaves = [leaf[fit] if leaf.ndim else jnp.broadcast_to(leaf, fit.shape) for leaf in leaves]
    parameters = jnp.stack(leaves, axis=1) if leaves else None
    given = (tiles.first, tiles.count, tiles.X, tiles.y, tiles.weights, tiles.offset, parameters)
    run = _kernel(recipe, n_tiles, len(leaves))
    coefficients, n_iterations, status = run(*[value for value in given if value is not None])
    coefficients = jnp.swapaxes(coefficients, 1, 2).reshape(n_tiles * lanes, recipe.given.p)
    return Fits(
        coefficients=coefficients[tiles.place],
        n_iterations=n_iterations.reshape(-1)[tiles.place].astype(jnp.int32),
        decided=status.reshape(-1)[tiles.place] == DECIDED,
    )


@dataclass(frozen=True)
class _Memory:
    """What a kernel can read and write: the arrays of `Tiles`, the family's parameters (T, k, 128) or None, the results,
    and shared memory, for a state, and for exchange where lanes share fits."""

    first: Any
    count: Any
    X: Any
    y: Any
    weights: Any
    offset: Any
    parameters: Any
    coefficients: Any
    n_iterations: Any
    status: Any
    state: Any
    exchange: Any


def _kernel(recipe: Recipe, n_tiles: int, n_parameters: int) -> Any:
    """The kernel as a function of arrays."""
    import jax.experimental.pallas.mosaic_gpu as plgpu

    given = recipe.given
    there = [True] * 4 + [given.weights, given.offset, n_parameters > 0] + [True] * 4 + [given.parts > 1]

    def body(*refs: Any) -> None:
        rest = iter(refs)
        memory = _Memory(*[next(rest) if present else None for present in there])
        tile = lax.axis_index("tile")
        found = iterate(_tile(recipe, memory, tile, n_parameters))
        for j, coefficient in enumerate(found[0]):
            memory.coefficients[tile, j] = coefficient
        memory.n_iterations[tile], memory.status[tile] = found[1], found[2]

    per_lane = jax.ShapeDtypeStruct((n_tiles, LANES), given.dtype)
    state, exchange = plgpu.SMEM((given.p + 8, LANES), given.dtype), plgpu.SMEM((BATCH, 2 * LANES), given.dtype)
    return plgpu.kernel(
        body,
        out_type=(jax.ShapeDtypeStruct((n_tiles, given.p, LANES), given.dtype), per_lane, per_lane),
        scratch_types=[state, exchange] if given.parts > 1 else [state],
        grid=(n_tiles,),
        grid_names=("tile",),
        compiler_params=plgpu.CompilerParams(lowering_semantics=plgpu.LoweringSemantics.Lane, unsafe_no_auto_barriers=True),
    )


def _tile(recipe: Recipe, memory: _Memory, tile: Array, n_parameters: int) -> Tile:
    """One tile, as its kernel sees it."""
    from jax.experimental.pallas import mosaic_gpu as plgpu

    dtype = recipe.given.dtype
    ones, zeros = jnp.ones(LANES, dtype), jnp.zeros(LANES, dtype)
    rows = [ref for ref in (memory.y, memory.weights, memory.offset) if ref is not None]

    def read(index: Array, columns: bool) -> list[Array]:
        x = [memory.X[index, j] for j in range(recipe.given.p)] if columns else []
        return [*x, *(ref[index] for ref in rows)]

    def row(loaded: list[Array]) -> Row:
        n_columns = len(loaded) - len(rows)
        x, rest = [value.astype(dtype) for value in loaded[:n_columns]], iter(loaded[n_columns:])
        y, weights = next(rest), ones if memory.weights is None else next(rest)
        return Row(x, y, weights, zeros if memory.offset is None else next(rest))

    begin, count = memory.first[tile], memory.count[tile]
    return Tile(
        recipe=recipe,
        read=read,
        row=row,
        begin=begin,
        end=memory.first[tile + 1],
        last=begin + count,
        parameters=[memory.parameters[tile, j] for j in range(n_parameters)],
        exchange=lambda totals: _exchange(totals, memory.exchange, LANES // recipe.given.parts),
        memory=memory.state,
        barrier=plgpu.commit_smem,
        zero=(count - count).astype(dtype),
    )


def _exchange(totals: Totals, scratch: Any, width: int) -> Totals:
    """The totals of all lanes of each fit, which are `width` apart, in every one of them. Each round adds the number of
    the lane half a period away: a sum of two, which has the same bits from either side."""
    from jax.experimental.pallas import mosaic_gpu as plgpu

    values, structure = jax.tree.flatten(totals)
    n_added = len(values) - len(totals.least)
    shift = LANES // 2
    while shift >= width:
        for begin in range(0, len(values), BATCH):
            batch = range(begin, min(begin + BATCH, len(values)))
            for place, index in enumerate(batch):
                scratch[place, 0:LANES] = values[index]
                scratch[place, LANES : 2 * LANES] = values[index]
            plgpu.commit_smem()
            other = [scratch[place, shift : shift + LANES] for place in range(len(batch))]
            plgpu.commit_smem()
            for value, index in zip(other, batch, strict=True):
                values[index] = values[index] + value if index < n_added else jnp.minimum(values[index], value)
        shift //= 2
    return jax.tree.unflatten(structure, values)
