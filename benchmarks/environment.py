"""On what the benchmarks ran: processor, memory, versions, and the bandwidth that a copy reaches.

Nothing here names the machine, its folders or its network, so that results can be published as they are.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import subprocess
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

ALWAYS = ("jax", "jaxlib", "numpy", "scipy")
PROGRAMS = {"R": ("R", "--version"), "plink2": ("plink2", "--version")}
VECTORS = {"avx512f": "AVX-512", "avx2": "AVX2", "asimd": "NEON"}
CPU_COPY, GPU_COPY = 2**28, 2**31  # bytes of the array that is copied, far more than caches hold
COPIES = 10


@dataclass(frozen=True)
class Environment:
    """processor, vectors: the CPU and its widest vector instructions; cores: usable; memory: bytes; device: what jax ran
    on; bandwidth: bytes read and written a second by a copy there; load: of the machine when the run began, in processes;
    versions: of libraries and programs; commit: of jaxglm, with "+" where files were changed."""

    processor: str
    vectors: str
    cores: int
    memory: int
    system: str
    device: str
    bandwidth: float
    load: float
    versions: dict[str, str]
    commit: str


def describe(device: str, distributions: Iterable[str]) -> Environment:
    """The environment of this process. device: "cpu" or "gpu"; distributions: Python packages to name beside jax's."""
    import jax

    import jaxglm

    known = {"python": platform.python_version(), "jaxglm": jaxglm.__version__}
    versions = {name: version(name) for name in sorted({*ALWAYS, *distributions})}
    versions |= {name: program(command) for name, command in PROGRAMS.items()}
    jax_device = jax.devices(device)[0]
    return Environment(
        processor=processor("model name") or platform.processor() or platform.machine(),
        vectors=vectors(),
        cores=cores(),
        memory=memory(),
        system=f"{platform.system()} {platform.machine()}",
        device=device if device == "cpu" else jax_device.device_kind,
        bandwidth=cpu_bandwidth(cores()) if device == "cpu" else gpu_bandwidth(jax_device),
        load=round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else float("nan"),
        versions=known | {name: number for name, number in versions.items() if number},
        commit=commit(),
    )


def cores() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processor(field: str) -> str | None:
    """A field of the first processor that the system lists."""
    source = Path("/proc/cpuinfo")
    text = source.read_text() if source.exists() else ""
    found = re.search(rf"^{field}\s*:\s*(.*)$", text, re.MULTILINE)
    return found.group(1).strip() if found else None


def vectors() -> str:
    flags = (processor("flags") or processor("Features") or "").split()
    return next((name for flag, name in VECTORS.items() if flag in flags), "unknown")


def memory() -> int:
    """Bytes of the machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def peak_memory() -> int:
    """The most bytes that this process has held."""
    status = Path("/proc/self/status")
    if status.exists():
        found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text())
        if found:
            return int(found.group(1)) * 1024
    import resource

    unit = 1 if platform.system() == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def program(command: tuple[str, ...]) -> str | None:
    """The first number with dots, or plink's kind of version, that a program says of itself."""
    try:
        said = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    except OSError:
        return None
    found = re.search(r"v?(\d+\.\d+[\w.]*)", said)
    return found.group(1) if found else None


def commit() -> str:
    """Of the source tree, shortened."""
    folder = Path(__file__).parent

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, check=False).stdout.strip()

    try:
        return git("rev-parse", "--short", "HEAD") + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")
    except OSError:
        return ""


def cpu_bandwidth(threads: int) -> float:
    """Bytes read and written a second when all cores copy."""
    source, target = (np.full(CPU_COPY // 8, value) for value in (1.0, 0.0))
    pieces = list(zip(np.array_split(source, threads), np.array_split(target, threads), strict=True))
    best = np.inf
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(COPIES):
            began = time.perf_counter()
            list(pool.map(lambda piece: np.copyto(piece[1], piece[0]), pieces))
            best = min(best, time.perf_counter() - began)
    return 2.0 * CPU_COPY / best


def gpu_bandwidth(device: Any) -> float:
    """Bytes read and written a second by an element-wise operation on a large array."""
    import jax
    import jax.numpy as jnp

    source = jax.device_put(np.zeros(GPU_COPY // 4, np.float32), device)
    copy = jax.jit(lambda values: jnp.add(values, jnp.float32(1.0)))
    best = np.inf
    for _ in range(COPIES + 1):
        began = time.perf_counter()
        jax.block_until_ready(copy(source))
        best = min(best, time.perf_counter() - began)
    return 2.0 * GPU_COPY / best
