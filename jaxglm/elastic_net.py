"""Elastic nets of many fits on the host: calls of the path's programs, and what a path says of each of its fits.

The free columns alone are fitted first, as any fit is: that tells which of them are aliased, where the path begins, and
whether the fit is separated however strong the penalty, as it is if and only if the free columns alone separate. `fitting`
runs both.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np

from jaxglm.irls.path import PathSolution, Shrinkage
from jaxglm.irls.ragged import Lanes, LossLanes, PathLanes, largest_strengths, losses_of_tiles, path_tiles
from jaxglm.irls.solution import Solution, is_lost, reported
from jaxglm.limits import infinite_eta
from jaxglm.packing import EMPTY, Call, gather, owners, per_lane, tiles
from jaxglm.penalty import Net
from jaxglm.status import Method, Status
from jaxglm.task import Task


@dataclass(frozen=True)
class Paths:
    """The paths of g fits. strengths: (g, L); free: the fit of the free columns alone, told of all p columns; along: what
    changes along a path, (g, L, ...). Fits whose free columns alone have no finite optimum have no path: their status is
    that of the free columns, all along."""

    strengths: np.ndarray
    free: Solution
    along: PathSolution

    def at(self, place: np.ndarray, known: float | None) -> Solution:
        """The fits at one place of each path, (g,). known: the dispersion, None where it is estimated."""
        found = jax.tree.map(lambda leaf: leaf[np.arange(len(place)), place], self.along)
        df = np.nan_to_num(found.df)
        degrees = self.free.n_obs - df
        with np.errstate(divide="ignore", invalid="ignore"):
            dispersion = np.where(degrees > 0, found.chi_square / degrees, np.nan)
        solution = replace(
            self.free,
            coefficients=found.coefficients,
            deviance=found.deviance,
            log_likelihood=found.log_likelihood,
            dispersion=dispersion if known is None else np.where(np.isnan(found.chi_square), np.nan, known),
            rank=df.astype(np.int64) if np.all(df == np.round(df)) else df,
            n_iterations=found.n_iterations,
            status=found.status,
        )
        return reported(solution)


def free_columns(task: Task, net: Net) -> Task:
    """The task of fitting the free columns alone."""
    return replace(task, source=task.source.only(net.free), net=None, start=None)


def told_of_all(net: Net, found: Solution) -> Solution:
    """The fit of the free columns, told of all columns: penalized ones have coefficients of zero; there are no errors."""
    g, p = len(found.status), len(net.factors)

    def spread(values: np.ndarray) -> np.ndarray:
        out = np.zeros((g, p), values.dtype)
        if len(net.free):
            out[:, net.free] = values
        return out

    return replace(
        found,
        coefficients=np.where(is_lost(found.status)[:, None], np.nan, spread(found.coefficients)),
        covariance=np.full((g, p, p), np.nan),
        infinite=spread(found.infinite),
        aliased=spread(found.aliased),
        direction=spread(found.direction),
        method=np.full(g, int(Method.ELASTIC_NET)),
    )


def unmoved(task: Task, net: Net, free: Solution) -> PathSolution:
    """Paths along which nothing has been fitted yet: what the free columns alone say, where that is all there is to say.

    Where they separate all rows, every penalized coefficient is zero in the limit. Where they leave some rows, what these
    ask of the other columns is not known here, and only what diverges is told."""
    length = net.strengths.shape[1]
    known = _separates_all(task, free)
    numbers = np.where(known, 1.0, np.nan)
    estimates = np.where((free.infinite != 0) | known[:, None], free.coefficients, np.nan)

    def along(values: np.ndarray) -> np.ndarray:
        return np.repeat(values[:, None], length, axis=1)

    return PathSolution(
        coefficients=along(estimates),
        deviance=along(free.deviance * numbers),
        log_likelihood=along(free.log_likelihood * numbers),
        chi_square=along(0.0 * numbers),
        df=along(free.rank * numbers),
        status=along(free.status),
        n_iterations=along(np.zeros(len(free.status), np.int64)),
    )


def _separates_all(task: Task, free: Solution) -> np.ndarray:
    """Which fits have free columns whose direction of separation moves every row, (g,)."""
    separated = np.flatnonzero(free.status == Status.SEPARATED)
    rows = gather(task.source, separated)
    owner = owners(rows)
    stays = (rows.weights > 0) & (infinite_eta(rows.X, free.direction[separated][owner]) == 0)
    out = np.zeros(len(free.status), bool)
    out[separated] = np.bincount(owner, stays, len(separated)) == 0
    return out


def told(along: PathSolution, free: Solution, known: float | None) -> PathSolution:
    """What may be told of paths: of fits that are lost nothing. known: the dispersion, by which log-likelihoods then follow
    from deviances, or None."""
    lost = is_lost(along.status)

    def there(values: np.ndarray) -> np.ndarray:
        return np.where(lost.reshape(*lost.shape, *(1,) * (values.ndim - 2)), np.nan, values)

    numbers = ("coefficients", "deviance", "log_likelihood", "chi_square", "df")
    along = replace(along, **{name: there(getattr(along, name)) for name in numbers})
    if known is None:
        return along
    fall = 0.5 * (free.deviance[:, None] - along.deviance) / known
    return replace(along, log_likelihood=free.log_likelihood[:, None] + fall)


def put_unpenalized(along: PathSolution, net: Net, groups: np.ndarray, found: Solution) -> None:
    """Put unpenalized fits of some groups where the strength is zero."""
    here = net.strengths[groups] == 0
    ends = PathSolution(
        coefficients=found.coefficients,
        deviance=found.deviance,
        log_likelihood=found.log_likelihood,
        chi_square=found.dispersion * (found.n_obs - found.rank),
        df=found.rank.astype(float),
        status=found.status,
        n_iterations=found.n_iterations,
    )
    for out, end in zip(jax.tree.leaves(along), jax.tree.leaves(ends), strict=True):
        out[groups] = np.where(here.reshape(*here.shape, *(1,) * (out.ndim - 2)), end[:, None], out[groups])


def path_of_call(task: Task, net: Net, start: np.ndarray, call: Call) -> PathSolution:
    """The paths of a call's members, from the coefficients of their free columns, (g, p)."""
    lanes = PathLanes(_family(task, call), per_lane(net.strengths, call, 1), per_lane(start, call, 1))
    packed = tiles(task.source, call, np.float64, scaled=True)
    return _members(path_tiles(task.options, packed, _shrinkage(net), lanes), call)


def largest_of_call(task: Task, net: Net, start: np.ndarray, call: Call) -> np.ndarray:
    """The strengths at which the paths of a call's members begin."""
    lanes = Lanes(_family(task, call), None, per_lane(start, call, 1))
    return _members(largest_strengths(tiles(task.source, call, np.float64, scaled=True), _shrinkage(net), lanes), call)


def losses_of_call(task: Task, coefficients: np.ndarray, call: Call) -> np.ndarray:
    """The deviances (m, L) of the rows of a call's members at coefficients (g, L, p)."""
    lanes = LossLanes(_family(task, call), per_lane(coefficients, call, 2))
    return _members(losses_of_tiles(tiles(task.source, call, np.float64, scaled=True), lanes), call)


def _family(task: Task, call: Call) -> Any:
    return jax.tree.map(lambda leaf: per_lane(np.asarray(leaf, np.float64), call, 0), task.family)


def _shrinkage(net: Net) -> Shrinkage:
    return Shrinkage(np.float64(net.mixing), net.factors, net.intercept, np.bool_(net.standardize))


def _members(found: Any, call: Call) -> Any:
    used = call.groups[: call.n_blocks] != EMPTY
    return jax.tree.map(lambda leaf: np.asarray(leaf)[: call.n_blocks][used], found)
