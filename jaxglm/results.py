"""What a call gives back: one fit, or many with a leading axis.

`GLMResults` holds the solution and orchestrates; numbers are made by functions over arrays in `wald`, `residuals`,
`prediction`, and tables in `tables`. Conventions are R's, see the README.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np

from jaxglm import prediction, storage, summary, tables, wald
from jaxglm.bootstrap import Bootstrap, interval
from jaxglm.errors import UnknownGroupError
from jaxglm.family import Family
from jaxglm.groups import Groups
from jaxglm.inference import Inference
from jaxglm.irls.solution import Solution
from jaxglm.observations import Observations
from jaxglm.residuals import RowQuantities, means, require_type, row_quantities
from jaxglm.shapes import Shapes
from jaxglm.status import Method, Status
from jaxglm.tables import Table
from jaxglm.task import Task

OF_FITS = ("degrees", "unscaled", "bootstrapped", "shape_errors")  # fields by group, or None


@dataclass(frozen=True, eq=False, repr=False)
class GLMResults(Inference, Shapes):
    """The result of `jaxglm.glm`, `fit` and `scan`.

    With many fits, every array has a leading axis g; with one, there is none and scalars are plain. p coefficients.

    covariance_type: how `covariance` was made: "model", that of the expected information, or what `robust` or `bootstrap`
    put in its place. Behind it, (g, ...) in every case: degrees, of freedom of t statistics where the covariance is not the
    model's, None for z; unscaled, the model's covariance at dispersion 1 where `solution` no longer has it. weights_kind:
    what weights mean, see `jaxglm.Weights`; bootstrapped: the replicates.

    >>> import jaxglm
    >>> fit = jaxglm.fit([[1.0, 0.0], [1.0, 1.0], [1.0, 2.0], [1.0, 3.0]], [1, 2, 3, 9], family="poisson")
    >>> fit.coefficients.round(4).tolist(), fit.status.label
    ([-0.1851, 0.7736], 'converged')
    """

    solution: Solution
    family: Family
    names: list[str]
    keys: Groups | None
    dropped: np.ndarray
    observations: Observations | None
    table: Table | None = None
    n_unassigned: int = 0
    has_offset: bool = False
    task: Task | None = None
    covariance_type: str = "model"
    degrees: np.ndarray | None = None
    unscaled: np.ndarray | None = None
    weights_kind: str = "prior"
    bootstrapped: Bootstrap | None = None
    penalized: bool = False
    shape_errors: np.ndarray | None = None  # (g,), where theta or power was estimated

    @property
    def many(self) -> bool:
        """Whether there is a leading axis."""
        return self.keys is not None

    def _squeezed(self, values: Any) -> Any:
        if self.many:
            return values
        first = np.asarray(values)[0]
        return first.item() if np.ndim(first) == 0 else first

    def __len__(self) -> int:
        return len(self.solution.status)

    @property
    def groups(self) -> Any:
        """The keys, sorted: an array, or with several key columns a list of tuples; None for one fit."""
        return None if self.keys is None else self.keys.labels

    @property
    def coefficients(self) -> np.ndarray:
        """(p,): the estimates, NaN where aliased.

        A term that `infinite` marks has no estimate. Its number has the right sign and is large on the scale of eta: times
        the reach of their columns, the diverging terms take the rows that they move to 40 or beyond, towards their limits.
        The number itself has no meaning.
        """
        return self._squeezed(self.solution.coefficients)

    @property
    def covariance(self) -> np.ndarray:
        """(p, p): of the estimates; NaN where aliased or infinite."""
        return self._squeezed(self.solution.covariance)

    @property
    def standard_errors(self) -> np.ndarray:
        """(p,): square roots of the covariance's diagonal."""
        return self._squeezed(wald.standard_errors(self.solution.covariance))

    @property
    def deviance(self) -> Any:
        """Twice the gap to the saturated log-likelihood, at dispersion 1."""
        return self._squeezed(self.solution.deviance)

    @property
    def null_deviance(self) -> Any:
        """The deviance of the null model: the intercept with the offset, or eta = offset without an intercept."""
        return self._squeezed(self.solution.null_deviance)

    @property
    def log_likelihood(self) -> Any:
        """With R's constants; NaN for quasi families, and for Tweedie's unless the power was estimated: then it is the maximum
        over power and dispersion."""
        return self._squeezed(self.solution.log_likelihood)

    @property
    def n_parameters(self) -> Any:
        """What AIC and BIC count: independent coefficients, and estimated dispersion, theta and power."""
        return self._squeezed(self.solution.rank + self.family.n_shapes)

    @property
    def aic(self) -> Any:
        """Akaike's criterion, as R's `AIC`."""
        return -2.0 * self.log_likelihood + 2.0 * self.n_parameters

    @property
    def bic(self) -> Any:
        """Schwarz's criterion, with the logarithm of the number of rows of nonzero weight."""
        size = self._squeezed(np.log(np.maximum(self.solution.n_obs, 1)))
        return -2.0 * self.log_likelihood + size * self.n_parameters

    @property
    def dispersion(self) -> Any:
        """Pearson's statistic over the residual degrees of freedom, or the number where it is known."""
        return self._squeezed(self.solution.dispersion)

    @property
    def df_residual(self) -> Any:
        """Rows of nonzero weight less independent coefficients."""
        return self._squeezed(self.solution.n_obs - self.solution.rank)

    @property
    def df_null(self) -> Any:
        """Rows of nonzero weight, less one where the null model has an intercept."""
        return self._squeezed(np.maximum(self.solution.n_obs - self.solution.spans_constant, 0))

    @property
    def rank(self) -> Any:
        """Independent columns; 0 where there are no estimates."""
        return self._squeezed(self.solution.rank)

    @property
    def n_obs(self) -> Any:
        """Rows of nonzero weight; with frequencies, the rows that they stand for."""
        return self._squeezed(self.solution.n_obs)

    @property
    def n_iterations(self) -> Any:
        """Accepted steps."""
        return self._squeezed(self.solution.n_iterations)

    @property
    def n_dropped(self) -> Any:
        """Rows left out for missing values."""
        return self._squeezed(self.dropped)

    @property
    def status(self) -> Any:
        """Integers of `jaxglm.Status`; for one fit a `Status`."""
        return self.solution.status if self.many else Status(int(self.solution.status[0]))

    @property
    def converged(self) -> Any:
        """Whether the status is CONVERGED."""
        return self._squeezed(self.solution.status == Status.CONVERGED)

    @property
    def infinite(self) -> np.ndarray:
        """(p,): the direction -1 or 1 in which a coefficient diverges, 0 where it is finite.

        The number that `coefficients` holds for a diverging term is large and of this sign, and says nothing else.
        """
        return self._squeezed(self.solution.infinite)

    @property
    def method(self) -> Any:
        """How the estimates were made: "irls"; "other_start", "damped" or "lbfgs" where that failed at first; "boundary" for an
        optimum on the boundary of the valid means; or by a penalty or with less bias. See `status.Method`."""
        return self._squeezed(np.array([method.label for method in Method])[self.solution.method])

    def _degrees(self) -> np.ndarray | None:
        """Degrees of freedom of t statistics (g, 1), None where they are z."""
        if self.covariance_type != "model":
            return None if self.degrees is None else self.degrees[:, None]
        return (self.solution.n_obs - self.solution.rank)[:, None] if self.family.dispersion is None else None

    @property
    def statistics(self) -> np.ndarray:
        """(p,): estimates over their errors; t where the dispersion is estimated, else z."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return self._squeezed(self.solution.coefficients / wald.standard_errors(self.solution.covariance))

    @property
    def p_values(self) -> np.ndarray:
        """(p,): two-sided."""
        return self._squeezed(wald.p_values(np.atleast_2d(self.statistics), self._degrees()))

    @property
    def log10_p_values(self) -> np.ndarray:
        """(p,): decimal logarithms of the p-values, which do not underflow."""
        return self._squeezed(wald.log10_p_values(np.atleast_2d(self.statistics), self._degrees()))

    def conf_int(self, level: float = 0.95, method: str = "wald") -> np.ndarray:
        """(p, 2): intervals of the coefficients, "wald" (those of a bootstrap, if it was made with its own), or "profile" (see
        `profile_interval`). Raises ValueError for a level outside (0, 1)."""
        if method not in ("wald", "profile"):
            raise ValueError(f'method must be "wald" or "profile", not {method!r}')
        if method == "profile":
            return self.profile_interval(level)
        half = wald.quantile(level, self._degrees()) * wald.standard_errors(self.solution.covariance)
        center, made = self.solution.coefficients, self.bootstrapped
        if made is not None and made.intervals != "normal":
            return self._squeezed(interval(made, center, level))
        return self._squeezed(np.stack([center - half, center + half], axis=-1))

    def _rows(self) -> Observations:
        if self.observations is None:
            raise ValueError(
                "this result was loaded from a file, which holds no rows; what is computed row by row is not there. "
                "Use predict(new) with the rows, or fit again"
            )
        return self.observations

    def _in_rows(self, values: np.ndarray) -> np.ndarray:
        """In the user's rows, NaN where they were dropped."""
        values = self._rows().fitted_only(values)
        if not self.many and self._rows().codes is None:
            values = values[0]
        if self.table is None or self.table.used is None:
            return values
        full = np.full((*values.shape[:-1], len(self.table.used)), np.nan)
        full[..., self.table.used] = values
        return full

    def _eta(self) -> np.ndarray:
        return self._rows().linear_predictor(self.solution)

    def _quantities(self) -> RowQuantities:
        rows = self._rows()
        offset = rows.rows(rows.offset, 0.0)
        return row_quantities(rows.family(self.family), rows.rows(rows.y, 0.0), rows.unit_weights(), self._eta(), offset)

    @property
    def linear_predictor(self) -> np.ndarray:
        """eta of every row, with the offset; infinite where a separated group takes it there."""
        return self._in_rows(self._eta())

    @property
    def fitted(self) -> np.ndarray:
        """The mean of every row."""
        rows = self._rows()
        return self._in_rows(means(rows.family(self.family), self._eta()))

    def residuals(self, type: str = "deviance") -> np.ndarray:
        """Of every row: "deviance", "pearson", "response" or "working", as R's `residuals.glm`."""
        require_type(type)
        return self._in_rows(getattr(self._quantities(), type))

    @property
    def working_response(self) -> np.ndarray:
        """R's z = eta - offset + (y - mu) deta/dmu of every row."""
        return self._in_rows(self._quantities().working_response)

    @property
    def working_weights(self) -> np.ndarray:
        """Prior weight times (dmu/deta)^2 / V(mu) of every row."""
        return self._in_rows(self._quantities().working_weights)

    def predict(
        self, new: Any, type: str = "response", groups: Any = None, offset: Any = None, exposure: Any = None
    ) -> np.ndarray:
        """The mean ("response") or eta ("link") for new rows.

        new: a table (then key, offset and exposure columns are found in it), or columns X (m, p), or (g, m, p) where each
        of many fits gets rows of its own. groups: the group of each row; without it every group predicts every row, (g, m).
        offset, exposure: numbers for the rows, or names of columns of a table; where the fit had one that is not found in
        `new`, one has to be given. Raises KeyError for unknown groups and ValueError for unseen levels.
        """
        request = prediction.request(self, new, groups, offset, exposure)
        return prediction.point(self, request, type)

    def prediction(
        self,
        new: Any,
        type: str = "response",
        groups: Any = None,
        offset: Any = None,
        exposure: Any = None,
        level: float = 0.95,
    ) -> prediction.Prediction:
        """Like `predict`, with standard errors and a Wald interval made on the scale of eta."""
        request = prediction.request(self, new, groups, offset, exposure)
        return prediction.with_errors(self, request, type, level)

    def tidy(self, level: float = 0.95, exponentiate: bool = False, adjust: str | None = None) -> Any:
        """A table with a row for every group and term, in the kind of table the data came in. adjust: a method of
        `jaxglm.adjust`, such as "bh", which adds `q_value`: p-values adjusted across groups, for each term."""
        return tables.tidy(self, level, exponentiate, adjust)

    def glance(self) -> Any:
        """A table with a row for every group."""
        return tables.glance(self)

    def augment(self) -> Any:
        """The user's rows with fitted values, residuals and so on."""
        return tables.augment(self)

    def summary(self) -> str:
        """What a person would want to read first."""
        return summary.text(self)

    def __repr__(self) -> str:
        return summary.short(self)

    def __getitem__(self, key: Any) -> GLMResults:
        """One group's result, by its key, or by position where there are no keys. Raises KeyError with a hint."""
        if self.keys is None:
            raise TypeError("this is one fit, not many; there is nothing to index")
        return self.one(self._place(key) if self.keys.positional else self.keys.position(key))

    def _place(self, key: Any) -> int:
        try:
            place = operator.index(key)
        except TypeError:
            place = len(self)
        if not -len(self) <= place < len(self):
            raise UnknownGroupError(f"there is no fit {key!r}; there are {len(self)}, from 0 on")
        return place

    def one(self, position: int) -> GLMResults:
        """The result at a position of the leading axis."""
        position = position % len(self)
        part = slice(position, position + 1)
        observations = None if self.observations is None else self.observations.one(position)
        table = None if self.table is None else replace(self.table, data=None, used=None, by=())
        return replace(
            self,
            solution=jax.tree.map(lambda leaf: leaf[part], self.solution),
            family=jax.tree.map(lambda leaf: leaf if np.ndim(leaf) == 0 else np.asarray(leaf)[position], self.family),
            keys=None,
            dropped=self.dropped[part],
            observations=observations,
            table=table,
            n_unassigned=0,
            task=None if self.task is None or observations is None else self.task.one(position, observations.sorted_source()),
            **{name: jax.tree.map(lambda leaf: leaf[part], getattr(self, name)) for name in OF_FITS},
        )

    def save(self, path: Any) -> None:
        """Write everything but the rows to a file, to be read by `jaxglm.load`."""
        storage.save(self, path)


def finish(
    solution: Solution,
    model: Family,
    names: Sequence[str],
    keys: Groups | None,
    dropped: np.ndarray,
    observations: Observations,
    *,
    table: Table | None = None,
    task: Task | None = None,
    shape_errors: np.ndarray | None = None,
) -> GLMResults:
    """The result of a call, and its one warning about fits that did not converge."""
    unassigned = 0 if keys is None else keys.n_missing
    has_offset = observations.offset is not None if table is None else table.unnamed_offset
    made = GLMResults(solution, model, list(names), keys, dropped, observations, table, unassigned, has_offset, task)
    result = replace(made, shape_errors=shape_errors)
    summary.warn(result)
    return result
