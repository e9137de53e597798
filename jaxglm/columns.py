"""Columns made into tables: pandas, polars or pyarrow.

Results are NumPy arrays until the very end, where a table of the user's own kind is built from them. Text that repeats
(a term's name in 800,000 rows) is stored once: `Encoded` becomes a dictionary column.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeAlias

import numpy as np

from jaxglm.errors import listed


class Kind(StrEnum):
    """The library of a table: what `build` needs to know to answer in kind."""

    PANDAS = "pandas"
    POLARS = "polars"
    PYARROW = "pyarrow"


@dataclass(frozen=True)
class Encoded:
    """A column given as codes: row i holds labels[codes[i]], or nothing where codes[i] is -1.

    Text labels become a dictionary column, which costs a few bytes a row; other labels are spread out.
    """

    codes: np.ndarray
    labels: Sequence[Any] | np.ndarray

    def spread(self) -> np.ndarray:
        """The column as a plain array (None where the code is -1)."""
        codes, labels = np.asarray(self.codes), np.asarray(self.labels)
        if not (codes < 0).any():
            return labels[codes]
        void = np.array([None], dtype=object)
        return np.concatenate([labels.astype(object), void])[codes]

    @property
    def is_text(self) -> bool:
        return all(isinstance(label, str) for label in self.labels)


Column: TypeAlias = "np.ndarray | Encoded"


def build(columns: Mapping[str, Column], kind: Kind) -> Any:
    """A table of that kind from columns of equal length (ValueError if not). Object arrays hold text; None is missing.

    >>> import numpy as np
    >>> from jaxglm import columns
    >>> terms = columns.Encoded(np.array([0, 1, 0]), ["Intercept", "x"])
    >>> columns.build({"term": terms, "estimate": np.ones(3)}, columns.Kind.PANDAS).shape
    (3, 2)
    """
    lengths = {name: length(values, name) for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"columns of different lengths: {listed(f'{name!r}: {n}' for name, n in lengths.items())}.")
    if kind is Kind.PANDAS:
        import pandas

        return pandas.DataFrame({name: _pandas(values) for name, values in columns.items()}, copy=False)
    if kind is Kind.POLARS:
        import polars

        return polars.DataFrame([_polars(name, values) for name, values in columns.items()])
    import pyarrow

    return pyarrow.table({name: _arrow(values) for name, values in columns.items()})


def append(native: Any, columns: Mapping[str, Column], kind: Kind) -> Any:
    """A table of that kind with more columns at its end; the table given stays as it is."""
    if kind is Kind.PANDAS:
        import pandas

        return pandas.concat([native, build(columns, kind).set_axis(native.index, axis=0)], axis=1)
    if kind is Kind.POLARS:
        return native.with_columns([_polars(name, values) for name, values in columns.items()])
    for name, values in columns.items():
        native = native.append_column(name, _arrow(values))
    return native


def length(values: Column, name: str) -> int:
    """The number of rows of a column. ValueError: it has not one dimension."""
    array = values.codes if isinstance(values, Encoded) else values
    if np.ndim(array) != 1:
        raise ValueError(f"column {name!r} has shape {np.shape(array)}; a column has one dimension.")
    return len(array)


def _pandas(values: Column) -> Any:
    if not isinstance(values, Encoded):
        return values
    if not values.is_text:
        return values.spread()
    import pandas

    return pandas.Categorical.from_codes(values.codes, categories=list(values.labels))


def _polars(name: str, values: Column) -> Any:
    import polars

    if isinstance(values, Encoded) and values.is_text:
        labels = polars.Series(name, list(values.labels), dtype=polars.Categorical)
        codes = polars.Series(np.asarray(values.codes, dtype=np.int64))
        return labels.gather(codes.set(codes < 0, None))
    plain = values.spread() if isinstance(values, Encoded) else np.asarray(values)
    if plain.dtype == np.dtype("datetime64[s]"):
        plain = plain.astype("datetime64[ms]")  # polars has no seconds
    return polars.Series(name, plain.tolist() if plain.dtype == object else plain)


def _arrow(values: Column) -> Any:
    import pyarrow

    if isinstance(values, Encoded) and values.is_text:
        codes = np.asarray(values.codes, dtype=np.int32)
        return pyarrow.DictionaryArray.from_arrays(pyarrow.array(codes, mask=codes < 0), list(values.labels))
    plain = values.spread() if isinstance(values, Encoded) else np.asarray(values)
    return pyarrow.array(plain, from_pandas=plain.dtype == object)
