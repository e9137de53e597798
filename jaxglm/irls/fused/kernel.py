"""The whole iteration of 128 fits in one kernel, one fit a lane.

The kernel is `irls.loop` with every vector of a fit unrolled into scalars, and every scalar an array of lanes. A pass goes
over the rows of a tile once: it loads X's entries of a row, evaluates the family at the trial point, and adds the row's
part to the Gram matrix, the scores and the objective, which all stay in registers. Then it factors the Gram matrix, scaled
to a unit diagonal, and accepts the trial or halves the step, each lane for itself. A tile ends when all its lanes have.

A fit that needs nothing else is decided here. One whose Gram matrix cannot be trusted, that may be separated, that finds no
step, or whose rows are not valid, comes out undecided, and the general path solves it from the beginning. So a kernel may
give up whenever it likes, but what it decides must be right.

Separation is not proved here but excluded. With H the sum of w x x' over the rows, and `least` the smallest positive w, an
increment d moves the linear predictors by no more than sum (x'd)^2 <= d'Hd / least. Where estimates are finite that vanishes
with the decrement d'Hd. Towards infinity the decrement vanishes too, but because the working weights do, so that their
quotient stays where it is; and it vanishes slowly, by a factor of about exp(-1) in a step, where Newton's method squares it.

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

from jaxglm.irls.fused.programs import Program
from jaxglm.irls.fused.recipes import Recipe
from jaxglm.irls.fused.unrolled import add_gram, add_scores, dot, solve
from jaxglm.irls.loop import MOVING, NEAR, OBSERVED_FLOOR

AHEAD, BRIEF = 64, 120  # bytes of X in a row, and equations of a family, up to which registers hold another row
BATCH = 8  # numbers that are exchanged between lanes at a time
RUNNING, DECIDED, UNDECIDED = 0.0, 1.0, 2.0
PATIENCE, SLOW = 8, 0.3  # after so many steps, one that is more than this times the last is taken for a separated fit's


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Totals:
    """What a pass over the rows adds up. gram: the lower triangle, row by row; scores: p; sums: a list of numbers; least: a
    list of numbers of which the smallest is wanted."""

    gram: list[Array]
    scores: list[Array]
    sums: list[Array]
    least: list[Array]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class State:
    """Where the fits stand, as in `irls.loop.State`, but for the coefficients: what is carried is the trial point, which is
    the accepted coefficients plus `step`. Between looks at the rows the state rests in shared memory, since the sums need
    all registers; so counts and flags are numbers like the rest."""

    step: list[Array]
    objective: Array
    constant: Array
    decrement: Array
    floor_length: Array
    halvings: Array
    n_iterations: Array
    status: Array
    cautious: Array


@dataclass(frozen=True)
class Row:
    """One row of all lanes. x: the entries of X."""

    x: list[Array]
    y: Array
    weights: Array
    offset: Array


@dataclass(frozen=True)
class Tile:
    """One tile, as its kernel sees it. read: reads a row, as far as it lies in memory, with or without X; row: that as a
    `Row`; begin, end: the tile's rows; last: for each lane the row after its last; parameters: of the family; exchange:
    adds up the `Totals` of the lanes of a fit; memory: (p + 8, lanes), of a `State`; barrier: after writing to it; zero: in
    every lane. (Compilers tell lanes that hold a constant from lanes that hold data, and loops carry only the latter:
    constants to carry are made from this zero.)"""

    recipe: Recipe
    read: Callable[[Array, bool], list[Array]]
    row: Callable[[list[Array]], Row]
    begin: Array
    end: Array
    last: Array
    parameters: list[Array]
    exchange: Callable[[Totals], Totals]
    memory: Any
    barrier: Callable[[], None]
    zero: Array

    def fold(self, start: Totals, each: Callable[[Array, Row, Totals], Totals], end: Array | None = None) -> Totals:
        """Go over all rows, or those up to `end`, and add up over lanes. If there is room for it, the next row is on its way
        from memory while one is worked on."""
        end = self.end if end is None else end
        width = self.recipe.given.p * self.recipe.given.dtype.itemsize
        if width > AHEAD or len(self.recipe.look.equations) > BRIEF:
            return self.exchange(lax.fori_loop(self.begin, end, lambda i, t: each(i, self.row(self.read(i, True)), t), start))

        def step(index: Array, carry: tuple[Totals, list[Array]]) -> tuple[Totals, list[Array]]:
            following = self.read(self.inside(index + 1), True)
            return each(index, self.row(carry[1]), carry[0]), following

        first = self.read(self.inside(self.begin), True)
        return self.exchange(lax.fori_loop(self.begin, end, step, (start, first))[0])

    def fold_responses(self, start: list[Array], each: Callable[[Array, Row], list[Array]], count: int) -> list[Array]:
        """Sums over all rows of what needs no X, `count` rows at a time."""

        def step(block: Array, sums: list[Array]) -> list[Array]:
            indices = [self.begin + block * count + k for k in range(count)]
            rows = [self.row(self.read(self.inside(index), False)) for index in indices]
            for index, row in zip(indices, rows, strict=True):
                new = each(index, row)
                sums = [total + jnp.where(index < self.end, value, 0.0) for total, value in zip(sums, new, strict=True)]
            return sums

        blocks = lax.div(self.end - self.begin + (count - 1), jnp.int32(count))
        sums = lax.fori_loop(jnp.int32(0), blocks, step, start)
        return self.exchange(Totals([], [], sums, [])).sums

    def inside(self, index: Array) -> Array:
        """The row with this number, or one that may be read in its place."""
        return jnp.maximum(jnp.minimum(index, self.end - 1), 0)

    def present(self, index: Array, values: Array) -> Array:
        """values, zero where this row is none. Prior weights of zero do that by themselves."""
        return values if self.recipe.given.weights else jnp.where(index < self.last, values, 0.0)

    def save(self, state: State) -> Array:
        """Put a state away. Returns whether any lane still runs."""
        for place, value in enumerate(jax.tree.leaves(state)):
            self.memory[place] = value
        self.barrier()
        return jnp.max(jnp.where(state.status == RUNNING, self.zero + 1.0, 0.0)) > 0.0

    def load(self) -> State:
        """The state put away last."""
        p = self.recipe.given.p
        return State([self.memory[place] for place in range(p)], *[self.memory[place] for place in range(p, p + 8)])


@dataclass(frozen=True)
class Survey:
    """What is known of the fits before the first step: see `irls.problem.Problem`."""

    n_obs: Array
    total_weight: Array
    mean_response: Array
    sound: Array


def iterate(tile: Tile) -> tuple[list[Array], Array, Array]:
    """Coefficients, iterations and status of the fits of a tile."""
    known = survey(tile)
    trial, state = initial(tile, known)

    def advanced(carry: tuple[Array, Array, list[Array]]) -> tuple[Array, Array, list[Array]]:
        trial, state = advance(tile, carry[2], known.n_obs)
        running = tile.save(state)
        return carry[0] + 1, running & (carry[0] + 1 < tile.recipe.passes), trial

    carry = jnp.int32(0), tile.save(state), trial
    _, _, trial = lax.while_loop(lambda carry: carry[1], advanced, carry)
    state = tile.load()
    return trial, state.n_iterations, state.status


def survey(tile: Tile) -> Survey:
    """Look at the responses and weights."""
    zero = tile.zero

    def each(index: Array, row: Row) -> list[Array]:
        sound = tile.recipe.check(tile.parameters, row.y, row.weights, row.offset)
        count = jnp.where(row.weights != 0.0, zero + 1.0, zero)
        response = jnp.where(sound, row.weights * row.y, jnp.nan)
        return [tile.present(index, value) for value in (count, row.weights, response)]

    count, weight, response = tile.fold_responses([zero] * 3, each, 8)
    return Survey(count, weight, response / jnp.where(weight > 0.0, weight, 1.0), response == response)


def initial(tile: Tile, known: Survey) -> tuple[list[Array], State]:
    """The first trial point, and the state before it, as `irls.loop.initial` has it."""
    recipe, zero = tile.recipe, tile.zero
    mean = recipe.center(tile.parameters, known.total_weight, known.mean_response)

    def each(index: Array, row: Row) -> list[Array]:
        found = recipe.level(tile.parameters, row.y, row.weights, row.offset, mean)
        return [tile.present(index, value) for value in found]

    constant, at_zero = tile.fold_responses([zero] * 2, each, 2)
    usable = known.sound & (known.n_obs > 0.0) & _finite(constant)
    zero_valid = _finite(at_zero)
    # Where zero coefficients are valid everywhere, which is usual, the safer point is not asked for.
    needed = jnp.max(jnp.where(zero_valid | ~usable, zero, 1.0)) > 0.0
    safe, _ = regress(tile, known, recipe.safe, jnp.where(needed, tile.end, tile.begin))
    for place, value in enumerate(safe):
        tile.memory[place] = jnp.where(zero_valid, 0.0, value)
    tile.barrier()
    start, trusted = regress(tile, known, recipe.start, tile.end)
    state = State(
        step=[b - tile.memory[place] for place, b in enumerate(start)],
        objective=jnp.where(zero_valid, 2.0 * at_zero - constant, math.inf),
        constant=constant,
        decrement=zero + math.inf,
        floor_length=zero,
        halvings=zero,
        n_iterations=zero,
        status=jnp.where(usable & trusted, zero + RUNNING, UNDECIDED),
        cautious=zero,
    )
    return start, state


def regress(tile: Tile, known: Survey, program: Program, end: Array) -> tuple[list[Array], Array]:
    """Weighted least squares, of what a program gives as weights and right-hand sides, over the rows up to `end`. Also
    whether the Gram matrix can be trusted."""
    p, zero = tile.recipe.given.p, tile.zero

    def each(index: Array, row: Row, totals: Totals) -> Totals:
        found = program(tile.parameters, row.y, row.weights, row.offset, known.mean_response)
        weight, wanted = (tile.present(index, value) for value in found)
        return Totals(add_gram(totals.gram, row.x, weight), add_scores(totals.scores, row.x, wanted), [], [])

    totals = tile.fold(Totals([zero] * (p * (p + 1) // 2), [zero] * p, [], []), each, end)
    solved = solve(totals.gram, totals.scores)
    return solved.increment, solved.trusted


def observed_floor(state: State, zero: Array) -> Array:
    """The least working weight allowed, as a fraction of the expected one; see `irls.loop.observed_floor`."""
    newton = jnp.where(state.cautious > 0.0, zero + OBSERVED_FLOOR, -1e30)
    near = state.decrement <= NEAR * state.objective
    return jnp.where(near, newton, 1.0)


def collect(tile: Tile, trial: Sequence[Array], floor: Array) -> Totals:
    """One pass over the rows at the trial point. sums: loss, infinite where it is not valid, and with an offset its weighted
    square; least: where fits can separate, the smallest positive working weight."""
    recipe = tile.recipe
    p, zero = recipe.given.p, tile.zero

    def each(index: Array, row: Row, totals: Totals) -> Totals:
        eta = dot(row.x, trial) + row.offset if recipe.given.offset else dot(row.x, trial)
        found = recipe.look(tile.parameters, row.y, row.weights, eta, floor)
        weight, scores, loss = (tile.present(index, value) for value in found)
        sums, least = [totals.sums[0] + loss], []
        if recipe.given.offset:
            sums.append(totals.sums[1] + jnp.abs(weight) * (row.offset * row.offset))
        if recipe.separable:
            there = row.weights > 0.0 if recipe.given.weights else index < tile.last
            least.append(jnp.minimum(totals.least[0], jnp.where(there & (weight > 0.0), weight, math.inf)))
        return Totals(add_gram(totals.gram, row.x, weight), add_scores(totals.scores, row.x, scores), sums, least)

    sums = [zero, zero] if recipe.given.offset else [zero]
    least = [zero + math.inf] if recipe.separable else []
    return tile.fold(Totals([zero] * (p * (p + 1) // 2), [zero] * p, sums, least), each)


@dataclass(frozen=True)
class Trial:
    """What a pass says of the trial point, as in `irls.loop.Trial`. size: of the numbers whose difference is the objective;
    still: whether the increment moves no linear predictor."""

    increment: list[Array]
    decrement: Array
    objective: Array
    floor_length: Array
    size: Array
    doubtful: Array
    still: Array


def evaluate(tile: Tile, trial: Sequence[Array]) -> tuple[Trial, State]:
    """Look at the rows at the trial point, see `irls.loop.evaluate`; also the state."""
    epsilon = float(jnp.finfo(tile.recipe.given.dtype).eps)
    floor = observed_floor(tile.load(), tile.zero) if tile.recipe.observed else tile.zero
    totals = collect(tile, trial, floor)
    solved = solve(totals.gram, totals.scores)
    state = tile.load()
    objective = 2.0 * totals.sums[0] - state.constant
    rounded = jnp.sqrt(jnp.abs(objective))
    for square in totals.sums[1:]:
        rounded = rounded + jnp.sqrt(square)
    for b, length in zip(trial, solved.lengths, strict=True):
        rounded = rounded + jnp.abs(b) * length
    loss = lax.rsqrt(jnp.where(solved.smallest > 0.0, solved.smallest, 1.0))
    decrement = solved.decrement
    found = Trial(
        increment=solved.increment,
        decrement=decrement,
        objective=objective,
        floor_length=4.0 * epsilon * rounded * loss,
        size=jnp.abs(state.constant) + jnp.abs(objective + state.constant),
        doubtful=~solved.trusted,
        still=decrement <= MOVING**2 * totals.least[0] if tile.recipe.separable else solved.trusted,
    )
    return found, state


def advance(tile: Tile, point: Sequence[Array], n_obs: Array) -> tuple[list[Array], State]:
    """One pass: evaluate the trial point, and accept it or halve the step; see `irls.loop.advance`."""
    recipe, options = tile.recipe, tile.recipe.options
    epsilon = float(jnp.finfo(recipe.given.dtype).eps)
    trial, state = evaluate(tile, point)
    zero = tile.zero
    slack = state.floor_length * (2.0 * jnp.sqrt(jnp.abs(state.objective)) + state.floor_length) + 8.0 * epsilon * trial.size
    bound = state.objective + jnp.where(_finite(slack), slack, 0.0)
    passed = _finite(trial.objective) & (trial.objective <= bound)
    again = passed & trial.doubtful & (state.cautious == 0.0) if recipe.observed else passed & ~passed
    accepted, rejected = passed & ~again, ~passed
    n_iterations = state.n_iterations + jnp.where(accepted, zero + 1.0, 0.0)

    length = jnp.sqrt(trial.decrement)
    rate = jnp.where(state.halvings == 0.0, length / jnp.sqrt(state.decrement), 1.0)
    tolerance = jnp.full_like(length, options.tol)
    if recipe.estimated:
        tolerance = tolerance * jnp.sqrt(jnp.maximum(trial.objective, epsilon * trial.size) / n_obs)
    by_rate = (length <= tolerance) & (length * rate <= tolerance * (1.0 - rate))
    rounding = length <= trial.floor_length
    small = by_rate | rounding
    gives_up = ~_finite(trial.decrement) | trial.doubtful | (small & ~trial.still)
    gives_up = gives_up | (~small & (n_iterations >= options.max_iterations))
    if recipe.separable:
        slow = (state.halvings == 0.0) & (rate > SLOW)
        gives_up = gives_up | (by_rate & ~rounding & slow)
        if recipe.quadratic:
            gives_up = gives_up | (~small & (n_iterations >= PATIENCE) & slow)
    lost = (accepted & gives_up) | (rejected & (state.halvings >= options.max_halvings))

    # Where the family's start is worse than the safe point it was reached from, the iteration starts from the latter.
    no_start = (state.n_iterations == 0.0) & _finite(state.objective)
    shorter = jnp.where(no_start, 0.0, zero + 0.5)
    active = state.status == RUNNING
    forward, back = active & accepted & _finite(trial.decrement), active & rejected
    taken = active & accepted
    pairs = list(zip(trial.increment, state.step, strict=True))
    moves = [jnp.where(forward, d, jnp.where(back, shorter * s - s, 0.0)) for d, s in pairs]
    status = jnp.where(lost, UNDECIDED, jnp.where(accepted & small, zero + DECIDED, RUNNING))
    after = State(
        step=[jnp.where(forward, d, jnp.where(back, shorter * s, s)) for d, s in pairs],
        objective=jnp.where(taken, trial.objective, state.objective),
        constant=state.constant,
        decrement=jnp.where(taken, trial.decrement, state.decrement),
        floor_length=jnp.where(taken, trial.floor_length, state.floor_length),
        halvings=jnp.where(taken, 0.0, state.halvings + jnp.where(back, zero + 1.0, 0.0)),
        n_iterations=jnp.where(active, n_iterations, state.n_iterations),
        status=jnp.where(active, status, state.status),
        cautious=jnp.where(active & again, 1.0, state.cautious),
    )
    return [b + move for b, move in zip(point, moves, strict=True)], after


def _finite(x: Array) -> Array:
    return jnp.abs(x) < math.inf
