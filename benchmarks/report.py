"""The results as one Markdown page: where it ran, what was promised, one table of times, and who did not take part.

The table has a line for each library that did a problem, the fastest first. Times are medians over the rounds; "~" marks
those extrapolated from some of the fits.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from benchmarks.environment import Environment
from benchmarks.results import Measurement, NotRun, Results
from benchmarks.targets import verdicts

COLUMNS = ("problem", "library", "time", "fits/s", "x naive", "error", "compile", "transfer", "peak memory", "fits run")
BASE = "naive_jax"


def render(results: Results) -> str:
    """The page."""
    parts = [
        "# Benchmarks",
        environment(results),
        targets(results),
        "## Times",
        table(COLUMNS, lines(results)),
        NOTES,
        timed(results.measured),
        skipped(results.not_run),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


NOTES = (
    "time: median over the rounds, in seconds; ~ extrapolated in proportion from the fits run. x naive: how many times faster "
    f"than {BASE}, median of the ratios in each round. error: the largest |b - reference| / max(|reference|, standard error) "
    "over a sample of fits, against Newton's method in NumPy run to the end. compile: the first call less the median; "
    "none where programs of an earlier problem serve. "
    "transfer: of the arrays to the device, in seconds, not in the time. peak memory: of a process that does only this, over "
    "the size of the input arrays."
)


def environment(results: Results) -> str:
    """Where and how."""
    e: Environment = results.environment
    versions = ", ".join(f"{name} {number}" for name, number in e.versions.items())
    on = "" if results.device == "cpu" else f" GPU: {e.device}."
    return (
        f"`{results.command}`\n\n"
        f"{e.processor}, {e.cores} cores with {e.vectors}, {e.memory / 2**30:.0f} GiB, {e.system}.{on} "
        f"A copy reads and writes {e.bandwidth / 1e9:.0f} GB/s. Load at the start: {e.load}. "
        f"Problems at {results.scale:g} of their size. jaxglm at {e.commit or 'no commit'}. {versions}."
    )


def targets(results: Results) -> str:
    """What was promised, where the results say something about it."""
    found = verdicts(results)
    if not found:
        return ""
    bound = {True: "at least", False: "at most"}
    rows = [(v.what, number(v.value), f"{bound[v.least]} {v.bound:g}", "yes" if v.met else "**no**") for v in found]
    small = "" if results.scale >= 1 else "These are about problems of full size, which this run's are not.\n\n"
    return f"## Targets\n\n{small}" + table(("what", "found", "wanted", "met"), rows)


def lines(results: Results) -> Iterable[tuple[str, ...]]:
    """The lines of the table of times."""
    for problem in results.problems:
        base = results.find(problem, BASE)
        measured = sorted((m for m in results.measured if m.problem == problem), key=lambda m: m.seconds)
        for place, m in enumerate(measured):
            title = f"**{m.problem}**: {m.fits:,} x {m.what}" if place == 0 else ""
            yield (title, *line(m, base))


def line(m: Measurement, base: Measurement | None) -> tuple[str, ...]:
    about = "~" if m.extrapolated else ""
    solves = m.error is not None
    return (
        m.library,
        f"{about}{number(m.seconds)}",
        f"{about}{m.fits_per_second:,.0f}" if solves and m.fits > 1 else "",
        number(m.times_faster_than(base)) if base and solves else "",
        f"{m.error:.0e}" if m.error is not None else "",
        number(m.compile_seconds),
        number(m.transfer),
        f"{m.peak_bytes / m.input_bytes:.1f}" if m.peak_bytes else "",
        f"{m.fits_run:,}" if m.extrapolated else "all",
    )


def timed(measured: Iterable[Measurement]) -> str:
    """What each library's time includes."""
    found = {m.library: m.timed for m in measured}
    return "What is timed:\n" + "\n".join(f"- {library}: {what}" for library, what in found.items())


def skipped(not_run: Sequence[NotRun]) -> str:
    """Who did not take part: one line for each library and reason."""
    grouped: dict[tuple[str, str], list[str]] = {}
    for entry in not_run:
        grouped.setdefault((entry.library, entry.reason), []).append(entry.problem)
    if not grouped:
        return ""
    return "## Not run\n\n" + "\n".join(
        f"- {library} ({', '.join(found)}): {reason}" for (library, reason), found in grouped.items()
    )


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [columns, ["---"] * len(columns), *rows])


def number(value: float | None) -> str:
    """Three digits, without powers of ten where they can be helped."""
    if value is None:
        return ""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if value >= 1e-4 or value == 0 else f"{value:.1e}"
