"""Data that ship with jaxglm, for first steps and examples.

`contraception`: 1,934 women of the 1989 Bangladesh Fertility Survey in 60 districts: woman, district, use of
contraception (N, Y), livch (living children: 0, 1, 2, 3+), age (centred, in years), urban (N, Y). Its source and terms
stand in NOTICE beside it.
"""

from __future__ import annotations

from importlib import resources
from typing import Any

from jaxglm.errors import did_you_mean

NAMES = ("contraception",)


def load(name: str) -> Any:
    """The data set with this name, as a pandas data frame. Raises ValueError for unknown names.

    >>> from jaxglm import datasets
    >>> datasets.load("contraception").shape
    (1934, 6)
    """
    import pandas as pd

    if name not in NAMES:
        raise ValueError(f"there is no data set {name!r}.{did_you_mean(name, NAMES)} Data sets: {', '.join(NAMES)}")
    with resources.files(__name__).joinpath(f"{name}.csv").open(encoding="utf-8") as file:
        return pd.read_csv(file, dtype={"livch": str})
