"""The array door: `fit` and `scan`.

What has a leading axis g makes many fits: responses, weights, offsets, designs. `groups` cuts one table of rows into fits
of any sizes. Checks of names, shapes and types raise here, before anything is compiled; values that are wrong for some
fit give that fit a status and change nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import jax
import numpy as np

from jaxglm import families, fitting, theta
from jaxglm.errors import listed
from jaxglm.family import Family
from jaxglm.groups import Groups, absent, factorize, factorize_column, sort_rows
from jaxglm.irls.many import number_of_fits
from jaxglm.irls.options import IRLS
from jaxglm.observations import Observations, log_exposure
from jaxglm.packing import Features
from jaxglm.penalty import Ridge
from jaxglm.results import GLMResults, finish
from jaxglm.task import Task

FEATURES = 256  # looked at at a time
PRECISIONS = {"float64": np.float64, "float32": np.float32}


def fit(
    X: Any,
    y: Any,
    family: str | Family = "gaussian",
    *,
    groups: Any = None,
    weights: Any = None,
    offset: Any = None,
    exposure: Any = None,
    start: Any = None,
    penalty: Ridge | None = None,
    missing: str = "invalid",
    options: IRLS = IRLS(),  # noqa: B008
    precision: str = "float64",
    device: Any = None,
    names: Sequence[str] | None = None,
) -> GLMResults:
    """Fit one generalized linear model, or many, from arrays. No intercept is added.

    X: (n, p), or (g, n, p) where each fit has its own; y: (n,) or (g, n): numbers, or two labels, of which the first in
    sorted order is failure; weights (prior), offset (added to eta), exposure (its logarithm is added): (n,) or (g, n).
    A leading axis in any of them makes g fits. groups: (n,), a label for each row, of any kind: a fit for each label.
    start: coefficients (p,) or (g, p); penalty: `Ridge`; missing: "invalid" (a fit with a missing value gets the status
    INVALID_DATA) or "drop" (the row leaves that fit); options: `IRLS`; precision: "float64" or "float32"; device: a JAX
    device or a platform such as "gpu"; names: of the columns.

    Raises ValueError and TypeError for shapes, names and types; never for values in rows.

    >>> import jaxglm
    >>> X = [[1.0, 0.0], [1.0, 1.0], [1.0, 2.0], [1.0, 3.0]]
    >>> fits = jaxglm.fit(X, [[1, 2, 3, 9], [2, 2, 1, 1]], family="poisson")
    >>> fits.coefficients.shape
    (2, 2)
    """
    names = _column_names(X, names)
    X, (y, labels) = _numbers("X", X), _response(y)
    require_proportions(labels, families.named(family))
    if X.ndim not in (2, 3):
        raise ValueError(f"X must have shape (n, p) or (g, n, p), not {X.shape}")
    if X.shape[-1] == 0:
        raise ValueError("X has no columns")
    rows = _rows(y, weights, offset, exposure)
    keys, codes, g = _grouping(X, rows, groups)
    known = _known_offset(rows)
    observations = Observations(X, rows["y"], rows.get("weights"), known, codes, g)
    observations, dropped = _without_missing(observations, missing)
    return fit_observations(
        observations, family, _named(names, X.shape[-1]), keys, dropped, start=start, penalty=penalty, options=options,
        precision=precision, device=device,
    )  # fmt: skip


def scan(
    X: Any,
    y: Any,
    features: Any,
    family: str | Family = "gaussian",
    *,
    weights: Any = None,
    offset: Any = None,
    exposure: Any = None,
    start: Any = None,
    penalty: Ridge | None = None,
    missing: str = "invalid",
    missing_code: int | None = None,
    options: IRLS = IRLS(),  # noqa: B008
    precision: str = "float64",
    device: Any = None,
    names: Sequence[str] | None = None,
) -> GLMResults:
    """Fit m models of one response: the columns of X and, last, one of m features.

    X: (n, p), the covariates, with the intercept; y, weights, offset, exposure: (n,); features: (n, m), numbers, NaN or
    the integer `missing_code` where missing; with missing="drop" such a row leaves that feature's fit alone, otherwise the
    fit gets the status INVALID_DATA. The other arguments are those of `fit`, with p + 1 coefficients. The result has a
    leading axis m; its keys are the features' names or positions.

    >>> import numpy as np
    >>> import jaxglm
    >>> rng = np.random.default_rng(0)
    >>> fits = jaxglm.scan(np.ones((50, 1)), rng.poisson(2.0, 50), rng.normal(size=(50, 3)), family="poisson")
    >>> fits.names, fits.coefficients.shape
    (['x1', 'feature'], (3, 2))
    """
    names = _named(_column_names(X, names), np.shape(X)[-1])
    if "feature" in names:
        raise ValueError("a covariate is called 'feature', which is the name of the feature's term; give other names")
    labels = _column_names(features, None)
    X, (y, levels) = _numbers("X", X), _response(y)
    require_proportions(levels, families.named(family))
    own = _as_given(features)
    if X.ndim != 2 or own.ndim != 2 or own.shape[0] != X.shape[0]:
        hint = " It looks transposed: pass features.T." if own.ndim == 2 and own.shape[1] == X.shape[0] else ""
        raise ValueError(f"X must be (n, p) and features (n, m) with the same rows, not {X.shape} and {own.shape}.{hint}")
    rows = _rows(y, weights, offset, exposure)
    for name, values in rows.items():
        if values.shape != (X.shape[0],):
            raise ValueError(f"{name} must have shape ({X.shape[0]},), one value for each row of X, not {values.shape}")
    m = own.shape[1]
    keys = Groups(("feature",), (np.arange(m) if labels is None else np.asarray(labels, object),), np.zeros(0, np.int64))
    known = Features(own.T, _code_in(own.dtype, missing_code))
    observations = Observations(X, rows["y"], rows.get("weights"), _known_offset(rows), None, m, known)
    observations, dropped = _without_missing(observations, missing)
    return fit_observations(
        observations, family, [*names, "feature"], keys, dropped, start=start, penalty=penalty, options=options,
        precision=precision, device=device,
    )  # fmt: skip


def fit_observations(
    observations: Observations,
    family: str | Family,
    names: Sequence[str],
    keys: Groups | None,
    dropped: np.ndarray,
    *,
    start: Any = None,
    penalty: Ridge | None = None,
    options: IRLS = IRLS(),  # noqa: B008
    precision: str = "float64",
    device: Any = None,
    table: Any = None,
    progress: fitting.Progress | None = None,
    adjust: Any = None,
) -> GLMResults:
    """Fit checked rows: what both doors end in. adjust: adds to the log-likelihoods, (g,)."""
    model = one_a_fit(families.named(family), observations.g, keys is not None)
    if not isinstance(options, IRLS):
        raise TypeError(f"options must be a jaxglm.IRLS, such as IRLS(max_iterations=50), not {options!r}")
    if precision not in PRECISIONS:
        raise ValueError(f'precision must be "float64" or "float32", not {precision!r}')
    sort = None if observations.codes is None else sort_rows(observations.codes, observations.g)
    task = Task(
        source=observations.source(sort),
        family=model,
        penalty=_strength(penalty, observations.g, len(names)),
        start=_start(start, observations.g, len(names)),
        options=options,
        dtype=PRECISIONS[precision],
        device=named_device(device),
    )
    errors = None
    if model.estimator is None:
        solution = fitting.fit(task, progress)
    else:
        fitted = theta.fit(task, progress)
        solution, errors, model = fitted.solution, fitted.standard_errors, theta.with_theta(model, fitted.theta)
    if adjust is not None:
        solution = replace(solution, log_likelihood=solution.log_likelihood + adjust)
    return finish(solution, model, names, keys, dropped, observations, table, errors)


def named_device(device: Any) -> Any:
    """A JAX device from a device or the name of a platform. Raises ValueError where there is none."""
    if device is None or not isinstance(device, str):
        return device
    try:
        return jax.devices(device)[0]
    except RuntimeError:
        known = listed(sorted({d.platform for d in jax.devices()}))
        raise ValueError(f"JAX finds no device {device!r} here; it has {known}. See README, GPU support") from None


def one_a_fit(family: Family, g: int, many: bool) -> Family:
    """The family, its parameters numbers or arrays (g,). Raises ValueError for another length."""

    def check(leaf: Any) -> Any:
        if isinstance(leaf, str):
            raise ValueError(f"the family's parameter {leaf!r} names a column, which only jaxglm.glm can look up; give numbers")
        values = np.asarray(leaf, np.float64)
        if values.ndim and values.shape != (g,):
            per = "one value for each of the fits, in the order of fit.groups" if many else "a number"
            raise ValueError(f"the family's parameters must be {per}: shape ({g},), not {values.shape}")
        return values if values.ndim else float(values)

    return jax.tree.map(check, family)


def _numbers(name: str, values: Any) -> np.ndarray:
    """An array of floats. Raises TypeError for what is not numbers."""
    if hasattr(values, "to_numpy") and not isinstance(values, np.ndarray):
        values = values.to_numpy()
    try:
        array = np.asarray(values)
    except ValueError:
        raise ValueError(f"{name} must be a rectangular array; its rows have different lengths") from None
    if array.dtype.kind not in "fiub":
        try:
            if array.dtype.kind == "c":
                raise TypeError
            return np.asarray(array, np.float64)
        except (TypeError, ValueError):
            raise TypeError(
                f"{name} must be numbers, not {array.dtype}; for text and categories use jaxglm.glm with a formula"
            ) from None
    return np.asarray(array, np.float64)


def _as_given(features: Any) -> np.ndarray:
    """Features as an array of numbers of whatever type they have. Raises TypeError for what is not numbers."""
    values = features.to_numpy() if hasattr(features, "to_numpy") and not isinstance(features, np.ndarray) else features
    if isinstance(values, np.ndarray) and values.dtype.kind in "fiu":
        return values
    return _numbers("features", values)


def _code_in(dtype: np.dtype, code: int | None) -> int | None:
    """The code for missing values, None where this type cannot hold it."""
    if code is None or dtype.kind == "f":
        return code
    return code if np.iinfo(dtype).min <= code <= np.iinfo(dtype).max else None


def _response(y: Any) -> tuple[np.ndarray, Any]:
    """Numbers, or 0 and 1 for two labels in their order, and the labels."""
    category = getattr(y, "cat", y)
    if hasattr(category, "categories") and hasattr(category, "codes"):
        labels, codes = factorize_column(y)
        return _two_labels(labels, codes, codes.shape)
    if hasattr(y, "to_numpy") and not isinstance(y, np.ndarray):
        y = y.to_numpy()
    array = np.asarray(y)
    if array.dtype.kind not in "OUST":
        return _numbers("y", array), None
    flat = array.reshape(-1)
    missing = absent(flat)
    if array.dtype.kind == "O" and all(isinstance(value, (int, float, np.number)) for value in flat[~missing]):
        return np.where(missing, np.nan, np.where(missing, 0.0, flat).astype(float)).reshape(array.shape), None
    labels, found = np.unique(flat[~missing].astype(str), return_inverse=True)
    codes = np.full(len(flat), -1)
    codes[~missing] = found
    return _two_labels(labels, codes, array.shape)


def _two_labels(labels: np.ndarray, codes: np.ndarray, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    if len(labels) != 2:
        some = listed(labels)
        raise ValueError(f"a response of labels must have exactly two, failure and success; this one has {len(labels)}: {some}")
    return np.where(codes < 0, np.nan, codes).reshape(shape), labels


def require_proportions(labels: Any, model: Family) -> None:
    """Raise ValueError where a response of labels meets a family that is not of proportions."""
    if labels is not None and model.responses.upper != 1.0:
        raise ValueError(f"the response has the labels {listed(labels)}, which need a binomial family, not {model.name}")


def _rows(y: np.ndarray, weights: Any, offset: Any, exposure: Any) -> dict[str, np.ndarray]:
    rows = {"y": y}
    for name, values in (("weights", weights), ("offset", offset), ("exposure", exposure)):
        if values is not None:
            rows[name] = _numbers(name, values)
    return rows


def _known_offset(rows: dict[str, np.ndarray]) -> np.ndarray | None:
    """The offset and the logarithm of the exposure together."""
    if "exposure" not in rows:
        return rows.get("offset")
    log = log_exposure(rows["exposure"])
    return log + rows["offset"] if "offset" in rows else log


def _grouping(X: np.ndarray, rows: dict[str, np.ndarray], groups: Any) -> tuple[Groups | None, np.ndarray | None, int]:
    """The keys, the codes of rows that belong to one group each, and the number of fits."""
    if groups is not None:
        if X.ndim != 2:
            raise ValueError(f"with groups=, X must have shape (N, p), not {X.shape}")
        for name, values in rows.items():
            if values.shape != X.shape[:1]:
                raise ValueError(f"with groups=, {name} must have shape ({X.shape[0]},), not {values.shape}")
        keys = factorize(groups)
        if len(keys.codes) != X.shape[0]:
            raise ValueError(f"groups must name one group for each of the {X.shape[0]} rows of X, not {len(keys.codes)}")
        return keys, keys.codes, len(keys)
    shapes = {name: values.shape for name, values in rows.items()}
    if X.ndim == 2 and all(len(shape) == 1 for shape in shapes.values()):
        for name, shape in shapes.items():
            if shape != X.shape[:1]:
                raise ValueError(f"{name} must have shape ({X.shape[0]},), one value for each row of X, not {shape}")
        return None, np.zeros(X.shape[0], np.int64), 1
    g = number_of_fits(X.shape, shapes)
    return Groups(("fit",), (np.arange(g),), np.zeros(0, np.int64), positional=True), None, g


def _without_missing(observations: Observations, missing: str) -> tuple[Observations, np.ndarray]:
    """With missing="drop", give rows with missing values weight zero; and how many rows each fit lost so."""
    if missing not in ("invalid", "drop"):
        raise ValueError(f'missing must be "invalid" or "drop", not {missing!r}')
    dropped = np.zeros(observations.g, np.int64)
    if missing == "invalid":
        return observations, dropped
    lost = np.isnan(observations.X).any(axis=-1)
    for values in (observations.y, observations.weights, observations.offset):
        if values is not None:
            lost = lost | np.isnan(values)
    if observations.weights is not None:
        lost = lost & (observations.weights != 0)
    if observations.own is not None:
        observations, dropped = _without_missing_features(observations, lost)
    elif observations.codes is not None:
        inside = observations.codes[lost]
        dropped = np.bincount(inside[inside >= 0], minlength=observations.g)
    else:
        dropped = np.broadcast_to(lost, observations.shape).sum(axis=1)
    if not lost.any():
        return observations, dropped
    weights = np.ones(1) if observations.weights is None else observations.weights
    return replace(observations, weights=np.where(lost, 0.0, weights)), dropped


def _without_missing_features(observations: Observations, lost: np.ndarray) -> tuple[Observations, np.ndarray]:
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


def _strength(penalty: Ridge | None, g: int, p: int) -> np.ndarray | None:
    if penalty is None:
        return None
    if not isinstance(penalty, Ridge):
        raise TypeError(f"penalty must be a jaxglm.Ridge, such as Ridge(1.0), not {penalty!r}")
    values = _numbers("the penalty's strength", penalty.strength)
    if not np.all(values >= 0) or not np.all(np.isfinite(values)):
        raise ValueError("the penalty's strength must be finite and nonnegative")
    if values.shape not in ((), (p,), (g, p)):
        raise ValueError(f"the penalty's strength must have shape (), ({p},) or ({g}, {p}), not {values.shape}")
    return np.broadcast_to(values, (p,)) if values.ndim == 0 else values


def _start(start: Any, g: int, p: int) -> np.ndarray | None:
    if start is None:
        return None
    values = _numbers("start", start)
    if values.shape not in ((p,), (g, p)):
        raise ValueError(f"start must have shape ({p},) or ({g}, {p}), not {values.shape}")
    return values


def _column_names(X: Any, names: Sequence[str] | None) -> list[str] | None:
    if names is not None:
        return [str(name) for name in names]
    columns = getattr(X, "column_names", None)  # pyarrow's, whose `columns` are the values
    columns = getattr(X, "columns", None) if columns is None else columns
    return None if columns is None or callable(columns) else [str(name) for name in columns]


def _named(names: list[str] | None, p: int) -> list[str]:
    if names is None:
        return [f"x{j + 1}" for j in range(p)]
    if len(names) != p or len(set(names)) != p:
        raise ValueError(f"names must be {p} different names, one for each column of X, not {listed(names)}")
    return names
