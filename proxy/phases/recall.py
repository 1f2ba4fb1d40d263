"""Phase 5, recall: do we hold this answer, or is someone fetching it? Else it is fetched for all who ask for the same.

The place for answers to questions that are alike and not the same (`semantic`) is here, behind the exact look-up: a key
has its question apart from its scope and settings for that.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from proxy.core import cache_control, cache_key
from proxy.core.cache_control import CacheControl
from proxy.core.cache_key import Uncacheable
from proxy.core.cache_policy import CachePolicy
from proxy.core.cached_answer import CachedAnswer
from proxy.core.failure import Blame, Failure, FailureKind, Rejected
from proxy.core.ledger import CacheState
from proxy.core.routing import Plan
from proxy.phases.call import WITH_PARAMS
from proxy.phases.exchange import Exchange
from proxy.phases.flight import LEASE_S, Flight, let_go
from proxy.phases.giving import out_of_time
from proxy.phases.read import read_recording
from proxy.phases.replay import Replay
from proxy.phases.runtime import Runtime
from proxy.phases.watchdog import Watchdog
from proxy.ports import Downstream, StoreAway
from proxy.terms import Api, CacheKey, Commitment, Generation, RouteName

TRIES: Final = 2  # as a follower of somebody who fails; after those the failure is told
_ROUNDS_MAX: Final = 32  # of following those who leave before they have asked
_MONEY: Final = (FailureKind.BUDGET_EXCEEDED, FailureKind.BUDGET_UNAVAILABLE)
_NEVER: Final = frozenset({Api.COUNT_TOKENS, Api.PASSTHROUGH, Api.IMAGE_EDITS, Api.TRANSCRIPTIONS, Api.TRANSLATIONS})


async def recall(x: Exchange, runtime: Runtime, plan: Plan, policy: CachePolicy, downstream: Downstream) -> bool:
    """Answer out of the cache, or by a call that is shared. False: neither; the exchange goes its own way.

    Errors: Rejected, and `ClientGone`.
    """
    control = cache_control.parse(x.headers.get("cache-control"))
    key = _key(x, plan) if control.stored else None
    if key is None:
        x.cache = "bypass"
        if control.only_kept:
            raise Rejected(_not_cached())
        return False
    watchdog = runtime.ticker.watch(plan.timeouts, x.total_at)
    try:
        await Recall(x, runtime, plan, policy, downstream, watchdog, control, key).run()
    except asyncio.CancelledError:
        kind = watchdog.claim()
        if kind is None or x.commitment is not Commitment.UNCOMMITTED:
            raise  # a client that takes not even the end of an answer is as good as gone
        raise Rejected(out_of_time(kind)) from None
    finally:
        runtime.ticker.release(watchdog)
    return True


@dataclass(slots=True)
class Recall:
    """One exchange that is answered without a call of its own, or with one that others share.

    ``watchdog``: over this exchange's own task, which a flight's call is not part of.
    """

    x: Exchange
    runtime: Runtime
    plan: Plan
    policy: CachePolicy
    downstream: Downstream
    watchdog: Watchdog
    control: CacheControl
    cache_key: CacheKey

    async def run(self) -> None:
        answer, generation = await self._look()
        if await self._replayed(answer):
            return
        if self.control.only_kept:
            self.x.cache = "miss"
            raise Rejected(_not_cached())
        own = Flight(self.x, self.cache_key, self.policy, generation)
        if self.control.fresh:
            self.x.cache = "refresh"
            self.runtime.flights[self.cache_key] = own
            await self._ride(own)
        else:
            await self._share(own, "miss" if answer is None else "refresh")

    async def _share(self, own: Flight, state: CacheState) -> None:
        """Follow whoever fetches it, here or elsewhere; lead where nobody does, or where those have failed.

        ``state``: of a leader; `refresh` where what is kept will not do.
        """
        x, flights = self.x, self.runtime.flights
        failures = 0
        for round_number in range(_ROUNDS_MAX):
            if round_number:
                answer, own.generation = await self._look()
                if await self._replayed(answer, "coalesced"):
                    return
            flight = flights.get(self.cache_key)
            if flight is None or not flight.may_be_joined(x):
                x.cache = state
                flights[self.cache_key] = own
                if flight is not None or state == "refresh" or not await self._fetched_elsewhere(own):
                    await self._ride(own)
                return
            if flight.leader.streamed is x.streamed:
                failure = await self._follow(flight)
                if failure is None:
                    return
            else:
                failure = await self._wait_here(flight)
            if flight.is_left and self.runtime.now() < x.total_at:
                continue
            if failure is not None and self._is_anothers(failure, flight):
                continue
            failures += 1
            if failure is not None and (failures == TRIES or self._is_final(failure)):
                raise Rejected(failure)
            if failures == TRIES:
                break
        x.cache = state
        await self._ride(own)

    def _is_final(self, failure: Failure) -> bool:
        """Whether a call of one's own would fail as well, or there is no time for it."""
        if failure.kind is FailureKind.SHUTTING_DOWN or self.runtime.now() >= self.x.total_at:
            return True
        return failure.row.blame is Blame.CLIENT or failure.as_it_came

    def _is_anothers(self, failure: Failure, flight: Flight) -> bool:
        """Whether a flight was refused for a budget of its leader's virtual key, which says nothing of this caller's."""
        return failure.kind in _MONEY and flight.leader.principal.payers != self.x.principal.payers

    async def _fetched_elsewhere(self, flight: Flight) -> bool:
        """Wait for another instance that is at it, if one is. The flight is known here meanwhile: one asks for all."""
        if flight.generation is None:
            return False
        x, runtime = self.x, self.runtime
        try:
            while not await _is_ours(x, runtime, self.cache_key):
                within_s = max(x.total_at - runtime.now(), 0.0)
                held = await _wait_elsewhere(runtime, self.cache_key, within_s)
                if held is not None and await self._replayed(
                    held, "coalesced", before=lambda: _give_up(runtime, flight)
                ):
                    return True
                if held is not None or not within_s:
                    break
        except BaseException:
            _give_up(runtime, flight)
            let_go(x, runtime, self.cache_key)  # it may have been asked for, and the reply not have come yet
            raise
        return False

    async def _ride(self, flight: Flight) -> None:
        """Start one's own flight and read it. Its task settles the exchange."""
        flight.start(self.runtime, self.plan)
        flight.readers += 1
        try:
            failure = await read_recording(self.x, self.runtime, flight, self.downstream, self.watchdog)
        except BaseException:
            flight.leader_left = True
            raise
        finally:
            flight.leave()
        if failure is not None:
            raise Rejected(failure)

    async def _follow(self, flight: Flight) -> Failure | None:
        """Read somebody else's flight. A failure is one from before the first byte."""
        self.x.cache = "coalesced"
        flight.readers += 1
        try:
            return await read_recording(self.x, self.runtime, flight, self.downstream, self.watchdog)
        finally:
            flight.leave()

    async def _wait_here(self, flight: Flight) -> Failure | None:
        """The same question in the other form: wait until the answer is kept, which can be converted then."""
        self.x.cache = "coalesced"
        flight.readers += 1
        try:
            while not flight.recording.is_over:
                await flight.recording.changed()
            if flight.task is not None:
                await asyncio.wait([flight.task])
        finally:
            flight.leave()
        return None if flight.recording.is_complete else flight.recording.failure

    async def _replayed(
        self, answer: CachedAnswer | None, state: CacheState = "hit", before: Callable[[], None] | None = None
    ) -> bool:
        """Whether what is kept has answered. ``before``: done when it is clear that it will, before the client is asked to
        take it.
        """
        if answer is None or not _will_do(answer, self.control, self.runtime.wall()):
            return False
        return await Replay(self.x, self.runtime, self.downstream, self.watchdog).give(answer, state, before)

    async def _look(self) -> tuple[CachedAnswer | None, Generation | None]:
        try:
            recalled = await self.runtime.cache.get(self.cache_key)
        except StoreAway:
            return None, None
        return recalled.answer, recalled.generation


def _give_up(runtime: Runtime, flight: Flight) -> None:
    """It is not flown after all: whoever followed looks again."""
    if runtime.flights.get(flight.cache_key) is flight:
        del runtime.flights[flight.cache_key]
    flight.is_left = True
    flight.recording.fail(Failure(FailureKind.SERVER_ERROR, "It was fetched elsewhere."))


async def _is_ours(x: Exchange, runtime: Runtime, key: CacheKey) -> bool:
    """Whether nobody fetches it elsewhere. A store that is away knows of nobody."""
    try:
        return await runtime.cache.lease(key, x.booked_as, LEASE_S)
    except StoreAway:
        return True


async def _wait_elsewhere(runtime: Runtime, key: CacheKey, within_s: float) -> CachedAnswer | None:
    try:
        return await runtime.cache.wait(key, within_s)
    except StoreAway:
        return None


def _will_do(answer: CachedAnswer, control: CacheControl, now: float) -> bool:
    if control.fresh:
        return False
    return control.age_s_max is None or now - answer.stored_at_s <= control.age_s_max


def _key(x: Exchange, plan: Plan) -> CacheKey | None:
    """None: the answer is nobody else's."""
    if x.body is None or x.api in _NEVER:
        return None
    passed = {name for target in plan.targets for name in target.provider.pass_headers}
    found = cache_key.digest(
        x.account,
        plan.route or RouteName(plan.asked),
        x.api,
        x.body,
        params=plan.params if x.api in WITH_PARAMS else (),
        variants=cache_key.variants(x.headers, x.api, passed),
        alone=None if x.principal.shares_cache else x.principal.virtual_key,
    )
    return None if isinstance(found, Uncacheable) else found.text


def _not_cached() -> Failure:
    return Failure(
        FailureKind.NOT_CACHED,
        "No answer to this request is kept, and Cache-Control: only-if-cached asks for no other.",
    )
