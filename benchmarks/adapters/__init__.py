"""The libraries, each in a module of its own that imports nothing of it before it is run."""

from __future__ import annotations

from benchmarks.adapters import (
    edgepython,
    edger,
    glum,
    jaxglm_fit,
    jaxglm_solver,
    naive_jax,
    native,
    null,
    plink2,
    polars_statistics,
    r_glm,
    sklearn,
    statsmodels,
)
from benchmarks.adapters.interface import Library

LIBRARIES: tuple[Library, ...] = (
    null.LIBRARY,
    jaxglm_solver.LIBRARY,
    jaxglm_fit.LIBRARY,
    jaxglm_fit.LOOSE,
    jaxglm_fit.GOOD,
    naive_jax.LIBRARY,
    native.LIBRARY,
    statsmodels.LIBRARY,
    r_glm.LIBRARY,
    edger.LIBRARY,
    edgepython.LIBRARY,
    plink2.LIBRARY,
    polars_statistics.LIBRARY,
    glum.LIBRARY,
    sklearn.LIBRARY,
)


def named(names: list[str]) -> list[Library]:
    """Libraries by name, in the order of the table; without a name all. Raises ValueError for others."""
    unknown = set(names) - {library.name for library in LIBRARIES}
    if unknown:
        known = ", ".join(library.name for library in LIBRARIES)
        raise ValueError(f"there is no library {sorted(unknown)[0]!r}; there are {known}")
    return [library for library in LIBRARIES if library.name in names or not names]
