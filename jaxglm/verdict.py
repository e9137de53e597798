"""One line on every group: what a careful person would want to know before using its numbers.

- `separated: 2 terms infinite`, `no data` and so on: the status is not CONVERGED;
- `aliased: 1 term`: a column depends on those before it and has no estimate;
- `on the boundary`: the optimum is on the boundary of the valid means, where estimates have no errors;
- `saturated`: no residual degrees of freedom, so that the fit says nothing about its own error;
- `perfect fit`: there are degrees of freedom, but the deviance is below 1e-20 of the null deviance, or a t statistic above
  1e14, and errors are made of rounding (R's `summary.lm` warns of an "essentially perfect fit" at a similar bound);
- `overdispersed (2.4)`: the dispersion is known to be 1 and the data deny it, with a ratio of at least 1.5, which makes true
  errors larger than those given by a quarter, and a p-value below 0.001;
- `zero-inflated (30 zeros, 12.1 expected)`: more zeros than expected, with a p-value below 0.001
  (`zero_inflation`, the excess);
- `12 rows influential`: Cook's distance beyond the median of F(rank, df). Leaving out such a row takes the estimates to the
  edge of their own 50% region (Cook and Weisberg 1982; R's `influence.measures`). Where the dispersion is known to be 1 and
  Pearson's ratio is larger, that is the region which the ratio makes of it: else all rows of an overdispersed fit are many.

Several are joined by semicolons, and none is `ok`.

`glance` takes no look at the rows, so that it costs nothing. There overdispersion is judged by the deviance over its degrees
of freedom, which is small, not large, where counts are rare: it raises no false alarm there, and says little. The last two
need the rows. `diagnostics` looks at these, judges overdispersion by the score test, or where a family has none by
Pearson's statistic, and gives Pearson's ratio. A bound of 0.001 for each of very many groups still means false alarms, one
in a thousand.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxglm.irls.solution import Solution, is_lost
from jaxglm.overdispersion import pearson_p_values
from jaxglm.status import Method, Status

RATIO = 1.5
CHANCE = 1e-3  # of a false alarm
PERFECT = 1e-20  # of the null deviance
SHARPEST = 1e14  # a t statistic that is nothing but rounding
OK = "ok"


@dataclass(frozen=True)
class Findings:
    """What was found about each group, arrays (g,); zero or False means nothing. overdispersed: the ratio; zeros,
    expected: both zero unless there are too many."""

    status: np.ndarray
    infinite: np.ndarray
    aliased: np.ndarray
    saturated: np.ndarray
    perfect: np.ndarray
    overdispersed: np.ndarray
    zeros: np.ndarray
    expected: np.ndarray
    influential: np.ndarray
    bounded: np.ndarray


def from_solution(solution: Solution, dispersion: float | None) -> Findings:
    """What the fits know without their rows. dispersion: where it is known."""
    there = ~np.asarray(is_lost(solution.status))
    degrees = solution.n_obs - solution.rank
    nothing = np.zeros(len(there))
    overdispersed = nothing
    if dispersion is not None:
        scaled = solution.deviance / dispersion
        overdispersed = judged(scaled, degrees, pearson_p_values(scaled, degrees))
    return Findings(
        status=solution.status,
        infinite=np.count_nonzero(solution.infinite, axis=1),
        aliased=np.where(there, solution.aliased.sum(axis=1), 0),
        saturated=there & (degrees == 0),
        perfect=there & (degrees > 0) & _is_perfect(solution, dispersion),
        overdispersed=overdispersed,
        zeros=nothing,
        expected=nothing,
        influential=nothing,
        bounded=solution.method == Method.BOUNDARY,
    )


def judged(statistic: np.ndarray, degrees: np.ndarray, p_values: np.ndarray) -> np.ndarray:
    """The ratio of a statistic to its degrees of freedom where that says overdispersed, else 0."""
    ratio = np.where(degrees > 0, statistic / np.maximum(degrees, 1), 0.0)
    with np.errstate(invalid="ignore"):
        return np.where((ratio >= RATIO) & (p_values < CHANCE), ratio, 0.0)


def _is_perfect(solution: Solution, dispersion: float | None) -> np.ndarray:
    with np.errstate(invalid="ignore", divide="ignore"):
        tiny = (solution.deviance <= PERFECT * solution.null_deviance) & (solution.status == Status.CONVERGED)
        if dispersion is not None:
            return tiny & (solution.null_deviance > 0)
        errors = np.sqrt(np.diagonal(solution.covariance, axis1=1, axis2=2))
        sharp = np.abs(solution.coefficients) > SHARPEST * errors
    return tiny | (solution.dispersion == 0) | sharp.any(axis=1)


def lines(found: Findings) -> tuple[np.ndarray, list[str]]:
    """The verdicts as codes (g,) and their distinct texts; the first is ok."""
    table = np.column_stack([np.asarray(getattr(found, name), float) for name in Findings.__dataclass_fields__])
    table[:, 5], table[:, 7] = _short(table[:, 5]), _short(table[:, 7])
    codes, noted = np.zeros(len(table), np.int64), np.flatnonzero(table.any(axis=1))
    distinct, place = np.unique(table[noted], axis=0, return_inverse=True)
    texts = [_text(Findings(*row)) for row in distinct]
    labels = [OK, *dict.fromkeys(texts)]
    number = {label: code for code, label in enumerate(labels)}
    codes[noted] = np.array([number[text] for text in texts], np.int64)[place.reshape(-1)]
    return codes, labels


def _short(values: np.ndarray) -> np.ndarray:
    """Rounded to one decimal, or to three digits, so that few texts are distinct."""
    size = np.floor(np.log10(np.maximum(np.abs(values), 1.0)))
    step = 10.0 ** np.maximum(size - 2.0, -1.0)
    return np.round(values / step) * step


def _text(found: Any) -> str:
    """One verdict, from plain numbers."""
    status = Status(int(found.status))
    parts = [] if status is Status.CONVERGED else [status.label.replace("_", " ")]
    if found.infinite:
        parts[-1:] = [f"{' '.join(parts[-1:])}: {_counted(found.infinite, 'term')} infinite"]
    if found.aliased:
        parts.append(f"aliased: {_counted(found.aliased, 'term')}")
    if found.bounded:
        parts.append("on the boundary")
    if found.saturated:
        parts.append("saturated")
    if found.perfect:
        parts.append("perfect fit")
    if found.overdispersed:
        parts.append(f"overdispersed ({_number(found.overdispersed)})")
    if found.zeros:
        parts.append(f"zero-inflated ({_counted(found.zeros, 'zero')}, {_number(found.expected)} expected)")
    if found.influential:
        parts.append(f"{_counted(found.influential, 'row')} influential")
    return "; ".join(parts)


def _number(value: float) -> str:
    return f"{value:.1f}" if value < 1e6 else f"{value:.2e}"


def _counted(count: float, what: str) -> str:
    return f"{int(count)} {what}{'' if count == 1 else 's'}"
