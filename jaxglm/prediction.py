"""Predictions for new rows, with errors by the delta method.

Intervals are made on the scale of eta, where the normal approximation is good, and carried to the mean by the inverse
link. Aliased coefficients count as zero, as in R. A row that a separated group's direction moves has an infinite eta, its
mean is the limit, and it has no error; nor has a row in which a diverging term takes part.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxglm import wald
from jaxglm.errors import UnknownGroupError, listed
from jaxglm.family import Family
from jaxglm.observations import at_limit, log_exposure
from jaxglm.residuals import means, slopes


@dataclass(frozen=True)
class Prediction:
    """Arrays of one shape, (m,), or (g, m) where every group predicts every row."""

    estimate: np.ndarray
    standard_error: np.ndarray
    low: np.ndarray
    high: np.ndarray


@dataclass(frozen=True)
class Request:
    """New rows. X: (m, p) or (g, m, p); codes: (m,), the group of each row, or None; offset: broadcasts to the rows."""

    X: np.ndarray
    codes: np.ndarray | None
    offset: np.ndarray


def request(result: Any, new: Any, groups: Any, offset: Any, exposure: Any) -> Request:
    """What the user asks for, as arrays."""
    table = result.table
    if result.has_offset and offset is None and exposure is None:
        raise ValueError(
            "the fit had an offset or an exposure, given as an array; give offset= or exposure= for the new rows too "
            "(offset=0 for none)"
        )
    if table is not None and table.design is not None and not isinstance(new, np.ndarray):
        X, labels, known = _from_table(result, new, groups, offset, exposure)
    else:
        X = np.asarray(new, np.float64)
        labels, known = None, 0.0
        if groups is not None:
            from jaxglm.groups import factorize

            found = factorize(groups)
            labels = [found.keys, found.codes]
        known = _added(offset, exposure, 0.0)
    p = len(result.names)
    if X.ndim not in (2, 3) or X.shape[-1] != p or (X.ndim == 3 and X.shape[0] != len(result)):
        raise ValueError(f"new rows must have shape (m, {p}), for the terms {listed(result.names)}, not {X.shape}")
    codes = None if labels is None else _codes(result, *labels)
    if not result.many:
        codes = np.zeros(X.shape[0], np.int64)
    if codes is not None and len(codes) != X.shape[0]:
        raise ValueError(f"groups must name one group for each of the {X.shape[0]} new rows, not {len(codes)}")
    shape = (X.shape[0],) if codes is not None else (len(result), X.shape[-2])
    try:
        known = np.broadcast_to(known, shape)
    except ValueError:
        raise ValueError(f"offset and exposure must have shape {shape}, as the new rows, not {np.shape(known)}") from None
    return Request(X, codes, known)


def _added(offset: Any, exposure: Any, known: Any) -> Any:
    total = known + (0.0 if offset is None else np.asarray(offset, np.float64))
    return total if exposure is None else total + log_exposure(np.asarray(exposure, np.float64))


def _from_table(result: Any, new: Any, groups: Any, offset: Any, exposure: Any) -> tuple[np.ndarray, Any, Any]:
    """Columns, keys and offset of new rows in a table, by the names that the fit remembers."""
    from jaxglm import frames

    table, frame = result.table, frames.frame(new, "new")
    X = table.design.design(frame)
    known = table.design.offset(frame)
    known = 0.0 if known is None else known

    def column(given: Any, remembered: str | None, role: str) -> Any:
        name = remembered if given is None else given
        return frames.numeric(frame, name, role) if isinstance(name, str) else name

    known = _added(column(offset, table.offset, "offset"), column(exposure, table.exposure, "exposure"), known)
    labels = None
    if groups is not None:
        from jaxglm.groups import factorize

        found = factorize(groups)
        labels = [found.keys, found.codes]
    elif table.by and result.many:
        from jaxglm.groups import combine

        keys = frames.keys(frame, list(table.by))
        found = combine([key.name for key in keys], [key.levels for key in keys], [key.codes for key in keys])
        labels = [found.keys, found.codes]
    return X, labels, known


def _codes(result: Any, keys: tuple[np.ndarray, ...], codes: np.ndarray) -> np.ndarray:
    """The positions of new rows' groups in the result. Raises KeyError for a group that was not fitted."""
    if result.keys is None:
        raise ValueError("groups= makes no sense here: this is one fit")
    values = list(zip(*(key.tolist() for key in keys), strict=True))
    place = {label: index for index, label in enumerate(zip(*(key.tolist() for key in result.keys.keys), strict=True))}
    unknown = [value if len(value) > 1 else value[0] for value in values if value not in place]
    if unknown:
        raise UnknownGroupError(f"no fit for the group {listed(unknown)}; the fitted groups are {listed(result.groups)}")
    if codes.min(initial=0) < 0:
        raise UnknownGroupError("some new rows have a missing group")
    return np.array([place[value] for value in values], np.int64)[codes]


def _by_row(model: Family, codes: np.ndarray | None) -> Family:
    return model.of((slice(None), None) if codes is None else codes)


def _eta(result: Any, request: Request) -> np.ndarray:
    solution = result.solution
    b = np.where(np.isnan(solution.coefficients), 0.0, solution.coefficients)
    b = np.where(np.isnan(solution.coefficients).all(axis=1)[:, None], np.nan, b)
    if request.codes is not None:
        return at_limit(request.X, b[request.codes], solution.direction[request.codes]) + request.offset
    X = np.broadcast_to(request.X, (len(result), *request.X.shape[-2:]))
    return np.stack([at_limit(X[k], b[k], solution.direction[k]) for k in range(len(result))]) + request.offset


def _check_type(type: str) -> None:
    if type not in ("response", "link"):
        raise ValueError(f'type must be "response" or "link", not {type!r}')


def point(result: Any, request: Request, type: str) -> np.ndarray:
    """See `GLMResults.predict`."""
    _check_type(type)
    eta = _eta(result, request)
    return eta if type == "link" else means(_by_row(result.family, request.codes), eta)


def with_errors(result: Any, request: Request, type: str, level: float) -> Prediction:
    """See `GLMResults.prediction`."""
    _check_type(type)
    eta, codes = _eta(result, request), request.codes
    missing = np.isnan(result.solution.coefficients)
    # What an aliased coefficient is multiplied with does not count; what has no error makes the row have none.
    covariance = np.where(missing[:, :, None] | missing[:, None, :], 0.0, result.solution.covariance)
    if codes is not None:
        variance = _quadratic(request.X, covariance, codes)
        degrees = result.solution.n_obs[codes] - result.solution.rank[codes]
    else:
        X = np.broadcast_to(request.X, (len(result), *request.X.shape[-2:]))
        variance = np.stack([_quadratic(X[k], covariance, np.full(X.shape[1], k)) for k in range(len(result))])
        degrees = (result.solution.n_obs - result.solution.rank)[:, None]
    error = np.where(np.isfinite(eta), np.sqrt(variance), np.nan)
    half = wald.quantile(level, degrees if result.family.dispersion is None else None) * error
    low, high = eta - half, eta + half
    if type == "link":
        return Prediction(eta, error, low, high)
    model = _by_row(result.family, codes)
    ends = _bounded_means(model, eta, low), _bounded_means(model, eta, high)
    return Prediction(means(model, eta), error * np.abs(slopes(model, eta)), np.minimum(*ends), np.maximum(*ends))


def _bounded_means(model: Family, eta: np.ndarray, end: np.ndarray) -> np.ndarray:
    """The means at the ends of intervals of eta; where an end lies beyond what is valid, the mean at the limit."""
    end = np.clip(end, model.link.etas.lower, model.link.etas.upper)
    if np.any(np.isinf(means(model, np.zeros_like(eta)))):  # a pole: the other side of it is another branch
        end = np.where(end * eta < 0, np.copysign(0.0, eta), end)
    return np.clip(means(model, end), model.means.lower, model.means.upper)


def _quadratic(X: np.ndarray, covariance: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """x' C x of every row with its group's C, where a zero in x leaves out even what is not known."""
    out = np.empty(len(X))
    for begin in range(0, len(X), 4096):
        part = slice(begin, begin + 4096)
        x, C = X[part], covariance[codes[part]]
        used = (x != 0)[:, :, None] & (x != 0)[:, None, :]
        out[part] = np.sum(np.where(used, x[:, :, None] * x[:, None, :] * np.where(used, C, 0.0), 0.0), axis=(1, 2))
    return out
