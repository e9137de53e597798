"""Results as tables, in broom's terms: `tidy` by term, `glance` by group, `augment` by row.

Columns are made here as arrays and turned into the user's kind of table by `frames`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxglm import discovery
from jaxglm.errors import listed
from jaxglm.influence import influence
from jaxglm.status import Status

SCALARS = (
    "deviance", "null_deviance", "log_likelihood", "aic", "bic", "dispersion", "theta", "power", "df_residual", "df_null",
    "rank", "n_obs", "n_iterations", "status", "converged", "method", "n_dropped", "verdict",
)  # fmt: skip
TERMS = ("term", "estimate", "std_error", "statistic", "p_value", "log10_p", "q_value", "conf_low", "conf_high", "status")
ROWS = ("y", "weight", "offset")
RESERVED = frozenset(SCALARS + TERMS)  # names that a key column cannot have


@dataclass(frozen=True)
class Table:
    """What a result remembers of the table it came from.

    kind: what kind of table to give back; data: the user's table, None after loading; design: makes the columns of new
    data; by: key columns; offset, exposure: names of columns, or None; used: (N,), the rows that were not dropped, None
    if all were; levels: the two labels of a text response; unnamed_offset: whether an offset or exposure was an array.
    """

    kind: Any
    data: Any
    design: Any
    by: tuple[str, ...] = ()
    offset: str | None = None
    exposure: str | None = None
    used: np.ndarray | None = None
    levels: tuple[Any, Any] | None = None
    unnamed_offset: bool = False


def tidy_columns(result: Any, level: float, exponentiate: bool, adjust: str | None = None) -> dict[str, Any]:
    """The columns of `tidy`, each of length g * p."""
    from jaxglm import frames

    g, p = len(result), len(result.names)
    estimate, interval = np.atleast_2d(result.coefficients), np.reshape(result.conf_int(level), (g, p, 2))
    if exponentiate:
        with np.errstate(over="ignore"):
            estimate, interval = np.exp(estimate), np.exp(interval)
    columns = keys(result, p)
    columns["term"] = frames.Encoded(np.tile(np.arange(p), g), list(result.names))
    columns["estimate"] = estimate
    columns["std_error"] = result.standard_errors
    columns["statistic"] = result.statistics
    columns["p_value"] = result.p_values
    columns["log10_p"] = result.log10_p_values
    if adjust is not None:
        columns["q_value"] = discovery.adjust(np.reshape(result.p_values, (g, p)), adjust)
    columns["conf_low"], columns["conf_high"] = interval[..., 0], interval[..., 1]
    columns = {name: np.reshape(value, -1) if isinstance(value, np.ndarray) else value for name, value in columns.items()}
    columns["status"] = _status(result, p)
    return columns


def tidy(result: Any, level: float, exponentiate: bool, adjust: str | None) -> Any:
    """See `GLMResults.tidy`. exponentiate: estimates and intervals, not errors, as broom does."""
    return build(result, tidy_columns(result, level, exponentiate, adjust))


def glance(result: Any) -> Any:
    """See `GLMResults.glance`."""
    from jaxglm import frames

    columns = keys(result, 1)
    encoded = {"status": lambda: _status(result, 1), "verdict": lambda: frames.Encoded(*result._verdicts())}
    for name in SCALARS:
        columns[name] = encoded[name]() if name in encoded else np.atleast_1d(getattr(result, name))
    return build(result, columns)


def tidy_path(path: Any, zeros: bool) -> Any:
    """See `Path.tidy`."""
    from jaxglm import frames

    along, (g, length) = path.paths.along, path.paths.strengths.shape
    columns, p = _steps(path, len(path.names)), len(path.names)
    columns["term"] = frames.Encoded(np.tile(np.arange(p), g * length), list(path.names))
    columns["estimate"] = along.coefficients.reshape(-1)
    if not zeros:
        used = columns["estimate"] != 0
        columns["term"] = frames.Encoded(columns["term"].codes[used], list(path.names))
        columns = {name: value[used] if isinstance(value, np.ndarray) else value for name, value in columns.items()}
    return frames.build(columns, frames.Kind.PANDAS)


def glance_path(path: Any) -> Any:
    """See `Path.glance`."""
    from jaxglm import frames

    columns = _steps(path, 1)
    for name in ("df", "deviance", "explained", "log_likelihood", "aic", "bic", "n_iterations"):
        columns[name] = np.reshape(getattr(path, name), -1)
    if path.folds is not None:
        columns["loss"], columns["loss_error"] = (np.reshape(part, -1) for part in vars(path.losses).values())
    columns["status"] = frames.Encoded(path.paths.along.status.reshape(-1), [status.label for status in Status])
    return frames.build(columns, frames.Kind.PANDAS)


def _steps(path: Any, repeat: int) -> dict[str, Any]:
    """The columns that name the steps of a path."""
    g, length = path.paths.strengths.shape
    columns = keys(path, length * repeat)
    columns["step"] = np.tile(np.repeat(np.arange(length), repeat), g)
    columns["lambda"] = np.repeat(path.paths.strengths.reshape(-1), repeat)
    return columns


def augment(result: Any) -> Any:
    """See `GLMResults.augment`."""
    from jaxglm import frames

    made = result._quantities()
    measured = influence(result, made)
    quantities = {
        "fitted": result.fitted,
        "linear_predictor": result.linear_predictor,
        "residual_deviance": result._in_rows(made.deviance),
        "residual_pearson": result._in_rows(made.pearson),
        "residual_response": result._in_rows(made.response),
        "residual_working": result._in_rows(made.working),
        "working_weight": result._in_rows(made.working_weights),
        "hat": result._in_rows(measured.hat),
        "residual_standardized": result._in_rows(measured.residual_standardized),
        "residual_studentized": result._in_rows(measured.residual_studentized),
        "cooks_distance": result._in_rows(measured.cooks_distance),
    }
    if result.table is not None and result.table.data is not None and result.observations.codes is not None:
        return frames.with_columns(frames.frame(result.table.data), quantities)
    rows = result._rows()
    X = np.broadcast_to(rows.X, (*rows.shape, rows.X.shape[-1]))
    if rows.own is not None:
        X = np.concatenate([X, rows.own.numbers(slice(None))[..., None]], axis=-1)
    columns: dict[str, Any] = {}
    if result.many:
        codes = rows.codes if rows.codes is not None else np.repeat(np.arange(len(result)), rows.shape[1])
        columns = {name: _labelled(key, codes) for name, key in zip(result.keys.names, result.keys.keys, strict=True)}
    taken = [name for name in result.names if name in {*columns, *ROWS, *quantities}]
    if taken:
        raise ValueError(f"the term {listed(map(repr, taken))} is called like another column of augment(); give other names=")
    columns |= {name: X[..., j] for j, name in enumerate(result.names)}
    given = (rows.rows(rows.y, 0.0), rows.prior_weights(), rows.rows(rows.offset, 0.0))
    columns |= dict(zip(ROWS, given, strict=True))
    if result.table is not None and result.table.used is not None:
        quantities = {name: value[..., result.table.used] for name, value in quantities.items()}
    return build(result, {name: np.reshape(value, -1) for name, value in (columns | quantities).items()})


def _labelled(key: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Each row's key, missing where it has none."""
    if codes.min(initial=0) >= 0:
        return key[codes]
    return np.concatenate([key.astype(object), np.array([None], object)])[codes]  # the last entry is what code -1 picks


def keys(result: Any, repeat: int) -> dict[str, Any]:
    """The key columns of a table with `repeat` rows for every fit."""
    if result.keys is None:
        return {}
    return {name: np.repeat(key, repeat) for name, key in zip(result.keys.names, result.keys.keys, strict=True)}


def _status(result: Any, repeat: int) -> Any:
    from jaxglm import frames

    return frames.Encoded(np.repeat(result.solution.status, repeat), [status.label for status in Status])


def build(result: Any, columns: dict[str, Any]) -> Any:
    """A table of the kind that the data of a result came in."""
    from jaxglm import frames

    return frames.build(columns, result.table.kind if result.table is not None else frames.Kind.PANDAS)
