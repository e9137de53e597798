"""Hints for error messages: what the user probably meant.

An error says what happened, where, why usually, and what to do. The last part is better when it is made from facts.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UnknownGroupError(KeyError):
    """There is no group with this key. Unlike KeyError, it prints its message as it is."""

    def __str__(self) -> str:
        return str(self.args[0])


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """' Did you mean ...?' for the nearest known word, or '' when none is near.

    >>> from jaxglm.errors import did_you_mean
    >>> did_you_mean("possion", ["poisson", "gamma"])
    " Did you mean 'poisson'?"
    """
    near = difflib.get_close_matches(str(word), [str(k) for k in known], n=1)
    if not near:
        lowered = {str(k).lower(): str(k) for k in known}
        near = [lowered[str(word).lower()]] if str(word).lower() in lowered else []
    return f" Did you mean {near[0]!r}?" if near else ""


def listed(items: Iterable[object], most: int = 5) -> str:
    """The first few items, and how many more there are.

    >>> from jaxglm.errors import listed
    >>> listed(range(8))
    '0, 1, 2, 3, 4 and 3 more'
    """
    items = list(items)
    text = ", ".join(str(item) for item in items[:most])
    return text + (f" and {len(items) - most} more" if len(items) > most else "")
