"""Weights with a meaning: what a row's weight says, and what follows for everything but the estimates.

| kind | a row of weight w | as in R |
|---|---|---|
| prior | has a variance that is w times smaller: the mean of w rows, or w trials | `glm(weights=)` |
| frequency | stands for w equal rows | `glm` of the rows repeated |
| sampling | stands for w rows that were not asked | `svyglm` on `svydesign(ids=~1, weights=~w)` |

The estimates are the same. With frequencies, numbers of rows, degrees of freedom, dispersion, likelihood and criteria are
those of the repeated rows, and what is said row by row is said of each of them; frequencies need not be whole, and then n is
their sum. With sampling weights, w over its mean in the fit weighs the rows; the covariance is the linearisation estimate,
sandwich "HC0" times n / (n - 1); statistics are t with n - rank degrees of freedom; the dispersion is the weighted variance
of the Pearson residuals at weight 1; and there is no likelihood. Each fit is its own population, as `svyglm` on the design
of its rows.

Sources: R's survey, `svyglm` and `svyvar`; Lumley, Complex Surveys (2010), chapter 5.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxglm import sandwich
from jaxglm.errors import did_you_mean, listed
from jaxglm.family import Family
from jaxglm.irls.problem import typed
from jaxglm.irls.solution import is_lost
from jaxglm.leverage import known
from jaxglm.observations import Observations
from jaxglm.portions import by_group

KINDS = ("prior", "frequency", "sampling")


@dataclass(frozen=True)
class Weights:
    """Weights of rows, and what they mean; accepted wherever `weights=` is.

    values: numbers in any shape that `weights=` takes, or at the table door the name of a column; kind: "prior", as plain
    weights are, "frequency" or "sampling". Raises ValueError for another kind.

    >>> import jaxglm
    >>> X, y, w = [[1.0, 0.0], [1.0, 1.0], [1.0, 2.0]], [1.0, 2.0, 2.5], [3, 1, 2]
    >>> jaxglm.fit(X, y, weights=jaxglm.Weights(w, "frequency")).df_residual
    4
    """

    values: Any
    kind: str = "prior"

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            hint = did_you_mean(self.kind, KINDS)
            raise ValueError(f"there are no weights of kind {self.kind!r}.{hint} Kinds: {listed(KINDS)}")
        if self.values is None or isinstance(self.values, Weights):
            raise TypeError("Weights need values: numbers, or the name of a column")


def split(weights: Any) -> tuple[Any, str]:
    """The values and the kind of what was given as `weights=`."""
    return (weights.values, weights.kind) if isinstance(weights, Weights) else (weights, "prior")


def prepared(observations: Observations, kind: str, values: np.ndarray | None) -> Observations:
    """Observations that know their frequencies, or whose sampling weights have mean 1 in every fit. values: the weights as
    they were given, without trials."""
    if kind == "frequency":
        return replace(observations, frequencies=values)
    if kind == "sampling":
        weights, own = observations.prior_weights(), observations.own
        given = np.broadcast_to(values, weights.shape)  # type: ignore[arg-type]
        there = _there(observations)
        mean = by_group(observations, np.where(there, given, 0.0)) / np.maximum(by_group(observations, there), 1.0)
        scale = observations.by_row(np.where((mean > 0) & np.isfinite(mean), mean, 1.0))
        own = None if own is None else replace(own, drop=False)  # weights say which rows are not there
        return replace(observations, weights=weights / scale, own=own)
    return observations


def concluded(result: Any, kind: str, values: np.ndarray | None) -> Any:
    """The result as the kind of its weights has it."""
    result = replace(result, weights_kind=kind)
    if kind == "frequency":
        return repeated(result)
    return _linearised(result, values) if kind == "sampling" else result


def _there(rows: Observations) -> np.ndarray:
    """Which rows are there, in their shape."""
    there = rows.prior_weights() != 0
    return there if rows.codes is None else there & (rows.codes >= 0)


def repeated(result: Any) -> Any:
    """What the repeated rows say, where each stands for as many as its frequency."""
    rows, solution, family = result.observations, result.solution, result.family
    counts = np.where(_there(rows), np.broadcast_to(rows.frequencies, rows.shape), 0.0)
    lost = is_lost(solution.status)
    n_obs = np.where(lost, solution.n_obs, by_group(rows, counts))
    n_obs = n_obs.astype(np.int64) if np.all(n_obs == np.round(n_obs)) else n_obs
    dispersion, covariance, degrees = solution.dispersion, solution.covariance, n_obs - solution.rank
    if family.dispersion is None:
        before = solution.n_obs - solution.rank
        chi_square = dispersion * before
        short = (before <= 0) & (degrees > 0) & ~lost
        if short.any():  # fewer rows than coefficients, but not when repeated
            squares = np.where(counts > 0, result._quantities().pearson, 0.0) ** 2
            chi_square = np.where(short, by_group(rows, counts * squares), chi_square)
        dispersion = np.where(degrees > 0, chi_square / np.maximum(degrees, 1e-300), np.nan)
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = np.where(solution.dispersion == 0, 1.0, dispersion / solution.dispersion)
        covariance = covariance * ratio[:, None, None]
        if short.any():
            root = known(result).root
            made = root @ np.swapaxes(root, 1, 2) * dispersion[:, None, None]
            made = sandwich.put(result, made, made, "model", None).solution.covariance
            covariance = np.where(short[:, None, None], made, covariance)
    solution = replace(solution, n_obs=n_obs, dispersion=dispersion, covariance=covariance)
    if family.log_likelihood is not None:
        solution = replace(solution, log_likelihood=np.where(lost, np.nan, _log_likelihood(result, counts)))
    return replace(result, solution=solution)


def _log_likelihood(result: Any, counts: np.ndarray) -> np.ndarray:
    """The log-likelihood of the repeated rows, (g,)."""
    rows, family = result.observations, result.family
    if family.dispersion is not None:
        scale = np.full(rows.g, family.dispersion)
    else:
        amount = counts if family.likelihood_rows == "rows" else np.where(counts > 0, rows.prior_weights(), 0.0)
        scale = result.solution.deviance / np.maximum(by_group(rows, amount), 1e-300)
    of_row = rows.family(family)
    arrays = (rows.rows(rows.y, 0.0), rows.unit_weights(), result._eta(), rows.by_row(scale))
    with jax.enable_x64(True):
        each = np.asarray(_log_likelihoods(typed(of_row, np.float64), *map(jnp.asarray, arrays)))
    return by_group(rows, counts * np.where(counts > 0, each, 0.0))


@jax.jit
def _log_likelihoods(family: Family, y: Array, weights: Array, eta: Array, dispersion: Array) -> Array:
    return family.log_likelihood_at(y, family.link.mean(eta), weights, dispersion)


def _linearised(result: Any, values: np.ndarray | None) -> Any:
    """Covariance, dispersion and degrees of freedom of a sample."""
    rows, solution = result.observations, result.solution
    n = solution.n_obs
    factor = np.where(n > 1, n / np.maximum(n - 1.0, 1.0), np.nan)
    found = sandwich.independent(result, "HC0")
    given = np.where(_there(rows), np.broadcast_to(values, rows.shape), 0.0)  # type: ignore[arg-type]
    total = np.maximum(by_group(rows, given), 1e-300)
    mean = rows.by_row(total / np.maximum(by_group(rows, given > 0), 1.0))
    residual = np.where(given > 0, result._quantities().pearson, 0.0) * np.sqrt(mean / np.where(given > 0, given, 1.0))
    center = residual - rows.by_row(by_group(rows, given * residual) / total)
    dispersion = factor * by_group(rows, given * center**2) / total
    lost = is_lost(solution.status)
    nothing = np.full(len(result), np.nan)
    result = replace(result, solution=replace(solution, dispersion=np.where(lost, np.nan, dispersion), log_likelihood=nothing))
    covariance = found.covariance * factor[:, None, None]
    return sandwich.put(result, covariance, found.unscaled, "linearized", (n - solution.rank).astype(float))
