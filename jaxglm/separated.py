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
from jaxglm.recession import Rows, Separated, exact_proofs
from jaxglm.separation import decide
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
    if not (rows.weights > 0).all():
        X = np.where((rows.weights > 0)[:, None], rows.X, 0.0)
        rows = reweighted(rows, np.where(rows.weights == 0, 0.0, rows.weights), X)
    family = task.subset(rows, suspects).family
    side = sides(family, rows)
    proofs = _prove(task, found, suspects, rows, side)
    proved = proofs.proved
    # A direction that does not survive a closer look proves nothing: the fit is only slow.
    slow = suspects[~proved & (found.status[suspects] == Status.SEPARATED)]
    found.status[slow] = Status.MAX_ITERATIONS
    found.infinite[slow], found.direction[slow], found.covariance[slow] = 0, 0.0, np.nan
    if task.separated == "firth" and proved.any():
        inside = np.flatnonzero(proved)
        proved[inside] = ~_put_reduced(task, found, suspects[inside], gather(rows, inside), fit)
    if proved.any():
        inside = np.flatnonzero(proved)
        which = rows if proved.all() else gather(rows, inside)
        side = side[np.repeat(proved, rows.sizes)]
        _put(task, found, suspects[inside], which, side, proofs.only(proved, rows.sizes), fit)


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


def _put(task: Task, found: Solution, groups: np.ndarray, rows: Stacked, side: np.ndarray, proofs: Separated, fit: Fit) -> None:
    """Put the limits in; side: (n,), of each row's infinite optimum. Where the rows that a direction leaves alone separate in
    their turn, a direction that moves all rows that any moves is asked for."""
    nested = np.flatnonzero(put_limits(task, found, groups, rows, side, proofs, partial(fit, plain=False)))
    if not len(nested):
        return
    again, side = gather(rows, nested), side[np.isin(owners(rows), nested)]
    proofs = _prove(task, found, groups[nested], again, side, largest=True)
    put_limits(task, found, groups[nested], again, side, proofs, partial(fit, plain=False))


def _prove(
    task: Task, found: Solution, groups: np.ndarray, rows: Stacked, side: np.ndarray, largest: bool = False
) -> Separated:
    """The proofs for some groups. The largest, which move all rows that can be moved, are always the programme's."""
    looked = Rows(rows.X, side, rows.sizes, ~found.aliased[groups])
    if task.penalty is not None:
        penalty = task.penalty if task.penalty.ndim == 1 else task.penalty[groups]
        # What a matrix resists must not move, like a row whose optimum is finite.
        fixed = penalty != 0 if penalty.ndim < 3 else np.zeros(rows.p, bool)
        looked = replace(looked, free=looked.free & ~fixed)
        looked = _with_resisted(looked, penalty) if penalty.ndim == 3 else looked
    none = Separated.none(len(groups), len(looked.X), rows.p)
    proofs = none if largest else exact_proofs(looked, found.direction[groups])
    for place in np.flatnonzero(~proofs.proved):
        inside = slice(looked.starts[place], looked.starts[place] + looked.sizes[place])
        proof = decide(looked.X[inside], looked.side[inside], looked.free[place])
        proofs.direction[place], proofs.determined[place] = proof.direction[0], proof.determined[0]
        proofs.moved[inside] = proof.moved
    within = np.arange(len(looked.X)) - looked.starts[looked.owner]
    return replace(proofs, moved=proofs.moved[within < rows.sizes[looked.owner]])


def _with_resisted(rows: Rows, penalty: np.ndarray) -> Rows:
    """The rows, and in each group p more, of which a direction is a combination as far as its penalty (g, p, p) resists it."""
    values, vectors = np.linalg.eigh(penalty)
    resisted = np.where(values > NULL * values[:, -1:], 1.0, 0.0)[:, :, None] * np.swapaxes(vectors, 1, 2)
    g, p = len(penalty), penalty.shape[-1]
    order = np.argsort(np.concatenate([rows.owner, np.repeat(np.arange(g), p)]), kind="stable")
    X = np.concatenate([rows.X, resisted.reshape(-1, p)])[order]
    return Rows(X, np.concatenate([rows.side, np.zeros(g * p)])[order], rows.sizes + p, rows.free)
