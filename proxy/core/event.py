"""What happens to a process that operators may want to hear of at once, as one small JSON object."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final

import orjson

from proxy.core import redact

TEXT_CHARS_MAX: Final = 256  # of each fact
EVENT_BYTES_MAX: Final = 4096

Fact = str | int | float | bool | None


class EventKind(Enum):
    """What it is about. Which facts come with each, docs/operating.md says."""

    BREAKER = "breaker"
    BUDGET = "budget"
    KEY = "key"
    CONFIG = "config"
    CACHE = "cache"
    STORE = "store"


@dataclass(frozen=True, slots=True)
class Happening:
    """``at``: Unix seconds. ``instance``: the process that it happened to."""

    kind: EventKind
    at: float
    instance: str
    facts: Mapping[str, Fact]


def to_bytes(one: Happening) -> bytes:
    facts = {name: _bounded(value) for name, value in one.facts.items()}
    return orjson.dumps({"kind": one.kind.value, "at": round(one.at, 3), "instance": one.instance, **facts})


def heard(data: bytes) -> tuple[str, bytes] | None:
    """Whose event it is, and the event on one line; None where it is none: others may write to a channel too."""
    if len(data) > EVENT_BYTES_MAX:
        return None
    try:
        told = orjson.loads(data)
        EventKind(told["kind"])
        return str(told["instance"]), orjson.dumps(told)
    except (ValueError, TypeError, KeyError):
        return None


def _bounded(value: Fact) -> Fact:
    return redact.text(value[:TEXT_CHARS_MAX]) if isinstance(value, str) else value
