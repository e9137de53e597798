"""How well a result's fits stand: the methods of `GLMResults` that look for rows and groups in trouble.

Each method is thin; what is computed is said in `influence`, `quantile_residuals`, `diagnostics` and `verdict`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from jaxglm import verdict


class Diagnosed:
    """Methods that `GLMResults` has for diagnostics."""

    def diagnostics(self: Any) -> Any:
        """A table with a row for every group: dispersion and zeros checked, influential rows counted, and a verdict.

        Columns: keys, n_obs, df_residual; pearson (the statistic), pearson_ratio (over df_residual and a known dispersion) and
        pearson_p, where the dispersion is known, but not for single trials, where it tells nothing; overdispersion_z and
        overdispersion_p, the score test for Poisson and binomial fits (Dean 1992); zeros, zeros_expected, zeros_z and zeros_p
        of counts, observed against expected (He and others 2019), zeros_score_z and zeros_score_p, the score test (van den
        Broek 1995); max_hat, max_cooks_distance, n_influential; verdict (`jaxglm.verdict`). Looks at all rows. Raises
        ValueError for a result that was loaded from a file.

        >>> import jaxglm
        >>> fit = jaxglm.fit([[1.0]] * 6, [0, 0, 0, 0, 12, 12], family="poisson")
        >>> fit.diagnostics()["verdict"].tolist()
        ['overdispersed (9.6); zero-inflated (4 zeros, 0.1 expected)']
        """
        from jaxglm import diagnostics

        return diagnostics.table(self)

    @property
    def verdict(self: Any) -> Any:
        """A line for every group on what its fit shows without a look at the rows, as in `glance`; "ok" if nothing."""
        codes, labels = self._verdicts()
        found = np.array(labels, object)[codes]
        return found if self.many else found[0]

    def _verdicts(self: Any) -> tuple[np.ndarray, list[str]]:
        family, solution = self.family, self.solution
        return verdict.lines(verdict.from_solution(solution, family.dispersion))

    def influence(self: Any) -> Any:
        """An `Influence` with a measure of every row in each of its fields, R's `influence.measures`.

        hat, sigma, residual_standardized, residual_standardized_pearson, residual_studentized, cooks_distance, dffits,
        covariance_ratio, in the rows' own order, (N,) or (g, n). NaN for rows that are not there. One step from the fit,
        as in R. Raises ValueError for a result that was loaded from a file.

        >>> import jaxglm
        >>> fit = jaxglm.fit([[1.0, 0.0], [1.0, 1.0], [1.0, 2.0], [1.0, 9.0]], [1.0, 2.0, 2.0, 7.0])
        >>> fit.influence().hat.round(2).tolist()
        [0.43, 0.33, 0.27, 0.97]
        """
        from dataclasses import replace

        from jaxglm.influence import influence

        found = influence(self)
        return replace(found, **{name: self._in_rows(values) for name, values in vars(found).items()})

    def dfbeta(self: Any, type: str = "deviance") -> np.ndarray:
        """(N, p) or (g, n, p): how far leaving out a row moves each coefficient, in one step.

        type: "deviance" as R's `dfbeta`, or "pearson", the step of Newton's method, which is nearer to fitting again. NaN
        for aliased and infinite terms. Raises ValueError for another type.
        """
        return self._changes(type, False)

    def dfbetas(self: Any, type: str = "deviance") -> np.ndarray:
        """(N, p) or (g, n, p): `dfbeta` in standard errors without the row, R's `dfbetas`."""
        return self._changes(type, True)

    def _changes(self: Any, type: str, scaled: bool) -> np.ndarray:
        from jaxglm.influence import dfbeta

        found = dfbeta(self, type, scaled)
        return np.stack([self._in_rows(found[..., j]) for j in range(found.shape[-1])], axis=-1)

    def quantile_residuals(self: Any, seed: int = 0, midpoint: bool = False) -> np.ndarray:
        """(N,) or (g, n): randomized quantile residuals (Dunn and Smyth 1996), standard normal if the model is right.

        seed: of the uniform numbers that discrete responses need; the same seed gives the same residuals. midpoint: the
        middle of what a discrete response covers instead of a random place. Raises ValueError for quasi families and one's
        own, which have no distribution.

        >>> import jaxglm
        >>> fit = jaxglm.fit([[1.0]] * 4, [0, 1, 2, 5], family="poisson")
        >>> fit.quantile_residuals(midpoint=True).round(2).tolist()
        [-1.49, -0.61, 0.1, 1.82]
        """
        from jaxglm.quantile_residuals import quantile_residuals

        return self._in_rows(quantile_residuals(self, seed, midpoint))
