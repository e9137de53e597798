"""NumPy arrays that JAX on a CPU uses as they are: it takes over those that begin at a multiple of `ALIGNMENT`, and copies
others, slowly."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

ALIGNMENT = 64  # bytes


def zeros(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Zeros that JAX need not copy."""
    return _viewed(np.zeros(_size(shape, dtype), np.uint8), shape, dtype)


def empty(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Room for numbers, as `numpy.empty` gives it, that JAX need not copy."""
    return _viewed(np.empty(_size(shape, dtype), np.uint8), shape, dtype)


def placed(values: Any, dtype: Any) -> np.ndarray:
    """The values where JAX need not copy them."""
    values = np.asarray(values)
    if values.dtype == dtype and values.flags.c_contiguous and values.ctypes.data % ALIGNMENT == 0:
        return values
    out = empty(values.shape, dtype)
    out[...] = values
    return out


def _size(shape: tuple[int, ...], dtype: Any) -> int:
    return math.prod(shape) * np.dtype(dtype).itemsize + ALIGNMENT


def _viewed(room: np.ndarray, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    first = -room.ctypes.data % ALIGNMENT
    return room[first : first + len(room) - ALIGNMENT].view(dtype).reshape(shape)
