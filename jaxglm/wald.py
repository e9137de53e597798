"""Wald inference: errors, statistics, p-values and intervals from estimates and their covariance.

Where the dispersion is estimated, statistics follow t with the residual degrees of freedom; where it is known, the normal
distribution, as R's `summary.glm`. p-values come with their decimal logarithms, since the strongest effects of a large
table are smaller than the smallest float. Everything is NumPy and SciPy on arrays of any leading shape.
"""

from __future__ import annotations

import numpy as np
from scipy import special

from jaxglm.tails import TINY, log_beta_tail
from jaxglm.threads import in_pieces


def standard_errors(covariance: np.ndarray) -> np.ndarray:
    """Square roots of the diagonal, (..., p) for (..., p, p)."""
    with np.errstate(invalid="ignore"):
        return np.sqrt(np.diagonal(covariance, axis1=-2, axis2=-1))


def p_values(statistics: np.ndarray, degrees: np.ndarray | None) -> np.ndarray:
    """Two-sided p-values of t statistics with `degrees` of freedom, or of z statistics if these are None."""
    size = -np.abs(statistics)
    if degrees is None:
        return 2.0 * in_pieces(special.ndtr, size)
    degrees = np.where(np.asarray(degrees) > 0, degrees, np.nan)
    return 2.0 * in_pieces(special.stdtr, degrees, size)


def log10_p_values(statistics: np.ndarray, degrees: np.ndarray | None, p: np.ndarray | None = None) -> np.ndarray:
    """Decimal logarithms of `p_values`, which stay finite where these are zero. p: these, where they are at hand."""
    size = np.abs(statistics)
    p = p_values(size, degrees) if p is None else p
    with np.errstate(divide="ignore"):
        out = np.log10(p)
    tail = (p < TINY) & np.isfinite(size)
    if not np.any(tail):
        return out
    out = np.array(out)
    if degrees is None:
        out[tail] = (np.log(2.0) + special.log_ndtr(-size[tail])) / np.log(10.0)
        return out
    degrees = np.broadcast_to(np.where(np.asarray(degrees) > 0, degrees, np.nan), np.shape(size))
    x = degrees[tail] / (degrees[tail] + size[tail] ** 2)
    out[tail] = log_beta_tail(degrees[tail] / 2.0, 0.5, x) / np.log(10.0)
    return out


def quantile(level: float, degrees: np.ndarray | None) -> np.ndarray:
    """Half the width of a two-sided interval, in standard errors. Raises ValueError for a level outside (0, 1)."""
    if not 0.0 < level < 1.0:
        raise ValueError(f"level must be between 0 and 1, such as 0.95, not {level!r}")
    if degrees is None:
        return np.asarray(special.ndtri(0.5 + level / 2.0))
    return special.stdtrit(np.where(np.asarray(degrees) > 0, degrees, np.nan), 0.5 + level / 2.0)
