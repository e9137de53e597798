"""What every test runs under: strict promotion of types, and warnings that are errors (pyproject.toml).

Compiling takes most of the time, so machine code is made without its last optimisations and by the quickest of the
compiler's ways (the programs are the same), and the processes of one run share what they have compiled, in a folder that
goes away.
"""

import gc
import os
import shutil
import subprocess
import sys
import tempfile

QUICK = ("--xla_backend_optimization_level=0", "--xla_cpu_use_fusion_emitters=false")


def with_quick_compiling(flags: str) -> str:
    """XLA's flags with those of `QUICK` that this version knows: it ends a process that gives it others."""
    for flag in QUICK:
        more = f"{flags} {flag}".strip()
        known = [sys.executable, "-c", "import jax; jax.devices()"]
        if subprocess.run(known, env={**os.environ, "XLA_FLAGS": more}, capture_output=True, check=False).returncode == 0:
            flags = more
    return flags


if QUICK[0] not in os.environ.get("XLA_FLAGS", ""):  # the processes that this one starts have them already
    os.environ["XLA_FLAGS"] = with_quick_compiling(os.environ.get("XLA_FLAGS", ""))

import jax  # noqa: E402  (reads the flags)
import pytest  # noqa: E402

SHARED = "JAXGLM_TESTS_COMPILED"
SECONDS = "0.1"  # of compiling that are worth sharing

jax.config.update("jax_numpy_dtype_promotion", "strict")
gc.set_threshold(100_000, 50, 50)  # tracing makes very many objects that stay


def pytest_configure(config):
    if SHARED not in os.environ:
        os.environ[SHARED] = tempfile.mkdtemp()
        config.add_cleanup(lambda: shutil.rmtree(os.environ.pop(SHARED), ignore_errors=True))
    jax.config.update("jax_compilation_cache_dir", os.environ[SHARED])
    jax.config.update("jax_persistent_cache_min_compile_time_secs", float(SECONDS))


@pytest.fixture(scope="module")
def environment():
    """Of a process that shares what is compiled."""
    return {
        **os.environ,
        "JAX_COMPILATION_CACHE_DIR": os.environ[SHARED],
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": SECONDS,
    }


@pytest.fixture(autouse=True, scope="module")
def forget_compiled():
    """Programs in memory go with the file that needed them."""
    yield
    jax.clear_caches()


@pytest.fixture
def x64():
    """float64 arithmetic for tests of the core, which follows the types it is given."""
    with jax.enable_x64(True):
        yield


@pytest.fixture
def without_lanes(monkeypatch):
    """The general path for all fits."""
    from jaxglm.irls import lanes

    monkeypatch.setattr(lanes, "available", lambda job, device: "not wanted")
