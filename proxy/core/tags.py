"""Tags: what a client writes beside a request (`x-penstock-tags: team=search,run=7`), to add up its costs by."""

from collections.abc import Iterable
from typing import Any, Final

from proxy.core import redact
from proxy.core.text import storable

Tags = tuple[tuple[str, str], ...]

TAGS_MAX: Final = 8
NAME_CHARS_MAX: Final = 64
VALUE_CHARS_MAX: Final = 128


def parse(header: str) -> Tags:
    """The tags of a header's value: the first of each name, at most `TAGS_MAX`. What is no ``a=b`` is left out."""
    clean = redact.text(header)  # a row is read by others than its client
    return _bounded(part.partition("=")[::2] for part in clean.split(",") if "=" in part)


def joined(first: Tags, then: Tags) -> Tags:
    """Both, where a name of `first` counts; at most `TAGS_MAX`."""
    return _bounded((*first, *then))


def tags_text(tags: Any) -> str:
    """Tags as a store keeps them: lines of ``a=b``. A line holds no control character, so that no tag can forge another."""
    if tags == ():
        return ""
    return "\n".join(f"{name}={value}" for name, value in tags_from(tags))


def tags_from(value: Any) -> Tags:
    """Tags out of a store (lines) or a journal (pairs)."""
    if not value:
        return ()
    if isinstance(value, str):
        return _bounded(line.partition("=")[::2] for line in value.split("\n") if line)
    if not isinstance(value, list | tuple):
        return ()
    return _bounded(pair for pair in value if isinstance(pair, list | tuple) and len(pair) == 2)


def _bounded(pairs: Iterable[Any]) -> Tags:
    found: dict[str, str] = {}
    for name, value in pairs:
        if not isinstance(name, str) or not isinstance(value, str):
            continue
        known = _plain(name.strip()).replace("=", "_")[:NAME_CHARS_MAX].strip()  # a cut may end behind a space
        if known and known not in found and len(found) < TAGS_MAX:
            found[known] = _plain(value.strip())[:VALUE_CHARS_MAX].strip()
    return tuple(found.items())


def _plain(text: str) -> str:
    text = storable(text)
    return text if text.isprintable() else "".join(letter if letter.isprintable() else "?" for letter in text)
