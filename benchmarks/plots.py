"""Pictures of the results: fits a second beside the peers, how time grows, and how near the memory's limit a solver comes.

jaxglm is in colour, the two yardsticks are dark, peers grey. Times range over four powers of ten, so axes are logarithmic
and values are points, since a bar on a logarithmic axis has no beginning.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.report import number
from benchmarks.results import Measurement, Results
from benchmarks.scaling import AXES

OURS, YARDSTICK, PEER = "#0b6fb8", "#222222", "#7d7d7d"
YARDSTICKS = ("naive_jax", "native")
STYLES = {"jaxglm_solver": ("-", "o"), "jaxglm_fit": ("--", "s"), "naive_jax": ("-", "^"), "native": (":", "D")}
SOLVERS = ("jaxglm_solver", "jaxglm_fit", "naive_jax", "native")
PANELS = 3  # in a row


def draw(results: Results, folder: Path) -> list[str]:
    """Draw what there is to draw; names of the files, none without matplotlib."""
    if importlib.util.find_spec("matplotlib") is None:
        return []
    import matplotlib

    matplotlib.use("Agg")
    drawn = []
    if any(m.problem.startswith("scaling-") for m in results.measured):
        drawn += [_save(scaling(results), folder, "scaling.png")]
    elif results.measured:
        drawn += [_save(fits(results), folder, "fits.png")]
        if any(m.roofline(results.environment.bandwidth) for m in results.measured if m.library in SOLVERS):
            drawn += [_save(roofline(results), folder, "roofline.png")]
    return drawn


def _save(figure: Any, folder: Path, name: str) -> str:
    import matplotlib.pyplot as plt

    figure.savefig(folder / name, dpi=150)
    plt.close(figure)
    return name


def colour(library: str) -> str:
    return OURS if library.startswith("jaxglm") else YARDSTICK if library in YARDSTICKS else PEER


def fits(results: Results) -> Any:
    """A panel for each problem: fits a second of every library, the fastest on top. Hollow where extrapolated."""
    import matplotlib.pyplot as plt

    problems = results.problems
    shown = {name: [m for m in results.measured if m.problem == name and m.error is not None] for name in problems}
    shown = {name: sorted(found, key=lambda m: m.fits_per_second) for name, found in shown.items() if found}
    down = -(-len(shown) // PANELS)
    tallest = max(len(found) for found in shown.values())
    size = (4.4 * min(PANELS, len(shown)), down * (0.9 + 0.24 * tallest))
    figure, axes = plt.subplots(down, min(PANELS, len(shown)), figsize=size, squeeze=False, layout="constrained")
    for axis, (name, found) in zip(axes.flat, shown.items(), strict=False):
        _dots(axis, found)
        shape = f"{found[0].fits:,} x {found[0].rows // found[0].fits:,} rows x {found[0].p}"
        axis.set_title(f"{name}\n{shape}", fontsize=9, loc="left")
    for axis in axes.flat[len(shown) :]:
        axis.set_visible(False)
    figure.supxlabel("fits a second (hollow: extrapolated from some of the fits)", fontsize=9)
    return figure


def _dots(axis: Any, found: Sequence[Measurement]) -> None:
    """Points with their values, one line each."""
    values = [m.fits_per_second for m in found]
    lowest, highest = min(values), max(values)
    for y, m in enumerate(found):
        fill = "white" if m.extrapolated else colour(m.library)
        axis.plot([lowest / 2, values[y]], [y, y], color="#e3e3e3", linewidth=1, zorder=1)
        axis.plot(values[y], y, "o", markersize=6, color=colour(m.library), markerfacecolor=fill, zorder=2)
        axis.annotate(number(values[y]), (values[y], y), (7, 0), textcoords="offset points", va="center", fontsize=7.5)
    axis.set_xscale("log")
    axis.set_xlim(lowest / 2, highest * max(3.0, (highest / lowest) ** 0.35))
    axis.set_yticks(range(len(found)), [m.library for m in found], fontsize=8)
    for label, m in zip(axis.get_yticklabels(), found, strict=True):
        label.set_color(colour(m.library))
    axis.tick_params(axis="x", labelsize=7.5)
    axis.set_ylim(-0.6, len(found) - 0.4)
    _bare(axis)


def roofline(results: Results) -> Any:
    """How near the solvers come to reading the data once an iteration at the bandwidth of a copy."""
    import matplotlib.pyplot as plt

    bandwidth = results.environment.bandwidth
    problems = [name for name in results.problems if any(results.find(name, library) for library in SOLVERS)]
    figure, axis = plt.subplots(figsize=(7.5, 1.2 + 0.42 * len(problems)), layout="constrained")
    for library in SOLVERS:
        found = [(y, results.find(name, library)) for y, name in enumerate(reversed(problems))]
        points = [(m.roofline(bandwidth), y) for y, m in found if m is not None]
        points = [(x, y) for x, y in points if x]
        if points:
            fill = "white" if STYLES[library][0] == "--" else colour(library)
            style: dict[str, Any] = {"color": colour(library), "markerfacecolor": fill, "markersize": 7, "label": library}
            axis.plot(*zip(*points, strict=True), STYLES[library][1], **style)
    axis.axvline(1.0, color="#c44", linewidth=1)
    axis.set_xscale("log")
    axis.xaxis.set_major_formatter(lambda value, _: f"{value:.4g}" if value < 1 else f"{value:.0f}")
    axis.set_yticks(range(len(problems)), list(reversed(problems)), fontsize=8)
    axis.set_ylim(-0.6, len(problems) - 0.4)
    axis.set_xlabel(
        f"time of reading the data once an iteration at {bandwidth / 1e9:.0f} GB/s (a copy, read and written), over the time\n"
        "taken. At the line a solver is as fast as memory; beyond it the data stay in the cache",
        fontsize=8,
    )
    axis.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    _bare(axis)
    return figure


def scaling(results: Results) -> Any:
    """Time against groups, rows and columns, all axes logarithmic."""
    import matplotlib.pyplot as plt

    kinds: dict[str, tuple[str, Callable[[Measurement], float]]] = {
        "groups": ("fits", lambda m: m.fits),
        "rows": ("rows a fit", lambda m: m.rows / m.fits),
        "columns": ("coefficients a fit", lambda m: m.p),
    }
    figure, axes = plt.subplots(1, len(AXES), figsize=(4.2 * len(AXES), 3.6), layout="constrained")
    for axis, (name, (label, where)) in zip(axes, kinds.items(), strict=True):
        points = [m for m in results.measured if m.problem.startswith(f"scaling-{name}-") and m.error is not None]
        for library, (line, marker) in STYLES.items():
            own = sorted((m for m in points if m.library == library), key=where)
            xs, ys = [where(m) for m in own], [1e9 * m.seconds / m.rows for m in own]
            axis.plot(xs, ys, marker + line, color=colour(library), markersize=5, label=library)
        fixed = _fixed(points[0], name) if points else ""
        axis.set(xscale="log", yscale="log", xlabel=f"{label}{fixed}")
        ticks = sorted({where(m) for m in points})
        axis.set_xticks(ticks, [f"{tick:,.0f}" for tick in ticks], fontsize=8)
        axis.minorticks_off()
        axis.set_ylabel("nanoseconds a row, all iterations" if axis is axes[0] else "")
        _bare(axis)
    axes[0].legend(fontsize=8, frameon=False)
    title = "Grouped Poisson: time a row against the number of fits, rows and coefficients"
    figure.suptitle(title, fontsize=10, x=0.01, ha="left")
    return figure


def _fixed(m: Measurement, axis: str) -> str:
    """What is held while one thing changes."""
    shape = {"groups": f"{m.fits:,} fits", "rows": f"{m.rows // m.fits:,} rows", "columns": f"{m.p} coefficients"}
    return f" ({', '.join(text for name, text in shape.items() if name != axis)})"


def _bare(axis: Any) -> None:
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
    axis.grid(axis="both", color="#eeeeee", linewidth=0.6)
    axis.set_axisbelow(True)
