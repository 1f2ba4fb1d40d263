"""What is written is read back as it was, and looks as a person would write it."""

from typing import Any

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from proxy.config.read import read
from proxy.config.write import LINE_CHARS_MAX, rendered

texts = st.text(max_size=60)
scalars = texts | st.booleans() | st.integers(-(10**18), 10**18) | st.floats(allow_nan=False, allow_infinity=False)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=5) | st.dictionaries(texts, inner, max_size=5), max_leaves=30
)


@given(document=st.dictionaries(texts, values, max_size=5))
@example(document={"a": {"0o17": "1e3", "no": "~", "": "<<", "x: y": "- a", "\x7f\x85\u2028\ufeff": "#"}})
@example(document={"routes": {"a": {"tiers": [[["x" * 200], {"b": ["y" * 200]}], {}]}}})
def test_it_is_read_back_as_it_was(document: dict[str, Any]) -> None:
    made = read(rendered(document, ["a comment", ""]), "routes.yaml")
    assert made.problems == ()
    assert made.data == (document or None)


@given(text=texts)
def test_a_text_is_a_text_to_every_parser(text: str) -> None:
    written = rendered({"a": {"b": text}}, [])
    assert yaml.safe_load(written) == {"a": {"b": text}}


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("openai/gpt-4o", "openai/gpt-4o"),
        ("a/b:free", "a/b:free"),
        ("env:KEY", "env:KEY"),
        ("https://api.example.com:8000/v1", "https://api.example.com:8000/v1"),
        ("30s", "30s"),
        ("a: b", '"a: b"'),
        ("a:", '"a:"'),
        ("No", '"No"'),
        ("4o", '"4o"'),
        ("${A:-b}", '"${A:-b}"'),
        (r'a"\b', r'"a\"\\b"'),
        ("\x00\x85\U000e0001", r'"\x00\x85\U000e0001"'),
        (True, "true"),
        (None, "null"),
        (1e-7, "1e-07"),
        ({}, "{}"),
        ([], "[]"),
        ({"a": [1, {"b": "c"}]}, "{a: [1, {b: c}]}"),
    ],
)
def test_nothing_is_quoted_that_need_not_be(value: object, written: str) -> None:
    assert rendered({"x": {"k": value}}, []) == f"\nx:\n  k: {written}\n"


def test_routes_and_tiers_have_lines_of_their_own() -> None:
    document = {
        "providers": {"openai": {}, "gpu": {"like": "vllm", "base_url": "http://10.0.0.5:8000/v1"}},
        "routes": {
            "short": {"tiers": ["openai/gpt-4o"]},
            "long": {
                "tiers": ["openai/gpt-4o", {"targets": [{"target": "gpu/a", "weight": 1}], "balance": "weighted"}]
            },
            "timed": {"tiers": ["openai/gpt-4o"], "timeouts": {"total": "30s"}},
        },
        "default_route": "short",
    }
    assert (
        rendered(document, ["first"])
        == """\
# first

providers:
  openai: {}
  gpu: {like: vllm, base_url: http://10.0.0.5:8000/v1}

routes:
  short: {tiers: [openai/gpt-4o]}
  long:
    tiers:
      - openai/gpt-4o
      - targets: [{target: gpu/a, weight: 1}]
        balance: weighted
  timed:
    tiers:
      - openai/gpt-4o
    timeouts: {total: 30s}

default_route: short
"""
    )


def test_what_does_not_fit_a_line_gets_several() -> None:
    text = rendered({"a": {"b": [{"target": "x" * 60}, {"target": "y" * 60}], "c": "z" * 300}}, [])
    assert text.splitlines()[2:5] == ["  b:", f"    - {{target: {'x' * 60}}}", f"    - {{target: {'y' * 60}}}"]
    assert max(len(line) for line in text.splitlines() if "z" not in line) <= LINE_CHARS_MAX
