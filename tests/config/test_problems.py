"""Golden texts: what a person is told about each way to get the routes file wrong, all of it at once."""

import re
from pathlib import Path

import pytest

from proxy.config.problem import ConfigError, dotted
from proxy.config.resolve import parse

# Blocks of `=== name`, the file, `=== told`, and a line for each problem without the file's name.
BLOCKS = re.findall(
    r"^=== ([^\n]+)\n(.*?)^=== told\n(.*?)\n\n",
    (Path(__file__).parent / "broken.golden").read_text("utf-8"),
    re.MULTILINE | re.DOTALL,
)


def test_the_golden_file_is_read_whole() -> None:
    assert len(BLOCKS) == 39


@pytest.mark.parametrize(("text", "told"), [block[1:] for block in BLOCKS], ids=[block[0] for block in BLOCKS])
def test_every_problem_is_told_with_its_place(text: str, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text, "routes.yaml", {})
    assert [str(problem) for problem in caught.value.problems] == [f"routes.yaml:{line}" for line in told.split("\n")]


def test_no_credential_is_ever_quoted() -> None:
    secrets = """
providers:
  openai: {api_key: sk-very-secret}
  groq: {api_key: [sk-very-secret]}
  a: {like: openai, base_url: "https://u:sk-very-secret@example.com/v1"}
  b: {like: openai, base_url: "https://example.com/v1?key=sk-very-secret"}
  c: {like: openai, base_url: "${SECRET}/v1"}
"""
    with pytest.raises(ConfigError) as caught:
        parse(secrets, "routes.yaml", {"SECRET": "http://sk-very-secret@example.com"})
    assert len(caught.value.problems) == 5
    assert "very-secret" not in str(caught.value)


def test_problems_stand_in_the_order_of_the_file_and_once() -> None:
    with pytest.raises(ConfigError) as caught:
        parse("routes: {z: {tiers: [a/b]}, a: {tiers: [a/b]}}\nbudgets: 1\n", "routes.yaml", {})
    places = [(problem.line, problem.column) for problem in caught.value.problems]
    assert places == sorted(places)
    assert len(set(caught.value.problems)) == len(caught.value.problems) == 3


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ((), ""),
        (("routes", "voice", "tiers", 1), "routes.voice.tiers[1]"),
        (("models", "gpt-*"), 'models["gpt-*"]'),
        (("models", "a.b", "c"), 'models["a.b"].c'),
    ],
)
def test_a_path_reads_as_a_person_writes_it(path: tuple[str | int, ...], expected: str) -> None:
    assert dotted(path) == expected
