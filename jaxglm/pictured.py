"""Pictures of a result: its methods that draw. What each draws, and how, is in `jaxglm.pictures`.

All need matplotlib (pip install "jaxglm-batched[plots]"), draw on `ax` or on the axes of a new figure, and return the axes.
"""

from __future__ import annotations

from typing import Any


class Pictured:
    """Methods that `GLMResults` has for pictures."""

    def plot_forest(self: Any, term: str, level: float = 0.95, ax: Any = None) -> Any:
        """A term's estimates and intervals in all groups, sorted. Infinite ones are triangles at the edge.

        Up to 80 groups have a label each. Raises ValueError for one fit and for an unknown term.
        """
        from jaxglm.pictures import terms

        return terms.forest(self, term, level, ax)

    def plot_volcano(self: Any, term: str, q: float = 0.05, p: float | None = None, ax: Any = None) -> Any:
        """A term's p-values, on a logarithmic scale, against its estimates; the strongest are named.

        q: the false discovery rate (Benjamini and Hochberg 1995) below which fits stand out; p: a p-value instead.
        Raises ValueError for one fit and for an unknown term.
        """
        from jaxglm.pictures import terms

        return terms.volcano(self, term, q, p, ax)

    def plot_funnel(self: Any, term: str, level: float = 0.95, ax: Any = None) -> Any:
        """A term's estimates against the number of rows of each group, and how far chance alone would spread them.

        The dotted lines are the precision-weighted mean and what a typical error makes of it at each size. Where all
        groups have equally many rows, estimates are drawn against their standard errors instead. Raises ValueError for
        one fit and for an unknown term.
        """
        from jaxglm.pictures import terms

        return terms.funnel(self, term, level, ax)

    def plot_status(self: Any, ax: Any = None) -> Any:
        """How many steps the fits took, by what became of them."""
        from jaxglm.pictures import states

        return states.states(self, ax)

    def plot_residuals(self: Any, group: Any = None, against: str = "fitted", seed: int = 0, ax: Any = None) -> Any:
        """The residuals of a group's rows: quantile residuals, or standardized ones where a family has no distribution.

        against: "fitted", for the linear predictor, with means in bins; "normal", for a plot of quantiles; or a term.
        Influential rows are circled and numbered by their place among the group's rows. Raises KeyError for an unknown group,
        and ValueError for an unknown `against` or where a group has to be named.
        """
        from jaxglm.pictures import rows

        return rows.residuals(self, group, against, seed, ax)

    def plot_calibration(self: Any, group: Any = None, bins: int = 10, ax: Any = None) -> Any:
        """Mean responses against mean fitted values, in bins of a group's rows, and how far chance spreads them.

        Raises KeyError for an unknown group, and ValueError where a group has to be named or for fewer than 2 bins.
        """
        from jaxglm.pictures import rows

        return rows.calibration(self, group, bins, ax)
