"""A ladder for groups on which the ordinary iteration fails.

IRLS gives up where no step from its start leads anywhere, where the likelihood is not concave, and where the optimum lies on
the boundary of the valid means. Groups that end so, and are not separated, climb rungs until they are at an optimum:

- other starts: the ordinary iteration again, from the null model, from the regression of the transformed response,
  or from inside of the valid means (`interior`);
- damped: Levenberg and Marquardt's steps with the observed information, and along a barrier at the edge of the valid means
  where responses lie there (`irls.damped`);
- boundary: where that path has ended at the edge, the constrained optimum with its proof (`irls.boundary`, `boundary`);
- L-BFGS on the same likelihood (`irls.descent`).

A rung only supplies a start: the ordinary iteration finishes from there, so that all numbers come from the same code, and by
the same rule of convergence. An end counts only if no point that any rung has seen has a higher likelihood. All
rungs are mapped over the groups that are left, and a call without failed groups takes no step here. Groups whose likelihood
has no optimum, or which have no valid means at all, stay as they are.

A fit that ran out of fewer steps than R's `glm` has by default was meant to, and does not climb.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import numpy as np
from jax import Array

from jaxglm.boundary import proved
from jaxglm.calls import arithmetic, calls_of
from jaxglm.family import Family
from jaxglm.interior import inside
from jaxglm.irls.boundary import Bounded, solve_boundary
from jaxglm.irls.damped import Reached, solve_damped
from jaxglm.irls.descent import solve_descent
from jaxglm.irls.edge import has_edge
from jaxglm.irls.options import IRLS
from jaxglm.irls.problem import pose
from jaxglm.irls.ragged import Tiles, over_blocks
from jaxglm.irls.solution import Solution, store
from jaxglm.irls.starts import objective, other_starts
from jaxglm.packing import EMPTY, Call, gather, per_lane, tiles
from jaxglm.rows import Rows
from jaxglm.status import Method, Status
from jaxglm.task import Task
from jaxglm.threads import in_threads

# Rungs factor by LAPACK, and large batches of jaxlib's (0.10.2) wait for each other for ever where two threads run them.
ALONE = threading.Lock()
ENOUGH = 25  # steps; R's default
# Relative to 1 and the null deviance, by how much the deviance of an optimum cannot be above it.
WORSE_THAN_NULL = {"float64": 1e-6, "float32": 1e-2}
WORSE = 1e-9  # by how much, relative to 1 and itself, an optimum's deviance may be above the least that was seen
OTHERS = slice(1, 4)  # of the points seen, `irls.starts`'; before them is the last iterate
EDGES = (1e-5, 1e-7, 1e-3)  # how near to its edge a row is taken to be held there, each where the one before was not right

Fit = Callable[..., Solution]  # `fitting.fit`


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class _Lane:
    """What a rung is given of each fit, with leading axes (T, lanes). family; penalty: (p,), (p, p) or None; keep: (p,);
    points: (k, p), coefficients; threshold: a scalar."""

    family: Family
    penalty: Any
    keep: Any
    points: Any
    threshold: Any


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class _Begun:
    """Candidates (k, p) in the user's terms, and their objectives (k,)."""

    points: Any
    objectives: Any


def climb(task: Task, found: Solution, groups: np.ndarray, fit: Fit) -> None:
    """Let failed groups climb, and put in what they find."""
    status = found.status[groups]
    if task.penalty is None:
        status = np.where(_worse_than_null(task, found, groups), Status.STEP_FAILED, status)
        found.status[groups] = status
    failed = (status == Status.STEP_FAILED) | ((status == Status.MAX_ITERATIONS) & (task.options.max_iterations >= ENOUGH))
    if not failed.any():
        return
    Climb(task, found, groups[failed], fit).all()


def _worse_than_null(task: Task, found: Solution, groups: np.ndarray) -> np.ndarray:
    """Which optima are none: rows that overflow have no weight, and stop a fit where it is worse than the null model."""
    null = found.null_deviance[groups]
    bound = null + WORSE_THAN_NULL[np.dtype(task.dtype).name] * (1.0 + np.abs(null))
    return (found.status[groups] == Status.CONVERGED) & found.spans_constant[groups] & (found.deviance[groups] > bound)


class Climb:
    """The climb of some groups: what each has seen, and which are left."""

    def __init__(self, task: Task, found: Solution, groups: np.ndarray, fit: Fit) -> None:
        self.found, self.groups, self.fit = found, groups, fit
        self.task = task.subset(gather(task.source, groups), groups)
        self.left = np.arange(len(groups))
        self.keep = ~found.aliased[groups]
        self.n_iterations = found.n_iterations[groups]
        last = np.where(np.isfinite(found.coefficients[groups]), found.coefficients[groups], 0.0)
        begun = self._mapped(_begin, self.left, last[:, None, :])
        self.points, self.objectives = begun.points, begun.objectives
        self._look_inside()

    def _look_inside(self) -> None:
        """In place of the last start, a point with valid means, for groups of which no start has them."""
        nowhere = np.flatnonzero(~np.isfinite(self.objectives).any(axis=1))
        if not len(nowhere) or not has_edge(self.task.family):
            return
        source = gather(self.task.source, nowhere)
        with arithmetic(self.task.device):
            inner = inside(self.task.subset(source, nowhere), source, self.keep[nowhere])
        there = np.isfinite(inner).all(axis=1)
        self.points[nowhere[there], -1] = inner[there]
        self.objectives[nowhere] = self._mapped(_weigh, nowhere, self.points[nowhere]).objectives

    def all(self) -> None:
        """Climb rung by rung."""
        self._finish(Method.OTHER_START, self._best(self.points[:, OTHERS], self.objectives[:, OTHERS]))
        if len(self.left):
            ends = self._reached(_damp, self.points)
            self._finish(Method.DAMPED, ends)
            if has_edge(self.task.family):
                self._bound(ends)
        if len(self.left):
            self._finish(Method.LBFGS, self._reached(_descend, self._best(self.points, self.objectives)[:, None, :]))

    def _best(self, points: np.ndarray, objectives: np.ndarray) -> np.ndarray:
        """The best points of all groups, (g, p)."""
        return points[np.arange(len(points)), np.argmin(objectives, axis=1)]

    def _mapped(self, one: Callable[..., Any], which: np.ndarray, points: np.ndarray, threshold: float = 0.0) -> Any:
        """What a rung finds for groups `which`, from their points (len(which), k, p), in their order."""
        source = gather(self.task.source, which)
        task = self.task.subset(source, which)
        known = (self.keep[which], points, np.full(len(which), threshold))
        with arithmetic(task.device):
            calls = calls_of(task, np.arange(len(which)), False)
            done = list(in_threads(partial(_one_call, one, task, known), calls, task.device))
        order = np.argsort(np.concatenate([call.members for call in calls]))
        return jax.tree.map(lambda *leaves: np.concatenate(leaves)[order], *done)

    def _reached(self, one: Callable[..., Any], points: np.ndarray) -> np.ndarray:
        """Where a rung leads the groups that are left from points of all, (g, k, p): (g, p), zeros for others."""
        reached = self._mapped(one, self.left, points[self.left])
        self.n_iterations[self.left] += reached.n_iterations
        ends = np.zeros((len(self.groups), self.task.source.p))
        ends[self.left] = np.where(np.isfinite(reached.coefficients), reached.coefficients, 0.0)
        return ends

    def _see(self, which: np.ndarray, points: np.ndarray) -> np.ndarray:
        """Remember points (len(which), p), and tell their objectives."""
        worth = self._mapped(_weigh, which, points[:, None, :]).objectives
        more, far = np.zeros((len(self.groups), 1, points.shape[1])), np.full((len(self.groups), 1), np.inf)
        more[which, 0], far[which, 0] = points, worth[:, 0]
        self.points, self.objectives = np.concatenate([self.points, more], 1), np.concatenate([self.objectives, far], 1)
        return worth[:, 0]

    def _finish(self, method: Method, starts: np.ndarray) -> None:
        """Finish by the ordinary iteration from starts (g, p)."""
        which = self.left
        task = replace(self.task.subset(gather(self.task.source, which), which), start=starts[which])
        self._see(which, starts[which])
        solution = self.fit(task, plain=False, limits=False)
        solution = replace(solution, method=np.full(len(which), int(method)))
        self._accept(which, solution, solution.status == Status.CONVERGED)

    def _accept(self, which: np.ndarray, solution: Solution, good: np.ndarray) -> None:
        """Put in solutions of groups `which` that are flagged as good, and no worse than anything seen."""
        good = good & (solution.aliased == ~self.keep[which]).all(axis=1)
        worth = self._see(which, np.where(np.isfinite(solution.coefficients), solution.coefficients, 0.0))
        least = np.min(self.objectives[which], axis=1)
        good &= worth <= least + WORSE * (1.0 + np.abs(least))
        self.n_iterations[which] += solution.n_iterations
        solution = replace(solution, n_iterations=self.n_iterations[which])
        store(self.found, self.groups[which[good]], jax.tree.map(lambda leaf: leaf[good], solution))
        self.left = which[~good]

    def _bound(self, ends: np.ndarray) -> None:
        """Put in the optima on the boundary near the ends of the barrier's paths (g, p)."""
        for threshold in EDGES:
            which = self.left
            if not len(which):
                return
            starts, worth = self.points[:, OTHERS], self.objectives[:, OTHERS]
            valid = np.isfinite(worth.min(axis=1))
            inside = np.where(valid[:, None], self._best(starts, worth), ends)
            found = self._mapped(_bounded, which, np.stack([ends[which], inside[which]], axis=1), threshold)
            source = gather(self.task.source, which)
            task = self.task.subset(source, which)
            with arithmetic(task.device):
                good = found.sound & proved(task, source, found.solution.coefficients, found.pull, found.solution.dispersion)
            self._accept(which, found.solution, good)


def _one_call(one: Callable[..., Any], task: Task, known: Any, call: Call) -> Any:
    """A rung over the groups of a call."""
    with arithmetic(task.device):
        family = jax.tree.map(lambda leaf: per_lane(np.asarray(leaf, np.float64), call, 0), task.family)
        penalty = None if task.penalty is None else per_lane(np.asarray(task.penalty, np.float64), call, 1)
        keep, points, threshold = (leaf[np.maximum(call.groups, 0)] for leaf in known)
        packed = tiles(task.source, call, np.float64, scaled=True)
        with ALONE:
            found = _over_tiles(one, task.options, packed, _Lane(family, penalty, keep, points, threshold))
            found = jax.tree.map(np.asarray, found)
        used = call.groups[: call.n_blocks] != EMPTY
        return jax.tree.map(lambda leaf: leaf[: call.n_blocks][used], found)


@partial(jax.jit, static_argnums=(0, 1))
def _over_tiles(one: Callable[..., Any], options: IRLS, packed: Tiles, lanes: _Lane) -> Any:
    def fit(rows: Rows, lane: _Lane, scale: Array) -> Any:
        problem = pose(rows, lane.family, scale, lane.penalty)
        return one(problem, options, lane.points * scale, lane.keep & problem.keep, lane.threshold)

    return over_blocks(fit, packed, lanes.family, lanes)


def _begin(problem: Any, options: IRLS, points: Array, keep: Array, threshold: Array) -> _Begun:
    """The last iterate and other starts."""
    candidates = jax.numpy.concatenate([points, other_starts(problem, keep)])
    return _Begun(candidates / problem.scale, jax.lax.map(partial(objective, problem), candidates))


def _weigh(problem: Any, options: IRLS, points: Array, keep: Array, threshold: Array) -> _Begun:
    return _Begun(points / problem.scale, jax.lax.map(partial(objective, problem), points))


def _damp(problem: Any, options: IRLS, points: Array, keep: Array, threshold: Array) -> Reached:
    reached = solve_damped(problem, points, keep)
    return replace(reached, coefficients=reached.coefficients / problem.scale)


def _descend(problem: Any, options: IRLS, points: Array, keep: Array, threshold: Array) -> Reached:
    reached = solve_descent(problem, points[0], keep)
    return replace(reached, coefficients=reached.coefficients / problem.scale)


def _bounded(problem: Any, options: IRLS, points: Array, keep: Array, threshold: Array) -> Bounded:
    return solve_boundary(problem, options, points[0], points[1], threshold, keep)
