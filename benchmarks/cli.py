"""The command line: what to run, where the results go, and progress on standard error."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks import adapters, environment, plots, report, runner, scaling, workloads
from benchmarks.results import Results


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser("python -m benchmarks", description="Time jaxglm and its peers on named problems.")
    made.add_argument("--problem", nargs="+", default=[], metavar="NAME", help="problems, or the beginning of their names")
    made.add_argument("--library", nargs="+", default=[], metavar="NAME", help="libraries")
    made.add_argument("--scale", type=float, default=1.0, help="size of the problems, as a fraction")
    made.add_argument("--repeats", type=int, default=5, help="rounds in which every library is timed")
    made.add_argument("--patience", type=float, default=60.0, help="seconds of timing after which a library sits out")
    made.add_argument("--device", choices=("cpu", "gpu"), default="cpu")
    made.add_argument("--isolate", action="store_true", help="measure peak memory too, in a process for each library")
    made.add_argument("--scaling", action="store_true", help="time against groups, rows and columns, instead of the problems")
    made.add_argument("--out", type=Path, default=Path("results"), help="folder for results.json, results.md and plots")
    made.add_argument("--render", action="store_true", help="write the page and the plots again from results.json in --out")
    made.add_argument("--list", action="store_true", help="name problems and libraries, and what is missing here")
    made.add_argument("--peak", action="store_true", help=argparse.SUPPRESS)  # what --isolate runs
    return made


def main(words: Sequence[str] | None = None) -> int:
    """Run; returns the exit status."""
    words = sys.argv[1:] if words is None else words
    arguments = parser().parse_args(words)
    if arguments.device == "cpu":
        os.environ.setdefault("JAX_PLATFORMS", "cpu")
    try:
        plan = plan_of(arguments)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if arguments.list:
        return show(plan)
    if arguments.peak:
        print(runner.peak(plan))
        return 0
    arguments.out.mkdir(parents=True, exist_ok=True)
    saved = arguments.out / ("scaling.json" if arguments.scaling else "results.json")
    if not arguments.render:
        measure(plan, arguments, shlex.join(["python", "-m", "benchmarks", *without_folder(words)]), saved)
    results = Results.load(saved)
    (arguments.out / saved.with_suffix(".md").name).write_text(report.render(results))
    drawn = plots.draw(results, arguments.out)
    print(report.render(results))
    plan.say(f"wrote {', '.join([saved.name, saved.with_suffix('.md').name, *drawn])}")
    return 0


def plan_of(arguments: argparse.Namespace) -> runner.Plan:
    """What was asked for. Raises ValueError for unknown names."""
    chosen = scaling.workloads() if arguments.scaling else workloads.named(arguments.problem)
    libraries = arguments.library or (scaling.LIBRARIES if arguments.scaling else [])
    return runner.Plan(
        workloads=chosen,
        libraries=adapters.named(libraries),
        scale=arguments.scale,
        repeats=arguments.repeats,
        device=arguments.device,
        patience=arguments.patience,
        say=lambda line: print(line, file=sys.stderr, flush=True),
    )


def measure(plan: runner.Plan, arguments: argparse.Namespace, command: str, saved: Path) -> None:
    """Run the plan, and save after every problem what there is."""
    distributions = [library.distribution for library in plan.libraries if library.distribution]
    around = environment.describe(plan.device, distributions)
    results = Results(around, command, plan.scale, plan.device, (), ())
    for measured, not_run in runner.run(plan):
        results = replace(results, measured=(*results.measured, *measured), not_run=(*results.not_run, *not_run))
        results.save(saved)
    if arguments.isolate and not arguments.scaling:
        whole = [(m.problem, m.library) for m in results.measured if not m.extrapolated]
        results.with_memory(runner.peaks(plan, whole)).save(saved)


def without_folder(words: Sequence[str]) -> list[str]:
    """The command line without --out, which says where somebody keeps things."""
    kept, skip = [], False
    for word in words:
        if skip or word == "--out" or word.startswith("--out="):
            skip = word == "--out"
        else:
            kept.append(word)
    return kept


def show(plan: runner.Plan) -> int:
    print("problems:", *(workload.name for workload in plan.workloads), sep="\n  ")
    print("libraries:")
    for library in plan.libraries:
        missing = library.missing(plan.device)
        print(f"  {library.name}: {library.timed}" + (f" (not here: {missing})" if missing else ""))
    return 0
