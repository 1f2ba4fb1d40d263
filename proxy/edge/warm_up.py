"""A warm-up: requests are sent so that their answers are in the cache when somebody asks. A few at a time, and counted.

What a route without a cache answers is paid for and kept nowhere: once a model's answer says so, no more are sent for it.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final

from proxy.edge.warm_request import WarmRequest

CONCURRENCY: Final = 4
CONCURRENCY_MAX: Final = 32
REASONS_MAX: Final = 5

_OFF: Final = "off"


class Outcome(Enum):
    WARMED = "warmed"
    HIT = "hit"
    NOT_KEPT = "not_kept"
    FAILED = "failed"


# By what an answer says of the cache; all else was not kept. What somebody else is just fetching counts as there.
_OUTCOMES: Final = {
    "miss": Outcome.WARMED,
    "refresh": Outcome.WARMED,
    "hit": Outcome.HIT,
    "semantic": Outcome.HIT,
    "coalesced": Outcome.HIT,
}


@dataclass(frozen=True, slots=True)
class Answered:
    """How one was answered. ``cache``: its `x-penstock-cache`. ``failed``: why it has no whole answer, None: it has one.

    ``status`` None: it was not sent, or nothing came.
    """

    status: int | None
    cache: str | None = None
    failed: str | None = None
    code: str | None = None


@dataclass(slots=True)
class Tally:
    """``reasons``: of the first that were not kept or failed, each with its place."""

    counts: Counter[Outcome] = field(default_factory=Counter)
    reasons: list[tuple[int, Answered, str]] = field(default_factory=list)

    def add(self, place: int, answered: Answered) -> None:
        outcome = outcome_of(answered)
        self.counts[outcome] += 1
        if outcome in (Outcome.NOT_KEPT, Outcome.FAILED) and len(self.reasons) < REASONS_MAX:
            self.reasons.append((place, answered, _reason(answered)))

    @property
    def is_clean(self) -> bool:
        """Whether every answer is in the cache now."""
        return not self.counts[Outcome.NOT_KEPT] and not self.counts[Outcome.FAILED]

    def document(self, place: str) -> dict[str, Any]:
        """For JSON; ``place`` is what a request's place is called."""
        return {
            "requests": self.counts.total(),
            **{outcome.value: self.counts[outcome] for outcome in Outcome},
            "reasons": [
                {place: number, "status": answered.status, "code": answered.code, "message": why}
                for number, answered, why in sorted(self.reasons, key=lambda one: one[0])
            ],
        }


def outcome_of(answered: Answered) -> Outcome:
    if answered.failed is not None:
        return Outcome.FAILED
    return _OUTCOMES.get(answered.cache or _OFF, Outcome.NOT_KEPT)


def _reason(answered: Answered) -> str:
    if answered.failed is not None:
        return answered.failed
    if answered.cache == _OFF:
        return "Its route keeps no answers (x-penstock-cache: off). Give it one: cache: {ttl: 1h}"
    return f"Its answer is none that may be kept (x-penstock-cache: {answered.cache})."


async def warm_up(
    requests: Iterable[tuple[int, WarmRequest]],
    send: Callable[[WarmRequest], Awaitable[Answered]],
    *,
    concurrency: int,
    advance: Callable[[], object] = lambda: None,
) -> Tally:
    """Send them all, `concurrency` at a time. What `send` raises ends it, in an `ExceptionGroup`.

    ``requests``: each with its place, by which it is named where it fails. ``advance`` is called after each.
    """
    tally = Tally()
    waiting = iter(requests)
    uncached: set[tuple[str, str | None]] = set()

    async def work() -> None:
        for place, request in waiting:  # shared: each takes the next one
            asked = request.path, request.model
            answered = Answered(None, _OFF) if asked in uncached else await send(request)
            if answered.failed is None and answered.cache == _OFF:
                uncached.add(asked)
            tally.add(place, answered)
            advance()

    async with asyncio.TaskGroup() as group:
        for _ in range(concurrency):
            group.create_task(work())
    return tally
