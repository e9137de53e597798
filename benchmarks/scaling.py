"""How time grows with the number of fits, of rows and of coefficients, one at a time: grouped Poisson around one shape."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.problems import Problem
from benchmarks.workloads import Workload, grouped

AXES = {
    "groups": ((10, 200, 8), (100, 200, 8), (1_000, 200, 8), (10_000, 200, 8), (50_000, 200, 8)),
    "rows": ((1_000, 20, 8), (1_000, 60, 8), (1_000, 200, 8), (1_000, 600, 8), (1_000, 2_000, 8), (1_000, 6_000, 8)),
    "columns": ((2_000, 200, 2), (2_000, 200, 4), (2_000, 200, 8), (2_000, 200, 12), (2_000, 200, 16), (2_000, 200, 32)),
}
LIBRARIES = ["jaxglm_solver", "jaxglm_fit", "naive_jax", "native"]


@dataclass(frozen=True)
class Shape:
    """Makes a problem of n rows and p coefficients a fit."""

    axis: str
    n: int
    p: int

    def __call__(self, name: str, size: int, seed: int) -> Problem:
        return grouped(name, "poisson", (size, self.n, self.p), seed, f"Poisson, {self.n} rows x {self.p}, own designs")


def workloads() -> list[Workload]:
    """A workload for each point: scaling-rows-200 is 200 rows a fit."""
    found = []
    for place, (axis, shapes) in enumerate(AXES.items()):
        for g, n, p in shapes:
            value = {"groups": g, "rows": n, "columns": p}[axis]
            found.append(Workload(f"scaling-{axis}-{value}", Shape(axis, n, p), 100 + place, g, smallest=2))
    return found
