"""Names by a pattern with any number of ``*``, each for any run of characters; ``\\*`` and ``\\\\`` are literal.

No regular expression: a pattern comes by the admin API, and each part is found by one linear search, so that no pattern
takes long.
"""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Glob:
    """Two of the same text are equal. Made by `of`."""

    text: str
    parts: tuple[str, ...] = field(compare=False, repr=False)

    @classmethod
    def of(cls, text: str) -> "Glob":
        """A backslash makes the next character literal; one at the end stands for itself."""
        parts = [""]
        characters = iter(text)
        for character in characters:
            if character == "*":
                parts.append("")
            else:
                parts[-1] += next(characters, "\\") if character == "\\" else character
        return cls(text, tuple(parts))

    def matches(self, name: str) -> bool:
        head, *rest = self.parts
        if not rest:
            return name == head
        *middle, tail = rest
        end = len(name) - len(tail)
        if end < len(head) or not name.startswith(head) or not name.endswith(tail):
            return False
        at = len(head)
        for part in middle:  # the leftmost place is the best: it leaves most to the parts that follow
            found = name.find(part, at, end)
            if found < 0:
                return False
            at = found + len(part)
        return True


def escape(name: str) -> str:
    """The pattern that matches this name and no other."""
    return name.replace("\\", "\\\\").replace("*", "\\*")
