"""What can be concluded from a result: the methods of `GLMResults` beyond estimates and rows.

Each method is thin. What it does is in a module of its own, a function of a result; what that computes is in functions over
arrays there.
"""

from __future__ import annotations

from typing import Any

from jaxglm import robust
from jaxglm.diagnosed import Diagnosed
from jaxglm.pictured import Pictured


class Inference(Diagnosed, Pictured):
    """Methods that `GLMResults` has for tests, intervals and further looks at its fits."""

    def robust(
        self,
        type: str | None = None,
        clusters: Any = None,
        *,
        correction: str = "HC0",
        cadjust: bool = True,
        degrees: Any = None,
    ) -> Any:
        """The same fits with a covariance that does not rest on the family's variance: a new `GLMResults`.

        type: "HC0" to "HC4" where rows are independent, as R's `sandwich::vcovHC` ("HC3" if nothing is said), or "cluster"
        where only clusters are, as `sandwich::vcovCL`. clusters: the name of a column of the table, or a label for each row,
        (N,), of many fits with n rows each (n,) or (g, n); for clusters of several kinds at once a tuple of those. correction:
        with clusters, "HC0" or "HC1"; cadjust: whether to multiply by C / (C - 1) with C clusters. degrees: statistics and
        intervals are normal if None, as of R's `lmtest::coeftest` on a glm, else t with these degrees of freedom: a number, one
        for each fit, "residual", or "clusters" (C - 1).

        Everything that rests on the covariance follows: errors, tests, intervals, predictions; `covariance_type` and the
        summary say which it is. Terms without a variance (aliased, infinite, of failed fits) have none here either. A fit of
        many with a single cluster gets NaN and a `StatusWarning`. Raises ValueError for unknown types, labels of another
        length, one fit with a single cluster, and a result without its rows, as a loaded one is.

        >>> import jaxglm
        >>> X, y = [[1.0, 0.0], [1.0, 1.0], [1.0, 2.0], [1.0, 3.0], [1.0, 4.0]], [1, 2, 3, 9, 7]
        >>> fit = jaxglm.fit(X, y, family="poisson")
        >>> fit.robust("HC0").standard_errors.round(4).tolist()
        [0.2079, 0.0827]
        """
        return robust.robust(self, type, clusters, correction, cadjust, degrees)

    def bootstrap(self, replicates: int = 999, clusters: Any = None, *, intervals: str = "percentile", seed: Any = None) -> Any:
        """The same fits with the covariance and the intervals of a bootstrap: a new `GLMResults`.

        replicates: how often each fit is made again, from rows drawn with replacement; clusters: as of `robust`, then whole
        clusters are drawn; intervals: what `conf_int` and `tidy` give, "percentile", "bca" (as R's `boot.ci`), or "normal",
        from the covariance; seed: a whole number for draws that can be repeated. Tests are z, as of `robust`. Fits that did
        not converge get NaN; replicates without finite estimates are left out, with a `StatusWarning`. The replicates are
        kept, in `bootstrapped.coefficients` (g, replicates, p). Raises ValueError as `robust` does, and where percentiles as
        far out as a level asks for need more replicates.

        >>> import jaxglm
        >>> X, y = [[1.0, 0.0], [1.0, 1.0], [1.0, 2.0], [1.0, 3.0], [1.0, 4.0], [1.0, 5.0]], [1.0, 2.2, 2.9, 4.1, 4.8, 6.3]
        >>> fit = jaxglm.fit(X, y).bootstrap(199, seed=1)
        >>> fit.covariance_type, fit.conf_int().shape
        ('bootstrap', (2, 2))
        """
        return robust.bootstrap(self, replicates, clusters, intervals, seed)
