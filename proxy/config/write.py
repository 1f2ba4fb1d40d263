"""YAML as a person would write a routes file: short mappings on one line, and nothing quoted that need not be.

What is written is read back as it was: `proxy.config.read` is the judge of what a plain scalar means.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

LINE_CHARS_MAX: Final = 120

# Plain for YAML 1.1 and 1.2 alike: nothing that could be a number, a boolean or null, and no indicator.
_PLAIN: Final = re.compile(r"[A-Za-z_](?:[A-Za-z0-9_./*+-]|:(?=[A-Za-z0-9/]))*")
_DURATION: Final = re.compile(r"[0-9]+(?:\.[0-9]+)?(?:ms|s|m|h)")
_WORDS: Final = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null"})
_ESCAPES: Final = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t"}


def rendered(document: Mapping[str, Any], comment: Iterable[str]) -> str:
    """A routes document as text. ``comment``: the lines to begin with, without their `#`."""
    lines = [f"# {line}".rstrip() for line in comment]
    for section, value in document.items():
        lines += ["", *_member(section, value, "", (section,))]
    return "\n".join(lines) + "\n"


def _member(key: str, value: Any, indent: str, path: tuple[str, ...]) -> Iterator[str]:
    line = f"{indent}{_scalar(key)}: {_flow(value)}"
    fits = not _in_block(value, path) and len(line) <= LINE_CHARS_MAX
    if fits or not isinstance(value, dict | list) or not value:
        yield line
    else:
        yield f"{indent}{_scalar(key)}:"
        yield from _block(value, f"{indent}  ", path)


def _block(value: Any, indent: str, path: tuple[str, ...]) -> Iterator[str]:
    if isinstance(value, dict):
        for key, member in value.items():
            yield from _member(key, member, indent, (*path, key))
        return
    for item in value:
        line = f"{indent}- {_flow(item)}"
        if isinstance(item, dict | list) and item and (_in_block(item, (*path, "-")) or len(line) > LINE_CHARS_MAX):
            first, *others = _block(item, f"{indent}  ", (*path, "-"))
            yield f"{indent}- {first.removeprefix(f'{indent}  ')}"
            yield from others
        else:
            yield line


def _in_block(value: Any, path: tuple[str, ...]) -> bool:
    """Whether a value has lines of its own, however short it is: a section, tiers, a route with more than one target."""
    match path:
        case (_,):
            return isinstance(value, dict) and bool(value)
        case ("routes", _):
            return [*value] != ["tiers"] or len(value["tiers"]) > 1 or isinstance(value["tiers"][0], dict)
        case ("routes", _, "tiers"):
            return True
        case ("routes", _, "tiers", "-"):
            return isinstance(value, dict) and "targets" in value
        case _:
            return False


def _flow(value: Any) -> str:
    match value:
        case dict():
            return f"{{{', '.join(f'{_scalar(key)}: {_flow(member)}' for key, member in value.items())}}}"
        case list():
            return f"[{', '.join(_flow(item) for item in value)}]"
        case _:
            return _scalar(value)


def _scalar(value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case int() | float():
            return repr(value)
        case _:
            return _text(str(value))


def _text(text: str) -> str:
    if _DURATION.fullmatch(text) or (_PLAIN.fullmatch(text) and text.casefold() not in _WORDS):
        return text
    return f'"{"".join(map(_escaped, text))}"'


def _escaped(char: str) -> str:
    if char in _ESCAPES:
        return _ESCAPES[char]
    if char.isprintable():
        return char
    number = ord(char)
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"
