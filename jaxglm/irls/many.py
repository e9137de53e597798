"""Many fits at once: `solve` mapped over blocks of fits.

A `while_loop` under `vmap` runs until its slowest member stops, and every pass goes over the data of all members. So fits
are taken in blocks that are small enough for a core's cache: a block's whole iteration runs there, and stops by itself.
`lax.map` goes through the blocks in one compiled call. On a GPU one block holds as many fits as memory allows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxglm.devices import default_device
from jaxglm.family import Family
from jaxglm.irls import fused
from jaxglm.irls.alike import are_alike, starts_of_alike
from jaxglm.irls.at_hand import are_traced, on_device, solve_at_hand
from jaxglm.irls.blocks import Blocks, blocks_of, shares
from jaxglm.irls.careful import solve_careful
from jaxglm.irls.data import Data
from jaxglm.irls.options import IRLS
from jaxglm.irls.plain import solve_plain
from jaxglm.irls.problem import Given, typed
from jaxglm.irls.solution import Solution, reported
from jaxglm.irls.solve import differentiate
from jaxglm.links import ArrayLike
from jaxglm.penalty import Ridge
from jaxglm.threads import cores, in_threads

WINDOWS = 8  # into which each core's share of the fits is cut


def solve_many(
    X: ArrayLike,
    y: ArrayLike,
    family: Family,
    *,
    weights: ArrayLike | None = None,
    offset: ArrayLike | None = None,
    penalty: Ridge | None = None,
    start: ArrayLike | None = None,
    options: IRLS = IRLS(),  # noqa: B008
) -> Solution:
    """Fit g generalized linear models.

    X: (n, p), shared, or (g, n, p), each its own; y, weights, offset: (n,) or (g, n); penalty: `Ridge` with a strength
    of shape (), (p,) or (g, p), or a matrix (p, p) or (g, p, p); start: (p,) or (g, p); the family's parameters: scalars or
    (g,). At least one of X, y, weights, offset has the leading axis. Returns a `Solution` whose fields all have the leading
    axis g. A pure function like `solve`, and differentiable like it. Raises ValueError on shapes that do not fit together.

    >>> import jax.numpy as jnp
    >>> from jaxglm import families, irls
    >>> X = jnp.array([[1.0, 0.0], [1.0, 1.0], [1.0, 2.0], [1.0, 3.0]])
    >>> counts = jnp.array([[1.0, 2.0, 3.0, 9.0], [0.0, 1.0, 1.0, 2.0]])
    >>> irls.solve_many(X, counts, families.Poisson()).coefficients.shape
    (2, 2)
    """
    given = Given.of(X, y, weights, offset, family)
    shape, dtype = given.X.shape, given.X.dtype
    g = number_of_fits(shape, given.rows)
    strength = None if penalty is None else penalty.of_many(g, shape[-1], dtype)
    data = Data(given.X, given.y, given.weights, given.offset, strength, typed(family, dtype), shared=shares(shape))
    start = None if start is None else jnp.asarray(start, dtype)
    _check_shapes(g, shape[-1], data.family, start)
    device = default_device()
    blocks = blocks_of(data, g, options, device, weights is not None)
    if g == 0 or are_traced(data, start):
        return solve_batch(g, options, blocks, data, start, 0)
    found = solve_at_hand(g, options, data, start, weights is not None)
    if found is not None:
        if found.undecided.any():
            return _again(g, options, blocks, data, start, 0, on_device(found, data.X.dtype))
        return on_device(reported(found), data.X.dtype)
    many = cores() > 1 and device.platform == "cpu"
    return _solve_in_windows(g, options, blocks, data, start, WINDOWS * cores() if many else 1)


def _solve_in_windows(g: int, options: IRLS, blocks: Blocks, data: Data, start: Array | None, most: int) -> Solution:
    """Solve g fits whose data are at hand, in threads, each of which takes one window of fits after the other. What has to
    be solved again is a program of its own, compiled when there is something."""
    windows = min(most, g // (2 * blocks.lanes))
    size = -(-g // max(1, windows))
    firsts = list(range(0, g, size))
    solve = _plain_window if options.factorization == "auto" else _window

    def window(first: int) -> Solution:
        return solve(size, options, blocks, data, start, min(first, g - size))

    found = _joined(list(in_threads(window, firsts)), firsts[-1] - (g - size))
    if options.factorization == "auto" and bool(jnp.any(found.undecided)):
        return _again(g, options, blocks, data, start, 0, found)
    return _reported(found)


def _check_shapes(g: int, p: int, family: Family, start: Array | None) -> None:
    """Raises ValueError for a family's parameter that is not one or g numbers, and a start that is not one or g times p."""
    if start is not None and start.shape not in ((p,), (g, p)):
        raise ValueError(f"start must have shape ({p},) or ({g}, {p}), one for each column of X, not {start.shape}")
    for leaf in jax.tree.leaves(family):
        if leaf.shape not in ((), (g,)):
            wanted = f"must be a number or have shape ({g},), one for each fit"
            raise ValueError(f"a parameter of {family.name} {wanted}, not {leaf.shape}")


def number_of_fits(design: tuple[int, ...], rows: dict[str, tuple[int, ...]]) -> int:
    """The leading axis g, from the shapes of X and of what goes by rows. Raises ValueError where they disagree."""
    if len(design) not in (2, 3):
        raise ValueError(f"X must have shape (n, p) or (g, n, p), not {design}")
    n = design[-2]
    leading = {"X": design[0]} if len(design) == 3 else {}
    for name, shape in rows.items():
        if len(shape) not in (1, 2) or shape[-1] != n:
            hint = f" It looks transposed: pass {name}.T." if len(shape) == 2 and shape[0] == n else ""
            raise ValueError(f"{name} must have shape ({n},) or (g, {n}), one value for each row of X, not {shape}.{hint}")
        if len(shape) == 2:
            leading[name] = shape[0]
    if len(set(leading.values())) > 1:
        sizes = ", ".join(f"{name} has {size}" for name, size in leading.items())
        raise ValueError(f"the numbers of fits disagree: {sizes} along the leading axis")
    if not leading:
        raise ValueError("none of X, y, weights, offset has a leading axis of fits; for one fit call irls.solve")
    return next(iter(leading.values()))


@partial(jax.custom_jvp, nondiff_argnums=(0, 1, 2))
def solve_batch(g: int, options: IRLS, blocks: Blocks, data: Data, start: Array | None, first: Any) -> Solution:
    """Solve g fits from the `first` on; `data` have a leading axis wherever they have one more than one fit's.

    All go through a plain pass; the fits that it leaves undecided are gathered and solved again with all precautions, so
    that a few of them do not hold up the blocks of the many. With an `options.factorization` of one's own there is no
    plain pass.
    """
    if options.factorization != "auto":
        return reported(_in_blocks(g, blocks, data, start, first, lambda d, s: solve_careful(d.posed(s), options)))
    found = solve_plain_batch(g, options, blocks, data, start, first)
    return found if g == 0 else solve_undecided(g, options, blocks, data, start, first, found)


@solve_batch.defjvp
def _solve_batch_jvp(g: int, options: IRLS, blocks: Blocks, primals: Any, tangents: Any) -> tuple[Solution, Solution]:
    (data, start, first), (data_dot, _, _) = primals, tangents
    solution = solve_batch(g, options, blocks, data, start, first)
    axes = axes_of(data)

    def one(k: Array) -> Solution:
        part = jax.tree.map(lambda leaf: leaf[k], solution)
        return differentiate(options, _picked(data, axes, first + k), _picked(data_dot, axes, first + k), part)

    return solution, jax.lax.map(one, jnp.arange(g), batch_size=blocks.lanes)


def solve_plain_batch(g: int, options: IRLS, blocks: Blocks, data: Data, start: Array | None, first: Any) -> Solution:
    """The plain pass over g fits: what is not plain is `undecided`."""
    if blocks.parts and start is None and g:
        return _solve_by_kernel(g, options, blocks, data, first)
    if start is None and g and are_alike(data):
        start = starts_of_alike(data, options, len(data.weights if data.own is None else data.own))
    return _in_blocks(g, blocks, data, start, first, lambda d, s: solve_plain(d.posed(s, plain=True), options))


def solve_undecided(
    g: int, options: IRLS, blocks: Blocks, data: Data, start: Array | None, first: Any, found: Solution
) -> Solution:
    """Solve again, with all precautions, what the plain pass has left `undecided`."""
    axes, start_axis = axes_of(data), _axis(start, 1)
    waiting = jnp.argsort(~found.undecided)  # the undecided first
    few = blocks.few

    def again(k: Array, found: Solution) -> Solution:
        place = k * few + jnp.arange(few, dtype=jnp.int32)
        index = waiting[jnp.minimum(place, g - 1)]
        part, begin = _picked(data, axes, first + index), _picked(start, start_axis, first + index)
        solved = jax.vmap(lambda d, s: solve_careful(d.posed(s), options), in_axes=(axes, start_axis))(part, begin)
        put = jnp.where((place < g) & found.undecided[index], index, g)
        return jax.tree.map(lambda old, new: old.at[put].set(new, mode="drop"), found, solved)

    count = (jnp.sum(found.undecided, dtype=jnp.int32) + few - 1) // few
    return reported(jax.lax.fori_loop(0, count, again, found))


def _solve_by_kernel(g: int, options: IRLS, blocks: Blocks, data: Data, first: Any) -> Solution:
    """The same, the steps by a fused kernel; where these have led is looked at in blocks as ever."""
    part = _slice(data, axes_of(data), jnp.asarray(first), g)
    weights = part.weights if blocks.weighted else None
    tiles = fused.pack(part.X, part.y, weights, part.offset, blocks.parts)
    fits = fused.solve(tiles, part.family, options)
    there = jnp.where(fits.decided[:, None], fits.coefficients, jnp.nan)
    found = _in_blocks(g, blocks, part, there, 0, lambda d, s: solve_plain(d.problem(s, plain=True), options, arrived=True))
    return replace(found, n_iterations=fits.n_iterations)


def _in_blocks(
    g: int, blocks: Blocks, data: Data, start: Array | None, first: Any, solve: Callable[[Data, Array | None], Solution]
) -> Solution:
    """Solve g fits from the `first` on by `solve`, which solves one."""
    lanes = blocks.lanes
    axes, start_axis = axes_of(data), _axis(start, 1)
    if g == 0:
        shapes = jax.eval_shape(lambda: solve(_shape_of_one(data, axes), _shape_of_one(start, start_axis)))
        return jax.tree.map(lambda leaf: jnp.zeros((0, *leaf.shape), leaf.dtype), shapes)
    count = -(-g // lanes)
    # The last block begins earlier rather than being shorter; what it does again is left out below.
    firsts = np.minimum(np.arange(count) * lanes, g - lanes)

    def block(begins: Array) -> Solution:
        part, begin = _slice(data, axes, begins, lanes), _slice(start, start_axis, begins, lanes)
        return jax.vmap(solve, in_axes=(axes, start_axis))(part, begin)

    found = jax.lax.map(block, first + jnp.asarray(firsts))
    place = np.arange(g) + (lanes * count - g) * (np.arange(g) >= lanes * (count - 1))
    return jax.tree.map(lambda leaf: leaf.reshape(count * lanes, *leaf.shape[2:])[place], found)


_window, _plain_window, _again = (
    partial(jax.jit, static_argnums=(0, 1, 2))(solve) for solve in (solve_batch, solve_plain_batch, solve_undecided)
)
_reported = jax.jit(reported)


@partial(jax.jit, static_argnums=1)
def _joined(windows: list[Solution], overlap: int) -> Solution:
    """Windows one after the other, the last of which begins with fits of the one before."""
    last = jax.tree.map(lambda leaf: leaf[overlap:], windows[-1])
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *windows[:-1], last)


def axes_of(data: Data) -> Data:
    """Where each array has the axis of fits: 0, or None if fits share it."""
    return Data(
        X=_axis(data.X, 2),
        y=_axis(data.y, 1),
        weights=_axis(data.weights, 1),
        offset=_axis(data.offset, 1),
        penalty=_axis(data.penalty, 1),
        family=jax.tree.map(lambda leaf: _axis(leaf, 0), data.family),
        own=_axis(data.own, 1),
        shared=data.shared,
    )


def _axis(value: Any, own: int) -> int | None:
    """The axis of fits of an array that has `own` axes in one fit."""
    return 0 if value is not None and value.ndim > own else None


def _slice(tree: Any, axes: Any, first: Array, size: int) -> Any:
    def part(axis: int | None, leaf: Any) -> Any:
        return leaf if axis is None or leaf is None else jax.lax.dynamic_slice_in_dim(leaf, first, size)

    return _with_axes(part, axes, tree)


def _picked(tree: Any, axes: Any, index: Array) -> Any:
    def part(axis: int | None, leaf: Any) -> Any:
        return leaf if axis is None or leaf is None else leaf[index]

    return _with_axes(part, axes, tree)


def _shape_of_one(tree: Any, axes: Any) -> Any:
    def part(axis: int | None, leaf: Any) -> Any:
        return None if leaf is None else jnp.zeros(leaf.shape if axis is None else leaf.shape[1:], leaf.dtype)

    return _with_axes(part, axes, tree)


def _with_axes(part: Any, axes: Any, tree: Any) -> Any:
    return jax.tree.map(part, axes, tree, is_leaf=lambda axis: axis is None)
