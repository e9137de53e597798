"""The table door: `glm`, from a formula and a table to a GLM for each group.

It reads like the way the data take: the table's columns, the rows that can be used, the arrays of the formula made once
for the whole table, the fits, and a result that remembers the table's kind. Each step takes away one complication.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np
from scipy.special import gammaln

from jaxglm import families, frames
from jaxglm.arrays import fit_observations
from jaxglm.errors import listed
from jaxglm.family import Family
from jaxglm.fitting import Progress
from jaxglm.formula import Materialised, Parsed, materialise, parse
from jaxglm.groups import Groups, combine
from jaxglm.irls.options import IRLS
from jaxglm.observations import Observations, log_exposure
from jaxglm.penalty import ElasticNet, Ridge
from jaxglm.results import GLMResults
from jaxglm.tables import RESERVED, Table
from jaxglm.weights import split


@dataclass(frozen=True)
class Columns:
    """Columns of the user's table beside those of the formula, all (N,) or None. codes: of the groups, -1 where a key is
    missing; missing: rows with a missing value in anything that is used."""

    keys: Groups | None
    codes: np.ndarray
    weights: np.ndarray | None
    offset: np.ndarray | None
    exposure: np.ndarray | None
    missing: np.ndarray

    @property
    def g(self) -> int:
        """The number of groups."""
        return 1 if self.keys is None else len(self.keys)

    @property
    def present(self) -> np.ndarray:
        """Rows that belong to a group and have a weight other than zero."""
        here = self.codes >= 0
        return here if self.weights is None else here & (self.weights != 0)


def glm(
    formula: str,
    data: Any,
    family: str | Family = "gaussian",
    *,
    by: str | Sequence[str] | None = None,
    responses: Any = None,
    weights: Any = None,
    offset: Any = None,
    exposure: Any = None,
    start: Any = None,
    penalty: Ridge | ElasticNet | None = None,
    missing: str = "drop",
    options: IRLS = IRLS(),  # noqa: B008
    precision: str = "float64",
    device: Any = None,
    names: Sequence[str] | None = None,
    progress: Progress | None = None,
    bias_reduction: str | None = None,
    separated: str = "limits",
) -> GLMResults:
    """Fit a generalized linear model to a table: one, one for each group, or one for each response.

    formula: as in R, such as "use ~ age + I(age^2) + urban"; cbind(successes, failures) and offset(...) are understood.
    data: a pandas, polars or pyarrow table, a duckdb relation, or a dict of columns. family: a name or a value of
    `jaxglm.families`, whose theta or power may be the name of a column that is constant within groups. by: key columns;
    each combination that occurs gets its own fit. responses: a table or an array (rows, responses); each of its columns
    gets its own fit of the one design. weights (prior, or a `Weights`), offset (added to eta), exposure (its logarithm is
    added): names of columns, or arrays. missing: "drop" leaves out rows with a missing value in anything that is used, and
    counts them; "invalid" keeps them, and their group gets the status INVALID_DATA. names: of the terms, in place of the
    formula's. progress: called with the numbers of fits done and of all. bias_reduction: "mean", "median" or "jeffreys" for
    estimates with less bias; separated="firth": those of mean bias reduction, for separated groups only, in place of their
    limits. The others are those of `jaxglm.fit`.

    Raises ValueError and TypeError for formulas, names and types that do not fit; never for values in rows.

    >>> import jaxglm
    >>> data = {"y": [1, 2, 3, 9, 2, 2, 1, 1], "x": [0, 1, 2, 3, 0, 1, 2, 3], "shop": ["a"] * 4 + ["b"] * 4}
    >>> fit = jaxglm.glm("y ~ x", data, family="poisson", by="shop")
    >>> fit["a"].coefficients.round(4).tolist()
    [-0.1851, 0.7736]
    """
    frame, (weights, kind) = frames.frame(data), split(weights)
    by = [] if by is None else [by] if isinstance(by, str) else list(by)
    _check_request(by, responses is not None, missing)
    model = families.named(family)
    shapes = [leaf for leaf in jax.tree.leaves(model) if isinstance(leaf, str)]
    parsed = _parse(formula, frame, responses is not None, [*by, weights, offset, exposure, *shapes])
    _check_response(parsed, frame, model)
    columns = _columns(frame, [*parsed.variables, *shapes], by, weights, offset, exposure)
    model = _shapes_from_columns(model, frame, columns)
    used = ~columns.missing & (columns.codes >= 0)
    everything = bool(used.all())
    if not used.any():
        raise ValueError(f"no rows are left: every row misses a value in {listed([*parsed.variables, *by])} or has no group")
    made = materialise(parsed, frame if everything else frames.keep(frame, used))
    names = _names(names, made.names)
    about = Table(
        kind=frames.kind_of(frame),
        data=data,
        design=replace(made.spec, names=tuple(names)),
        by=tuple(by),
        offset=offset if isinstance(offset, str) else None,
        exposure=exposure if isinstance(exposure, str) else None,
        used=None if everything else used,
        levels=made.levels,
        unnamed_offset=any(given is not None and not isinstance(given, str) for given in (offset, exposure)),
    )
    rest = {"start": start, "penalty": penalty, "options": options, "precision": precision, "device": device, "kind": kind}
    rest |= {"bias_reduction": bias_reduction, "separated": separated}
    if responses is not None:
        keys, observations, dropped = _many_responses(made, columns, responses, used, missing)
        if missing == "invalid" and not everything:
            observations, about = _with_missing(observations, columns, used), replace(about, used=None)
        return fit_observations(observations, model, names, keys, dropped, table=about, progress=progress, **rest)
    observations = _observations(made, columns, used)
    dropped = np.bincount(columns.codes[columns.missing & columns.present], minlength=columns.g)
    if missing == "invalid" and dropped.any():
        observations, dropped, about = _with_missing(observations, columns, used), dropped * 0, replace(about, used=None)
    if columns.weights is not None:
        rest["stated"] = columns.weights if about.used is None else columns.weights[used]
    adjust = _choose(made, columns, used) if model.log_likelihood is not None else None
    return fit_observations(
        observations, model, names, columns.keys, dropped, table=about, progress=progress, adjust=adjust, **rest
    )


def _check_request(by: list[str], many_responses: bool, missing: str) -> None:
    clash = [name for name in dict.fromkeys(by) if name in RESERVED or by.count(name) > 1]
    if clash:
        raise ValueError(f"by={listed(clash)}: a key given twice, or called like a column of the result tables; rename it")
    if by and many_responses:
        raise ValueError(
            "by= and responses= cannot be combined: give one row set for each group, or one design for all responses"
        )
    if missing not in ("drop", "invalid"):
        raise ValueError(f'missing must be "drop" or "invalid", not {missing!r}')


def _parse(text: str, frame: Any, responses: bool, others: Sequence[Any]) -> Parsed:
    exclude = [name for name in others if isinstance(name, str)]
    return parse(text, responses, columns=frame.columns, exclude=exclude)


def _names(names: Sequence[str] | None, made: Sequence[str]) -> list[str]:
    if names is None:
        return list(made)
    if len(names) != len(made) or len(set(names)) != len(made):
        raise ValueError(f"names must be {len(made)} different names, one for each of the terms {listed(made, 20)}")
    return [str(name) for name in names]


def _columns(frame: Any, variables: Sequence[str], by: list[str], weights: Any, offset: Any, exposure: Any) -> Columns:
    """The columns beside those of the formula, and which rows miss something."""
    for name in variables:
        frames.column(frame, name, "the formula")
    missing = frames.missing(frame, variables)
    numbers = {}
    for role, given in (("weights", weights), ("offset", offset), ("exposure", exposure)):
        values = _numbers(frame, given, role)
        numbers[role] = values
        if values is not None:
            missing |= np.isnan(values)
    if not by:
        return Columns(None, np.zeros(len(frame), np.int64), missing=missing, **numbers)
    keys = frames.keys(frame, by)
    groups = combine([key.name for key in keys], [key.levels for key in keys], [key.codes for key in keys])
    if len(groups) == 0:
        raise ValueError(f"every row misses its group ({listed(by)})")
    return Columns(groups, groups.codes, missing=missing, **numbers)


def _numbers(frame: Any, given: Any, role: str) -> np.ndarray | None:
    """A column by its name, or an array of the table's length."""
    if given is None:
        return None
    if isinstance(given, str):
        return frames.numeric(frame, given, role)
    values = np.asarray(given, np.float64)
    if values.shape != (len(frame),):
        raise ValueError(f"{role} must be the name of a column, or have shape ({len(frame)},), not {values.shape}")
    return values


def _shapes_from_columns(model: Family, frame: Any, columns: Columns) -> Family:
    """theta and power from columns. Raises ValueError where a column is not constant within groups."""

    def look_up(leaf: Any) -> Any:
        if not isinstance(leaf, str):
            return leaf
        values = frames.numeric(frame, leaf, "the family's parameter")
        inside = (columns.codes >= 0) & ~columns.missing
        codes, values = columns.codes[inside], values[inside]
        out = np.full(columns.g, np.nan)
        out[codes] = values
        different = values != out[codes]
        if different.any():
            where = int(codes[different][0])
            label = "" if columns.keys is None else f" group {columns.keys.labels[where]!r}"
            raise ValueError(
                f"column {leaf!r}, given as a parameter of the family, is not constant within{label or ' the table'}"
            )
        return out if columns.keys is not None else float(out[0])

    return jax.tree.map(look_up, model)


def _check_response(parsed: Parsed, frame: Any, model: Family) -> None:
    """Raise ValueError for labels or successes and failures in a family that is not of proportions."""
    response = parsed.response
    if response is None or model.responses.upper == 1.0:
        return
    if response.kind == "cbind":
        raise ValueError(f"formula {parsed.text!r}: cbind(successes, failures) needs a binomial family, not {model.name}")
    if response.is_column and frames.content(frame, response.text, "the formula") in ("text", "category"):
        labels = listed(np.unique(frames.column(frame, response.text, "the formula").drop_nulls().to_numpy().astype(str)))
        what = f"formula {parsed.text!r}: the response {response.text!r} has the labels {labels}"
        raise ValueError(f"{what}, which need a binomial family, not {model.name}")


def _offset(made: Materialised, columns: Columns, used: np.ndarray) -> np.ndarray | None:
    """The formula's offset, the column's, and the logarithm of the exposure together, in the rows used."""
    parts = [] if made.offset is None else [made.offset]
    if columns.offset is not None:
        parts.append(columns.offset[used])
    if columns.exposure is not None:
        parts.append(log_exposure(columns.exposure[used]))
    return sum(parts[1:], parts[0]) if parts else None


def _observations(made: Materialised, columns: Columns, used: np.ndarray) -> Observations:
    weights = None if columns.weights is None else columns.weights[used]
    if made.trials is not None:
        weights = made.trials if weights is None else made.trials * weights
    codes = columns.codes if used.all() else columns.codes[used]
    return Observations(made.X, made.y, weights, _offset(made, columns, used), codes, columns.g)  # type: ignore[arg-type]


def _with_missing(observations: Observations, columns: Columns, used: np.ndarray) -> Observations:
    """All rows again; those that miss something hold NaN, which makes the data of their fits invalid."""

    def spread(values: np.ndarray | None, fill: float) -> Any:
        if values is None:
            return None
        out = np.full((*values.shape[:-1], len(used)), fill)
        out[..., used] = values
        return out

    weights = spread(observations.weights, 1.0)
    if weights is not None and columns.weights is not None:
        weights[..., ~used] = columns.weights[~used]
    return replace(
        observations,
        X=spread(observations.X.T, 0.0).T,
        y=spread(observations.y, np.nan),
        weights=weights,
        offset=spread(observations.offset, 0.0),
        codes=None if observations.codes is None else columns.codes,
    )


def _choose(made: Materialised, columns: Columns, used: np.ndarray) -> np.ndarray | None:
    """What R's log-likelihood of cbind(s, f) with further weights v has beside ours: v log(t over s), where ours has
    log(v t over v s)."""
    if made.trials is None or columns.weights is None or made.y is None:
        return None
    v, t, s = columns.weights[used], made.trials, made.trials * made.y
    valid = (v > 0) & np.isfinite(v) & (t > 0) & (s >= 0) & (s <= t)
    v, t, s = np.where(valid, v, 1.0), np.where(valid, t, 1.0), np.where(valid, s, 0.0)

    def choose(n: np.ndarray, k: np.ndarray) -> np.ndarray:
        return gammaln(n + 1.0) - gammaln(k + 1.0) - gammaln(n - k + 1.0)

    gap = np.where(valid, v * choose(t, s) - choose(v * t, v * s), 0.0)
    return np.bincount(columns.codes[used], gap, columns.g)


def _many_responses(
    made: Materialised, columns: Columns, responses: Any, used: np.ndarray, missing: str
) -> tuple[Groups, Observations, np.ndarray]:
    """One design, and a response a column of `responses`."""
    n = len(used)
    if isinstance(responses, np.ndarray) or not (hasattr(responses, "columns") or isinstance(responses, dict)):
        Y = np.asarray(responses, np.float64)
        if Y.ndim != 2 or Y.shape[0] != n:
            hint = " It looks transposed: pass responses.T." if Y.ndim == 2 and Y.shape[1] == n else ""
            raise ValueError(f"responses must have shape ({n}, g), a row for each row of data, not {Y.shape}.{hint}")
        labels: np.ndarray = np.arange(Y.shape[1])
    else:
        frame = frames.frame(responses, "responses")
        if len(frame) != n:
            hint = " It looks transposed." if len(frame.columns) == n else ""
            raise ValueError(f"responses has {len(frame)} rows, data has {n}.{hint}")
        Y = np.column_stack([frames.numeric(frame, name, "responses") for name in frame.columns])
        labels = np.asarray(frame.columns, object)
    if Y.shape[1] == 0:
        raise ValueError("responses has no columns")
    lost = np.isnan(Y) | columns.missing[:, None]
    if columns.weights is not None:
        lost &= (columns.weights != 0)[:, None]
    Y, weights = Y[used].T, None if columns.weights is None else columns.weights[used]
    dropped = lost.sum(axis=0)
    observations = Observations(made.X, Y, weights, _offset(made, columns, used), None, Y.shape[0])
    if missing == "invalid":
        dropped = dropped * 0
    elif np.isnan(Y).any():
        observations = observations.without(lost[used].T)
    return Groups(("response",), (labels,), np.zeros(0, np.int64)), observations, dropped
