"""How many fits are run: the one place that schedules blocks, repairs and limits.

Every group goes through a plain pass: full steps by normal equations, no precautions, and a close look at where they have
led. That is enough for nearly all of them. What it reports then decides:

- undecided: again, in float64, with all precautions: watched for separation, and by orthogonal factorization where of
  some column too little is left after those before it (in float64 less than 3e-4 of its length) for the Gram matrix to
  tell (`irls.normal`);
- separated: the limits, from a fit of the rows that stay undecided (`jaxglm.separation`);
- stopped without an answer, where estimates could be infinite: a linear programme tells separated from slow.

No group waits for another longer than its block, and none changes another's numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxglm.ends import sides
from jaxglm.irls.blocks import Blocks, blocks_of, default_device, shares
from jaxglm.irls.many import solve_batch, solve_plain_batch
from jaxglm.irls.options import IRLS
from jaxglm.irls.problem import typed
from jaxglm.irls.ragged import Lanes, solve_tiles
from jaxglm.irls.solution import Solution, reported
from jaxglm.irls.solve import Data
from jaxglm.irls.threads import cores, in_threads
from jaxglm.kernels import steps
from jaxglm.limits import put_limits
from jaxglm.packing import EMPTY, Call, Crossed, Layout, Stacked, gather, per_lane, placed, plan, reweighted, tiles
from jaxglm.separation import Separated, decide, polish
from jaxglm.status import Method, Status
from jaxglm.task import Task

SMALL, LARGE = Layout(lanes=64, rows=32), Layout(lanes=1, rows=2048)
FEW = Layout(lanes=8, rows=32)  # of groups that need all precautions
WIDE, TALL = Layout(1024, 32, (2**19, 2**22)), Layout(16, 2048, (2**19, 2**22))  # SMALL and LARGE for a GPU
MANY_ROWS = 4096  # groups with more rows than this go by themselves
PORTION = 2**22  # rows of groups that are looked at for separation at a time
CALL, CALL_ON_GPU = 2**22, 2**26  # numbers of the fits' own in one call of fits with equally many rows
CALLS = 8  # into which a job large enough is cut for each core, or for a GPU

Progress = Callable[[int, int], None]


def fit(task: Task, progress: Progress | None = None, plain: bool = True) -> Solution:
    """Fit every group. The fields of the `Solution` are NumPy arrays with a leading axis g. plain: whether there is a plain
    pass first, which pays for many groups."""
    g = len(task.source.sizes)
    found = nothing(g, task.source.p)
    groups = np.flatnonzero(task.source.sizes > 0)
    with arithmetic(task.device):
        if plain or task.options.factorization != "auto":
            (_plain_crossed if isinstance(task.source, Crossed) else _plain)(task, found, groups, progress)
            undecided = groups[found.undecided[groups]]
            # Where not even one step was taken, normal equations could not be trusted.
            tried = undecided[(found.n_iterations[undecided] > 0) | (task.dtype != np.float64)]
            _carefully(task, found, undecided, tried)
        else:
            _carefully(task, found, groups, groups)
        for part in _portions(task, groups):
            _separate(task, found, part)
    return reported(found)


def _portions(task: Task, groups: np.ndarray) -> Iterator[np.ndarray]:
    """The groups in portions of not too many rows."""
    portion = np.cumsum(task.source.sizes[groups]) // PORTION
    yield from np.split(groups, np.flatnonzero(np.diff(portion)) + 1)


@contextmanager
def arithmetic(device: Any = None) -> Iterator[None]:
    """float64 available, on this device, without touching JAX's configuration."""
    with ExitStack() as stack:
        stack.enter_context(jax.enable_x64(True))
        if device is not None:
            stack.enter_context(jax.default_device(device))
        yield


def nothing(g: int, p: int) -> Solution:
    """g solutions of fits without data."""
    numbers = {name: np.full(g, np.nan) for name in ("deviance", "null_deviance", "log_likelihood", "dispersion")}
    counts = {name: np.zeros(g, np.int64) for name in ("rank", "n_obs", "n_iterations")}
    return Solution(
        coefficients=np.full((g, p), np.nan),
        covariance=np.full((g, p, p), np.nan),
        spans_constant=np.zeros(g, bool),
        status=np.full(g, int(Status.NO_DATA)),
        method=np.full(g, int(Method.IRLS)),
        infinite=np.zeros((g, p), np.int64),
        aliased=np.zeros((g, p), bool),
        direction=np.zeros((g, p)),
        undecided=np.zeros(g, bool),
        **numbers,
        **counts,
    )


def _store(found: Solution, groups: np.ndarray, solution: Solution) -> None:
    """Put solutions of some groups where they belong."""
    jax.tree.map(lambda out, new: out.__setitem__(groups, np.asarray(new)), found, solution)


def _layouts(task: Task, plain: bool) -> tuple[Layout, Layout]:
    device = task.device or jax.devices()[0]
    if device.platform != "cpu":
        return WIDE, TALL
    return (SMALL if plain else FEW), LARGE


def calls_of(task: Task, groups: np.ndarray, plain: bool) -> list[Call]:
    """Cut ragged groups into calls; plain: for work that is over in a few passes."""
    sizes = task.source.sizes
    many = sizes[groups] > MANY_ROWS
    small, large = _layouts(task, plain)
    return [*plan(sizes, groups[~many], small), *plan(sizes, groups[many], large)]


def _solve_call(task: Task, options: IRLS, plain: bool, call: Call) -> Solution:
    """Pack a call, solve it, and bring back the solutions of its members."""
    dtype = task.dtype if plain else np.float64
    with arithmetic(task.device):
        family = jax.tree.map(lambda leaf: per_lane(np.asarray(leaf, dtype), call, 0), task.family)
        penalty = None if task.penalty is None else per_lane(np.asarray(task.penalty, dtype), call, 1)
        start = None if task.start is None else per_lane(np.asarray(task.start, dtype), call, 1)
        stepped = steps(task, call, default_device()) if plain else None
        packed = tiles(task.source, call, dtype, scaled=not plain)
        if stepped is None:
            solution = solve_tiles(options, plain, packed, Lanes(family, penalty, start))
        else:
            solution = solve_tiles(options, plain, packed, Lanes(family, penalty, stepped.coefficients), arrived=True)
            solution = replace(solution, n_iterations=stepped.n_iterations)
        used = call.groups[: call.n_blocks] != EMPTY
        return jax.tree.map(lambda leaf: np.asarray(leaf)[: call.n_blocks][used], solution)


def _plain(task: Task, found: Solution, groups: np.ndarray, progress: Progress | None) -> None:
    """The plain pass over ragged groups."""
    plain, done = task.options.factorization == "auto", 0
    planned = calls_of(task, groups, plain)
    work = partial(_solve_call, task, task.options, plain)
    for call, solution in zip(planned, in_threads(work, planned, task.device), strict=True):
        _store(found, call.members, solution)
        done += len(call.members)
        if progress:
            progress(done, len(groups))


def _carefully(task: Task, found: Solution, groups: np.ndarray, normal: np.ndarray) -> None:
    """Solve groups with all precautions, in float64, their columns scaled: some of them by normal equations, and by
    orthogonal factorization the others, and what is undecided then."""
    if task.options.factorization == "auto":
        found.undecided[groups] = True
        _solve_again(task, found, normal, "cholesky")
    _solve_again(task, found, groups[found.undecided[groups]], "orthogonal")


def _solve_again(task: Task, found: Solution, groups: np.ndarray, factorization: str) -> None:
    planned = calls_of(task, groups, False)
    work = partial(_solve_call, task, replace(task.options, factorization=factorization), False)
    for call, solution in zip(planned, in_threads(work, planned, task.device), strict=True):
        _store(found, call.members, solution)


@partial(jax.jit, static_argnums=(0, 1, 2), static_argnames=("code", "drop"))
def _solve_crossed(g: int, options: IRLS, blocks: Blocks, data: Data, start: Any, *, code: Any, drop: bool) -> Solution:
    solve = solve_plain_batch if options.factorization == "auto" else solve_batch
    return solve(g, options, blocks, data if data.own is None else _widened(data, code, drop), start, 0)


def _widened(data: Data, code: int | None, drop: bool) -> Data:
    """Data whose features are still in the type in which they came, as `packing.Features` has them."""
    values = data.own
    lost = jnp.isnan(values) if jnp.issubdtype(values.dtype, jnp.floating) else jnp.zeros(values.shape, bool)
    lost = lost if code is None else lost | (values == code)
    own = jnp.where(lost, jnp.nan, values.astype(data.X.dtype))
    return replace(data, own=own, weights=jnp.where(lost, 0.0, data.weights) if drop else data.weights)


def _plain_crossed(task: Task, found: Solution, groups: np.ndarray, progress: Progress | None) -> None:
    """The plain pass over fits with equally many rows."""
    source = task.source
    assert isinstance(source, Crossed)
    size = _fits_in_a_call(source, len(groups), default_device())
    parts = [groups[begin : begin + size] for begin in range(0, len(groups), size)]
    done = 0
    for members, solution in zip(parts, in_threads(partial(_crossed, task, size), parts, task.device), strict=True):
        _store(found, members, solution)
        done += len(members)
        if progress:
            progress(done, len(groups))


def _fits_in_a_call(source: Crossed, g: int, device: Any) -> int:
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


def _separate(task: Task, found: Solution, groups: np.ndarray) -> None:
    """Prove separation where the iteration met it or gave up, and put the limits in."""
    if not task.family.can_separate:
        return
    status = found.status[groups]
    open_ended = (status == Status.SEPARATED) | (status == Status.MAX_ITERATIONS) | (status == Status.STEP_FAILED)
    suspects = groups[open_ended]
    if not len(suspects):
        return
    rows = gather(task.source, suspects)
    rows = reweighted(rows, np.where(rows.weights == 0, 0.0, rows.weights), np.where((rows.weights > 0)[:, None], rows.X, 0.0))
    family = task.subset(rows, suspects).family
    side = sides(family, rows)
    proofs = [_prove(task, found, group, rows, side, place) for place, group in enumerate(suspects)]
    proved = np.array([proof.proved for proof in proofs])
    # A direction that does not survive a closer look proves nothing: the fit is only slow.
    slow = suspects[~proved & (found.status[suspects] == Status.SEPARATED)]
    found.status[slow] = Status.MAX_ITERATIONS
    found.infinite[slow], found.direction[slow], found.covariance[slow] = 0, 0.0, np.nan
    if proved.any():
        inside = np.flatnonzero(proved)
        _put(task, found, suspects[inside], gather(rows, inside), [proofs[i] for i in inside])


def _put(task: Task, found: Solution, groups: np.ndarray, rows: Stacked, proofs: list[Separated]) -> None:
    """Put the limits in. Where the rows that a direction leaves alone separate in their turn, a direction that moves all
    rows that any moves is asked for."""
    nested = np.flatnonzero(put_limits(task, found, groups, rows, proofs, partial(fit, plain=False)))
    if not len(nested):
        return
    again = gather(rows, nested)
    side = sides(task.subset(again, groups[nested]).family, again)
    proofs = [_prove(task, found, group, again, side, place, True) for place, group in enumerate(groups[nested])]
    put_limits(task, found, groups[nested], again, proofs, partial(fit, plain=False))


def _prove(
    task: Task, found: Solution, group: int, rows: Stacked, side: np.ndarray, place: int, largest: bool = False
) -> Separated:
    """The proof for one group; the largest, which moves all rows that can be moved, is always the programme's."""
    inside = slice(rows.starts[place], rows.starts[place] + rows.sizes[place])
    X, side, present = rows.X[inside], side[inside], np.asarray(rows.weights)[inside] > 0
    free = ~found.aliased[group]
    if task.penalty is not None:
        free &= (task.penalty if task.penalty.ndim == 1 else task.penalty[group]) == 0
    proof = None if largest else polish(X[present], side[present], free, found.direction[group])
    if proof is None or not proof.proved:
        proof = decide(X[present], side[present], free)
    moved = np.zeros(len(X), bool)
    moved[present] = proof.moved
    return replace(proof, moved=moved)
