"""What tests and estimates of combinations give back: arrays for all fits, and the same as a table.

`Estimates` are of something each (a contrast, an effect), `Comparisons` of a model with a smaller one. Both have a leading
axis of fits where the result that they are about has one, then an axis of names.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxglm import discovery, tables, wald
from jaxglm.status import Status


@dataclass(frozen=True, eq=False, repr=False)
class Estimates:
    """Estimates of k combinations, (k,) for one fit, (g, k) for many.

    fits: the result that they are from; names: k; contrast: k words for what is compared, or None; estimate, standard_error;
    statistic: of the null hypothesis, t where the dispersion is estimated, else z; p_value, log10_p: two-sided; low, high:
    the ends of the Wald intervals.
    """

    fits: Any
    names: tuple[str, ...]
    contrast: tuple[str, ...] | None
    estimate: np.ndarray
    standard_error: np.ndarray
    statistic: np.ndarray
    p_value: np.ndarray
    log10_p: np.ndarray
    low: np.ndarray
    high: np.ndarray

    def tidy(self, adjust: str | None = None) -> Any:
        """A table with a row for every fit and name, in the kind of table that the data came in. adjust: a method of
        `jaxglm.adjust`, which adds `q_value`, across fits for each name."""
        columns = _names(self.fits, "term", self.names)
        if self.contrast is not None:
            columns["contrast"] = _repeated(self.fits, self.contrast)
        columns |= {"estimate": self.estimate, "std_error": self.standard_error, "statistic": self.statistic}
        columns |= {"p_value": self.p_value, "log10_p": self.log10_p}
        columns |= _adjusted(self.p_value, len(self.names), adjust)
        columns |= {"conf_low": self.low, "conf_high": self.high}
        return _table(self.fits, columns, np.repeat(self.fits.solution.status, len(self.names)))

    def __repr__(self) -> str:
        return f"<Estimates: {_sizes(self.fits, self.names)}>"


@dataclass(frozen=True, eq=False, repr=False)
class Comparisons:
    """Tests of models against smaller ones, (k,) for one fit, (g, k) for many; a single hypothesis has no axis k.

    fits: the result that they are about; kind: "lr", "f", "score" or "wald"; names: of the tests; statistic: chi-square with
    `df` degrees of freedom, or, where `df_error` is not NaN, F with both; p_value, log10_p; deviance, aic: of the smaller
    models, None where none is fitted; status: of the smaller model, or where that converged, of the larger. A test that has
    nothing to test (`df` is 0) or no number is NaN.
    """

    fits: Any
    kind: str
    names: tuple[str, ...]
    statistic: np.ndarray
    df: np.ndarray
    df_error: np.ndarray
    p_value: np.ndarray
    log10_p: np.ndarray
    status: np.ndarray
    deviance: np.ndarray | None = None
    aic: np.ndarray | None = None

    def tidy(self, adjust: str | None = None) -> Any:
        """A table with a row for every fit and test, in the kind of table that the data came in. adjust: a method of
        `jaxglm.adjust`, which adds `q_value`, across fits for each test."""
        columns = _names(self.fits, "term", self.names)
        columns["df"] = self.df
        columns |= {} if self.deviance is None else {"deviance": self.deviance, "aic": self.aic}
        columns |= {"statistic": self.statistic, "df_error": self.df_error}
        columns |= {"p_value": self.p_value, "log10_p": self.log10_p}
        columns |= _adjusted(self.p_value, len(self.names), adjust)
        return _table(self.fits, columns, self.status)

    def __repr__(self) -> str:
        return f"<Comparisons ({self.kind}): {_sizes(self.fits, self.names)}>"


def estimates(
    result: Any,
    names: Any,
    estimate: np.ndarray,
    variance: np.ndarray,
    level: float,
    null: Any = 0.0,
    contrast: tuple[str, ...] | None = None,
) -> Estimates:
    """Wald inference on estimates (g, k) with these variances, against null hypotheses (k,)."""
    degrees = result._degrees()
    half = wald.quantile(level, degrees)
    with np.errstate(invalid="ignore", divide="ignore"):
        error = np.sqrt(variance)
        statistic = (estimate - null) / error
    p = wald.p_values(statistic, degrees)
    shape = result._squeezed
    return Estimates(
        fits=result,
        names=tuple(names),
        contrast=contrast,
        estimate=shape(estimate),
        standard_error=shape(error),
        statistic=shape(statistic),
        p_value=shape(p),
        log10_p=shape(wald.log10_p_values(statistic, degrees, p)),
        low=shape(estimate - half * error),
        high=shape(estimate + half * error),
    )


def _sizes(result: Any, names: tuple[str, ...]) -> str:
    fits = f"{len(result)} fits, " if result.many else ""
    return f"{fits}{', '.join(names[:5])}{', ...' if len(names) > 5 else ''}"


def _repeated(result: Any, labels: tuple[str, ...]) -> Any:
    from jaxglm import frames

    distinct = list(dict.fromkeys(labels))
    codes = np.array([distinct.index(label) for label in labels], np.int64)
    return frames.Encoded(np.tile(codes, len(result)), distinct)


def _names(result: Any, title: str, names: tuple[str, ...]) -> dict[str, Any]:
    return {**tables.keys(result, len(names)), title: _repeated(result, names)}


def _adjusted(p: np.ndarray, k: int, method: str | None) -> dict[str, np.ndarray]:
    return {} if method is None else {"q_value": discovery.adjust(np.reshape(p, (-1, k)), method)}


def _table(result: Any, columns: dict[str, Any], status: np.ndarray) -> Any:
    from jaxglm import frames

    flat = {name: value if isinstance(value, frames.Encoded) else np.reshape(value, -1) for name, value in columns.items()}
    flat["status"] = frames.Encoded(np.reshape(status, -1), [one.label for one in Status])
    return tables.build(result, flat)
