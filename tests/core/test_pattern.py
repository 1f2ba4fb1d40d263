"""Names with one star."""

import pytest

from proxy.core.pattern import patterns


@pytest.mark.parametrize(
    ("name", "found"),
    [("gpt-4o", 1), ("gpt-4o-mini", 2), ("claude-x-latest", 3), ("claude--latest", 3), ("claude-latest", 4), ("", 4)],
)
def test_the_longest_pattern_first(name: str, found: int) -> None:
    made = patterns({"*": 4, "gpt-*": 1, "exact": 9, "gpt-*-mini": 2, "claude-*-latest": 3})
    assert [pattern.value for pattern in made] == [3, 2, 1, 4]
    assert next(pattern.value for pattern in made if pattern.matches(name)) == found
