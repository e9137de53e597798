"""Running kernels: which groups go side by side, and which thread takes them."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import jax
import numpy as np

from jaxglm.family import Family
from jaxglm.irls.lanes.code import DTYPES, KINDS
from jaxglm.irls.lanes.kept import MachineCode
from jaxglm.irls.lanes.kernel import Layout, slots, written
from jaxglm.irls.lanes.machine import Compiled, called, compiled, linked, vector_bytes
from jaxglm.irls.lanes.program import Shape
from jaxglm.irls.options import IRLS
from jaxglm.threads import cores

CHUNK = 4  # rows that are looked at together
BROAD = 12  # columns, with more than which these are half as many
RANGES = 16  # into which each thread's share of the blocks is cut
MOST = 2**23  # numbers of the rows of a block
ASKING = threading.Lock()  # a cached function may run twice for threads that ask at once
WORTH = 1024  # chunks that are worth a thread's turn
WRITING = threading.Lock()  # threads that trace and write at once hinder each other; one may compile while another writes


@dataclass(frozen=True)
class Rows:
    """The rows of g fits, where the user has them.

    X: (N, p), (g, n, p), or (n, p) that all fits share; y, weights, offset: (N,), (g, n) or (n,), the latter two also None;
    own: (g, n), a last column of each fit's own beside a shared X, or None, where `code` stands for missing, and rows that
    miss it are not there if `drop`; shared: whether X is shared; starts, sizes: (g,), the rows of each fit, after
    `order` (M,), the numbers of rows sorted by group, or None; gone: columns of X that are read as zeros, or None; mark: as y,
    the marks of `jaxglm.rows.Rows`, or None.
    """

    X: np.ndarray
    y: np.ndarray
    weights: np.ndarray | None
    offset: np.ndarray | None
    starts: np.ndarray
    sizes: np.ndarray
    order: np.ndarray | None = None
    own: np.ndarray | None = None
    code: int | None = None
    drop: bool = False
    shared: bool = False
    gone: np.ndarray | None = None
    mark: np.ndarray | None = None

    @property
    def p(self) -> int:
        """Columns of the design."""
        return self.X.shape[-1] + (self.own is not None)


@dataclass(frozen=True)
class Job:
    """Fits to be made: their rows; the family, penalty (p,) or (g, p) or None, and start likewise; the options; the type of
    the arithmetic; careful: whether with all precautions, by the factorization that the options name, or in the plain
    pass; bias_reduction, held: as of a `jaxglm.task.Task`, for careful ones. Where fits are made already, `one` is what is
    asked of each, a function of `jaxglm.rows.Rows`, its family, and its part of what is `known`, a pytree of arrays
    (g, ...)."""

    rows: Rows
    family: Family
    penalty: np.ndarray | None
    start: np.ndarray | None
    options: IRLS
    dtype: Any
    careful: bool = False
    bias_reduction: str | None = None
    held: np.ndarray | None = None
    one: Any = None
    known: Any = None


@dataclass(frozen=True)
class Kernel:
    """A kernel for a `Shape`, compiled. structure: of what comes out."""

    shape: Shape
    layout: Layout
    code: Compiled
    structure: Any


def shape_of(job: Job) -> Shape:
    """What the program of a job depends on."""
    rows = job.rows

    def kind(values: np.ndarray | None) -> str | None:
        return None if values is None else _readable(values).dtype.name

    return Shape(
        p=rows.p,
        chunk=CHUNK if rows.p <= BROAD else CHUNK // 2,
        dtype=np.dtype(job.dtype).name,
        shared=rows.shared,
        X=str(kind(rows.X)),
        y=str(kind(rows.y)),
        weights=kind(rows.weights) or "float64",
        offset=kind(rows.offset),
        own=kind(rows.own),
        code=rows.code,
        drop=rows.drop,
        ordered=rows.order is not None,
        adjacent=_adjacent(rows),
        family=jax.tree.structure(job.family),
        penalty=job.penalty is not None,
        start=job.start is not None,
        options=job.options,
        careful=job.careful,
        bias_reduction=job.bias_reduction,
        held=job.held is not None,
        one=job.one,
        mark=kind(rows.mark),
        known=(jax.tree.structure(job.known), tuple(np.shape(leaf)[1:] for leaf in jax.tree.leaves(job.known))),
    )


def kernel(shape: Shape) -> Kernel:
    """The kernel of a shape, written once, whichever threads want it; others wait only while it is being written."""
    with ASKING:
        writing = _writing(shape)
    with writing:
        return _kernel(shape)


@lru_cache(maxsize=256)
def _writing(shape: Shape) -> threading.Lock:
    return threading.Lock()


@lru_cache(maxsize=64)
def _kernel(shape: Shape) -> Kernel:
    parts: list[Future[MachineCode]] = []
    pool = ThreadPoolExecutor(1)  # parts are compiled while others are written
    try:
        with WRITING, jax.enable_x64(True):
            lanes = vector_bytes() // np.dtype(shape.dtype).itemsize
            layout, structure = written(shape, lanes, lambda text: parts.append(pool.submit(compiled, text)))
        code = linked([part.result() for part in parts], "run")
    finally:
        pool.shutdown(wait=False, cancel_futures=True)  # nobody waits for parts of what cannot be written
    return Kernel(shape, layout, code, structure)


def fits(job: Job, size: np.ndarray) -> np.ndarray:
    """Which sizes of groups fit into the memory that a block may have."""
    return size * (job.rows.p + 3) * 8 <= MOST


def ask(job: Job, groups: np.ndarray) -> Any:
    """What `job.one` says of some groups, a pytree of arrays (g, ...), zero for others."""
    made, g = kernel(shape_of(job)), len(job.rows.sizes)
    leaves = [np.zeros((g, *leaf.shape), leaf.dtype) for leaf in made.layout.leaves]
    solve(job, leaves, groups)
    kinds = (DTYPES[leaf.kind] for leaf in made.layout.leaves)
    return jax.tree.unflatten(made.structure, [leaf.astype(kind, copy=False) for leaf, kind in zip(leaves, kinds, strict=True)])


def solve(job: Job, found: Any, groups: np.ndarray, progress: Callable[[int], None] | None = None) -> None:
    """Fit some groups, and put what comes out into the arrays of `found`; progress is told how many are done."""
    made = kernel(shape_of(job))
    table, kept = _table(job, made, found)
    lanes, chunk = made.layout.lanes, made.shape.chunk
    blocks = _blocks(groups, job.rows.sizes[groups], lanes)
    counts = np.asarray(-(-job.rows.sizes[blocks[::lanes]] // chunk), np.int64)
    table["blocks"], table["counts"] = blocks.ctypes.data, counts.ctypes.data
    own = threading.local()

    def work(part: range) -> int:
        size = (made.layout.parameters + made.layout.results + int(counts[part.start]) * made.layout.chunk) * lanes
        if getattr(own, "scratch", np.empty(0)).size < size + 8:
            own.scratch = np.empty(size + 8)
        begin = -(-own.scratch.ctypes.data // 64) * 64
        words = np.array([*{**table, "scratch": begin}.values()], np.int64)
        called(made.code, part.start, part.stop, words.ctypes.data)
        return min(part.stop * lanes, len(groups)) - part.start * lanes

    ranges = list(_ranges(counts))
    with ThreadPoolExecutor(cores()) as pool:  # it has no threads before it is given work
        for done in (pool.map if len(ranges) > 1 else map)(work, ranges):
            if progress:
                progress(done)
    del kept


def _blocks(groups: np.ndarray, sizes: np.ndarray, lanes: int) -> np.ndarray:
    """The groups of each block, one after the other, -1 where a lane has none. Groups of about the same size share a block; of
    groups of one size each lane takes a share in their order, since memory is read ahead where it is read in order."""
    alike = not len(sizes) or sizes.min() == sizes.max()
    n_blocks = -(-len(groups) // lanes)
    blocks = np.full(n_blocks * lanes, -1, np.int64)
    blocks[: len(groups)] = groups if alike else groups[np.argsort(-sizes, kind="stable")]
    return np.ascontiguousarray(blocks.reshape(lanes, n_blocks).T).reshape(-1) if alike else blocks


def _ranges(counts: np.ndarray) -> Iterator[range]:
    """Blocks in ranges of about the same work, in fewer where there is little."""
    work = np.cumsum(counts + 8)
    number = max(1, min(len(counts), RANGES * cores(), int(work[-1]) // WORTH)) if len(counts) else 0
    ends = np.searchsorted(work, work[-1] * np.arange(1, number) / number) if len(counts) else []
    edges = np.unique([0, *ends, len(counts)])
    for begin, end in itertools.pairwise(edges):
        yield range(int(begin), int(end))


def _table(job: Job, made: Kernel, found: Any) -> tuple[dict[str, int], list[np.ndarray]]:
    """Addresses and strides by name, and the arrays that have to be kept."""
    rows, shape = job.rows, made.shape
    table = dict.fromkeys(slots(shape, len(made.layout.leaves)), 0)
    kept: list[np.ndarray] = []

    def put(name: str, values: np.ndarray, **strides: int) -> None:
        kept.append(values)
        for part, stride in {"address": values.ctypes.data, **strides}.items():
            table[f"{name}.{part}"] = stride

    for name, numbers in (("sizes", rows.sizes), ("starts", rows.starts), ("order", rows.order)):
        if numbers is not None:
            whole = np.ascontiguousarray(numbers, np.int64)
            kept.append(whole)
            table[name] = whole.ctypes.data
    if rows.shared:
        kept.append(_in_chunks(rows.X if rows.gone is None else np.where(rows.gone, 0.0, rows.X), shape))
        table["shared"] = kept[-1].ctypes.data
    if rows.own is not None:
        own = _readable(rows.own)
        put("X", own, group=own.strides[0], row=own.strides[1])
    elif not rows.shared:
        X = _readable(rows.X)
        put("X", X, group=X.strides[0] if X.ndim == 3 else 0, row=X.strides[-2], column=X.strides[-1])
        table["gone"] = 0 if rows.gone is None else sum(1 << int(j) for j in np.flatnonzero(rows.gone))
    for name, values in (("y", rows.y), ("weights", rows.weights), ("offset", rows.offset), ("mark", rows.mark)):
        if values is not None:
            values = _readable(values)
            put(name, values, group=values.strides[0] if values.ndim == 2 else 0, row=values.strides[-1])
    leaves = [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(job.family)]
    for index, leaf in enumerate(leaves):
        put(f"parameter{index}", leaf, group=leaf.strides[0] if leaf.ndim else 0)
    given = [vector for vector in (job.penalty, job.start, job.held) if vector is not None]
    known = [np.asarray(leaf, np.float64).reshape(len(leaf), -1) for leaf in jax.tree.leaves(job.known)]
    for index, vector in enumerate(known if job.one is not None else given):
        values = np.ascontiguousarray(vector, np.float64)
        group = values.strides[0] if values.ndim == 2 else 0
        put(f"parameter{len(leaves) + index}", values, group=group, column=8)
    for index, (of, values) in enumerate(zip(made.layout.leaves, jax.tree.leaves(found), strict=True)):
        assert values.flags.c_contiguous
        assert values.itemsize == of.dtype.itemsize
        table[f"result{index}"] = values.ctypes.data
    return table, kept


def _adjacent(rows: Rows) -> bool:
    """Whether the columns of a row lie next to each other, which is worth a kernel of its own."""
    X = _readable(rows.X)
    return not rows.shared and rows.p > 1 and X.strides[-1] == X.itemsize


def _readable(values: np.ndarray) -> np.ndarray:
    """The array itself if a kernel reads numbers of its type, else in float64."""
    known = values.dtype in KINDS and values.dtype.kind in "fi" and values.dtype.isnative
    return values if known else values.astype(np.float64)


def _in_chunks(X: np.ndarray, shape: Shape) -> np.ndarray:
    """A shared design (n, p) as chunks (T, p, chunk), the last one filled up with zeros."""
    count = -(-len(X) // shape.chunk)
    out = np.zeros((count * shape.chunk, X.shape[1]), np.dtype(shape.dtype))
    with np.errstate(over="ignore"):
        out[: len(X)] = X
    return np.ascontiguousarray(np.swapaxes(out.reshape(count, shape.chunk, X.shape[1]), 1, 2))
