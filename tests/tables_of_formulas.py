"""Tables that the tests of formulas share, and the kinds they come in."""

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa

from jaxglm import formula, frames

RNG = np.random.default_rng(7)
N = 40
CONTRACEPTION = {
    "use": np.where(RNG.random(N) < 0.4, "Y", "N"),
    "age": RNG.integers(-14, 20, N),
    "urban": np.where(np.arange(N) % 3 == 0, "Y", "N"),
    "livch": np.array(["0", "1", "2", "3+"])[np.arange(N) % 4],
    "district": np.arange(N) % 5,
}
KINDS = {
    "pandas": pd.DataFrame,
    "polars": pl.DataFrame,
    "pyarrow": pa.table,
    "duckdb": lambda columns: duckdb.from_arrow(pa.table(columns)),
}

X = np.array([1.0, 2.0, 3.0, 5.0, 8.0, 13.0])
TABLE = {
    "y": np.array([0.0, 1, 0, 1, 1, 0]),
    "x": X,
    "k": np.array([1, 2, 3, 1, 2, 3]),
    "u": np.array(["b", "a", "c", "a", "b", "c"]),
    "v": np.array(["p", "p", "q", "q", "p", "q"]),
    "t": np.array([True, False, True, False, False, True]),
}


def make(text, data, **options):
    table = frames.frame(data)
    return formula.materialise(formula.parse(text, columns=table.columns, **options), table)
