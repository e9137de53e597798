"""The exponential and the logarithm of a vector of numbers, and whatever else programs call that is not an instruction.

Both are written in arithmetic and operations on bits, for JAX, and so can be tested against NumPy like any function. Errors
are below one unit in the last place for exp and two for log, in the whole range of normal numbers.

exp: x = k log 2 + r with |r| <= log(2) / 2, where log 2 is cut in two so that k times its upper part is exact; a polynomial
of r, to whose exponent k is added. log: the argument is m 2^k with m between sqrt(1/2) and sqrt(2);
log m = f - f^2/2 + s (f^2/2 + R(s^2)) with f = m - 1 and s = f / (2 + f).

Sources: Tang, Table-driven implementation of the exponential function (1989), for the reduction; FreeBSD's msun (Ng 1993)
for the form of log; Muller, Elementary Functions (2016), chapter 11.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxglm.irls.fused.special import REWRITES as ELEMENTARY
from jaxglm.irls.fused.special import polynomial
from jaxglm.logarithms import log_factorial


@dataclass(frozen=True)
class _Format:
    """How a floating-point type is laid out, and what exp needs to know of it. terms: of its polynomial; top, bottom:
    beyond these results are infinite, or zero; upper, lower: log 2 in two parts."""

    integer: Any
    bits: int
    terms: tuple[float, ...]
    top: float
    bottom: float
    upper: float
    lower: float


# (e^r - 1 - r) / r^2 at Chebyshev's points: off by 0.1 units in the last place of e^r in double precision, 0.2 in single.
_EXP_DOUBLE = (
    0.5000000000000001, 0.16666666666666669, 0.041666666666624136, 0.008333333333330063, 0.001388888891720967,
    0.00019841269863050506, 2.4801521302241082e-05, 2.7557268464831627e-06, 2.7620085455018414e-07, 2.510038319586702e-08,
)  # fmt: skip
_EXP_SINGLE = (0.5, 0.16666576583158002, 0.041666554109346714, 0.008363246669753728, 0.0013926268052570573)
_DOUBLE = _Format(jnp.int64, 52, _EXP_DOUBLE, 709.7827, -708.396, 0.6931471803691238, 1.9082149292705877e-10)
_SINGLE = _Format(jnp.int32, 23, _EXP_SINGLE, 88.7228, -87.336, 0.693359375, -2.12194440054690583e-4)


def _format(x: Array) -> _Format:
    return _DOUBLE if x.dtype == jnp.float64 else _SINGLE


def exp(x: Array) -> Array:
    """e to the power of x; results that are no normal numbers are 0 or infinite."""
    form = _format(x)
    clipped = jnp.where(x < form.bottom, form.bottom, jnp.where(x > form.top, form.top, x))
    shift = 1.5 * 2.0**form.bits  # adding it rounds to a whole number, which is then in its last bits
    shifted = clipped * (1.0 / math.log(2.0)) + shift
    k = shifted - shift
    r = (clipped - k * form.upper) - k * form.lower
    power = 1.0 + (r + r * r * _estrin(form.terms, r))
    whole = lax.shift_left(lax.bitcast_convert_type(shifted, form.integer), jnp.full_like(x, form.bits, form.integer))
    found = lax.bitcast_convert_type(lax.bitcast_convert_type(power, form.integer) + whole, x.dtype)
    return jnp.where(x > form.top, jnp.inf, jnp.where(x < form.bottom, 0.0, found))


def _estrin(coefficients: Sequence[float], x: Array) -> Array:
    """A polynomial, that of the lowest power first, in pairs, so that little has to wait for something else."""
    terms: list[Any] = list(coefficients)
    while len(terms) > 1:
        pairs = [terms[i] + terms[i + 1] * x for i in range(0, len(terms) - 1, 2)]
        terms = pairs + terms[len(pairs) * 2 :]
        x = x * x
    return terms[0]


_LOG_DOUBLE = (
    6.666666666666735130e-01, 3.999999999940941908e-01, 2.857142874366239149e-01, 2.222219843214978396e-01,
    1.818357216161805012e-01, 1.531383769920937332e-01, 1.479819860511658591e-01,
)  # fmt: skip
_LOG_SINGLE = (0.66666662693, 0.40000972152, 0.28498786688, 0.24279078841)


def log(x: Array) -> Array:
    """The natural logarithm."""
    form = _format(x)
    tiny = x < float(jnp.finfo(x.dtype).tiny)
    scaled = jnp.where(tiny, x * 2.0**form.bits, x)
    pattern = lax.bitcast_convert_type(scaled, form.integer)
    root_half = lax.bitcast_convert_type(jnp.full_like(x, math.sqrt(0.5)), form.integer)
    k = lax.shift_right_arithmetic(pattern - root_half, jnp.full_like(pattern, form.bits))
    m = lax.bitcast_convert_type(pattern - lax.shift_left(k, jnp.full_like(k, form.bits)), x.dtype)
    exponent = k.astype(x.dtype) - jnp.where(tiny, float(form.bits), 0.0)
    f = m - 1.0
    s = f / (2.0 + f)
    square = s * s
    series = square * polynomial(_LOG_DOUBLE if x.dtype == jnp.float64 else _LOG_SINGLE, square)
    half = 0.5 * f * f
    found = exponent * form.upper - ((half - (s * (half + series) + exponent * form.lower)) - f)
    edge = jnp.where(x == 0.0, -jnp.inf, jnp.where(x > 0.0, x, jnp.nan))
    return jnp.where((x > 0.0) & (x < jnp.inf), found, edge)


def log_gamma(x: Array) -> Array:
    """The logarithm of the gamma function, for x > 0; NaN below."""
    return jnp.where(x > 1.0, log_factorial(jnp.where(x > 1.0, x - 1.0, 0.0)), log_factorial(x) - jnp.log(x))


# What a program calls instead of a primitive: functions of its parameters and operands, each one number.
REWRITES: Mapping[str, Callable[..., Any]] = {
    **{name: ELEMENTARY[name] for name in ("atan", "atan2", "erf", "erfc", "expm1", "integer_pow", "log1p", "logistic", "pow")},
    **{name: ELEMENTARY[name] for name in ("sign", "clamp", "add_any", "square", "tan", "polynomial")},
    "exp": lambda parameters, x: exp(x),
    "log": lambda parameters, x: log(x),
    "lgamma": lambda parameters, x: log_gamma(x),
    "tanh": lambda parameters, x: jnp.sign(x) * _tanh(jnp.abs(x)),
    "rsqrt": lambda parameters, x: 1.0 / jnp.sqrt(x),
    "cbrt": lambda parameters, x: jnp.sign(x) * jnp.exp(jnp.log(jnp.abs(x)) / 3.0),
    "exp2": lambda parameters, x: jnp.exp(x * math.log(2.0)),
}


def _tanh(x: Array) -> Array:
    growth = jnp.expm1(jnp.minimum(2.0 * x, 50.0))
    return growth / (growth + 2.0)


def jaxpr_of(name: str, parameters: Mapping[str, Any], operands: list[Any]) -> Any:
    """The program of a rewritten primitive, for single numbers of these types."""
    shapes = [jax.ShapeDtypeStruct((), dtype) for dtype in operands]
    return jax.make_jaxpr(lambda *values: REWRITES[name](parameters, *values))(*shapes)
