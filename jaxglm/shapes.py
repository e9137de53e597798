"""The shape parameters of a result's family: theta of the negative binomial, the power of a Tweedie family.

They are given, or were estimated with every fit (`jaxglm.theta`, `jaxglm.power`), and then have standard errors.
"""

from __future__ import annotations

from typing import Any

import numpy as np


class Shapes:
    """Methods of `GLMResults`: shape parameters, (g,), a number for one fit."""

    family: Any
    shape_errors: np.ndarray | None

    @property
    def theta(self) -> Any:
        """The negative binomial's theta, infinite where Poisson is best; NaN for other families."""
        return self._shape("negative_binomial", "theta")

    @property
    def theta_standard_error(self) -> Any:
        """Of an estimated theta; NaN where it is infinite, and where it was given."""
        return self._shape_error("theta")

    @property
    def power(self) -> Any:
        """The Tweedie family's power, given or estimated; NaN for other families."""
        return self._shape("tweedie", "power")

    @property
    def power_standard_error(self) -> Any:
        """Of an estimated power; NaN where it is at an end, 1 or 2, and where it was given.

        >>> import jaxglm
        >>> y = [0.0, 1.5, 0.0, 4.0, 0.7, 0.0, 2.2, 3.1, 0.4, 0.0, 6.0, 1.1]
        >>> fit = jaxglm.fit([[1.0]] * 12, y, family="tweedie")
        >>> round(fit.power, 3), round(fit.power_standard_error, 3)
        (1.322, 0.158)
        """
        return self._shape_error("power")

    def _shape(self: Any, family: str, name: str) -> Any:
        value = self.family.parameters.get(name, np.nan) if self.family.name == family else np.nan
        return self._squeezed(np.broadcast_to(np.asarray(value, float), (len(self),)))

    def _shape_error(self: Any, name: str) -> Any:
        known = self.shape_errors is not None and name in self.family.parameters
        return self._squeezed(self.shape_errors if known else np.full(len(self), np.nan))
