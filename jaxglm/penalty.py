"""Penalties that fitting adds to minus the log-likelihood, the latter at dispersion 1.

A ridge penalty is quadratic, so that a penalized fit is a fit like any other with a penalized information: its estimates
have standard errors. An elastic net adds absolute values, which set coefficients to zero; its estimates have none.

What the user gives is checked here and turned into arrays. Sources: Hoerl and Kennard (1970); le Cessie and van Houwelingen
(1992) for ridge penalties in GLMs; Zou and Hastie (2005); Friedman, Hastie and Tibshirani (2010) and their R package glmnet,
whose conventions are followed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxglm.designs import HIGHEST
from jaxglm.errors import did_you_mean, listed

DEFINITE = 1e-10  # of a matrix's largest eigenvalue, what rounding may make of one that is not negative


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Ridge:
    """Adds half of the sum of strength * b^2, and half of b' matrix b, to minus the log-likelihood, the latter at dispersion 1.

    strength: a nonnegative number for all coefficients, the intercept included, or one a coefficient (p,), zero where a
    coefficient is free; with many fits also (g, p). matrix: (p, p), symmetric and positive semidefinite, as those of
    smoothing and of known priors (then the inverse of the prior's covariance); with many fits also (g, p, p). Standard
    errors are those of the penalized information, dispersion * (X'WX + diag(strength) + matrix)^-1.

    >>> from jaxglm import Ridge
    >>> Ridge(0.5)
    Ridge(strength=0.5)
    >>> Ridge(matrix=[[1.0, -1.0], [-1.0, 1.0]])
    Ridge(matrix=[[1.0, -1.0], [-1.0, 1.0]])
    """

    strength: Any = 0.0
    matrix: Any = None

    def __repr__(self) -> str:
        if self.matrix is None:
            return f"Ridge(strength={self.strength})"
        return f"Ridge(matrix={self.matrix})" if np.ndim(self.strength) == 0 else f"Ridge({self.strength}, {self.matrix})"

    def of_one(self, p: int, dtype: Any) -> Array:
        """The penalty of one fit as arrays: (p,), or (p, p) with a matrix. Raises ValueError for another shape."""
        strength = jnp.asarray(self.strength, dtype)
        if strength.shape not in ((), (p,)):
            raise ValueError(f"the penalty's strength must have shape () or ({p},), one a coefficient, not {strength.shape}")
        strength = jnp.broadcast_to(strength, (p,))
        if self.matrix is None:
            return strength
        matrix = jnp.asarray(self.matrix, dtype)
        if matrix.shape != (p, p):
            raise ValueError(f"the penalty's matrix must have shape ({p}, {p}), not {matrix.shape}")
        return matrix + jnp.diag(strength)

    def of_many(self, g: int, p: int, dtype: Any) -> Array:
        """The penalties of many fits: (p,) or (g, p), or (g, p, p) with a matrix. Raises ValueError for another shape."""
        strength = jnp.asarray(self.strength, dtype)
        if strength.shape not in ((), (p,), (g, p)):
            raise ValueError(f"the penalty's strength must have shape (), ({p},) or ({g}, {p}), not {strength.shape}")
        strength = jnp.broadcast_to(strength, (p,)) if strength.ndim < 2 else strength
        if self.matrix is None:
            return strength
        matrix = jnp.asarray(self.matrix, dtype)
        if matrix.shape not in ((p, p), (g, p, p)):
            raise ValueError(f"the penalty's matrix must have shape ({p}, {p}) or ({g}, {p}, {p}), not {matrix.shape}")
        return jnp.broadcast_to(matrix + strength[..., None] * jnp.eye(p, dtype=dtype), (g, p, p))


def pulled(penalty: Array, b: Array) -> Array:
    """S b: half the derivative of b'Sb. penalty: S (p, p), or its diagonal (p,); b: (p,) or (p, k)."""
    if penalty.ndim == 2:
        return jnp.matmul(penalty, b, precision=HIGHEST)
    return penalty * b if b.ndim == 1 else penalty[:, None] * b


def as_matrix(penalty: Array) -> Array:
    """S (p, p), from itself or its diagonal."""
    return penalty if penalty.ndim == 2 else jnp.diag(penalty)


def diagonal(penalty: Array) -> Array:
    """The diagonal of S (p,)."""
    return jnp.diagonal(penalty) if penalty.ndim == 2 else penalty


@dataclass(frozen=True)
class ElasticNet:
    """Adds strength * sum of factor * (mixing |b| + (1 - mixing) b^2 / 2), for b on the scale of standardized columns, to
    minus the log-likelihood over the sum of the weights: the objective of R's glmnet, whose lambda is `strength` and whose
    alpha is `mixing`.

    strength: a nonnegative number, or one a fit (g,). mixing: from 0, ridge, to 1, lasso. standardize: whether columns count
    in units of their standard deviations (weighted, by n), per fit; coefficients are always returned for the columns as
    they are. factors: of the strength for each column, (p,), or by name for some of them, one elsewhere; zero leaves a
    column free; they are scaled so as to sum to the number of columns beside the intercept. The first column that is the
    same number in all rows of the call is the intercept, and is never penalized.

    A column without variance in a fit has the coefficient 0 there. Separation through penalized columns alone gives finite
    estimates. Standard errors are NaN: the estimates are not normal, whatever the number of rows, and have none that mean
    anything; use the bootstrap, or fit the chosen columns to other rows. `rank` counts the coefficients that are not zero,
    which are the degrees of freedom of a lasso (Zou, Hastie and Tibshirani 2007); with a ridge part, the trace of the hat
    matrix on them. Under glmnet's family="gaussian", which divides y by its standard deviation sd(y) (by n), the ridge part
    is stronger by 1 / sd(y) than in glmnet's own objective, which is the one here and under its family=gaussian().

    >>> from jaxglm import ElasticNet
    >>> ElasticNet(0.1, factors={"age": 0.0})
    ElasticNet(strength=0.1, mixing=1.0, standardize=True, factors={'age': 0.0})
    """

    strength: Any
    mixing: float = 1.0
    standardize: bool = True
    factors: Any = None

    def __post_init__(self) -> None:
        if not isinstance(self.mixing, (int, float, np.number)) or not 0.0 <= self.mixing <= 1.0:
            raise ValueError(f"mixing must be a number from 0 (ridge) to 1 (lasso), not {self.mixing!r}")


@dataclass(frozen=True)
class Net:
    """An elastic net as arrays. strengths: (g, L), along a path, the largest first; mixing; factors: (p,), scaled, zero
    where a column is free; intercept: (p,), flags the column that is one, if any; standardize: see `ElasticNet`."""

    strengths: np.ndarray
    mixing: float
    factors: np.ndarray
    intercept: np.ndarray
    standardize: bool

    @property
    def free(self) -> np.ndarray:
        """The columns that are not penalized."""
        return np.flatnonzero(self.factors == 0)


def ridge_arrays(penalty: Ridge, g: int, p: int) -> np.ndarray:
    """A ridge penalty as the host has it: (p,), (g, p) or (g, p, p). Raises ValueError where it is none."""
    strength = _numbers("the penalty's strength", penalty.strength)
    _require_nonnegative("the penalty's strength", strength)
    if strength.shape not in ((), (p,), (g, p)):
        raise ValueError(f"the penalty's strength must have shape (), ({p},) or ({g}, {p}), not {strength.shape}")
    strength = np.broadcast_to(strength, (p,)) if strength.ndim == 0 else strength
    if penalty.matrix is None:
        return strength
    matrix = _numbers("the penalty's matrix", penalty.matrix)
    if matrix.shape not in ((p, p), (g, p, p)):
        raise ValueError(f"the penalty's matrix must have shape ({p}, {p}) or ({g}, {p}, {p}), not {matrix.shape}")
    largest = np.abs(matrix).max(axis=(-2, -1), keepdims=True, initial=0.0)
    if not np.isfinite(matrix).all() or np.any(np.abs(matrix - np.swapaxes(matrix, -1, -2)) > DEFINITE * largest):
        raise ValueError("the penalty's matrix must be finite and symmetric")
    values = np.linalg.eigvalsh(matrix)
    if np.any(values[..., 0] < -DEFINITE * np.abs(values[..., -1])):
        raise ValueError(f"the penalty's matrix must be positive semidefinite; it has the eigenvalue {values.min():.6g}")
    return np.broadcast_to(matrix + strength[..., None] * np.eye(p), (g, p, p))


def net_arrays(penalty: ElasticNet, names: Sequence[str], constant: np.ndarray, strengths: np.ndarray) -> Net:
    """An elastic net along a path of strengths (g, L). names: of the columns; constant: (p,), columns that are the same
    number in all rows. Raises ValueError for factors that do not fit."""
    p = len(names)
    intercept = np.zeros(p, bool)
    intercept[np.flatnonzero(constant)[:1]] = True
    factors = np.where(intercept, 0.0, _factors(penalty.factors, names))
    total = factors.sum()
    if total == 0:
        raise ValueError("nothing is penalized: every column is the intercept or has the factor 0; fit without the penalty")
    return Net(strengths, float(penalty.mixing), factors * ((p - intercept.sum()) / total), intercept, penalty.standardize)


def strength_of_each(penalty: ElasticNet, g: int) -> np.ndarray:
    """One strength a fit, (g, 1). Raises ValueError for another shape."""
    strength = _numbers("the penalty's strength", penalty.strength)
    _require_nonnegative("the penalty's strength", strength)
    if strength.shape not in ((), (g,)):
        raise ValueError(f"the strength of an ElasticNet must be a number or have shape ({g},), not {strength.shape}")
    return np.broadcast_to(strength, (g,))[:, None]


def _factors(given: Any, names: Sequence[str]) -> np.ndarray:
    if given is None:
        return np.ones(len(names))
    if isinstance(given, Mapping):
        for name in given:
            if name not in names:
                near = did_you_mean(name, names)
                raise ValueError(f"factors: there is no column {name!r}.{near} Columns: {listed(names, 20)}")
        given = [given.get(name, 1.0) for name in names]
    factors = _numbers("factors", given)
    if factors.shape != (len(names),):
        raise ValueError(f"factors must have shape ({len(names)},), one a column, not {factors.shape}")
    _require_nonnegative("factors", factors)
    return factors


def _numbers(name: str, values: Any) -> np.ndarray:
    try:
        return np.asarray(values, np.float64)
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be numbers, not {values!r}") from None


def _require_nonnegative(name: str, values: np.ndarray) -> None:
    if not np.all(values >= 0) or not np.all(np.isfinite(values)):
        raise ValueError(f"{name} must be finite and nonnegative")
