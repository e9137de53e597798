"""What `jaxglm demo` shows: the worked example, and one model for each of its districts."""

from __future__ import annotations

import time
import warnings

import numpy as np

from jaxglm import datasets
from jaxglm.model import glm
from jaxglm.status import Status, StatusWarning

FORMULA = "use ~ age + I(age^2) + urban + livch"


def show() -> None:
    """Fit and print."""
    data = datasets.load("contraception")
    print(f"Use of contraception by {len(data):,} women in {data['district'].nunique()} districts of Bangladesh, 1989.\n")
    began = time.perf_counter()
    whole = glm(FORMULA, data, family="binomial")
    print(f'fit = jaxglm.glm("{FORMULA}", data, family="binomial")\n')
    print(whole.summary())
    print(f"\n({time.perf_counter() - began:.1f} s, most of it compiling)\n")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", StatusWarning)
        began = time.perf_counter()
        glm(FORMULA, data, family="binomial", by="district")
        first = time.perf_counter() - began
        began = time.perf_counter()
        districts = glm(FORMULA, data, family="binomial", by="district")
        second = time.perf_counter() - began
    print(f'fits = jaxglm.glm("{FORMULA}", data, family="binomial", by="district")\n')
    print(districts.summary())
    print(f"\n({first:.1f} s the first time, {second * 1000:.0f} ms once compiled)\n")
    separated = districts.groups[districts.status == Status.SEPARATED]
    example = min(separated, key=lambda key: abs(districts[key].n_obs - 25))
    print(f"One that is separated, district {example}:\n")
    print(districts[example].summary())
    spread = np.nanquantile(districts.coefficients[districts.converged, 3], [0.1, 0.9])
    print(f"\nAmong converged districts, the effect of urban runs from {spread[0]:.2f} to {spread[1]:.2f} (10% to 90%).")
