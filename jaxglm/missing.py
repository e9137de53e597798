"""Missing values at the array door: rows that leave a fit.

A row misses something if its columns, response, weight, offset or exposure are NaN, or its feature is missing. With
"drop" it has no weight in that fit, so that every number is that of a fit to the other rows: counts and degrees of freedom,
which columns are aliased, the null model. Rows that all fits share may be there for some and not for others. Nothing is
copied where nothing is missing, and weights get an axis of fits only where fits miss different rows.

Row by row, a fit has NaN where it lost a row: fitted values and residuals are about rows that were fitted, as R's are under
na.exclude; `predict` makes numbers for others.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from jaxglm.observations import Observations

FEATURES = 256  # looked at at a time


def without_missing(observations: Observations, missing: str) -> tuple[Observations, np.ndarray]:
    """With missing="drop", give rows with missing values weight zero; and how many rows each fit lost so, (g,). Raises
    ValueError for anything but "drop" and "invalid"."""
    if missing not in ("invalid", "drop"):
        raise ValueError(f'missing must be "invalid" or "drop", not {missing!r}')
    dropped = np.zeros(observations.g, np.int64)
    if missing == "invalid":
        return observations, dropped
    lost = _lost(observations)
    if observations.own is not None:
        observations, dropped = _without_features(observations, lost)
    elif observations.codes is not None:
        inside = observations.codes[lost]
        dropped = np.bincount(inside[inside >= 0], minlength=observations.g)
    else:
        dropped = np.broadcast_to(lost, observations.shape).sum(axis=1)
    return (observations.without(lost) if lost.any() else observations), dropped


def _lost(observations: Observations) -> np.ndarray:
    """Rows of weight other than zero in which something is missing, (N,), (n,) or (g, n)."""
    lost = np.isnan(observations.X).any(axis=-1)
    for values in (observations.y, observations.weights, observations.offset):
        if values is not None and (gone := np.isnan(values)).any():
            lost = lost | gone
    return lost if observations.weights is None else lost & (observations.weights != 0)


def _without_features(observations: Observations, lost: np.ndarray) -> tuple[Observations, np.ndarray]:
    """The same for features, a portion at a time, where the rows `lost` (n,) are lost anyway."""
    own, weights = observations.own, observations.weights
    assert own is not None
    there = np.ones(lost.shape, bool) if weights is None else weights != 0
    dropped, other = np.zeros(observations.g, np.int64), False
    for begin in range(0, observations.g, FEATURES):
        part = slice(begin, begin + FEATURES)
        gone = own.lost(part)
        other |= bool(gone.any())
        dropped[part] = ((gone & there) | lost).sum(axis=1)
    return replace(observations, own=replace(own, drop=other)), dropped
