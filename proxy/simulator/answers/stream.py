"""What every API's event stream has in common."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final

import orjson

# The same in every answer: the same request gets the same bytes, which golden tests and caches rely on.
CREATED_AT: Final = 1_735_689_600
DONE: Final = b"data: [DONE]\n\n"


@dataclass(frozen=True, slots=True)
class Stream:
    """Whole events, LF line ends, each with its blank line. ``content`` can be taken once.

    ``closing`` ends the answer (finish reason, usage); ``done`` is what follows only to end the stream, where the API
    has such a thing.
    """

    opening: tuple[bytes, ...]
    content: Iterator[bytes]
    closing: tuple[bytes, ...]
    done: tuple[bytes, ...]

    def events(self) -> Iterator[bytes]:
        return chain(self.opening, self.content, self.closing, self.done)


def data(fields: dict[str, Any]) -> bytes:
    return b"data: %b\n\n" % orjson.dumps(fields)


def named(kind: str, fields: dict[str, Any]) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), orjson.dumps(fields))
