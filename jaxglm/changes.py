"""What may change in a row: values of a variable, and what that makes of the row's columns.

A variable is a column of the user's table where the design is a formula's, whose transforms keep the parameters of the fit; in
an array it is a column of the design.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxglm.errors import did_you_mean, listed
from jaxglm.terms import terms_of

STEP, NEAREST = 1e-3, 1e-4  # of a difference, in units of the variable's spread or its size; of its size, in units of spread
NODES = np.arange(-2.0, 3.0)


@dataclass(frozen=True)
class Setting:
    """Some rows as a change makes them. X: (m, p), (n, p), (b, n, p) or (p,); offset: what the change adds to that of the
    rows, in a shape that broadcasts to theirs."""

    X: np.ndarray
    offset: Any


Piece = Callable[[Any, np.ndarray], Setting]  # from which rows, and their X, to a design of theirs


@dataclass(frozen=True)
class Along:
    """A slope's piece where all rows move in one direction, (p,)."""

    direction: np.ndarray

    def __call__(self, part: Any, X: np.ndarray) -> Setting:
        return Setting(self.direction, 0.0)


@dataclass(frozen=True)
class Columns:
    """A comparison's piece where columns are left as they are, shifted, or the same for all rows: those of X that are kept, and
    what is added, both (p,)."""

    keep: np.ndarray
    add: np.ndarray

    def __call__(self, part: Any, X: np.ndarray) -> Setting:
        return Setting(np.where(self.keep, X, 0.0) + self.add, 0.0)


@dataclass(frozen=True)
class Change:
    """What is averaged: the mean at `high` less that at `low`, or, of a slope, its derivative in the direction `high` at the
    rows as they are."""

    name: str
    contrast: str
    high: Piece
    low: Piece | None = None


def _wanted(variables: Any, known: list[str], default: list[str], what: str) -> dict[str, Any]:
    """The variables asked for, and how each is to be changed: None, a number or a pair. Raises ValueError."""
    if variables is None:
        asked: dict[str, Any] = dict.fromkeys(default)
    elif isinstance(variables, Mapping):
        asked = {str(name): change for name, change in variables.items()}
    else:
        asked = dict.fromkeys([variables] if isinstance(variables, str) else list(variables))
    unknown = [name for name in asked if name not in known]
    if unknown:
        hint = did_you_mean(unknown[0], known)
        raise ValueError(f"there is no {what} {unknown[0]!r} in the model.{hint} It has {listed(known, 20) or 'none'}")
    if not asked:
        raise ValueError(f"the model has no {what} that could change")
    return asked


def _pair(name: str, change: Any) -> tuple[Any, Any] | None:
    """(low, high), or None for a number to add. Raises ValueError for what is neither."""
    if isinstance(change, tuple | list) and len(change) == 2:
        return change[0], change[1]
    if isinstance(change, bool | str) or np.ndim(change) or not np.isfinite(float(change)):
        raise ValueError(f"the change of {name!r} must be a number to add or a pair (from, to), not {change!r}")
    return None


def of_columns(result: Any, variables: Any) -> list[Change]:
    """Changes of an array's columns."""
    names = list(result.names)
    default = [] if variables is not None else [term.name for term in terms_of(result) if term.factors]
    made = []
    for name, change in _wanted(variables, names, default, "column").items():
        j = names.index(name)
        column, everything = np.eye(len(names))[j], np.ones(len(names), bool)
        if change is None:
            made.append(Change(name, "slope", Along(column)))
            continue
        pair = _pair(name, change)
        if pair is None:
            made.append(Change(name, f"+{change:g}", Columns(everything, change * column), Columns(everything, 0.0 * column)))
        else:
            low, high = (Columns(column == 0, float(value) * column) for value in pair)
            made.append(Change(name, f"{pair[1]:g} - {pair[0]:g}", high, low))
    return made


def of_variables(design: Any, frame: Any, variables: Any) -> list[Change]:
    """Changes of a table's variables."""
    known = list(dict.fromkeys([*design.variables, *design.offset_variables]))
    made: list[Change] = []
    for name, change in _wanted(variables, known, list(design.variables), "variable").items():
        by_level = _has_levels(design, frame, name)
        made += _levels(design, frame, name, change) if by_level else [_number(design, frame, name, change)]
    return made


def _has_levels(design: Any, frame: Any, name: str) -> bool:
    from jaxglm import formula_variation as variation
    from jaxglm import frames

    return variation.is_categorical(design, name) or frames.content(frame, name, "data") == "boolean"


def _levels(design: Any, frame: Any, name: str, change: Any) -> list[Change]:
    """Every level against the first, or one against another."""
    from jaxglm import formula_variation as variation
    from jaxglm import frames

    levels = design.levels[name] or np.unique(frames.numeric(frame, name, "data")).tolist()
    if frames.content(frame, name, "data") == "boolean":
        levels = [False, True]
    pairs = [(levels[0], other) for other in levels[1:]]
    if change is not None:
        pair = change if isinstance(change, tuple | list) and len(change) == 2 else (None, change)
        unknown = [level for level in pair if level not in levels]
        if unknown:
            raise ValueError(
                f"{name!r} changes from one level to another, as (from, to), not {change!r}. Levels: {listed(levels)}"
            )
        pairs = [(pair[0], pair[1])]
    used = list(dict.fromkeys(level for pair in pairs for level in pair))
    part = variation.about(design, name)
    settings = _varied(part.spec, frame, name, used)
    at = dict(zip(used, [_put(len(design.names), one, part.columns) for one in settings], strict=True))
    return [Change(name, f"{_label(high)} - {_label(low)}", at[high], at[low]) for low, high in pairs]


def _label(level: Any) -> str:
    return f"{level:g}" if isinstance(level, float) else str(level)


def _number(design: Any, frame: Any, name: str, change: Any) -> Change:
    """A slope, or a comparison of two values."""
    from jaxglm import formula_variation as variation
    from jaxglm import frames

    values, part, p = frames.numeric(frame, name, "data"), variation.about(design, name), len(design.names)
    if change is not None:
        pair = _pair(name, change)
        low, high = (values, values + change) if pair is None else pair
        label = f"+{change:g}" if pair is None else f"{high:g} - {low:g}"
        below, above = _varied(part.spec, frame, name, [np.zeros_like(values) + end for end in (low, high)])
        return Change(name, label, _put(p, above, part.columns), _put(p, below, part.columns))
    if variation.is_linear_in(design, name):
        none, one = _varied(part.spec, frame, name, [np.zeros_like(values), np.ones_like(values)])
        slope = Setting(one.X - none.X, one.offset - none.offset)
    else:
        slope = _derivative(part.spec, frame, name, values)
    return Change(name, "slope", _put(p, slope, part.columns, among_zeros=True))


def _derivative(design: Any, frame: Any, name: str, values: np.ndarray) -> Setting:
    """How a design moves with a variable that it is not linear in, by the derivative of the polynomial through five nodes near
    each value. Nodes stay within the range of the values, where splines are defined."""
    low, high, spread = np.nanmin(values), np.nanmax(values), np.nanstd(values)
    spread = spread if spread > 0 else max(1.0, abs(high))
    step = STEP * np.clip(np.abs(values), NEAREST * spread, spread)
    center = np.clip(values, low + 2.0 * step, high - 2.0 * step) if high > low else values
    settings = [center + k * step for k in NODES]
    settings = [np.clip(one, low, high) for one in settings] if high > low else settings
    at = (values - center) / step
    powers = np.stack([np.zeros_like(at), np.ones_like(at), 2.0 * at, 3.0 * at**2, 4.0 * at**3], axis=1)
    shares = powers @ np.linalg.inv(np.vander(NODES, increasing=True).T).T / step[:, None]
    found = _varied(design, frame, name, settings)
    middle = found[len(NODES) // 2]  # shares add up to nothing: what does not change gives exact zeros
    return Setting(
        np.sum([share[:, None] * (one.X - middle.X) for share, one in zip(shares.T, found, strict=True)], axis=0),
        np.sum([share * (one.offset - middle.offset) for share, one in zip(shares.T, found, strict=True)], axis=0),
    )


def _varied(design: Any, frame: Any, name: str, settings: list[Any]) -> list[Setting]:
    """The design of a table once for each setting of one variable, and what that adds to the offset."""
    from jaxglm import formula_variation as variation

    known = design.offset(frame)
    known = np.zeros(len(frame)) if known is None else known
    return [Setting(one.X, one.offset - known) for one in variation.varied(design, frame, name, settings)]


def _put(p: int, changed: Setting, columns: np.ndarray, among_zeros: bool = False) -> Piece:
    """Pieces of a table's rows with some of their columns changed, the others as they are, or zeros in a derivative. Rows that
    many fits share are given once."""
    first = changed.X[:1]
    if len(first) and np.all(first == changed.X) and not np.any(changed.offset):
        add = np.zeros(p)
        add[columns] = first[0]
        return Along(add) if among_zeros else Columns(~np.isin(np.arange(p), columns), add)

    def piece(part: Any, X: np.ndarray) -> Setting:
        shared = X.ndim == 3
        base = X[0] if shared else X
        new = np.zeros_like(base) if among_zeros else base.copy()
        new[:, columns] = changed.X if shared else changed.X[part]
        return Setting(new, changed.offset if shared else changed.offset[part])

    return piece
