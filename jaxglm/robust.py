"""What `GLMResults.robust` and `bootstrap` do: checks of what is asked, names of clusters as codes, and the result.

The numbers are made in the modules `sandwich` and `bootstrap`. Statistics are z, as of R's `lmtest::coeftest` on a `glm`,
whatever the family; with `degrees` they are t.
"""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import numpy as np

from jaxglm import bootstrap as resampling
from jaxglm import leverage, sandwich
from jaxglm.errors import did_you_mean, listed
from jaxglm.groups import factorize_column
from jaxglm.status import Status, StatusWarning

KINDS = (*sandwich.TYPES, "cluster")
CORRECTIONS = ("HC0", "HC1")


def robust(result: Any, type: str | None, clusters: Any, correction: str, cadjust: bool, degrees: Any) -> Any:
    """See `GLMResults.robust`."""
    if leverage.remembered(result).net is not None:
        raise ValueError("estimates of an ElasticNet have no standard errors, robust or other; use bootstrap()")
    type = _type(type, clusters)
    if type != "cluster":
        found = sandwich.independent(result, type)
        if type in sandwich.BY_HAT:
            full = (found.full > 0) & sandwich.has_estimates(result.solution)
            found.covariance[full] = np.nan
            report(result, full, "some row has a hat value of 1, and so no residual that tells of its error. Use HC0 or HC1")
        return sandwich.put(result, found.covariance, found.unscaled, type, _degrees(result, degrees, None))
    if correction not in CORRECTIONS:
        raise ValueError(f"correction must be one of {listed(CORRECTIONS)}, not {correction!r}")
    kinds = cluster_codes(result, clusters)
    unknown = _without_cluster(result, kinds)
    made = sandwich.clustered(result, kinds, correction, cadjust)
    alone = _with_one_cluster(result, made.n_clusters, unknown)
    made.covariance[unknown | alone] = np.nan
    with np.errstate(invalid="ignore"):
        negative = np.min(np.diagonal(made.covariance, axis1=1, axis2=2), axis=1) < 0
    report(result, negative, "some variance comes out negative, as it may with few clusters of several kinds")
    return sandwich.put(result, made.covariance, made.unscaled, type, _degrees(result, degrees, made.n_clusters))


def bootstrap(result: Any, replicates: int, clusters: Any, intervals: str, seed: Any) -> Any:
    """See `GLMResults.bootstrap`."""
    leverage.remembered(result)
    if isinstance(replicates, bool) or not isinstance(replicates, (int, np.integer)) or replicates < 2:
        raise ValueError(f"replicates must be a whole number of at least 2, not {replicates!r}")
    if intervals not in resampling.INTERVALS:
        hint = did_you_mean(intervals, resampling.INTERVALS)
        raise ValueError(f"there are no {intervals!r} intervals.{hint} Kinds: {', '.join(resampling.INTERVALS)}")
    resampling.require_enough(replicates, 0.95, intervals)
    kinds = None if clusters is None else cluster_codes(result, clusters)
    if kinds is not None and len(kinds) > 1:
        raise ValueError("the bootstrap draws clusters of one kind; for several kinds there is robust(clusters=)")
    units = resampling.units_of(result, kinds)
    bad = np.zeros(len(result), bool)
    if kinds is not None:
        bad = _without_cluster(result, kinds)
        bad = bad | _with_one_cluster(result, units.counts, bad)
    solution = result.solution
    fits = np.flatnonzero((solution.status == Status.CONVERGED) & ~bad)
    coefficients = resampling.replicates(result.task, solution.aliased, fits, units, int(replicates), seed)
    made = resampling.Bootstrap(coefficients, None, intervals)
    if intervals == "bca":
        made = replace(made, acceleration=resampling.acceleration(result, kinds))
    lost = replicates - made.counts[fits]
    if lost.any():
        warnings.warn(
            f"in {np.sum(lost > 0)} of {len(result)} fits replicates without finite estimates were left out, at most "
            f"{lost.max()} of {replicates}: rows drawn again may be separated or have too few levels.",
            StatusWarning,
            stacklevel=3,
        )
    changed = sandwich.put(result, resampling.covariance(made), leverage.unscaled(result), "bootstrap", None)
    return replace(changed, bootstrapped=made)


def _without_cluster(result: Any, kinds: list[np.ndarray]) -> np.ndarray:
    """Which fits have a row without a cluster, (g,), and a word about them."""
    rows = result.observations
    if not any((code < 0).any() for code in kinds):
        return np.zeros(len(result), bool)
    there = (rows.prior_weights() != 0) & (True if rows.codes is None else rows.codes >= 0)
    unknown = by_fit(rows, there & np.any([np.broadcast_to(code < 0, rows.shape) for code in kinds], axis=0))
    report(result, unknown, "the cluster of some row is missing. Give every row a cluster, or weight zero", strict=True)
    return unknown


def _with_one_cluster(result: Any, n_clusters: np.ndarray, but: np.ndarray) -> np.ndarray:
    """Which fits have a single cluster, (g,), and a word about them."""
    alone = (n_clusters < 2) & sandwich.has_estimates(result.solution) & ~but
    report(result, alone, "all rows are in one cluster; at least two are needed", strict=True)
    return alone


def _type(type: str | None, clusters: Any) -> str:
    if type is None:
        return "HC3" if clusters is None else "cluster"
    if type not in KINDS:
        hint = did_you_mean(type, KINDS)
        raise ValueError(f"there is no covariance of type {type!r}.{hint} Types: {', '.join(KINDS)}")
    if (type == "cluster") != (clusters is not None):
        raise ValueError('the type "cluster" and clusters= go together: clusters= names the cluster of each row')
    return type


def _degrees(result: Any, degrees: Any, n_clusters: np.ndarray | None) -> np.ndarray | None:
    """Degrees of freedom (g,), None for z."""
    g = len(result)
    if degrees is None:
        return None
    if isinstance(degrees, str):
        if degrees == "clusters" and n_clusters is not None:
            return n_clusters - 1.0
        if degrees == "residual":
            return np.asarray(result.solution.n_obs - result.solution.rank, float)
        raise ValueError(f'degrees must be None, "residual", with clusters "clusters", or numbers, not {degrees!r}')
    values = np.asarray(degrees, float)
    if values.shape not in ((), (g,)):
        raise ValueError(f"degrees must be a number or have shape ({g},), not {values.shape}")
    return np.broadcast_to(values, (g,))


def by_fit(rows: Any, marked: np.ndarray) -> np.ndarray:
    """Which fits have a marked row, (g,)."""
    if rows.codes is None:
        return np.asarray(marked.any(axis=1))
    found = np.zeros(rows.g, bool)
    found[rows.codes[marked]] = True
    return found


def report(result: Any, where: np.ndarray, reason: str, strict: bool = False) -> None:
    """Warn that these fits have no such covariance, and why. strict: where there is one fit, raise ValueError instead."""
    if not where.any():
        return
    if not result.many:
        if strict:
            raise ValueError(reason)
        warnings.warn(f"a covariance is lacking: {reason}.", StatusWarning, stacklevel=4)
        return
    labels = result.groups
    some = listed([labels[i] for i in np.flatnonzero(where)[:3]]) + (", ..." if where.sum() > 3 else "")
    warnings.warn(f"{where.sum()} of {len(result)} fits ({some}) lack a covariance: {reason}.", StatusWarning, stacklevel=4)


def cluster_codes(result: Any, clusters: Any) -> list[np.ndarray]:
    """Codes of the clusters in the result's rows, one array a kind, -1 where missing; they broadcast to the rows' shape."""
    names = isinstance(clusters, str) or (result.table is not None and _all(clusters, str))
    if names:
        return _columns(result, [clusters] if isinstance(clusters, str) else list(clusters))
    several = isinstance(clusters, (tuple, list)) and len(clusters) > 0 and all(np.ndim(labels) > 0 for labels in clusters)
    return [_codes(result, labels) for labels in (clusters if several else [clusters])]


def _all(values: Any, kind: type) -> bool:
    return isinstance(values, (tuple, list)) and len(values) > 0 and all(isinstance(value, kind) for value in values)


def _columns(result: Any, names: list[str]) -> list[np.ndarray]:
    table = result.table
    if table is None or table.data is None:
        why = "the fit was made from arrays" if table is None else "the table is not at hand: this is one group, or was loaded"
        raise ValueError(f"clusters={listed(names)}: {why}; give labels, one for each row")
    from jaxglm import frames

    keys = frames.keys(frames.frame(table.data), names, "clusters")
    return [key.codes if table.used is None else key.codes[table.used] for key in keys]


def _codes(result: Any, labels: Any) -> np.ndarray:
    """Codes from labels: one for each of the user's rows, or (g, n) where fits have equally many rows."""
    rows, used = result._rows(), None if result.table is None else result.table.used
    n = rows.shape[-1] if used is None else len(used)
    shape = np.shape(labels)
    if shape == (n,):
        codes = factorize_column(labels)[1]
        return codes if used is None else codes[used]
    if shape == rows.shape and used is None:
        return factorize_column(np.asarray(labels).reshape(-1))[1].reshape(shape)
    also = f" or {rows.shape}" if rows.codes is None else ""
    raise ValueError(f"clusters must have shape ({n},){also}, one label for each row, not {shape}")
