"""The request body: read the few top-level fields that we act on, and replace exact spans of its bytes.

A client's bytes are kept as they came; only a span changes: the value of `model`, and members that are inserted before
the final brace. To re-serialise would reorder keys, lose number forms and destroy the provider's prompt cache.

`read` parses the body once (orjson) and then has to know where the top-level `model` stands. Where the bytes ``"model"``
occur exactly once and no key can be spelled with escapes, that occurrence is the key: a parsed top-level `model` must be
spelled somewhere, and there is only one place. Otherwise the top level is walked member by member. A field that we act on
and that stands twice is refused: the one that we check could differ from the one that the provider obeys.

Held by `tests/core/test_splice.py`: Hypothesis documents against the standard library's parser, with and without the
short way.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

DEPTH_MAX: Final = 254  # what orjson writes at most; a deeper body could be read but never be answered for

# The fields that decide something here. A duplicate of any other is the provider's business.
ACTED_ON: Final = ("model", "stream", "stream_options", "n")

_SPELLED: Final = tuple(f'"{name}"'.encode() for name in ACTED_ON)

_STRING: Final = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_SPACE: Final = re.compile(rb"[ \t\r\n]*")
_SCALAR: Final = re.compile(rb"[^,\]}\s]+")
_STRUCTURE: Final = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[\[\]{}]', re.DOTALL)
_MODEL_MEMBER: Final = re.compile(rb'"model"[ \t\r\n]*:[ \t\r\n]*("[^"\\]*(?:\\.[^"\\]*)*"|null)', re.DOTALL)
# A \u escape of a lower-case ASCII letter or underscore: the only way to spell one of our keys otherwise.
_ESCAPED_LETTER: Final = re.compile(rb"\\u00(?:[67][0-9a-fA-F]|5[fF])")


class BodyError(ValueError):
    """The body is not a request that we can act on. The message says what was expected and what was got."""

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


@dataclass(slots=True)
class Body:
    """A request body and what was read of it.

    Shapes: ``raw`` as the client sent it; ``fields`` the parsed document; ``model_span`` the half-open span of the
    `model` value in ``raw``, None where the body has no such member.
    """

    raw: bytes
    fields: dict[str, Any]
    model_span: tuple[int, int] | None


def read(raw: bytes) -> Body:
    """Parse a body. Raises `BodyError` for anything but one JSON object of bounded depth."""
    try:
        document = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise BodyError(_not_json(raw, error)) from None
    if type(document) is not dict:
        raise BodyError(f"The body must be a JSON object, got {_kind(document)}.")
    if raw.count(b"{") + raw.count(b"[") > DEPTH_MAX and _too_deep(document):
        raise BodyError(f"The body is nested deeper than {DEPTH_MAX} levels.")
    return Body(raw, document, _model_span(raw, document))


def rewrite(body: Body, model: str, insert: Sequence[tuple[str, bytes]] = ()) -> bytes:
    """The body with `model` as its model and the members of `insert` (name, JSON value) before its final brace."""
    raw, value = body.raw, orjson.dumps(model)
    if body.model_span is not None:
        start, end = body.model_span
        raw = b"".join((raw[:start], value, raw[end:]))
    else:
        insert = [("model", value), *insert]
    return _insert(raw, insert, empty=not body.fields) if insert else raw


def _insert(raw: bytes, members: Iterable[tuple[str, bytes]], *, empty: bool) -> bytes:
    brace = raw.rindex(b"}")
    text = b",".join(orjson.dumps(name) + b":" + value for name, value in members)
    return b"".join((raw[:brace], text if empty else b"," + text, raw[brace:]))


def _model_span(raw: bytes, document: dict[str, Any]) -> tuple[int, int] | None:
    for spelled in _SPELLED:
        if raw.count(spelled) > 1:
            return _walk(raw)
    if b"\\u00" not in raw or not _ESCAPED_LETTER.search(raw):
        if "model" not in document:
            return None
        match = _MODEL_MEMBER.search(raw)
        if match is not None:
            return match.span(1)
    return _walk(raw)


def _walk(raw: bytes) -> tuple[int, int] | None:
    """The span of the top-level `model` value, found member by member in a body that is known to be a JSON object."""
    seen: set[str] = set()
    span: tuple[int, int] | None = None
    position = _skip(raw, raw.index(b"{") + 1)
    while raw[position] != 0x7D:  # }
        name_match = _STRING.match(raw, position)
        if name_match is None:  # cannot be in a valid document
            raise BodyError("The body is not valid JSON.")
        name = orjson.loads(name_match.group())
        start = _skip(raw, _skip(raw, name_match.end()) + 1)
        end = _value_end(raw, start)
        if name in ACTED_ON:
            if name in seen:
                raise BodyError(f"The member '{name}' stands twice; send it once.", name)
            seen.add(name)
            if name == "model":
                span = start, end
        position = _skip(raw, end)
        if raw[position] == 0x2C:  # ,
            position = _skip(raw, position + 1)
    return span


def _value_end(raw: bytes, start: int) -> int:
    first = raw[start]
    if first == 0x22:  # "
        match = _STRING.match(raw, start)
        return match.end() if match else len(raw)
    if first not in b"{[":
        match = _SCALAR.match(raw, start)
        return match.end() if match else len(raw)
    depth = 0
    for part in _STRUCTURE.finditer(raw, start):
        opening = raw[part.start()]
        if opening in b"{[":
            depth += 1
        elif opening in b"}]":
            depth -= 1
            if depth == 0:
                return part.end()
    return len(raw)


def _skip(raw: bytes, position: int) -> int:
    match = _SPACE.match(raw, position)
    return match.end() if match else position


def _too_deep(document: dict[str, Any]) -> bool:
    # orjson itself refuses to write what is nested deeper than 254 levels, at the speed of C.
    try:
        orjson.dumps(document)
    except orjson.JSONEncodeError:
        return True
    return False


def _kind(value: object) -> str:
    match value:
        case list():
            return "an array"
        case str():
            return "a string"
        case bool():
            return "a boolean"
        case None:
            return "null"
        case _:
            return "a number"


def _not_json(raw: bytes, error: orjson.JSONDecodeError) -> str:
    if not raw.strip():
        return "The body is empty; send a JSON object."
    if "depth limit" in error.msg:
        return f"The body is nested deeper than {DEPTH_MAX} levels."
    return f"The body is not valid JSON: {error.msg} at line {error.lineno}, column {error.colno}."
