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
from jaxglm.groups import Groups, combine, factorize
from jaxglm.observations import at_limit, counted, log_exposure
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
    in_table = table is not None and table.design is not None and not isinstance(new, np.ndarray)
    if in_table:
        X, found, known = _from_table(result, new, groups, offset, exposure)
    else:
        X, found, known = _numbers("new", _in_order(result, new)), None, _added(offset, exposure, 0.0)
    if groups is not None:
        found = factorize(groups)
    _require_shape(result, X, groups is not None)
    if offset is None and exposure is None and _lacks_offset(result, in_table):
        raise ValueError(
            "the fit had an offset or an exposure, which the new rows do not hold; give offset= or exposure= for them too "
            "(offset=0 for none)"
        )
    codes = None if found is None else _codes(result, found)
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


def _lacks_offset(result: Any, in_table: bool) -> bool:
    """Whether the fit had an offset that new rows do not bring with them, as arrays never do."""
    table = result.table
    if in_table or table is None:
        return result.has_offset
    by_name = table.offset is not None or table.exposure is not None
    return result.has_offset or by_name or (table.design is not None and table.design.offset_state is not None)


def _require_shape(result: Any, X: np.ndarray, grouped: bool) -> None:
    """Raise ValueError for new rows whose shape does not fit."""
    p = len(result.names)
    if X.ndim == 3 and (grouped or not result.many):
        reason = "with groups=" if result.many else "for one fit"
        raise ValueError(f"{reason}, new rows must have shape (m, {p}), one set of rows, not {X.shape}")
    if X.ndim not in (2, 3) or X.shape[-1] != p or (X.ndim == 3 and X.shape[0] != len(result)):
        raise ValueError(f"new rows must have shape (m, {p}), for the terms {listed(result.names)}, not {X.shape}")


def _in_order(result: Any, new: Any) -> Any:
    """A data frame's columns in the order of the terms, where it has all of them by name."""
    names = getattr(new, "column_names", getattr(new, "columns", ()))
    known = not callable(names) and set(result.names) <= {str(name) for name in names}
    if not known:
        return new
    return new[list(result.names)] if hasattr(new, "loc") else new.select(list(result.names))


def _numbers(name: str, values: Any) -> np.ndarray:
    """An array of floats. Raises TypeError for what is not numbers."""
    try:
        return np.asarray(values, np.float64)
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be a rectangular array of numbers") from None


def _added(offset: Any, exposure: Any, known: Any) -> Any:
    for name, given in (("offset", offset), ("exposure", exposure)):
        if isinstance(given, str):  # of a table, its column would be here by now
            raise ValueError(f"{name}={given!r} names a column, but the new rows are an array, not a table; give numbers")
    total = known + (0.0 if offset is None else _numbers("offset", offset))
    return total if exposure is None else total + log_exposure(_numbers("exposure", exposure))


def _from_table(
    result: Any, new: Any, groups: Any, offset: Any, exposure: Any
) -> tuple[np.ndarray, Groups | None, np.ndarray | float]:
    """Columns, keys (unless `groups` are given) and offset of new rows in a table, by the names that the fit remembers."""
    from jaxglm import frames

    table, frame = result.table, frames.frame(new, "new")
    X = table.design.design(frame)
    known = table.design.offset(frame)
    known = 0.0 if known is None else known

    def column(given: Any, remembered: str | None, role: str) -> Any:
        name = remembered if given is None else given
        return frames.numeric(frame, name, role) if isinstance(name, str) else name

    known = _added(column(offset, table.offset, "offset"), column(exposure, table.exposure, "exposure"), known)
    if groups is not None or not table.by:
        return X, None, known
    keys = frames.keys(frame, list(table.by))
    return X, combine([key.name for key in keys], [key.levels for key in keys], [key.codes for key in keys]), known


def _codes(result: Any, new: Groups) -> np.ndarray:
    """The positions of new rows' groups in the result. Raises KeyError for a group that was not fitted."""
    if result.keys is None:
        raise ValueError("groups= makes no sense here: this is one fit")
    values = list(zip(*(key.tolist() for key in new.keys), strict=True))
    place = {label: index for index, label in enumerate(zip(*(key.tolist() for key in result.keys.keys), strict=True))}
    unknown = [value if len(value) > 1 else value[0] for value in values if value not in place]
    if unknown:
        raise UnknownGroupError(f"no fit for the group {listed(unknown)}; the fitted groups are {listed(result.groups)}")
    if new.n_missing:
        raise UnknownGroupError("some new rows have a missing group")
    return np.array([place[value] for value in values], np.int64)[new.codes]


def _by_row(model: Family, codes: np.ndarray | None) -> Family:
    return model.of((slice(None), None) if codes is None else codes)


def _eta(result: Any, request: Request) -> np.ndarray:
    solution = result.solution
    b = counted(solution)
    if request.codes is not None:
        return at_limit(request.X, b[request.codes], solution.direction[request.codes]) + request.offset
    X = np.broadcast_to(request.X, (len(result), *request.X.shape[-2:]))
    eta = np.empty(X.shape[:2])
    for k in range(len(result)):
        eta[k] = at_limit(X[k], b[k], solution.direction[k])
    return eta + request.offset


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
    else:
        X = np.broadcast_to(request.X, (len(result), *request.X.shape[-2:]))
        variance = np.empty(X.shape[:2])
        for k in range(len(result)):
            variance[k] = _quadratic(X[k], covariance, np.full(X.shape[1], k))
    degrees = result._degrees()
    if degrees is not None and codes is not None:
        degrees = degrees[codes, 0]
    error = np.where(np.isfinite(eta), np.sqrt(variance), np.nan)
    half = wald.quantile(level, degrees) * error
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
    """x' C x of every row with its group's C, where a zero in x leaves out even what is not known. Rounding may make a
    variance that is nearly nothing negative; then it is zero."""
    out = np.empty(len(X))
    for begin in range(0, len(X), 4096):
        part = slice(begin, begin + 4096)
        x, C = X[part], covariance[codes[part]]
        used = (x != 0)[:, :, None] & (x != 0)[:, None, :]
        with np.errstate(invalid="ignore", over="ignore"):  # where x is infinite
            terms = np.where(used, x[:, :, None] * x[:, None, :] * np.where(used, C, 0.0), 0.0)
            out[part] = np.sum(terms, axis=(1, 2))
    return np.maximum(out, 0.0)
