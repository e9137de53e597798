"""How the fits went: the steps they took, by what became of them."""

from __future__ import annotations

from typing import Any

import numpy as np

from jaxglm.pictures import canvas
from jaxglm.status import Status

STYLES = {
    Status.CONVERGED: (canvas.BLUE, ""),
    Status.SEPARATED: (canvas.ORANGE, "///"),
    Status.MAX_ITERATIONS: (canvas.PURPLE, "\\\\\\"),
    Status.STEP_FAILED: (canvas.VERMILION, "xxx"),
    Status.NO_DATA: ("0.75", "..."),
    Status.INVALID_DATA: (canvas.DARK, "ooo"),
}
WIDEST = 40  # numbers of steps that have a bar each


def states(result: Any, ax: Any) -> Any:
    """See `Pictured.plot_status`."""
    status, steps = result.solution.status, result.solution.n_iterations
    found = [state for state in Status if np.any(status == state)]
    most = int(steps.max(initial=0))
    edges = np.arange(most + 2) if most < WIDEST else np.unique(np.linspace(0, most + 1, WIDEST + 1).astype(int))
    counts = np.stack([np.histogram(steps[status == state], edges)[0] for state in found] or [np.zeros(len(edges) - 1, int)])
    middle, width = (edges[:-1] + edges[1:] - 1) / 2.0, 0.86 * np.diff(edges)
    beside = np.maximum(np.sum(counts > 0, axis=0), 1)  # bars that share a number of steps
    place = np.cumsum(counts > 0, axis=0) - 0.5 - beside / 2.0
    ax = canvas.axes(ax, 6.4, 3.6)
    for state, count, at in zip(found, counts, place, strict=False):
        color, hatch = STYLES[state]
        used = count > 0
        name = f"{state.label.replace('_', ' ')} ({int(count.sum()):,})"
        style = {"color": color, "hatch": hatch, "edgecolor": "white", "linewidth": 0, "label": name}
        share = width[used] / beside[used]
        ax.bar(middle[used] + at[used] * share, count[used], share, **style)
    highest = counts.max(initial=1)
    if highest > 50:
        ax.set_yscale("log")
        ax.set_ylim(0.5, 2.0 * highest)
    else:
        canvas.ticks(ax.yaxis, whole=True)
    first = int(steps.min(initial=0))
    ax.set_xlim(first - 0.6, most + 0.6)
    canvas.ticks(ax.xaxis, whole=True)
    ax.set_xlabel("steps of the iteration")
    ax.set_ylabel("fits (log scale)" if highest > 50 else "fits")
    codes, _ = result._verdicts()
    fine = f"{int(np.sum(codes == 0)):,} of {len(result):,} fits are ok by their verdict"
    aliased = int(np.sum(result.solution.aliased.any(axis=1) & (status <= Status.MAX_ITERATIONS)))
    infinite = int(np.sum((result.solution.infinite != 0).any(axis=1)))
    more = [f"{number:,} with {what}" for number, what in ((infinite, "infinite terms"), (aliased, "aliased terms")) if number]
    canvas.caption(ax, "; ".join([fine, *more]))
    canvas.legend(ax, "upper right")
    return ax
