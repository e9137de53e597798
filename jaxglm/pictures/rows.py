"""The rows of one group: residuals, and calibration."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from jaxglm.distributions import distribution_of
from jaxglm.errors import did_you_mean, listed
from jaxglm.influence import cooks_bound
from jaxglm.pictures import canvas
from jaxglm.quantile_residuals import normal_band

NORMAL = 1.959963984540054
NAMED = 8  # rows that are named


def one_of(result: Any, group: Any) -> Any:
    """The group's fit. Raises ValueError where a group has to be named, and what indexing raises for an unknown one."""
    if not result.many:
        if group is not None:
            raise ValueError(f"this is one fit, without groups; there is no group {group!r}")
        return result
    if group is None:
        raise ValueError(
            f"name the group whose rows to draw, as in group={result.groups[0]!r}; groups: {listed(result.groups)}"
        )
    return result[group]


def _title(group: Any) -> str:
    return "" if group is None else f"Group {', '.join(map(str, group)) if isinstance(group, tuple) else group}: "


def residuals(result: Any, group: Any, against: str, seed: int, ax: Any) -> Any:
    """See `Pictured.plot_residuals`."""
    fit = one_of(result, group)
    known = ("fitted", "normal", *fit.names)
    if against not in known:
        raise ValueError(
            f"there is nothing called {against!r} to draw against.{did_you_mean(against, known)} Known: {listed(known, 20)}"
        )
    measured = fit.influence()
    if distribution_of(fit.family) is None:
        values, what = measured.residual_standardized, "standardized deviance residual"
    else:
        values, what = fit.quantile_residuals(seed), "quantile residual"
    ax = canvas.axes(ax, 6.0, 4.4)
    shown = np.isfinite(values)
    note = f"{_title(group)}{int(shown.sum()):,} rows"
    left_out = int(fit.n_obs - shown.sum())
    note += f"; {left_out:,} without a residual" if left_out > 0 else ""
    if against == "normal":
        _against_normal(ax, values[shown])
        ax.set_ylabel(what)
    else:
        x = fit.linear_predictor if against == "fitted" else fit._rows().X[:, fit.names.index(against)]
        shown &= np.isfinite(x)
        at_limit = int(np.sum(np.isfinite(values) & ~np.isfinite(x)))
        note += f", of which {at_limit:,} at their limit are not shown" if at_limit else ""
        link = fit.family.link.name
        ax.set_xlabel(against if against != "fitted" else f"linear predictor ({link} scale)")
        ax.set_ylabel(what)
        bound = cooks_bound(np.array(fit.rank), np.array(fit.df_residual)) * max(1.0, _ratio(fit))
        _against(ax, x[shown], values[shown], measured.cooks_distance[shown] > bound, np.flatnonzero(shown))
        canvas.headroom(ax, 0.15)
    canvas.ticks(ax.xaxis)
    canvas.caption(ax, note)
    canvas.legend(ax, "upper left")
    return ax


def _ratio(fit: Any) -> float:
    """By how much Cook's distances are too large, where the dispersion is known to be 1 and is not."""
    if fit.family.dispersion is None or fit.df_residual <= 0:
        return 1.0
    return float(np.nansum(fit.residuals("pearson") ** 2) / fit.df_residual)


def _alpha(n: int) -> float:
    return float(np.clip(400.0 / max(n, 1), 0.08, 0.75))


def _against(ax: Any, x: np.ndarray, values: np.ndarray, influential: np.ndarray, numbers: np.ndarray) -> None:
    """Points, their means in bins, and the rows that matter most by their numbers."""
    for height, style in ((0.0, "-"), (-NORMAL, ":"), (NORMAL, ":")):
        ax.axhline(height, color=canvas.GREY, linewidth=0.9, linestyle=style, zorder=0)
    ax.scatter(x, values, s=14, color=canvas.BLUE, linewidths=0, alpha=_alpha(len(x)), rasterized=len(x) > 2000)
    middles, means, errors = _binned(x, values)
    if len(middles) > 1:
        bars = {"color": canvas.ORANGE, "ecolor": canvas.ORANGE, "linewidth": 1.2, "capsize": 2, "markersize": 4, "zorder": 4}
        ax.errorbar(middles, means, NORMAL * errors, fmt="s", label="mean in bins, 95%", **bars)
    if influential.any():
        marks = {"s": 46, "facecolors": "none", "edgecolors": canvas.VERMILION, "linewidths": 1.2, "zorder": 5}
        ax.scatter(x[influential], values[influential], label=f"influential ({int(influential.sum())})", **marks)
        first = np.flatnonzero(influential)[:NAMED]
        canvas.name_points(ax, x[first], values[first], [f"row {numbers[k]}" for k in first])


def _binned(x: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Means of x and of values in bins with about equally many rows, and the errors of the latter."""
    bins = int(np.clip(np.sqrt(len(x)) / 2.0, 3, 12))
    edges = np.unique(np.quantile(x, np.linspace(0, 1, bins + 1))) if len(x) else np.zeros(1)
    if len(edges) < 3:
        return np.zeros(0), np.zeros(0), np.zeros(0)
    place = np.clip(np.searchsorted(edges, x, side="right") - 1, 0, len(edges) - 2)
    count = np.bincount(place, minlength=len(edges) - 1)
    full = count > 2
    count = np.maximum(count, 1)
    middles, means = np.bincount(place, x, len(count)) / count, np.bincount(place, values, len(count)) / count
    spread = np.sqrt(np.bincount(place, (values - means[place]) ** 2, len(count)) / np.maximum(count - 1, 1) / count)
    return middles[full], means[full], spread[full]


def _against_normal(ax: Any, values: np.ndarray) -> None:
    """Ordered residuals against normal quantiles, with the band in which each lies in 95 of 100 samples."""
    n = len(values)
    band = normal_band(n)
    look = {"color": canvas.SKY, "alpha": 0.3, "linewidth": 0}
    ax.fill_between(band.middle, band.low, band.high, label="95% of each, if the model is right", **look)
    ax.axline((0, 0), slope=1.0, color=canvas.GREY, linewidth=0.9)
    style = {"s": 14, "color": canvas.BLUE, "linewidths": 0, "alpha": max(0.3, _alpha(n)), "rasterized": n > 2000, "zorder": 3}
    ax.scatter(band.middle, np.sort(values), **style)
    ax.set_xlabel("normal quantile")


def calibration(result: Any, group: Any, bins: int, ax: Any) -> Any:
    """See `Pictured.plot_calibration`."""
    if bins < 2:
        raise ValueError(f"calibration needs at least 2 bins, not {bins!r}")
    fit = one_of(result, group)
    rows = fit._rows()
    mu, y, weights = fit.fitted, rows.rows(rows.y, 0.0), rows.prior_weights()
    if fit.table is not None and fit.table.used is not None:
        mu = mu[fit.table.used]
    there = (weights > 0) & np.isfinite(mu) & np.isfinite(y)
    mu, y, weights = mu[there], y[there], weights[there]
    ax = canvas.axes(ax, 5.2, 4.8)
    note = f"{_title(group)}{len(mu):,} rows"
    if len(mu):
        edges = np.unique(np.quantile(mu, np.linspace(0, 1, min(bins, len(mu)) + 1)))
        place = np.clip(np.searchsorted(edges, mu, side="right") - 1, 0, max(len(edges) - 2, 0))
        total = np.bincount(place, weights)
        used = total > 0
        dispersion = fit.dispersion if np.isfinite(fit.dispersion) else 0.0
        error = np.sqrt(dispersion * np.bincount(place, weights * _variance(fit.family, mu)))[used] / total[used]
        expected = np.bincount(place, weights * mu)[used] / total[used]
        observed = np.bincount(place, weights * y)[used] / total[used]
        ends = [min(expected.min(), observed.min()), max(expected.max(), observed.max())]
        ax.axline((ends[0], ends[0]), (ends[1], ends[1] + 1e-12), color=canvas.GREY, linewidth=0.9)
        band = {"color": canvas.SKY, "elinewidth": 7, "alpha": 0.5, "zorder": 2}
        ax.errorbar(expected, expected, NORMAL * error, fmt="none", label="95%, if the model is right", **band)
        ax.plot(expected, observed, "o", markersize=4, color=canvas.BLUE, zorder=3, label="mean response in the bin")
        if ends[0] > 0 and ends[1] > 50 * ends[0] and (observed > 0).all():
            canvas.plain_log(ax.xaxis)
            canvas.plain_log(ax.yaxis)
        note += f" in {len(expected)} bins of about equally many"
    ax.set_xlabel("mean fitted value")
    ax.set_ylabel("mean response")
    canvas.caption(ax, note)
    canvas.legend(ax, "upper left")
    return ax


def _variance(family: Any, mu: np.ndarray) -> np.ndarray:
    """V(mu)."""
    with jax.enable_x64(True):
        return np.asarray(family.variance_at(jax.numpy.asarray(mu)))
