"""Phase 5, recall: do we hold this answer, or is someone fetching it? Else it is fetched for all who ask for the same.

The place for answers to questions that are alike and not the same (`semantic`) is here, behind the exact look-up: a key
has its question apart from its scope and settings for that.
"""

import asyncio
from typing import Final

from proxy.core import cache_control, cache_key
from proxy.core.cache_control import CacheControl
from proxy.core.cache_key import Uncacheable
from proxy.core.cache_policy import CachePolicy
from proxy.core.cached_answer import CachedAnswer
from proxy.core.failure import Blame, Failure, FailureKind, Rejected
from proxy.core.routing import Plan
from proxy.phases.call import WITH_PARAMS
from proxy.phases.exchange import Exchange
from proxy.phases.flight import LEASE_S, Flight
from proxy.phases.read import read_recording
from proxy.phases.replay import replay
from proxy.phases.runtime import Runtime
from proxy.ports import Downstream, StoreAway
from proxy.terms import Api, CacheKey, Generation, RouteName

TRIES: Final = 2  # as a follower of somebody who fails; after those the failure is told
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
    answer, generation = await _look(runtime, key)
    if (
        answer is not None
        and _will_do(answer, control, runtime.wall())
        and await replay(x, runtime, answer, downstream)
    ):
        return True
    if control.only_kept:
        x.cache = "miss"
        raise Rejected(_not_cached())
    own = Flight(x, key, policy, generation)
    if control.fresh or answer is not None:
        x.cache = "refresh"
        runtime.flights[key] = own
        await _ride(x, runtime, plan, own, downstream)
    else:
        await _share(x, runtime, plan, own, downstream)
    return True


async def _share(x: Exchange, runtime: Runtime, plan: Plan, own: Flight, downstream: Downstream) -> None:
    """Follow whoever fetches it, here or elsewhere; lead where nobody does, or where those have failed."""
    for attempt in range(TRIES):
        if attempt:
            answer, own.generation = await _look(runtime, own.cache_key)
            if answer is not None and await replay(x, runtime, answer, downstream, state="coalesced"):
                return
        flight = runtime.flights.get(own.cache_key)
        if flight is None:
            runtime.flights[own.cache_key] = own
            if not await _fetched_elsewhere(x, runtime, own, downstream):
                await _ride(x, runtime, plan, own, downstream)
            return
        if flight.leader.streamed is not x.streamed:
            if await _wait_here(x, runtime, flight, downstream):
                return
            continue
        failure = await _follow(x, runtime, flight, downstream)
        if failure is None:
            return
        if failure.row.blame is Blame.CLIENT or failure.as_it_came or attempt + 1 == TRIES:
            raise Rejected(failure)
    x.cache = "miss"
    await _ride(x, runtime, plan, own, downstream)


async def _fetched_elsewhere(x: Exchange, runtime: Runtime, flight: Flight, downstream: Downstream) -> bool:
    """Wait for another instance that is at it, if one is. The flight is known here meanwhile: one asks for all."""
    x.cache = "miss"
    if flight.generation is None:
        return False
    try:
        while not await _is_ours(x, runtime, flight.cache_key):
            within_s = max(x.total_at - runtime.now(), 0.0)
            held = await _wait_elsewhere(runtime, flight.cache_key, within_s)
            if held is not None and await replay(x, runtime, held, downstream, state="coalesced"):
                _give_up(runtime, flight)
                return True
            if held is not None or not within_s:
                break
    except BaseException:
        _give_up(runtime, flight)
        raise
    return False


def _give_up(runtime: Runtime, flight: Flight) -> None:
    """It is not flown after all: whoever followed already finds the answer in the cache."""
    if runtime.flights.get(flight.cache_key) is flight:
        del runtime.flights[flight.cache_key]
    flight.recording.fail(Failure(FailureKind.SERVER_ERROR, "It was fetched elsewhere."))


async def _ride(x: Exchange, runtime: Runtime, plan: Plan, flight: Flight, downstream: Downstream) -> None:
    """Start one's own flight and read it. Its task settles the exchange."""
    flight.start(runtime, plan)
    flight.readers += 1
    try:
        failure = await read_recording(x, runtime, flight, downstream, is_leader=True)
    except BaseException:
        flight.leader_left = True
        raise
    finally:
        flight.leave()
    if failure is not None:
        raise Rejected(failure)


async def _follow(x: Exchange, runtime: Runtime, flight: Flight, downstream: Downstream) -> Failure | None:
    """Read somebody else's flight. A failure is one from before the first byte."""
    x.cache = "coalesced"
    flight.readers += 1
    try:
        return await read_recording(x, runtime, flight, downstream, is_leader=False)
    finally:
        flight.leave()


async def _wait_here(x: Exchange, runtime: Runtime, flight: Flight, downstream: Downstream) -> bool:
    """The same question in the other form: the answer is converted once it is there."""
    flight.readers += 1
    try:
        if flight.task is not None:
            await asyncio.wait([flight.task])
        else:
            while not flight.recording.is_over:
                await flight.recording.changed()
    finally:
        flight.leave()
    answer, _ = await _look(runtime, flight.cache_key)
    return answer is not None and await replay(x, runtime, answer, downstream, state="coalesced")


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


async def _look(runtime: Runtime, key: CacheKey) -> tuple[CachedAnswer | None, Generation | None]:
    try:
        recalled = await runtime.cache.get(key)
    except StoreAway:
        return None, None
    return recalled.answer, recalled.generation


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
    )
    return None if isinstance(found, Uncacheable) else found.text


def _not_cached() -> Failure:
    return Failure(
        FailureKind.NOT_CACHED,
        "No answer to this request is kept, and Cache-Control: only-if-cached asks for no other.",
    )
