"""What becomes of groups that may be separated: proofs, and then limits or estimates with less bias.

The iteration names separated groups with a direction as its certificate, and gives up on others. Here `separation` proves, and
`limits` puts in what a separated fit tends to; or, if so wished, such groups are fitted again with adjusted scores, whose
estimates are finite. Groups that are neither proved nor converged stay slow.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import jax
import numpy as np

from jaxglm.ends import sides
from jaxglm.irls.solution import Solution, store
from jaxglm.limits import put_limits
from jaxglm.packing import Stacked, gather, owners, reweighted
from jaxglm.separation import Separated, decide, polish
from jaxglm.status import Status
from jaxglm.task import Task

NULL = 1e-10  # of the largest eigenvalue of a penalty, one that is zero

Fit = Callable[..., Solution]  # `fitting.fit`


def settle(task: Task, found: Solution, groups: np.ndarray, fit: Fit) -> None:
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
    if task.separated == "firth" and proved.any():
        inside = np.flatnonzero(proved)
        proved[inside] = ~_put_reduced(task, found, suspects[inside], gather(rows, inside), fit)
    if proved.any():
        inside = np.flatnonzero(proved)
        _put(task, found, suspects[inside], gather(rows, inside), [proofs[i] for i in inside], fit)


def _put_reduced(task: Task, found: Solution, groups: np.ndarray, rows: Stacked, fit: Fit) -> np.ndarray:
    """Put estimates with less bias in for separated groups, and say for which; the others get their limits after all."""
    kept = ~found.aliased[groups]
    rows = reweighted(rows, rows.weights, np.where(kept[owners(rows)], rows.X, 0.0))
    reduced = fit(replace(task.subset(rows, groups), bias_reduction="mean"))
    done = np.flatnonzero(reduced.status == Status.CONVERGED)
    finite = jax.tree.map(lambda leaf: leaf[done], reduced)
    finite = replace(
        finite,
        status=np.full(len(done), int(Status.SEPARATED)),
        n_iterations=found.n_iterations[groups[done]] + finite.n_iterations,
    )
    store(found, groups[done], finite)
    return reduced.status == Status.CONVERGED


def _put(task: Task, found: Solution, groups: np.ndarray, rows: Stacked, proofs: list[Separated], fit: Fit) -> None:
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
    free, n = ~found.aliased[group], int(present.sum())
    X, side = X[present], side[present]
    if task.penalty is not None:
        penalty = task.penalty if task.penalty.ndim == 1 else task.penalty[group]
        if penalty.ndim == 1:
            free &= penalty == 0
        else:  # what a penalty resists must not move, like a row whose optimum is finite
            X, side = np.concatenate([X, _resisted(penalty)]), np.concatenate([side, np.zeros(len(penalty))])
    proof = None if largest else polish(X, side, free, found.direction[group])
    if proof is None or not proof.proved:
        proof = decide(X, side, free)
    moved = np.zeros(len(present), bool)
    moved[present] = proof.moved[:n]
    return replace(proof, moved=moved)


def _resisted(penalty: np.ndarray) -> np.ndarray:
    """Rows (p, p) of which a direction is a combination as far as a penalty resists it. penalty: (p, p)."""
    values, vectors = np.linalg.eigh(penalty)
    return np.where(values > NULL * values[-1], 1.0, 0.0)[:, None] * vectors.T
