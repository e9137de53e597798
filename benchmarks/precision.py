"""Whether single precision would pay inside a fit in double precision: `python -m benchmarks.precision [--rounds K]`.

A fit has to end in float64. Before that, float32 could serve in two ways, and both give the same answers where they arrive:

- *early*: whole passes in float32 as far as it goes, and a fit in float64 that starts where they have led;
- *hessian*: every pass in float64 but for its Gram matrix, X'WX, which only turns the step.

Both are tried here by lanes of a CPU, with the same functions that a fit calls. `early` is the time of both kernels in units of
a fit; `hessian` the time of a step in units of a step in float64; `single` the same of a step that is all float32, which
bounds what either could save. Below 1 is faster. Ratios are medians of those within rounds.

What a ratio does not show: a Gram matrix summed up in float32 knows seven digits, which columns with a large mean (years, say)
use up, so that fits which are quick now would need the careful way.
"""

from __future__ import annotations

import argparse
import operator
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.problems import Problem
from benchmarks.timing import REST
from benchmarks.workloads import named
from jaxglm import families
from jaxglm.designs import Paired, from_pairs
from jaxglm.irls import IRLS, lanes
from jaxglm.irls.plain import iterate
from jaxglm.irls.problem import pose
from jaxglm.irls.solution import Solution, nothing
from jaxglm.irls.working import working
from jaxglm.linalg import small_solve
from jaxglm.rows import Rows, accumulate

SHAPES = ("grouped_logistic", "grouped_poisson", "wide")
ENOUGH = 0.03  # standard errors, to which passes in float32 go
STEPS = (1, 5)  # of which the difference tells the time of one


@dataclass(frozen=True)
class Early:
    """Asked of a fit: where passes in the precision of its rows lead. p: columns."""

    p: int

    def __call__(self, rows: Rows, family: Any, known: None) -> Any:
        problem = pose(rows, family, jnp.ones(self.p, rows.y.dtype), watched=False)
        return iterate(problem, IRLS(tol=ENOUGH)).coefficients


@dataclass(frozen=True)
class Steps:
    """Asked of a fit: where steps lead from zero. p: columns; gram: the type of X'WX."""

    p: int
    gram: str

    def __call__(self, rows: Rows, family: Any, count: jax.Array) -> jax.Array:
        p, zero = self.p, jnp.zeros((), count.dtype)

        def step(state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            taken, coefficients = state

            def look(part: Rows) -> tuple[jax.Array, jax.Array]:
                row = working(family, part, part.eta(coefficients))
                design = Paired(part.design.matrix().T.astype(self.gram))
                pairs = design.normal(row.weights.astype(self.gram), jnp.zeros((1, len(row.weights)), self.gram))[0]
                return pairs, part.design.transposed_dot(row.scores[None])

            gram, scores = accumulate(rows, look, lambda a, b: jax.tree.map(operator.add, a, b))
            increments = small_solve(from_pairs(gram.astype(zero.dtype), p), scores, jnp.ones(p, bool))[1]
            return taken + 1, coefficients + increments[:, 0]

        return jax.lax.while_loop(lambda state: state[0] < count, step, (zero, jnp.zeros(p, zero.dtype)))[1]


@dataclass(frozen=True)
class Ways:
    """Ways to fit a problem by lanes. job: of whole fits in float64."""

    job: lanes.Job

    @classmethod
    def of(cls, problem: Problem) -> Ways:
        """Of fits with designs of their own."""
        g, n, _ = problem.X.shape
        family = families.named(problem.family, link=problem.link)
        rows = lanes.Rows(problem.X, problem.y, problem.weights, problem.offset, np.zeros(g, np.int64), np.full(g, n, np.int64))
        return cls(lanes.Job(rows, family, None, None, IRLS(), np.dtype(np.float64)))

    @property
    def groups(self) -> np.ndarray:
        return np.arange(len(self.job.rows.sizes))

    def whole(self, start: np.ndarray | None = None) -> Solution:
        """Fits in float64."""
        found = nothing(len(self.groups), self.job.rows.p)
        lanes.solve(replace(self.job, start=start), found, self.groups)
        return found

    def early(self) -> Solution:
        """Passes in float32, and fits in float64 from there."""
        job = replace(self.job, dtype=np.dtype(np.float32), one=Early(self.job.rows.p))
        return self.whole(np.asarray(lanes.ask(job, self.groups), float))

    def steps(self, count: int, kind: str, gram: str) -> np.ndarray:
        """Coefficients after so many steps from zero, in one precision and with X'WX in one."""
        counts = np.full(len(self.groups), float(count))
        job = replace(self.job, dtype=np.dtype(kind), one=Steps(self.job.rows.p, gram), known=counts)
        return np.asarray(lanes.ask(job, self.groups))


@dataclass(frozen=True)
class Measured:
    """Of a problem, in milliseconds a fit and a step in float64, and the ratios of the other ways to these."""

    name: str
    fit: float
    step: float
    early: float
    hessian: float
    single: float


def measure(problem: Problem, rounds: int) -> Measured:
    """All ways in turn, each called once before."""
    ways = Ways.of(problem)
    kinds = {"double": ("float64", "float64"), "hessian": ("float64", "float32"), "single": ("float32", "float32")}
    calls: dict[Any, Callable[[], Any]] = {"whole": ways.whole, "early": ways.early}
    for what, (kind, gram) in kinds.items():
        for count in STEPS:
            calls[what, count] = lambda count=count, kind=kind, gram=gram: ways.steps(count, kind, gram)
    for call in calls.values():
        call()
    taken: list[dict[Any, float]] = []
    for _ in range(rounds):
        time.sleep(REST)
        seconds = {}
        for what, call in calls.items():
            begin = time.perf_counter()
            call()
            seconds[what] = time.perf_counter() - begin
        taken.append(seconds)
    few, many = STEPS
    steps = {what: [(one[what, many] - one[what, few]) / (many - few) for one in taken] for what in kinds}

    def against_double(what: str) -> float:
        return statistics.median(a / b for a, b in zip(steps[what], steps["double"], strict=True))

    return Measured(
        name=problem.name,
        fit=1e3 * statistics.median(one["whole"] for one in taken),
        step=1e3 * statistics.median(steps["double"]),
        early=statistics.median(one["early"] / one["whole"] for one in taken),
        hessian=against_double("hessian"),
        single=against_double("single"),
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Whether float32 would pay inside of fits in float64.")
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--rounds", type=int, default=7)
    given = parser.parse_args(arguments)
    print("| problem | fit, ms | step, ms | early | hessian | single |\n|---|---|---|---|---|---|")
    for workload in named(list(SHAPES)):
        found = measure(workload.problem(given.scale), given.rounds)
        ratios = " | ".join(f"{ratio:.2f}" for ratio in (found.early, found.hessian, found.single))
        print(f"| {found.name} | {found.fit:.1f} | {found.step:.1f} | {ratios} |", flush=True)


if __name__ == "__main__":
    main()
