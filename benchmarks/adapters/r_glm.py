"""R: `glm.fit` in a loop, with R's defaults, one core. The time is R's own, of the fits alone."""

from __future__ import annotations

import numpy as np

from benchmarks.adapters import r
from benchmarks.adapters.interface import Job, Library, Setting, looped
from benchmarks.checks import Found
from benchmarks.problems import Fit, Problem


def prepare(problem: Problem, setting: Setting) -> Job:
    places, fits = looped(problem)
    folder = setting.folder / f"r_glm-{problem.name}"
    r.write(folder, {name: _joined(fits, name) for name in ("X", "y", "weights", "offset")})
    sizes = np.array([len(fit.y) for fit in fits], np.float64)
    theta = None if problem.theta is None else np.array([fit.theta for fit in fits])
    r.write(folder, {"sizes": sizes, "theta": theta})
    run = r.script("glm_fit.R", folder, problem.p, problem.family)
    return Job(run, places, lambda answer: Found(answer.coefficients), seconds=lambda answer: answer.seconds)


def _joined(fits: list[Fit], name: str) -> np.ndarray | None:
    values = [getattr(fit, name) for fit in fits]
    return None if values[0] is None else np.concatenate(values)


LIBRARY = Library("r_glm", "glm.fit in a loop, R's own clock", prepare, program="Rscript")
