"""What lanes find out about a program before it is written: what is needed, and what may differ by lane."""

import jax
import jax.numpy as jnp
import pytest

from jaxglm.irls.lanes.flow import carried_differing, differing, needed
from jaxglm.irls.seldom import anywhere


def test_what_nobody_asks_for_is_left_out():
    jaxpr = jax.make_jaxpr(lambda x: (jnp.sin(x) + 1.0, jnp.cos(jnp.exp(x))))(1.0).jaxpr

    def names(*wanted):
        return [equation.primitive.name for equation, results in needed(jaxpr, wanted) if all(results)]

    assert names(True, True) == ["sin", "add", "exp", "cos"]
    assert names(True, False) == ["sin", "add"]
    assert names(False, True) == ["exp", "cos"]
    assert names(False, False) == []


def test_an_answer_for_all_lanes_differs_in_none():
    jaxpr = jax.make_jaxpr(lambda x, y: (x + y, anywhere(x > 0.0), jax.jit(lambda z: (z, y))(x)))(1.0, 2.0)
    assert differing(jaxpr, [True, False]) == [True, False, True, False]
    assert differing(jaxpr, [False, False]) == [False] * 4


@pytest.mark.parametrize(
    ("end", "step", "expected"),
    [
        (3, lambda i, n, x: (i + 1, n + 2, x * 2.0), [False, False, True]),  # counters, and a sum
        (3, lambda i, n, x: (i + 1, (x > 4.0).astype(int), x + 1.0), [False, True, True]),  # n follows x
        (3, lambda i, n, x: (n, (x > 4.0).astype(int), x + 1.0), [True, True, True]),  # so does i, a turn later
        (None, lambda i, n, x: (i + 1, n + 1, x + 1.0), [True, True, True]),  # lanes leave one after the other
    ],
)
def test_what_stays_the_same_in_a_loop(end, step, expected):
    def loop(x):
        def goes_on(state):
            return state[2] < 9.0 if end is None else state[0] < end

        return jax.lax.while_loop(goes_on, lambda state: step(*state), (0, 1, x))

    jaxpr = jax.make_jaxpr(loop)(1.0)
    (equation,) = [equation for equation in jaxpr.jaxpr.eqns if equation.primitive.name == "while"]
    assert carried_differing(equation.params, [], [], [False] * 3) == expected
    assert differing(jaxpr, [False]) == expected
