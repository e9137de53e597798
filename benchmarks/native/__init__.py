"""The yardstick "native": the same fits in C++, written for the vector unit, to see what the hardware allows.

A library that promises to be near the hardware's limit needs the limit measured on the same machine in the same run.
`native.cpp` is that measurement: coefficients only, the stop rule of `jaxglm.irls.loop`, no step control, no rank or
separation checks, eight groups side by side in the lanes of a vector register. It is compiled where it runs, at
-O3 -march=native -ffast-math, once for each number of columns, and kept in the folder for temporary files.

    from benchmarks import native

    native.available()                                  # None, or why there is no yardstick here
    coefficients, iterations = native.fit_grouped(X, y, None, "logistic")
    native.invalid()                                    # None, or why this machine's yardstick is not to be trusted

Any system compiler will do. Without AVX-512 the code has four lanes, or two, and is the yardstick of that machine; with it,
the yardstick counts only if one core passes 100,000 fits of grouped_logistic a second (`REQUIRED`).
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np

SOURCE = Path(__file__).with_name("native.cpp")
FLAGS = ("-std=c++17", "-O3", "-march=native", "-ffast-math", "-fPIC", "-pthread")
FAMILIES = {"gaussian": 0, "logistic": 1, "binomial": 1, "poisson": 2}  # binomial: proportions, with the logit link
MOST_COLUMNS = 32  # what the unrolled factorization is written for
SCRATCH = 512 * 1024  # bytes of a block that the second cache level holds with room for the next one
REQUIRED = 100_000  # fits of grouped_logistic a second and core, where there is AVX-512


def available() -> str | None:
    """Why the yardstick cannot be had on this machine, or None if it can."""
    try:
        library(1)
    except (OSError, RuntimeError, subprocess.SubprocessError) as problem:
        return str(problem)
    return None


def invalid() -> str | None:
    """Why the yardstick is not to be trusted on this machine, or None: it is too slow for what AVX-512 can do.

    The clock is the process's own time, so that other work on the machine does not count against it.
    """
    if "__AVX512F__" not in macros():
        return None
    speed = fits_per_second(threads=1, clock=time.process_time)
    return None if speed >= REQUIRED else f"{speed:,.0f} fits a second and core; with AVX-512 it must pass {REQUIRED:,}"


def fit_grouped(
    X: np.ndarray,
    y: np.ndarray,
    offset: np.ndarray | None,
    family: str,
    tol: float = 1e-9,
    max_iterations: int = 25,
    threads: int = 2,
    share: int | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Fit one GLM a group, canonical link: coefficients (g, p) and iterations (g,).

    X: (g, n, p); y: (g, n); offset: (g, n) or None. Arrays that are contiguous float64 are read where they are.
    family: "gaussian" (one least-squares solve, counted as one iteration), "logistic" or "poisson".
    tol: how far from the optimum the estimates may be, as a fraction of their standard errors.
    share: how many lanes of a vector share the rows of a group, a power of two; chosen from the sizes if None. One lane a
        group is fastest as long as a block of groups fits the cache.
    """
    X, y = np.ascontiguousarray(X, np.float64), np.ascontiguousarray(y, np.float64)
    groups, rows, columns = X.shape
    if rows < 1 or not 1 <= columns <= MOST_COLUMNS:
        raise ValueError(f"there must be rows, and 1 to {MOST_COLUMNS} columns, not {X.shape}")
    if y.shape != (groups, rows):
        raise ValueError(f"y must be {(groups, rows)}, not {y.shape}")
    if offset is not None:
        offset = np.ascontiguousarray(offset, np.float64)
        if offset.shape != y.shape:
            raise ValueError(f"offset must be {y.shape}, not {offset.shape}")
    code = library(columns)
    lanes = code.native_lanes()
    share = share or shared_lanes(groups, rows, columns, threads, lanes)
    if share > lanes or share & (share - 1):
        raise ValueError(f"share must be a power of two up to {lanes}, not {share}")
    coefficients, iterations = np.empty((groups, columns)), np.empty(groups, np.int32)
    where = (None if a is None else a.ctypes.data for a in (X, y, offset))
    sizes = (groups, rows, FAMILIES[family], tol, max_iterations, max(threads, 1), share)
    code.native_fit(*where, *sizes, coefficients.ctypes.data, iterations.ctypes.data)
    return coefficients, iterations


def shared_lanes(groups: int, rows: int, columns: int, threads: int, lanes: int) -> int:
    """How many lanes share a group's rows: one, unless a block would leave the cache or there are too few for the threads."""
    share = 1
    while share < lanes and (rows * (columns + 2) * 8 * lanes / share > SCRATCH or groups * share < lanes * threads):
        share *= 2
    return share


def fits_per_second(
    groups: int = 10_000,
    rows: int = 200,
    columns: int = 8,
    family: str = "logistic",
    with_offset: bool = False,
    threads: int = 1,
    repeats: int = 5,
    clock: Callable[[], float] = time.perf_counter,
    share: int | None = None,
) -> float:
    """The median speed over some runs on simulated data; by default grouped_logistic on one core.

    With `time.process_time` as the clock it is the speed of a core by itself, whatever the number of threads and whoever
    else is using the machine.
    """
    X, y, offset = simulate(groups, rows, columns, family, with_offset)
    fit_grouped(X, y, offset, family, threads=threads, share=share)
    speeds = []
    for _ in range(repeats):
        begin = clock()
        fit_grouped(X, y, offset, family, threads=threads, share=share)
        speeds.append(groups / (clock() - begin))
    return statistics.median(speeds)


def simulate(
    groups: int, rows: int, columns: int, family: str, with_offset: bool = False, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Seeded data with an intercept and moderate effects: X, y and, if wanted, the offset."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(groups, rows, columns))
    X[:, :, 0] = 1.0
    offset = np.log(rng.uniform(0.5, 2.0, (groups, rows))) if with_offset else None
    eta = np.einsum("gnp,gp->gn", X, rng.normal(0.0, 0.3, (groups, columns))) + (0.0 if offset is None else offset)
    if family == "gaussian":
        return X, eta + rng.normal(size=eta.shape), offset
    if family == "poisson":
        return X, rng.poisson(np.exp(eta)).astype(float), offset
    return X, (rng.uniform(size=eta.shape) < 1.0 / (1.0 + np.exp(-eta))).astype(float), offset


@cache
def library(columns: int) -> ctypes.CDLL:
    """The compiled code for so many columns."""
    code = ctypes.CDLL(str(build(columns)))
    address, long, whole = ctypes.c_void_p, ctypes.c_long, ctypes.c_int
    sizes = [long, long, whole, ctypes.c_double, whole, whole, whole]
    code.native_fit.argtypes = [address, address, address, *sizes, address, address]
    code.native_fit.restype = None
    code.native_lanes.restype = whole
    return code


def build(columns: int) -> Path:
    """Compile for so many columns, or find what was compiled before from the same source for the same kind of CPU.

    Compiling and linking are two steps because a link with -ffast-math would make the whole process flush subnormal
    numbers to zero, NumPy's included.
    """
    flags = [*FLAGS, f"-DCOLUMNS={columns}", *(["-DLIBMVEC"] if has_libmvec() else [])]
    key = hashlib.sha256("\0".join([SOURCE.read_text(), macros(), *flags]).encode()).hexdigest()[:16]
    built = folder() / f"native-{columns}-{key}.so"
    if not built.exists():
        with tempfile.TemporaryDirectory(dir=built.parent) as workshop:
            compiled, linked = Path(workshop, "native.o"), Path(workshop, "native.so")
            call(compiler(), *flags, "-c", str(SOURCE), "-o", str(compiled))
            link = ["-lmvec"] if has_libmvec() else []
            call(compiler(), "-shared", "-pthread", str(compiled), *link, "-o", str(linked))
            os.replace(linked, built)
    return built


def folder() -> Path:
    """Where compiled code is kept: a folder for temporary files that nobody else can write to."""
    user = os.getuid() if hasattr(os, "getuid") else 0
    place = Path(tempfile.gettempdir(), f"jaxglm-native-{user}")
    place.mkdir(mode=0o700, exist_ok=True)
    if hasattr(os, "getuid") and (place.stat().st_uid != user or place.stat().st_mode & 0o022):
        raise RuntimeError(f"{place} can be written to by others")
    return place


def compiler() -> str:
    """The C++ compiler: $CXX, or the system's."""
    found = next(filter(None, map(shutil.which, (os.environ.get("CXX") or "c++", "g++", "clang++"))), None)
    if found is None:
        raise RuntimeError("there is no C++ compiler")
    return found


@cache
def macros() -> str:
    """What the compiler predefines: its version, and everything that -march=native found out about this CPU."""
    return call(compiler(), "-march=native", "-x", "c++", "-dM", "-E", os.devnull)


def has_libmvec() -> bool:
    """Whether the C library has vector versions of exp and log."""
    return platform.machine() == "x86_64" and platform.libc_ver()[0] == "glibc"


def call(*command: str) -> str:
    """What a command prints; its complaints as an exception if it fails."""
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{command[0]} failed: {done.stderr.strip()[:2000]}")
    return done.stdout
