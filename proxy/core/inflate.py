"""Content codings, undone with a bound at every step: nobody's compressed bytes may grow without limit here.

zlib is asked for at most `STEP_BYTES_MAX` at a time, so a bomb costs one step of memory; and an output of more than
`RATIO_MAX` times the input beyond `FREE_BYTES` is refused, so that it does not cost hours either. (Measured ratios of real
JSON and SSE stay below 60; zlib's limit is 1,032.)
"""

import zlib
from collections.abc import Iterator
from typing import Final

STEP_BYTES_MAX: Final = 256 * 1024
RATIO_MAX: Final = 200
FREE_BYTES: Final = 1024 * 1024

_WINDOW_BITS: Final = {"gzip": 31, "x-gzip": 31, "deflate": 15}


class CodingError(ValueError):
    """The bytes are not what their content coding promises, or grow beyond all proportion."""


def is_known(coding: str) -> bool:
    return coding in _WINDOW_BITS


class Inflater:
    """Undoes one content coding (`gzip`, `x-gzip`, `deflate`) of a byte stream."""

    __slots__ = ("_given", "_has_members", "_head", "_raw_deflate_possible", "_taken", "_zlib")

    def __init__(self, coding: str) -> None:
        self._zlib = zlib.decompressobj(_WINDOW_BITS[coding])
        self._raw_deflate_possible = coding == "deflate"  # some send it without zlib's header
        self._has_members = coding != "deflate"
        self._head = b""  # of a deflate body: its first byte, until the second tells which kind it is
        self._taken = 0
        self._given = 0

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The decoded bytes, a step at a time. Raises `CodingError`.

        A gzip body may have several members; what else follows the coded stream's own end is dropped.
        """
        self._taken += len(data)
        if self._raw_deflate_possible:
            data = self._head + data
            if len(data) < 2:
                self._head = data
                return
        # zlib may have taken all input and still owe output when a step is full: so once more, with nothing.
        owes = False
        while data or owes:
            if self._zlib.eof:
                if not (self._has_members and data.startswith(b"\x1f")):
                    return
                self._zlib = zlib.decompressobj(_WINDOW_BITS["gzip"])
            try:
                step = self._zlib.decompress(data, STEP_BYTES_MAX)
            except zlib.error as error:
                if not self._raw_deflate_possible:
                    raise CodingError(f"not a valid compressed body: {error}") from None
                self._zlib = zlib.decompressobj(-15)
                self._raw_deflate_possible = False
                continue
            self._raw_deflate_possible = False
            self._given += len(step)
            if self._given > FREE_BYTES and self._given > RATIO_MAX * self._taken:
                raise CodingError(f"the compressed body grows more than {RATIO_MAX} times")
            if step:
                yield step
            data = self._zlib.unused_data if self._zlib.eof else self._zlib.unconsumed_tail
            owes = len(step) == STEP_BYTES_MAX and not self._zlib.eof

    @property
    def finished(self) -> bool:
        """Whether the coded stream came to its own end."""
        return self._zlib.eof
