"""Arrays of numbers: what only moves entries about, and so costs nothing when a program runs.

An array of a program is a NumPy array of `Number`s, and JAX's primitives that take, join and repeat entries are NumPy's
functions of it. The places of entries have to be known when the program is written.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from jaxglm.irls.lanes.code import KINDS, Number, constant


class Untranslatable(Exception):
    """A program calls what is not known here."""


def elementwise(function: Callable[..., Number], *arrays: np.ndarray) -> np.ndarray:
    """A function of numbers on arrays of them, single numbers going with all."""
    largest = max(arrays, key=lambda array: array.ndim)
    if largest.ndim == 0:
        return of_one(function(*(array.item() for array in arrays)))
    shape = largest.shape
    if any(array.ndim and array.shape != shape for array in arrays):
        shape = np.broadcast_shapes(*(array.shape for array in arrays))
    spread = [array if array.shape == shape else np.broadcast_to(array, shape) for array in arrays]
    out = np.empty(shape, object)
    out.reshape(-1)[:] = [function(*numbers) for numbers in zip(*(array.reshape(-1) for array in spread), strict=True)]
    return out


def of_one(number: Number) -> np.ndarray:
    """The array of one number."""
    out = np.empty((), object)
    out[()] = number
    return out


def constants(values: np.ndarray) -> np.ndarray:
    """An array that is known."""
    kind = KINDS.get(values.dtype)
    if kind is None:
        raise Untranslatable(f"numbers of type {values.dtype}")
    if values.ndim == 0:
        return of_one(constant(values[()], kind))
    out = np.empty(values.size, object)
    for index, value in enumerate(values.reshape(-1)):
        out[index] = constant(value, kind)
    return out.reshape(values.shape)


def shaped(numbers: Sequence[Number], like: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Numbers as arrays of these shapes."""
    arrays, begin = [], 0
    for array in like:
        part = np.empty(array.size, object)
        part[:] = numbers[begin : begin + array.size]
        arrays.append(part.reshape(array.shape))
        begin += array.size
    return arrays


def _known_integers(arrays: Sequence[np.ndarray]) -> list[int]:
    if any(array.item().constant is None for array in arrays):
        raise Untranslatable("entries at places that are not known before")
    return [int(array.item().constant) for array in arrays]


def _broadcast(parameters: dict[str, Any], operand: np.ndarray) -> np.ndarray:
    shape = parameters["shape"]
    inner = [1] * len(shape)
    for axis, size in zip(parameters["broadcast_dimensions"], operand.shape, strict=True):
        inner[axis] = size
    return np.broadcast_to(operand.reshape(inner), shape)


def _slice(parameters: dict[str, Any], operand: np.ndarray) -> np.ndarray:
    strides = parameters["strides"] or [1] * operand.ndim
    return operand[tuple(map(slice, parameters["start_indices"], parameters["limit_indices"], strides))]


def _begins(starts: Sequence[np.ndarray], have: Sequence[int], sizes: Sequence[int]) -> list[int]:
    """Where a part of these sizes begins, inside of what there is."""
    return [min(max(start, 0), n - size) for start, n, size in zip(_known_integers(starts), have, sizes, strict=True)]


def _dynamic_slice(parameters: dict[str, Any], operand: np.ndarray, *starts: np.ndarray) -> np.ndarray:
    sizes = parameters["slice_sizes"]
    begins = _begins(starts, operand.shape, sizes)
    return operand[tuple(slice(begin, begin + size) for begin, size in zip(begins, sizes, strict=True))]


def _updated(parameters: dict[str, Any], operand: np.ndarray, update: np.ndarray, *starts: np.ndarray) -> np.ndarray:
    begins = _begins(starts, operand.shape, update.shape)
    out = np.array(operand, object)
    out[tuple(slice(begin, begin + size) for begin, size in zip(begins, update.shape, strict=True))] = update
    return out


def _single(indices: np.ndarray, collapsed: Sequence[int], mapped: Sequence[int]) -> int | None:
    """The axis along which one place is meant, None where it is more than that."""
    return mapped[0] if indices.shape == (1,) and tuple(collapsed) == tuple(mapped) and len(mapped) == 1 else None


def _scatter(parameters: dict[str, Any], operand: np.ndarray, indices: np.ndarray, update: np.ndarray) -> np.ndarray:
    """Set what is at one place of an axis."""
    numbers = parameters["dimension_numbers"]
    axis = _single(indices, numbers.inserted_window_dims, numbers.scatter_dims_to_operand_dims)
    if axis is None:
        raise Untranslatable("a scatter of this form")
    out = np.array(operand, object)
    out[(slice(None),) * axis + (_known_integers([indices.reshape(())])[0],)] = update if update.ndim else update.item()
    return out


def _gather(parameters: dict[str, Any], operand: np.ndarray, indices: np.ndarray) -> np.ndarray:
    """Entries at places of some axes that are known, whatever the place along others."""
    numbers = parameters["dimension_numbers"]
    axes, (*batch, depth) = tuple(numbers.start_index_map), indices.shape
    whole = all(
        size == (1 if axis in axes else n)
        for axis, (size, n) in enumerate(zip(parameters["slice_sizes"], operand.shape, strict=True))
    )
    if tuple(numbers.collapsed_slice_dims) != tuple(sorted(axes)) or not whole or numbers.operand_batching_dims:
        raise Untranslatable("a gather of this form")
    places = np.array(_known_integers(list(map(of_one, indices.reshape(-1)))), np.int64).reshape(-1, depth).T
    ends = np.array([operand.shape[axis] for axis in axes]) - 1
    moved = np.moveaxis(operand, axes, range(depth))
    taken = moved[tuple(np.clip(places, 0, ends[:, None]))].reshape(*batch, *moved.shape[depth:])
    within = range(len(batch), taken.ndim)
    return np.moveaxis(taken, within, tuple(numbers.offset_dims)) if taken.ndim else taken


def _pad(parameters: dict[str, Any], operand: np.ndarray, value: np.ndarray) -> np.ndarray:
    config = parameters["padding_config"]
    if any(low < 0 or high < 0 or inner for low, high, inner in config):
        raise Untranslatable("padding of this form")
    shape = [low + size + high for (low, high, _), size in zip(config, operand.shape, strict=True)]
    out = np.empty(shape, object)
    out.reshape(-1)[:] = [value.item()] * out.size
    out[tuple(slice(low, low + size) for (low, _, _), size in zip(config, operand.shape, strict=True))] = operand
    return out


def _iota(parameters: dict[str, Any]) -> np.ndarray:
    shape, axis = parameters["shape"], parameters["dimension"]
    inner = [1] * len(shape)
    inner[axis] = shape[axis]
    return constants(np.broadcast_to(np.arange(shape[axis], dtype=parameters["dtype"]).reshape(inner), shape))


STRUCTURAL: dict[str, Callable[..., np.ndarray]] = {
    "broadcast_in_dim": _broadcast,
    "reshape": lambda parameters, operand: operand.reshape(parameters["new_sizes"]),
    "squeeze": lambda parameters, operand: np.squeeze(operand, tuple(parameters["dimensions"])),
    "expand_dims": lambda parameters, operand: np.expand_dims(operand, tuple(parameters["dimensions"])),
    "transpose": lambda parameters, operand: operand.transpose(parameters["permutation"]),
    "concatenate": lambda parameters, *operands: np.concatenate(operands, axis=parameters["dimension"]),
    "rev": lambda parameters, operand: np.flip(operand, tuple(parameters["dimensions"])),
    "slice": _slice,
    "dynamic_slice": _dynamic_slice,
    "dynamic_update_slice": _updated,
    "gather": _gather,
    "scatter": _scatter,
    "pad": _pad,
    "stack": lambda parameters, *operands: np.stack(operands, axis=parameters.get("axis", parameters.get("dimension", 0))),
    "iota": _iota,
    "platform_index": lambda parameters: constants(np.asarray(len(parameters["platforms"]) - 1, np.int32)),
}
