"""What is to be fitted, as one value."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np

from jaxglm.errors import did_you_mean
from jaxglm.family import Family
from jaxglm.irls.adjusted import METHODS
from jaxglm.irls.options import IRLS
from jaxglm.packing import Source
from jaxglm.penalty import Net


@dataclass(frozen=True)
class Task:
    """What is to be fitted: g groups with p coefficients.

    source: their rows; family: its parameters are scalars or (g,); penalty: a ridge, (p,), (g, p) or (g, p, p), or None;
    net: an elastic net, or None; start: (p,), (g, p) or None; dtype: of the fast pass; device: a JAX device or None for the
    default one.
    bias_reduction: "mean", "median" or "jeffreys" where scores are adjusted (`irls.adjusted`), else None; held: (g, p), flags
    of coefficients that are then held at zero, or None; separated: what separated groups get, their "limits", or with
    "firth" estimates by mean bias reduction.
    """

    source: Source
    family: Family
    penalty: np.ndarray | None = None
    start: np.ndarray | None = None
    net: Net | None = None
    options: IRLS = IRLS()  # noqa: RUF009
    dtype: Any = np.float64
    device: Any = None
    bias_reduction: str | None = None
    held: np.ndarray | None = None
    separated: str = "limits"

    def subset(self, source: Source, groups: np.ndarray) -> Task:
        """The task of fitting only some groups, from a source of their rows, from the family's start and in float64."""

        def part(values: Any, axes: int) -> Any:
            return values if values is None or np.ndim(values) == axes else np.asarray(values)[groups]

        return replace(
            self,
            source=source,
            family=self.family.of(groups),
            penalty=part(self.penalty, 1),
            start=None,
            net=None if self.net is None else replace(self.net, strengths=self.net.strengths[groups]),
            dtype=np.float64,
        )

    def one(self, k: int, source: Source) -> Task:
        """The task of fitting group k again, from a source of its rows."""

        def part(values: Any, axes: int) -> Any:
            return values if values is None or np.ndim(values) == axes else np.asarray(values)[k]

        family = jax.tree.map(lambda leaf: part(leaf, 0), self.family)
        return replace(self, source=source, family=family, penalty=part(self.penalty, 1), start=part(self.start, 1))


def require_reduction(bias_reduction: Any, separated: Any, penalized: bool) -> None:
    """Raise ValueError for ways to reduce bias that are not there or do not go together."""
    if bias_reduction is not None and bias_reduction not in METHODS:
        known, hint = ", ".join(f'"{name}"' for name in METHODS), did_you_mean(bias_reduction, METHODS)
        raise ValueError(f"bias_reduction must be {known} or None, not {bias_reduction!r}.{hint}")
    if separated not in ("limits", "firth"):
        raise ValueError(f'separated must be "limits" or "firth", not {separated!r}')
    if separated == "firth" and bias_reduction is not None:
        raise ValueError('separated="firth" is for fits by maximum likelihood; with bias_reduction= all groups are reduced')
    if penalized and (separated == "firth" or bias_reduction is not None):
        raise ValueError(
            "a penalty and bias reduction cannot be combined: leave out penalty=, or bias_reduction= and separated="
        )
