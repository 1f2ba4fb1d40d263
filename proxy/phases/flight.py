"""Single flight: requests that are the same share one call, from its first byte on.

The first one *leads*: its exchange is carried out by a task of its own and written to a `Recording`. Everybody, the leader
among them, reads the recording at their own pace, so that nobody waits for a slow client, and each may leave: the task
goes on as long as somebody reads. It settles the leader's exchange when it is over, with the one cost that there was, and
keeps the answer if it is whole. Across instances the leader holds a lease in the store.
"""

import asyncio
import re
from collections.abc import Coroutine
from typing import Final

import orjson

from proxy.core import headers as header_rules
from proxy.core.assembly import forms
from proxy.core.cache_policy import CachePolicy
from proxy.core.cache_selector import Labels
from proxy.core.cached_answer import BODY_BYTES_MAX, CachedAnswer, Form
from proxy.core.failure import Failure, FailureKind, Rejected
from proxy.core.routing import Plan, Target
from proxy.phases import carry
from proxy.phases.booking import tags_of
from proxy.phases.call import WITH_PARAMS
from proxy.phases.exchange import Bill, Exchange
from proxy.phases.recording import Recording
from proxy.phases.runtime import Runtime
from proxy.phases.settle import settle
from proxy.ports import StoreAway
from proxy.terms import CacheKey, Commitment, Generation, RouteName

LEASE_S: Final = 10.0
RENEW_S: Final = 3.0
AGAIN_S: Final = 0.2  # between two tries to give a lease back
_TOOLS: Final = re.compile(
    rb'"(?:tool_calls|function_call)"\s*:\s*[\[{]\s*["{]|"type"\s*:\s*"(?:[a-z_]*tool_use|[a-z_]+_call)"'
)


class Flight:
    """One call that is under way. ``generation`` None: its answer cannot be kept. ``readers``: who still wants it.

    ``is_left``: nobody flies it (any more), which says nothing of the answer. It is over soon, and joined by nobody.
    """

    __slots__ = (
        "bill",
        "cache_key",
        "generation",
        "is_left",
        "leader",
        "leader_left",
        "policy",
        "readers",
        "recording",
        "task",
    )

    def __init__(
        self, leader: Exchange, cache_key: CacheKey, policy: CachePolicy, generation: Generation | None
    ) -> None:
        self.leader = leader
        self.cache_key = cache_key
        self.policy = policy
        self.generation = generation
        self.recording = Recording()
        self.readers = 0
        self.is_left = False
        self.leader_left = False
        self.bill: Bill | None = None
        self.task: asyncio.Task[None] | None = None

    def start(self, runtime: Runtime, plan: Plan) -> None:
        self.leader.is_recorded = True
        self.task = _aloft(runtime, self.leader, _fly(self, runtime, plan))

    def leave(self) -> None:
        """One reader less. With the last one the call is given up, but where its answer is read to its end anyhow."""
        self.readers -= 1
        if not self.readers and not self.recording.is_over and self.task is not None and not self.leader.outlives:
            self.is_left = True
            self.task.cancel()

    def may_be_joined(self, x: Exchange) -> bool:
        """Whether what comes of it will do for another exchange with the same key."""
        leader, body = self.leader, self.leader.body
        if self.is_left or self.recording.is_large:
            return False
        if x.streamed and not leader.streamed and not forms.has_stream(x.api):
            return False
        # A leader who says in its `stream_options` that it wants no usage is not overruled.
        is_silent = leader.streamed and not leader.wants_usage and body is not None and "stream_options" in body.fields
        return not (is_silent and x.api in WITH_PARAMS and (x.wants_usage or not x.streamed))


async def _fly(flight: Flight, runtime: Runtime, plan: Plan) -> None:
    """Carry the leader's exchange out, settle it, and keep its answer."""
    x, recording = flight.leader, flight.recording
    renewing = asyncio.create_task(_renew(flight, runtime))
    try:
        try:
            await carry.carry(x, runtime, plan, recording)
        except Rejected as rejected:
            x.failure, x.status = rejected.failure, rejected.failure.status
        except asyncio.CancelledError:
            flight.is_left = flight.leader_left = True
        except Exception as error:  # noqa: BLE001 - a task of the loop: where its bug ends, and is told
            runtime.log.bug(x.id, error)
            x.failure = Failure(
                FailureKind.INTERNAL, f"Penstock failed on this request; the log has more under {x.id}."
            )
            x.status = x.failure.status
        if flight.leader_left and x.failure is None and x.commitment is not Commitment.COMPLETE:
            x.failure = Failure(FailureKind.CLIENT_GONE, "Everybody who wanted the answer has left.")
            x.status = x.failure.status
    finally:
        renewing.cancel()
        try:
            settle(x, runtime)
            flight.bill = x.bill
        finally:  # whatever becomes of the books, nobody waits for a flight that is over
            _end(flight, runtime)
    await _keep(flight, runtime)


def _end(flight: Flight, runtime: Runtime) -> None:
    x, recording = flight.leader, flight.recording
    if runtime.flights.get(flight.cache_key) is flight:
        del runtime.flights[flight.cache_key]
    if not recording.is_over or (x.failure is not None and recording.failure is None):
        recording.fail(x.failure or Failure(FailureKind.INTERNAL, "The answer ended without a word."))


async def _keep(flight: Flight, runtime: Runtime) -> None:
    answer = _kept(flight, runtime)
    try:
        if answer is not None:
            await runtime.cache.put(flight.cache_key, answer)
    except StoreAway as away:
        runtime.log.event("cache: an answer could not be kept", error=str(away))
    await _released(flight.leader, runtime, flight.cache_key)


def let_go(x: Exchange, runtime: Runtime, cache_key: CacheKey) -> None:
    """Give a lease back that `x` may have taken before it was cancelled."""
    _aloft(runtime, x, _released(x, runtime, cache_key))


async def _released(x: Exchange, runtime: Runtime, cache_key: CacheKey) -> None:
    """Until the store has heard it: whoever asks the same would wait for nobody as long as the lease has time."""
    until = runtime.now() + LEASE_S
    while True:
        try:
            await runtime.cache.release(cache_key, x.booked_as)
        except StoreAway as away:
            if runtime.now() >= until:
                runtime.log.event("cache: a lease could not be given back", error=str(away))
                return
        else:
            return
        await asyncio.sleep(AGAIN_S)


def _aloft(runtime: Runtime, x: Exchange, doing: Coroutine[None, None, None]) -> "asyncio.Task[None]":
    task = asyncio.create_task(doing)
    runtime.flying.add(task)
    task.add_done_callback(lambda done: _landed(x, runtime, done))
    return task


def _landed(x: Exchange, runtime: Runtime, task: asyncio.Task[None]) -> None:
    runtime.flying.discard(task)
    error = None if task.cancelled() else task.exception()
    if error is not None:
        runtime.log.bug(x.id, error)


async def landed(runtime: Runtime, within_s: float) -> None:
    """Wait for the flights that nobody waits for: their readers are gone, and what came is still to be kept."""
    if runtime.flying:
        await asyncio.wait(tuple(runtime.flying), timeout=within_s)


async def _renew(flight: Flight, runtime: Runtime) -> None:
    """Keep the lease: whoever waits for it elsewhere takes over soon after this process has died."""
    while True:
        await asyncio.sleep(RENEW_S)
        try:
            await runtime.cache.lease(flight.cache_key, flight.leader.booked_as, LEASE_S)
        except StoreAway:
            continue  # somebody else may fetch it meanwhile, which costs a call and does no harm


def _kept(flight: Flight, runtime: Runtime) -> CachedAnswer | None:
    """The answer as it is kept; None for one that is not whole, failed, is too large, or calls tools against the policy."""
    x, recording = flight.leader, flight.recording
    whole = recording.is_complete and x.failure is None and recording.status == 200
    if not whole or flight.generation is None or x.target is None or recording.bytes > BODY_BYTES_MAX:
        return None
    body = recording.whole if recording.whole is not None else b"".join(recording.chunks)
    if not flight.policy.tool_calls and _TOOLS.search(body):
        return None
    pairs = [(name, value) for name, value in recording.headers if header_rules.is_kept(name)]
    content_type = next((value for name, value in pairs if name.lower() == "content-type"), "application/json")
    return CachedAnswer(
        api=x.api,
        form=Form.STREAM if x.streamed else Form.JSON,
        status=recording.status,
        content_type=content_type,
        headers=tuple(pair for pair in pairs if pair[0].lower() != "content-type"),
        body=body,
        usage=None if x.figures is None else orjson.dumps(x.figures),
        usage_asked=x.usage_asked or x.wants_usage,
        cost_nanousd=None if x.bill is None else x.bill.charge.cost_nanousd,
        labels=labels_of(x, x.target),
        stored_at_s=runtime.wall(),
        ttl_s=flight.policy.ttl_s,
        generation=flight.generation,
    )


def labels_of(x: Exchange, target: Target) -> Labels:
    """What the answer of an exchange is selected by."""
    route = RouteName("") if x.plan is None else x.plan.route or RouteName(x.plan.asked)
    tags = tuple(f"{name}={value}" for name, value in tags_of(x))
    return Labels(route, x.account, target.provider.id, target.model, tags)
