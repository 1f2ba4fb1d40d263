"""Every metric, declared with its meaning; and what counts them.

An exchange is counted once, when it is settled, by plain numbers in this process: nothing has a lock, and nothing is made
where the same combination of labels came before. Text is made of them when somebody asks (`exposition`).

Label values are names of the configuration and words of the code. What a client chose (a model that it names directly, a
path) is `other`, so that nobody can make series: 10,000 random models leave as many as one does (S58). A name that a reload
took away keeps its series, because a counter may not vanish.
"""

from bisect import bisect_left
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final

import orjson

from proxy.core import gen_ai
from proxy.core.ledger import LedgerRow
from proxy.core.routing import RoutingTable, configured

OTHER: Final = "other"  # the value of every label that a client chose
CELLS_MAX: Final = (
    10_000  # combinations of labels; no configuration comes near it, so what is beyond is somebody's mischief
)

_FAST_S: Final = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
_SLOW_S: Final = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
# As the semantic conventions ask for (see `proxy.core.gen_ai`).
_GEN_AI_TOKENS: Final = tuple(float(4**power) for power in range(14))
_GEN_AI_S: Final = tuple(round(0.01 * 2**power, 2) for power in range(14))
_GEN_AI: Final = ("gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_request_model")


class Kind(Enum):
    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class Joined(Enum):
    """What becomes of the figures of several processes."""

    SUM = "sum"
    MAX = "max"
    MIN = "min"


@dataclass(frozen=True, slots=True)
class Metric:
    """``scale``: what a count is multiplied with when it is told; money is counted in whole nano-USD."""

    name: str
    kind: Kind
    meaning: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    joined: Joined = Joined.SUM
    scale: float = 1.0


def _counter(name: str, meaning: str, *labels: str, scale: float = 1.0) -> Metric:
    return Metric(name, Kind.COUNTER, meaning, labels, scale=scale)


def _histogram(name: str, meaning: str, buckets: tuple[float, ...], *labels: str) -> Metric:
    return Metric(name, Kind.HISTOGRAM, meaning, labels, buckets)


def _gauge(name: str, meaning: str, *labels: str, joined: Joined = Joined.SUM) -> Metric:
    return Metric(name, Kind.GAUGE, meaning, labels, joined=joined)


_NANO: Final = 1e-9

REQUESTS: Final = _counter(
    "penstock_requests_total",
    "Requests that are over, refused ones too. route: other where none was meant. outcome: ok, refused (the request's "
    "fault), failed, partial (broken after content), client_cancelled.",
    "route",
    "api",
    "status",
    "outcome",
)
ATTEMPTS: Final = _counter(
    "penstock_attempts_total",
    "Tries at targets. outcome: ok (it began to answer), or the kind of failure.",
    "provider",
    "outcome",
)
STREAM_ENDINGS: Final = _counter(
    "penstock_stream_endings_total",
    "How streams ended that had begun. ending: complete, client_cancelled, or the code of the error that they broke with.",
    "provider",
    "ending",
)
CACHE_REQUESTS: Final = _counter(
    "penstock_cache_requests_total",
    "Requests of routes that have a cache. state: hit, coalesced, miss, refresh, bypass.",
    "route",
    "state",
)
COST: Final = _counter(
    "penstock_cost_usd_total", "What requests cost, estimates included, in USD.", "provider", "route", scale=_NANO
)
SAVED: Final = _counter(
    "penstock_saved_usd_total", "What the cache's answers would have cost, in USD.", "route", scale=_NANO
)
TOKENS: Final = _counter(
    "penstock_tokens_total",
    "Tokens, reported or estimated. kind: input (cached and cache_write are part of it), output (reasoning is part of it).",
    "provider",
    "kind",
)
LIMITED: Final = _counter(
    "penstock_limited_total", "Requests that a limit refused. limit: which one, budget and cost_tier too.", "limit"
)
RELOADS: Final = _counter(
    "penstock_config_reloads_total", "Attempts to reload the routes file. result: ok, failed.", "result"
)
REQUEST_S: Final = _histogram(
    "penstock_request_seconds", "From a request's head to the end of its answer.", _SLOW_S, "route", "api"
)
FIRST_EVENT_S: Final = _histogram(
    "penstock_first_event_seconds",
    "From a request's head to the first content of its answer; an answer that is no stream is content as a whole.",
    _SLOW_S,
    "route",
    "provider",
)
OVERHEAD_S: Final = _histogram(
    "penstock_overhead_seconds", "What Penstock itself added before the first byte: x-penstock-overhead-ms.", _FAST_S
)
GEN_AI_TOKEN_USAGE: Final = _histogram(
    "gen_ai_client_token_usage",
    "OpenTelemetry's gen_ai.client.token.usage: tokens of one request, as its provider reported them.",
    _GEN_AI_TOKENS,
    *_GEN_AI,
    "gen_ai_token_type",
)
GEN_AI_DURATION_S: Final = _histogram(
    "gen_ai_client_operation_duration_seconds",
    "OpenTelemetry's gen_ai.client.operation.duration: requests that a provider was asked for, all their tries together. "
    "error_type: the error's code, empty where all went well.",
    _GEN_AI_S,
    *_GEN_AI,
    "error_type",
)
BREAKER_OPEN: Final = _gauge(
    "penstock_breaker_open",
    "1 while the breaker of a target or a credential lets nothing through, 0 when it was heard of lately and does.",
    "subject",
    joined=Joined.MAX,
)
BUDGET_LEFT: Final = _gauge(
    "penstock_budget_left_usd",
    "What is left of a configured budget, in USD, as last heard; absent until something was reserved in the period.",
    "subject",
    "period",
    joined=Joined.MIN,
)
STORE_UP: Final = _gauge(
    "penstock_store_up",
    "Whether a store answers. store: redis (where there is one), ledger.",
    "store",
    joined=Joined.MIN,
)
STORE_MODE: Final = _gauge(
    "penstock_store_mode",
    "1 for the way in which a function that leans on a store works now, 0 for its others. mode: shared (its store answers), "
    "local, copy, spool, miss, closed.",
    "function",
    "mode",
    joined=Joined.MAX,
)
OUTBOX_ROWS: Final = _gauge("penstock_outbox_rows", "Rows on this machine's disk that the ledger does not have yet.")
RUNNING: Final = _gauge("penstock_exchanges_running", "Requests that are under way.")
RELOAD_FAILED: Final = _gauge(
    "penstock_config_reload_failed",
    "1 while the routes file on disk is not what runs, because the last reload failed.",
    joined=Joined.MAX,
)
BUILD: Final = _gauge("penstock_build_info", "1; the version is in the label.", "version", joined=Joined.MAX)

METRICS: Final = (
    REQUESTS,
    ATTEMPTS,
    STREAM_ENDINGS,
    CACHE_REQUESTS,
    COST,
    SAVED,
    TOKENS,
    LIMITED,
    RELOADS,
    REQUEST_S,
    FIRST_EVENT_S,
    OVERHEAD_S,
    GEN_AI_TOKEN_USAGE,
    GEN_AI_DURATION_S,
    BREAKER_OPEN,
    BUDGET_LEFT,
    STORE_UP,
    STORE_MODE,
    OUTBOX_ROWS,
    RUNNING,
    RELOAD_FAILED,
    BUILD,
)
BY_NAME: Final[Mapping[str, Metric]] = {metric.name: metric for metric in METRICS}

_LIMITS: Final = {
    "budget_exceeded": "budget",
    "budget_unavailable": "budget",
    "cost_tier_exceeded": "cost_tier",
    "model_unpriced": "cost_tier",
}

Labels = tuple[str, ...]
# Of each metric, by its labels' values: one number; of a histogram the count of each bucket and beyond, then the sum.
Snapshot = dict[str, dict[Labels, tuple[float, ...]]]


class _Count:
    """One series of a counter."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0

    @property
    def values(self) -> tuple[float, ...]:
        return (self.value,)


class _Buckets:
    """One series of a histogram."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def add(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    @property
    def values(self) -> tuple[float, ...]:
        return (*self.counts, self.sum)


@dataclass(slots=True)
class _Cell:
    """The series that exchanges of one kind add to. Those that few of them need are made when they do."""

    requests: _Count
    seconds: _Buckets
    first_event: _Buckets
    cost: _Count
    saved: _Count
    cache: _Count | None
    ending: _Count | None
    limited: _Count | None
    tokens: tuple[_Count, ...]  # as `_KINDS`
    gen_ai_input: _Buckets
    gen_ai_output: _Buckets
    gen_ai_seconds: _Buckets


_KINDS: Final = ("input", "output", "cached", "cache_write", "reasoning")


@dataclass(slots=True)
class Metrics:
    """A `Meter`. Concurrency: one event loop; `snapshot` there too, what is made of it anywhere."""

    version: str
    reload_failed: bool = False
    _routes: Collection[str] = frozenset()
    _providers: Collection[str] = frozenset()
    _models: Collection[tuple[str, str]] = frozenset()
    _counts: dict[str, dict[Labels, _Count]] = field(default_factory=dict)
    _buckets: dict[str, dict[Labels, _Buckets]] = field(default_factory=dict)
    _cells: dict[tuple[object, ...], _Cell] = field(default_factory=dict)
    _tried: dict[tuple[str, str], _Count] = field(default_factory=dict)
    _overhead: _Buckets = field(init=False)

    def __post_init__(self) -> None:
        self._overhead = self._histogram(OVERHEAD_S)
        for result in ("ok", "failed"):
            self._counter(RELOADS, result)

    def follow(self, table: RoutingTable) -> None:
        """From now on the names of this table count as configured. To be told of every table that requests run on."""
        tables = (table, *table.views.values())
        self._routes = {str(name) for one in tables for name in one.routes}
        demo = {one.demo.id for one in tables if one.demo is not None}
        self._providers = {str(name) for one in tables for name in one.providers} | demo
        self._models = {(target.provider.id, target.model) for one in tables for target in configured(one)}
        self._cells.clear()  # their series stay
        self._tried.clear()

    # The port.

    def exchange(self, row: LedgerRow, tried: Iterable[tuple[str, str]], overhead_s: float | None) -> None:
        model = row.model if (row.provider, row.model) in self._models else None
        began = row.first_event_ms is not None
        key = (
            row.route,
            row.provider,
            model,
            row.api,
            row.status,
            row.outcome,
            row.code,
            row.cache,
            row.streamed and began,
        )
        cell = self._cells.get(key)
        if cell is None:
            cell = self._cell(key)
        cell.requests.value += 1
        cell.seconds.add(row.total_ms / 1000)
        if row.first_event_ms is not None:
            cell.first_event.add(row.first_event_ms / 1000)
        cell.cost.value += row.cost_nanousd
        if cell.ending is not None:
            cell.ending.value += 1
        if cell.cache is not None:
            cell.cache.value += 1
            cell.saved.value += row.saved_nanousd
        if cell.limited is not None:
            cell.limited.value += 1
        if row.input_tokens or row.output_tokens:
            _add_tokens(cell, row)
        if row.attempts:
            cell.gen_ai_seconds.add(row.total_ms / 1000)
            for one in tried:
                count = self._tried.get(one)
                if count is None:
                    provider, outcome = one
                    count = self._tried[one] = self._counter(ATTEMPTS, self._provider(provider), outcome)
                count.value += 1
        if overhead_s is not None:
            self._overhead.add(overhead_s)

    def refused(self, api: str, status: int, outcome: str) -> None:
        self._counter(REQUESTS, OTHER, api, str(status), outcome).value += 1

    def limited(self, limit: str) -> None:
        self._counter(LIMITED, limit).value += 1

    def reloaded(self, *, ok: bool) -> None:
        self.reload_failed = not ok
        self._counter(RELOADS, "ok" if ok else "failed").value += 1

    # What there is to see.

    def snapshot(self) -> Snapshot:
        """All that was counted since the start, and what is known here of how the process stands."""
        taken: Snapshot = {
            name: {labels: one.values for labels, one in series.items()}
            for kind in (self._counts, self._buckets)
            for name, series in kind.items()
        }
        taken[RELOAD_FAILED.name] = {(): (float(self.reload_failed),)}
        taken[BUILD.name] = {(self.version,): (1.0,)}
        return taken

    def _cell(self, key: tuple[Any, ...]) -> _Cell:
        if len(self._cells) >= CELLS_MAX:
            key = (None, None, None, OTHER, 0, "failed", None, "off", False)
            if key in self._cells:
                return self._cells[key]
        asked_route, asked_provider, asked_model, api, status, outcome, code, cache, streamed = key
        route = asked_route if asked_route in self._routes else OTHER
        provider = self._provider(asked_provider)
        named = (gen_ai.operation_of(api), gen_ai.provider_of(provider), asked_model or OTHER)
        ending = "complete" if outcome == "ok" else outcome if outcome == "client_cancelled" else code or outcome
        limit = _LIMITS.get(code or "")
        cell = self._cells[key] = _Cell(
            requests=self._counter(REQUESTS, route, api, str(status), outcome),
            seconds=self._histogram(REQUEST_S, route, api),
            first_event=self._histogram(FIRST_EVENT_S, route, provider),
            cost=self._counter(COST, provider, route),
            saved=self._counter(SAVED, route),
            cache=None if cache == "off" else self._counter(CACHE_REQUESTS, route, cache),
            ending=self._counter(STREAM_ENDINGS, provider, ending) if streamed else None,
            limited=None if limit is None else self._counter(LIMITED, limit),
            tokens=tuple(self._counter(TOKENS, provider, kind) for kind in _KINDS),
            gen_ai_input=self._histogram(GEN_AI_TOKEN_USAGE, *named, "input"),
            gen_ai_output=self._histogram(GEN_AI_TOKEN_USAGE, *named, "output"),
            gen_ai_seconds=self._histogram(GEN_AI_DURATION_S, *named, "" if outcome == "ok" else code or outcome),
        )
        return cell

    def _provider(self, asked: str | None) -> str:
        return asked if asked is not None and asked in self._providers else OTHER

    def _counter(self, metric: Metric, *labels: str) -> _Count:
        series = self._counts.setdefault(metric.name, {})
        found = series.get(labels)
        if found is None:
            found = series[labels] = _Count()
        return found

    def _histogram(self, metric: Metric, *labels: str) -> _Buckets:
        series = self._buckets.setdefault(metric.name, {})
        found = series.get(labels)
        if found is None:
            found = series[labels] = _Buckets(metric.buckets)
        return found


def _add_tokens(cell: _Cell, row: LedgerRow) -> None:
    given, made, cached, written, thought = cell.tokens
    given.value += row.input_tokens
    made.value += row.output_tokens
    cached.value += row.cached_tokens
    written.value += row.cache_write_tokens
    thought.value += row.reasoning_tokens
    if not row.estimated:
        cell.gen_ai_input.add(row.input_tokens)
        cell.gen_ai_output.add(row.output_tokens)


def merge(snapshots: Sequence[Snapshot]) -> Snapshot:
    """The figures of several processes as one's: counters and histograms are added, gauges as each of them says."""
    merged: Snapshot = {}
    for snapshot in snapshots:
        for name, series in snapshot.items():
            joined, into = BY_NAME[name].joined, merged.setdefault(name, {})
            for labels, values in series.items():
                held = into.get(labels)
                into[labels] = values if held is None else _joined(joined, held, values)
    return merged


def _joined(how: Joined, mine: tuple[float, ...], theirs: tuple[float, ...]) -> tuple[float, ...]:
    match how:
        case Joined.SUM:
            return tuple(map(sum, zip(mine, theirs, strict=True)))
        case Joined.MAX:
            return tuple(map(max, zip(mine, theirs, strict=True)))
        case Joined.MIN:
            return tuple(map(min, zip(mine, theirs, strict=True)))


def counters(snapshot: Snapshot) -> Snapshot:
    """Without the gauges: what is still so when the process is gone."""
    return {name: series for name, series in snapshot.items() if BY_NAME[name].kind is not Kind.GAUGE}


def to_bytes(snapshot: Snapshot) -> bytes:
    """A snapshot for another process to `merge`."""
    return orjson.dumps({name: [[*one] for one in series.items()] for name, series in snapshot.items()})


def from_bytes(data: bytes) -> Snapshot:
    """What `to_bytes` wrote; a metric that this version does not know, or counts otherwise, is left out.

    Errors: ValueError for what is no snapshot.
    """
    try:
        told: dict[str, list[Any]] = orjson.loads(data)
        return {
            name: {tuple(map(str, labels)): tuple(map(_number, values)) for labels, values in series}
            for name, series in told.items()
            if name in BY_NAME and all(_fits(BY_NAME[name], labels, values) for labels, values in series)
        }
    except (TypeError, AttributeError) as error:
        raise ValueError(f"no snapshot of metrics: {error}") from None


def _fits(metric: Metric, labels: Sequence[object], values: Sequence[object]) -> bool:
    numbers = len(metric.buckets) + 2 if metric.kind is Kind.HISTOGRAM else 1
    return len(labels) == len(metric.labels) and len(values) == numbers


def _number(value: object) -> float:
    if not isinstance(value, int | float):
        raise TypeError(f"expected a number, got {value!r}")
    return value
