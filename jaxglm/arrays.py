"""The array door: `fit` and `scan`.

What has a leading axis g makes many fits: responses, weights, offsets, designs. `groups` cuts one table of rows into fits
of any sizes. Checks of names, shapes and types raise here, before anything is compiled; values that are wrong for some
fit give that fit a status and change nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np

from jaxglm import families, fitting, power, theta
from jaxglm.devices import named_device
from jaxglm.errors import listed
from jaxglm.family import Family
from jaxglm.groups import Groups, absent, factorize, factorize_column
from jaxglm.irls.many import number_of_fits
from jaxglm.irls.options import IRLS
from jaxglm.missing import without_missing
from jaxglm.observations import Observations, log_exposure
from jaxglm.packing import Features
from jaxglm.penalty import ElasticNet, Net, Ridge, net_arrays, ridge_arrays, strength_of_each
from jaxglm.results import GLMResults, finish
from jaxglm.sorting import sort_rows
from jaxglm.task import Task, require_reduction
from jaxglm.weights import concluded, prepared, split

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
    penalty: Ridge | ElasticNet | None = None,
    missing: str = "invalid",
    options: IRLS = IRLS(),  # noqa: B008
    precision: str = "float64",
    device: Any = None,
    names: Sequence[str] | None = None,
    bias_reduction: str | None = None,
    separated: str = "limits",
) -> GLMResults:
    """Fit one generalized linear model, or many, from arrays. No intercept is added.

    X: (n, p), or (g, n, p) where each fit has its own; y: (n,) or (g, n): numbers, or two labels, of which the first in
    sorted order is failure; weights (prior, or a `Weights`), offset (added to eta), exposure (its logarithm is added): (n,) or
    (g, n).
    A leading axis in any of them makes g fits. groups: (n,), a label for each row, of any kind: a fit for each label.
    start: coefficients (p,) or (g, p); penalty: `Ridge` or `ElasticNet`; missing: "invalid" (a fit with a missing value gets
    the status INVALID_DATA) or "drop" (the row leaves that fit); options: `IRLS`; precision: "float64" or "float32"; device:
    a JAX device or a platform such as "gpu"; names: of the columns; bias_reduction: "mean", "median" or "jeffreys", for
    estimates with less bias (`irls.adjusted`); separated: the "limits" of such groups, or by "firth" estimates of mean bias
    reduction.

    Raises ValueError and TypeError for shapes, names and types; never for values in rows.

    >>> import jaxglm
    >>> X = [[1.0, 0.0], [1.0, 1.0], [1.0, 2.0], [1.0, 3.0]]
    >>> fits = jaxglm.fit(X, [[1, 2, 3, 9], [2, 2, 1, 1]], family="poisson")
    >>> fits.coefficients.shape
    (2, 2)
    """
    weights, kind = split(weights)
    rows = {"weights": weights, "offset": offset, "exposure": exposure}
    observed = observe(X, y, family, rows, groups, missing, names)
    return fit_observations(
        observed.observations, family, observed.names, observed.keys, observed.dropped, start=start, penalty=penalty,
        options=options, precision=precision, device=device, kind=kind, bias_reduction=bias_reduction, separated=separated,
    )  # fmt: skip


@dataclass(frozen=True)
class Observed:
    """The arrays of a call, checked. keys: of many fits, else None; dropped: (g,), rows left out for missing values."""

    observations: Observations
    names: list[str]
    keys: Groups | None
    dropped: np.ndarray


def observe(
    X: Any, y: Any, family: str | Family, beside: dict[str, Any], groups: Any, missing: str, names: Sequence[str] | None
) -> Observed:
    """Check the arrays of a call of `fit`; beside: weights, offset and exposure."""
    names = _column_names(X, names)
    X, (y, labels) = _numbers("X", X), _response(y)
    require_proportions(labels, families.named(family))
    if X.ndim not in (2, 3):
        raise ValueError(f"X must have shape (n, p) or (g, n, p), not {X.shape}")
    if X.shape[-1] == 0:
        raise ValueError("X has no columns")
    rows = _rows(y, **beside)
    keys, codes, g = _grouping(X, rows, groups)
    observations = Observations(X, rows["y"], rows.get("weights"), _known_offset(rows), codes, g)
    observations, dropped = without_missing(observations, missing)
    return Observed(observations, _named(names, X.shape[-1]), keys, dropped)


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
    penalty: Ridge | ElasticNet | None = None,
    missing: str = "invalid",
    missing_code: int | None = None,
    options: IRLS = IRLS(),  # noqa: B008
    precision: str = "float64",
    device: Any = None,
    names: Sequence[str] | None = None,
    bias_reduction: str | None = None,
    separated: str = "limits",
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
    weights, kind = split(weights)
    beside = {"weights": weights, "offset": offset, "exposure": exposure}
    posed = pose_scan(X, y, features, family, beside, missing=missing, missing_code=missing_code, names=names)
    return fit_observations(
        posed.observations, family, posed.names, posed.keys, posed.dropped, start=start, penalty=penalty, options=options,
        precision=precision, device=device, kind=kind, bias_reduction=bias_reduction, separated=separated,
    )  # fmt: skip


@dataclass(frozen=True)
class Scan:
    """A scan to be made: its rows, the names of all columns, the features' keys, and how many rows each fit loses."""

    observations: Observations
    names: list[str]
    keys: Groups
    dropped: np.ndarray


def pose_scan(
    X: Any, y: Any, features: Any, family: str | Family, beside: dict[str, Any], *, missing: str, missing_code: int | None,
    names: Sequence[str] | None,
) -> Scan:  # fmt: skip
    """The checked arguments of `scan`; beside: weights, offset and exposure."""
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
    rows = _rows(y, **beside)
    for name, values in rows.items():
        if values.shape != (X.shape[0],):
            raise ValueError(f"{name} must have shape ({X.shape[0]},), one value for each row of X, not {values.shape}")
    m = own.shape[1]
    keys = Groups(("feature",), (np.arange(m) if labels is None else np.asarray(labels, object),), np.zeros(0, np.int64))
    known = Features.of(own.T, missing_code)
    observations = Observations(X, rows["y"], rows.get("weights"), _known_offset(rows), None, m, known)
    observations, dropped = without_missing(observations, missing)
    return Scan(observations, [*names, "feature"], keys, dropped)


def fit_observations(
    observations: Observations,
    family: str | Family,
    names: Sequence[str],
    keys: Groups | None,
    dropped: np.ndarray,
    *,
    start: Any = None,
    penalty: Ridge | ElasticNet | None = None,
    options: IRLS = IRLS(),  # noqa: B008
    precision: str = "float64",
    device: Any = None,
    table: Any = None,
    progress: fitting.Progress | None = None,
    adjust: Any = None,
    kind: str = "prior",
    stated: np.ndarray | None = None,
    bias_reduction: str | None = None,
    separated: str = "limits",
) -> GLMResults:
    """Fit checked rows: what both doors end in. adjust: adds to the log-likelihoods, (g,); kind: of the weights; stated: the
    weights as they were given, if those of `observations` are not."""
    stated = observations.weights if stated is None else stated
    observations = prepared(observations, kind, stated)
    model = one_a_fit(families.named(family), observations.g, keys is not None)
    if not isinstance(options, IRLS):
        raise TypeError(f"options must be a jaxglm.IRLS, such as IRLS(max_iterations=50), not {options!r}")
    if penalty is not None and not isinstance(penalty, (Ridge, ElasticNet)):
        raise TypeError(f"penalty must be a jaxglm.Ridge or ElasticNet, such as Ridge(1.0), not {penalty!r}")
    if precision not in PRECISIONS:
        raise ValueError(f'precision must be "float64" or "float32", not {precision!r}')
    require_reduction(bias_reduction, separated, penalty is not None)
    sort = None if observations.codes is None else sort_rows(observations.codes, observations.g)
    task = Task(
        source=observations.source(sort),
        family=model,
        penalty=ridge_arrays(penalty, observations.g, len(names)) if isinstance(penalty, Ridge) else None,
        net=_net(penalty, observations, names, start) if isinstance(penalty, ElasticNet) else None,
        start=_start(start, observations.g, len(names)),
        options=options,
        dtype=PRECISIONS[precision],
        device=named_device(device),
        bias_reduction=bias_reduction,
        separated=separated,
    )
    errors = None
    if model.estimator is None:
        solution = fitting.fit(task, progress)
    else:
        found = (power if model.estimator == "profile_likelihood" else theta).fit(task, progress)
        solution, errors, model = found.solution, found.standard_errors, found.of(model)
    task = replace(task, family=model)
    if adjust is not None:
        solution = replace(solution, log_likelihood=solution.log_likelihood + adjust)
    made = finish(solution, model, names, keys, dropped, observations, table=table, task=task, shape_errors=errors)
    return concluded(replace(made, penalized=penalty is not None), kind, stated)


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


def _net(penalty: ElasticNet, observations: Observations, names: Sequence[str], start: Any) -> Net:
    if start is not None:
        raise ValueError("start has no use with an ElasticNet, whose paths begin at the fit of the free columns; leave it out")
    return net_arrays(penalty, names, observations.constant_columns, strength_of_each(penalty, observations.g))


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
