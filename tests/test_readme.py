"""The README's Python runs, and prints what the README says."""

import contextlib
import io
import re
from pathlib import Path

import pytest

import jaxglm

README = Path(__file__).parents[1] / "README.md"


def test_examples():
    text = README.read_text(encoding="utf-8")
    first, second = re.findall(r"```python\n(.*?)```", text, flags=re.S)
    expected = re.search(r"```\n(Generalized.*?)```", text, flags=re.S)
    printed, names = io.StringIO(), {}
    with contextlib.redirect_stdout(printed):
        exec(first, names)
    assert printed.getvalue() == expected[1]
    with pytest.warns(jaxglm.StatusWarning, match="36 separated"):
        exec(second, names)
    assert repr(names["fits"]) == re.search(r"# (<GLMResults.*>)", second)[1]


def test_the_commands_are_there():
    text = README.read_text(encoding="utf-8")
    commands = [line for line in text.splitlines() if line.startswith("python3 -m venv")]
    assert len(commands) == 2
    assert "jaxglm fit jaxglm/datasets/contraception.csv" in commands[0]
    assert "pytest" in commands[1]
