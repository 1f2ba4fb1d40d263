"""Traces: where an exchange's spans belong, and what they are.

Source: W3C Trace Context level 1, section 3.2 (traceparent), read 2026-11-21.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final

SAMPLED: Final = 0x01

# Versions to come may have more behind the flags; ff is none.
_TRACEPARENT: Final = re.compile(
    r"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?"
)

Attributes = Mapping[str, str | int | float | bool]


@dataclass(frozen=True, slots=True)
class Parent:
    """What a client's `traceparent` says."""

    trace_id: int
    span_id: int
    sampled: bool


@dataclass(frozen=True, slots=True)
class TraceContext:
    """An exchange's own span. ``parent_id`` None: the trace begins here. Not ``sampled``: nothing is told of it."""

    trace_id: int
    span_id: int
    parent_id: int | None
    sampled: bool


class SpanKind(Enum):
    SERVER = "server"
    CLIENT = "client"


@dataclass(frozen=True, slots=True)
class TraceSpan:
    """A span that is over. Units: Unix nanoseconds. ``error`` None: it went well. ``remote``: its parent is the client's."""

    kind: SpanKind
    name: str
    trace_id: int
    span_id: int
    parent_id: int | None
    began_ns: int
    ended_ns: int
    attributes: Attributes
    error: str | None = None
    remote: bool = False


def parent_of(traceparent: str | None) -> Parent | None:
    """What the header says; None where it is none, as if it had not been sent."""
    found = None if traceparent is None else _TRACEPARENT.fullmatch(traceparent.strip())
    if found is None:
        return None
    version, trace_id, span_id, flags, more = found.groups()
    if more is not None and version == "00":
        return None
    return Parent(int(trace_id, 16), int(span_id, 16), bool(int(flags, 16) & SAMPLED))


def traceparent_of(trace_id: int, span_id: int, *, sampled: bool) -> str:
    return f"00-{trace_id:032x}-{span_id:016x}-{SAMPLED if sampled else 0:02x}"
