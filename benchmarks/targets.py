"""What jaxglm promises, as comparisons that a run either meets or not.

Each target is a number taken from the results and a bound. A ratio of two libraries on one problem is the median of the
ratios in each round; only comparisons across problems divide medians.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.results import Results

Value = Callable[[Results], float | None]


@dataclass(frozen=True)
class Target:
    """what: in words; value: from results, None where something was not measured; bound: the least or the largest allowed;
    least: which of the two; device: that it is about; full: whether it is about problems of full size only."""

    what: str
    value: Value
    bound: float
    least: bool = True
    device: str = "cpu"
    full: bool = False

    def met(self, value: float) -> bool:
        return value >= self.bound if self.least else value <= self.bound


@dataclass(frozen=True)
class Verdict:
    """A target that could be looked at."""

    what: str
    value: float
    bound: float
    least: bool
    met: bool


def faster(problem: str, ours: str, theirs: str) -> Value:
    """How many times faster one library is than another, in proportion to the fits that each of them does."""

    def value(results: Results) -> float | None:
        a, b = results.find(problem, ours), results.find(problem, theirs)
        return a.times_faster_than(b) if a and b else None

    return value


def row_time(problem: str, other: str, library: str = "jaxglm_fit") -> Value:
    """The time a row on one problem, over that on another."""

    def value(results: Results) -> float | None:
        a, b = results.find(problem, library), results.find(other, library)
        return (a.seconds / a.rows) / (b.seconds / b.rows) if a and b else None

    return value


def seconds(problem: str, library: str) -> Value:
    """The time."""

    def value(results: Results) -> float | None:
        found = results.find(problem, library)
        return found.seconds if found else None

    return value


def memory(problem: str, library: str) -> Value:
    """Peak memory over the size of the input."""

    def value(results: Results) -> float | None:
        found = results.find(problem, library)
        return found.peak_bytes / found.input_bytes if found and found.peak_bytes else None

    return value


def over_roofline(problem: str, library: str) -> Value:
    """The time, over that of reading the data once an iteration at copy bandwidth."""

    def value(results: Results) -> float | None:
        found = results.find(problem, library)
        fraction = found.roofline(results.environment.bandwidth) if found else None
        return 1.0 / fraction if fraction else None

    return value


def over_transfer(problem: str) -> Value:
    """The time from host arrays to results, over that of moving the arrays to the device."""

    def value(results: Results) -> float | None:
        whole, solver = results.find(problem, "jaxglm_fit"), results.find(problem, "jaxglm_solver")
        return whole.seconds / solver.transfer if whole and solver and solver.transfer else None

    return value


def _grouped(problem: str) -> list[Target]:
    return [
        Target(f"{problem}: solver against naive JAX", faster(problem, "jaxglm_solver", "naive_jax"), 8),
        Target(f"{problem}: solver against native", faster(problem, "jaxglm_solver", "native"), 0.4),
        Target(f"{problem}: arrays to results against naive JAX's solver", faster(problem, "jaxglm_fit", "naive_jax"), 5),
        Target(f"{problem}: against polars-statistics", faster(problem, "jaxglm_fit", "polars_statistics"), 20),
        Target(f"{problem}: against a statsmodels loop", faster(problem, "jaxglm_fit", "statsmodels"), 40),
        Target(f"{problem}: solver over one reading an iteration", over_roofline(problem, "jaxglm_solver"), 2.5, False, "gpu"),
        Target(f"{problem}: solver against naive JAX", faster(problem, "jaxglm_solver", "naive_jax"), 3, True, "gpu"),
        Target(f"{problem}: arrays to results over the transfer", over_transfer(problem), 1.3, False, "gpu"),
    ]


def _large(problem: str) -> list[Target]:
    peers = {"statsmodels": 2, "glum": 1, "naive_jax": 1}
    return [Target(f"{problem}: against {peer}", faster(problem, "jaxglm_fit", peer), bound) for peer, bound in peers.items()]


TARGETS = (
    *_grouped("grouped_logistic"),
    *_grouped("grouped_poisson"),
    Target("ragged: time a row over grouped_logistic's", row_time("ragged_logistic", "grouped_logistic"), 1.6, False),
    Target("ragged: with flawed groups over without", faster("ragged_logistic", "jaxglm_good", "jaxglm_fit"), 1.3, False),
    Target("million_logistic: seconds", seconds("million_logistic", "jaxglm_fit"), 8, False, full=True),
    Target("million_logistic: peak memory over input", memory("million_logistic", "jaxglm_fit"), 2.5, False, full=True),
    Target("shared_nb: against edgeR", faster("shared_nb", "jaxglm_fit", "edger"), 4),
    Target("bootstrap: against naive JAX", faster("bootstrap", "jaxglm_fit", "naive_jax"), 5),
    Target("scan: at plink2's tolerance against plink2", faster("scan", "jaxglm_loose", "plink2"), 1.5),
    *_large("wide"),
    *_large("single_big"),
    Target("shared_nb: seconds", seconds("shared_nb", "jaxglm_solver"), 0.005, False, "gpu", full=True),
    Target("scan: seconds", seconds("scan", "jaxglm_fit"), 0.3, False, "gpu", full=True),
)


def verdicts(results: Results) -> list[Verdict]:
    """Every target that these results say something about."""
    found = []
    for target in TARGETS:
        if target.device != results.device or (target.full and results.scale < 1):
            continue
        value = target.value(results)
        if value is not None:
            found.append(Verdict(target.what, value, target.bound, target.least, target.met(value)))
    return found
