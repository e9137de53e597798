"""What every test runs under: strict promotion of types, and warnings that are errors (pyproject.toml)."""

import jax
import pytest

jax.config.update("jax_numpy_dtype_promotion", "strict")


@pytest.fixture
def x64():
    """float64 arithmetic for tests of the core, which follows the types it is given."""
    with jax.enable_x64(True):
        yield
