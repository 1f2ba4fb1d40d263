"""Server-sent events, cut out of a byte stream without changing a byte.

The scanner answers one question: where does an event end? It keeps the bytes of an unfinished event and hands out whole
ones, raw, with their line ends. Events end at a blank line; lines end with LF, CRLF or CR (WHATWG HTML, section 9.2.6).

- Any chunking gives the same events, but for one case: where CRLF CRLF is cut before its last LF, that LF comes as the
  first byte of the next event. A blank line there means nothing to any reader, and waiting for a byte that may never come
  would hold back a finished event.
- An unfinished event larger than `HELD_BYTES_MAX` is not held back: its bytes flow, and a copy is kept up to
  `COPY_BYTES_MAX` so that it can still be read when it is whole. Beyond that only its edges are kept (``raw`` is None):
  what kind of event it is stands at its head or its end, and so does usage.
- Not handled here: what the fields mean. `data_of` and `name_of` read one whole event.

Held by `tests/core/test_sse.py`: a line-by-line reference, random streams, random chunkings.
"""

import re
from typing import Final

HELD_BYTES_MAX: Final = 64 * 1024  # PRODUCT: an incomplete event is held back up to this; a larger one flows
COPY_BYTES_MAX: Final = 4 * 1024 * 1024  # a final Responses event repeats instructions and output; images are larger

EDGE_BYTES: Final = 32 * 1024

_BOM: Final = b"\xef\xbb\xbf"
# Two line ends in a row. `\r(?!\n)` keeps CRLF one line end; at the end of the buffer a lone CR counts as one.
_BLANK_LINE: Final = re.compile(rb"(?:\r\n|\n|\r(?!\n))(?:\r\n|\n|\r)")
_LINE_END: Final = re.compile(rb"\r\n|\n|\r")


class Event:
    """One event. ``raw`` is the whole of it, None where it was too large to keep; ``rest`` is what has not flowed yet:
    the same object where nothing has. ``edges``: of one too large to keep, its head and its end, a line feed between.
    """

    __slots__ = ("edges", "raw", "rest")

    def __init__(self, raw: bytes | None, rest: bytes, edges: bytes = b"") -> None:
        self.raw = raw
        self.rest = rest
        self.edges = edges


class EventScanner:
    """Cuts chunks into events. Bounded memory; never raises, whatever the bytes."""

    __slots__ = ("_copied", "_copy", "_flowed", "_head", "_searched", "_tail", "held")

    def __init__(self) -> None:
        self.held = b""  # the unfinished event's bytes that have not been handed out
        self._searched = 0  # how much of `held` is known to have no end of an event
        self._copy: list[bytes] = []  # of an event that flows: what has been handed out
        self._copied = 0
        self._flowed = False
        self._head = self._tail = b""

    def feed(self, chunk: bytes) -> list[Event]:
        """The events that `chunk` completes, in order."""
        buffer = self.held + chunk if self.held else chunk
        crlf = b"\r" in buffer
        events: list[Event] = []
        start, position = 0, self._searched
        while True:
            if crlf:
                match = _BLANK_LINE.search(buffer, position)
                end = match.end() if match else -1
            else:
                end = buffer.find(b"\n\n", position)
                end = end + 2 if end >= 0 else -1
            if end < 0:
                break
            events.append(self._event(buffer[start:end]))
            start = position = end
        self.held = buffer[start:] if start else buffer
        self._searched = max(0, len(self.held) - 3)
        return events

    def hold(self, held: bytes) -> None:
        """Keep `held` as the unfinished event, for a caller that has cut off the whole ones by itself."""
        self.held = held
        self._searched = max(0, len(held) - 3)

    def overflow(self) -> bytes:
        """What of an unfinished event is too large to hold back, to be relayed now; empty if nothing is."""
        if len(self.held) <= HELD_BYTES_MAX and not self._flowed:
            return b""
        # The last three bytes stay: they may be half of the blank line that ends the event.
        flowing, self.held = self.held[:-3], self.held[-3:]
        self._searched = 0
        self._flowed = True
        if self._copied <= COPY_BYTES_MAX:
            self._copied += len(flowing)
            self._copy.append(flowing)
            if self._copied > COPY_BYTES_MAX:
                self._head = self._copy[0][:EDGE_BYTES]
                self._copy.clear()
        if self._copied > COPY_BYTES_MAX:
            self._tail = (self._tail + flowing)[-EDGE_BYTES:]
        return flowing

    @property
    def flowing(self) -> bool:
        """Whether part of the unfinished event has already been handed out."""
        return self._flowed

    def last(self) -> Event | None:
        """At the end of the stream: the event that no blank line ended, or None where nothing is left."""
        if not self.held and not self._flowed:
            return None
        held, self.held, self._searched = self.held, b"", 0
        return self._event(held)

    def _event(self, rest: bytes) -> Event:
        if not self._flowed:
            return Event(rest, rest)
        copied = self._copied <= COPY_BYTES_MAX
        raw = b"".join([*self._copy, rest]) if copied else None
        edges = b"" if copied else b"\n".join((self._head, self._tail + rest))
        self._copy, self._copied, self._flowed = [], 0, False
        self._head = self._tail = b""
        return Event(raw, rest, edges)


def data_of(raw: bytes) -> bytes | None:
    """The event's data, its lines joined by LF; None where it has no data line (a comment, a bare `event:`)."""
    lines = [_field(line, b"data") for line in _lines(raw)]
    data = [line for line in lines if line is not None]
    return b"\n".join(data) if data else None


def name_of(raw: bytes) -> bytes | None:
    """The event's type as its last `event:` line says; None where it has none."""
    names = [_field(line, b"event") for line in _lines(raw)]
    return next((name for name in reversed(names) if name is not None), None)


def missing_end(raw: bytes) -> bytes:
    """What to add to an event that lacks its blank line, in its own style of line ends."""
    style = b"\r\n" if b"\r\n" in raw else b"\r" if b"\r" in raw else b"\n"
    return style if raw.endswith((b"\n", b"\r")) else style + style


def _lines(raw: bytes) -> list[bytes]:
    return _LINE_END.split(raw.removeprefix(_BOM)) if b"\r" in raw else raw.removeprefix(_BOM).split(b"\n")


def _field(line: bytes, name: bytes) -> bytes | None:
    if not line.startswith(name):
        return None
    rest = line[len(name) :]
    if rest.startswith(b": "):
        return rest[2:]
    if rest.startswith(b":"):
        return rest[1:]
    return None if rest else b""
