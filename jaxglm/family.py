"""What a family is: a few pure functions of one row, a link, and shape parameters, as one value.

A `Family` is a pytree whose leaves are the shape parameters (theta, power) of the family and its link, so that they may
differ between fits and be differentiated. All that fitting needs, for a row with response y at linear predictor eta, is

    score       (y - mu) dmu/deta / V(mu)      minus half the derivative of the unit deviance,
    weight      (dmu/deta)^2 / V(mu)           its Fisher information,

and the unit deviance. Both follow from the variance function V; a family gives its own forms of score and weight where
these keep digits that the quotient loses (a binomial row far out on the logit scale) or are cheaper.
`jaxglm.check_family` holds every family against automatic differentiation.

Source: McCullagh and Nelder, Generalized Linear Models (1989), chapter 2.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxglm.links import REAL, STATIC, ArrayLike, Interval, Link, Mean

RowFunction = Callable[..., Array]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Family:
    """A family with its link. The fields are functions of rows that take the shape `parameters` as keywords; the
    methods ending in `_at` evaluate them with this family's parameters.

    variance(mu); unit_deviance(y, mean): twice the gap to the saturated log-likelihood, at dispersion 1.
    loss(y, mean): optional, half the unit deviance up to a function of y, where that is cheaper.
    bare(y): optional, responses whose loss is half the deviance and minus the log-likelihood, as those of single trials.
    score(y, mean), weight(mean): optional, better forms of (y - mu) dmu/deta / V and (dmu/deta)^2 / V.
    log_likelihood(y, mean, weights, dispersion): optional; without it log-likelihood, AIC and BIC are NaN.
    start(y, weights): optional, a mean to start from that is valid for every valid response; y itself if not given.
    responses, means: the intervals of valid responses and means; valid_response(y) may narrow the former.
    dispersion: the number where it is known, None where it is estimated.
    likelihood_rows: dispersion inside the log-likelihood is deviance over the number of "rows" or the sum of "weights".
    expected_deviance(precision): optional, the expected unit deviance of a row by its precision, prior weight over
    dispersion, where the deviance over the dispersion is the likelihood's; bias reduction of the dispersion needs it.
    canonical: the name of the link under which observed and expected information are the same.
    estimator: how a shape parameter that is estimated is, "maximum_likelihood", "cox_reid" or "profile_likelihood" (a Tweedie
    power); None where it is given.
    """

    name: str = field(metadata=STATIC)
    link: Link
    variance: RowFunction = field(metadata=STATIC)
    unit_deviance: RowFunction = field(metadata=STATIC)
    loss: RowFunction | None = field(default=None, metadata=STATIC)
    bare: RowFunction | None = field(default=None, metadata=STATIC)
    score: RowFunction | None = field(default=None, metadata=STATIC)
    weight: RowFunction | None = field(default=None, metadata=STATIC)
    log_likelihood: RowFunction | None = field(default=None, metadata=STATIC)
    start: RowFunction | None = field(default=None, metadata=STATIC)
    valid_response: RowFunction | None = field(default=None, metadata=STATIC)
    responses: Interval = field(default=REAL, metadata=STATIC)
    means: Interval = field(default=REAL, metadata=STATIC)
    dispersion: float | None = field(default=None, metadata=STATIC)
    likelihood_rows: str = field(default="weights", metadata=STATIC)
    expected_deviance: RowFunction | None = field(default=None, metadata=STATIC)
    canonical: str | None = field(default=None, metadata=STATIC)
    estimator: str | None = field(default=None, metadata=STATIC)
    parameters: Mapping[str, Any] = field(default_factory=dict)

    def variance_at(self, mu: ArrayLike) -> Array:
        """V(mu)."""
        return self.variance(mu, **self.parameters)

    def unit_deviance_at(self, y: ArrayLike, mean: Mean) -> Array:
        """The unit deviance of each row."""
        return self.unit_deviance(y, mean, **self.parameters)

    def loss_at(self, y: ArrayLike, mean: Mean) -> Array:
        """Half the unit deviance of each row, up to what depends on y alone: what a fit makes small."""
        if self.loss is not None:
            return self.loss(y, mean, **self.parameters)
        return 0.5 * self.unit_deviance_at(y, mean)

    def score_at(self, y: ArrayLike, mean: Mean) -> Array:
        """(y - mu) dmu/deta / V(mu): minus half the derivative of the unit deviance by eta."""
        if self.score is not None:
            return self.score(y, mean, **self.parameters)
        return (y - mean.mu) * (mean.dmu_deta / self.variance_at(mean.mu))

    def weight_at(self, mean: Mean) -> Array:
        """(dmu/deta)^2 / V(mu): the Fisher information of a row at dispersion 1."""
        if self.weight is not None:
            return self.weight(mean, **self.parameters)
        return mean.dmu_deta * (mean.dmu_deta / self.variance_at(mean.mu))

    def observed_weight_at(self, y: Array, eta: Array) -> Array:
        """Minus the derivative of the score by eta, by automatic differentiation; it may be negative."""
        return -jax.jvp(lambda e: self.score_at(y, self.link.mean(e)), (eta,), (jnp.ones_like(eta),))[1]

    def log_likelihood_at(self, y: Array, mean: Mean, weights: Array, dispersion: ArrayLike) -> Array:
        """The log-likelihood of each row, with R's constants. NaN for quasi families."""
        if self.log_likelihood is None:
            return jnp.full_like(mean.mu, jnp.nan)
        return self.log_likelihood(y, mean, weights, dispersion, **self.parameters)

    def start_at(self, y: Array, weights: Array) -> Array:
        """A mean to start from."""
        return y if self.start is None else self.start(y, weights, **self.parameters)

    def valid_response_at(self, y: Array) -> Array:
        """Which responses belong to this family. Infinite ones never do."""
        valid = self.responses.contains(y) & jnp.isfinite(y)
        return valid if self.valid_response is None else valid & self.valid_response(y, **self.parameters)

    def valid_mean_at(self, eta: Array, mu: Array) -> Array:
        """Whether eta lies in the link's domain and mu in the family's; rows where rounding alone reached the end of
        an interval that the link cannot leave are valid."""
        valid = jnp.isfinite(eta) & jnp.isfinite(mu)
        if not self.link.etas.covers(REAL):
            valid &= self.link.etas.contains(eta)
        if not self.means.covers(self.link.means):
            valid &= self.means.contains(mu)
        return valid

    def of(self, fits: Any) -> Family:
        """This family with the shape parameters of these fits: numbers stay, arrays with an axis of fits are indexed."""
        return jax.tree.map(lambda leaf: leaf if jnp.ndim(leaf) == 0 else leaf[fits], self)

    def with_parameters(self, **parameters: Any) -> Family:
        """This family with other shape parameters, in the places of those that they name."""
        return replace(self, parameters={**self.parameters, **parameters})

    def given(self, **parameters: Any) -> Family:
        """The same, with nothing to be estimated."""
        return replace(self.with_parameters(**parameters), estimator=None)

    @property
    def is_canonical(self) -> bool:
        """Whether observed and expected information are the same."""
        return self.canonical == self.link.name

    @property
    def can_separate(self) -> bool:
        """Whether some response can sit where the link is infinite, so that estimates may be infinite."""
        return any(self.responses.contains(mu) for mu in self.link.infinite_at)

    @property
    def counts_dispersion(self) -> bool:
        """Whether AIC counts an estimated dispersion, as R's does for families with a likelihood."""
        return self.dispersion is None and (self.log_likelihood is not None or self.estimator is not None)

    @property
    def n_shapes(self) -> int:
        """How many parameters AIC counts beside coefficients: an estimated dispersion and an estimated shape parameter."""
        return int(self.counts_dispersion) + int(self.estimator is not None)

    def __repr__(self) -> str:
        how = "" if self.estimator is None else f" by {self.estimator}"
        shape = "".join(f", {key}={value}{how}" for key, value in self.parameters.items())
        return f"<family {self.name}, link {self.link.name}{shape}>"
