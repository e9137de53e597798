"""R, by way of files: arrays as raw doubles in a folder, a script beside this module, and R's own clock.

R's start, its packages' loading and the reading of the files are not in the time.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.adapters.interface import CannotRun


@dataclass(frozen=True)
class Answer:
    """What a script wrote. coefficients: (k, p); seconds: the time of the fits alone."""

    coefficients: np.ndarray
    seconds: float


def write(folder: Path, arrays: dict[str, np.ndarray | None]) -> None:
    """A file of doubles for each array, rows first (R reads them as columns of the transpose)."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, values in arrays.items():
        if values is not None:
            np.ascontiguousarray(values, np.float64).tofile(folder / f"{name}.bin")


def script(name: str, folder: Path, p: int, *arguments: str) -> Callable[[Any], Answer]:
    """A call of a script, with the folder, p and further arguments."""
    sources = (Path(__file__).with_name(file).as_posix() for file in ("arrays.R", name))
    program = "; ".join(f'source("{source}")' for source in sources)

    def run(_: Any) -> Answer:
        command = ["Rscript", "--vanilla", "-e", program, str(folder), str(p), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise CannotRun(f"R stopped: {done.stderr.strip().splitlines()[-1] if done.stderr.strip() else 'without a word'}")
        coefficients = np.fromfile(folder / "coefficients.bin").reshape(-1, p)
        return Answer(coefficients, float((folder / "seconds.txt").read_text()))

    return run


def has_package(package: str) -> bool:
    """Whether R finds a package."""
    command = ["Rscript", "--vanilla", "-e", f'cat(nzchar(system.file(package = "{package}")))']
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout == "TRUE"
