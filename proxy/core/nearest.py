"""The names nearest to one that nobody knows, for messages that end in "Did you mean ...?"."""

from collections.abc import Iterable
from difflib import get_close_matches
from itertools import islice
from typing import Final

NAME_CHARS_MAX: Final = 64  # difflib is quadratic in the length of what a client sent
KNOWN_MAX: Final = 500  # and linear in the names compared
LIKENESS_MIN: Final = 0.6  # difflib's own default; lower suggests strangers


def nearest(name: str, known: Iterable[str], *, most: int = 3) -> tuple[str, ...]:
    """The known names that resemble `name`, best first; letter case and what follows 64 characters do not count."""
    by_folded: dict[str, str] = {}
    for candidate in islice(known, KNOWN_MAX):
        by_folded.setdefault(candidate[:NAME_CHARS_MAX].casefold(), candidate)
    close = get_close_matches(name[:NAME_CHARS_MAX].casefold(), by_folded, n=most, cutoff=LIKENESS_MIN)
    return tuple(by_folded[folded] for folded in close)


def did_you_mean(name: str, known: Iterable[str], *, most: int = 1, suffix: str = "") -> str:
    """A sentence to append to a message, with its leading space; empty where nothing is near. ``suffix``: of each name."""
    names = [f"'{candidate}{suffix}'" for candidate in nearest(name, known, most=most)]
    if not names:
        return ""
    return f" Did you mean {' or '.join(names)}?"
