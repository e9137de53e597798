"""Contrasts of coefficients, and joint Wald tests of linear hypotheses, from a result's estimates and their covariance.

The estimate of L b has covariance L C L', whatever C is, and the hypothesis L b = v is tested by the statistic
(L b - v)' (L C L')^-1 (L b - v), which is chi-square; where the dispersion is estimated, divided by its degrees of freedom it
is F. Both need the fit alone. A combination in which an aliased or an infinite coefficient takes part has no number. Sources:
R's `car::linearHypothesis` (whose default is the chi-square in every family), `multcomp::glht`; Rao (1973), section 4b.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from jaxglm.conclusions import Comparisons, Estimates, estimates
from jaxglm.hypotheses import hypotheses
from jaxglm.tails import upper_tail
from jaxglm.threads import for_pieces

FORMS = ("f", "chi-square")
PIECE = 2**11  # fits worked on at a time
SINGULAR = 1e-13  # of a component's variance, what is left after those before it, when nothing is


def contrast(result: Any, given: Any, values: Any, level: float) -> Estimates:
    """See `GLMResults.contrast`."""
    asked = hypotheses(given, values, result.names)
    estimate, covariance = combined(result.solution.coefficients, result.solution.covariance, asked.matrix)
    variance = np.diagonal(covariance, axis1=1, axis2=2)
    return estimates(result, asked.names, np.where(np.isnan(variance), np.nan, estimate), variance, level, asked.values)


def test(result: Any, given: Any, values: Any, form: str | None) -> Comparisons:
    """See `GLMResults.test`."""
    by_f = require_form(result, form)
    asked = hypotheses(given, values, result.names)
    rows = asked.independent()
    estimate, covariance = combined(result.solution.coefficients, result.solution.covariance, rows.matrix)
    statistic = quadratic_form(covariance, estimate - rows.values)
    k = len(rows.values)
    df_error = result._degrees()[:, 0].astype(float) if by_f else np.full(len(result), np.nan)
    statistic = statistic / k if by_f else statistic
    tail = upper_tail(statistic, np.asarray(k), df_error if by_f else None)
    shape = result._squeezed
    return Comparisons(
        fits=result,
        kind="wald",
        names=(", ".join(asked.names),),
        statistic=shape(statistic),
        df=shape(np.full(len(result), k)),
        df_error=shape(df_error),
        p_value=shape(tail.p_value),
        log10_p=shape(tail.log10_p),
        status=shape(result.solution.status),
    )


def require_form(result: Any, form: str | None) -> bool:
    """Whether a Wald statistic is an F statistic: where t statistics are not z, unless said otherwise. Raises ValueError for
    another form, and for F where there are no degrees of freedom of an estimated dispersion."""
    estimated = result._degrees() is not None
    if form is None:
        return estimated
    if form not in FORMS:
        raise ValueError(f'form must be "f" or "chi-square", not {form!r}')
    if form == "f" and not estimated:
        if result.family.dispersion is None:
            reason = (
                f"degrees of freedom, and those of a {result.covariance_type} covariance are none: give robust() degrees=, or"
            )
        else:
            reason = f"an estimated dispersion, and the {result.family.name} family's is known: fit a quasi family, or"
        raise ValueError(f'an F test needs {reason} use form="chi-square"')
    return form == "f"


def combined(coefficients: np.ndarray, covariance: np.ndarray, matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """L b (g, k) and L C L' (g, k, k) for L (k, p), or (g, k, p). What L multiplies by zero does not count, so that what is
    not known makes NaN only of the combinations that it takes part in."""
    L = np.broadcast_to(matrix, (len(coefficients), *matrix.shape[-2:]))
    C, unknown, lost = _known(covariance, L)
    estimate = np.where(lost, np.nan, np.einsum("gkp,gp->gk", L, np.where(unknown, 0.0, coefficients)))
    spread = np.matmul(np.matmul(L, C), np.swapaxes(L, 1, 2))
    return estimate, np.where(lost[:, :, None] | lost[:, None, :], np.nan, spread)


def variances(covariance: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """The diagonals of L C L', (g, k), for L (g, k, p), as `combined` has them."""
    C, _, lost = _known(covariance, matrix)
    out = np.empty(matrix.shape[:2])

    def put(part: slice) -> None:
        np.sum(np.matmul(matrix[part], C[part]) * matrix[part], axis=2, out=out[part])

    for_pieces(put, len(out), PIECE)
    out[lost] = np.nan
    return out


def _known(covariance: np.ndarray, L: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The covariances (g, p, p) with zeros for what is not known; which terms that are, (g, p); and which combinations they
    take part in, (g, k)."""
    unknown = np.isnan(np.diagonal(covariance, axis1=1, axis2=2))
    if not unknown.any():
        return covariance, unknown, np.zeros(L.shape[:2], bool)
    C = np.where(unknown[:, :, None] | unknown[:, None, :], 0.0, covariance)
    return C, unknown, np.any((L != 0) & unknown[:, None, :], axis=2)


def quadratic_form(matrix: np.ndarray, vector: np.ndarray, left_out: np.ndarray | None = None) -> np.ndarray:
    """v' M^-1 v of every fit, (g,), for symmetric M (g, k, k) and v (g, k), by elimination; left_out: (g, k), components that
    do not count. NaN where something that counts is not known, or M is singular."""
    gone = np.zeros(vector.shape, bool) if left_out is None else left_out
    M = np.where(gone[:, :, None] | gone[:, None, :], np.eye(vector.shape[1]), matrix)
    size = np.diagonal(M, axis1=1, axis2=2)
    scale = 1.0 / np.sqrt(np.where(size > 0, size, np.nan))
    M, v, total = M * scale[:, :, None] * scale[:, None, :], np.where(gone, 0.0, vector) * scale, np.zeros(len(vector))
    for j in range(vector.shape[1]):
        pivot = np.where(M[:, j, j] > SINGULAR, M[:, j, j], np.nan)
        total += v[:, j] ** 2 / pivot
        share = M[:, j + 1 :, j] / pivot[:, None]
        v[:, j + 1 :] -= share * v[:, j, None]
        M[:, j + 1 :, j + 1 :] -= share[:, :, None] * M[:, None, j, j + 1 :]
    return total
