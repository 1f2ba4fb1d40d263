"""YAML with positions: what resolves to what, where it stands, and what is refused."""

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from proxy.config.problem import Path
from proxy.config.read import DEPTH_MAX, NODES_MAX, read

PLAIN = [
    ("no", "no"),
    ("yes", "yes"),
    ("on", "on"),
    ("Off", "Off"),
    ("true", True),
    ("False", False),
    ("010", 10),
    ("0o17", 15),
    ("0x1F", 31),
    ("-7", -7),
    ("+7", 7),
    ("1_000", "1_000"),
    ("1:30", "1:30"),
    ("190:20:30", "190:20:30"),
    ("2026-07-30", "2026-07-30"),
    ("2026-07-30T10:00:00Z", "2026-07-30T10:00:00Z"),
    ("1.5", 1.5),
    (".5", 0.5),
    ("1e3", 1000.0),
    ("-.inf", float("-inf")),
    ("1.2.3", "1.2.3"),
    ("0b11", "0b11"),
    ("~", None),
    ("null", None),
    ("nil", "nil"),
    ("=", "="),
    ("5s", "5s"),
    ("ollama/llama3.2:3b", "ollama/llama3.2:3b"),
    ("'5'", "5"),
    ('"null"', "null"),
    ("!!str 5", "5"),
    ("! 5", "5"),
]


@pytest.mark.parametrize(("text", "expected"), PLAIN)
def test_scalars_resolve_by_the_core_schema_of_yaml_1_2(text: str, expected: object) -> None:
    document = read(f"a: {text}\n", "f")
    assert document.problems == ()
    assert document.data == {"a": expected}
    assert type(document.data["a"]) is type(expected)


def test_not_a_number_is_one() -> None:
    value = read("a: .nan\n", "f").data["a"]
    assert value != value  # noqa: PLR0124 - that is what it is


@pytest.mark.parametrize("text", ["", "\n", "# only a comment\n", "---\n", "\ufeff", "---\n...\n"])
def test_an_empty_file_is_fine(text: str) -> None:
    document = read(text, "f")
    assert document.data is None
    assert document.problems == ()


POSITIONS = """\
routes:
  voice:
    tiers: [openai/a, {target: groq/b}]
    "about": |
      two
      lines
é: ü
"""


@pytest.mark.parametrize(
    ("path", "key", "value"),
    [
        ((), None, (1, 1)),
        (("routes",), (1, 1), (2, 3)),
        (("routes", "voice"), (2, 3), (3, 5)),
        (("routes", "voice", "tiers"), (3, 5), (3, 12)),
        (("routes", "voice", "tiers", 0), None, (3, 13)),
        (("routes", "voice", "tiers", 1), None, (3, 23)),
        (("routes", "voice", "tiers", 1, "target"), (3, 24), (3, 32)),
        (("routes", "voice", "about"), (4, 5), (4, 14)),
        (("é",), (7, 1), (7, 4)),
    ],
)
def test_keys_and_values_have_places(path: Path, key: tuple[int, int] | None, value: tuple[int, int]) -> None:
    document = read(POSITIONS, "f")
    assert document.keys.get(path) == key
    assert document.values[path] == value


@pytest.mark.parametrize(
    ("path", "key_at", "value_at"),
    [
        (("routes", "voice", "enabled"), (2, 3), (2, 3)),
        (("routes", "voice", "tiers", 9), (3, 5), (3, 5)),
        (("budgets",), (1, 1), (1, 1)),
    ],
)
def test_what_is_missing_stands_where_it_is_missing_from(
    path: Path, key_at: tuple[int, int], value_at: tuple[int, int]
) -> None:
    document = read(POSITIONS, "f")
    assert document.key_at(path) == key_at
    assert document.value_at(path) == value_at


def test_the_first_of_duplicate_keys_stands_and_others_are_told() -> None:
    document = read("a: 1\nb: {c: 1, c: 2, c: 3}\na: 2\n", "f")
    assert document.data == {"a": 1, "b": {"c": 1}}
    assert [str(problem) for problem in document.problems] == [
        "f:2:11  b.c: this key is already set on line 2. Keep one",
        "f:2:17  b.c: this key is already set on line 2. Keep one",
        "f:3:1  a: this key is already set on line 1. Keep one",
    ]


def test_an_alias_means_its_anchor_again() -> None:
    document = read("a: &x [1, {b: 2}]\nc: *x\n", "f")
    assert document.problems == ()
    assert document.data == {"a": [1, {"b": 2}], "c": [1, {"b": 2}]}


REFUSED = [
    ("a: *x\n", "alias *x: its anchor is not defined before it"),
    ("a: &x {b: [*x]}\n", "alias *x: its anchor contains itself"),
    ("a: !!binary aGk=\n", "tag '!!binary' is not supported. Write the value plainly, without a tag"),
    ("a: !!set {b}\n", "tag '!!set' is not supported. Write the value plainly, without a tag"),
    ("a: !env B\n", "tag '!env' is not supported. Write the value plainly, without a tag"),
    ("? [a]\n: b\n", "a key must be text, not a list"),
    ("~: b\n", 'key null is not text. Quote it: "null"'),
    (f"a: {'9' * 5000}\n", "a number of 5000 digits is out of any range here. Quote it to mean text"),
    ("[" * 5000, f"nested deeper than {DEPTH_MAX} levels"),
    ("a: 'x", "not YAML: found unexpected end of stream while scanning a quoted scalar"),
    ("a: \x07\n", "not YAML: control characters are not allowed"),
    ("a: \ud800\n", "not YAML: a lone surrogate is no character"),
    ("a: 1\n--- b\n", "a second document begins here. Keep one in a file"),
]


@pytest.mark.parametrize(("text", "message"), REFUSED, ids=[message[:30] for _, message in REFUSED])
def test_refused(text: str, message: str) -> None:
    problems = read(text, "f").problems
    assert [problem.message for problem in problems] == [message]
    assert problems[0].line >= 1
    assert problems[0].column >= 1


def test_a_few_lines_of_aliases_do_not_fill_the_memory() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    document = read("\n".join(lines), "f")
    assert [problem.message for problem in document.problems] == [
        f"aliases expand to more than {NODES_MAX} values or {DEPTH_MAX} levels"
    ]


# JSON is YAML too, and what it holds is known without a second reader of YAML.
TEXT = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cf", "Cn", "Co", "Zl", "Zp")), max_size=8)
VALUES = st.recursive(
    TEXT | st.booleans() | st.none() | st.integers(-(10**9), 10**9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=12,
)


@given(st.dictionaries(TEXT, VALUES, max_size=4), st.sampled_from([None, 0, 1, 4]))
def test_every_key_and_value_stands_where_it_is_said_to(data: dict[str, Any], indent: int | None) -> None:
    def written(value: object) -> str:
        return json.dumps(value, ensure_ascii=False)

    text = json.dumps(data, ensure_ascii=False, indent=indent)
    document = read(text, "f")
    assert document.problems == ()
    assert document.data == data
    lines = text.split("\n")
    for path, (line, column) in document.keys.items():
        assert lines[line - 1][column - 1 :].startswith(written(path[-1]))
    for path, (line, column) in document.values.items():
        held: Any = data
        for step in path:
            held = held[step]
        expected = written(held)[:1] if isinstance(held, dict | list) else written(held)
        assert lines[line - 1][column - 1 :].startswith(expected)


@given(st.text(alphabet=st.characters(codec=None), max_size=60) | st.text("{}[]:,-#&*!|>'\"%@` \n\ta1?", max_size=40))
@example("? ? ?")
@example("%TAG ! tag:x,2000:\n--- !a b")
@example("a: |\n\t")
def test_no_text_makes_it_raise(text: str) -> None:
    document = read(text, "f")
    assert all(problem.line >= 1 and problem.column >= 1 for problem in document.problems)
