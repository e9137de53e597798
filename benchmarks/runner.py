"""Problems times libraries: prepare, check, time.

Nothing is timed before its coefficients were compared with the reference. What goes wrong in a library is a reason in the
report and stops nothing. With `isolate`, every library is run once more on every problem in a process of its own, from
which the peak memory is taken; times come from the shared process, where all libraries take turns.
"""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks import environment, timing
from benchmarks.adapters.interface import CannotRun, Job, Library, Setting
from benchmarks.checks import Found, References, faults, largest_error
from benchmarks.problems import Problem
from benchmarks.results import Measurement, NotRun
from benchmarks.workloads import Workload


@dataclass(frozen=True)
class Plan:
    """What is run. say: takes a line about progress."""

    workloads: Sequence[Workload]
    libraries: Sequence[Library]
    scale: float
    repeats: int
    device: str
    patience: float
    say: Callable[[str], None]


@dataclass(frozen=True)
class Checked:
    """A job whose first call was right. first: its seconds; error: the largest; iterations: the mean, where known."""

    library: Library
    job: Job
    first: float
    error: float | None
    iterations: float | None


def run(plan: Plan) -> Iterator[tuple[list[Measurement], list[NotRun]]]:
    """All problems, one after the other; only one is in memory at a time."""
    for workload in plan.workloads:
        plan.say(f"{workload.name}: making the data")
        problem = workload.problem(plan.scale, plan.device)
        with tempfile.TemporaryDirectory() as folder:
            yield run_problem(plan, problem, Setting(plan.device, environment.cores(), Path(folder)))
        del problem


def run_problem(plan: Plan, problem: Problem, setting: Setting) -> tuple[list[Measurement], list[NotRun]]:
    """One problem on all libraries: checked one by one, then timed in turn."""
    references = References(problem)
    ready: dict[str, Checked] = {}
    not_run = []
    for library in plan.libraries:
        outcome = check(problem, references, library, setting)
        if isinstance(outcome, Checked):
            ready[library.name] = outcome
            error = "" if outcome.error is None else f", error {outcome.error:.1e}"
            plan.say(f"{problem.name}: {library.name} is right{error}; first call {outcome.first:.3g} s")
        else:
            not_run.append(NotRun(problem.name, library.name, outcome))
            plan.say(f"{problem.name}: {library.name} not run: {outcome}")
    turns = timing.interleaved({name: one.job for name, one in ready.items()}, plan.repeats, plan.patience)
    return [measurement(problem, ready[name], taken) for name, taken in turns.items()], not_run


def check(problem: Problem, references: References, library: Library, setting: Setting) -> Checked | str:
    """Prepare a job, run it once, and compare. Returns the reason where it is not to be timed."""
    missing = library.missing(setting.device)
    if missing:
        return missing
    try:
        job = library.prepare(problem, setting)
        first = timing.turn(job, least=0.0)
        found = job.found(first.result)
        if not library.solves:
            return Checked(library, job, first.seconds, None, None)
        wrong = judge(problem, references, library, job, found)
    except CannotRun as reason:
        return plain(str(reason))
    except Exception as problem_of_theirs:  # a peer's failure is a result
        return plain(f"{type(problem_of_theirs).__name__}: {problem_of_theirs}")
    if isinstance(wrong, str):
        return wrong
    iterations = None if found.iterations is None else float(np.mean(found.iterations))
    return Checked(library, job, first.seconds, wrong, iterations)


def judge(problem: Problem, references: References, library: Library, job: Job, found: Found) -> float | str:
    """The largest error, or what is wrong, in words."""
    if len(found.coefficients) != len(job.places):
        return f"returned {len(found.coefficients)} fits of {len(job.places)}"
    error = largest_error(problem, references, job.places, found.coefficients)
    if not error <= library.tolerance:
        return f"wrong: error {error:.1e}, allowed {library.tolerance:.0e}"
    missed = faults(problem, job.places, found)
    return f"wrong: {', '.join(missed)}" if missed else error


def measurement(problem: Problem, checked: Checked, turns: Sequence[timing.Turn]) -> Measurement:
    library, job = checked.library, checked.job
    transfers = [turn.transfer for turn in turns if turn.transfer is not None]
    return Measurement(
        problem=problem.name,
        what=problem.what,
        library=library.name,
        timed=library.timed,
        fits=problem.fits,
        rows=problem.rows,
        p=problem.p,
        fits_run=len(job.places),
        runs=tuple(turn.seconds for turn in turns),
        first=checked.first,
        compiles=library.compiles,
        transfer=statistics.median(transfers) if transfers else None,
        error=checked.error,
        allowed=library.tolerance,
        iterations=checked.iterations,
        pass_bytes=problem.pass_bytes,
        input_bytes=problem.input_bytes,
    )


def peaks(plan: Plan, pairs: Iterable[tuple[str, str]]) -> dict[tuple[str, str], int]:
    """The peak memory of each (problem, library), each in a process of its own that makes the data and runs once. Libraries
    that are programs of their own have none: theirs is not this process's memory."""
    programs = {library.name for library in plan.libraries if library.program}
    found = {}
    for problem, library in pairs:
        if library in programs:
            continue
        plan.say(f"{problem}: {library} in a process of its own")
        command = [sys.executable, "-m", "benchmarks", "--peak", "--problem", problem, "--library", library]
        command += ["--scale", repr(plan.scale), "--device", plan.device]
        root = str(Path(__file__).parents[1])
        where = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))}
        try:
            said = subprocess.run(command, capture_output=True, text=True, check=True, env=where, timeout=timing.LIMIT)
            found[problem, library] = int(said.stdout.split()[-1])
        except subprocess.SubprocessError:
            plan.say(f"{problem}: {library} did not finish there")
    return found


def peak(plan: Plan) -> int:
    """The peak memory of this process after one problem on one library."""
    problem = plan.workloads[0].problem(plan.scale, plan.device)
    with tempfile.TemporaryDirectory() as folder:
        plan.libraries[0].prepare(problem, Setting(plan.device, environment.cores(), Path(folder))).once()
    return environment.peak_memory()


def plain(reason: str) -> str:
    """In one short line, without folders."""
    line = " ".join(reason.split())
    return re.sub(r"(?:/[\w.+@-]+)+/", "", line)[:200]
