"""Logarithms of the incomplete gamma and beta functions, down to tails far below the smallest float.

Where SciPy's value does not underflow its logarithm is taken. Beyond that the function is its leading term times a series
whose terms fall from the start, as they do in a tail: DLMF 8.7.1 and 8.11.4 for the gamma functions, 8.17.8 for the beta
function. Everything is NumPy on arrays that broadcast.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import special

TINY = 1e-280  # below this a tail is computed by its logarithm
TERMS = 20_000


def log_gamma_lower(a: np.ndarray, x: np.ndarray) -> np.ndarray:
    """log P(a, x), the probability that a gamma variable of shape a is at most x; 0 where a is 0."""

    def far(a: np.ndarray, x: np.ndarray) -> np.ndarray:
        return a * np.log(x) - x - special.gammaln(a + 1.0) + np.log(_series(lambda k: x / (a + 1.0 + k), len(a)))

    return _logarithm(special.gammainc(a, x), far, a, x)


def log_gamma_upper(a: np.ndarray, x: np.ndarray) -> np.ndarray:
    """log Q(a, x), the probability that a gamma variable of shape a is above x; -inf where a is 0."""

    def far(a: np.ndarray, x: np.ndarray) -> np.ndarray:
        return (a - 1.0) * np.log(x) - x - special.gammaln(a) + np.log(_series(lambda k: (a - 1.0 - k) / x, len(a)))

    return _logarithm(special.gammaincc(a, x), far, a, x)


def log_beta_lower(a: np.ndarray, b: np.ndarray, x: np.ndarray, rest: np.ndarray) -> np.ndarray:
    """log I_x(a, b), the probability that a beta variable is at most x; rest: 1 - x, which may be known better. a or b may
    be 0: then all of it lies at 0, or at 1."""

    def far(a: np.ndarray, b: np.ndarray, x: np.ndarray, rest: np.ndarray) -> np.ndarray:
        series = _series(lambda k: (a + b + k) / (a + 1.0 + k) * x, len(a))
        return a * np.log(x) + b * np.log(rest) - np.log(a) - special.betaln(a, b) + np.log(series)

    small = x <= rest
    with np.errstate(invalid="ignore"):
        body = np.where(small, special.betainc(a, b, np.minimum(x, 0.5)), special.betaincc(b, a, np.minimum(rest, 0.5)))
    body = np.where(a == 0, 1.0, np.where(b == 0, 0.0, body))
    return _logarithm(body, far, a, b, x, rest)


def _logarithm(body: np.ndarray, far: Callable[..., np.ndarray], *arguments: np.ndarray) -> np.ndarray:
    """log(body), by `far` where it underflows although no argument is at an end."""
    with np.errstate(divide="ignore", invalid="ignore"):
        out = np.log(body)
    tail = body < TINY
    for argument in arguments:
        tail = tail & (argument > 0) & np.isfinite(argument)
    if np.any(tail):
        out = np.array(out)
        with np.errstate(all="ignore"):
            out[tail] = far(*(np.broadcast_to(argument, out.shape)[tail] for argument in arguments))
    return out


def _series(ratio: Callable[[float], np.ndarray], n: int) -> np.ndarray:
    """1 + r_0 + r_0 r_1 + ..., as long as terms fall and count."""
    total, term = np.ones(n), np.ones(n)
    for k in range(TERMS):
        factor = ratio(float(k))
        term = np.where(np.abs(factor) < 1.0, term * factor, 0.0)
        total = total + term
        if not np.any(np.abs(term) > 1e-17 * np.abs(total)):
            break
    return total
