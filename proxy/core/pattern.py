"""Names with one `*` in them, and what they lead to."""

from collections.abc import Mapping
from typing import Generic, NamedTuple, TypeVar

_Value = TypeVar("_Value")


class Pattern(NamedTuple, Generic[_Value]):
    """A name with one ``*``, cut at it."""

    head: str
    tail: str
    value: _Value

    def matches(self, asked: str) -> bool:
        return (
            len(asked) >= len(self.head) + len(self.tail) and asked.startswith(self.head) and asked.endswith(self.tail)
        )


def patterns(names: Mapping[str, _Value]) -> tuple[Pattern[_Value], ...]:
    """The patterns among some names, longest first; equals keep the order of the file."""
    cut = ((name.partition("*"), value) for name, value in names.items() if "*" in name)
    made = (Pattern(head, tail, value) for (head, _, tail), value in cut)
    return tuple(sorted(made, key=lambda pattern: -len(pattern.head) - len(pattern.tail)))
