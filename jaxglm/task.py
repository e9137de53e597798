"""What is to be fitted, as one value."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np

from jaxglm.family import Family
from jaxglm.irls.options import IRLS
from jaxglm.packing import Source


@dataclass(frozen=True)
class Task:
    """What is to be fitted: g groups with p coefficients.

    source: their rows; family: its parameters are scalars or (g,); penalty: (p,), (g, p) or None; start: likewise; dtype:
    of the fast pass; device: a JAX device or None for the default one.
    """

    source: Source
    family: Family
    penalty: np.ndarray | None = None
    start: np.ndarray | None = None
    options: IRLS = IRLS()  # noqa: RUF009
    dtype: Any = np.float64
    device: Any = None

    def subset(self, source: Source, groups: np.ndarray) -> Task:
        """The task of fitting only some groups, from a source of their rows, from R's start and in float64."""

        def part(values: Any, axes: int) -> Any:
            return values if values is None or np.ndim(values) == axes else np.asarray(values)[groups]

        return replace(
            self, source=source, family=self.family.of(groups), penalty=part(self.penalty, 1), start=None, dtype=np.float64
        )

    def one(self, k: int, source: Source) -> Task:
        """The task of fitting group k again, from a source of its rows."""

        def part(values: Any, axes: int) -> Any:
            return values if values is None or np.ndim(values) == axes else np.asarray(values)[k]

        family = jax.tree.map(lambda leaf: part(leaf, 0), self.family)
        return replace(self, source=source, family=family, penalty=part(self.penalty, 1), start=part(self.start, 1))
