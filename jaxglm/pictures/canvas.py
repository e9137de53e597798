"""What all pictures share: axes, colours, captions, and labels that do not overlap.

Colours are those of Okabe and Ito, which most colour-blind people tell apart; no picture tells things by colour alone.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np

try:
    from matplotlib import pyplot
    from matplotlib.ticker import LogLocator, MaxNLocator, ScalarFormatter
except ImportError as error:
    raise ImportError('pictures need matplotlib: pip install "jaxglm-batched[plots]"') from error

BLUE, VERMILION, GREEN, ORANGE, SKY, PURPLE = "#0072B2", "#D55E00", "#009E73", "#E69F00", "#56B4E9", "#CC79A7"
GREY, DARK = "0.6", "0.25"
CHARACTERS = 18  # of small print in an inch
PLACES = ((6, 3, "left"), (-6, 3, "right"), (6, -9, "left"), (-6, -9, "right"), (0, 7, "center"))  # of labels, in points


def axes(ax: Any, width: float, height: float) -> Any:
    """The axes given, or those of a new figure of this size in inches."""
    if ax is not None:
        return ax
    return pyplot.subplots(figsize=(width, height), layout="constrained")[1]


def caption(ax: Any, text: str) -> None:
    """Lines below the picture, under the label of the horizontal axis, as wide as the picture."""
    lines = textwrap.fill(text, max(30, int(CHARACTERS * _inches(ax))))
    below = {"xycoords": ("axes fraction", ax.xaxis.label), "xytext": (0, -5), "textcoords": "offset points", "va": "top"}
    ax.annotate(lines, (0, 0), **below, ha="left", fontsize="small", color=DARK, annotation_clip=False)


def _inches(ax: Any) -> float:
    """How wide the axes are."""
    return float(ax.get_window_extent().width / ax.figure.dpi)


def legend(ax: Any, place: str) -> None:
    """A legend inside the picture, if anything is named; points shine through. Marks have their full size and strength."""
    if ax.get_legend_handles_labels()[1]:
        made = ax.legend(loc=place, fontsize="small", framealpha=0.85, edgecolor="none", handletextpad=0.5, borderaxespad=0.3)
        for mark in made.legend_handles:
            mark.set_alpha(None if mark.get_alpha() is None else max(0.8, mark.get_alpha()))
            if hasattr(mark, "set_markersize"):
                mark.set_markersize(max(4.0, mark.get_markersize()))
            if hasattr(mark, "set_sizes"):
                mark.set_sizes([22.0])
            elif hasattr(mark, "set_linewidth") and 0 < np.max(mark.get_linewidth()) < 1.0:
                mark.set_linewidth(1.2)


def headroom(ax: Any, share: float) -> None:
    """Room for a legend above what is drawn, without ticks there."""
    low, high = ax.get_ylim()
    ends = sorted((low, high))
    shown = [tick for tick in ax.get_yticks() if ends[0] <= tick <= ends[1]]
    top = high * (high / low) ** share if ax.get_yscale() == "log" else high + share * (high - low)
    if ax.get_yscale() != "log":
        ax.set_yticks(shown)
    ax.set_ylim(low, top)


def plain_log(axis: Any) -> None:
    """A logarithmic axis whose numbers are plain."""
    axis.axes.set(**{f"{axis.axis_name}scale": "log"})
    low, high = sorted(axis.get_view_interval())
    few = high < 30 * low
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if few else (1.0,)))
    axis.set_major_formatter(ScalarFormatter())
    axis.set_minor_formatter("")


def ticks(axis: Any, whole: bool = False) -> None:
    """Few enough ticks to have room for their numbers; whole: at whole numbers alone."""
    axis.set_major_locator(MaxNLocator(nbins=7, integer=whole))


def name_points(ax: Any, x: np.ndarray, y: np.ndarray, names: Sequence[str]) -> None:
    """Label points, the first ones first, each where it overlaps no other label; without such a place it has none."""
    ax.figure.canvas.figure.draw_without_rendering()  # so that it is known where everything is
    taken: list[Any] = []
    inside = ax.get_window_extent()
    for point_x, point_y, name in zip(x, y, names, strict=True):
        for across, up, side in PLACES:
            label = ax.annotate(
                name, (point_x, point_y), (across, up), textcoords="offset points", ha=side, fontsize="x-small", color=DARK
            )
            box = label.get_window_extent()
            free = not any(box.overlaps(other) for other in taken)
            if free and inside.x0 < box.x0 and box.x1 < inside.x1 and box.y1 < inside.y1:
                taken.append(box)
                break
            label.remove()
