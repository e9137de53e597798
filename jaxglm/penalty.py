"""Penalties that fitting adds to minus the log-likelihood."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Ridge:
    """Adds half the sum of strength * b^2 to minus the log-likelihood, the latter at dispersion 1.

    strength: a nonnegative number for all coefficients, the intercept included, or one a coefficient (p,), zero where a
    coefficient is free; with many fits also (g, p). Source: Hoerl and Kennard (1970); le Cessie and van Houwelingen
    (1992) for GLMs. Standard errors are those of the penalized information, dispersion * (X'WX + diag(strength))^-1.

    >>> from jaxglm import Ridge
    >>> Ridge(0.5)
    Ridge(strength=0.5)
    """

    strength: Any

    def diagonal(self, p: int, dtype: Any) -> Array:
        """The strengths of p coefficients. Raises ValueError for another length."""
        strength = jnp.asarray(self.strength, dtype)
        if strength.shape not in ((), (p,)):
            raise ValueError(f"the penalty's strength must have shape () or ({p},), one a coefficient, not {strength.shape}")
        return jnp.broadcast_to(strength, (p,))
