"""How each function that leans on a store works now, in a word: one table for decisions, `/health`, metrics and docs.

A function is `shared` while its store answers. What it does without one is a row of `TABLE`: `away`, or `at_worst` where
that has run out or was asked for. Causes are words of ours, so that what is public quotes no store: no address, no name.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final


class Mode(Enum):
    SHARED = "shared"
    LOCAL = "local"
    COPY = "copy"
    SPOOL = "spool"
    MISS = "miss"
    CLOSED = "closed"


MEANINGS: Final[Mapping[Mode, str]] = {
    Mode.SHARED: "on its store, with all processes that have the same one",
    Mode.LOCAL: "each process by itself, by its share or by what it knows",
    Mode.COPY: "from what each process last read",
    Mode.SPOOL: "written to the disk of this machine, and delivered when the store is back",
    Mode.MISS: "as if the store were empty",
    Mode.CLOSED: "not at all: what needs it is refused",
}


class Function(Enum):
    BUDGETS = "budgets"
    LIMITS = "limits"
    BREAKERS = "breakers"
    CACHE = "cache"
    SINGLE_FLIGHT = "single_flight"
    EVENTS = "events"
    KEYS = "keys"
    LEDGER = "ledger"
    AUDIT = "audit"


class Store(Enum):
    """What a function leans on: Redis, or this process's memory without it; PostgreSQL, or files without it."""

    REDIS = "redis"
    DATABASE = "database"


@dataclass(frozen=True, slots=True)
class Row:
    """``meaning``: what a client or an operator meets with while the store is away; ``worst``: the same `at_worst`."""

    store: Store
    away: Mode
    meaning: str
    at_worst: Mode | None = None
    worst: str = ""

    @property
    def modes(self) -> tuple[Mode, ...]:
        """All that the function can be in."""
        return tuple(dict.fromkeys((Mode.SHARED, self.away, self.at_worst or self.away)))


TABLE: Final[Mapping[Function, Row]] = {
    Function.BUDGETS: Row(
        Store.REDIS,
        Mode.LOCAL,
        "each process goes on with a hundredth of what was left, then 503 `budget_unavailable`",
        Mode.CLOSED,
        "a budget of the routes file says `when_away: closed`: its requests get 503 `budget_unavailable`",
    ),
    Function.LIMITS: Row(Store.REDIS, Mode.LOCAL, "each process goes by its share: the limit divided by the processes"),
    Function.BREAKERS: Row(Store.REDIS, Mode.LOCAL, "each process goes by what it finds out itself"),
    Function.CACHE: Row(Store.REDIS, Mode.MISS, "no hits, nothing is kept; every answer comes from its provider"),
    Function.SINGLE_FLIGHT: Row(Store.REDIS, Mode.LOCAL, "the same requests share a call within a process"),
    Function.EVENTS: Row(Store.REDIS, Mode.LOCAL, "`/admin/events` tells of this process alone"),
    Function.KEYS: Row(
        Store.DATABASE,
        Mode.COPY,
        "virtual keys are verified from the last copy, for an hour; none can be made or changed",
        Mode.CLOSED,
        "there is no copy, or it is older than an hour: virtual keys get 503 `store_unavailable`",
    ),
    Function.LEDGER: Row(
        Store.DATABASE,
        Mode.SPOOL,
        "rows wait in the journal; reports get 503 `store_unavailable`",
        Mode.CLOSED,
        "the disk or the journal is full: new requests get 503 `overloaded`, and readiness fails",
    ),
    Function.AUDIT: Row(Store.DATABASE, Mode.CLOSED, "whatever would change something below `/admin` gets 503"),
}


def mode_of(function: Function, *, away: bool, at_worst: bool = False) -> Mode:
    """``at_worst`` counts while its store is away, or (the ledger) while rows cannot even be spooled."""
    row = TABLE[function]
    if not away:
        return Mode.SHARED
    return row.at_worst if at_worst and row.at_worst is not None else row.away


@dataclass(frozen=True, slots=True)
class Standing:
    """How one function works now. Units: Unix seconds. ``since`` and ``why`` None where it is `shared`.

    ``where``: `redis`, `memory`, `postgres` or `sqlite`.
    """

    mode: Mode
    where: str
    since: float | None = None
    why: str | None = None


# The first that is found in what a store or its driver said.
_CAUSES: Final = tuple(
    (re.compile(pattern, re.IGNORECASE), cause)
    for pattern, cause in (
        (r"\bjournal\b", "journal full"),
        (r"\bREADONLY\b|read.only|\bNOREPLICAS\b", "takes no writes"),
        (r"\bOOM\b|out of memory", "out of memory"),
        (r"\bMISCONF\b|no space|disk.*full|is full", "disk full"),
        (r"\bLOADING\b|starting up|in recovery", "starting"),
        (r"shutting down|administrator command", "shutting down"),
        (r"\bNOAUTH\b|\bNOPERM\b|WRONGPASS|AuthenticationError|authentication failed|permission denied", "not let in"),
        (r"database is locked|lock timeout|lock_timeout", "locked"),
        (r"does not exist|no such table|has no head", "emptied"),
        (
            r"refused|Connect call failed|No such file|\[Errno 2\]|\[Errno 111\]|unreachable|name resolution|not known",
            "not there",
        ),
        (r"no answer|silen|silent|timed? ?out|Timeout|did not answer|deadline", "no answer"),
        (r"reset|closed|lost|broken pipe|gone|\beof\b", "cut off"),
    )
)
CAUSES: Final = (*dict.fromkeys(cause for _, cause in _CAUSES), "failed")


def cause(said: str) -> str:
    """What a store's message comes to, in words that tell nothing of where it is."""
    return next((found for pattern, found in _CAUSES if pattern.search(said)), "failed")
