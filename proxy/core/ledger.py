"""The books' vocabulary: one row per exchange, the intent that comes before it, and how rows are asked for.

Nothing that a client sends may make a row that a store refuses: a refused row would stand before all that come after it.
So texts are without NUL and lone surrogates (PostgreSQL takes neither) and bounded (its indexes are), numbers are finite
and fit. `columns_of` makes them so, for the stores; `row_from` reads them back, from a store, a journal or anywhere.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from operator import attrgetter
from typing import Any, Final, Literal, NamedTuple, TypeVar

from proxy.core.tags import Tags, tags_from, tags_text
from proxy.core.text import storable
from proxy.terms import AccountId, ExchangeId, NanoUsd, ProviderId, RouteName

CostSource = Literal["reported", "configured", "listed", "local", "free", "unknown", "estimated"]
CacheState = Literal["hit", "semantic", "coalesced", "miss", "refresh", "bypass", "off"]
Outcome = Literal["ok", "refused", "failed", "partial", "client_cancelled", "interrupted"]

NAME_CHARS_MAX: Final = 128  # an index entry of PostgreSQL holds 2,704 bytes, and a letter may have four
MODEL_CHARS_MAX: Final = 256
COUNT_MAX: Final = 2**53 - 1  # exact in any JSON, and a thousand of them add up within 64 bits
US_PER_S: Final = 1_000_000
US_PER_DAY: Final = 86_400 * US_PER_S
NOTHING: Final = NanoUsd(0)


@dataclass(
    slots=True, unsafe_hash=True
)  # not frozen, though nobody changes one: that would treble what it costs to make
class LedgerRow:
    """What the books keep of one exchange, whatever its end.

    ``id`` is this exchange's alone; ``request_id`` is what its client chose, and may stand in several rows.
    Units: Unix microseconds, LLM tokens, nano-USD, milliseconds. ``estimated`` says of the tokens that the provider did
    not report them. ``saved_nanousd``: what the cache's answer would have cost. ``baseline_nanousd``: what the baseline
    model would have cost, None where none is configured. ``fell_back``: another than the first planned target answered.
    ``status`` 0: there was no answer (`interrupted`). A row belongs to the window and the day that it *started* in.
    """

    id: ExchangeId
    started_us: int
    ended_us: int
    account: AccountId
    api: str
    outcome: Outcome
    status: int = 0
    code: str | None = None
    virtual_key: str | None = None
    route: RouteName | None = None
    provider: ProviderId | None = None
    model: str | None = None
    streamed: bool = False
    attempts: int = 0
    fell_back: bool = False
    input_tokens: int = 0
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    estimated: bool = False
    cost_nanousd: NanoUsd = NOTHING
    cost_source: CostSource = "unknown"
    saved_nanousd: NanoUsd = NOTHING
    baseline_nanousd: NanoUsd | None = None
    cache: CacheState = "off"
    first_event_ms: float | None = None
    total_ms: float = 0.0
    request_id: str | None = None
    tags: Tags = ()


@dataclass(slots=True, unsafe_hash=True)  # not frozen, as `LedgerRow`
class Intent:
    """That a request is about to be sent to a target. Written before each attempt; a row follows, or the process died.

    Units: as `LedgerRow`. ``at_us``: when it was written; ``worst_case_nanousd``: the most that this attempt may cost.
    """

    id: ExchangeId
    at_us: int
    started_us: int
    account: AccountId
    api: str
    provider: ProviderId
    model: str
    worst_case_nanousd: NanoUsd
    attempt: int = 1
    virtual_key: str | None = None
    route: RouteName | None = None
    streamed: bool = False
    input_tokens: int = 0  # estimated
    request_id: str | None = None
    tags: Tags = ()


def interrupted(intent: Intent) -> LedgerRow:
    """The row of an exchange whose process died before it settled, from its last intent.

    Nobody knows what the provider counted, so the worst case is booked: what the budget had reserved. It ended when it
    was last heard of.
    """
    return LedgerRow(
        id=intent.id,
        started_us=intent.started_us,
        ended_us=intent.at_us,
        account=intent.account,
        api=intent.api,
        outcome="interrupted",
        code="interrupted",
        virtual_key=intent.virtual_key,
        route=intent.route,
        provider=intent.provider,
        model=intent.model,
        streamed=intent.streamed,
        attempts=intent.attempt,
        input_tokens=intent.input_tokens,
        estimated=True,
        cost_nanousd=intent.worst_case_nanousd,
        cost_source="estimated",
        total_ms=max(0, intent.at_us - intent.started_us) / 1000,
        tags=intent.tags,
        request_id=intent.request_id,
    )


@dataclass(frozen=True, slots=True)
class LedgerFilter:
    """Which rows: all that is given must hold. Units: Unix microseconds; ``since_us`` included, ``until_us`` not."""

    account: str | None = None
    virtual_key: str | None = None
    route: str | None = None
    provider: str | None = None
    model: str | None = None
    outcome: str | None = None
    status: int | None = None
    code: str | None = None
    tag: tuple[str, str] | None = None
    since_us: int | None = None
    until_us: int | None = None


def parameters_of(wanted: LedgerFilter) -> dict[str, Any]:
    """A filter as a store's parameters, by name: texts storable, the window always there, the tag as ``a=b``."""
    texts = ("account", "virtual_key", "route", "provider", "model", "outcome", "code")
    given = {name: getattr(wanted, name) for name in texts}
    return {
        **{name: None if value is None else storable(value) for name, value in given.items()},
        "status": _count_or_none(wanted.status),
        "tag": None if wanted.tag is None else tags_text((wanted.tag,)),
        "since_us": _count(wanted.since_us or 0),
        "until_us": COUNT_MAX + 1 if wanted.until_us is None else _count(wanted.until_us),
    }


class Cursor(NamedTuple):
    """Where a page ended: the next one goes on behind it."""

    started_us: int
    id: str

    def __str__(self) -> str:
        return f"{self.started_us}.{self.id}"


def cursor_from(text: str) -> Cursor | None:
    """A cursor as a client gives it back; None where it is none."""
    started, dot, exchange_id = text.partition(".")
    if not dot or not exchange_id or not started.isascii() or not started.isdecimal():
        return None
    return Cursor(min(int(started[:20]), COUNT_MAX), storable(exchange_id)[:NAME_CHARS_MAX])


@dataclass(frozen=True, slots=True)
class Page:
    """Rows, newest first; ``after`` is None on the last page."""

    rows: tuple[LedgerRow, ...]
    after: Cursor | None


class Booked(NamedTuple):
    """A row and its place in the order of booking: unique, rising, never before a row that was readable earlier."""

    seq: int
    row: LedgerRow


Spender = Literal["everybody", "account", "virtual_key"]


def columns_of(row: LedgerRow) -> tuple[Any, ...]:
    """A row's `COLUMNS` as every store takes them: text, int, float, bool or None; tags as lines of ``a=b``."""
    values: tuple[Any, ...] = _values(row)
    if not row.tags and _is_clean(row):
        return (*values[:-1], "")
    return tuple([clean(value) for clean, value in zip(_CLEAN, values, strict=True)])


def _is_clean(row: LedgerRow) -> bool:
    """Whether nothing of a row would be changed: by far the most frequent case, and cheap to see."""
    texts = [text for text in _texts(row) if text is not None]
    first_ms, total_ms = row.first_event_ms, row.total_ms
    try:
        written = "".join(texts)
        counts = _counts(row)
        return (
            written.isascii()
            and "\0" not in written
            and max(map(len, texts)) <= NAME_CHARS_MAX
            and min(counts) >= 0
            and max(counts) <= COUNT_MAX
            and set(map(type, counts)) == {int}
            and type(total_ms) is float
            and 0.0 <= total_ms <= COUNT_MAX
            and (first_ms is None or (type(first_ms) is float and 0.0 <= first_ms <= COUNT_MAX))
            and (row.baseline_nanousd is None or 0 <= row.baseline_nanousd <= COUNT_MAX)
        )
    except TypeError:  # of another type than it should be
        return False


def as_stored(row: LedgerRow, columns: Sequence[Any]) -> LedgerRow:
    """The row that its columns are read back as: mostly itself."""
    if columns[:-1] == _values(row)[:-1] and tags_from(columns[-1]) == row.tags:
        return row
    return row_from(dict(zip(COLUMNS, columns, strict=True))) or row


def row_from(record: Mapping[str, Any]) -> LedgerRow | None:
    """The row of a store's columns or a journal's document; None where what every row has is missing.

    Unknown names are left out and missing ones take their default, so that versions can read each other's.
    """
    return _read(LedgerRow, _FIELDS, record)


def row_as_written(document: Mapping[str, Any]) -> LedgerRow | None:
    """The row of a document that this version's own row was written to: `row_from` at a third of its price.

    For what a checksum vouches for; stores clean values by `columns_of` anyhow.
    """
    if document.keys() != _COLUMN_SET:
        return row_from(document)
    return LedgerRow(**{**document, "tags": tags_from(document["tags"])})


def intent_from(record: Mapping[str, Any]) -> Intent | None:
    return _read(Intent, _INTENT_FIELDS, record)


def _name(value: object) -> str:
    if type(value) is str and len(value) <= NAME_CHARS_MAX and value.isascii() and "\0" not in value:
        return value
    return storable(value)[:NAME_CHARS_MAX] if isinstance(value, str) else ""


def _name_or_none(value: object) -> str | None:
    return None if value is None else _name(value)


def _model(value: object) -> str:
    return storable(value)[:MODEL_CHARS_MAX] if isinstance(value, str) else ""


def _model_or_none(value: object) -> str | None:
    return None if value is None else _model(value)


def _count(value: object) -> int:
    """Bounded, and never negative: no path may take anything off the books."""
    if type(value) is int and 0 <= value <= COUNT_MAX:
        return value
    return min(max(value, 0), COUNT_MAX) if isinstance(value, int) else 0


def _count_or_none(value: object) -> int | None:
    return None if value is None else _count(value)


def _ms(value: object) -> float:
    if not isinstance(value, int | float) or math.isnan(value):
        return 0.0
    return float(min(max(value, 0), COUNT_MAX))


def _ms_or_none(value: object) -> float | None:
    return None if value is None else _ms(value)


def _flag(value: object) -> bool:
    return bool(value)


# How a value goes into a store, and how it is read. They differ only for tags.
_Field = tuple[Callable[[Any], Any], Callable[[Any], Any]]
_NAME: Final[_Field] = (_name, _name)
_NAME_OR_NONE: Final[_Field] = (_name_or_none, _name_or_none)
_COUNT: Final[_Field] = (_count, _count)
_COUNT_OR_NONE: Final[_Field] = (_count_or_none, _count_or_none)
_MS: Final[_Field] = (_ms, _ms)
_MS_OR_NONE: Final[_Field] = (_ms_or_none, _ms_or_none)
_MODEL: Final[_Field] = (_model, _model)
_MODEL_OR_NONE: Final[_Field] = (_model_or_none, _model_or_none)
_FLAG: Final[_Field] = (_flag, _flag)
_TAGS: Final[_Field] = (tags_text, tags_from)

_FIELDS: Final[Mapping[str, _Field]] = {
    "id": _NAME,
    "started_us": _COUNT,
    "ended_us": _COUNT,
    "account": _NAME,
    "api": _NAME,
    "outcome": _NAME,
    "status": _COUNT,
    "code": _NAME_OR_NONE,
    "virtual_key": _NAME_OR_NONE,
    "route": _NAME_OR_NONE,
    "provider": _NAME_OR_NONE,
    "model": _MODEL_OR_NONE,
    "streamed": _FLAG,
    "attempts": _COUNT,
    "fell_back": _FLAG,
    "input_tokens": _COUNT,
    "cached_tokens": _COUNT,
    "cache_write_tokens": _COUNT,
    "output_tokens": _COUNT,
    "reasoning_tokens": _COUNT,
    "estimated": _FLAG,
    "cost_nanousd": _COUNT,
    "cost_source": _NAME,
    "saved_nanousd": _COUNT,
    "baseline_nanousd": _COUNT_OR_NONE,
    "cache": _NAME,
    "first_event_ms": _MS_OR_NONE,
    "total_ms": _MS,
    "request_id": _NAME_OR_NONE,
    "tags": _TAGS,
}
COLUMNS: Final = tuple(_FIELDS)
_COLUMN_SET: Final = _FIELDS.keys()
_CLEAN: Final = tuple(clean for clean, _ in _FIELDS.values())
_values: Final = attrgetter(*COLUMNS)
_texts: Final = attrgetter(
    *(name for name, kind in _FIELDS.items() if kind in (_NAME, _NAME_OR_NONE, _MODEL, _MODEL_OR_NONE))
)
_counts: Final = attrgetter(*(name for name, kind in _FIELDS.items() if kind is _COUNT))

_INTENT_FIELDS: Final[Mapping[str, _Field]] = {
    "id": _NAME,
    "at_us": _COUNT,
    "started_us": _COUNT,
    "account": _NAME,
    "api": _NAME,
    "provider": _NAME,
    "model": _MODEL,
    "worst_case_nanousd": _COUNT,
    "attempt": _COUNT,
    "virtual_key": _NAME_OR_NONE,
    "route": _NAME_OR_NONE,
    "streamed": _FLAG,
    "input_tokens": _COUNT,
    "request_id": _NAME_OR_NONE,
    "tags": _TAGS,
}


_Kind = TypeVar("_Kind", LedgerRow, Intent)


def _required(kind: type[LedgerRow] | type[Intent]) -> frozenset[str]:
    return frozenset(one.name for one in fields(kind) if one.default is MISSING)


_REQUIRED: Final = {kind: _required(kind) for kind in (LedgerRow, Intent)}


def _read(kind: type[_Kind], table: Mapping[str, _Field], record: Mapping[str, Any]) -> _Kind | None:
    if any(record.get(name) is None for name in _REQUIRED[kind]) or not record["id"]:
        return None
    return kind(**{name: read(record[name]) for name, (_, read) in table.items() if name in record})
