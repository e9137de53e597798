"""What depends on constants alone, computed when a program is written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from jaxglm.irls.lanes.code import DTYPES, Number, constant


def _shifted(a: Any, b: Any) -> Any:
    """Whole numbers with their bits moved down, zeros coming after them."""
    unsigned = np.dtype(f"u{a.dtype.itemsize}")
    return (a.view(unsigned) >> b.view(unsigned)).view(a.dtype)


FOLDED: dict[str, Callable[..., Any]] = {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide, "neg": np.negative, "eq": np.equal,
    "ne": np.not_equal, "lt": np.less, "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal, "sqrt": np.sqrt,
    "log": np.log, "exp": np.exp, "abs": np.abs, "and": np.bitwise_and, "or": np.bitwise_or, "not": np.invert,
    "log1p": np.log1p, "expm1": np.expm1, "shift_right_arithmetic": np.right_shift, "shift_right_logical": _shifted,
    "is_finite": np.isfinite, "sign": np.sign, "max": np.maximum, "min": np.minimum,
}  # fmt: skip


def folded(equation: Any, numbers: Sequence[Number], kind: str) -> Number:
    """The result of an equation, a number of this type, from known numbers."""
    name, values = equation.primitive.name, [number.constant for number in numbers]
    if name == "bitcast_convert_type":
        return constant(values[0].view(DTYPES[kind]), kind)
    if name == "integer_pow":
        return constant(values[0] ** equation.params["y"], kind)
    if name in FOLDED:
        with np.errstate(all="ignore"):
            return constant(FOLDED[name](*values), kind)
    with jax.ensure_compile_time_eval():
        return constant(np.asarray(equation.primitive.bind(*values, **equation.params)), kind)
