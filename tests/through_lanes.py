"""Functions of one number, or of a few, computed by lanes: translated, compiled, and called on arrays."""

import jax
import numpy as np

from jaxglm.irls.lanes.code import KINDS, Code, Number
from jaxglm.irls.lanes.entries import of_one
from jaxglm.irls.lanes.machine import called, compiled, linked, vector_bytes
from jaxglm.irls.lanes.translate import Translator


def through_lanes(function, *arrays):
    """function of each number, or of numbers side by side, of float64 or float32 arrays of one length."""
    dtype = np.dtype(arrays[0].dtype)
    lanes = vector_bytes() // dtype.itemsize
    n = len(arrays[0])
    count = -(-n // lanes)
    full = [np.concatenate([array, np.ones(count * lanes - n, dtype)]) for array in arrays]
    out = np.zeros(count * lanes, dtype)
    with jax.enable_x64(True):
        parts = program_of(function, len(arrays), dtype)
    table = np.array([array.ctypes.data for array in [*full, out]], np.int64)
    called(linked([compiled(part) for part in parts], "run"), 0, count, table.ctypes.data)
    return out[:n]


def program_of(function, n_arguments, dtype):
    """The texts of its program's parts, which are written while JAX has numbers of this type."""
    parts = []
    dtype = np.dtype(dtype)
    kind, code = KINDS[dtype], Code(vector_bytes() // dtype.itemsize, parts.append)
    jaxpr = jax.make_jaxpr(function)(*(jax.ShapeDtypeStruct((), dtype) for _ in range(n_arguments)))
    vector = code.type_of(kind, False)

    def pointer(index, at):
        slot = code.write("ptr", True, f"getelementptr i64, ptr %table, i64 {index}")
        address = code.write("ptr", True, f"load ptr, ptr {slot.text}")
        return code.write("ptr", True, f"getelementptr {vector}, ptr {address.text}, i64 {at}").text

    code.lines += ["  br label %head", "head:", "  %at = phi i64 [ %begin, %entry ], [ %next, %last ]"]
    code.lines += ["  %more = icmp slt i64 %at, %end", "  br i1 %more, label %body, label %done", "body:"]
    code.block = "body"
    numbers = [code.write(kind, False, f"load {vector}, ptr {pointer(i, '%at')}, align 8") for i in range(n_arguments)]
    result = code.spread(Translator(code).run(jaxpr, [of_one(number) for number in numbers])[0].item())
    assert isinstance(result, Number)
    assert result.kind == kind
    code.lines.append(f"  store {vector} {result.text}, ptr {pointer(n_arguments, '%at')}, align 8")
    code.lines += ["  br label %last", "last:", "  %next = add i64 %at, 1", "  br label %head", "done:"]
    return [*parts, code.text("run", "i64 %begin, i64 %end, ptr %table")]
