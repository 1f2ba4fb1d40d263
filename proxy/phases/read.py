"""Reading a flight's recording to one client, from the first byte on, at the client's own pace."""

import asyncio

from proxy.core import headers as header_rules
from proxy.core.commitment import StreamTap
from proxy.core.cost import Charge
from proxy.core.dialect import DIALECTS
from proxy.core.failure import Failure, FailureKind
from proxy.phases.call import WITH_PARAMS
from proxy.phases.exchange import Bill, Exchange
from proxy.phases.flight import Flight, labels_of
from proxy.phases.replay import own_headers
from proxy.phases.runtime import Runtime
from proxy.phases.watchdog import WRITE_S
from proxy.ports import Downstream
from proxy.terms import Commitment, NanoUsd, PriceSource


async def read_recording(
    x: Exchange, runtime: Runtime, flight: Flight, downstream: Downstream, *, is_leader: bool
) -> Failure | None:
    """Pass the answer on until it is over. A failure is one from before anything was sent, which is not told yet.

    Errors: `ClientGone`. A follower's exchange is completed here; the leader's is its flight's.
    """
    recording = flight.recording
    while not recording.has_begun and not recording.is_over:
        await recording.changed()
    is_broken = recording.is_over and not recording.is_complete
    if not recording.has_begun or (is_broken and not is_leader):
        return recording.failure or Failure(FailureKind.TRUNCATED, "The shared answer broke off.")
    sent = recording.headers if is_leader else _follower_headers(x, runtime, flight)
    if not is_leader:
        x.commitment = Commitment.CONTENT
        x.status, x.first_event_at = recording.status, runtime.now()
    try:
        if recording.whole is not None:
            async with asyncio.timeout(WRITE_S):
                await downstream.answer(recording.status, sent, recording.whole)
        else:
            await _pass_on(x, flight, downstream, sent)
    except TimeoutError:
        downstream.abort()
        if is_leader:
            flight.leader_left = True
        else:
            x.failure = Failure(FailureKind.CLIENT_STALLED, "The client took no bytes for too long.")
            x.commitment = Commitment.BROKEN
        return None
    if not is_leader:
        _complete(x, flight)
    return None


async def _pass_on(x: Exchange, flight: Flight, downstream: Downstream, sent: list[tuple[str, str]]) -> None:
    recording = flight.recording
    tap = _usage_filter(x, flight)
    async with asyncio.timeout(WRITE_S):
        await downstream.begin(recording.status, sent)
    place = 0
    while True:
        while place < len(recording.chunks):
            data = recording.chunks[place]
            place += 1
            # The last word of a broken recording is the relay's own, and passes whatever the filter thinks of it.
            is_last_word = recording.is_over and not recording.is_complete and place == len(recording.chunks)
            if tap is not None and not is_last_word:
                data = tap.feed(data)
            if data:
                x.relayed_bytes += len(data)
                async with asyncio.timeout(WRITE_S):
                    await downstream.write(data)
        if recording.is_over:
            break
        await recording.changed()
    if recording.is_complete:
        await downstream.end()
    else:
        downstream.break_off()


def _usage_filter(x: Exchange, flight: Flight) -> StreamTap | None:
    """What withholds usage that this client did not ask for, though it was asked for in the one call."""
    if x.api not in WITH_PARAMS or x.wants_usage:
        return None
    asked = flight.leader.usage_asked or flight.leader.wants_usage
    return StreamTap(DIALECTS[x.api], choices=x.choices, withhold_usage=True) if asked else None


def _follower_headers(x: Exchange, runtime: Runtime, flight: Flight) -> list[tuple[str, str]]:
    kept = [(name, value) for name, value in flight.recording.headers if header_rules.is_kept(name)]
    target = flight.leader.target
    by = ("", "") if target is None else (target.provider.id, target.model)
    return [*kept, *own_headers(x, runtime, *by)]


def _complete(x: Exchange, flight: Flight) -> None:
    """A follower's part in the one answer: what it used, at no cost, and what it would have cost."""
    recording, leader = flight.recording, flight.leader
    x.commitment = Commitment.COMPLETE if recording.is_complete else Commitment.BROKEN
    if not recording.is_complete:
        x.failure = recording.failure or leader.failure
    bill = flight.bill or leader.bill
    if bill is not None:
        x.bill = Bill(bill.reported, bill.used, Charge(NanoUsd(0), PriceSource.FREE))
        x.saved_nanousd = bill.charge.cost_nanousd if recording.is_complete else NanoUsd(0)
    x.recalled = None if leader.target is None else labels_of(leader, leader.target)
