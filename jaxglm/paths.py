"""What a regularization path gives back: fits along decreasing strengths, and ways to choose one of them.

Cross-validation follows R's cv.glmnet with grouped=TRUE: the loss of a fold is the deviance of its rows over their weights,
at the fits to the other rows; folds are averaged by their weights, and the standard error of the mean comes from their
spread. The choice is the largest strength at the smallest loss, or by the rule of one standard error, the largest whose
loss is within one standard error of the smallest. Sources: Friedman, Hastie and Tibshirani (2010); Breiman, Friedman, Olshen
and Stone (1984), section 3.4.3, for the rule.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from jaxglm import tables
from jaxglm.elastic_net import Paths
from jaxglm.errors import did_you_mean
from jaxglm.family import Family
from jaxglm.groups import Groups
from jaxglm.observations import Observations
from jaxglm.results import GLMResults
from jaxglm.status import Status

CRITERIA = ("aic", "bic", "cv")
RULES = ("min", "1se")


@dataclass(frozen=True)
class Losses:
    """What cross-validation found. mean, standard_error: (..., L), of the deviance of a row that was not fitted, per unit
    of weight; NaN where no fold could be fitted, or for the error only one."""

    mean: np.ndarray
    standard_error: np.ndarray

    @classmethod
    def of_folds(cls, losses: np.ndarray, weights: np.ndarray) -> Losses:
        """From the losses (folds, ..., L) and the weights (folds, ...) of folds; NaN where a fold could not be fitted."""
        there = np.isfinite(losses) & (weights > 0)[..., None]
        share = np.where(there, weights[..., None], 0.0)
        total, count = share.sum(axis=0), there.sum(axis=0)
        with np.errstate(divide="ignore", invalid="ignore"):
            mean = np.where(there, share * losses, 0.0).sum(axis=0) / total
            spread = np.where(there, share * (losses - mean) ** 2, 0.0).sum(axis=0) / total
            return cls(mean, np.sqrt(np.where(count > 1, spread / (count - 1), np.nan)))

    def place(self, rule: str) -> np.ndarray:
        """Where along the path the rule, "min" or "1se", chooses, (...)."""
        least = _smallest(self.mean)
        if rule == "min":
            return least
        bound = np.take_along_axis(self.mean + np.nan_to_num(self.standard_error), least[..., None], -1)
        return np.argmax(self.mean <= bound, axis=-1)  # the first is the largest strength


@dataclass(frozen=True)
class Folds:
    """Cross-validation by fold. losses: (folds, g, L); weights: (folds, g)."""

    losses: np.ndarray
    weights: np.ndarray

    @property
    def of_each(self) -> Losses:
        """Each fit by itself."""
        return Losses.of_folds(self.losses, self.weights)

    @property
    def of_all(self) -> Losses:
        """All fits together, the losses of their rows added up; fits that some fold or strength lacks are left out."""
        whole = np.isfinite(self.losses).all(axis=(0, 2)) & (self.weights > 0).all(axis=0)
        weights = self.weights[:, whole]
        total = weights.sum(axis=1)
        losses = np.sum(self.losses[:, whole] * weights[..., None], axis=1) / np.where(total > 0, total, np.nan)[:, None]
        return Losses.of_folds(losses, total)


@dataclass(frozen=True, eq=False, repr=False)
class Path:
    """The result of `jaxglm.regularization_path`: L fits, at decreasing strengths, of each of g models.

    With many models, arrays have a leading axis g; with one, there is none.

    >>> import numpy as np
    >>> import jaxglm
    >>> rng = np.random.default_rng(0)
    >>> X = np.column_stack([np.ones(40), rng.normal(size=(40, 4))])
    >>> path = jaxglm.regularization_path(X, rng.poisson(np.exp(X[:, 1])), "poisson", lambdas=20)
    >>> path.coefficients.shape, float(path.df[0])
    ((20, 5), 1.0)
    >>> path.select("bic").status.label
    'converged'
    """

    paths: Paths
    family: Family
    names: list[str]
    keys: Groups | None
    dropped: np.ndarray
    observations: Observations
    folds: Folds | None = field(default=None)

    @property
    def many(self) -> bool:
        """Whether there is a leading axis."""
        return self.keys is not None

    def _squeezed(self, values: Any) -> Any:
        return values if self.many else values[0]

    def __len__(self) -> int:
        return len(self.paths.strengths)

    @property
    def groups(self) -> Any:
        """The keys, as those of `GLMResults`; None for one model."""
        return None if self.keys is None else self.keys.labels

    @property
    def lambdas(self) -> np.ndarray:
        """(L,): the strengths, the largest first."""
        return self._squeezed(self.paths.strengths)

    @property
    def coefficients(self) -> np.ndarray:
        """(L, p): of the columns as they are; NaN where a free column is aliased, or there is no fit."""
        return self._squeezed(self.paths.along.coefficients)

    @property
    def deviance(self) -> np.ndarray:
        """(L,): without the penalty."""
        return self._squeezed(self.paths.along.deviance)

    @property
    def null_deviance(self) -> Any:
        """Of the intercept with the offset, or of the offset alone."""
        return self._squeezed(self.paths.free.null_deviance)

    @property
    def explained(self) -> np.ndarray:
        """(L,): the share of the null deviance that is gone, glmnet's dev.ratio."""
        return self._squeezed(1.0 - self.paths.along.deviance / self.paths.free.null_deviance[:, None])

    @property
    def df(self) -> np.ndarray:
        """(L,): degrees of freedom, the intercept's included: the number of coefficients that are not zero; with a ridge
        part, the trace of the hat matrix on them."""
        return self._squeezed(self.paths.along.df)

    @property
    def log_likelihood(self) -> np.ndarray:
        """(L,): with R's constants; NaN for quasi and Tweedie families."""
        return self._squeezed(self.paths.along.log_likelihood)

    def _criterion(self, each: Any) -> np.ndarray:
        along = self.paths.along
        return -2.0 * along.log_likelihood + each * (along.df + int(self.family.counts_dispersion))

    @property
    def aic(self) -> np.ndarray:
        """(L,): Akaike's criterion, counting `df`, and an estimated dispersion."""
        return self._squeezed(self._criterion(2.0))

    @property
    def bic(self) -> np.ndarray:
        """(L,): Schwarz's criterion, likewise."""
        return self._squeezed(self._criterion(np.log(np.maximum(self.paths.free.n_obs, 1))[:, None]))

    @property
    def n_obs(self) -> Any:
        """Rows of nonzero weight."""
        return self._squeezed(self.paths.free.n_obs)

    @property
    def n_iterations(self) -> np.ndarray:
        """(L,): accepted steps, from the fit before."""
        return self._squeezed(self.paths.along.n_iterations)

    @property
    def status(self) -> np.ndarray:
        """(L,): integers of `jaxglm.Status`."""
        return self._squeezed(self.paths.along.status)

    @property
    def converged(self) -> np.ndarray:
        """(L,): whether the status is CONVERGED."""
        return self._squeezed(self.paths.along.status == Status.CONVERGED)

    @property
    def losses(self) -> Losses:
        """Cross-validated losses. Raises ValueError where the path was made without folds."""
        losses = self._folds().of_each
        return Losses(self._squeezed(losses.mean), self._squeezed(losses.standard_error))

    def _folds(self) -> Folds:
        if self.folds is None:
            raise ValueError("this path was made without cross-validation; give regularization_path(..., folds=10)")
        return self.folds

    def choose(self, criterion: str = "cv", rule: str = "min", together: bool = False) -> Any:
        """Where along the path the best fit is, (g,), from 0 on.

        criterion: "aic", "bic" or "cv"; rule: for "cv", "min", or "1se" for the largest strength whose loss is within a
        standard error of the smallest. together: one place for all models, by the sum of their criteria or losses.
        Raises ValueError for other words, and for "cv" without folds.
        """
        if criterion not in CRITERIA:
            raise ValueError(f"there is no criterion {criterion!r}.{did_you_mean(criterion, CRITERIA)} Give aic, bic or cv")
        if rule not in RULES or (rule == "1se" and criterion != "cv"):
            raise ValueError(f'rule must be "min", or with the criterion "cv" also "1se", not {rule!r} for {criterion!r}')
        if criterion == "cv":
            place = self._folds().of_all.place(rule) if together else self._folds().of_each.place(rule)
        else:
            values = self._criterion(2.0 if criterion == "aic" else np.log(np.maximum(self.paths.free.n_obs, 1))[:, None])
            values = np.where(self.paths.along.status == Status.CONVERGED, values, np.nan)
            if self.family.log_likelihood is None:
                raise ValueError(f"{criterion} needs a likelihood, which the {self.family.name} family has none of; use cv")
            place = _smallest(values[np.isfinite(values).all(axis=1)].sum(axis=0) if together else values)
        place = np.broadcast_to(place, (len(self),))
        return self._squeezed(place)

    def select(self, criterion: str = "cv", rule: str = "min", together: bool = False) -> GLMResults:
        """The fits that `choose` chooses."""
        return self.at(self.choose(criterion, rule, together))

    def at(self, place: Any) -> GLMResults:
        """The fits at a place along the path, from 0 on: a number, or one a model (g,). Raises IndexError beyond its end."""
        place, length = np.asarray(place), self.paths.strengths.shape[1]
        if place.shape not in ((), (len(self),)) or place.dtype.kind not in "iu":
            raise ValueError(f"place must be a whole number, or have shape ({len(self)},), not {place!r}")
        if np.any((place < -length) | (place >= length)):
            raise IndexError(f"place must be from 0 to {length - 1}, since the path has {length} fits")
        solution = self.paths.at(np.broadcast_to(place, (len(self),)), self.family.dispersion)
        rows = self.observations
        known = rows.offset is not None
        return GLMResults(solution, self.family, self.names, self.keys, self.dropped, rows, has_offset=known)

    def tidy(self, zeros: bool = False) -> Any:
        """A table with a row for each model, step along the path and term; zeros: also where the estimate is zero."""
        return tables.tidy_path(self, zeros)

    def glance(self) -> Any:
        """A table with a row for each model and step along the path."""
        return tables.glance_path(self)

    def __repr__(self) -> str:
        what = f"{self.family.name} ({self.family.link.name}), {len(self.names)} terms"
        models = f"{len(self)} models, " if self.many else ""
        status = self.paths.along.status
        done = int(np.sum(status == Status.CONVERGED))
        return f"<Path: {models}{what}, {status.shape[1]} strengths; {done} of {status.size} fits converged>"


def _smallest(values: np.ndarray) -> np.ndarray:
    """The first place of the smallest number in the last axis, NaN counting as infinite."""
    return np.argmin(np.where(np.isnan(values), np.inf, values), axis=-1)
