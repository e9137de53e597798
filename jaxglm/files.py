"""Tables in files: CSV, compressed CSV, Parquet and Arrow, told apart by the end of the name.

Reading gives a pyarrow table, and only the columns that are asked for. Writing goes to a temporary name in the same
folder, which takes the real name once everything is written: a reader never meets half a file, and a crash leaves the
old one. Numbers in CSV have all their digits, so that what is read is what was written; NaN is an empty cell there.

In CSV the cells ``""``, ``NA``, ``NaN``, ``nan`` and ``null`` are missing values, as R would have it. Types are guessed
from the first block of a file; where a later block disagrees, the column is widened: whole numbers to numbers, anything
to text.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

from jaxglm.errors import did_you_mean, listed
from jaxglm.frames import frame

try:
    import pyarrow
    import pyarrow.compute as compute
    import pyarrow.csv as csv
    import pyarrow.parquet as parquet
except ImportError as error:
    raise ImportError("files need pyarrow: pip install 'jaxglm-batched[tables]'") from error

Format: TypeAlias = Literal["csv", "csv.gz", "parquet", "arrow"]

ENDINGS: dict[str, Format] = {
    ".csv": "csv",
    ".csv.gz": "csv.gz",
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
    ".ipc": "arrow",
}
MISSING = ["", "NA", "NaN", "nan", "null"]


def format_of(path: str | os.PathLike[str]) -> Format:
    """The format that a file's name stands for. ValueError: an ending that is not known.

    >>> from jaxglm import files
    >>> files.format_of("results/tidy.csv.gz")
    'csv.gz'
    """
    name = Path(path).name.lower()
    for ending in sorted(ENDINGS, key=len, reverse=True):
        if name.endswith(ending):
            return ENDINGS[ending]
    suffix = Path(path).suffix
    raise ValueError(
        f"{os.fspath(path)}: the ending {suffix!r} is not one of {listed(ENDINGS, 9)}.{did_you_mean(suffix, ENDINGS)}"
    )


def read(path: str | os.PathLike[str], columns: Sequence[str] | None = None) -> Any:
    """A pyarrow table from a file; `columns`: only those, in this order.

    FileNotFoundError: no such file. ValueError: a folder, an unknown ending, an empty or damaged file, or no such column.

    >>> import tempfile, pathlib
    >>> from jaxglm import files
    >>> path = pathlib.Path(tempfile.mkdtemp(), "a.csv")
    >>> _ = path.write_text("x,u\\n1.5,a\\nNA,b\\n")
    >>> files.read(path, columns=["x"])["x"].to_pylist()
    [1.5, None]
    """
    form = _checked(path)
    if columns is not None:
        known = schema(path)
        for name in columns:
            if name not in known:
                raise ValueError(
                    f"{os.fspath(path)} has no column {name!r}.{did_you_mean(name, known)} Its columns: {listed(known, 20)}."
                )
    wanted = None if columns is None else list(columns)
    with _clear_errors(path, form):
        if form == "parquet":
            with parquet.ParquetFile(path) as file:
                table = file.read(columns=wanted)
        elif form == "arrow":
            table = _arrow_file(path).read_all()
        else:
            table = _read_csv(path, wanted)
    return table if wanted is None else table.select(wanted)


def schema(path: str | os.PathLike[str]) -> list[str]:
    """The names of a file's columns, without reading the data. Errors as `read`."""
    form = _checked(path)
    with _clear_errors(path, form):
        if form == "parquet":
            return list(parquet.read_schema(path).names)
        if form == "arrow":
            return list(_arrow_file(path).schema.names)
        with csv.open_csv(path) as reader:
            return list(reader.schema.names)


def _checked(path: str | os.PathLike[str]) -> Format:
    place = Path(path)
    if place.is_dir():
        raise ValueError(f"{place} is a folder. Name one file in it.")
    if not place.exists():
        near = [other.name for other in place.parent.iterdir()] if place.parent.is_dir() else []
        raise FileNotFoundError(f"there is no file {place}.{did_you_mean(place.name, near)}")
    form = format_of(place)
    if place.stat().st_size == 0:
        raise ValueError(f"{place} is empty.")
    return form


@contextlib.contextmanager
def _clear_errors(path: str | os.PathLike[str], form: str) -> Iterator[None]:
    """What pyarrow says of a damaged file, in one line."""
    try:
        yield
    except (pyarrow.ArrowException, OSError, EOFError) as error:
        if isinstance(error, PermissionError):
            raise PermissionError(f"cannot read {os.fspath(path)}: permission denied.") from error
        reason = str(error).strip().split("\n")[0]
        raise ValueError(f"{os.fspath(path)} cannot be read as {form}; is it whole, and of that format? ({reason})") from error


def _arrow_file(path: str | os.PathLike[str]) -> Any:
    """A reader of Arrow's file format, or of its stream format."""
    source = pyarrow.memory_map(os.fspath(path))
    if source.read(6) == b"ARROW1":
        return pyarrow.ipc.open_file(source)
    source.seek(0)
    return pyarrow.ipc.open_stream(source)


def _read_csv(path: str | os.PathLike[str], columns: list[str] | None) -> Any:
    types: dict[str, Any] = {}
    names = schema(path)
    while True:
        options = csv.ConvertOptions(
            null_values=MISSING, strings_can_be_null=True, include_columns=columns or [], column_types=types
        )
        try:
            return csv.read_csv(path, convert_options=options)
        except pyarrow.ArrowInvalid as error:
            found = re.search(r"In CSV column #(\d+): CSV conversion error to (\w+)", str(error))
            if found is None or int(found[1]) >= len(names):
                raise
            name = names[int(found[1])]
            if types.get(name) == pyarrow.string():
                raise
            whole = found[2] in ("int64", "null") and name not in types
            types[name] = pyarrow.float64() if whole else pyarrow.string()


def write(table: Any, path: str | os.PathLike[str]) -> None:
    """Writes any table in the format that the file's name stands for; missing folders are made.

    ValueError: an ending that is not known. OSError: the place cannot be written to.

    >>> import tempfile, pathlib
    >>> from jaxglm import files
    >>> path = pathlib.Path(tempfile.mkdtemp(), "new", "a.parquet")
    >>> files.write({"x": [0.1, 0.2]}, path)
    >>> files.schema(path)
    ['x']
    """
    form, place = format_of(path), Path(path)
    data = frame(table, "the table to write").to_arrow()
    if place.is_dir():
        raise OSError(f"cannot write {place}: it is a folder.")
    temporary = place.with_name(f".{place.name}.{os.getpid()}.tmp")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        _write_as(data, temporary, form)
        os.replace(temporary, place)
    except OSError as error:
        reason = error.strerror or str(error).split("\n")[0]
        raise OSError(error.errno, f"cannot write {place}: {reason}") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def write_csv(table: Any, sink: Any) -> None:
    """Writes any table as CSV to an open binary file."""
    csv.write_csv(_plain(frame(table, "the table to write").to_arrow()), sink, csv.WriteOptions(quoting_style="needed"))


def _write_as(data: Any, path: Path, form: Format) -> None:
    if form == "parquet":
        parquet.write_table(data, path)
    elif form == "arrow":
        with pyarrow.OSFile(os.fspath(path), "wb") as sink, pyarrow.ipc.new_file(sink, data.schema) as writer:
            writer.write_table(data)
    else:
        compression = "gzip" if form == "csv.gz" else None
        with pyarrow.output_stream(os.fspath(path), compression=compression) as sink:
            write_csv(data, sink)


def _plain(data: Any) -> Any:
    """Dictionaries spread out, and NaN as an empty cell, for CSV."""
    for i, field in enumerate(data.schema):
        column = data.column(i)
        if pyarrow.types.is_dictionary(field.type):
            data = data.set_column(i, field.name, column.cast(field.type.value_type))
        elif pyarrow.types.is_floating(field.type):
            data = data.set_column(i, field.name, compute.if_else(compute.is_nan(column), None, column))
    return data
