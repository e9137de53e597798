"""Regularization paths: an elastic net at many strengths, from arrays.

The first fit of a path is that of the free columns alone, the strengths go down from the one at which the first penalized
coefficient leaves zero, and every fit starts from the one before (`irls.path`). Cross-validation fits the same strengths
again without the rows of each fold, which are then weights of zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from jaxglm import families, fitting, summary
from jaxglm.arrays import observe, one_a_fit
from jaxglm.devices import named_device
from jaxglm.family import Family
from jaxglm.irls.options import IRLS
from jaxglm.observations import Observations
from jaxglm.paths import Folds, Path
from jaxglm.penalty import ElasticNet, Net, net_arrays
from jaxglm.sorting import sort_rows
from jaxglm.status import Status
from jaxglm.task import Task

FEW_ROWS, MANY_ROWS = 1e-2, 1e-4  # the last strength over the first, with fewer rows than columns and with more


def regularization_path(
    X: Any,
    y: Any,
    family: str | Family = "gaussian",
    *,
    mixing: float = 1.0,
    lambdas: Any = 100,
    ratio: float | None = None,
    common: bool = False,
    standardize: bool = True,
    factors: Any = None,
    folds: Any = None,
    seed: int = 0,
    groups: Any = None,
    weights: Any = None,
    offset: Any = None,
    exposure: Any = None,
    missing: str = "invalid",
    options: IRLS = IRLS(),  # noqa: B008
    device: Any = None,
    names: Sequence[str] | None = None,
) -> Path:
    """Fit generalized linear models with a lasso or an elastic net along decreasing strengths, as R's glmnet does.

    X, y, family, groups, weights, offset, exposure, missing, options, device, names: as for `jaxglm.fit`. X has to hold
    the intercept, if there is to be one: the first column that is constant, which is not penalized. mixing, standardize,
    factors: as for `jaxglm.ElasticNet`.
    lambdas: how many strengths there are, or the strengths themselves, (L,) or one row a model (g, L). By default they fall
    evenly on a logarithmic scale from the least at which all penalized coefficients are zero to `ratio` of that, 1e-4, or
    1e-2 with fewer rows than columns; common: with many models, from the largest of all these for all of them. Unlike
    glmnet's, a path does not end early.
    folds: for cross-validation, a number, and rows are dealt to folds at random (`seed`), evenly in every group; or a label
    for each row, (n,).

    Raises ValueError and TypeError for shapes, names and types; never for values in rows.

    >>> import numpy as np
    >>> import jaxglm
    >>> rng = np.random.default_rng(0)
    >>> X = np.column_stack([np.ones(60), rng.normal(size=(60, 5))])
    >>> path = jaxglm.regularization_path(X, X[:, 1] + rng.normal(size=60), lambdas=20, folds=5)
    >>> path.select("cv", "1se").coefficients.shape
    (6,)
    """
    model = families.named(family)
    penalty = ElasticNet(0.0, mixing, standardize, factors)
    beside = {"weights": weights, "offset": offset, "exposure": exposure}
    observed = observe(X, y, model, beside, groups, missing, names)
    observations = observed.observations
    model = one_a_fit(model, observations.g, observed.keys is not None)
    given = _strengths(lambdas, observations.g)
    _check(options, ratio)
    net = net_arrays(penalty, observed.names, observations.constant_columns, given)
    labels = None if folds is None else _folds(folds, observations, seed)
    task = Task(source=_source(observations), family=model, options=options, device=named_device(device))
    free = fitting.fit_free(task, net)
    if np.ndim(lambdas) == 0:
        net = replace(net, strengths=_falling(fitting.largest(task, net, free), net, free.n_obs, ratio, common))
    paths = fitting.path(task, net, free)
    found = None if labels is None else _cross_validated(task, net, observations, labels)
    path = Path(paths, model, observed.names, observed.keys, observed.dropped, observations, found)
    failed = paths.along.status != Status.CONVERGED
    if failed.any():
        summary.warn(path.at(np.argmax(failed, axis=1)), stacklevel=3)
    return path


def _source(observations: Observations) -> Any:
    codes = observations.codes
    return observations.source(None if codes is None else sort_rows(codes, observations.g))


def _check(options: Any, ratio: Any) -> None:
    if not isinstance(options, IRLS):
        raise TypeError(f"options must be a jaxglm.IRLS, such as IRLS(max_iterations=50), not {options!r}")
    if ratio is not None and not 0.0 < ratio < 1.0:
        raise ValueError(f"ratio must be between 0 and 1, the last strength over the first, not {ratio!r}")


def _strengths(lambdas: Any, g: int) -> np.ndarray:
    """Strengths (g, L), the largest first; zeros where only their number is given."""
    values = np.asarray(lambdas)
    if values.dtype.kind not in "iuf" or (values.ndim == 0 and (values.dtype.kind == "f" or values < 1)):
        raise ValueError(f"lambdas must be a whole number of strengths, at least 1, or the strengths, not {lambdas!r}")
    if values.ndim == 0:
        return np.zeros((g, int(values)))
    if values.ndim > 2 or values.shape[-1] == 0 or (values.ndim == 2 and len(values) != g):
        raise ValueError(f"lambdas must have shape (L,) or ({g}, L), not {values.shape}")
    if not np.all(values >= 0) or not np.all(np.isfinite(values)):
        raise ValueError("lambdas must be finite and nonnegative")
    return np.broadcast_to(-np.sort(-values.astype(np.float64), axis=-1), (g, values.shape[-1]))


def _falling(largest: np.ndarray, net: Net, n_obs: np.ndarray, ratio: float | None, common: bool) -> np.ndarray:
    """Strengths (g, L) that fall from the largest (g,). Where that is zero or unknown any will do."""
    if common:
        largest = np.full_like(largest, np.nanmax(largest, initial=0.0))
    largest = np.where(largest > 0, largest, 1.0)
    columns = len(net.factors) - net.intercept.sum()
    rows = n_obs.min(initial=0, where=n_obs > 0) if common and (n_obs > 0).any() else n_obs
    last = np.where(rows < columns, FEW_ROWS, MANY_ROWS) if ratio is None else np.full_like(largest, ratio)
    length = net.strengths.shape[1]
    return largest[:, None] * np.reshape(last, (-1, 1)) ** (np.arange(length) / max(1, length - 1))


def _folds(folds: Any, observations: Observations, seed: int) -> np.ndarray:
    """The fold of each row, (n,), from 0 on."""
    n = observations.shape[-1]
    if np.ndim(folds) == 0:
        if not isinstance(folds, (int, np.integer)) or not 2 <= folds <= n:
            raise ValueError(f"folds must be a whole number from 2 to the number of rows, {n}, or a label a row, not {folds!r}")
        return _dealt(int(folds), observations, np.random.default_rng(seed))
    labels = np.asarray(folds)
    if labels.shape != (n,):
        raise ValueError(f"folds must have shape ({n},), a label for each row, not {labels.shape}")
    found, codes = np.unique(labels, return_inverse=True)
    if len(found) < 2:
        raise ValueError("folds must have at least two different labels")
    return codes.reshape(-1)


def _dealt(count: int, observations: Observations, rng: np.random.Generator) -> np.ndarray:
    """Rows dealt to folds at random, as evenly as can be in every group, among its rows that are there."""
    n = observations.shape[-1]
    codes = np.zeros(n, np.int64) if observations.codes is None else observations.codes
    absent = np.zeros(n, bool) if observations.weights is None else (observations.weights == 0).reshape(-1, n).all(axis=0)
    order = rng.permutation(n)
    order = order[np.lexsort((absent[order], codes[order]))]
    sorted_codes = codes[order]
    begins = np.searchsorted(sorted_codes, sorted_codes)
    out = np.empty(n, np.int64)
    out[order] = (np.arange(n) - begins) % count
    return out


def _cross_validated(task: Task, net: Net, observations: Observations, labels: np.ndarray) -> Folds:
    """The losses of each fold at fits to the others."""
    losses, sums = [], []
    for fold in range(labels.max() + 1):
        held = labels == fold
        fitted, left = (_weighted(observations, where) for where in (~held, held))
        part = replace(task, source=_source(fitted))
        along = fitting.path(part, net, fitting.fit_free(part, net)).along
        coefficients = np.where((along.status == Status.CONVERGED)[..., None], along.coefficients, np.nan)
        aliased = np.isnan(coefficients) & (along.status == Status.CONVERGED)[..., None]
        weight = _total_weights(left)
        found = fitting.losses(replace(task, source=_source(left)), np.where(aliased, 0.0, coefficients))
        with np.errstate(divide="ignore", invalid="ignore"):
            losses.append(found / weight[:, None])
        sums.append(weight)
    return Folds(np.stack(losses), np.stack(sums))


def _weighted(observations: Observations, there: np.ndarray) -> Observations:
    """The observations with the rows `there` (n,), the others of weight zero."""
    weights = np.ones(len(there)) if observations.weights is None else observations.weights
    return replace(observations, weights=np.where(there, weights, 0.0))


def _total_weights(observations: Observations) -> np.ndarray:
    """The sum of the weights of each fit's rows, (g,)."""
    weights = observations.prior_weights()
    if observations.codes is None:
        return weights.sum(axis=1)
    inside = observations.codes >= 0
    return np.bincount(observations.codes[inside], weights[inside], observations.g)
