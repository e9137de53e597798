"""What conclusions cost beside the fit: `python -m benchmarks.inference [--scale S] [--rounds K]`.

Robust covariances and marginal effects should cost less than the fit that they follow, a likelihood-ratio test not much more
than a fit for each reduced model, and a million Wald tests with false-discovery control half a second. Each number is the
median, over the rounds, of the ratio to a fit made in the same round.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.problems import Problem
from benchmarks.workloads import named

SHAPES = ("grouped_logistic", "grouped_poisson", "ragged_logistic", "shared_nb", "wide")
CLUSTERS = 20
TESTS = 1_000_000


@dataclass(frozen=True)
class Measured:
    """Median seconds, and the median ratio to a fit in the same round."""

    what: str
    seconds: float
    fits: float


def fitted(problem: Problem) -> Any:
    """A problem's fits, as its users make them."""
    import jaxglm

    family: Any = problem.family if problem.family != "gamma" else jaxglm.families.Gamma("log")
    if problem.theta is not None:
        family = jaxglm.families.NegativeBinomial(problem.theta)
    groups = None if problem.bounds is None else np.repeat(np.arange(problem.fits), np.diff(problem.bounds))
    return jaxglm.fit(problem.X, problem.y, family, weights=problem.weights, offset=problem.offset, groups=groups)


def conclusions(problem: Problem) -> Iterator[tuple[str, Callable[[Any], Any], int]]:
    """What is concluded from a result: its name, how, and how many reduced models are fitted for it."""
    rows = len(problem.y) if problem.layout == "ragged" else problem.X.shape[-2]
    clusters = np.arange(rows) % CLUSTERS
    for type in ("HC0", "HC3"):
        yield type, lambda fit, type=type: fit.robust(type), 1
    yield f"{CLUSTERS} clusters", lambda fit: fit.robust("cluster", clusters), 1
    yield "effects", lambda fit: fit.effects("x2"), 1
    yield "effects of all", lambda fit: fit.effects(), 1
    yield "drop1, a term", lambda fit: fit.drop1(["x2"], test="lr"), 1
    yield "drop1, each of three", lambda fit: fit.drop1(["x2", "x3", "x4"], test="lr"), 3


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds and what came out."""
    begin = time.perf_counter()
    found = work()
    return time.perf_counter() - begin, found


def measure(problem: Problem, rounds: int) -> list[Measured]:
    """All conclusions of one problem; a first round compiles."""
    made: dict[str, list[tuple[float, float]]] = {}
    for turn in range(rounds + 1):
        for what, conclude, models in conclusions(problem):
            fit_seconds, fit = timed(lambda: fitted(problem))
            seconds, _ = timed(lambda fit=fit, conclude=conclude: conclude(fit))  # type: ignore[misc]
            if turn:
                made.setdefault(what, []).append((seconds, seconds / fit_seconds / models))
    return [
        Measured(what, statistics.median(s for s, _ in pairs), statistics.median(r for _, r in pairs))
        for what, pairs in made.items()
    ]


def tests(rounds: int) -> float:
    """Seconds for a million Wald tests with false-discovery control."""
    import jaxglm

    rng = np.random.default_rng(0)
    X = np.column_stack([np.ones(12), rng.standard_normal((12, 3))])
    fit = jaxglm.fit(X, rng.standard_normal((TESTS // 4, 12)))
    return statistics.median(timed(lambda: jaxglm.adjust(fit.p_values, "bh"))[0] for _ in range(rounds))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.inference", description=__doc__)
    parser.add_argument("--scale", type=float, default=0.1, help="of the problems' full size")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--problem", nargs="*", default=list(SHAPES))
    chosen = parser.parse_args()
    warnings.simplefilter("ignore")
    print("| problem | conclusion | seconds | fits |\n| --- | --- | --- | --- |")
    for workload in named(chosen.problem):
        for found in measure(workload.problem(chosen.scale), chosen.rounds):
            print(f"| {workload.name} | {found.what} | {found.seconds:.3g} | {found.fits:.2f} |", flush=True)
    print(f"\n{TESTS:,} Wald tests with false-discovery control: {tests(chosen.rounds):.3g} s")


if __name__ == "__main__":
    main()
