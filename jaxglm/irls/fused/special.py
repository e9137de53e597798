"""Special functions written with what a kernel has: arithmetic, comparisons, selection, exp, log and sqrt.

A kernel compiler knows few functions. Everything else that families and links use is rewritten here, accurate to a few
units in the last place in float64 and float32, by the usual devices: a series where plain arithmetic cancels, and plain
arithmetic where it does not. The only subtle one is the complementary error function. Its logarithm falls like -x^2, so
it is written as exp(-x^2) times a function that hardly varies,

    exp(x^2) erfc(x) (1 + 2 x) = P((x - 3.5) / (x + 3.5)),    x >= 0,

with P a polynomial (Shepherd and Laframboise 1981; these coefficients are those of its Chebyshev interpolant), and x is
cut in two before squaring, since the rounding error of x^2 would be multiplied by x^2.

Sources: Shepherd and Laframboise, Chebyshev approximation of (1 + 2x) exp(x^2) erfc x in 0 <= x < infinity, Mathematics
of Computation 36 (1981); Goldberg, What every computer scientist should know about floating-point arithmetic (1991),
theorem 4, for the idea of `log1p`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
from jax import Array, lax

PIVOT = 3.5
SCALED_ERFC = (
    1.2423492448711544,
    -0.1400091801376197,
    -0.010555596332221669,
    0.09751909515328706,
    -0.11508959816003075,
    0.08798315382403678,
    -0.04882332583088402,
    0.019099330953271165,
    -0.004215019879774186,
    -0.0003022679534333239,
    0.0005643842668705102,
    -0.00012151212091980101,
    -4.2781739959539994e-05,
    2.4260300984917994e-05,
    2.3273309537791425e-06,
    -3.814012584490695e-06,
    -4.309237398316666e-08,
    6.014823849950426e-07,
    -8.611571571113718e-09,
    -9.64004253144383e-08,
    6.651894382376532e-10,
    1.3624442778701048e-08,
    6.040390099342991e-11,
    -1.1656687889203665e-09,
)


def polynomial(coefficients: Sequence[Any], x: Array) -> Array:
    """The polynomial with these coefficients, that of the lowest power first."""
    total = coefficients[-1] + jnp.zeros_like(x)
    for coefficient in reversed(coefficients[:-1]):
        total = total * x + coefficient
    return total


def expm1(x: Array) -> Array:
    """exp(x) - 1."""
    near = jnp.abs(x) < 0.35
    small = jnp.where(near, x, 0.0)
    series = polynomial([1.0 / math.factorial(k) for k in range(1, 15)], small)
    return jnp.where(near, small * series, jnp.exp(x) - 1.0)


def log1p(x: Array) -> Array:
    """log(1 + x): the logarithm of the rounded sum, and the derivative's share of what rounding took from it."""
    total = 1.0 + x
    inside = (total > 0.0) & (total < math.inf)
    lost = (x - (total - 1.0)) / jnp.where(inside, total, 1.0)
    return jnp.log(total) + jnp.where(inside, lost, 0.0)


def logistic(x: Array) -> Array:
    """1 / (1 + exp(-x)), without overflow."""
    decay = jnp.exp(-jnp.abs(x))
    return jnp.where(x >= 0.0, 1.0, decay) / (1.0 + decay)


def power(x: Array, exponent: Array) -> Array:
    """x ** exponent for x >= 0, NaN for x < 0 unless the exponent is 0."""
    exponent = lax.convert_element_type(exponent, x.dtype)
    return jnp.where(exponent == 0.0, 1.0, jnp.exp(exponent * jnp.log(x)))


def integer_power(x: Array, exponent: int) -> Array:
    """x ** exponent by repeated multiplication."""
    if exponent < 0:
        return 1.0 / integer_power(x, -exponent)
    total = None
    while exponent:
        if exponent % 2:
            total = x if total is None else total * x
        exponent //= 2
        if exponent:
            x = x * x
    return jnp.ones_like(x) if total is None else total


def _gaussian(x: Array) -> Array:
    """exp(-x^2) for moderate x >= 0, without losing the digits that rounding takes from x^2 in float64."""
    if x.dtype != jnp.float64:
        return jnp.exp(-x * x)
    high = lax.convert_element_type(lax.convert_element_type(x, jnp.float32), jnp.float64)
    rest = (x - high) * (x + high)
    return jnp.exp(-high * high) * polynomial([1.0, -1.0, 0.5, -1.0 / 6.0], rest)


def erfc(x: Array) -> Array:
    """The complementary error function."""
    size = jnp.minimum(jnp.abs(x), 30.0)  # beyond, it is zero
    scaled = polynomial(SCALED_ERFC, (size - PIVOT) / (size + PIVOT))
    tail = _gaussian(size) * scaled / (1.0 + 2.0 * size)
    return jnp.where(x >= 0.0, tail, 2.0 - tail)


def erf(x: Array) -> Array:
    """The error function."""
    near = jnp.abs(x) < 1.0
    small = jnp.where(near, x, 0.0)
    terms = [2.0 / math.sqrt(math.pi) * (-1.0) ** k / (math.factorial(k) * (2 * k + 1)) for k in range(20)]
    return jnp.where(near, small * polynomial(terms, small * small), 1.0 - erfc(x))


def arctan2(y: Array, x: Array) -> Array:
    """The angle of the point (x, y). Reduced to [0, 1] by symmetry, to [0, tan(pi / 12)] by the addition theorem of the
    tangent at pi / 6, and from there by the series."""
    width, height = jnp.abs(x), jnp.abs(y)
    steep = height > width
    low, high = jnp.where(steep, width, height), jnp.where(steep, height, width)
    ratio = low / jnp.where(high > 0.0, high, 1.0)
    ratio = jnp.where((low == high) & (high > 0.0), 1.0, ratio)
    turned = ratio > math.tan(math.pi / 12.0)
    root = math.sqrt(3.0)
    reduced = jnp.where(turned, (root * ratio - 1.0) / (root + ratio), ratio)
    angle = reduced * polynomial([(-1.0) ** k / (2 * k + 1) for k in range(16)], reduced * reduced)
    angle = jnp.where(turned, math.pi / 6.0 + angle, angle)
    angle = jnp.where(steep, math.pi / 2.0 - angle, angle)
    angle = jnp.where(x < 0.0, math.pi - angle, angle)
    return jnp.where(y < 0.0, -angle, angle)


def sign(x: Array) -> Array:
    """-1, 0 or 1; NaN for NaN."""
    one = jnp.ones_like(x)
    return jnp.where(x > 0.0, one, jnp.where(x < 0.0, -one, x))


def select(which: Array, *cases: Array) -> Array:
    """The case whose number is `which`; for two cases `which` may be a flag."""
    if which.dtype == jnp.bool_:
        return jnp.where(which, cases[1], cases[0])
    chosen = cases[-1]
    for number in range(len(cases) - 2, -1, -1):
        chosen = jnp.where(which == number, cases[number], chosen)
    return chosen


def _finite(x: Array) -> Array:
    return jnp.abs(x) < math.inf


# What a kernel calls instead of a primitive: functions of its parameters and operands.
REWRITES: Mapping[str, Callable[..., Any]] = {
    "add_any": lambda parameters, x, y: x + y,
    "atan": lambda parameters, x: arctan2(x, jnp.ones_like(x)),
    "atan2": lambda parameters, y, x: arctan2(y, x),
    "clamp": lambda parameters, low, x, high: jnp.minimum(jnp.maximum(x, low), high),
    "erf": lambda parameters, x: erf(x),
    "erfc": lambda parameters, x: erfc(x),
    "expm1": lambda parameters, x: expm1(x),
    "integer_pow": lambda parameters, x: integer_power(x, parameters["y"]),
    "is_finite": lambda parameters, x: _finite(x),
    "log1p": lambda parameters, x: log1p(x),
    "logistic": lambda parameters, x: logistic(x),
    "polynomial": lambda parameters, x, *coefficients: polynomial(coefficients, x),
    "pow": lambda parameters, x, y: power(x, y),
    "select_n": lambda parameters, which, *cases: select(which, *cases),
    "sign": lambda parameters, x: sign(x),
    "square": lambda parameters, x: x * x,
    "tan": lambda parameters, x: jnp.sin(x) / jnp.cos(x),
}
