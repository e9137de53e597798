"""Tables in and out: pandas, polars, pyarrow and duckdb behind one face.

Whatever table the user brings, the rest of the package sees a narwhals data frame, asks it for NumPy arrays, and in the
end has a table of the user's own kind built. This is the only module that knows narwhals.

Two ideas are worth knowing:

- A missing value is a null or a NaN. Which of the two a table uses is a matter of its library, not of the data.
- A key (the store, the district) is *factorised*: its distinct values, the levels, are sorted and each row gets the
  position of its level, its code. Grouping, categorical covariates and text responses all start from that. Categoricals
  keep the order of their categories (pandas Categorical, polars Enum, an arrow dictionary); a polars Categorical has no
  order of its own and is sorted like text.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np

from jaxglm.columns import Column, Encoded, Kind, append, length
from jaxglm.columns import build as build_table
from jaxglm.errors import did_you_mean, listed

try:
    import narwhals.stable.v2 as nw
except ImportError as error:
    raise ImportError("tables need narwhals and pandas: pip install 'jaxglm-batched[tables]'") from error

__all__ = [
    "Column",
    "Content",
    "Encoded",
    "Frame",
    "Key",
    "Kind",
    "build",
    "column",
    "content",
    "frame",
    "keep",
    "keys",
    "kind_of",
    "missing",
    "numeric",
    "with_columns",
]

Frame: TypeAlias = "nw.DataFrame[Any]"
Content: TypeAlias = Literal["number", "boolean", "text", "category", "time", "other"]


@dataclass(frozen=True)
class Key:
    """A factorised column.

    name: the column; codes: (N,) int64, positions in `levels`, -1 where missing; levels: the observed values, sorted, or
    in the order of their categories; declared: all categories of a categorical with an order, observed or not, else None.
    """

    name: str
    codes: np.ndarray
    levels: np.ndarray
    declared: np.ndarray | None = None


# --- in -------------------------------------------------------------------------------------------------------------


def frame(data: Any, what: str = "data") -> Frame:
    """A narwhals data frame from any table.

    data: a pandas, polars (lazy too) or pyarrow table, a duckdb relation, or a dict of columns of equal length. what: the
    argument's name, for errors. TypeError: not a table. ValueError: duplicated names, no columns, no rows. Column names
    that are not text become text.

    >>> from jaxglm import frames
    >>> frames.frame({"x": [1.0, 2.0], "u": ["a", "b"]}).columns
    ['x', 'u']
    """
    if isinstance(data, nw.DataFrame):
        table: Any = data
    else:
        data = _from_mapping(data, what) if isinstance(data, Mapping) else data
        if nw.dependencies.is_pandas_dataframe(data) and not all(isinstance(name, str) for name in data.columns):
            data = data.rename(columns=str)
        table = _wrapped(data, what)
    if not table.columns:
        raise ValueError(f"{what} has no columns. Is it the table that you meant?")
    if len(table) == 0:
        raise ValueError(
            f"{what} has no rows (its columns: {listed(table.columns)}). An empty file, or a filter that keeps nothing?"
        )
    return table


def _from_mapping(data: Mapping[Any, Any], what: str) -> Any:
    import pandas

    columns = {str(name): np.ravel(values) if np.ndim(values) == 0 else values for name, values in data.items()}
    deep = [name for name, values in columns.items() if np.ndim(values) > 1]
    if deep:
        raise ValueError(f"{what}: column {deep[0]!r} has shape {np.shape(columns[deep[0]])}; a column has one dimension.")
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        told = listed(f"{name!r}: {length}" for name, length in lengths.items())
        raise ValueError(f"{what}: the columns have different lengths ({told}). Every column needs one value a row.")
    return pandas.DataFrame(columns)


def _wrapped(data: Any, what: str) -> Frame:
    """Any table that narwhals knows, collected, as pandas, polars or pyarrow."""
    names: list[str] = []
    if nw.dependencies.is_pandas_dataframe(data):
        names = list(data.columns)
    elif nw.dependencies.is_pyarrow_table(data):
        names = data.column_names
    twice = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
    if twice:
        raise ValueError(f"{what} has duplicated column names: {listed(map(repr, twice))}. Rename or drop one of each.")
    native = nw.to_native(data, pass_through=True)
    try:
        table: Any = nw.from_native(native)
    except TypeError:
        if not hasattr(native, "__arrow_c_stream__"):
            raise TypeError(_not_a_table(data, what)) from None
        import pyarrow

        table = nw.from_native(pyarrow.table(native))
    if isinstance(table, nw.LazyFrame):
        table = table.collect()
    if not isinstance(table, nw.DataFrame):
        raise TypeError(_not_a_table(data, what))
    if table.implementation.value not in set(Kind):
        table = nw.from_native(table.to_pandas(), eager_only=True)
    return table


def _not_a_table(data: Any, what: str) -> str:
    shape = f" of shape {np.shape(data)}" if isinstance(data, np.ndarray) else ""
    advice = " Arrays go to jaxglm.fit(X, y)." if isinstance(data, np.ndarray | list | tuple) else ""
    if isinstance(data, str):
        advice = " A file is read first, for example by pandas.read_csv or pyarrow.parquet.read_table."
    return (
        f"{what} must be a table (pandas, polars, pyarrow or duckdb) or a dict of columns, "
        f"not {type(data).__name__}{shape}.{advice}"
    )


def kind_of(data: Any) -> Kind:
    """The kind of table that answers to `data` (a frame of `frame`, or any table that `frame` takes)."""
    table = data if isinstance(data, nw.DataFrame) else frame(data)
    return Kind(table.implementation.value)


def column(frame: Frame, name: str, role: str) -> nw.Series[Any]:
    """One column, by name. role: what it is used as ('weights', 'the formula'), for errors.

    ValueError: there is no such column. TypeError: the column mixes types.
    """
    if name not in frame.columns:
        raise ValueError(
            f"{role}: the table has no column {name!r}.{did_you_mean(name, frame.columns)} "
            f"Its columns: {listed(frame.columns, 20)}."
        )
    series = frame[name]
    return _settled(series, name, role) if series.dtype == nw.Object else series


def _settled(series: nw.Series[Any], name: str, role: str) -> nw.Series[Any]:
    """A column of Python objects, given the type that its values have in common."""
    import pandas

    native = series.to_native()
    held = pandas.api.types.infer_dtype(native, skipna=True)
    if held in ("date", "datetime", "time", "timedelta"):
        return series
    to = {"string": "string", "boolean": "boolean", "integer": "Int64"}.get(held)
    if to is not None:
        return nw.from_native(native.astype(to), series_only=True)
    if held in ("floating", "mixed-integer-float", "decimal"):
        values = native.to_numpy(dtype=np.float64, na_value=np.nan)
        return nw.from_native(pandas.Series(values, index=native.index, name=name), series_only=True)
    present = native[native.notna()].to_numpy()
    other = next((value for value in present if type(value) is not type(present[0])), present[0])
    raise TypeError(
        f"{role}: column {name!r} mixes types ({type(present[0]).__name__}: {present[0]!r}, "
        f"{type(other).__name__}: {other!r}). Make it all numbers or all text, for example with .astype(str)."
    )


def content(frame: Frame, name: str, role: str) -> Content:
    """What a column holds, in the words of statistics: number, boolean, text, category, time or other."""
    dtype = column(frame, name, role).dtype
    if dtype == nw.Boolean:
        return "boolean"
    if dtype.is_numeric():
        return "number"
    if dtype == nw.String:
        return "text"
    if dtype in (nw.Categorical, nw.Enum):
        return "category"
    return "time" if dtype.is_temporal() or dtype == nw.Object else "other"


def numeric(frame: Frame, name: str, role: str) -> np.ndarray:
    """A column as (N,) float64: missing values are NaN, booleans 0 and 1.

    ValueError: no such column. TypeError: text, dates, categories.

    >>> from jaxglm import frames
    >>> frames.numeric(frames.frame({"b": [True, False]}), "b", "weights")
    array([1., 0.])
    """
    series = column(frame, name, role)
    if not (series.dtype.is_numeric() or series.dtype == nw.Boolean):
        if series.is_null().all():
            return np.full(len(frame), np.nan)
        raise TypeError(_not_numbers(series, name, role))
    native = series.to_native()
    if frame.implementation.is_pandas():
        return native.to_numpy(dtype=np.float64, na_value=np.nan)
    if frame.implementation.is_pyarrow():
        return native.cast("float64", safe=False).to_numpy(zero_copy_only=False)
    return series.cast(nw.Float64()).to_numpy()


def _not_numbers(series: nw.Series[Any], name: str, role: str) -> str:
    def is_number(value: Any) -> bool:
        try:
            float(value)
        except (TypeError, ValueError):
            return False
        return True

    values = series.drop_nulls()[:10_000].to_list()
    offending = next((value for value in values if not is_number(value)), values[0] if values else None)
    dates = series.dtype.is_temporal() or series.dtype == nw.Object
    advice = "make it a number first, such as days since a date" if dates else "convert it to numbers, or name another column"
    return f"{role}: column {name!r} holds {series.dtype}, not numbers (such as {offending!r}): {advice}."


def missing(frame: Frame, names: Iterable[str], role: str = "data") -> np.ndarray:
    """(N,) bool: rows with a null or a NaN in any of the named columns.

    >>> from jaxglm import frames
    >>> frames.missing(frames.frame({"x": [1.0, float("nan")], "u": ["a", "b"]}), ["x", "u"])
    array([False,  True])
    """
    mask = np.zeros(len(frame), dtype=bool)
    for name in dict.fromkeys(names):
        series = column(frame, name, role)
        mask |= np.asarray(series.is_null().to_numpy(), dtype=bool)
        if series.dtype.is_float():
            mask |= np.isnan(numeric(frame, name, role))
    return mask


def keep(frame: Frame, mask: np.ndarray) -> Frame:
    """The rows where mask, (N,) bool, is true."""
    if mask.all():
        return frame
    return frame.filter(nw.new_series("mask", mask, backend=frame.implementation))


# --- keys -----------------------------------------------------------------------------------------------------------


def keys(frame: Frame, names: Sequence[str], role: str = "by") -> list[Key]:
    """The named columns, factorised: numbers, text, booleans, dates and categoricals alike.

    >>> from jaxglm import frames
    >>> (key,) = frames.keys(frames.frame({"g": ["b", None, "a", "b"]}), ["g"])
    >>> key.codes.tolist(), key.levels.tolist()
    ([1, -1, 0, 1], ['a', 'b'])
    """
    return [_key(column(frame, name, role), name, role) for name in names]


def _key(series: nw.Series[Any], name: str, role: str) -> Key:
    native = series.to_native()
    if series.dtype.is_nested() or series.dtype in (nw.Binary, nw.Unknown):
        raise TypeError(f"{role}: column {name!r} holds {series.dtype}. Keys are numbers, text, booleans, dates or categories.")
    categorical = series.dtype in (nw.Categorical, nw.Enum)
    if series.implementation.is_pandas() and not str(native.dtype).endswith("[pyarrow]"):
        if categorical:
            codes, levels = native.cat.codes.to_numpy(), native.cat.categories.to_numpy()
        else:
            import pandas

            codes, unique = pandas.factorize(native)
            levels = unique.to_numpy() if hasattr(unique, "to_numpy") else np.asarray(unique)
    else:
        codes, levels = _arrow_dictionary(series.to_arrow())
    in_order = categorical and not (series.implementation.is_polars() and series.dtype == nw.Categorical)
    codes, observed = _ranked(np.asarray(codes, dtype=np.int64), levels, in_order)
    return Key(name, codes, observed, levels if in_order else None)


def _arrow_dictionary(array: Any) -> tuple[np.ndarray, np.ndarray]:
    """Codes and values of an arrow array, which is encoded if it is not yet."""
    if "dictionary" not in str(array.type):
        array = array.dictionary_encode()
    if hasattr(array, "chunks"):
        array = array.unify_dictionaries().combine_chunks()
        array = array if hasattr(array, "dictionary") else array.chunk(0)
    codes = array.indices.cast("int64").fill_null(-1)
    return codes.to_numpy(zero_copy_only=False), array.dictionary.to_numpy(zero_copy_only=False)


def _ranked(codes: np.ndarray, levels: np.ndarray, in_order: bool) -> tuple[np.ndarray, np.ndarray]:
    """Codes of the observed levels, sorted unless their order stands already."""
    if levels.dtype == object:
        void = np.array([level is None or level != level for level in levels], dtype=bool)
    else:
        void = levels != levels
    rank = np.full(len(levels) + 1, -1, dtype=np.int64)  # the last entry is what code -1 picks: missing stays missing
    if in_order:
        seen = (np.bincount(codes + 1, minlength=len(levels) + 1)[1:] > 0) & ~void
        rank[:-1][seen] = np.arange(seen.sum())
        observed = levels[seen]
    else:
        observed, rank[:-1][~void] = np.unique(levels[~void], return_inverse=True)
    return rank[codes], observed


# --- out ------------------------------------------------------------------------------------------------------------


def build(columns: Mapping[str, Column], like: Any) -> Any:
    """A table of the kind of `like` (a `Kind`, or any table) from columns of equal length (see `jaxglm.columns.build`).

    >>> import numpy as np
    >>> from jaxglm import frames
    >>> terms = frames.Encoded(np.array([0, 1, 0]), ["Intercept", "x"])
    >>> frames.build({"term": terms, "estimate": np.ones(3)}, like=frames.Kind.PANDAS).shape
    (3, 2)
    """
    return build_table(columns, like if isinstance(like, Kind) else kind_of(like))


def with_columns(frame: Frame, columns: Mapping[str, Column]) -> Any:
    """The user's own table with more columns at its end. ValueError: a name is taken, or a length differs."""
    taken = [name for name in columns if name in frame.columns]
    if taken:
        raise ValueError(
            f"the table already has a column {listed(map(repr, taken))}, which would be overwritten. Rename it or drop it."
        )
    for name, values in columns.items():
        if length(values, name) != len(frame):
            raise ValueError(f"column {name!r} has {length(values, name)} values, and the table {len(frame)} rows.")
    return append(frame.to_native(), columns, kind_of(frame))
