"""Machine code of lanes that outlives a process: what is kept, and when it is not trusted."""

import importlib.util

import jax
import numpy as np
import pytest

from jaxglm import IRLS, families
from jaxglm.irls.lanes import Job, Rows, run, solve
from jaxglm.irls.lanes.kept import CHECK, MachineCode, keep, looked_up
from jaxglm.irls.solution import nothing

SETTINGS = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs", "jax_enable_compilation_cache")


@pytest.fixture
def folder(tmp_path):
    """An empty folder that is not there yet, of a JAX that keeps everything."""
    before = {name: jax.config.values[name] for name in SETTINGS}
    for name, value in zip(SETTINGS, (str(tmp_path / "compiled"), 0.0, True), strict=True):
        jax.config.update(name, value)
    yield tmp_path / "compiled"
    for name, value in before.items():
        jax.config.update(name, value)


def once(code):
    """A way to make code that works only once."""
    left = [code]
    return left.pop


def kept(what, make):
    """The code that depends on `what`, which is kept if it was made."""
    code = looked_up(what, make)
    keep([code])
    return code.code


def fail():
    raise AssertionError("the code had to be there")


def test_code_is_made_once(folder):
    assert kept(("a", "b"), once(b"code")) == b"code"
    assert kept(("a", "b"), fail) == b"code"
    assert kept(("ab", ""), once(b"other")) == b"other"
    assert kept(("a", "c"), once(b"third")) == b"third"
    assert len(list(folder.iterdir())) == 3


@pytest.mark.parametrize("harm", [lambda b: b[:-1], lambda b: b[: CHECK - 1], lambda b: b"", lambda b: b[:-1] + b"x"])
def test_harmed_code_is_made_again(folder, harm):
    kept(("a",), once(b"code"))
    (file,) = folder.iterdir()
    file.write_bytes(harm(file.read_bytes()))
    assert kept(("a",), once(b"code")) == b"code"
    assert kept(("a",), fail) == b"code"


def test_settings_of_jax_hold(folder):
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 60.0)
    assert kept(("a",), once(b"code")) == b"code"
    jax.config.update("jax_enable_compilation_cache", False)
    assert kept(("a",), once(b"code")) == b"code"
    jax.config.update("jax_enable_compilation_cache", True)
    for elsewhere in (None, "gs://bucket/compiled"):
        jax.config.update("jax_compilation_cache_dir", elsewhere)
        assert kept(("a",), once(b"code")) == b"code"
    assert not folder.exists()


def test_what_is_used_together_is_kept_together(folder):
    """If all of it took long enough to make, and not what was there before."""

    def made(name, seconds):
        return MachineCode(name.encode(), folder / name, seconds)

    jax.config.update("jax_persistent_cache_min_compile_time_secs", 1.0)
    keep([made("a", 0.9)])
    assert not folder.exists()
    keep([made("a", 0.5), made("b", 0.6), made("c", 0.0)])
    assert sorted(file.name for file in folder.iterdir()) == ["a", "b"]


def test_a_folder_that_cannot_be_used_is_no_error(folder):
    folder.write_text("a file")
    assert kept(("a",), once(b"code")) == b"code"
    assert kept(("a",), once(b"again")) == b"again"


@pytest.mark.skipif(importlib.util.find_spec("llvmlite") is None, reason="llvmlite is not installed")
def test_fits_are_the_same_with_kept_code(folder):
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(9, 20, 2)), rng.poisson(2.0, (9, 20)).astype(float)

    def fitted():
        run._kernel.cache_clear()
        found = nothing(9, 2)
        rows = Rows(X, y, None, None, np.zeros(9, np.int64), np.full(9, 20))
        solve(Job(rows, families.Poisson(), None, None, IRLS(), np.dtype(np.float64)), found, np.arange(9))
        return found.coefficients

    made = fitted()
    written = {file: file.stat().st_mtime_ns for file in folder.iterdir()}
    assert len(written) >= 2  # parts of a program are kept by themselves
    np.testing.assert_array_equal(fitted(), made)
    assert written == {file: file.stat().st_mtime_ns for file in folder.iterdir()}
