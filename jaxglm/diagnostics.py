"""Checks of every group by its rows: dispersion, zeros, influence, and the verdict.

Groups are looked at in portions of a bounded number of rows, so that memory does not grow with the table. What is
computed, and why, is in `overdispersion`, `zero_inflation`, `influence` and `verdict`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Any

import jax
import numpy as np

from jaxglm import overdispersion, tables, verdict, zero_inflation
from jaxglm.distributions import Distribution, distribution_of
from jaxglm.groups import sort_rows
from jaxglm.influence import cooks_bound, influence
from jaxglm.irls.solution import is_lost
from jaxglm.leverage import roots, unscaled
from jaxglm.observations import Observations
from jaxglm.packing import Features
from jaxglm.quantile_residuals import fitted_rows

PORTION = 2**20  # rows looked at at a time


@dataclass(frozen=True)
class Checks:
    """Of every group, (g,). pearson: Pearson's statistic, pearson_ratio: over df_residual, pearson_p: the chance of a larger
    one, where the dispersion is known; overdispersion_z, _p: the score test; zeros, zeros_expected, zeros_z, zeros_p: of
    counts; max_hat, max_cooks_distance; n_influential: rows."""

    pearson: np.ndarray
    pearson_ratio: np.ndarray
    pearson_p: np.ndarray
    overdispersion_z: np.ndarray
    overdispersion_p: np.ndarray
    zeros: np.ndarray
    zeros_expected: np.ndarray
    zeros_z: np.ndarray
    zeros_p: np.ndarray
    max_hat: np.ndarray
    max_cooks_distance: np.ndarray
    n_influential: np.ndarray


def table(result: Any) -> Any:
    """See `Diagnosed.diagnostics`."""
    from jaxglm import frames

    found = checks(result)
    columns = tables._keys(result, 1)
    columns |= {name: np.atleast_1d(getattr(result, name)) for name in ("n_obs", "df_residual")}
    columns |= {field.name: getattr(found, field.name) for field in fields(found)}
    columns["verdict"] = frames.Encoded(*verdict.lines(findings(result, found)))
    return tables._build(result, columns)


def findings(result: Any, found: Checks) -> verdict.Findings:
    """What the fits know and what their rows say."""
    known = result.family.dispersion is not None
    base = verdict.from_solution(result.solution, result.family.dispersion)
    degrees = result.solution.n_obs - result.solution.rank
    chance = np.where(np.isnan(found.overdispersion_z), found.pearson_p, found.overdispersion_p)
    if overdispersion.score_of(result.family) is not None:
        chance = found.overdispersion_p
    with np.errstate(invalid="ignore"):
        many = (found.zeros_z > 0) & (found.zeros_p < verdict.CHANCE)
    return replace(
        base,
        overdispersed=verdict.judged(found.pearson, degrees, chance) if known else base.overdispersed,
        zeros=np.where(many, found.zeros, 0.0),
        expected=np.where(many, found.zeros_expected, 0.0),
        influential=found.n_influential,
    )


def checks(result: Any) -> Checks:
    """The checks of every group."""
    parts = [_checks(part) for part in portions(result, PORTION)]
    if len(parts) == 1:
        return parts[0]
    return Checks(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(Checks)))


def portions(result: Any, size: int) -> Iterator[Any]:
    """The result in parts of consecutive groups with about as many rows; rows that fill up a part belong to no group."""
    rows, g = result._rows(), len(result)
    if np.prod(rows.shape) <= size or g <= 1:
        yield result
        return
    if rows.codes is None:
        step = max(1, size // rows.shape[1])
        for begin in range(0, g, step):
            groups = slice(begin, min(begin + step, g))
            yield _part(result, groups, _crossed(rows, groups))
        return
    sort = sort_rows(rows.codes, g)
    ends = np.cumsum(sort.sizes)
    begin = 0
    while begin < g:
        end = max(begin + 1, int(np.searchsorted(ends, ends[begin] - sort.sizes[begin] + size, side="right")))
        index = sort.order[sort.starts[begin] : ends[end - 1]]
        room = max(size, 1 << max(len(index) - 1, 0).bit_length())
        codes = np.full(room, -1, np.int64)
        codes[: len(index)] = rows.codes[index] - begin
        yield _part(result, slice(begin, end), _stacked(rows, np.resize(index, room), codes, end - begin))
        begin = end


def _part(result: Any, groups: slice, observations: Observations) -> Any:
    return replace(
        result,
        solution=jax.tree.map(lambda leaf: leaf[groups], result.solution),
        family=result.family.of(groups),
        observations=observations,
        dropped=result.dropped[groups],
        table=None,
    )


def _crossed(rows: Observations, groups: slice) -> Observations:
    """The rows of some of fits with equally many."""

    def part(values: Any, axes: int) -> Any:
        return values if values is None or np.ndim(values) == axes else values[groups]

    own = None if rows.own is None else Features(rows.own.values[groups], rows.own.code, rows.own.drop)
    given = {name: part(getattr(rows, name), 1) for name in ("y", "weights", "offset")}
    return replace(rows, X=part(rows.X, 2), own=own, g=groups.stop - groups.start, **given)


def _stacked(rows: Observations, index: np.ndarray, codes: np.ndarray, g: int) -> Observations:
    """Some rows of one table."""

    def part(values: Any) -> Any:
        return None if values is None else np.broadcast_to(values, rows.shape)[index]

    given = {name: part(getattr(rows, name)) for name in ("y", "weights", "offset")}
    return replace(rows, X=rows.X[index], codes=codes, g=g, **given)


def _checks(result: Any) -> Checks:
    """The checks of groups whose rows are looked at together."""
    rows, solution, family = result._rows(), result.solution, result.family
    fitted, made, eta = fitted_rows(result), result._quantities(), result._eta()
    measured = influence(result, made)
    with np.errstate(invalid="ignore"):
        present = (fitted.weights > 0) & np.isfinite(fitted.y) & ~np.isnan(eta)
    lost = np.asarray(is_lost(solution.status))
    degrees = solution.n_obs - solution.rank

    def total(values: np.ndarray, which: np.ndarray = present) -> np.ndarray:
        return np.where(lost, np.nan, by_group(rows, np.where(which, values, 0.0)))

    chi_square = total(made.pearson**2)
    z = np.full(len(solution.status), np.nan)
    score = overdispersion.score_of(family)
    if score is not None:
        inside = present & np.isfinite(eta) & np.isfinite(measured.hat)
        with np.errstate(divide="ignore", invalid="ignore"):
            each = score(fitted, measured.hat)
        z = overdispersion.statistic(total(each.numerator, inside), total(each.variance, inside))
    zeros, expected, zeros_z = _zeros(result, fitted, eta, present, total)
    ratio = np.where(degrees > 0, chi_square / np.maximum(degrees, 1), np.nan)
    bound = cooks_bound(solution.rank, degrees)
    if family.dispersion is not None:
        bound = bound * np.fmax(ratio, 1.0)
    with np.errstate(invalid="ignore"):
        influential = present & (measured.cooks_distance > of_rows(rows, bound))
    known = family.dispersion is not None
    return Checks(
        pearson=chi_square,
        pearson_ratio=ratio,
        pearson_p=overdispersion.pearson_p_values(chi_square, degrees) if known else np.full(len(z), np.nan),
        overdispersion_z=z,
        overdispersion_p=overdispersion.upper_p_values(z),
        zeros=zeros,
        zeros_expected=expected,
        zeros_z=zeros_z,
        zeros_p=zero_inflation.p_values(zeros_z),
        max_hat=largest(rows, np.where(present, measured.hat, np.nan)),
        max_cooks_distance=largest(rows, np.where(present, measured.cooks_distance, np.nan)),
        n_influential=by_group(rows, influential.astype(float)).astype(np.int64),
    )


def _zeros(result: Any, fitted: Any, eta: np.ndarray, present: np.ndarray, total: Any) -> tuple[np.ndarray, ...]:
    """Zeros observed and expected, and the statistic of the score test; NaN for what is no count."""
    distribution: Distribution | None = distribution_of(result.family)
    if distribution is None or not distribution.counts:
        nothing = np.full(len(result), np.nan)
        return nothing, nothing, nothing
    rows = result._rows()
    with np.errstate(divide="ignore", invalid="ignore"):
        log_p = distribution.log_tails(replace(fitted, y=np.zeros_like(eta))).upto
        numerator, variance = zero_inflation.probability_terms(fitted.y, log_p, fitted.weights)
        at_zero = fitted.weights * zero_inflation.scores_of_zero(rows.family(result.family), eta)
    crossed = column_sums(rows, np.where(present, at_zero, 0.0))
    taken = np.sum(np.einsum("gpq,gp->gq", roots(unscaled(result)), crossed) ** 2, axis=1)
    observed = total(fitted.weights * (fitted.y == 0))
    expected = total(fitted.weights * np.exp(log_p))
    return observed, expected, zero_inflation.statistic(total(numerator), total(variance), taken)


def of_rows(rows: Observations, values: np.ndarray) -> np.ndarray:
    """What each row's group has, (g,) to the rows' shape; of rows without a group any."""
    return values[:, None] if rows.codes is None else values[np.maximum(rows.codes, 0)]


def by_group(rows: Observations, values: np.ndarray) -> np.ndarray:
    """Sums over the rows of each group, (g,)."""
    if rows.codes is None:
        return values.sum(axis=1)
    inside = rows.codes >= 0
    return np.bincount(rows.codes[inside], values[inside], rows.g)


def largest(rows: Observations, values: np.ndarray) -> np.ndarray:
    """The largest value of each group, (g,), NaN where all are NaN."""
    out = np.full(rows.g, -np.inf)
    known = ~np.isnan(values)
    if rows.codes is None:
        out = np.max(np.where(known, values, -np.inf), axis=1, initial=-np.inf)
    else:
        known &= rows.codes >= 0
        np.maximum.at(out, rows.codes[known], values[known])
    return np.where(np.isinf(out), np.nan, out)


def column_sums(rows: Observations, values: np.ndarray) -> np.ndarray:
    """X' values of each group, (g, p)."""
    X = np.where(np.isfinite(rows.X), rows.X, 0.0)  # of rows that are not there
    if rows.codes is not None:
        inside = rows.codes >= 0
        codes, X, values = rows.codes[inside], X[inside], values[inside]
        return np.column_stack([np.bincount(codes, X[:, j] * values, rows.g) for j in range(X.shape[1])])
    sums = values @ X if X.ndim == 2 else np.einsum("gn,gnp->gp", values, X)
    if rows.own is None:
        return sums
    own = rows.own.numbers(slice(None))
    return np.column_stack([sums, np.sum(values * np.where(np.isfinite(own), own, 0.0), axis=1)])
