"""Where many increasing functions cross zero: a bracketing secant method, all functions side by side.

The step is the secant's through both ends of a bracket; where the same end moves twice in a row, the value at the other end is
scaled down, so that both ends close in and convergence stays superlinear (Anderson and Bjorck 1973; the scheme of Illinois
with a better factor). Before there is a bracket, steps grow twofold. Values may be infinite where a function is not defined;
there the bracket is halved.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import numpy as np

EXPANSIONS = 45  # twofold, after which a function is taken never to cross
ROUNDS = 200
JUMP, SHORT = 1e-4, 0.1  # a value that is none of rounding; a step after a jump


@dataclass(frozen=True)
class Bracket:
    """Of each function, arrays (m,). low, high: points where it is negative, and where it is not, NaN before there is one;
    below, above: its values there, perhaps scaled down; point, value: where it was last looked at, and what it was; way: -1
    or 1, the end that this moved; width: the next step before there is a bracket; steps: how many there were."""

    low: np.ndarray
    high: np.ndarray
    below: np.ndarray
    above: np.ndarray
    point: np.ndarray
    value: np.ndarray
    way: np.ndarray
    width: np.ndarray
    steps: np.ndarray

    def __getitem__(self, which: np.ndarray) -> Bracket:
        return Bracket(*(getattr(self, field.name)[which] for field in fields(self)))

    @property
    def closed(self) -> np.ndarray:
        """Whether both ends are known."""
        return ~np.isnan(self.low) & ~np.isnan(self.high)


def crossings(
    evaluate: Callable[[np.ndarray, np.ndarray], np.ndarray], first: np.ndarray, at_zero: np.ndarray, tolerance: float
) -> np.ndarray:
    """Where each of m increasing functions crosses zero.

    evaluate(which, points): the values of some of them; first: (m,), where to look first; at_zero: (m,), their values at 0,
    negative where they are known and NaN where not; tolerance: of a crossing, relative where it lies beyond 1. Returns
    (m,): infinity where a function stays negative, NaN where it stays positive or jumps to infinity.

    >>> import numpy as np
    >>> from jaxglm.crossings import crossings
    >>> levels = np.array([1.0, 2.0, 3.0])
    >>> crossings(lambda which, x: np.sinh(x) - levels[which], np.ones(3), -levels, 1e-12).round(6).tolist()
    [0.881374, 1.443635, 1.818446]
    """
    known = ~np.isnan(at_zero)
    nothing, zero = np.full(len(first), np.nan), np.zeros(len(first))
    state = Bracket(
        low=np.where(known, 0.0, np.nan), high=nothing, below=at_zero, above=nothing, point=np.where(known, 0.0, np.nan),
        value=at_zero, way=np.where(known, -1.0, 0.0), width=np.where(known, np.abs(first), 1.0), steps=zero,
    )  # fmt: skip
    found, left, points = nothing.copy(), np.arange(len(first)), np.array(first, float)
    for _ in range(ROUNDS):
        if not len(left):
            break
        values = evaluate(left, points)
        ends, done = _ends(state, points, values, tolerance)
        state = _taken_in(state, points, values)
        done &= ~np.isnan(state.low)  # else it may only approach zero
        state = _reopened(state, values, tolerance)
        lost = ~state.closed & (state.steps >= EXPANSIONS)
        tight = _tight(state, tolerance)
        ends = np.where(done, ends, np.where(tight & np.isfinite(state.above), state.low, np.nan))
        ends = np.where(lost & np.isnan(state.high), np.inf, ends)
        over = done | tight | lost
        found[left[over]] = ends[over]
        left, state = left[~over], state[~over]
        points = _next(state)
    return found


def _reopened(state: Bracket, values: np.ndarray, tolerance: float) -> Bracket:
    """Where a bracket has closed on a jump between finite values, what was seen beyond was another branch of the function,
    which remembers where it was looked at before: the search goes on outwards, by short steps."""
    jump = _tight(state, tolerance) & np.isfinite(state.above) & (values < -JUMP) & (state.steps < EXPANSIONS)
    return replace(
        state,
        high=np.where(jump, np.nan, state.high),
        above=np.where(jump, np.nan, state.above),
        width=np.where(jump, SHORT, state.width),
        steps=np.where(jump, state.steps + 5, state.steps),
    )


def _tight(state: Bracket, tolerance: float) -> np.ndarray:
    """Whether brackets are closed and as narrow as the tolerance."""
    return state.closed & (state.high - state.low <= tolerance * np.maximum(1.0, np.abs(state.low)))


def _ends(state: Bracket, points: np.ndarray, values: np.ndarray, tolerance: float) -> tuple[np.ndarray, np.ndarray]:
    """Where the secant through the last two points puts the crossing, and whether that is within tolerance."""
    with np.errstate(invalid="ignore", divide="ignore"):
        shift = values * (points - state.point) / (values - state.value)
    shift = np.where(values == 0, 0.0, shift)
    sure = np.isfinite(shift) & np.isfinite(state.value) | (values == 0)
    return points - shift, sure & (np.abs(shift) <= tolerance * np.maximum(1.0, np.abs(points)))


def _taken_in(state: Bracket, points: np.ndarray, values: np.ndarray) -> Bracket:
    """The brackets after another look."""
    inside = values < 0
    way = np.where(inside, -1.0, 1.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        factor = 1.0 - values / np.where(inside, state.below, state.above)
    factor = np.where((factor > 0) & np.isfinite(factor), factor, 0.5)
    factor = np.where(state.closed & (way == state.way), factor, 1.0)
    return Bracket(
        low=np.where(inside, points, state.low),
        high=np.where(inside, state.high, points),
        below=np.where(inside, values, state.below * factor),
        above=np.where(inside, state.above * factor, values),
        point=points,
        value=values,
        way=way,
        width=2.0 * state.width,
        steps=state.steps + 1,
    )


def _next(state: Bracket) -> np.ndarray:
    """Where to look next."""
    with np.errstate(invalid="ignore", divide="ignore"):
        share = -state.below / (state.above - state.below)
    share = np.where((share > 0) & (share < 1) & np.isfinite(state.above), share, 0.5)
    between = state.low + share * (state.high - state.low)
    onward = np.where(np.isnan(state.high), state.low + state.width, state.high - state.width)
    return np.where(state.closed, between, onward)
