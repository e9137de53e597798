"""Host threads: to use all cores of a CPU, and to keep a GPU supplied.

XLA spreads a single operation over cores, which for the small operations of IRLS costs more than it gains. Threads that each
run a program of their own on the one CPU device use the cores without any configuration. On a GPU, while one thread waits
for its results, another copies its data there, and a third prepares what comes next.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import jax
import numpy as np

from jaxglm.devices import default_device

T = TypeVar("T")

STREAMS = 3  # threads for a GPU
PIECE = 2**15  # numbers that are worth a thread


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def for_each(work: Callable[[Any], Any], items: Iterable[Any]) -> None:
    """Work on items for what it does, by a thread for each core."""
    with ThreadPoolExecutor(cores()) as pool:
        list(pool.map(work, items))  # raises what a thread has raised


def for_pieces(work: Callable[[slice], Any], n: int, size: int) -> None:
    """Work on n things, so many at a time, for what it does, by all cores."""
    parts = [slice(begin, begin + size) for begin in range(0, n, size)]
    if len(parts) > 1:
        for_each(work, parts)
    elif parts:
        work(parts[0])


def in_pieces(function: np.ufunc, *arrays: Any) -> np.ndarray:
    """A function of NumPy or SciPy of arrays that broadcast, by all cores where there are many numbers."""
    given = np.broadcast_arrays(*arrays)
    shape = given[0].shape
    if math.prod(shape) < 2 * PIECE:
        return np.asarray(function(*arrays))
    out, step = np.empty(shape), max(1, PIECE * shape[0] // math.prod(shape))

    for_pieces(lambda part: function(*(array[part] for array in given), out=out[part]), shape[0], step)
    return out


def in_threads(work: Callable[[Any], T], items: list[Any], device: Any = None, compiles: bool = True) -> Iterable[T]:
    """Work on items, in their order: on a CPU with a thread for each core, on a GPU with `STREAMS` threads. What is done is
    done under the caller's choice of float64 and of a device; other contexts of JAX do not reach the threads. compiles: whether
    a program for all items is compiled with the first, which then goes alone."""
    count = cores() if (device or default_device()).platform == "cpu" else STREAMS
    if len(items) < 2 or count < 2:
        yield from map(work, items)
        return
    wide = jax.dtypes.canonicalize_dtype("float64") == "float64"

    # The caller's own setting, also where it is none, which threads do not see: another would compile programs again.
    chosen = device or jax.config.jax_default_device  # type: ignore[attr-defined]

    def alike(item: Any) -> T:
        with jax.enable_x64(wide), jax.default_device(chosen):
            return work(item)

    if compiles:
        yield alike(items[0])  # or every thread would compile the program
        items = items[1:]
    with ThreadPoolExecutor(min(count, len(items))) as pool:
        ahead = [pool.submit(alike, item) for item in items[: 2 * count]]
        for index in range(len(items)):
            yield ahead[index].result()
            ahead[index] = None  # type: ignore[call-overload]  # let its arrays go
            if index + 2 * count < len(items):
                ahead.append(pool.submit(alike, items[index + 2 * count]))
