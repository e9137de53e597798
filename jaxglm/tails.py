"""Upper tails of the chi-square and F distributions, with their decimal logarithms.

The strongest effects of a large table have p-values below the smallest float, so every tail comes with its logarithm. Where
a tail underflows, its logarithm is that of the series or fraction that is left when the leading power is taken out. Sources:
DLMF 8.9.2 (continued fraction of the incomplete gamma function), 8.17.8 (incomplete beta function by 2F1).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import special

from jaxglm.threads import in_pieces

TINY = 1e-280  # below this a tail is computed by its logarithm
TERMS = 500  # of a continued fraction at most


@dataclass(frozen=True)
class Tail:
    """Arrays of one shape: a probability, and its decimal logarithm, which does not underflow."""

    p_value: np.ndarray
    log10_p: np.ndarray


def upper_tail(statistics: np.ndarray, df: np.ndarray, df_error: np.ndarray | None = None) -> Tail:
    """Of chi-square statistics with `df` degrees of freedom, or, with `df_error`, of F statistics with both. NaN without a
    degree of freedom. Shapes broadcast.

    >>> import numpy as np
    >>> from jaxglm.tails import upper_tail
    >>> found = upper_tail(np.array([3.841459, 5000.0]), np.array(1))
    >>> found.p_value.round(6).tolist(), found.log10_p.round(3).tolist()
    ([0.05, 0.0], [-1.301, -1087.684])
    """
    given = (statistics, df) if df_error is None else (statistics, df, df_error)
    x, df, *more = np.broadcast_arrays(*(np.asarray(value, np.float64) for value in given))
    valid = (df > 0) & (x >= 0)
    if more:
        valid &= more[0] > 0
    x, df = np.where(valid, x, 1.0), np.where(valid, df, 1.0)
    if more:
        error = np.where(valid, more[0], 1.0)
        share = np.where(np.isinf(x), 0.0, error / (error + df * np.where(np.isinf(x), 0.0, x)))
        p = in_pieces(special.betainc, error / 2.0, df / 2.0, share)
    elif (df == 1.0).all():
        p = in_pieces(special.erfc, np.sqrt(x / 2.0))  # the same, faster
    else:
        p = in_pieces(special.gammaincc, df / 2.0, x / 2.0)
    with np.errstate(divide="ignore"):
        log10_p = np.array(np.log10(p))
    deep = (p < TINY) & np.isfinite(x)
    if deep.any():
        if more:
            log_p = log_beta_tail(error[deep] / 2.0, df[deep] / 2.0, share[deep])
        else:
            log_p = _log_gamma_tail(df[deep] / 2.0, x[deep] / 2.0)
        log10_p[deep] = log_p / np.log(10.0)
    return Tail(np.where(valid, p, np.nan), np.where(valid, log10_p, np.nan))


def log_beta_tail(a: np.ndarray, b: np.ndarray | float, x: np.ndarray) -> np.ndarray:
    """log I_x(a, b), the regularized incomplete beta function, where it is tiny."""
    series = special.hyp2f1(a + b, 1.0, a + 1.0, x)
    return a * np.log(x) + b * np.log1p(-x) - np.log(a) - special.betaln(a, b) + np.log(series)


def _log_gamma_tail(a: np.ndarray, x: np.ndarray) -> np.ndarray:
    """log Q(a, x), the regularized upper incomplete gamma function, where it is tiny, so that x is far beyond a. The
    fraction is evaluated by Lentz's method."""
    b = x + 1.0 - a
    c, d = np.full_like(x, 1e300), 1.0 / b
    fraction = d
    for i in range(1, TERMS):
        term = -i * (i - a)
        b = b + 2.0
        d = 1.0 / (b + term * d)
        c = b + term / c
        fraction = fraction * c * d
        if np.all(np.abs(c * d - 1.0) < 1e-15):
            break
    return a * np.log(x) - x - special.gammaln(a) + np.log(fraction)
