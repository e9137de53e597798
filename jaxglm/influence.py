"""How much single rows matter to their fit: R's influence measures, one step from the fit instead of a fit without each row.

With h the hat value of a row, e its deviance and r its Pearson residual, phi the dispersion, n the rows and p the rank of
its fit, and sigma_i the residual scale that the deviance gives without the row, sigma_i^2 = (D - e^2/(1-h)) / (n - p - 1):

    standardized    e / sqrt(phi (1-h))                             and the same with r
    studentized     sign(e) sqrt(e^2 + h r^2/(1-h)), over sigma_i where phi is estimated, else sqrt(phi) (Williams 1987)
    Cook's          (r/(1-h))^2 h / (phi p)
    dffits          e sqrt(h) / (sigma_i (1-h))
    covariance ratio  1 / ((1-h) ((n - p - 1 + t^2)/(n - p))^p)     with t = e / (sigma_i sqrt(1-h))
    dfbeta          (X'WX)^-1 x sqrt(w) e/(1-h)                     by column
    dfbetas         dfbeta / (sigma_i sqrt of the diagonal of (X'WX)^-1)

A row with a hat value of 1 is fitted whatever its response is: its residuals over 1 - h are NaN and its dfbeta is 0, as in
R. A row at the limit of a separated fit has no hat value, and so none of these; nor has a row of weight zero. Where a row
stands for several, the measures are those of one of them.

The residual in a dfbeta has the sign of the working residual, which is that of the change. R takes the sign of y - mu, and
so has the change with the wrong sign where the link falls, as gamma's and inverse Gaussian's own links do. R divides
residuals of a negative binomial by sigma_i as well, since it asks for the names of two families; here it is whether the
dispersion is known.

Sources: R's `influence.measures`, `rstandard.glm`, `rstudent.glm`, `cooks.distance.glm`, `dfbetas`; Belsley, Kuh and Welsch
(1980); Pregibon (1981); Williams (1987).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import special

from jaxglm.errors import did_you_mean
from jaxglm.leverage import hat_values, known
from jaxglm.residuals import RowQuantities

RESIDUALS = ("deviance", "pearson")
FULL = 1.0 - 1e-10  # from here on 1 - h is rounding, and h is 1
PIECE = 2**14  # rows whose columns are worked on at a time


@dataclass(frozen=True)
class Influence:
    """Of every row, arrays in the rows' own shape; see the module. sigma: the residual scale without the row."""

    hat: np.ndarray
    sigma: np.ndarray
    residual_standardized: np.ndarray
    residual_standardized_pearson: np.ndarray
    residual_studentized: np.ndarray
    cooks_distance: np.ndarray
    dffits: np.ndarray
    covariance_ratio: np.ndarray


@dataclass(frozen=True)
class OfFits:
    """What the measures need of each row's fit, broadcast to the rows. degrees: n - p."""

    deviance: np.ndarray
    dispersion: np.ndarray
    rank: np.ndarray
    degrees: np.ndarray


def influence(result: Any, made: RowQuantities | None = None) -> Influence:
    """The measures of every row of a `GLMResults`. made: its row quantities, where they are known."""
    rows, solution = result._rows(), result.solution
    made = result._quantities() if made is None else made

    def of_rows(values: np.ndarray) -> np.ndarray:
        # The last entry is what code -1 picks.
        return values[:, None] if rows.codes is None else np.append(values, np.nan)[rows.codes]

    fits = OfFits(*map(of_rows, (solution.deviance, solution.dispersion, solution.rank, solution.n_obs - solution.rank)))
    hat = np.where(rows.prior_weights() > 0, hat_values(result), np.nan)
    hat = np.where(hat > FULL, 1.0, hat)
    return measures(hat, made.deviance, made.pearson, fits, result.family.dispersion is not None)


def measures(hat: np.ndarray, deviance: np.ndarray, pearson: np.ndarray, fits: OfFits, known: bool) -> Influence:
    """The measures from hat values and residuals, arrays of one shape; known: whether the dispersion is."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        rest = np.where(hat < 1.0, 1.0 - hat, np.nan)
        sigma = leave_one_out_scale(hat, deviance, fits)
        scale = np.sqrt(fits.dispersion * rest)
        likelihood = np.sign(deviance) * np.sqrt(deviance**2 + hat * pearson**2 / rest)
        t = deviance / (sigma * np.sqrt(rest))
        return Influence(
            hat=hat,
            sigma=sigma,
            residual_standardized=_finite(deviance / scale),
            residual_standardized_pearson=_finite(pearson / scale),
            residual_studentized=_finite(likelihood / (np.sqrt(fits.dispersion) if known else sigma)),
            cooks_distance=_finite((pearson / rest) ** 2 * hat / (fits.dispersion * fits.rank)),
            dffits=_finite(deviance * np.sqrt(hat) / (sigma * rest)),
            covariance_ratio=_finite(1.0 / (rest * ((fits.degrees - 1.0 + t**2) / fits.degrees) ** fits.rank)),
        )


def leave_one_out_scale(hat: np.ndarray, deviance: np.ndarray, fits: OfFits) -> np.ndarray:
    """sigma_i of every row; NaN without degrees of freedom."""
    degrees = np.where(fits.degrees > 1, fits.degrees - 1.0, np.nan)
    removed = np.where(hat < 1.0, deviance**2 / np.where(hat < 1.0, 1.0 - hat, 1.0), 0.0)
    return np.where(np.isnan(hat), np.nan, np.sqrt((fits.deviance - removed) / degrees))


def cooks_bound(rank: np.ndarray, degrees: np.ndarray) -> np.ndarray:
    """The median of F(rank, degrees), beyond which a Cook's distance is large; infinite where there is no such F."""
    some = (rank > 0) & (degrees > 0)
    return np.where(some, special.fdtri(np.maximum(rank, 1), np.maximum(degrees, 1), 0.5), np.inf)


def _finite(values: np.ndarray) -> np.ndarray:
    """Infinite values are NaN, as in R."""
    return np.where(np.isinf(values), np.nan, values)


def dfbeta(result: Any, type: str, scaled: bool) -> np.ndarray:
    """The change of every coefficient when a row is left out, (..., p) with the rows' shape before p; scaled: dfbetas.

    type: the residual, "deviance" as R, or "pearson", whose one step is that of Newton's method and nearer to what leaving
    out does. NaN for aliased and infinite terms. Raises ValueError for another type.
    """
    if type not in RESIDUALS:
        raise ValueError(f"there is no dfbeta by {type!r} residuals.{did_you_mean(type, RESIDUALS)} Types: deviance, pearson")
    rows, made = result._rows(), result._quantities()
    found = influence(result, made)
    root = known(result).root
    matrices = np.nan_to_num(np.matmul(root, np.swapaxes(root, 1, 2)))
    with np.errstate(invalid="ignore", divide="ignore"):
        towards = np.copysign(getattr(made, type), made.working)
        pull = np.where(found.hat == 1.0, 0.0, np.sqrt(made.working_weights) * towards / (1.0 - found.hat))
        size = np.sqrt(np.diagonal(matrices, axis1=1, axis2=2))
        has = (size > 0) & (result.solution.infinite == 0)
        unit = np.where(has, 1.0 / size if scaled else 1.0, np.nan)
        if scaled:
            pull = pull / found.sigma
    return _spread(rows, matrices * unit[:, None, :], pull)


def _spread(rows: Any, matrices: np.ndarray, pull: np.ndarray) -> np.ndarray:
    """pull times x' C of every row with its fit's C, (..., p)."""
    out = np.full((*rows.shape, matrices.shape[-1]), np.nan)
    with np.errstate(invalid="ignore", over="ignore"):  # rows of weight zero may hold anything
        if rows.codes is not None:
            for begin in range(0, len(rows.codes) if rows.g else 0, PIECE):
                part = slice(begin, begin + PIECE)
                code = np.maximum(rows.codes[part], 0)
                out[part] = np.matmul(rows.X[part, None, :], matrices[code])[:, 0] * pull[part, None]
            return out
        for k in range(rows.g):
            out[k] = rows.design(k) @ matrices[k] * pull[k, :, None]
    return out
