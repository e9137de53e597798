"""Group labels as numbers: which rows belong to which fit.

Labels of any kind become codes 0 to g - 1 in the order of the sorted labels. Rows whose label is missing belong nowhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxglm.errors import UnknownGroupError, did_you_mean, listed
from jaxglm.sorting import PIECE, is_ascending, overlapping


@dataclass(frozen=True)
class Groups:
    """g groups of N rows. names: of the key columns; keys: one array (g,) a key column, sorted by the first, then the
    second, and so on; codes: (N,), -1 where a key is missing; positional: whether the key is nothing but the position."""

    names: tuple[str, ...]
    keys: tuple[np.ndarray, ...]
    codes: np.ndarray
    positional: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "keys", tuple(map(_in_microseconds, self.keys)))

    def __len__(self) -> int:
        return len(self.keys[0])

    @property
    def n_missing(self) -> int:
        """Rows that belong to no group."""
        return int(np.sum(self.codes < 0))

    @property
    def labels(self) -> Any:
        """What the user calls the groups: an array for one key column, a list of tuples for several."""
        return self.keys[0] if len(self.keys) == 1 else list(zip(*(key.tolist() for key in self.keys), strict=True))

    def select(self, index: np.ndarray) -> Groups:
        """Some of the groups, without their rows."""
        return Groups(self.names, tuple(key[index] for key in self.keys), np.zeros(0, np.int64))

    def position(self, key: Any) -> int:
        """Where the group with this key is. Raises KeyError with what it may have been."""
        wanted = key if isinstance(key, tuple) else (key,)
        if len(wanted) != len(self.keys):
            raise UnknownGroupError(f"a group is named by {len(self.keys)} values ({', '.join(self.names)}), not by {key!r}")
        if not len(self):
            raise UnknownGroupError(f"there is no group {key!r}: there are no groups at all")
        hit = np.ones(len(self), bool)
        for values, value in zip(self.keys, wanted, strict=True):
            if values.dtype.kind == "M" and not isinstance(value, np.datetime64):
                value = _as_time(value, values.dtype)
            equal = np.asarray(values == value)
            hit &= equal if equal.shape == hit.shape else False
        if not hit.any():
            labels = self.labels
            near = ""
            if isinstance(key, (str, tuple)) and isinstance(labels[0], type(key)):
                near = did_you_mean(str(key), map(str, labels[:1000]))
            raise UnknownGroupError(f"there is no group {key!r}.{near} Groups: {listed(labels)}")
        return int(np.argmax(hit))


def factorize(labels: Any, names: Sequence[str] = ("group",)) -> Groups:
    """Groups from labels: an array (N,) of any kind; for several keys a tuple of arrays, an (N, k) array, or a list with
    a tuple for each row.

    >>> from jaxglm.groups import factorize
    >>> factorize(["b", "a", "b"]).codes.tolist()
    [1, 0, 1]
    """
    columns = _key_columns(labels)
    if len(names) != len(columns):
        names = [f"{names[0]}_{i + 1}" for i in range(len(columns))] if len(columns) > 1 else ["group"]
    return combine(names, *zip(*map(factorize_column, columns), strict=True))


def _key_columns(labels: Any) -> list[Any]:
    """One array a key: from one array, from a tuple or list of arrays, from a list of tuples, one a row, or (N, k)."""
    if isinstance(labels, (tuple, list)) and len(labels):
        if isinstance(labels, list) and all(isinstance(label, tuple) for label in labels):
            return [list(column) for column in zip(*labels, strict=True)]
        if all(hasattr(column, "__len__") and not isinstance(column, (str, bytes)) for column in labels):
            return list(labels)
    if np.ndim(labels) == 2:
        return list(_array(labels).T)
    return [labels]


def combine(names: Sequence[str], levels: Sequence[np.ndarray], codes: Sequence[np.ndarray]) -> Groups:
    """Groups from factorised key columns: the combinations of levels that occur."""
    if len(levels) == 1:
        return Groups(tuple(names), (levels[0],), codes[0])
    there = np.all([code >= 0 for code in codes], axis=0)
    dense, places = codes[0][there], [np.arange(len(levels[0]))]
    for level, code in zip(levels[1:], codes[1:], strict=True):  # made dense each time, so that no product overflows
        size = max(1, len(level))
        found, dense = _unique(dense * size + code[there])
        places = [*(place[found // size] for place in places), found % size]
    combined = np.full(len(there), -1, np.int64)
    combined[there] = dense
    return Groups(tuple(names), tuple(level[place] for level, place in zip(levels, places, strict=True)), combined)


def _array(labels: Any) -> np.ndarray:
    array = np.asarray(labels)
    if array.dtype.kind == "U" and not hasattr(labels, "dtype"):
        array = np.asarray(labels, dtype=object)  # numpy turns [1, "a"] into text; keep what the user wrote
    return array


def _as_time(value: Any, dtype: Any) -> Any:
    """A time from what the user has: text, or any kind of time. None where it is neither."""
    try:
        return np.datetime64(getattr(value, "to_datetime64", lambda: value)()).astype(dtype)
    except (ValueError, TypeError):
        return None


def _in_microseconds(level: np.ndarray) -> np.ndarray:
    """Times in the unit that Python's own have, where that is exact."""
    if level.dtype.kind != "M":
        return level
    coarse = level.astype("datetime64[us]")
    return coarse if np.array_equal(coarse.astype(level.dtype), level) else level


def factorize_column(labels: Any) -> tuple[np.ndarray, np.ndarray]:
    """Sorted levels and codes of one key column; those of a categorical are in its order."""
    category = getattr(labels, "cat", labels)
    if hasattr(category, "categories") and hasattr(category, "codes"):
        codes = np.asarray(category.codes, np.int64)
        levels, dense = _unique(codes[codes >= 0])
        codes = codes.copy()
        codes[codes >= 0] = dense
        return np.asarray(category.categories)[levels], codes
    values = _array(labels)
    if values.ndim != 1:
        raise ValueError(f"group labels must be one value a row, not an array of shape {values.shape}")
    missing = _missing(values)
    if missing is None:
        return _unique(values)
    codes = np.full(len(values), -1, np.int64)
    levels, codes[~missing] = _unique(values[~missing])
    return levels, codes


def _missing(values: np.ndarray) -> np.ndarray | None:
    if values.dtype.kind == "f":
        missing = np.isnan(values)
    elif values.dtype.kind in "mM":
        missing = np.isnat(values)
    elif values.dtype.kind == "O":
        missing = absent(values)
    else:
        return None
    return missing if missing.any() else None


def absent(values: np.ndarray) -> np.ndarray:
    """Which of these objects stand for a missing value: None, NaN, or pandas' NA, which equals nothing."""

    def is_absent(value: Any) -> bool:
        try:
            return value is None or bool(value != value)
        except TypeError:
            return True

    return np.array([is_absent(value) for value in values], bool)


def _unique(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """np.unique with the inverse; integers of a small range by counting."""
    if values.dtype.kind in "iu" and len(values):
        if is_ascending(values):
            return _unique_ascending(values)
        low, high = int(values.min()), int(values.max())
        if high - low <= 4 * len(values) + 1000:
            wide = values if values.dtype.itemsize == 8 else values.astype(np.int64)  # differences of small types overflow
            shifted = (wide - wide.dtype.type(low) if low else wide).astype(np.int64, copy=False)
            seen = np.bincount(shifted) > 0
            levels = (np.flatnonzero(seen).astype(wide.dtype) + wide.dtype.type(low)).astype(values.dtype)
            return levels, shifted if seen.all() else (np.cumsum(seen) - 1)[shifted]
    try:
        levels, codes = np.unique(values, return_inverse=True)
    except TypeError:
        kinds = sorted({type(value).__name__ for value in values})
        raise TypeError(f"group labels of one column must be of one kind, to be sorted; these are {', '.join(kinds)}") from None
    return levels, codes.reshape(-1).astype(np.int64)


def _unique_ascending(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same of integers in ascending order; labels that count the groups are the codes themselves."""
    changes = [np.flatnonzero(part[:-1] != part[1:]) for part in overlapping(values)]
    starts = np.concatenate([[0], *(PIECE * i + 1 + change for i, change in enumerate(changes))])
    levels = values[starts]
    if np.array_equal(levels, np.arange(len(levels))):
        return levels, values.astype(np.int64, copy=False)
    return levels, np.repeat(np.arange(len(levels)), np.diff(starts, append=len(values)))
