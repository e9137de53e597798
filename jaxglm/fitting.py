"""How many fits are run: the one place that schedules blocks, repairs and limits.

Every group goes through a plain pass: full steps by normal equations, no precautions, and a close look at where they have
led. That is enough for nearly all of them. What it reports then decides:

- undecided: again, in float64, with all precautions: watched for separation, and by orthogonal factorization where of
  some column too little is left after those before it (in float64 less than 3e-4 of its length) for the Gram matrix to
  tell (`irls.normal`);
- separated: the limits, from a fit of the rows that stay undecided (`jaxglm.separation`), or if so wished estimates with
  less bias, which are finite;
- stopped without an answer, where estimates could be infinite: a linear programme tells separated from slow;
- lost or slow for another reason: up a ladder of other ways to the same optimum (`ladder`).

Where all scores are adjusted to reduce bias there is one way for all, by normal equations or orthogonal factorization.

No group waits for another longer than its block, and none changes another's numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxglm.aligned import placed
from jaxglm.calls import arithmetic, calls_of
from jaxglm.devices import default_device
from jaxglm.elastic_net import (
    Paths,
    free_columns,
    largest_of_call,
    losses_of_call,
    path_of_call,
    put_unpenalized,
    told,
    told_of_all,
    unmoved,
)
from jaxglm.irls import lanes
from jaxglm.irls.blocks import Blocks, blocks_of, shares
from jaxglm.irls.data import Data
from jaxglm.irls.many import solve_batch, solve_plain_batch
from jaxglm.irls.options import IRLS
from jaxglm.irls.plain import began
from jaxglm.irls.problem import typed
from jaxglm.irls.ragged import Lanes, solve_tiles
from jaxglm.irls.solution import Solution, nothing, reported, store
from jaxglm.kernels import steps
from jaxglm.ladder import climb
from jaxglm.large import is_large, solve_large
from jaxglm.packing import (
    EMPTY,
    Call,
    Crossed,
    gather,
    lane_rows,
    per_lane,
    tiles,
)
from jaxglm.penalty import Net
from jaxglm.separated import settle
from jaxglm.status import Status
from jaxglm.task import Task
from jaxglm.threads import cores, in_threads

PORTION, LEAST = 2**22, 2**15  # rows of unfinished groups that are looked at at a time, at most and at least
CALL, CALL_ON_GPU = 2**22, 2**26  # numbers of the fits' own in one call of fits with equally many rows
CALLS = 8  # into which a job large enough is cut for each core, or for a GPU

Progress = Callable[[int, int], None]


def fit(task: Task, progress: Progress | None = None, plain: bool = True, limits: bool = True) -> Solution:
    """Fit every group. The fields of the `Solution` are NumPy arrays with a leading axis g. plain: whether there is a plain
    pass first, which pays for many groups; limits: whether separation is proved and the limits of separated groups put in.
    An elastic net has to have one strength, and is fitted as a path of that."""
    if task.net is not None:
        one = np.zeros(len(task.source.sizes), np.int64)
        return path(task, task.net, fit_free(task, task.net, progress)).at(one, task.family.dispersion)
    g = len(task.source.sizes)
    found = nothing(g, task.source.p, task.source.sizes <= 0)
    groups = np.flatnonzero(task.source.sizes > 0)
    with arithmetic(task.device):
        if task.bias_reduction is not None:
            _adjusted(task, found, groups, progress)
            return reported(found)
        if plain or task.options.factorization != "auto":
            rest = groups if task.options.factorization != "auto" else _by_lanes(task, found, groups, None, progress)
            if len(rest):
                (_plain_crossed if isinstance(task.source, Crossed) else _plain)(task, found, rest, progress)
            undecided = groups[found.undecided[groups]]
            tried = undecided[began(found)[undecided] | (task.dtype != np.float64)]
            _carefully(task, found, undecided, tried)
        else:
            _carefully(task, found, groups, groups)
        if limits:
            list(in_threads(partial(_last, task, found), list(_portions(task, found, groups)), task.device, compiles=False))
    return reported(found)


def _last(task: Task, found: Solution, groups: np.ndarray) -> None:
    """What becomes of groups that may be separated, and of those that have failed."""
    settle(task, found, groups, fit)
    climb(task, found, groups, fit)


def fit_free(task: Task, net: Net, progress: Progress | None = None) -> Solution:
    """The free columns of an elastic net alone, told of all columns."""
    return told_of_all(net, fit(free_columns(task, net), progress))


def path(task: Task, net: Net, free: Solution) -> Paths:
    """Fit every group along its strengths (g, L), the largest first; free: its free columns alone (`fit_free`)."""
    along = unmoved(task, net, free)
    _each_call(task, free.status == Status.CONVERGED, partial(path_of_call, task, net, free.coefficients), along)
    along = told(along, free, task.family.dispersion)
    zero = np.flatnonzero((net.strengths == 0).any(axis=1))
    if len(zero):  # these may be separated, and are made as any fit is
        put_unpenalized(along, net, zero, fit(replace(task, net=None).subset(gather(task.source, zero), zero)))
    return Paths(net.strengths, free, along)


def largest(task: Task, net: Net, free: Solution) -> np.ndarray:
    """The strength at which each group's path begins, (g,), NaN where it has none."""
    found = np.full(len(free.status), np.nan)
    _each_call(task, free.status == Status.CONVERGED, partial(largest_of_call, task, net, free.coefficients), found)
    return found


def losses(task: Task, coefficients: np.ndarray) -> np.ndarray:
    """The deviances (g, L) of every group's rows at coefficients (g, L, p)."""
    found = np.zeros(coefficients.shape[:2])
    _each_call(task, task.source.sizes > 0, partial(losses_of_call, task, coefficients), found)
    return found


def _each_call(task: Task, which: np.ndarray, work: Callable[[Call], Any], found: Any) -> None:
    """Put what `work` finds for a call's members where they belong, for each of the calls into which the groups flagged by
    `which` are cut."""
    with arithmetic(task.device):
        calls = calls_of(task, np.flatnonzero(which), True)
        for call, one in zip(calls, in_threads(work, calls, task.device), strict=True):
            store(found, call.members, one)


def _portions(task: Task, found: Solution, groups: np.ndarray) -> Iterator[np.ndarray]:
    """The groups in portions, one for each core, or more where their unfinished groups have too many rows."""
    unfinished = np.cumsum(np.where(found.status[groups] == Status.CONVERGED, 0, task.source.sizes[groups]))
    total = unfinished[-1] if len(groups) else 0
    portion = np.maximum(unfinished - 1, 0) // int(np.clip(-(-total // cores()), LEAST, PORTION))
    yield from np.split(groups, np.flatnonzero(np.diff(portion)) + 1)


def _solve_call(task: Task, options: IRLS, plain: bool, call: Call) -> Solution:
    """Pack a call, solve it, and bring back the solutions of its members."""
    dtype = task.dtype if plain else np.float64
    with arithmetic(task.device):
        family = jax.tree.map(lambda leaf: per_lane(np.asarray(leaf, dtype), call, 0), task.family)
        penalty = None if task.penalty is None else per_lane(np.asarray(task.penalty, dtype), call, 1)
        start = None if task.start is None else per_lane(np.asarray(task.start, dtype), call, 1)
        held = None if task.held is None else per_lane(task.held, call, 1)
        stepped = steps(task, call, default_device()) if plain else None
        packed = tiles(task.source, call, dtype, scaled=not plain)
        if stepped is None:
            lanes = Lanes(family, penalty, start, held)
            solution = solve_tiles(options, plain, packed, lanes, bias_reduction=task.bias_reduction)
        else:
            solution = solve_tiles(options, plain, packed, Lanes(family, penalty, stepped.coefficients), arrived=True)
            solution = replace(solution, n_iterations=stepped.n_iterations)
        used = call.groups[: call.n_blocks] != EMPTY
        return jax.tree.map(lambda leaf: np.asarray(leaf)[: call.n_blocks][used], solution)


def _by_lanes(
    task: Task, found: Solution, groups: np.ndarray, factorization: str | None = None, progress: Progress | None = None
) -> np.ndarray:
    """Fit groups by lanes of a CPU, where that is possible, in the plain pass or, given a factorization, with all precautions;
    returns the groups that are left."""
    job = _lane_job(task, factorization)
    if job is None:
        return groups
    fit = lanes.fits(job, task.source.sizes[groups])
    if not fit.any() or lanes.available(job, default_device()):
        return groups
    taken, done = groups[fit], 0

    def tell(more: int) -> None:
        nonlocal done
        done += more
        if progress:
            progress(done, len(taken))

    lanes.solve(job, found, taken, tell)
    return groups[~fit]


def _lane_job(task: Task, factorization: str | None) -> lanes.Job | None:
    """The job of lanes for all groups, None where they cannot read the rows."""
    rows = lane_rows(task.source)
    if rows is None:
        return None
    job = lanes.Job(rows, task.family, task.penalty, task.start, task.options, task.dtype)
    if factorization is None:
        return job
    options = replace(task.options, factorization=factorization)
    job = replace(job, options=options, dtype=np.dtype(np.float64), careful=True)
    return replace(job, bias_reduction=task.bias_reduction, held=task.held)


def _plain(task: Task, found: Solution, groups: np.ndarray, progress: Progress | None) -> None:
    """The plain pass over ragged groups."""
    plain, done = task.options.factorization == "auto", 0
    large = is_large(task, groups, default_device())
    for group in groups[large]:
        solution = solve_large(task, group)
        store(found, np.array([group]), jax.tree.map(lambda leaf: np.asarray(leaf)[None], solution))
    groups = groups[~large]
    calls = calls_of(task, groups, plain)
    work = partial(_solve_call, task, task.options, plain)
    for call, solution in zip(calls, in_threads(work, calls, task.device), strict=True):
        store(found, call.members, solution)
        done += len(call.members)
        if progress:
            progress(done, len(groups))


def _adjusted(task: Task, found: Solution, groups: np.ndarray, progress: Progress | None) -> None:
    """Solve adjusted scores, by orthogonal factorization where the Gram matrix cannot be trusted."""
    auto = task.options.factorization == "auto"
    _solve_again(task, found, groups, "cholesky" if auto else task.options.factorization, progress)
    if auto:
        _solve_again(task, found, groups[found.undecided[groups]], "orthogonal")


def _carefully(task: Task, found: Solution, groups: np.ndarray, normal: np.ndarray) -> None:
    """Solve groups with all precautions, in float64, their columns scaled: some of them by normal equations, and by
    orthogonal factorization the others, and what is undecided then."""
    if task.options.factorization == "auto":
        found.undecided[groups] = True
        if 0 < len(normal) < len(groups):
            _prepare_lanes(task, groups, ("cholesky", "orthogonal"))
        _solve_again(task, found, normal, "cholesky")
    _solve_again(task, found, groups[found.undecided[groups]], "orthogonal")


def _prepare_lanes(task: Task, groups: np.ndarray, ways: tuple[str, ...]) -> None:
    """Have kernels made side by side, for ways that will be needed: one is written while another is compiled."""
    jobs = [job for job in (_lane_job(task, way) for way in ways) if job and lanes.fits(job, task.source.sizes[groups]).any()]
    list(in_threads(partial(lanes.available, device=default_device()), jobs, task.device, compiles=False))


def _solve_again(task: Task, found: Solution, groups: np.ndarray, factorization: str, progress: Progress | None = None) -> None:
    groups = _by_lanes(task, found, groups, factorization, progress)
    calls, done = calls_of(task, groups, False), 0
    work = partial(_solve_call, task, replace(task.options, factorization=factorization), False)
    for call, solution in zip(calls, in_threads(work, calls, task.device), strict=True):
        store(found, call.members, solution)
        done += len(call.members)
        if progress:
            progress(done, len(groups))


@partial(jax.jit, static_argnums=(0, 1, 2), static_argnames=("code", "drop"))
def _solve_crossed(g: int, options: IRLS, blocks: Blocks, data: Data, start: Any, *, code: Any, drop: bool) -> Solution:
    solve = solve_plain_batch if options.factorization == "auto" else solve_batch
    return solve(g, options, blocks, data if data.own is None else _widened(data, code, drop), start, 0)


def _widened(data: Data, code: int | None, drop: bool) -> Data:
    """Data whose features are still in the type in which they came, as `packing.Features` has them."""
    own = as_numbers(data.own, code, data.X.dtype)
    return replace(data, own=own, weights=jnp.where(jnp.isnan(own), 0.0, data.weights) if drop else data.weights)


def as_numbers(values: Any, code: int | None, dtype: Any) -> Any:
    """Features of any type in that of the arithmetic, NaN where they are missing."""
    wide = values.astype(dtype)
    return wide if code is None else jnp.where(values == code, jnp.nan, wide)


def _plain_crossed(task: Task, found: Solution, groups: np.ndarray, progress: Progress | None) -> None:
    """The plain pass over fits with equally many rows."""
    assert isinstance(task.source, Crossed)
    source = task.source.read
    task = replace(task, source=source)
    size = fits_in_a_call(source, len(groups), default_device())
    parts = [groups[begin : begin + size] for begin in range(0, len(groups), size)]
    done = 0
    for members, solution in zip(parts, in_threads(partial(_crossed, task, size), parts, task.device), strict=True):
        store(found, members, solution)
        done += len(members)
        if progress:
            progress(done, len(groups))


def fits_in_a_call(source: Crossed, g: int, device: Any) -> int:
    """A power of two, so that few programs are compiled."""
    own = source.X.shape[-2] * (source.X.shape[-1] + 1 if source.X.ndim == 3 else 1)
    call, workers = (CALL, cores()) if device.platform == "cpu" else (CALL_ON_GPU, 1)
    share = max(call // (4 * CALLS) // max(1, own), g // (CALLS * workers))
    most = max(8, min(call // max(1, own), share))
    return 1 << min(most.bit_length() - 1, max(0, g - 1).bit_length())


def _crossed(task: Task, size: int, members: np.ndarray) -> Solution:
    """Fit some members of a source of fits with equally many rows, in a call of `size` fits."""
    source, dtype = task.source, task.dtype
    assert isinstance(source, Crossed)
    together = len(members) == size and members[-1] - members[0] == size - 1
    index: Any = np.concatenate([members, np.full(size - len(members), members[0])])
    if together:
        index = slice(members[0], members[0] + size)  # a view, not a copy

    def part(values: Any, axes: int) -> Any:
        return None if values is None else placed(values if np.ndim(values) == axes else values[index], dtype)

    weights = np.ones(source.X.shape[-2]) if source.weights is None else source.weights
    data = Data(
        X=part(source.X, 2),
        y=part(source.y, 1),
        weights=part(weights, 1),
        offset=part(source.offset, 1),
        penalty=part(task.penalty, 1),
        family=typed(jax.tree.map(lambda leaf: part(leaf, 0), task.family), dtype),
        own=None if source.own is None else source.own.values[index],
        shared=shares(source.X.shape),
    )
    with arithmetic(task.device):
        blocks = blocks_of(data, size, task.options, default_device(), source.weights is not None)
        code, drop = (None, False) if source.own is None else (source.own.code, source.own.drop)
        solution = _solve_crossed(size, task.options, blocks, data, part(task.start, 1), code=code, drop=drop)
        return jax.tree.map(lambda leaf: np.asarray(leaf)[: len(members)], solution)
