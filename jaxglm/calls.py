"""In which calls groups of any sizes are worked on, and in which arithmetic.

Small groups go side by side in lanes, large ones by themselves; a GPU gets more at a time than a CPU. Every pass over ragged
groups takes its calls from here, so that all of them have the same few shapes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import jax
import numpy as np

from jaxglm.devices import default_device
from jaxglm.packing import Call, Layout, plan
from jaxglm.task import Task

SMALL, LARGE = Layout(lanes=64, rows=32), Layout(lanes=1, rows=2048)
FEW = Layout(lanes=8, rows=32)  # of groups that need all precautions
WIDE, TALL = Layout(1024, 32, (2**19, 2**22)), Layout(16, 2048, (2**19, 2**22))  # SMALL and LARGE for a GPU
MANY_ROWS = 4096  # groups with more rows than this go by themselves


@contextmanager
def arithmetic(device: Any = None) -> Iterator[None]:
    """float64 available, on this device, without touching JAX's configuration."""
    with ExitStack() as stack:
        stack.enter_context(jax.enable_x64(True))
        if device is not None:
            stack.enter_context(jax.default_device(device))
        yield


def _layouts(task: Task, plain: bool) -> tuple[Layout, Layout]:
    device = task.device or default_device()
    if device.platform != "cpu":
        return WIDE, TALL
    return (SMALL if plain else FEW), LARGE


def calls_of(task: Task, groups: np.ndarray, plain: bool) -> list[Call]:
    """The calls in which groups of any sizes are worked on."""
    sizes = task.source.sizes
    many = sizes[groups] > MANY_ROWS
    small, large = _layouts(task, plain)
    return [*plan(sizes, groups[~many], small), *plan(sizes, groups[many], large)]
