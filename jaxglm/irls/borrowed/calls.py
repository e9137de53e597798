"""The kernels as functions that programs of XLA call.

XLA hands a function one frame: where its buffers are, and their sizes. It may also ask which version of that agreement the
function knows, before it is ever called; what is read here of a frame has been the same in all versions of `KNOWN`. Others,
and a machine on which the kernels do not pass the test of `available`, are for the general path.
"""

from __future__ import annotations

import ctypes
import logging
import os
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxglm.irls.borrowed.instructions import SIDE, Writer, write_dot, write_normal, write_reach
from jaxglm.irls.lanes.machine import Compiled, compiled, linked, vector_bytes

log = logging.getLogger("jaxglm")

KNOWN = range(1, 6)  # minor versions of XLA's agreement, all of major version 0
METADATA, EXECUTE = 1, 3
# Where things are, in bytes: in a frame, in a buffer, in what asks for the version.
EXTENSION, STAGE, ARGUMENTS, RESULTS = 8, 32, 72, 112
DATA, DIMENSIONS = 24, 40
KIND, ASKED, MAJOR, MINOR = 8, 24, 24, 28

REGISTERING = threading.Lock()  # XLA takes a name once
SCALARS = {"float64": "double", "float32": "float"}


def version() -> tuple[int, int] | None:
    """The version of the agreement, or None where it cannot be known."""
    path = os.path.join(jax.ffi.include_dir(), "xla", "ffi", "api", "c_api.h")
    if not os.path.exists(path):
        return None
    with open(path, encoding="utf-8") as file:
        found = re.findall(r"#define XLA_FFI_API_(MAJOR|MINOR) (\d+)", file.read())
    known = {name: int(number) for name, number in found}
    return (known["MAJOR"], known["MINOR"]) if len(known) == 2 else None


KERNELS: tuple[tuple[str, Callable[..., None], int, int], ...] = (
    ("dot", write_dot, 2, 1),
    ("reach", write_reach, 2, 1),
    ("normal", write_normal, 3, 2),
)


@dataclass(frozen=True)
class Registered:
    """A kernel that XLA knows by a name. code: has to stay where it is."""

    name: str
    code: Compiled


def _registered(dtype: str) -> dict[str, Registered]:
    """The kernels for numbers of a type, by what they do."""
    with REGISTERING:
        return _made(dtype)


@cache
def _made(dtype: str) -> dict[str, Registered]:
    told = version()
    assert told is not None
    writer = Writer(SCALARS[dtype], vector_bytes() // np.dtype(dtype).itemsize)
    made = {}
    for name, write, arguments, results in KERNELS:
        text = _handler(writer, name, write, arguments, results, told)
        code = linked([compiled("\n".join([*writer.declarations, text]))], name)
        made[name] = Registered(f"jaxglm_{name}_{dtype}", code)
        pointer = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)(code.address)
        jax.ffi.register_ffi_target(made[name].name, jax.ffi.pycapsule(pointer), platform="cpu")
    return made


def _handler(w: Writer, name: str, write: Callable[..., None], arguments: int, results: int, told: tuple[int, int]) -> str:
    """The text of a function of a frame. Its first argument is a place; the sizes n and p are those of the second."""
    w.lines, w.block = [], "run"

    def load(kind: str, base: str, offset: int) -> str:
        return w.new(f"load {kind}, ptr {w.new(f'getelementptr i8, ptr {base}, i64 {offset}')}")

    given, gotten = load("ptr", "%frame", ARGUMENTS), load("ptr", "%frame", RESULTS)
    buffers = [load("ptr", given, 8 * i) for i in range(arguments)]
    outs = [load("ptr", gotten, 8 * i) for i in range(results)]
    data, out = ([load("ptr", buffer, DATA) for buffer in part] for part in (buffers, outs))
    place = {part: load("i64", data[0], 8 * i) for i, part in enumerate(("address", "stride", "rows"))}
    place["address"] = w.new(f"inttoptr i64 {place['address']} to ptr")

    def size(buffer: str, axis: int) -> str:
        return load("i64", load("ptr", buffer, DIMENSIONS), 8 * axis)

    if name == "normal":
        write(w, place, data[1:], out, size(buffers[1], 0), size(outs[0], 0), size(buffers[2], 0))
    else:
        write(w, place, data[1:], out, size(outs[0], 0), size(buffers[1], 0))
    lines = "\n".join(w.lines)
    return f"""define ptr @{name}(ptr %frame) nounwind "prefer-vector-width"="512" "min-legal-vector-width"="512" {{
entry:
  %at.extension = getelementptr i8, ptr %frame, i64 {EXTENSION}
  %extension = load ptr, ptr %at.extension
  %none = icmp eq ptr %extension, null
  br i1 %none, label %look, label %extended
extended:
  %at.kind = getelementptr i8, ptr %extension, i64 {KIND}
  %kind = load i32, ptr %at.kind
  %asks = icmp eq i32 %kind, {METADATA}
  br i1 %asks, label %tell, label %look
tell:
  %at.asked = getelementptr i8, ptr %extension, i64 {ASKED}
  %asked = load ptr, ptr %at.asked
  %major = getelementptr i8, ptr %asked, i64 {MAJOR}
  store i32 {told[0]}, ptr %major
  %minor = getelementptr i8, ptr %asked, i64 {MINOR}
  store i32 {told[1]}, ptr %minor
  ret ptr null
look:
  %at.stage = getelementptr i8, ptr %frame, i64 {STAGE}
  %stage = load i32, ptr %at.stage
  %now = icmp eq i32 %stage, {EXECUTE}
  br i1 %now, label %run, label %leave
leave:
  ret ptr null
run:
{lines}
  ret ptr null
}}"""


def dot(place: Array, v: Array, rows: int) -> Array:
    """X v, (rows,). place: (3,), address, stride and number of the rows."""
    return _call("dot", jax.ShapeDtypeStruct((rows,), v.dtype), place, v)


def reach(place: Array, p: int, dtype: Any) -> Array:
    """The largest absolute value of each column, (p,)."""
    return _call("reach", jax.ShapeDtypeStruct((p,), dtype), place, jnp.zeros(p, dtype))


def normal(place: Array, w: Array, r: Array, p: int) -> tuple[Array, Array]:
    """X' diag(w) X and X' r', for w (n,) and r (k, n), k at most `SIDE`."""
    assert len(r) <= SIDE
    shapes = (jax.ShapeDtypeStruct((p, p), w.dtype), jax.ShapeDtypeStruct((p, len(r)), w.dtype))
    return _call("normal", shapes, place, w, r)


def _call(name: str, shapes: Any, *arguments: Array) -> Any:
    return jax.ffi.ffi_call(_registered(arguments[-1].dtype.name)[name].name, shapes)(*arguments)


@cache
def available(dtype: str) -> bool:
    """Whether programs can call the kernels on this machine; why not goes to the log."""
    reason = _obstacle(dtype)
    if reason:
        log.debug("the rows of large fits are copied: %s", reason)
    return reason is None


def _obstacle(dtype: str) -> str | None:
    if find_spec("llvmlite") is None:
        return "llvmlite is not installed"
    if dtype not in SCALARS or not hasattr(jax, "ffi"):
        return f"there are no kernels for {dtype}" if dtype not in SCALARS else "this version of JAX calls no functions"
    told = version()
    if told is None or told[0] != 0 or told[1] not in KNOWN:
        return f"XLA's agreement on calls has the version {told}"
    try:
        return _test(dtype)
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def _test(dtype: str) -> str | None:
    """What is wrong with the kernels' answers on a small problem."""
    rng = np.random.default_rng(0)
    whole = rng.standard_normal((71, 23)).astype(dtype)
    X, given = whole[:, 2:21], (rng.uniform(size=80), rng.standard_normal((2, 80)), rng.standard_normal(19))
    with jax.enable_x64(True), jax.default_device(jax.devices("cpu")[0]):
        place = jnp.asarray([X.ctypes.data, X.strides[0], len(X)])
        w, r, v = (jnp.asarray(values, dtype) for values in given)
        found = jax.jit(lambda place, w, r, v: (dot(place, v, 80), reach(place, 19, dtype), *normal(place, w, r, 19)))
        eta, size, gram, scores = (np.asarray(values, np.float64) for values in found(place, w, r, v))
    weights, sides, b, rows = (np.asarray(values, np.float64) for values in (w, r, v, X))
    gram_of_rows = (rows * weights[:71, None]).T @ rows
    wanted = (gram_of_rows, rows.T @ sides[:, :71].T, np.append(rows @ b, np.zeros(9)), np.abs(rows).max(axis=0))
    close = 1e3 * np.finfo(dtype).eps
    right = (np.allclose(a, b, rtol=close, atol=close) for a, b in zip((gram, scores, eta, size), wanted, strict=True))
    return None if all(right) else "the kernels' answers are wrong"
