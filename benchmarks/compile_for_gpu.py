"""Compile the fused kernels for a data-centre GPU that need not be there, and see what registers they take.

A kernel that needs more registers than a thread has keeps the rest in memory ("spills"), and is slow without a word. The
compiler says so, and it needs no device to say it: JAX compiles for a description of one. So this is a check for any
machine with `jax[cuda13]` (Python 3.12 or later), and takes a few minutes:

    python -m benchmarks.compile_for_gpu [name of a family, to compile only that]

It prints one line a kernel: family, columns, type of arithmetic, lanes a fit, what is given besides X and y, registers a
thread, blocks of 128 threads that fit into a multiprocessor at once, stack, spilled bytes, seconds. It exits with 1 if a
kernel does not compile, or if one spills that must not: those of up to 8 columns in float64 and 10 in float32.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TARGET = """
gpu_device_info {
  cuda_compute_capability { major: 9 }
  threads_per_block_limit: 1024 threads_per_warp: 32 threads_per_core_limit: 2048 core_count: 132 fpus_per_core: 128
  shared_memory_per_block: 49152 shared_memory_per_block_optin: 232448 shared_memory_per_core: 233472
  registers_per_core_limit: 65536 registers_per_block_limit: 65536
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  clock_rate_ghz: 1.98 memory_bandwidth: 4800000000000 l2_cache_size: 52428800 device_memory_size: 151397597184
}
runtime_version { major: 13 }
dnn_version_info { major: 9 minor: 10 }
platform_name: "CUDA"
device_description_str: "NVIDIA H200"
"""
REGISTERS = 65536  # of a multiprocessor
UNSPILLED = {"float64": 8, "float32": 10}  # columns up to which nothing may spill
ROWS, TILES = 64, 4


@dataclass(frozen=True)
class Kernel:
    """One kernel to compile."""

    family: Any
    p: int
    dtype: str = "float64"
    parts: int = 1
    weights: bool = False
    offset: bool = False

    def __str__(self) -> str:
        given = "+".join(name for name in ("weights", "offset") if getattr(self, name)) or "-"
        name = f"{self.family.name}-{self.family.link.name}"
        return f"{name:33} {self.p:3} {self.dtype:8} {self.parts:5}  {given:15}"


def kernels() -> Iterator[Kernel]:
    """Those that are compiled: one family at all sizes, and all families at one."""
    from jaxglm import families

    logistic = families.Binomial()
    for dtype, sizes in (("float64", (1, 2, 4, 6, 8, 9, 10)), ("float32", (2, 4, 8, 10, 12))):
        yield from (Kernel(logistic, p, dtype) for p in sizes)
    for parts in (2, 8, 64):
        yield Kernel(logistic, 8, parts=parts)
    yield Kernel(logistic, 10, parts=4)
    yield Kernel(logistic, 12, "float32", parts=4)
    others = [
        families.Poisson(),
        families.Gaussian(),
        families.Gamma("log"),
        families.Gamma(),
        families.InverseGaussian(),
        families.NegativeBinomial(2.0),
        families.Tweedie(1.5),
        families.Binomial("probit"),
        families.Binomial("cloglog"),
        families.Binomial("cauchit"),
        families.Poisson("sqrt"),
    ]
    for family in others:
        yield Kernel(family, 4, weights=True, offset=True)
        yield Kernel(family, 8)
        yield Kernel(family, 8, weights=True, offset=True)
    yield Kernel(families.Gaussian(), 10)
    yield Kernel(families.Poisson(), 10, offset=True)
    yield Kernel(families.NegativeBinomial(2.0), 12, "float32", offset=True)


@dataclass(frozen=True)
class Compiler:
    """JAX's compiler for a device that is described. dump: the folder into which it writes what it made."""

    sharding: Any
    mesh: Any
    dump: Path

    @classmethod
    def start(cls) -> Compiler:
        """Must be called before anything else uses JAX."""
        dump = tempfile.mkdtemp()
        os.environ.update(JAX_PLATFORMS="cpu", MOSAIC_GPU_DUMP_TO=dump)
        import jax
        from jax.experimental import topologies
        from jax.sharding import AbstractDevice, AbstractMesh

        jax.config.update("jax_enable_x64", True)
        device = topologies.get_topology_desc(platform="cuda", target_config=TARGET, topology="1x1x1").devices[0]
        described = AbstractDevice(device_kind="NVIDIA H200", num_cores=132, platform="gpu")
        return cls(jax.sharding.SingleDeviceSharding(device), AbstractMesh((), (), abstract_device=described), Path(dump))

    def report(self, kernel: Kernel) -> str:
        """What the assembler says of a kernel."""
        import jax
        import jax.numpy as jnp

        from jaxglm.irls.fused import Tiles, solve

        def array(dtype: Any, *shape: int) -> Any:
            return jax.ShapeDtypeStruct(shape, dtype, sharding=self.sharding)

        per_row, per_lane = array(kernel.dtype, ROWS, 128), array(jnp.int32, TILES, 128)
        tiles = Tiles(
            X=array(kernel.dtype, ROWS, kernel.p, 128),
            y=per_row,
            weights=per_row if kernel.weights else None,
            offset=per_row if kernel.offset else None,
            first=array(jnp.int32, TILES + 1),
            count=per_lane,
            fit=per_lane,
            place=array(jnp.int32, TILES * 128 // kernel.parts),
            parts=kernel.parts,
        )
        with jax.sharding.use_abstract_mesh(self.mesh):
            run = jax.jit(lambda tiles: solve(tiles, kernel.family))
            run.trace(tiles).lower(lowering_platforms=("cuda",)).compile()
        newest = max(self.dump.glob("*.ptxas"), key=lambda path: path.stat().st_mtime_ns)
        return newest.read_text(encoding="utf-8")


def numbers(report: str) -> tuple[int, int, int]:
    """Registers, bytes of stack, and spilled bytes, from the assembler's report."""
    registers = re.search(r"Used (\d+) registers", report)
    frame = re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", report)
    if registers is None or frame is None:
        raise ValueError(f"the assembler's report is not understood:\n{report}")
    return int(registers[1]), int(frame[1]), int(frame[2]) + int(frame[3])


def main() -> int:
    """Compile all, print the table, and say whether all is well."""
    only = sys.argv[1] if len(sys.argv) > 1 else None
    compiler, bad = Compiler.start(), []
    print(f"{'family':33} {'p':>3} {'type':8} {'lanes':>5}  {'given':15} registers blocks stack spilled seconds")
    for kernel in kernels():
        if only not in (None, kernel.family.name):
            continue
        began = time.perf_counter()
        try:
            registers, stack, spilled = numbers(compiler.report(kernel))
        except Exception as error:
            print(f"{kernel} FAILED {type(error).__name__}: {error}", flush=True)
            bad.append(kernel)
            continue
        blocks = REGISTERS // (128 * (-(-registers // 8) * 8))
        seconds = time.perf_counter() - began
        print(f"{kernel} {registers:9} {blocks:6} {stack:5} {spilled:7} {seconds:7.1f}", flush=True)
        if spilled and kernel.p <= UNSPILLED[kernel.dtype]:
            bad.append(kernel)
    for kernel in bad:
        print(f"not good: {kernel}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
