"""What a program needs, and what in it may differ by lane: two looks at a jaxpr before it is written.

Of what JAX traces, a good part is asked for by nobody: a link says all that is known of a mean, a family takes some of it.
And a loop has to know which of the numbers that it carries stay the same in all lanes before its body is written.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

CALLS = frozenset(["pjit", "jit", "closed_call", "core_call", "custom_jvp_call", "custom_vjp_call", "custom_vmap_call"])


def called(parameters: dict[str, Any]) -> Any:
    """The jaxpr of a call, maybe closed."""
    return next(parameters[key] for key in ("jaxpr", "call_jaxpr", "call") if key in parameters)


def is_anywhere(name: str, jaxpr: Any) -> bool:
    """Whether a call is the same for one fit, but not for a batch: `irls.seldom.anywhere`."""
    return name == "custom_vmap_call" and not jaxpr.eqns and list(jaxpr.invars) == list(jaxpr.outvars)


def needed(jaxpr: Any, wanted: Sequence[bool]) -> list[tuple[Any, list[bool]]]:
    """The equations without which what is wanted of a jaxpr cannot be had, and which of their results are needed."""
    used = {atom for atom, one in zip(jaxpr.outvars, wanted, strict=True) if one and not hasattr(atom, "val")}
    found = []
    for equation in reversed(jaxpr.eqns):
        results = [variable in used for variable in equation.outvars]
        if any(results):
            found.append((equation, results))
            used.update(atom for atom in equation.invars if not hasattr(atom, "val"))
    return found[::-1]


def differing(closed: Any, arguments: Sequence[bool]) -> list[bool]:
    """Which results of a closed jaxpr may differ by lane, if these arguments do."""
    jaxpr = getattr(closed, "jaxpr", closed)
    differ = {variable for variable, one in zip(jaxpr.invars, arguments, strict=True) if one}
    for equation in jaxpr.eqns:
        given = [not hasattr(atom, "val") and atom in differ for atom in equation.invars]
        results = _differing(equation, given)
        differ.update(variable for variable, one in zip(equation.outvars, results, strict=True) if one)
    return [not hasattr(atom, "val") and atom in differ for atom in jaxpr.outvars]


def carried_differing(
    parameters: dict[str, Any], of_cond: Sequence[bool], of_body: Sequence[bool], begin: Sequence[bool]
) -> list[bool]:
    """The same of what a loop carries, from what differs when it begins. Numbers with a fraction do, if only because sums over
    rows would; counters, as a rule, do not, unless lanes leave the loop one after the other."""
    cond, body = parameters["cond_jaxpr"], parameters["body_jaxpr"]
    differ = [one or np.issubdtype(aval.dtype, np.floating) for one, aval in zip(begin, body.out_avals, strict=True)]
    while True:
        leave = differing(cond, [*of_cond, *differ])[0]
        ends = differing(body, [*of_body, *differ])
        following = [one or end or leave for one, end in zip(differ, ends, strict=True)]
        if following == differ:
            return differ
        differ = following


def _differing(equation: Any, given: Sequence[bool]) -> Sequence[bool]:
    """The same of an equation. A choice leaves one number a lane."""
    name = equation.primitive.name
    if name in CALLS:
        inner = called(equation.params)
        return [False] * len(given) if is_anywhere(name, getattr(inner, "jaxpr", inner)) else differing(inner, given)
    if name == "while":
        n_cond, n_body = equation.params["cond_nconsts"], equation.params["body_nconsts"]
        parts = given[:n_cond], given[n_cond : n_cond + n_body], given[n_cond + n_body :]
        return carried_differing(equation.params, *parts)
    return [any(given) or name == "cond"] * len(equation.outvars)
