"""Thetas estimated by Cox and Reid's adjusted likelihood, beside glmGamPoi's on the same counts.

    python -m benchmarks.theta [--responses 20000] [--rounds 5] [--out FILE.json]

The counts are those of `workloads.genes`, with theta left to be estimated: so many responses of 48 samples and 6
coefficients, with offsets. Both libraries begin with arrays and end with coefficients, thetas and errors (of glmGamPoi's
time, R's start and reading are left out). One untimed call of each comes first; then they take turns, and the ratio is the
median of those within rounds. CPU time is of all threads, because jaxglm uses all cores and glmGamPoi one.

What is right is checked three ways, on responses spread evenly:

- the derivative of the adjusted profile likelihood by log(theta) at jaxglm's theta, in units of its curvature, hence in
  standard errors: by central differences of a likelihood written here with `scipy`, at coefficients from `checks.reference`;
- coefficients against the same reference at that theta;
- thetas against glmGamPoi's: the median relative difference over all responses for which both are finite.

glmGamPoi holds the means fixed where it adjusts, and stops by a tolerance of its own; jaxglm lets the means follow theta,
as the definition and edgeR have it. The difference between them is in the third check, on purpose.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import environment
from benchmarks.adapters import r
from benchmarks.checks import Fit, reference
from benchmarks.problems import Problem
from benchmarks.timing import REST
from benchmarks.workloads import genes

SEED, FULL = 6, 20_000
SAMPLE = 25  # responses of which the score is looked at
STEP = 1e-3  # of log(theta), of differences of the likelihood
FASTER, APART, SCORE, ERROR = 5.0, 0.01, 1e-5, 1e-8  # what is promised


@dataclass(frozen=True)
class Estimates:
    """coefficients: (g, p); theta: (g,)."""

    coefficients: np.ndarray
    theta: np.ndarray


@dataclass(frozen=True)
class Times:
    """Seconds of each round, of the clock and of all threads together."""

    wall: tuple[float, ...]
    cpu: tuple[float, ...]


@dataclass(frozen=True)
class Report:
    """times: of each library; ratio, cpu_ratio: glmGamPoi's time over jaxglm's, medians over rounds; score, error: the
    largest over the sample; apart: the median relative difference of theta; both_finite: of how many responses that is."""

    responses: int
    times: dict[str, Times]
    ratio: float | None
    cpu_ratio: float | None
    score: float
    error: float
    apart: float | None
    both_finite: int

    @property
    def missed(self) -> list[str]:
        """What is promised and not kept."""
        promises = {
            f"a score of {self.score:.1e} standard errors": self.score <= SCORE,
            f"an error of coefficients of {self.error:.1e}": self.error <= ERROR,
        }
        if self.apart is not None and self.ratio is not None:
            promises[f"thetas {self.apart:.2%} from glmGamPoi's at the median"] = self.apart <= APART
            promises[f"{self.ratio:.1f} times glmGamPoi's speed"] = self.ratio >= FASTER
        return [what for what, kept in promises.items() if not kept]


def problem_of(responses: int) -> Problem:
    """The counts, without their thetas."""
    return replace(genes("estimated_theta", responses, SEED), theta=None)


def by_jaxglm(problem: Problem) -> Callable[[], tuple[Estimates, float, float]]:
    """A call that gives estimates, seconds, and seconds of all threads."""
    import jaxglm

    family = jaxglm.families.NegativeBinomial(adjusted=True)

    def run() -> tuple[Estimates, float, float]:
        wall, cpu = time.perf_counter(), time.process_time()
        fits = jaxglm.fit(problem.X, problem.y, family, offset=problem.offset)
        spent = time.perf_counter() - wall, time.process_time() - cpu
        return Estimates(fits.coefficients, fits.theta), *spent

    return run


def by_glmgampoi(problem: Problem, folder: Path) -> Callable[[], tuple[Estimates, float, float]]:
    """The same by R, by R's own clocks."""
    r.write(folder, {"X": problem.X, "y": problem.y, "offset": problem.offset})
    call = r.script("glmgampoi.R", folder, problem.p)

    def run() -> tuple[Estimates, float, float]:
        answer = call(None)
        with np.errstate(divide="ignore"):
            theta = 1.0 / np.fromfile(folder / "overdispersion.bin")
        return Estimates(answer.coefficients, theta), answer.seconds, float((folder / "cpu_seconds.txt").read_text())

    return run


def adjusted_likelihood(fit: Fit) -> float:
    """Cox and Reid's likelihood of the fit's theta, at the coefficients that are best for it (without log y!)."""
    from scipy.special import gammaln

    assert fit.theta is not None
    theta, offset = fit.theta, 0.0 if fit.offset is None else fit.offset
    mu = np.exp(fit.X @ reference(fit, "negative_binomial").coefficients + offset)
    rows = gammaln(fit.y + theta) - gammaln(theta) - theta * np.log1p(mu / theta) + fit.y * (np.log(mu) - np.log(mu + theta))
    information = (fit.X * (mu / (1.0 + mu / theta))[:, None]).T @ fit.X
    return float(np.sum(rows) - 0.5 * np.linalg.slogdet(information)[1])


def score_of(fit: Fit) -> float:
    """The score of log(theta) in standard errors, from differences over a step and its double."""
    assert fit.theta is not None
    low2, low, here, high, high2 = (
        adjusted_likelihood(replace(fit, theta=fit.theta * np.exp(k * STEP))) for k in (-2, -1, 0, 1, 2)
    )
    slope = (8.0 * (high - low) - (high2 - low2)) / (12.0 * STEP)
    return slope / np.sqrt(abs(high - 2.0 * here + low)) * STEP


def check(problem: Problem, found: Estimates) -> tuple[float, float]:
    """The largest score, and the largest error of coefficients in the sense of `checks`."""
    finite = np.flatnonzero(np.isfinite(found.theta))
    places = finite[np.linspace(0, len(finite) - 1, min(SAMPLE, len(finite))).round().astype(int)]
    score = error = 0.0
    for place in places:
        fit = replace(problem.one(int(place)), theta=float(found.theta[place]))
        known = reference(fit, problem.family)
        unit = np.maximum(np.abs(known.coefficients), known.standard_errors)
        error = max(error, float(np.max(np.abs(found.coefficients[place] - known.coefficients) / unit)))
        score = max(score, abs(score_of(fit)))
    return score, error


def measure(responses: int, rounds: int, say: Callable[[str], None] = lambda line: None) -> Report:
    """Check, then time in turn."""
    problem = problem_of(responses)
    with tempfile.TemporaryDirectory() as folder:
        calls = {"jaxglm": by_jaxglm(problem)}
        if r.has_package("glmGamPoi"):
            calls["glmgampoi"] = by_glmgampoi(problem, Path(folder))
        else:
            say("R has no package glmGamPoi (Bioconductor); jaxglm alone")
        first = {name: call()[0] for name, call in calls.items()}
        score, error = check(problem, first["jaxglm"])
        say(f"largest score {score:.1e} standard errors, largest error of coefficients {error:.1e}")
        taken: dict[str, list[tuple[float, float]]] = {name: [] for name in calls}
        for number in range(rounds):
            for name in list(calls)[:: 1 if number % 2 == 0 else -1]:
                time.sleep(REST)
                taken[name].append(calls[name]()[1:])
            say(f"round {number + 1}: " + ", ".join(f"{name} {taken[name][-1][0]:.2f} s" for name in calls))
    times = {name: Times(*(tuple(column) for column in zip(*turns, strict=True))) for name, turns in taken.items()}
    ratio = cpu_ratio = apart = None
    both = np.isfinite(first["jaxglm"].theta)
    if "glmgampoi" in first:
        both &= np.isfinite(first["glmgampoi"].theta)
        apart = float(np.median(np.abs(first["jaxglm"].theta[both] / first["glmgampoi"].theta[both] - 1.0)))
        ratio = median_ratio(times["glmgampoi"].wall, times["jaxglm"].wall)
        cpu_ratio = median_ratio(times["glmgampoi"].cpu, times["jaxglm"].cpu)
    return Report(responses, times, ratio, cpu_ratio, score, error, apart, int(both.sum()))


def median_ratio(theirs: Sequence[float], ours: Sequence[float]) -> float:
    """The median of the ratios within rounds."""
    return statistics.median(a / b for a, b in zip(theirs, ours, strict=True))


def lines(report: Report) -> list[str]:
    """The report in words, with a row for a table."""
    found = [f"| {report.responses:,} responses x 48 x 6 | wall s | CPU s |", "|---|---|---|"]
    for name, times in report.times.items():
        found.append(f"| {name} | {statistics.median(times.wall):.2f} | {statistics.median(times.cpu):.2f} |")
    if report.ratio is not None and report.cpu_ratio is not None:
        found.append(f"| times faster | {report.ratio:.1f} | {report.cpu_ratio:.1f} |")
    found.append(f"\nLargest score {report.score:.1e} standard errors; coefficients within {report.error:.1e}.")
    if report.apart is not None:
        found.append(f"theta: {report.apart:.2%} from glmGamPoi's at the median of {report.both_finite:,} finite ones.")
    return found + [f"Not kept: {what}." for what in report.missed]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Negative binomial thetas by Cox and Reid, beside glmGamPoi's.")
    parser.add_argument("--responses", type=int, default=FULL)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, help="a JSON file for what was measured")
    given = parser.parse_args(arguments)
    report = measure(given.responses, given.rounds, lambda line: print(line, file=sys.stderr))
    print("\n".join(lines(report)))
    if given.out:
        content: dict[str, Any] = {"environment": asdict(environment.describe("cpu", ["llvmlite"])), **asdict(report)}
        given.out.write_text(json.dumps(content, indent=1) + "\n")
    return 1 if report.missed else 0


if __name__ == "__main__":
    sys.exit(main())
