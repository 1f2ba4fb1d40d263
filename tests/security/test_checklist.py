"""What the checklist names is there."""

import ast
from pathlib import Path

import pytest

from tests.security.checklist import CHECKLIST

TESTS = Path(__file__).parent.parent
NAMED = sorted({held for rows in CHECKLIST.values() for held in rows if "::" in held})


def test_every_requirement_is_there() -> None:
    assert list(CHECKLIST) == [f"S{number:02}" for number in range(1, 69)]
    assert all(CHECKLIST.values())
    assert all("::" in held or held.endswith(".") for rows in CHECKLIST.values() for held in rows)


@pytest.mark.parametrize("named", NAMED)
def test_what_holds_it_exists(named: str) -> None:
    file, _, name = named.partition("::")
    tree = ast.parse((TESTS / file).read_text())
    functions = [node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    tests = [one for one in functions if one.startswith("test_")]
    assert tests if name == "*" else name in tests
