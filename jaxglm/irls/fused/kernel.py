"""The whole iteration of 128 fits in one kernel, one fit a lane.

The kernel is `irls.loop` with every vector of a fit unrolled into scalars, and every scalar an array of lanes. A pass goes
over the rows of a tile once: it loads X's entries of a row, evaluates the family at the trial point, and adds the row's
part to the Gram matrix, the scores and the objective, which all stay in registers. Then it factors the Gram matrix, scaled
to a unit diagonal, and accepts the trial or halves the step, each lane for itself. A tile ends when all its lanes have.

A fit that needs nothing else is decided here. One whose Gram matrix cannot be trusted, that separates, that finds no step,
or whose rows are not valid, comes out undecided, and the general path solves it from the beginning. So a kernel may give
up whenever it likes, but what it decides must be right.

Where fits are few and long, each takes several lanes, its rows dealt out among them (`Tiles.parts`). After each pass their
sums are added crosswise through shared memory, in an order that gives every lane of a fit the same bits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxglm.family import Family
from jaxglm.irls.fused.programs import Program
from jaxglm.irls.loop import NEAR, OBSERVED_FLOOR, SEPARATION
from jaxglm.irls.options import IRLS

LANES = 128
BATCH = 8  # numbers that are exchanged between lanes at a time
RUNNING, DECIDED, UNDECIDED = 0, 1, 2


@dataclass(frozen=True)
class Recipe:
    """All about a kernel that is known before it runs. The programs take the family's parameters, one array each, then

    check: y, weights, offset -> whether the row is sound;
    start: y, weights, offset, mean response -> working weights, right-hand sides of R's start and of a constant mean,
    deviance at eta = offset, whether that is valid;
    look: y, weights, eta, floor -> working weights, scores, deviance, whether valid;
    sides: nothing -> the sign of the infinite eta at each mean of `infinite_at`.

    weighted, shifted: whether there are prior weights, and an offset. observed: whether observed weights are used.
    """

    family: Family
    options: IRLS
    p: int
    dtype: Any
    parts: int
    passes: int
    weighted: bool
    shifted: bool
    observed: bool
    check: Program
    start: Program
    look: Program
    sides: Program


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Totals:
    """What a pass over the rows adds up. gram: the lower triangle, row by row; right: right-hand sides, a list of p each;
    sums, peaks: lists of numbers that are added, and maximised."""

    gram: list[Array]
    right: list[list[Array]]
    sums: list[Array]
    peaks: list[Array]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class State:
    """Where the fits stand, as in `irls.loop.State`, but for `trial`: the accepted coefficients plus `step`."""

    trial: list[Array]
    step: list[Array]
    objective: Array
    decrement: Array
    floor_length: Array
    halvings: Array
    n_iterations: Array
    status: Array
    cautious: Array


@dataclass(frozen=True)
class Solved:
    """A factored Gram matrix. increments: one list for each right-hand side; decrements: their squared lengths; lengths:
    square roots of the diagonal; smallest: the smallest pivot; trusted: whether it is large enough."""

    increments: list[list[Array]]
    decrements: list[Array]
    lengths: list[Array]
    smallest: Array
    trusted: Array


def solve(gram: Sequence[Array], right: Sequence[Sequence[Array]]) -> Solved:
    """Solve the systems of a Gram matrix by Cholesky, unrolled, after scaling it to a unit diagonal."""
    p = len(right[0])
    epsilon = float(jnp.finfo(gram[0].dtype).eps)
    at = [[i * (i + 1) // 2 + j for j in range(i + 1)] for i in range(p)]
    diagonal = [gram[at[j][j]] for j in range(p)]
    scale = [lax.rsqrt(jnp.where(d > 0.0, d, 1.0)) for d in diagonal]
    lower: list[list[Array]] = []
    inverse: list[Array] = []
    trusted, smallest = diagonal[0] == diagonal[0], jnp.ones_like(diagonal[0])
    for i in range(p):
        row: list[Array] = []
        for j in range(i):
            entry = gram[at[i][j]] * scale[i] * scale[j]
            row.append(_less(entry, row, lower[j]) * inverse[j])
        pivot = _less(diagonal[i] * scale[i] * scale[i], row, row)
        trusted = trusted & (pivot > 7.0 * epsilon**0.5)
        smallest = jnp.minimum(smallest, pivot)
        lower.append(row)
        inverse.append(lax.rsqrt(pivot))
    increments, decrements = [], []
    for side in right:
        whitened: list[Array] = []
        for i in range(p):
            whitened.append(_less(side[i] * scale[i], lower[i], whitened) * inverse[i])
        solution: list[Any] = [None] * p
        for i in reversed(range(p)):
            below = range(i + 1, p)
            solution[i] = _less(whitened[i], [lower[k][i] for k in below], [solution[k] for k in below]) * inverse[i]
        increments.append([b * s for b, s in zip(solution, scale, strict=True)])
        decrements.append(sum((z * z for z in whitened[1:]), whitened[0] * whitened[0]))
    return Solved(increments, decrements, [jnp.sqrt(d) for d in diagonal], smallest, trusted)


def _less(value: Array, a: Sequence[Array], b: Sequence[Array]) -> Array:
    """value - a . b, over the shorter of the two."""
    for left, right in zip(a, b, strict=False):
        value = value - left * right
    return value


@dataclass(frozen=True)
class Tile:
    """One tile, as its kernel sees it. row: loads X's row (a list), y, weights, offset; begin, end: its rows; last: for
    each lane the row after its last; parameters: of the family; exchange: adds up the `Totals` of the lanes of a fit."""

    recipe: Recipe
    row: Callable[[Array], tuple[list[Array], Array, Array, Array]]
    begin: Array
    end: Array
    last: Array
    parameters: list[Array]
    exchange: Callable[[Totals], Totals]

    def fold(self, start: Totals, each: Callable[[Array, Totals], Totals]) -> Totals:
        """Go over all rows, and add up over lanes."""
        return self.exchange(lax.fori_loop(self.begin, self.end, each, start))

    def present(self, index: Array, values: Array) -> Array:
        """values, zero where this row is none. Prior weights of zero do that by themselves."""
        return values if self.recipe.weighted else jnp.where(index < self.last, values, 0.0)


def iterate(tile: Tile) -> tuple[list[Array], Array, Array]:
    """Coefficients, iterations and status of the fits of a tile."""
    n_obs, mean_response, sound = survey(tile)
    state = initial(tile, mean_response, sound & (n_obs > 0.0))
    sides = tile.recipe.sides(tile.parameters) if tile.recipe.family.can_separate else []

    def running(carry: tuple[Array, State]) -> Array:
        left = jnp.max(jnp.where(carry[1].status == RUNNING, 1, 0).astype(jnp.int32))
        return (left > 0) & (carry[0] < tile.recipe.passes)

    def advanced(carry: tuple[Array, State]) -> tuple[Array, State]:
        return carry[0] + 1, advance(tile, carry[1], n_obs, sides)

    _, state = lax.while_loop(running, advanced, (jnp.int32(0), state))
    return state.trial, state.n_iterations, state.status


def survey(tile: Tile) -> tuple[Array, Array, Array]:
    """The number of observations of each fit, its mean response, and whether its rows are sound."""
    zero = jnp.zeros(LANES, tile.recipe.dtype)

    def each(index: Array, totals: Totals) -> Totals:
        _, y, weights, offset = tile.row(index)
        sound = tile.recipe.check(tile.parameters, y, weights, offset)
        count = tile.present(index, jnp.where(weights != 0.0, 1.0, 0.0).astype(tile.recipe.dtype))
        response = jnp.where(sound, weights * y, jnp.nan)
        new = count, tile.present(index, weights), tile.present(index, response)
        return Totals([], [], [a + b for a, b in zip(totals.sums, new, strict=True)], [])

    count, weight, response = tile.fold(Totals([], [], [zero] * 3, []), each).sums
    return count, response / jnp.where(weight > 0.0, weight, 1.0), response == response


def initial(tile: Tile, mean_response: Array, usable: Array) -> State:
    """The state before the first trial, as `irls.loop.initial` has it."""
    recipe = tile.recipe
    p, zero = recipe.p, jnp.zeros(LANES, recipe.dtype)

    def each(index: Array, totals: Totals) -> Totals:
        x, y, weights, offset = tile.row(index)
        found = recipe.start(tile.parameters, y, weights, offset, mean_response)
        weight, wanted, constant, deviance, valid = found
        weight, wanted, constant = (tile.present(index, value) for value in (weight, wanted, constant))
        deviance = tile.present(index, jnp.where(valid, deviance, jnp.nan))
        return Totals(
            gram=_gram(totals.gram, x, weight),
            right=[_scores(totals.right[0], x, wanted), _scores(totals.right[1], x, constant)],
            sums=[totals.sums[0] + deviance],
            peaks=[],
        )

    empty = Totals([zero] * (p * (p + 1) // 2), [[zero] * p, [zero] * p], [zero], [])
    totals = tile.fold(empty, each)
    solved = solve(totals.gram, totals.right)
    zero_valid = _finite(totals.sums[0])
    start, safe = solved.increments
    none = jnp.zeros(LANES, jnp.int32)
    return State(
        trial=start,
        step=[jnp.where(zero_valid, s, s - b) for s, b in zip(start, safe, strict=True)],
        objective=jnp.where(zero_valid, totals.sums[0], math.inf),
        decrement=jnp.full_like(zero, math.inf),
        floor_length=zero,
        halvings=none,
        n_iterations=none,
        status=jnp.where(usable & solved.trusted, RUNNING, UNDECIDED).astype(jnp.int32),
        cautious=none,
    )


def observed_floor(state: State) -> Array:
    """The least working weight allowed, as a fraction of the expected one; see `irls.loop.observed_floor`."""
    newton = jnp.where(state.cautious > 0, OBSERVED_FLOOR, -1e30)
    near = state.decrement <= NEAR * state.objective
    return jnp.where(near, newton, 1.0).astype(state.objective.dtype)


def collect(tile: Tile, state: State, sides: Sequence[Array]) -> Totals:
    """One pass over the rows at the trial point. sums: deviance (NaN where it is not valid), weighted square of eta;
    peaks: the extent of eta, and where fits can separate, gain and against."""
    recipe = tile.recipe
    p, zero = recipe.p, jnp.zeros(LANES, recipe.dtype)
    floor = observed_floor(state) if recipe.observed else zero

    def each(index: Array, totals: Totals) -> Totals:
        x, y, weights, offset = tile.row(index)
        eta = _dot(x, state.trial) + offset if recipe.shifted else _dot(x, state.trial)
        weight, scores, deviance, valid = recipe.look(tile.parameters, y, weights, eta, floor)
        weight, scores = tile.present(index, weight), tile.present(index, scores)
        deviance = tile.present(index, jnp.where(valid, deviance, jnp.nan))
        peaks = [jnp.maximum(totals.peaks[0], jnp.abs(eta))]
        if recipe.family.can_separate:
            along, change = _along(recipe.family, y, _dot(x, state.step), sides)
            peaks += [jnp.maximum(totals.peaks[1], along), jnp.maximum(totals.peaks[2], change)]
        return Totals(
            gram=_gram(totals.gram, x, weight),
            right=[_scores(totals.right[0], x, scores)],
            sums=[totals.sums[0] + deviance, totals.sums[1] + jnp.abs(weight) * (eta * eta)],
            peaks=peaks,
        )

    n_peaks = 3 if recipe.family.can_separate else 1
    return tile.fold(Totals([zero] * (p * (p + 1) // 2), [[zero] * p], [zero, zero], [zero] * n_peaks), each)


def _along(family: Family, y: Array, change: Array, sides: Sequence[Array]) -> tuple[Array, Array]:
    """How far a change of eta moves a row towards a response at which the link is infinite, and how far against."""
    means = family.link.means
    side = jnp.zeros_like(y)
    for value, sign in zip(family.link.infinite_at, sides, strict=True):
        there = y == value
        there = (y <= value) if value == means.lower else there
        there = (y >= value) if value == means.upper else there
        side = jnp.where(there, sign, side)
    along = side * change
    return along, jnp.where(side == 0.0, jnp.abs(change), -along)


def advance(tile: Tile, state: State, n_obs: Array, sides: Sequence[Array]) -> State:
    """One pass: evaluate the trial point, and accept it or halve the step; see `irls.loop.advance`."""
    recipe, options = tile.recipe, tile.recipe.options
    epsilon = float(jnp.finfo(recipe.dtype).eps)
    totals = collect(tile, state, sides)
    (objective, eta_square), extent = totals.sums, totals.peaks[0]
    solved = solve(totals.gram, totals.right)
    increment, decrement = solved.increments[0], solved.decrements[0]

    sizes = [jnp.abs(b) * length for b, length in zip(state.trial, solved.lengths, strict=True)]
    rounded = sum(sizes, jnp.sqrt(eta_square) + jnp.sqrt(jnp.abs(objective)))
    loss = lax.rsqrt(jnp.where(solved.smallest > 0.0, solved.smallest, 1.0))
    floor_length = 4.0 * epsilon * rounded * loss
    moving = separates = extent < 0.0
    if recipe.family.can_separate:
        gain, against = totals.peaks[1:]
        moving = jnp.maximum(gain, against) > 0.1 * (1.0 + extent)
        separates = (gain > epsilon**0.5 * extent) & (against <= SEPARATION * gain)

    slack = state.floor_length * (2.0 * jnp.sqrt(jnp.abs(state.objective)) + state.floor_length)
    bound = state.objective + jnp.where(_finite(slack), slack, 0.0)
    passed = _finite(objective) & (objective <= bound)
    doubtful = ~solved.trusted
    again = passed & doubtful & (state.cautious == 0) if recipe.observed else extent < 0.0
    accepted, rejected = passed & ~again, ~passed
    n_iterations = state.n_iterations + accepted.astype(jnp.int32)

    length = jnp.sqrt(decrement)
    rate = jnp.where(state.halvings == 0, length / jnp.sqrt(state.decrement), 1.0)
    tolerance = options.tol * (jnp.sqrt(objective / n_obs) if recipe.family.dispersion is None else jnp.ones_like(length))
    small = (length <= tolerance) & (length * rate <= tolerance * (1.0 - rate))
    converged = accepted & (small | (length <= floor_length)) & ~moving
    lost = ~_finite(decrement) | doubtful | (n_iterations >= options.max_iterations)
    lost = (accepted & doubtful) | (accepted & lost & ~converged) | separates
    lost = lost | (rejected & (state.halvings >= options.max_halvings))

    # Where R's start is worse than the safe point it was reached from, the iteration starts from the latter.
    no_start = (state.n_iterations == 0) & _finite(state.objective)
    shorter = jnp.where(no_start, 0.0, 0.5).astype(recipe.dtype)
    active = state.status == RUNNING
    forward, back = active & accepted & _finite(decrement), active & rejected
    moves = [
        jnp.where(forward, d, jnp.where(back, shorter * s - s, 0.0)) for d, s in zip(increment, state.step, strict=True)
    ]
    steps = [jnp.where(forward, d, jnp.where(back, shorter * s, s)) for d, s in zip(increment, state.step, strict=True)]
    taken = active & accepted
    status = jnp.where(lost, UNDECIDED, jnp.where(converged, DECIDED, RUNNING)).astype(jnp.int32)
    return State(
        trial=[b + move for b, move in zip(state.trial, moves, strict=True)],
        step=steps,
        objective=jnp.where(taken, objective, state.objective),
        decrement=jnp.where(taken, decrement, state.decrement),
        floor_length=jnp.where(taken, floor_length, state.floor_length),
        halvings=jnp.where(taken, 0, state.halvings + back.astype(jnp.int32)),
        n_iterations=jnp.where(active, n_iterations, state.n_iterations),
        status=jnp.where(active, status, state.status),
        cautious=jnp.where(active & again, 1, state.cautious),
    )


def _finite(x: Array) -> Array:
    return jnp.abs(x) < math.inf


def _dot(a: Sequence[Array], b: Sequence[Array]) -> Array:
    total = a[0] * b[0]
    for left, right in zip(a[1:], b[1:], strict=True):
        total = total + left * right
    return total


def _gram(gram: Sequence[Array], x: Sequence[Array], weight: Array) -> list[Array]:
    """The lower triangle of a Gram matrix, with one more row."""
    entries = iter(gram)
    weighted = [weight * value for value in x]
    return [next(entries) + weighted[i] * x[j] for i in range(len(x)) for j in range(i + 1)]


def _scores(scores: Sequence[Array], x: Sequence[Array], score: Array) -> list[Array]:
    return [total + score * value for total, value in zip(scores, x, strict=True)]
