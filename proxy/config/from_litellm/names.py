"""Names of one's own: one that is taken gets the next number."""

from collections.abc import Iterable


class Names:
    """``taken``: names that nobody gets."""

    def __init__(self, taken: Iterable[str]) -> None:
        self._taken = set(taken)
        self._last: dict[str, int] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._taken

    def take(self, wanted: str, joint: str = "-") -> str:
        """The name, or the name with the first number that makes it one of its own; nobody else gets it."""
        made = wanted
        while made in self._taken:
            self._last[wanted] = self._last.get(wanted, 1) + 1
            made = f"{wanted}{joint}{self._last[wanted]}"
        self._taken.add(made)
        return made
