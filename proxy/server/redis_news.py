"""What is told when Redis goes away and comes back: what it means for requests, and what to do."""

from collections.abc import Callable
from typing import Final

from proxy.core.event import EventKind
from proxy.ports import EventSink, ExchangeLog, StoreState

_MEANING: Final = (
    "Requests are served on: the cache misses, breakers and limits go by what this process knows, budgets by its local "
    "slices (or refuse, where configured). Redis is looked for once a second; if it stays away, see that it runs, that "
    "REDIS_URL names it, and that it takes writes."
)


class RedisNews:
    """What a `RedisConnection` calls."""

    def __init__(self, log: ExchangeLog, events: EventSink, wall: Callable[[], float]) -> None:
        self._log = log
        self._events = events
        self._wall = wall
        self._away_since: float | None = None

    def __call__(self, state: StoreState) -> None:
        if not state.up:
            self._away_since = state.down_since
            self._log.event("redis: away", where=state.where, error=state.last_error, meaning=_MEANING)
            self._events.emit(EventKind.STORE, store="redis", state="away", error=state.last_error)
        elif self._away_since is not None:
            away_s = round(max(self._wall() - self._away_since, 0.0), 3)
            self._away_since = None
            self._log.event("redis: back", where=state.where, away_s=away_s)
            self._events.emit(EventKind.STORE, store="redis", state="back", away_s=away_s)
