"""plink2: `--glm no-firth` on its own files. The time is that of the process: reading, fitting and writing its table.

Genotypes are written as a .bed file, which plink2 itself turns into the .pgen that it is run on; neither is timed. Its
coefficients are those of the genotype alone, printed with six digits, from an iteration that stops when the coefficients
together move by less than 1e-4.
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.adapters.interface import CannotRun, Job, Library, Setting, require
from benchmarks.checks import Found
from benchmarks.problems import MISSING, Problem

MAGIC = bytes([0x6C, 0x1B, 0x01])  # a .bed file, variant by variant
CODES = np.array([3, 2, 0, 1], np.uint8)  # of 0, 1, 2 copies of the first allele, and of a missing genotype


def prepare(problem: Problem, setting: Setting) -> Job:
    require(problem.layout == "scan", "does scans of genotypes only")
    stem = setting.folder / f"plink2-{problem.name}"
    write(problem, stem)
    call(["--bfile", str(stem), "--make-pgen", "--out", str(stem)], setting.threads)
    arguments = ["--pfile", str(stem), "--pheno", f"{stem}.pheno", "--covar", f"{stem}.covar", "--out", str(stem)]
    arguments += ["--glm", "no-firth", "hide-covar", "omit-ref", "cols=+beta"]

    def run(_: Any) -> Path:
        call(arguments, setting.threads)
        return Path(f"{stem}.y.glm.logistic")

    return Job(run, np.arange(problem.fits), found)


def call(arguments: list[str], threads: int) -> None:
    """Run plink2. Raises CannotRun with its last words."""
    command = ["plink2", "--threads", str(threads), "--silent", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CannotRun(f"plink2 stopped: {' '.join(done.stderr.split())[-200:]}")


def write(problem: Problem, stem: Path) -> None:
    """The .bed, .bim and .fam files, the phenotype (1 control, 2 case) and the covariates without the intercept."""
    assert problem.features is not None
    m, n = problem.features.shape
    with open(f"{stem}.bed", "wb") as file:
        file.write(MAGIC)
        for row in problem.features:
            codes = np.zeros(-(-n // 4) * 4, np.uint8)
            codes[:n] = CODES[np.where(row == MISSING, 3, row)]
            file.write((codes.reshape(-1, 4) << np.array([0, 2, 4, 6], np.uint8)).sum(axis=1, dtype=np.uint8).tobytes())
    Path(f"{stem}.bim").write_text("".join(f"1 v{j} 0 {j + 1} A C\n" for j in range(m)))
    Path(f"{stem}.fam").write_text("".join(f"0 s{i} 0 0 0 -9\n" for i in range(n)))
    Path(f"{stem}.pheno").write_text("#IID y\n" + "".join(f"s{i} {int(v) + 1}\n" for i, v in enumerate(problem.y)))
    names = " ".join(f"x{j}" for j in range(1, problem.X.shape[1]))
    lines = (f"s{i} " + " ".join(f"{v:.17g}" for v in row[1:]) for i, row in enumerate(problem.X))
    Path(f"{stem}.covar").write_text(f"#IID {names}\n" + "".join(f"{line}\n" for line in lines))


def found(table: Path) -> Found:
    """The column BETA, in the order of the variants."""
    lines = table.read_text().splitlines()
    place = lines[0].split().index("BETA")
    betas = (line.split()[place] for line in lines[1:])
    return Found(np.array([[np.nan if beta == "NA" else float(beta)] for beta in betas]))


LIBRARY = Library("plink2", "--glm no-firth, the process with reading and writing", prepare, program="plink2")
