"""Checks of every group by its rows: dispersion, zeros, influence, and the verdict.

Groups are looked at in portions of a bounded number of rows, so that memory does not grow with the table. What is
computed, and why, is in `overdispersion`, `zero_inflation`, `influence` and `verdict`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from jaxglm import distributions, overdispersion, tables, verdict, zero_inflation
from jaxglm.distributions import distribution_of
from jaxglm.influence import Influence, cooks_bound, influence
from jaxglm.irls.solution import is_lost
from jaxglm.leverage import known
from jaxglm.portions import by_group, column_sums, largest, of_rows, portions, repeats
from jaxglm.quantile_residuals import fitted_rows

PORTION = 2**20  # rows looked at at a time


@dataclass(frozen=True)
class Checks:
    """Of every group, (g,).

    pearson: Pearson's statistic; pearson_ratio: over df_residual, and over the dispersion where that is known; pearson_p: the
    chance of a larger one, where it is; overdispersion_z, _p: the score test; zeros, zeros_expected, zeros_z, zeros_p: of
    counts, observed against expected; zeros_score_z, _p: van den Broek's score test; max_hat, max_cooks_distance;
    n_influential: rows.
    """

    pearson: np.ndarray
    pearson_ratio: np.ndarray
    pearson_p: np.ndarray
    overdispersion_z: np.ndarray
    overdispersion_p: np.ndarray
    zeros: np.ndarray
    zeros_expected: np.ndarray
    zeros_z: np.ndarray
    zeros_p: np.ndarray
    zeros_score_z: np.ndarray
    zeros_score_p: np.ndarray
    max_hat: np.ndarray
    max_cooks_distance: np.ndarray
    n_influential: np.ndarray


def table(result: Any) -> Any:
    """See `Diagnosed.diagnostics`."""
    from jaxglm import frames

    found = checks(result)
    columns = tables.keys(result, 1)
    columns |= {name: np.atleast_1d(getattr(result, name)) for name in ("n_obs", "df_residual")}
    columns |= {field.name: getattr(found, field.name) for field in fields(found)}
    columns["verdict"] = frames.Encoded(*verdict.lines(findings(result, found)))
    return tables.build(result, columns)


def findings(result: Any, found: Checks) -> verdict.Findings:
    """What the fits know and what their rows say."""
    phi = result.family.dispersion
    base = verdict.from_solution(result.solution, result.family.dispersion)
    degrees = result.solution.n_obs - result.solution.rank
    chance = np.where(np.isnan(found.overdispersion_z), found.pearson_p, found.overdispersion_p)
    if overdispersion.score_of(result.family) is not None:
        chance = found.overdispersion_p
    with np.errstate(invalid="ignore"):
        many = (found.zeros_z > 0) & (found.zeros_p < verdict.CHANCE)
    return replace(
        base,
        overdispersed=verdict.judged(found.pearson / phi, degrees, chance) if phi is not None else base.overdispersed,
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


@dataclass(frozen=True)
class Rows:
    """What is known of the rows of groups that are looked at together, in their own shape."""

    result: Any
    fitted: distributions.Rows
    eta: np.ndarray
    pearson: np.ndarray
    measured: Influence
    present: np.ndarray

    def total(self, values: np.ndarray, which: np.ndarray | None = None) -> np.ndarray:
        """Sums over the rows of each group that are there, or over some of them; NaN where a fit has no estimates."""
        inside = self.present if which is None else which
        rows = self.result._rows()
        sums = by_group(rows, np.where(inside, values * repeats(rows), 0.0))
        return np.where(is_lost(self.result.solution.status), np.nan, sums)


def _checks(result: Any) -> Checks:
    """The checks of groups whose rows are looked at together."""
    made, eta = result._quantities(), result._eta()
    fitted = fitted_rows(result, eta)
    with np.errstate(invalid="ignore"):
        present = (fitted.weights > 0) & np.isfinite(fitted.y) & ~np.isnan(eta)
    rows = Rows(result, fitted, eta, made.pearson, influence(result, made), present)
    chi_square, degrees = rows.total(made.pearson**2), result.solution.n_obs - result.solution.rank
    scaled = chi_square / (result.family.dispersion or 1.0)
    ratio = np.where(degrees > 0, scaled / np.maximum(degrees, 1), np.nan)
    z, zeros, observations = _overdispersion(rows), _zeros(rows), result._rows()
    distribution = distribution_of(result.family)
    silent = np.isnan(z) if distribution is not None and distribution.trials else np.zeros(len(z), bool)
    chance = overdispersion.pearson_p_values(scaled, degrees)
    return Checks(
        pearson=chi_square,
        pearson_ratio=ratio,
        pearson_p=np.where(silent | (result.family.dispersion is None), np.nan, chance),
        overdispersion_z=z,
        overdispersion_p=overdispersion.upper_p_values(z),
        zeros=zeros.observed,
        zeros_expected=zeros.expected,
        zeros_z=zeros.excess,
        zeros_p=zero_inflation.p_values(zeros.excess),
        zeros_score_z=zeros.score,
        zeros_score_p=zero_inflation.p_values(zeros.score),
        max_hat=largest(observations, np.where(present, rows.measured.hat, np.nan)),
        max_cooks_distance=largest(observations, np.where(present, rows.measured.cooks_distance, np.nan)),
        n_influential=_influential(rows, ratio),
    )


def _influential(rows: Rows, ratio: np.ndarray) -> np.ndarray:
    """How many rows of each group are influential. ratio: Pearson's."""
    solution, observations = rows.result.solution, rows.result._rows()
    bound = cooks_bound(solution.rank, solution.n_obs - solution.rank)
    if rows.result.family.dispersion is not None:
        bound = bound * np.fmax(ratio, 1.0)
    with np.errstate(invalid="ignore"):
        found = rows.present & (rows.measured.cooks_distance > of_rows(observations, bound))
    return by_group(observations, found * repeats(observations)).astype(np.int64)


def _overdispersion(rows: Rows) -> np.ndarray:
    """The statistic of the score test; NaN where there is none."""
    score = overdispersion.score_of(rows.result.family)
    if score is None:
        return np.full(len(rows.result), np.nan)
    inside = rows.present & np.isfinite(rows.eta) & np.isfinite(rows.measured.hat)
    with np.errstate(divide="ignore", invalid="ignore"):
        each = score(rows.fitted, rows.measured.hat)
    return overdispersion.statistic(rows.total(each.numerator, inside), rows.total(each.variance, inside))


@dataclass(frozen=True)
class Zeros:
    """Zeros observed and expected, and the statistics of both tests, (g,)."""

    observed: np.ndarray
    expected: np.ndarray
    excess: np.ndarray
    score: np.ndarray


def _zeros(rows: Rows) -> Zeros:
    """The zeros of counts; NaN for what is no count."""
    result, fitted = rows.result, rows.fitted
    distribution = distribution_of(result.family)
    if distribution is None or distribution.log_zero is None:
        nothing = np.full(len(result), np.nan)
        return Zeros(nothing, nothing, nothing, nothing)
    observations, root = result._rows(), known(result).root
    zero = fitted.y == 0
    with np.errstate(divide="ignore", invalid="ignore"):
        log_p = distribution.log_zero(fitted)
    at_zero = zero_inflation.scores_of_zero(observations.family(result.family), rows.eta)

    pulled = fitted.weights * repeats(observations)

    def statistic(make: Callable[..., zero_inflation.Terms]) -> np.ndarray:
        with np.errstate(invalid="ignore", over="ignore"):
            terms = make(zero, log_p, at_zero, fitted.weights)
            crossed = column_sums(observations, np.where(rows.present, pulled * terms.pull, 0.0))
        taken = np.sum(np.einsum("gpq,gp->gq", root, crossed) ** 2, axis=1)
        return zero_inflation.statistic(rows.total(terms.numerator), rows.total(terms.variance), taken)

    with np.errstate(invalid="ignore"):
        observed, expected = rows.total(fitted.weights * zero), rows.total(fitted.weights * np.exp(log_p))
    return Zeros(observed, expected, statistic(zero_inflation.excess_terms), statistic(zero_inflation.score_terms))
