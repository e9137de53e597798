"""The main job at size: a table of ragged groups, from a Parquet file through the command line.

    python benchmarks/ragged_table.py [groups] [uniform|loguniform]

It writes a table of Poisson counts with an exposure, groups of 5 to 400 rows in random order and four coefficients, runs
`jaxglm fit` on it in a process of its own, and prints the wall time and the peak memory beside the size of the columns.
Whether the coefficients are right is checked on a sample of groups: the score at the estimates must be zero.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq


def simulate(groups: int, sizes: str, seed: int = 1) -> pa.Table:
    """The table: g, y, x1, x2, x3, t (exposure)."""
    rng = np.random.default_rng(seed)
    even, log = rng.integers(5, 401, groups), rng.uniform(np.log(5), np.log(401), groups)
    n = even if sizes == "uniform" else np.exp(log).astype(int)
    g = np.repeat(np.arange(groups), n)
    x, t = rng.normal(size=(len(g), 3)), rng.uniform(0.5, 2.0, len(g))
    b = rng.normal(0.0, 0.3, (groups, 4))
    y = rng.poisson(t * np.exp(b[g, 0] + np.sum(x * b[g, 1:], axis=1)))
    order = rng.permutation(len(g))
    columns = {"g": g, "y": y, "x1": x[:, 0], "x2": x[:, 1], "x3": x[:, 2], "t": t}
    return pa.table({name: values[order] for name, values in columns.items()})


def largest_score(table: pa.Table, tidy: pa.Table, sample: int = 200) -> float:
    """The largest score at the estimates, in standard errors, over the first converged groups."""
    data = {name: table[name].to_numpy() for name in table.column_names}
    frame = tidy.to_pandas()
    frame = frame[frame["status"] == "converged"]
    worst = 0.0
    for key in frame["g"].unique()[:sample]:
        b, error = (frame.loc[frame["g"] == key, name].to_numpy() for name in ("estimate", "std_error"))
        inside = data["g"] == key
        X = np.column_stack([np.ones(inside.sum())] + [data[name][inside] for name in ("x1", "x2", "x3")])
        mu = data["t"][inside] * np.exp(X @ b)
        worst = max(worst, float(np.max(np.abs(X.T @ (data["y"][inside] - mu)) * error)))
    return worst


def main() -> None:
    groups = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    sizes = sys.argv[2] if len(sys.argv) > 2 else "loguniform"
    table = simulate(groups, sizes)
    with tempfile.TemporaryDirectory() as folder:
        pq.write_table(table, f"{folder}/data.parquet")
        command = [sys.executable, "-m", "jaxglm", "fit", f"{folder}/data.parquet", "y ~ x1 + x2 + x3"]
        command += ["--family", "poisson", "--by", "g", "--exposure", "t", "--out", f"{folder}/out"]
        began = time.perf_counter()
        subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
        seconds = time.perf_counter() - began
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
        score = largest_score(table, pq.read_table(Path(folder, "out", "tidy.parquet")))
    columns = table.num_rows * table.num_columns * 8
    print(f"{groups:,} groups, {table.num_rows:,} rows: {seconds:.1f} s, everything included")
    allowed = 4 * columns + 600e6
    print(f"peak memory {peak / 1e6:,.0f} MB; columns {columns / 1e6:,.0f} MB; 4 x columns + 600 MB = {allowed / 1e6:,.0f} MB")
    print(f"largest score at the estimates of 200 groups: {score:.1e} standard errors")


if __name__ == "__main__":
    main()
