"""Reading formulas: from ``use ~ age + I(age^2) + urban`` to its terms.

formulaic does the algebra of the right side (``a*b``, ``(a+b)^2``, ``- 1``). Three habits of R are put in front of it:

- Inside a call, text is Python, where ``^`` means something else and is silently wrong for whole numbers; it is read as a
  power here, and the term keeps the name that was typed.
- The left side is one expression, as in R: ``y/n``, ``log(y)``, ``y > 3``, ``cbind(successes, failures)``.
- ``offset(...)`` terms are taken out of the design. ``.`` is every column that is not named on the left side.

`jaxglm.formula` makes arrays of what is read here.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from jaxglm.errors import listed

try:
    import formulaic
    from formulaic.formula import SimpleFormula
    from formulaic.parser import DefaultFormulaParser
    from formulaic.utils.code import sanitize_variable_names
except ImportError as error:
    raise ImportError("formulas need formulaic: pip install 'jaxglm-batched[tables]'") from error

NEVER_COLUMNS = {"np", "contr", "Treatment", "Poly", "Sum", "Helmert", "Diff"}  # names of values that calls take


@dataclass(frozen=True)
class Response:
    """The left side.

    text: as typed, or the column's name where it is one column; kind: one expression, or cbind(successes, failures);
    expressions: in Python's spelling, one or two; variables: the columns they use.
    """

    text: str
    kind: Literal["plain", "cbind"]
    expressions: tuple[str, ...]
    variables: tuple[str, ...]

    @property
    def is_column(self) -> bool:
        return self.variables == (self.text,)


@dataclass(frozen=True)
class Parsed:
    """A formula, taken apart.

    text: as typed; response: the left side, or None; right: the right side as typed; offsets: the insides of its
    offset(...) terms; variables: every column that is needed; design_variables, offset_variables: those of the design and
    of the offset alone; typed: what the user typed for terms that formulaic would print otherwise; terms, offset_terms:
    formulaic's own.
    """

    text: str
    response: Response | None
    right: str
    offsets: tuple[str, ...]
    variables: tuple[str, ...]
    design_variables: tuple[str, ...]
    offset_variables: tuple[str, ...]
    typed: tuple[tuple[str, str], ...]
    terms: Any
    offset_terms: Any


def parse(
    formula: str, responses: bool = False, *, columns: Sequence[str] | None = None, exclude: Collection[str] = ()
) -> Parsed:
    """Takes a formula apart.

    responses: the responses come from elsewhere, so that the formula must have no left side. columns: those of the table,
    which ``.`` needs; exclude: columns that ``.`` leaves out (groups, weights). ValueError: the formula cannot be read.

    >>> from jaxglm import formula
    >>> parsed = formula.parse("cbind(s, n - s) ~ age + I(age^2) + offset(log(t))")
    >>> parsed.response.expressions, parsed.offsets, parsed.variables
    (('s', 'n - s'), ('log(t)',), ('s', 'n', 'age', 't'))
    """
    if not isinstance(formula, str):
        raise TypeError(f"a formula is text, such as 'y ~ x', not {type(formula).__name__}.")
    at = _tilde(formula)
    left, right = formula[:at].strip(), formula[at + 1 :].strip()
    if responses and left:
        raise ValueError(f"formula {formula!r}: with responses= it has no left side: write '~ {right}'.")
    if not responses and not left:
        raise ValueError(f"formula {formula!r} has no response: write 'y ~ {right or 'x'}', or give responses=.")
    if not right:
        raise ValueError(f"formula {formula!r} has nothing on its right side: write '{left} ~ 1' for the intercept alone.")
    known = set(columns or ())
    response = _left(formula, left, known) if left else None
    terms, typed = _right(formula, at, columns, {*exclude, *(response.variables if response else ())})
    if response and any(str(term) == response.text for term in terms):
        raise ValueError(f"formula {formula!r}: the response {response.text!r} is on the right side too.")
    offset_terms = [term for term in terms if any(factor.expr.startswith("offset(") for factor in term.factors)]
    crossed = [str(term) for term in offset_terms if len(term.factors) > 1]
    if crossed:
        raise ValueError(f"formula {formula!r}: an offset has no coefficient, so it cannot interact: {crossed[0]}.")
    design = [term for term in terms if term not in offset_terms]
    if not design:
        raise ValueError(f"formula {formula!r} has no terms to estimate: write '1 +' for an intercept.")
    design_variables, offset_variables = _columns_of(design, known), _columns_of(offset_terms, known)
    return Parsed(
        text=formula,
        response=response,
        right=right,
        offsets=tuple(term.factors[0].expr[len("offset(") : -1] for term in offset_terms),
        variables=tuple(dict.fromkeys([*(response.variables if response else ()), *design_variables, *offset_variables])),
        design_variables=design_variables,
        offset_variables=offset_variables,
        typed=typed,
        terms=SimpleFormula(design, _ordering="none"),
        offset_terms=SimpleFormula(offset_terms, _ordering="none") if offset_terms else None,
    )


def required(parsed: Parsed) -> tuple[str, ...]:
    """The columns that a formula needs: rows that miss one of them are dropped before `materialise`."""
    return parsed.variables


# --- reading --------------------------------------------------------------------------------------------------------


def _outside(text: str) -> Iterator[tuple[int, str, int]]:
    """Position, character and depth of brackets of everything that is not inside quotes or backticks."""
    quote, depth, skip = "", 0, False
    for i, character in enumerate(text):
        if skip:
            skip = False
        elif quote:
            skip = character == "\\"
            quote = "" if character == quote else quote
        elif character in "\"'`":
            quote = character
        else:
            depth += (character in "([{") - (character in ")]}")
            yield i, character, depth


def _tilde(formula: str) -> int:
    found = [i for i, character, _ in _outside(formula) if character == "~"]
    if not found:
        raise ValueError(f"formula {formula!r} has no '~'. A formula is 'response ~ terms', such as 'y ~ x1 + x2'.")
    if len(found) > 1:
        raise ValueError(f"formula {formula!r} has {len(found)} '~' (characters {listed(i + 1 for i in found)}); it needs one.")
    return found[0]


def _powers(text: str) -> str:
    """Python's spelling of R's powers."""
    carets = {i for i, character, _ in _outside(text) if character == "^"}
    return "".join("**" if i in carets else character for i, character in enumerate(text))


def _left(formula: str, left: str, known: Collection[str]) -> Response:
    if re.fullmatch(r"`[^`]+`", left) or left in known or re.fullmatch(r"[^\W\d][\w.]*", left):
        name = left.strip("`")
        return Response(name, "plain", (left,), (name,))
    spelled = _powers(left)
    try:
        aliases: dict[str, str] = {}
        tree = ast.parse(sanitize_variable_names(spelled, {}, aliases), mode="eval").body
    except SyntaxError:
        raise ValueError(
            f"formula {formula!r}: the left side {left!r} is not an expression.{_hint(left)}{_backticks(left, known)}"
        ) from None
    if isinstance(tree, ast.Call) and isinstance(tree.func, ast.Name) and tree.func.id == "cbind":
        if len(tree.args) != 2 or tree.keywords:
            raise ValueError(f"formula {formula!r}: cbind takes two columns, successes and failures, not {len(tree.args)}.")
        pair = tuple(ast.unparse(argument) for argument in tree.args)
        for alias, name in aliases.items():
            pair = tuple(re.sub(rf"\b{re.escape(alias)}\b", f"`{name}`", part) for part in pair)
        return Response(left, "cbind", pair, _names(spelled, known))
    variables = _names(spelled, known)
    if not variables:
        raise ValueError(f"formula {formula!r}: the left side {left!r} names no column.")
    return Response(left, "plain", (spelled,), variables)


def _right(
    formula: str, at: int, columns: Sequence[str] | None, exclude: Collection[str]
) -> tuple[list[Any], tuple[tuple[str, str], ...]]:
    """formulaic's terms, and what was typed for those of its factors that contain a power."""
    text = " " * (at + 1) + formula[at + 1 :]  # as long as the formula, so that positions in errors are the user's
    try:
        tokens = [token for token in DefaultFormulaParser().get_tokens(text) if token.source_start is not None]
        if columns is None and any(token.token == "." for token in tokens):
            raise ValueError(f"formula {formula!r}: '.' stands for all other columns of a table, which is not given here.")
        pieces, starts, end = [], {}, 0
        for token in tokens:
            if token.kind.name == "PYTHON":
                source = text[token.source_start : token.source_end + 1]
                pieces += [text[end : token.source_start], _powers(source)]
                end = token.source_end + 1
                if _powers(source) != source:
                    starts[sum(map(len, pieces[:-1]))] = source.lstrip("{")
        spelled = "".join([*pieces, text[end:]])
        available = [name for name in columns or () if name not in exclude]
        context = {"__formulaic_variables_available__": available}
        formulaic.Formula.from_spec(text, context=context)  # first as typed, so that errors have the user's positions
        terms = formulaic.Formula.from_spec(spelled, context=context)
    except (formulaic.errors.FormulaicError, SyntaxError) as error:
        raise ValueError(_misread(formula, error) + _backticks(formula, columns or ())) from None
    if not isinstance(terms, SimpleFormula):
        raise ValueError(f"formula {formula!r}: a right side has one part, and '|' makes two.{_hint(formula[at:])}")
    factors = [factor for term in terms for factor in term.factors if factor.token is not None]
    typed = {factor.expr: starts[at] for factor in factors if (at := factor.token.source_start) in starts}
    return list(terms), tuple(sorted(typed.items(), key=lambda item: -len(item[0])))


def _misread(formula: str, error: Exception) -> str:
    """formulaic's complaint with the position that it marks, and what to do."""
    if isinstance(error, SyntaxError):
        return f"formula {formula!r}: the text inside one of its calls is not an expression ({error.msg}).{_hint(formula)}"
    reason, _, context = str(error).partition("\n\n")
    context = re.sub("\x1b\\[[0-9;]*m", "", context)
    start, end = context.find("⧛"), context.find("⧚") - 1
    where = "" if start < 0 else f" At character {start + 1}: {formula[start:end]!r}."
    reason = reason.replace("insuffient arguments", "too few arguments").replace("`", "'").rstrip(".")
    return f"formula {formula!r}: {reason}.{where}{_hint(formula, formula[start:end])}"


def _hint(text: str, marked: str = "") -> str:
    if "|" in text:
        return " Mixed models such as (1 | g) are not supported; by='g' fits one GLM a group."
    if "as.factor(" in text:
        return " Write factor(u) or C(u) for as.factor(u)."
    if re.search(r"[<>=!]", marked):
        return " Comparisons go inside I(...), such as I(x > 3)."
    return " Name columns alone: 'x', not 'data$x'." if "$" in text else ""


def _backticks(formula: str, columns: Iterable[str]) -> str:
    bare = [name for name in columns if not name.isidentifier() and name in re.sub("`[^`]*`", "", formula)]
    return f" Inside a call, put the column in backticks, `{bare[0]}`." if bare else ""


def _names(expression: str, known: Collection[str]) -> tuple[str, ...]:
    """The columns that a Python expression uses: names that are not called."""
    aliases: dict[str, str] = {}
    tree = ast.parse(sanitize_variable_names(expression, {}, aliases).strip(), mode="eval")
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    called = {id(call.func) for call in calls}
    quoted = [  # Q("a column")
        call.args[0].value
        for call in calls
        if isinstance(call.func, ast.Name) and call.func.id == "Q" and call.args and isinstance(call.args[0], ast.Constant)
    ]
    used = [node for node in ast.walk(tree) if isinstance(node, ast.Name) and id(node) not in called]
    found = [aliases.get(node.id, node.id) for node in sorted(used, key=lambda node: node.col_offset)]
    dotted = [ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
    for name in dotted:
        if name in known:
            raise ValueError(f"{name!r} inside a call reads as Python: put the column in backticks, `{name}`.")
    return tuple(dict.fromkeys(str(name) for name in [*found, *quoted] if name in known or name not in NEVER_COLUMNS))


def _columns_of(terms: Iterable[Any], known: Collection[str]) -> tuple[str, ...]:
    found = [name for term in terms for factor in term.factors for name in columns_of(factor, known)]
    return tuple(dict.fromkeys(found))


def columns_of(factor: Any, known: Collection[str]) -> tuple[str, ...]:
    """The columns that one of formulaic's factors uses."""
    if factor.eval_method.value == "lookup":
        return (factor.expr,)
    return _names(factor.expr, known) if factor.eval_method.value == "python" else ()
