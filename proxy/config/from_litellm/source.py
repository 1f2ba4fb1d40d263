"""A LiteLLM configuration while it is read: its values with their places, and the notes on what is not carried over.

LiteLLM reads with PyYAML, where `<<` merges mappings; here it does too. A note never quotes a value that could be secret.
"""

import math
import re
from typing import Any, Final, NamedTuple

from proxy.config.from_litellm.facts import NO_SUCH, NOT_NEEDED, REASONS
from proxy.config.problem import Path, Problem
from proxy.config.read import Document

_MERGE: Final = "<<"
_REFERENCE: Final = re.compile(r"os\.environ/([A-Za-z_][A-Za-z0-9_]*)|\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_NUMBER: Final = re.compile(r"[0-9][0-9_]*(?:\.[0-9]+)?")
_PRICE: Final = re.compile(r".*_cost_per_")


class Found(NamedTuple):
    """A value, and the path at which it stands (where a merged one was written, not where it was merged to)."""

    value: Any
    path: Path


class Source:
    """A document, and the notes made on it so far."""

    def __init__(self, document: Document, file: str) -> None:
        self._document = document
        self._file = file
        self._notes: dict[Problem, None] = {}

    def note(self, path: Path, message: str) -> None:
        position = self._document.key_at(path)
        self._notes[Problem(self._file, *position, tuple(map(_printable_step, path)), printable(message))] = None

    def lost(self, path: Path, why: str | None = None) -> None:
        """Note that a setting is not carried over. ``why``: where its name does not say it."""
        why = why or reason(str(path[-1]))
        self.note(path, why if why.startswith(NOT_NEEDED) else f"not carried over: {why}")

    @property
    def notes(self) -> tuple[Problem, ...]:
        """In the order of the file."""
        return tuple(sorted(self._notes, key=lambda note: (note.line, note.column)))

    def members(self, found: Found | None) -> dict[str, Found]:
        """The members of a mapping that have a value; empty, with a note, where it is none."""
        if found is None or found.value is None:
            return {}
        if not isinstance(found.value, dict):
            self.lost(found.path, "expected a mapping")
            return {}
        return {key: one for key, one in _merged(found).items() if one.value is not None}

    def items(self, found: Found | None) -> list[Found]:
        """The items of a list; empty, with a note, where it is none."""
        if found is None or found.value is None:
            return []
        if not isinstance(found.value, list):
            self.lost(found.path, "expected a list")
            return []
        return [Found(item, (*found.path, index)) for index, item in enumerate(found.value)]

    def text(self, found: Found | None) -> str | None:
        """A text; None, with a note, where it is none."""
        if found is None or isinstance(found.value, str):
            return None if found is None else found.value
        self.lost(found.path, "expected text. Quote a number to mean text")
        return None

    def number(self, found: Found | None) -> float | None:
        """A finite number of at least 0, also one that is written as text; None, with a note, where it is none."""
        if found is None:
            return None
        value = found.value
        if isinstance(value, str) and _NUMBER.fullmatch(value.strip()):
            value = float(value.strip().replace("_", ""))
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value >= 0:
            return float(value)
        self.lost(found.path, "expected a number")
        return None

    def rest(self, members: dict[str, Found], *known: str) -> None:
        """Note every member that nobody reads."""
        for key, found in members.items():
            if key not in known:
                self.lost(found.path)


def reason(setting: str) -> str:
    """Why a setting of that name is not carried over."""
    return REASONS["input_cost_per_token"] if _PRICE.match(setting) else REASONS.get(setting, NO_SUCH)


def reference(value: str) -> str | None:
    """The environment variable that a value stands for: `os.environ/NAME`, or `${NAME}` of a template; None for others."""
    match = _REFERENCE.fullmatch(value.strip())
    return None if match is None else match[1] or match[2]


def printable(text: str) -> str:
    """The text with what a terminal would obey written as an escape."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def quoted(text: str) -> str:
    """A name in a message: short, and printable."""
    shown = printable(text)
    return f"'{shown if len(shown) <= 80 else shown[:79] + '…'}'"


def _merged(found: Found) -> dict[str, Found]:
    """A mapping with what `<<` merges into it: its own members count, then the first mapping that has one."""
    own = {key: Found(value, (*found.path, key)) for key, value in found.value.items() if key != _MERGE}
    merge = found.value.get(_MERGE)
    sources = merge if isinstance(merge, list) else [merge]
    for index, source in enumerate(sources):
        if isinstance(source, dict):
            step: Path = (_MERGE, index) if isinstance(merge, list) else (_MERGE,)
            own = {**_merged(Found(source, (*found.path, *step))), **own}
    return own


def _printable_step(step: str | int) -> str | int:
    return step if isinstance(step, int) else printable(step)
