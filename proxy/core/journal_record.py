"""The journal's records: one line each, so that a damaged one costs itself and not those behind it.

Shape of a segment: the line ``penstock-journal 1``, then lines of ``<kind> <length> <checksum> <json>``: kind ``I``
(intent) or ``S`` (settlement), the JSON's length in bytes and its CRC-32, both in hexadecimal. JSON has no raw newline,
so a newline ends a record whatever its length claims; length and checksum tell a torn or damaged one.
"""

from dataclasses import dataclass
from typing import Final
from zlib import crc32

import orjson

from proxy.core.ledger import Intent, LedgerRow, intent_from, row_as_written
from proxy.core.text import storable

HEAD: Final = b"penstock-journal 1\n"
_HEAD_WORD: Final = b"penstock-journal "
_PREFIX_BYTES: Final = len(b"S 00000000 00000000 ")


@dataclass(frozen=True, slots=True)
class Damaged:
    """A line that is no record. ``torn``: it is the segment's unfinished last one, as a killed process leaves it."""

    line_bytes: int
    torn: bool


def intent_line(intent: Intent) -> bytes:
    return _line(b"I", intent)


def settlement_line(row: LedgerRow) -> bytes:
    return _line(b"S", row)


def foreign(head: bytes) -> bool:
    """Whether a segment's first line is of a version that this one does not know."""
    return head.startswith(_HEAD_WORD) and head.endswith(b"\n") and head != HEAD


def records(data: bytes) -> list[Intent | LedgerRow | Damaged]:
    """Every record of whole lines, and of an unfinished last one. The head line is no record, nor is one with ``#``."""
    lines = data.split(b"\n")
    tail = lines.pop()
    found = [_record(line) for line in lines if line + b"\n" != HEAD and not line.startswith(b"#")]
    return [*found, Damaged(len(tail), torn=True)] if tail else found


def _line(kind: bytes, entry: Intent | LedgerRow) -> bytes:
    try:
        document = orjson.dumps(entry)
    except TypeError:  # a lone surrogate, or a number beyond 64 bits
        document = _repaired(entry)
    return b"%b %08x %08x %b\n" % (kind, len(document), crc32(document), document)


def _repaired(entry: Intent | LedgerRow) -> bytes:
    """The document with its texts storable; what is still none after that (no such value is known) is left out."""
    values: dict[str, object] = {}
    for name in type(entry).__slots__:
        value = getattr(entry, name)
        if isinstance(value, str):
            values[name] = storable(value)
        elif isinstance(value, int):
            values[name] = min(max(value, -(2**63)), 2**63 - 1)
        elif isinstance(value, tuple):
            values[name] = [[storable(part) for part in pair] for pair in value]
        else:
            values[name] = value
    return orjson.dumps(values)


def _record(line: bytes) -> Intent | LedgerRow | Damaged:
    damaged = Damaged(len(line), torn=False)
    document = line[_PREFIX_BYTES:]
    prefix = line[:_PREFIX_BYTES].split(b" ")
    if len(prefix) != 4 or prefix[1] != b"%08x" % len(document) or prefix[2] != b"%08x" % crc32(document):
        return damaged
    try:
        read = orjson.loads(document)
    except orjson.JSONDecodeError:
        return damaged
    if not isinstance(read, dict):
        return damaged
    entry = row_as_written(read) if prefix[0] == b"S" else intent_from(read) if prefix[0] == b"I" else None
    return damaged if entry is None else entry
