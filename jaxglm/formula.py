"""Formulas: from ``use ~ age + I(age^2) + urban`` and a table to the arrays of a GLM.

`parse` reads the formula (see `jaxglm.formula_parsing`), `materialise` makes the arrays, once for the whole table. Only
these two modules know formulaic. What the arrays hold is R's, with a few rules that are worth knowing:

- Numbers are float64, so that whole numbers cannot overflow; booleans are 0 and 1.
- Text and categories are coded by treatment contrasts (ordered ones too, unlike R). Levels are sorted, or in the order of
  their categories; those that do not occur in the table are dropped. C(x) or factor(x) makes a category of numbers.
- A response that is text, boolean or a category has two levels, the first of which is failure.
- Transforms that learn something from the data (``poly``, ``bs``, ``scale``, the levels) learn it from the whole table,
  and a `Spec` applies what was learned to new data. There an unseen level is an error, and a missing value makes a row of
  NaN: neither is ever taken for the reference level.
- What a transform makes infinite or NaN (the log of a negative number) stays so: it is for the fit to judge.

Formulas may contain any Python expression, and a saved `Spec` is a pickle: use only those that you trust.
"""

from __future__ import annotations

import functools
import pickle
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxglm import frames
from jaxglm.errors import listed
from jaxglm.formula_parsing import Parsed, Response, parse, required
from jaxglm.terms import Term

try:
    import formulaic
    import pandas
    from formulaic.errors import DataMismatchWarning
    from formulaic.materializers.types import FactorValues
    from formulaic.transforms import TRANSFORMS
    from formulaic.utils.layered_mapping import LayeredMapping
    from formulaic.utils.stateful_transforms import stateful_eval, stateful_transform
except ImportError as error:
    raise ImportError("formulas need formulaic: pip install 'jaxglm-batched[tables]'") from error

__all__ = ["Materialised", "Parsed", "Response", "Spec", "materialise", "parse", "required"]

ROLE = "the formula"


@dataclass(frozen=True)
class Materialised:
    """The arrays of a formula.

    X: (N, p) float64; names: its p columns; y: (N,) float64, or None without a left side; trials: (N,) for cbind, where y
    is the proportion of successes, else None; levels: the labels of y = 0 and y = 1 where the response was text, boolean or
    a category, else None; offset: (N,) or None; spec: makes the design of new data; response: the left side as typed.
    """

    X: np.ndarray
    names: tuple[str, ...]
    y: np.ndarray | None
    trials: np.ndarray | None
    levels: tuple[str, str] | None
    offset: np.ndarray | None
    spec: Spec
    response: str | None


@dataclass(frozen=True)
class Spec:
    """What a formula learned from a table: enough to make the same columns from another one. It pickles.

    formula: as typed; names: the columns of the design; levels: each variable's levels in their order, None for numbers;
    variables, offset_variables: the columns that `design` and `offset` need, the response never. terms: as typed, with the
    columns that they make.
    """

    formula: str
    names: tuple[str, ...]
    levels: Mapping[str, tuple[Any, ...] | None]
    variables: tuple[str, ...]
    offset_variables: tuple[str, ...]
    design_state: Any
    offset_state: Any
    terms: tuple[Term, ...] = ()

    def design(self, data: Any) -> np.ndarray:
        """X (N, p) float64 of a table; rows with a missing value are NaN.

        ValueError: a column is missing, or a level was not in the table of the fit. TypeError: text where numbers were.
        """
        return self._redone(data, self.variables, self.design_state, len(self.names))

    def offset(self, data: Any) -> np.ndarray | None:
        """The sum of the formula's offset(...) terms, (N,), or None where it has none."""
        if self.offset_state is None:
            return None
        width = len(self.offset_state.column_names)
        return self._redone(data, self.offset_variables, self.offset_state, width).sum(axis=1)

    def _redone(self, data: Any, names: tuple[str, ...], state: Any, width: int) -> np.ndarray:
        table = frames.frame(data, "new data")
        if width == 0:
            return np.zeros((len(table), 0))
        here = ~frames.missing(table, names, ROLE)
        X = np.full((len(table), width), np.nan)
        if here.any():
            X[here] = self.made(state, covariate_table(frames.keep(table, here), names, self.levels)[0])
        return X

    def made(self, state: Any, covariates: pandas.DataFrame) -> np.ndarray:
        """The columns that a state of this spec makes of covariates (`covariate_table`)."""
        with _told(self.formula):
            return np.asarray(state.get_model_matrix(covariates, context=_context(len(covariates))))

    def to_bytes(self) -> bytes:
        """A pickle of this."""
        return pickle.dumps(self)

    @staticmethod
    def from_bytes(data: bytes) -> Spec:
        """A spec from `to_bytes`. Unpickling runs code: only from those that you trust."""
        spec = pickle.loads(data)
        if not isinstance(spec, Spec):
            raise ValueError(f"these bytes hold a {type(spec).__name__}, not a Spec.")
        return spec


def materialise(parsed: Parsed, frame: frames.Frame) -> Materialised:
    """The arrays of a formula on a table whose rows have no missing values in `required(parsed)`.

    ValueError: no rows, missing values, a response without exactly two levels, a covariate with one level, a transform that
    fails, equal names. TypeError: dates or mixed types where numbers, text or categories are needed.

    >>> from jaxglm import formula, frames
    >>> table = frames.frame({"y": [0, 1, 1], "age": [20, 30, 40], "u": ["a", "b", "a"]})
    >>> made = formula.materialise(formula.parse("y ~ I(age^2) + u"), table)
    >>> made.names, made.X[0].tolist()
    (('Intercept', 'I(age^2)', 'u[T.b]'), [1.0, 400.0, 0.0])
    """
    if len(frame) == 0:
        raise ValueError(f"formula {parsed.text!r}: no rows are left. Every row misses a value in {listed(parsed.variables)}.")
    absent = int(frames.missing(frame, parsed.variables, ROLE).sum())
    if absent:
        raise ValueError(f"formula {parsed.text!r}: {absent} rows have missing values; leave them out first (frames.keep).")
    y, trials, labels = _response(parsed.response, frame, parsed.text) if parsed.response else (None, None, None)
    covariates, levels = covariate_table(frame, parsed.design_variables)
    X, design = _matrix(parsed.terms, covariates, parsed.text)
    names = tuple(_as_typed(parsed, name) for name in design.column_names)
    _check(parsed.text, names, design, levels)
    offset = offset_state = None
    if parsed.offset_terms is not None:
        table, more = covariate_table(frame, parsed.offset_variables)
        parts, offset_state = _matrix(parsed.offset_terms, table, parsed.text)
        offset, levels = parts.sum(axis=1), {**levels, **more}
    variables = (parsed.design_variables, parsed.offset_variables)
    spec = Spec(parsed.text, names, levels, *variables, design, offset_state, _terms(parsed, design))
    return Materialised(X, names, y, trials, labels, offset, spec, parsed.response.text if parsed.response else None)


def _as_typed(parsed: Parsed, text: str) -> str:
    return functools.reduce(lambda name, pair: name.replace(*pair), parsed.typed, text)


def _terms(parsed: Parsed, design: Any) -> tuple[Term, ...]:
    """The terms of a design, in the order of the formula; the intercept has no factors."""
    made = []
    for term, columns in design.term_indices.items():
        factors = [_as_typed(parsed, factor.expr) for factor in term.factors if factor.eval_method.value != "literal"]
        name = _as_typed(parsed, str(term)) if factors else "Intercept"
        made.append(Term(name, tuple(columns), frozenset(factors)))
    return tuple(made)


def _check(text: str, names: tuple[str, ...], design: Any, levels: Mapping[str, tuple[Any, ...] | None]) -> None:
    for row in design.structure:
        if not row.columns:
            single = [f"{name!r} only {known[0]!r}" for name, known in levels.items() if known is not None and len(known) == 1]
            seen = f" (of {listed(single)})" if single else ""
            raise ValueError(f"formula {text!r}: the term {str(row.term)!r} has one level{seen}, so it has no effect. Drop it.")
    if not names:
        raise ValueError(f"formula {text!r} makes no columns.")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"formula {text!r} makes two columns of the same name: {listed(twice)}. Rename a column of the table.")


# --- covariates -----------------------------------------------------------------------------------------------------


def covariate_table(
    frame: frames.Frame, names: Iterable[str], learned: Mapping[str, tuple[Any, ...] | None] | None = None
) -> tuple[pandas.DataFrame, dict[str, tuple[Any, ...] | None]]:
    """The columns as formulaic gets them, whatever table they came from: float64, or categoricals of the levels observed
    (or learned before), and those levels. Being pandas' without the user's index, the same state fits any later table."""
    columns: dict[str, Any] = {}
    levels: dict[str, tuple[Any, ...] | None] = {}
    for name in names:
        if learned is not None:
            known = learned[name]
        else:
            holds = frames.content(frame, name, ROLE)
            if holds in ("time", "other"):
                what = "dates or times" if holds == "time" else f"{frame[name].dtype}"
                raise TypeError(f"{ROLE}: column {name!r} holds {what}. Make it a number (days since ...) or text first.")
            known = () if holds in ("text", "category") else None
        if known is None:
            columns[name], levels[name] = frames.numeric(frame, name, ROLE), None
            continue
        (key,) = frames.keys(frame, [name], ROLE)
        codes, found = key.codes, tuple(key.levels.tolist())
        if learned is not None:
            place = {level: i for i, level in enumerate(known)}
            unseen = [level for level in found if level not in place]
            if unseen:
                raise ValueError(
                    f"column {name!r} has levels that the fit has not seen: {listed(map(repr, unseen))}. "
                    f"It saw {listed(map(repr, known), 10)}."
                )
            codes, found = np.array([place[level] for level in found])[codes], known
        columns[name], levels[name] = pandas.Categorical.from_codes(codes, categories=list(found)), found
    return pandas.DataFrame(columns, index=pandas.RangeIndex(len(frame)), copy=False), levels


def _matrix(terms: Any, table: pandas.DataFrame, text: str) -> tuple[np.ndarray, Any]:
    """The design of formulaic's terms, (N, p) float64, and its state."""
    with _told(text):
        made = formulaic.model_matrix(
            terms, table, context=_context(len(table)), materializer="pandas", output="numpy", na_action="ignore"
        )
    return np.asarray(made, dtype=np.float64), made.model_spec


@contextmanager
def _told(text: str) -> Iterator[None]:
    """Numpy stays silent about log(0), whose result speaks for itself; failures name the formula."""
    try:
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("error", DataMismatchWarning)
            yield
    except DataMismatchWarning as warning:
        found = re.search(r"\{.*\}", str(warning))
        levels = found[0].strip("{}") if found else str(warning)
        raise ValueError(f"formula {text!r}: a category has levels that are not among its own: {levels}.") from None
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).split("\n")[0].replace("`", "'")
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"formula {text!r}: {reason}") from error


def _factor(data: Any, *args: Any, **options: Any) -> Any:
    """C(x): whole numbers are labelled as such, C(year)[T.2001]."""
    values = data.__wrapped__ if isinstance(data, FactorValues) else data
    dtype = getattr(values, "dtype", None)
    if isinstance(dtype, np.dtype) and dtype.kind == "f":
        numbers = np.asarray(values)
        if (numbers == np.round(numbers)).all() and (np.abs(numbers) < 2.0**53).all():
            data = pandas.Series(numbers.astype(np.int64))
    return TRANSFORMS["C"](data, *args, **options)


@stateful_transform
def _poly(x: Any, degree: int = 1, raw: bool = False, _state: Any = None) -> Any:
    """poly(x, degree), which needs more distinct values than its degree; formulaic would answer with noise."""
    if not _state and len(np.unique(np.asarray(x))) <= degree:
        raise ValueError(f"poly of degree {degree} needs more than {degree} distinct values")
    return TRANSFORMS["poly"](x, degree, raw=raw, _state=_state)


def _offset(n: int, values: Any) -> np.ndarray:
    return np.broadcast_to(np.asarray(values, dtype=np.float64), (n,))


FUNCTIONS: dict[str, Callable[..., Any]] = {
    **{name: getattr(np, name) for name in ("sqrt", "abs", "exp", "expm1", "log", "log1p", "log2", "log10", "sin", "cos")},
    "exp10": lambda x: np.power(10.0, x),  # formulaic's raises x to the 10th power
    "C": _factor,
    "factor": _factor,
    "poly": _poly,
}


def _context(n: int) -> dict[str, Callable[..., Any]]:
    return {**FUNCTIONS, "offset": functools.partial(_offset, n)}


# --- the response ---------------------------------------------------------------------------------------------------


def _response(
    response: Response, frame: frames.Frame, text: str
) -> tuple[np.ndarray, np.ndarray | None, tuple[str, str] | None]:
    """y, trials or None, labels or None."""
    if response.is_column:
        holds = frames.content(frame, response.text, "the response")
        if holds in ("time", "other"):
            raise TypeError(
                f"the response {response.text!r} holds {frame[response.text].dtype}; it must be numbers or two levels."
            )
        if holds == "number":
            return frames.numeric(frame, response.text, "the response"), None, None
        (key,) = frames.keys(frame, [response.text], "the response")
        return _two_levels(key, boolean=holds == "boolean")
    columns, _ = covariate_table(frame, response.variables)
    context = LayeredMapping(dict(columns.items()), FUNCTIONS, TRANSFORMS)
    with _told(text):
        values = [stateful_eval(expression, context, None, None, None) for expression in response.expressions]
    if response.kind == "cbind":
        successes, failures = (_numbers(value, response.text, len(frame)) for value in values)
        return *_proportions(successes, failures), None
    value = values[0].__wrapped__ if isinstance(values[0], FactorValues) else values[0]
    dtype = getattr(value, "dtype", None)
    boolean = isinstance(dtype, np.dtype) and dtype.kind == "b"
    if boolean or isinstance(values[0], FactorValues) or isinstance(dtype, pandas.CategoricalDtype):
        (key,) = frames.keys(frames.frame({response.text: value}, "the response"), [response.text], "the response")
        return _two_levels(key, boolean=boolean)
    return _numbers(value, response.text, len(frame)), None, None


def _numbers(value: Any, text: str, n: int) -> np.ndarray:
    try:
        y = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        raise TypeError(f"the response {text!r} is not made of numbers.") from None
    if y.shape != (n,):
        raise ValueError(f"the response {text!r} has shape {y.shape}; it needs one number a row, ({n},).")
    return y


def _proportions(successes: np.ndarray, failures: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Proportions and trials of two counts; a negative count makes both NaN, which no fit takes for an absent row."""
    trials = successes + failures
    y = np.divide(successes, trials, out=np.zeros_like(trials), where=trials != 0)
    wrong = (successes < 0) | (failures < 0)
    return np.where(wrong, np.nan, y), np.where(wrong, np.nan, trials)


def _two_levels(key: frames.Key, boolean: bool) -> tuple[np.ndarray, None, tuple[str, str]]:
    """0 for the first level, failure, and 1 for the second. Declared levels count even if only one of them occurs."""
    declared = [False, True] if boolean else list(key.declared if key.declared is not None else ())
    levels = declared if len(declared) == 2 else key.levels.tolist()
    if len(levels) != 2:
        how = "only one level" if len(levels) == 1 else f"{len(levels)} levels"
        raise ValueError(
            f"the response {key.name!r} has {how} ({listed(map(repr, levels))}) in the rows that are used; "
            "a response of text or categories needs two: failure, then success."
        )
    values = np.array([levels.index(level) for level in key.levels.tolist()], dtype=np.float64)
    return values[key.codes], None, (str(levels[0]), str(levels[1]))
