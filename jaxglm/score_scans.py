"""A scan by score tests: whether a feature would add anything, from the fit without it alone.

All features share the null fit, with working weights W and scores s of its rows. For a feature z beside the columns X,

    score        U = z~'s,      information  V = z~'W z~,      z~ = z - X (X'WX)^-1 X'W z,

and U / sqrt(phi V) is a z statistic whose square is Rao's. All that is needed of many features are three matrix products,
Z'WX, Z's and the diagonal of Z'WZ; where they cancel, as for a feature that the columns nearly span, z~ is made itself. With
them comes one step of Newton's method, U / V, with the error sqrt(phi / V).

Features with missing values (missing="drop") are tested exactly: the rows are not there for the null fit either, which is made
once for each set of missing rows. Where the dispersion is estimated it is that of the null fit, as in
`statmod::glm.scoretest`, whose numbers these are; R's `anova(null, full, test = "Rao")` divides by that of the larger
model, which needs its fit. Where it is known, the two are one.

Sources: Rao (1948); Pregibon, Score tests in GLIM (1982).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxglm import discovery, families, tables, wald
from jaxglm.arrays import Scan, fit_observations, one_a_fit, pose_scan
from jaxglm.calls import arithmetic
from jaxglm.designs import HIGHEST, Shared
from jaxglm.devices import named_device
from jaxglm.family import Family
from jaxglm.fitting import as_numbers
from jaxglm.groups import Groups
from jaxglm.irls.options import IRLS
from jaxglm.irls.problem import typed
from jaxglm.irls.working import working
from jaxglm.linalg import cholesky
from jaxglm.packing import Crossed
from jaxglm.reduced import NullFits, without_own
from jaxglm.results import GLMResults, finish
from jaxglm.rows import Rows
from jaxglm.status import Status
from jaxglm.task import Task
from jaxglm.threads import in_threads

BLOCK = 2**22  # numbers of features that are looked at together
CLOSE = 1e-3  # of a feature's square, what is left of it beside the columns, below which z~ is made itself
ALIASED = 1e-11  # of a feature's length, the same, when it counts as a combination of the columns, as R's glm.fit has it
DEPENDENT = 1e-14  # of a column's square, what those before it leave of one that depends on them


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Null:
    """The null fits. X: (n, p); y, weights, offset: (n,), the latter None or numbers; family; coefficients: (p,), or (b, p) of
    as many features, 0 where aliased; aliased: likewise."""

    X: Any
    y: Any
    weights: Any
    offset: Any
    family: Family
    coefficients: Any
    aliased: Any


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Scores:
    """Of one feature, scalars. score: U; information: V; square: z'Wz; broken: whether it holds what is no number."""

    score: Any
    information: Any
    square: Any
    broken: Any


@dataclass(frozen=True, eq=False, repr=False)
class ScoreScan:
    """Score tests of m features; all arrays are (m,).

    null: the fit without a feature, of all rows; keys: the features; score, information, dispersion; statistic: z, with the
    sign of the effect; p_value, log10_p: two-sided, of the score test for every feature; estimate, standard_error: one step
    of Newton's method from the null fit, or, where `method` says "irls", those of the fit; method; status: of the null fit
    without the rows where the feature is missing, or of the fit. refits: the fits of the features that were fitted, in
    their order, None where none were asked for. NaN where the columns determine a feature.
    """

    null: GLMResults
    keys: Groups
    score: np.ndarray
    information: np.ndarray
    dispersion: np.ndarray
    statistic: np.ndarray
    p_value: np.ndarray
    log10_p: np.ndarray
    estimate: np.ndarray
    standard_error: np.ndarray
    method: np.ndarray
    status: np.ndarray
    refits: GLMResults | None = None
    table: Any = None

    @property
    def features(self) -> np.ndarray:
        """The features' names, or positions."""
        return self.keys.labels

    def __len__(self) -> int:
        return len(self.score)

    def tidy(self, adjust: str | None = None) -> Any:
        """A table with a row for every feature. adjust: a method of `jaxglm.adjust`, which adds `q_value`."""
        from jaxglm import frames

        columns = {**tables.keys(self, 1), "estimate": self.estimate, "std_error": self.standard_error}
        columns |= {"statistic": self.statistic, "p_value": self.p_value, "log10_p": self.log10_p}
        columns |= {} if adjust is None else {"q_value": discovery.adjust(self.p_value, adjust)}
        columns["method"] = self.method
        columns["status"] = frames.Encoded(self.status, [one.label for one in Status])
        return tables.build(self, columns)

    def __repr__(self) -> str:
        refitted = "" if self.refits is None else f", {len(self.refits)} of them fitted"
        return f"<ScoreScan: {len(self)} features{refitted}; {self.null.family.name} ({self.null.family.link.name})>"


def score_scan(
    X: Any,
    y: Any,
    features: Any,
    family: str | Family = "gaussian",
    *,
    weights: Any = None,
    offset: Any = None,
    exposure: Any = None,
    missing: str = "invalid",
    missing_code: int | None = None,
    refit: float | None = None,
    options: IRLS = IRLS(),  # noqa: B008
    device: Any = None,
    names: Sequence[str] | None = None,
) -> ScoreScan:
    """Test m features, one at a time beside the columns of X, by Rao's score test, which needs the fit without them alone.

    X: (n, p), the covariates, with the intercept; y, weights, offset, exposure: (n,); features: (n, m), numbers of any type,
    NaN or the integer `missing_code` where missing: with missing="drop" such a row is not there for this feature, otherwise
    the feature gets the status INVALID_DATA. refit: features whose p-value is below this are fitted, as by `scan`. Many
    times faster than `scan`, whose Wald tests these are close to where effects are small. Numbers are those of
    `statmod::glm.scoretest`. Raises ValueError and TypeError for shapes, names and types.

    >>> import numpy as np
    >>> import jaxglm
    >>> rng = np.random.default_rng(0)
    >>> found = jaxglm.score_scan(np.ones((50, 1)), rng.poisson(2.0, 50), rng.normal(size=(50, 3)), "poisson")
    >>> found.statistic.shape, found.method.tolist()
    ((3,), ['score', 'score', 'score'])
    """
    if refit is not None and not 0.0 < refit <= 1.0:
        raise ValueError(f"refit is the p-value below which a feature is fitted, between 0 and 1, not {refit!r}")
    model = families.named(family)
    if any(np.ndim(leaf) for leaf in jax.tree.leaves(model)):
        raise ValueError("score tests share one null fit, so the family must have numbers for parameters")
    beside = {"weights": weights, "offset": offset, "exposure": exposure}
    posed = pose_scan(X, y, features, family, beside, missing=missing, missing_code=missing_code, names=names)
    model = one_a_fit(model, posed.observations.g, True)
    task = Task(posed.observations.source(), model, options=options, device=named_device(device))
    null = without_own(task)
    tests = _tests(task, null)
    at = jax.tree.map(lambda leaf: leaf[null.which], null.solution)
    scan = _inferred(posed, _null_result(posed, task, null), tests, at.dispersion, at.status)
    return scan if refit is None else _refitted(scan, posed, scan.p_value < refit, family, options, device)


def _null_result(posed: Scan, task: Task, null: NullFits) -> GLMResults:
    """The fit without features, of all rows, as a result."""
    given = posed.observations
    rows = replace(given, own=None, codes=np.zeros(len(given.X), np.int64), g=1)
    first = jax.tree.map(lambda leaf: leaf[:1], null.solution)
    alone = replace(task, source=rows.sorted_source())
    return finish(first, task.family, posed.names[:-1], None, np.zeros(1, np.int64), rows, task=alone)


def _inferred(posed: Scan, null: GLMResults, tests: Scores, dispersion: np.ndarray, status: np.ndarray) -> ScoreScan:
    """What the scores say."""
    status = np.where(tests.broken, np.where(status == Status.NO_DATA, status, Status.INVALID_DATA), status)
    known = (status == Status.CONVERGED) & (tests.information > ALIASED**2 * tests.square)
    U, V = (np.where(known, values, np.nan) for values in (tests.score, tests.information))
    statistic = U / np.sqrt(dispersion * V)
    return ScoreScan(
        null=null,
        keys=posed.keys,
        score=U,
        information=V,
        dispersion=dispersion,
        statistic=statistic,
        p_value=wald.p_values(statistic, None),
        log10_p=wald.log10_p_values(statistic, None),
        estimate=U / V,
        standard_error=np.sqrt(dispersion / V),
        method=np.full(len(U), "score", object),
        status=status,
    )


def _refitted(scan: ScoreScan, posed: Scan, chosen: np.ndarray, family: Any, options: IRLS, device: Any) -> ScoreScan:
    """The scan with the chosen features fitted."""
    index = np.flatnonzero(chosen)
    own = replace(posed.observations.own, values=posed.observations.own.values[index])  # type: ignore[union-attr,type-var]
    fits = fit_observations(
        replace(posed.observations, own=own, g=len(index)), family, posed.names, posed.keys.select(index), posed.dropped[index],
        options=options, device=device,
    )  # fmt: skip
    estimate, error, method, status = scan.estimate.copy(), scan.standard_error.copy(), scan.method.copy(), scan.status.copy()
    estimate[index], error[index] = fits.coefficients[:, -1], fits.standard_errors[:, -1]
    method[index], status[index] = fits.method, fits.status
    return replace(scan, estimate=estimate, standard_error=error, method=method, status=status, refits=fits)


def _tests(task: Task, null: NullFits) -> Scores:
    """The scores of all features: first those without missing values, which share a null fit."""
    source: Any = task.source
    g, n = source.own.values.shape
    score, information, square = (np.full(g, np.nan) for _ in range(3))
    found = Scores(score, information, square, np.zeros(g, bool))
    size = max(1, BLOCK // max(1, n))
    for places, alone in ((np.flatnonzero(null.which == 0), False), (np.flatnonzero(null.which > 0), True)):
        _look(task, null, found, places, size, alone=alone, closely=False)
    with np.errstate(invalid="ignore"):
        close = np.flatnonzero(found.information < CLOSE * found.square)
    for places, alone in ((close[null.which[close] == 0], False), (close[null.which[close] > 0], True)):
        _look(task, null, found, places, size, alone=alone, closely=True)
    return found


def _look(task: Task, null: NullFits, found: Scores, places: np.ndarray, size: int, *, alone: bool, closely: bool) -> None:
    """The scores of the features at `places`, `size` at a time, put into `found`. alone: each has a null fit of its own."""
    source: Any = task.source
    size = min(size, 1 << max(0, len(places) - 1).bit_length())  # few shapes are compiled
    begins = [max(0, min(begin, len(places) - size)) for begin in range(0, len(places), size)]

    def work(begin: int) -> tuple[np.ndarray, Scores]:
        here = places[begin : begin + size]
        padded = np.concatenate([here, np.full(size - len(here), here[0])])
        consecutive = padded[-1] - padded[0] == size - 1
        values = source.own.values[slice(padded[0], padded[0] + size) if consecutive else padded]
        fits = null.which[padded] if alone else 0
        known = _null(source, task.family, null, fits)
        with arithmetic(task.device):
            made = _scores(values, known, code=source.own.code, alone=alone, closely=closely)
            return here, jax.tree.map(lambda leaf: np.asarray(leaf)[: len(here)], made)

    with arithmetic(task.device):
        for here, made in in_threads(work, begins, task.device):
            jax.tree.map(lambda out, new: out.__setitem__(here, new), found, made)  # noqa: B023


def _null(source: Crossed, family: Family, null: NullFits, fits: Any) -> Null:
    weights = np.ones(len(source.y)) if source.weights is None else source.weights
    aliased = null.solution.aliased[fits]
    b = np.where(aliased, 0.0, null.solution.coefficients[fits])
    return Null(source.X, source.y, weights, source.offset, family, b, aliased)


@partial(jax.jit, static_argnames=("code", "alone", "closely"))
def _scores(values: Array, null: Null, *, code: int | None, alone: bool, closely: bool) -> Scores:
    """Of features (b, n) in the type in which they came."""
    z = as_numbers(values, code, jnp.float64)
    if not alone:
        return jax.vmap(lambda one: _score(one, null, False, closely))(z)
    axes = Null(None, None, None, None, jax.tree.map(lambda leaf: None, null.family), 0, 0)
    return jax.vmap(lambda one, fit: _score(one, fit, True, closely), in_axes=(0, axes))(z, null)


def _score(z: Array, null: Null, alone: bool, closely: bool) -> Scores:
    """Of one feature (n,), NaN where it is missing. alone: such rows are not there. closely: by z~ itself."""
    prior = jnp.where(jnp.isnan(z), 0.0, null.weights) if alone else null.weights
    X = jnp.where((null.weights > 0)[:, None], null.X, 0.0)
    family, design = typed(null.family, jnp.float64), Shared.of(X.T)
    rows = Rows(design, null.y, prior, null.offset).prepared(family, jnp.zeros(prior.shape, bool))
    row = working(family, rows, rows.eta(null.coefficients))
    W, s = row.weights, row.scores
    z = jnp.where(prior == 0, 0.0, z)
    gram = jnp.where(null.aliased[:, None] | null.aliased, 0.0, design.gram(W))
    root = cholesky(gram, tolerance=DEPENDENT).unwhiten(jnp.eye(len(gram), dtype=gram.dtype))
    broken = ~jnp.all(jnp.isfinite(z))
    square = jnp.matmul(z * z, W, precision=HIGHEST)

    def share(v: Array) -> Array:
        """What X has in v, (n,), as coefficients in the columns of X root, which are orthonormal under W."""
        return jnp.matmul(jnp.matmul(v * W, X, precision=HIGHEST), root, precision=HIGHEST)

    first, left = share(z), jnp.matmul(jnp.matmul(s, X, precision=HIGHEST), root, precision=HIGHEST)
    if not closely:
        score = jnp.matmul(z, s, precision=HIGHEST) - jnp.matmul(first, left, precision=HIGHEST)
        return Scores(score, square - jnp.sum(first**2), square, broken)
    columns = jnp.matmul(X, root, precision=HIGHEST)
    rest = z - jnp.matmul(columns, first, precision=HIGHEST)
    rest = rest - jnp.matmul(columns, share(rest), precision=HIGHEST)
    return Scores(jnp.matmul(rest, s, precision=HIGHEST), jnp.matmul(rest**2, W, precision=HIGHEST), square, broken)
