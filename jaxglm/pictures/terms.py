"""One term over all groups: forest, volcano and funnel.

An infinite estimate is a triangle at the edge to which it goes. Aliased terms and fits without an estimate are counted in
the caption, and so is whatever has no error.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from jaxglm import wald
from jaxglm.errors import did_you_mean, listed
from jaxglm.irls.solution import is_lost
from jaxglm.pictures import canvas
from jaxglm.status import Status

LABELLED = 80  # groups of a forest that have a label each
FAR = 1.5  # of the range of nine tenths of the estimates: those further away are at the edge of the picture
THICK = 250  # groups of a forest beyond which lines are thin
NAMED = 10  # points of a volcano that are named


@dataclass(frozen=True)
class Term:
    """One term of g fits, arrays (g,). drawn: has an estimate and an error; infinite: -1, 0, 1; notes: what is not drawn
    and how often."""

    name: str
    axis: str
    estimate: np.ndarray
    error: np.ndarray
    low: np.ndarray
    high: np.ndarray
    log10_p: np.ndarray
    n_obs: np.ndarray
    infinite: np.ndarray
    drawn: np.ndarray
    notes: dict[str, int]

    @property
    def mean(self) -> float:
        """The mean of what is drawn, weighted by precision; NaN if nothing is."""
        weights = np.where(self.drawn & (self.error > 0), 1.0 / np.maximum(self.error, 1e-150) ** 2, 0.0)
        return float(np.sum(weights * np.where(self.drawn, self.estimate, 0.0)) / weights.sum()) if weights.any() else np.nan

    def caption(self, shown: str = "") -> str:
        """What is drawn, and what is not."""
        total, count = len(self.drawn), int(self.drawn.sum())
        text = f"{count:,} of {total:,} groups" if count < total else f"{total:,} groups"
        missing = ", ".join(f"{number:,} {note}" for note, number in self.notes.items() if number)
        return ". ".join(part for part in (text + shown, f"Not shown: {missing}" if missing else "") if part)


def position(result: Any, term: Any) -> int:
    """Which of the terms it is. Raises ValueError for an unknown one."""
    if term not in result.names:
        raise ValueError(f"there is no term {term!r}.{did_you_mean(term, result.names)} Terms: {listed(result.names, 20)}")
    return int(result.names.index(term))


def term_of(result: Any, term: Any, level: float = 0.95) -> Term:
    """A term's numbers over all groups. Raises ValueError for one fit, and for an unknown term."""
    if not result.many:
        raise ValueError("this is one fit; a picture of a term over groups needs many. Look at conf_int() or summary()")
    j, solution = position(result, term), result.solution
    interval = result.conf_int(level)[:, j]
    estimate, error = result.coefficients[:, j], result.standard_errors[:, j]
    infinite, lost = solution.infinite[:, j], np.asarray(is_lost(solution.status))
    drawn = np.isfinite(estimate) & np.isfinite(error) & (infinite == 0)
    aliased = solution.aliased[:, j] & ~lost
    notes = {
        Status(code).label.replace("_", " "): int(np.sum(solution.status[lost] == code))
        for code in np.unique(solution.status[lost])
    }
    notes["aliased"] = int(aliased.sum())
    notes["without an error"] = int(np.sum(~drawn & ~lost & ~aliased & (infinite == 0)))
    link = result.family.link.name
    return Term(
        name=term,
        axis=f"{term}, estimate" + ("" if link == "identity" else f" ({link} scale)"),
        estimate=estimate,
        error=error,
        low=interval[:, 0],
        high=interval[:, 1],
        log10_p=result.log10_p_values[:, j],
        n_obs=solution.n_obs,
        infinite=np.where(lost, 0, infinite),
        drawn=drawn,
        notes=notes,
    )


def names_of(result: Any) -> list[str]:
    """The groups in words."""
    return [", ".join(map(str, label)) if isinstance(label, tuple) else str(label) for label in result.groups]


def reach(found: Term, intervals: bool) -> tuple[float, float]:
    """A horizontal range: zero, all estimates but those far from most, and their intervals but for the widest."""
    if not found.drawn.any():
        return -1.0, 1.0
    estimate, low, high = (values[found.drawn] for values in (found.estimate, found.low, found.high))
    first, last = np.quantile(estimate, [0.05, 0.95])
    far = FAR * max(last - first, 1e-12 * abs(last))
    near = (estimate >= first - far) & (estimate <= last + far) if far > 0 else np.ones(len(estimate), bool)
    ends = [estimate[near].min(), estimate[near].max()]
    if intervals:
        wide = 2.0 * np.quantile(high - low, 0.75)
        ends = [max(low[near].min(), ends[0] - wide), min(high[near].max(), ends[1] + wide)]
    ends = [min(ends[0], 0.0), max(ends[1], 0.0)]
    margin = 0.05 * (ends[1] - ends[0]) or 1.0
    return float(ends[0] - margin), float(ends[1] + margin)


def _references(ax: Any, found: Term) -> None:
    ax.axvline(0.0, color=canvas.GREY, linewidth=0.8, zorder=1)
    if np.isfinite(found.mean):
        style = {"color": canvas.ORANGE, "linewidth": 1.3, "linestyle": "--", "zorder": 5}
        ax.axvline(found.mean, label="precision-weighted mean", **style)


def _at_the_edges(ax: Any, found: Term, heights: np.ndarray, infinite: bool = True) -> str:
    """Triangles at the edges for infinite estimates and for those beyond the range, and how the caption tells of them."""
    low, high = ax.get_xlim()
    beyond = np.where(found.drawn, (found.estimate > high).astype(int) - (found.estimate < low), 0)
    kinds = [(beyond, "none", canvas.BLUE, "beyond the picture", "open triangles")]
    if infinite:
        kinds.append((found.infinite, canvas.VERMILION, canvas.VERMILION, "with an infinite estimate", "full triangles"))
    told = []
    for sides, face, edge, what, shape in kinds:
        for sign, marker, place in ((-1, "<", 0.0), (1, ">", 1.0)):
            here = sides == sign
            style = {"marker": marker, "markerfacecolor": face, "markeredgecolor": edge, "linestyle": "none", "markersize": 5}
            across = np.full(here.sum(), place)
            ax.plot(across, heights[here], transform=ax.get_yaxis_transform(), clip_on=False, zorder=6, **style)
        count = int(np.sum(sides != 0))
        told += [f"{count:,} {what} ({shape} at the edge)"] if count else []
    return "".join(f", {text}" for text in told)


def forest(result: Any, term: str, level: float, ax: Any) -> Any:
    """See `Pictured.plot_forest`."""
    found = term_of(result, term, level)
    sizes = np.where(found.drawn, found.estimate, np.nan)
    sizes[found.infinite != 0] = np.copysign(np.inf, found.infinite[found.infinite != 0])
    rows = np.flatnonzero(~np.isnan(sizes))
    rows = rows[np.argsort(sizes[rows], kind="stable")]
    heights = np.full(len(sizes), np.nan)
    heights[rows] = np.arange(len(rows))
    few, thick = len(rows) <= LABELLED, len(rows) <= THICK
    ax = canvas.axes(ax, 6.4, max(2.4, 1.0 + 0.16 * len(rows)) if few else 6.4)
    _references(ax, found)
    drawn = found.drawn
    width = 1.2 if few else (0.8 if thick else max(0.1, min(0.6, 300.0 / len(rows))))
    lines = {"color": canvas.BLUE if few else canvas.SKY, "linewidth": width, "zorder": 2, "rasterized": len(rows) > 2000}
    ax.hlines(heights[drawn], found.low[drawn], found.high[drawn], label=f"{100 * level:g}% interval", **lines)
    size = 4.0 if few else (2.5 if thick else 1.5)
    points = {"marker": "o", "linestyle": "none", "markersize": size, "markeredgewidth": 0, "color": canvas.BLUE, "zorder": 3}
    ax.plot(found.estimate[drawn], heights[drawn], label="estimate", **points)
    ax.set_xlim(reach(found, True))
    ax.set_ylim(-1, max(1, len(rows)) + (3.5 if few else 0.12 * len(rows)))
    shown = _at_the_edges(ax, found, heights)
    low, high = ax.get_xlim()
    inside = drawn & (found.estimate >= low) & (found.estimate <= high)
    beyond = int(np.sum(inside & ((found.low < low) | (found.high > high))))
    if few:
        ax.set_yticks(np.arange(len(rows)), [names_of(result)[k] for k in rows], fontsize="small")
        ax.tick_params(axis="y", length=0)
    else:
        ax.set_yticks([])
    ax.set_ylabel(_called(result) + ("" if few else ", sorted by estimate"))
    ax.set_xlabel(found.axis)
    shown += f"; {beyond:,} interval{'s reach' if beyond > 1 else ' reaches'} beyond the picture" if beyond else ""
    canvas.caption(ax, found.caption(shown))
    canvas.legend(ax, "upper left")
    return ax


def _called(result: Any) -> str:
    """What the groups are, by the names of the key columns."""
    return "fit" if result.keys.positional else ", ".join(result.keys.names)


def discovery_bound(log10_p: np.ndarray, q: float) -> float:
    """The decimal logarithm of the largest p-value that is a discovery at a false discovery rate q; -inf if none is.

    Benjamini and Hochberg (1995). p-values that are not known do not count.
    """
    ordered = np.sort(log10_p[np.isfinite(log10_p) | np.isneginf(log10_p)])
    found = ordered <= np.log10(q * np.arange(1, len(ordered) + 1) / max(1, len(ordered)))
    return float(ordered[np.flatnonzero(found)[-1]]) if found.any() else -np.inf


def volcano(result: Any, term: str, q: float, p: float | None, ax: Any) -> Any:
    """See `Pictured.plot_volcano`."""
    for name, value in (("q", q), ("p", p)):
        if value is not None and not 0.0 < value < 1.0:
            raise ValueError(f"{name} must be between 0 and 1, such as 0.05, not {value!r}")
    found = term_of(result, term)
    drawn = found.drawn & np.isfinite(found.log10_p)
    bound = discovery_bound(found.log10_p[drawn], q) if p is None else float(np.log10(p))
    strong = drawn & (found.log10_p <= bound)
    ax = canvas.axes(ax, 6.4, 4.8)
    ax.axvline(0.0, color=canvas.GREY, linewidth=0.8, zorder=1)
    measure, value = ("q", q) if p is None else ("p", p)
    for which, color, marker, name in (
        (drawn & ~strong, canvas.GREY, "o", f"{measure} > {value:g}"),
        (strong & (found.estimate < 0), canvas.BLUE, "v", f"{measure} \u2264 {value:g}, negative"),
        (strong & (found.estimate >= 0), canvas.VERMILION, "^", f"{measure} \u2264 {value:g}, positive"),
    ):
        if which.any():
            size = (10.0 if drawn.sum() <= 2000 else 5.0) * (1.0 if marker == "o" else 2.0)
            style = {
                "s": size,
                "color": color,
                "marker": marker,
                "linewidths": 0,
                "rasterized": bool(drawn.sum() > 2000),
                "zorder": 2,
            }
            label, alpha = f"{name} ({which.sum():,})", 0.5 if marker == "o" else 0.9
            ax.scatter(found.estimate[which], -found.log10_p[which], label=label, alpha=alpha, **style)
    if np.isfinite(bound):
        ax.axhline(-bound, color=canvas.DARK, linewidth=0.9, linestyle="--", zorder=1, label=f"{measure} = {value:g}")
    ax.set_xlim(reach(found, False))
    ax.set_ylim(bottom=0.0)
    canvas.headroom(ax, 0.22)
    notes = found.notes | {"infinite, without a p-value": int(np.sum(found.infinite != 0))}
    at_the_edges = _at_the_edges(ax, found, -found.log10_p, infinite=False)
    ax.set_xlabel(found.axis)
    ax.set_ylabel(r"$-\log_{10}$ p")
    canvas.ticks(ax.xaxis)
    rule = f"at a false discovery rate of {q:g}" if p is None else f"with p \u2264 {p:g}"
    shown = "" if np.isfinite(bound) else f", none found {rule}"
    canvas.caption(ax, replace(found, drawn=drawn, notes=notes).caption(at_the_edges + shown))
    canvas.legend(ax, "upper left")
    first = np.flatnonzero(strong)[np.argsort(found.log10_p[strong], kind="stable")][:NAMED]
    labels = names_of(result)
    canvas.name_points(ax, found.estimate[first], -found.log10_p[first], [labels[k] for k in first])
    return ax


def funnel(result: Any, term: str, level: float, ax: Any) -> Any:
    """See `Pictured.plot_funnel`."""
    found = term_of(result, term, level)
    drawn, sizes = found.drawn, np.maximum(found.n_obs, 1).astype(float)
    alike = bool(np.ptp(sizes[drawn]) == 0) if drawn.any() else True
    heights = found.error if alike else sizes
    ax = canvas.axes(ax, 6.4, 4.8)
    _references(ax, found)
    many = bool(drawn.sum() > 2000)
    style = {
        "s": 5.0 if many else 14.0,
        "color": canvas.BLUE,
        "linewidths": 0,
        "alpha": 0.35 if many else 0.7,
        "rasterized": many,
    }
    ax.scatter(found.estimate[drawn], heights[drawn], label="estimate", **style)
    if drawn.any():
        grid = np.geomspace(max(heights[drawn].min(), 1e-300), heights[drawn].max(), 100)
        spread = grid if alike else np.median(found.error[drawn] * np.sqrt(sizes[drawn])) / np.sqrt(grid)
        for sign in (-1.0, 1.0):
            name = f"{100 * level:g}% of estimates if all were this mean" if sign > 0 else None
            edge = found.mean + sign * wald.quantile(level, None) * spread
            ax.plot(edge, grid, color=canvas.DARK, linewidth=0.9, linestyle=":", label=name, zorder=4)
    ax.set_xlim(reach(found, False))
    if alike:
        ax.invert_yaxis()
        ax.set_ylabel("standard error")
        notes = found.notes | {"infinite, without an error": int(np.sum(found.infinite != 0))}
        found = replace(found, notes=notes)
    else:
        canvas.plain_log(ax.yaxis)
        ax.set_ylabel(f"rows of the {_called(result)} (log scale)")
    canvas.ticks(ax.xaxis)
    shown = _at_the_edges(ax, found, heights, infinite=not alike)
    canvas.headroom(ax, 0.18)
    ax.set_xlabel(found.axis)
    canvas.caption(ax, found.caption(shown))
    canvas.legend(ax, "upper left")
    return ax
