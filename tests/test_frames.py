"""Tables in and out, in every kind, and files."""

import datetime as dt
import decimal
import os
import stat
import time

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jaxglm import files, frames
from jaxglm.frames import Encoded, Kind

COLUMNS = {
    "g": ["b", "a", None, "b"],
    "i": [3, 1, 2, 3],
    "x": [1.5, None, 2.5, float("nan")],
    "t": [True, False, True, True],
    "d": [dt.date(2020, 1, 2), dt.date(2020, 1, 1), None, dt.date(2020, 1, 2)],
}
MAKE = {
    "pandas": lambda: pd.DataFrame(COLUMNS),
    "polars": lambda: pl.DataFrame(COLUMNS, strict=False),
    "lazy": lambda: pl.LazyFrame(COLUMNS, strict=False),
    "pyarrow": lambda: pa.table(COLUMNS),
    "duckdb": lambda: duckdb.from_arrow(pa.table(COLUMNS)),
    "arrow-backed": lambda: pa.table(COLUMNS).to_pandas(types_mapper=pd.ArrowDtype),
    "dict": lambda: dict(COLUMNS),
}
KINDS = {"lazy": Kind.POLARS, "polars": Kind.POLARS, "pyarrow": Kind.PYARROW, "duckdb": Kind.PYARROW}


@pytest.fixture(params=list(MAKE))
def made(request):
    return request.param, frames.frame(MAKE[request.param]())


def test_every_table_becomes_a_frame(made):
    name, table = made
    assert table.columns == list(COLUMNS)
    assert len(table) == 4
    assert frames.kind_of(table) is KINDS.get(name, Kind.PANDAS)
    assert frames.frame(table) is table


def test_numbers_missing_and_keep(made):
    _, table = made
    np.testing.assert_array_equal(frames.numeric(table, "x", "x"), [1.5, np.nan, 2.5, np.nan])
    np.testing.assert_array_equal(frames.numeric(table, "t", "x"), [1, 0, 1, 1])
    assert frames.numeric(table, "i", "x").dtype == np.float64
    assert frames.missing(table, ["x"]).tolist() == [False, True, False, True]
    assert frames.missing(table, ["g", "x"]).tolist() == [False, True, True, True]
    assert frames.missing(table, []).tolist() == [False] * 4
    kept = frames.keep(table, ~frames.missing(table, ["x", "g"]))
    assert frames.kind_of(kept) is frames.kind_of(table)
    assert frames.numeric(kept, "i", "x").tolist() == [3.0]
    assert frames.keep(table, np.ones(4, bool)) is table


def test_keys_are_sorted_and_missing_is_minus_one(made):
    _, table = made
    g, i, x, t, d = frames.keys(table, ["g", "i", "x", "t", "d"])
    assert (g.codes.tolist(), g.levels.tolist()) == ([1, 0, -1, 1], ["a", "b"])
    assert (i.codes.tolist(), i.levels.tolist()) == ([2, 0, 1, 2], [1, 2, 3])
    assert (x.codes.tolist(), x.levels.tolist()) == ([0, -1, 1, -1], [1.5, 2.5])
    assert (t.codes.tolist(), t.levels.tolist()) == ([1, 0, 1, 1], [False, True])
    assert d.codes.tolist() == [1, 0, -1, 1]
    assert [str(level)[:10] for level in d.levels] == ["2020-01-01", "2020-01-02"]
    assert all(key.codes.dtype == np.int64 and key.declared is None for key in (g, i, x, t, d))


def test_content(made):
    _, table = made
    assert [frames.content(table, name, "x") for name in COLUMNS] == ["text", "number", "number", "boolean", "time"]


@pytest.mark.parametrize(
    "table",
    [
        pd.DataFrame({"c": pd.Categorical(["lo", "hi", None, "hi"], categories=["none", "lo", "hi"])}),
        pl.DataFrame({"c": pl.Series(["lo", "hi", None, "hi"], dtype=pl.Enum(["none", "lo", "hi"]))}),
        pa.table({"c": pa.DictionaryArray.from_arrays(pa.array([1, 2, None, 2]), ["none", "lo", "hi"])}),
        duckdb.sql("select unnest(['lo','hi',NULL,'hi'])::ENUM('none','lo','hi') c"),
    ],
    ids=["pandas", "polars", "pyarrow", "duckdb"],
)
def test_categories_keep_their_order_and_only_observed_ones_stay(table):
    (key,) = frames.keys(frames.frame(table), ["c"])
    assert (key.codes.tolist(), key.levels.tolist()) == ([0, 1, -1, 1], ["lo", "hi"])
    assert key.declared.tolist() == ["none", "lo", "hi"]


def test_polars_categoricals_are_sorted_like_text():
    table = pl.DataFrame({"c": pl.Series(["z", "a", "z"], dtype=pl.Categorical)})
    (key,) = frames.keys(frames.frame(table), ["c"])
    assert (key.codes.tolist(), key.levels.tolist(), key.declared) == ([1, 0, 1], ["a", "z"], None)


def test_chunks_with_different_dictionaries():
    chunks = pa.chunked_array([pa.array(["a", "b"]).dictionary_encode(), pa.array(["c", "b"]).dictionary_encode()])
    (key,) = frames.keys(frames.frame(pa.table({"c": chunks})), ["c"])
    assert key.levels[key.codes].tolist() == ["a", "b", "c", "b"]


def test_negative_zero_and_nullable_integers_as_keys():
    for table in (pa.table({"z": [0.0, -0.0, 1.0]}), pd.DataFrame({"z": [0.0, -0.0, 1.0]})):
        assert frames.keys(frames.frame(table), ["z"])[0].codes.tolist() == [0, 0, 1]
    (key,) = frames.keys(frames.frame(pd.DataFrame({"i": pd.array([5, None, 2], dtype="Int64")})), ["i"])
    assert (key.codes.tolist(), key.levels.tolist(), key.levels.dtype.kind) == ([1, -1, 0], [2, 5], "i")


def test_times_with_zones_are_keys():
    stamps = pd.to_datetime(["2020-01-02", "2020-01-01"]).tz_localize("UTC")
    assert frames.keys(frames.frame(pd.DataFrame({"s": stamps})), ["s"])[0].codes.tolist() == [1, 0]


def test_object_columns_get_the_type_of_their_values():
    table = frames.frame(
        pd.DataFrame(
            {
                "s": pd.Series(["b", None, "a"], dtype=object),
                "b": pd.Series([True, None, False], dtype=object),
                "n": pd.Series([decimal.Decimal("1.5"), None, decimal.Decimal("2")], dtype=object),
                "i": pd.Series([1, None, 3], dtype=object),
                "e": pd.Series([None, None, None], dtype=object),
                "m": pd.Series([1, "a", None], dtype=object),
                "d": pd.Series([dt.date(2020, 1, 1), None, dt.date(2019, 1, 1)], dtype=object),
            }
        )
    )
    assert [frames.content(table, name, "x") for name in "sbnid"] == ["text", "boolean", "number", "number", "time"]
    np.testing.assert_array_equal(frames.numeric(table, "n", "x"), [1.5, np.nan, 2.0])
    np.testing.assert_array_equal(frames.numeric(table, "b", "x"), [1, np.nan, 0])
    np.testing.assert_array_equal(frames.numeric(table, "e", "x"), [np.nan] * 3)
    assert [k.codes.tolist() for k in frames.keys(table, ["s", "b", "i", "d"])] == [
        [1, -1, 0],
        [1, -1, 0],
        [0, -1, 1],
        [1, -1, 0],
    ]
    with pytest.raises(TypeError, match=r"weights: column 'm' mixes types \(int: 1, str: 'a'\)"):
        frames.numeric(table, "m", "weights")


def test_a_null_column_is_all_missing():
    for table in (pa.table({"x": pa.nulls(2), "y": [1, 2]}), pl.DataFrame({"x": [None, None]})):
        made = frames.frame(table)
        assert frames.missing(made, ["x"]).all()
        assert np.isnan(frames.numeric(made, "x", "x")).all()


def test_what_is_no_table():
    with pytest.raises(TypeError, match=r"not ndarray of shape \(2, 2\)\. Arrays go to jaxglm\.fit"):
        frames.frame(np.zeros((2, 2)))
    with pytest.raises(TypeError, match="samples must be a table"):
        frames.frame([1, 2], "samples")
    with pytest.raises(TypeError, match="A file is read first"):
        frames.frame("data.csv")
    with pytest.raises(TypeError, match="not NoneType"):
        frames.frame(None)


@pytest.mark.parametrize("table", [pd.DataFrame([[1, 2, 3]], columns=list("aba")), pa.table([[1], [2]], names=["a", "a"])])
def test_duplicated_names_are_named(table):
    with pytest.raises(ValueError, match="data has duplicated column names: 'a'"):
        frames.frame(table)


@pytest.mark.parametrize("empty", [pd.DataFrame({"a": []}), pl.DataFrame({"a": []}), pa.table({"a": pa.array([])}), {"a": []}])
def test_no_rows(empty):
    with pytest.raises(ValueError, match=r"data has no rows \(its columns: a\)"):
        frames.frame(empty)


def test_no_columns_uneven_columns_and_matrices():
    for empty in (pd.DataFrame(), pl.DataFrame(), {}):
        with pytest.raises(ValueError, match="no columns"):
            frames.frame(empty)
    with pytest.raises(ValueError, match="different lengths \\('a': 1, 'b': 2\\)"):
        frames.frame({"a": [1], "b": [1, 2]})
    with pytest.raises(ValueError, match=r"column 'a' has shape \(2, 2\)"):
        frames.frame({"a": np.zeros((2, 2))})
    assert frames.frame(pd.DataFrame(np.zeros((2, 2)))).columns == ["0", "1"]


def test_unknown_columns_and_text_where_numbers_belong(made):
    _, table = made
    with pytest.raises(
        ValueError, match=r"weights: the table has no column 'G'\. Did you mean 'g'\? Its columns: g, i, x, t, d"
    ):
        frames.column(table, "G", "weights")
    with pytest.raises(TypeError, match="offset: column 'g' holds String, not numbers \\(such as 'b'\\)"):
        frames.numeric(table, "g", "offset")
    with pytest.raises(TypeError, match="days since a date"):
        frames.numeric(table, "d", "offset")
    with pytest.raises(TypeError, match="such as 'two'"):
        frames.numeric(frames.frame({"w": ["1", "two"]}), "w", "weights")


def test_lists_are_no_keys():
    with pytest.raises(TypeError, match="by: column 'l' holds List"):
        frames.keys(frames.frame(pl.DataFrame({"l": [[1], [2]]})), ["l"])


@pytest.mark.parametrize("kind", list(Kind))
def test_build_answers_in_kind(kind):
    columns = {
        "term": Encoded(np.array([0, 1, 0, -1]), ["Intercept", "x"]),
        "key": Encoded(np.array([0, 1, 1, 0]), np.array([7, 9])),
        "name": np.array(["a", "b", None, "d"], dtype=object),
        "day": np.array(["2020-01-01"] * 4, dtype="datetime64[D]"),
        "estimate": np.array([1.0, np.nan, 3.0, 4.0]),
        "ok": np.array([True, False, True, True]),
    }
    native = frames.build(columns, kind)
    table = frames.frame(native)
    assert frames.kind_of(native) is kind
    assert frames.content(table, "term", "x") == "category"
    assert table["term"].to_list()[:3] == ["Intercept", "x", "Intercept"]
    assert frames.missing(table, ["term"]).tolist() == [False, False, False, True]
    assert frames.numeric(table, "key", "x").tolist() == [7, 9, 9, 7]
    assert frames.content(table, "name", "x") == "text"
    assert frames.content(table, "day", "x") == "time"
    np.testing.assert_array_equal(frames.numeric(table, "estimate", "x"), columns["estimate"])
    assert type(frames.build({"a": np.ones(1)}, native)) is type(native)


def test_build_refuses_uneven_columns():
    with pytest.raises(ValueError, match="different lengths"):
        frames.build({"a": np.ones(1), "b": np.ones(2)}, Kind.PANDAS)
    with pytest.raises(ValueError, match="one dimension"):
        frames.build({"a": np.ones((1, 2))}, Kind.PANDAS)


def test_build_is_cheap_for_repeated_text():
    codes = np.tile(np.arange(8), 100_000)
    for kind in Kind:
        start = time.perf_counter()
        table = frames.build({"term": Encoded(codes, [f"t{i}" for i in range(8)]), "b": np.ones(800_000)}, kind)
        assert time.perf_counter() - start < 1.0
        assert len(table) == 800_000


def test_with_columns_keeps_the_users_table(made):
    _, table = made
    native = frames.with_columns(table, {"fitted": np.arange(4.0), "status": Encoded(np.zeros(4, int), ["converged"])})
    assert type(native) is type(table.to_native())
    again = frames.frame(native)
    assert again.columns == [*COLUMNS, "fitted", "status"]
    assert "fitted" not in table.columns
    assert frames.numeric(again, "fitted", "x").tolist() == [0, 1, 2, 3]
    with pytest.raises(ValueError, match="already has a column 'x'"):
        frames.with_columns(table, {"x": np.ones(4)})
    with pytest.raises(ValueError, match="column 'f' has 3 values, and the table 4 rows"):
        frames.with_columns(table, {"f": np.ones(3)})


def test_with_columns_keeps_the_index():
    native = pd.DataFrame({"x": [1, 2, 3]}, index=[7, 7, 9])
    kept = frames.keep(frames.frame(native), np.array([True, False, True]))
    out = frames.with_columns(kept, {"f": np.array([10.0, 20.0])})
    assert out.index.tolist() == [7, 9]
    assert out["f"].tolist() == [10.0, 20.0]


@pytest.mark.parametrize("name", ["t.csv", "t.csv.gz", "t.parquet", "t.arrow", "t.feather", "t.ipc"])
def test_files_round_trip(tmp_path, name):
    path = tmp_path / "new" / "folder" / name
    x = np.array([0.1, 1 / 3, 1e-300, np.pi, np.nan])
    labels = Encoded(np.array([0, 1, 0, 1, 0]), ["a,b", 'say "c"'])
    for kind in Kind:
        files.write(frames.build({"x": x, "u": labels, "n": np.arange(5)}, kind), path)
        assert files.schema(path) == ["x", "u", "n"]
        table = frames.frame(files.read(path))
        np.testing.assert_array_equal(frames.numeric(table, "x", "x"), x)
        assert table["u"].to_list()[:2] == ["a,b", 'say "c"']
        assert files.read(path, columns=["n", "x"]).column_names == ["n", "x"]
    assert [p.name for p in path.parent.iterdir()] == [name]


def test_csv_missing_values_are_rs(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("x,u,b\n1,a,TRUE\nNA,NA,FALSE\n,,NA\nNaN,null,TRUE\n")
    table = frames.frame(files.read(path))
    np.testing.assert_array_equal(frames.numeric(table, "x", "x"), [1, np.nan, np.nan, np.nan])
    assert table["u"].to_list() == ["a", None, None, None]
    assert frames.content(table, "b", "x") == "boolean"


def test_csv_types_that_change_late_are_widened(tmp_path):
    path = tmp_path / "a.csv"
    rows = ["1,1,,2020-01-01"] * 200_000
    path.write_text("\n".join(["i,s,n,d", *rows, "1.5,3+,x,soon"]) + "\n")
    table = frames.frame(files.read(path))
    assert frames.numeric(table, "i", "x")[-1] == 1.5
    assert [table[name].to_list()[-1] for name in "snd"] == ["3+", "x", "soon"]
    assert table["s"].to_list()[0] == "1"
    assert files.read(path, columns=["s"])["s"].to_pylist()[-1] == "3+"


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no file"):
        files.read(tmp_path / "a.csv")
    (tmp_path / "counts.csv").write_text("a\n1\n")
    with pytest.raises(FileNotFoundError, match=r"Did you mean 'counts\.csv'"):
        files.read(tmp_path / "count.csv")
    with pytest.raises(ValueError, match="is a folder"):
        files.read(tmp_path)
    (tmp_path / "a.xlsx").write_text("x")
    with pytest.raises(ValueError, match=r"the ending '\.xlsx' is not one of \.csv, \.csv\.gz"):
        files.read(tmp_path / "a.xlsx")
    with pytest.raises(ValueError, match=r"has no column 'b'\..* Its columns: a"):
        files.read(tmp_path / "counts.csv", columns=["b"])
    for name in ("e.csv", "e.parquet", "e.arrow"):
        (tmp_path / name).write_bytes(b"")
        with pytest.raises(ValueError, match="is empty"):
            files.read(tmp_path / name)


@pytest.mark.parametrize("name", ["t.parquet", "t.arrow", "t.csv.gz"])
def test_truncated_files(tmp_path, name):
    path = tmp_path / name
    files.write({"x": np.random.default_rng(0).normal(size=5000)}, path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="cannot be read as") as caught:
        files.read(path)
    assert "\n" not in str(caught.value)
    path.write_bytes(b"not a table at all")
    for ask in (files.read, files.schema):
        with pytest.raises(ValueError, match="cannot be read as"):
            ask(path)


def test_ragged_csv(tmp_path):
    (tmp_path / "r.csv").write_text("a,b\n1,2\n3\n")
    with pytest.raises(ValueError, match="Expected 2 columns, got 1"):
        files.read(tmp_path / "r.csv")


def test_arrow_streams_are_read_too(tmp_path):
    table = pa.table({"x": [1.0]})
    with pa.OSFile(str(tmp_path / "s.arrow"), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    assert files.read(tmp_path / "s.arrow").equals(table)


def test_columns_of_parquet_are_read_alone(tmp_path):
    pq.write_table(pa.table({"a": [1], "b": [2], "c": [3]}), tmp_path / "a.parquet")
    assert files.read(tmp_path / "a.parquet", columns=["c", "a"]).to_pydict() == {"c": [3], "a": [1]}


def test_files_that_cannot_be_written(tmp_path):
    with pytest.raises(ValueError, match=r"ending '\.txt'"):
        files.write({"a": [1]}, tmp_path / "a.txt")
    (tmp_path / "d.csv").mkdir()
    with pytest.raises(OSError, match="it is a folder"):
        files.write({"a": [1]}, tmp_path / "d.csv")
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="cannot write"):
        files.write({"a": [1]}, tmp_path / "file" / "a.csv")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="may write everywhere")
def test_a_folder_without_permission(tmp_path):
    tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    with pytest.raises(OSError, match=r"cannot write .*Permission denied"):
        files.write({"a": [1]}, tmp_path / "a.csv")


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.csv"
    files.write({"a": [1]}, path)

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "_write_as", fail)
    with pytest.raises(OSError, match=r"cannot write .*No space left"):
        files.write({"a": [2]}, path)
    assert files.read(path)["a"].to_pylist() == [1]
    assert [p.name for p in tmp_path.iterdir()] == ["a.csv"]
