"""Reading a flight's recording to one client, from the first byte on, at the client's own pace.

A reader has bounds of its own: a client that takes nothing is dropped, and a follower waits no longer than its own
deadline, whatever the leader's is. The leader's deadline is its flight's, which tells of it.
"""

import asyncio

from proxy.core import headers as header_rules
from proxy.core.budget import usd
from proxy.core.commitment import StreamTap
from proxy.core.cost import Charge
from proxy.core.dialect import DIALECTS
from proxy.core.failure import Failure, FailureKind
from proxy.phases import stream_cost
from proxy.phases.call import WITH_PARAMS
from proxy.phases.exchange import Bill, Exchange
from proxy.phases.flight import Flight, labels_of
from proxy.phases.giving import cut_short, is_broken, out_of_time, own_headers
from proxy.phases.recording import Recording
from proxy.phases.runtime import Runtime
from proxy.phases.watchdog import Watchdog
from proxy.ports import Downstream
from proxy.terms import Commitment, NanoUsd, PriceSource


async def read_recording(
    x: Exchange, runtime: Runtime, flight: Flight, downstream: Downstream, watchdog: Watchdog
) -> Failure | None:
    """Pass the answer on until it is over. A failure is one from before anything was sent, which is not told yet.

    Errors: `ClientGone`. A follower's exchange is completed here; the leader's is its flight's.
    """
    recording, is_leader = flight.recording, flight.leader is x
    failure = await _begun(x, flight, watchdog)
    if failure is not None:
        return failure
    if not is_leader:
        x.commitment = Commitment.CONTENT
        x.status, x.first_event_at = recording.status, runtime.now()
    giving = _Giving(x, runtime, flight, downstream, watchdog)
    try:
        await giving.run()
    except asyncio.CancelledError:
        kind = watchdog.claim()
        if kind is None:
            raise
        failure = out_of_time(kind)
        if not is_leader:
            is_broken(x, failure)
        elif kind is FailureKind.CLIENT_STALLED:
            flight.leader_left = True
        last, events = giving.last, giving.events
        await cut_short(x, runtime, failure, downstream, watchdog, last=last, events=events)
        if is_leader and kind is FailureKind.SHUTTING_DOWN:
            await _over(recording)  # or its flight would seem to be left by everybody
    return None


async def _begun(x: Exchange, flight: Flight, watchdog: Watchdog) -> Failure | None:
    """Wait for the first bytes; or why there will be none."""
    recording, is_leader = flight.recording, flight.leader is x
    if is_leader:
        watchdog.total_at = float("inf")
    try:
        while not recording.has_begun and not recording.is_over:
            await recording.changed()
    except asyncio.CancelledError:
        kind = watchdog.claim()
        if kind is None:
            raise
        if not is_leader:
            return out_of_time(kind)
        await _over(recording)  # its flight has heard of it too
    broke_early = recording.is_over and not recording.is_complete
    if recording.has_begun and (is_leader or not broke_early):
        return None
    return recording.failure or Failure(FailureKind.TRUNCATED, "The shared answer broke off.")


async def _over(recording: Recording) -> None:
    while not recording.is_over:
        await recording.changed()


class _Giving:
    """One client's copy. ``last``: what was written last; ``events``: how many there were up to it."""

    __slots__ = ("_downstream", "_flight", "_runtime", "_watchdog", "_x", "events", "last")

    def __init__(
        self, x: Exchange, runtime: Runtime, flight: Flight, downstream: Downstream, watchdog: Watchdog
    ) -> None:
        self._x = x
        self._runtime = runtime
        self._flight = flight
        self._downstream = downstream
        self._watchdog = watchdog
        self.last = b"\n\n"
        self.events = 0

    async def run(self) -> None:
        x, recording, downstream = self._x, self._flight.recording, self._downstream
        is_leader = self._flight.leader is x
        sent = recording.headers if is_leader else _follower_headers(x, self._runtime, self._flight)
        self._watchdog.writing_since = self._runtime.now()
        if recording.whole is not None:
            if not is_leader:
                sent.append(("x-penstock-cost-usd", usd(0)))
            await downstream.answer(recording.status, sent, recording.whole)
        else:
            await downstream.begin(recording.status, sent)
            await self._pass_on()
            self._watchdog.writing_since = self._runtime.now()
            await self._end()
        if not is_leader:
            _complete(x, self._flight)

    async def _pass_on(self) -> None:
        x, flight = self._x, self._flight
        recording = flight.recording
        tap = _usage_filter(x, flight)
        tells_cost = x.streamed and x.api in DIALECTS and stream_cost.is_asked(x)
        reading = recording.read()
        try:
            while True:
                while (data := reading.next()) is not None:
                    # The last word of a broken recording is the relay's own, and passes whatever the filter thinks of it.
                    is_last = recording.is_over and reading.is_at_end
                    if tap is not None and (recording.is_complete or not is_last):
                        data = tap.feed(data)
                    if tells_cost and is_last and recording.is_complete:
                        data, tells_cost = self._with_cost(data), False
                    await self._write(data)
                if recording.is_over:
                    break
                self._watchdog.writing_since = 0.0
                await recording.changed()
        finally:
            reading.close()
        if tells_cost and recording.is_complete:
            await self._write(self._with_cost(b""))

    async def _write(self, data: bytes) -> None:
        if data:
            if self._flight.leader is not self._x:
                self._x.relayed_bytes += len(data)
            self.last = data
            self.events += data.count(b"\n\n")
            self._watchdog.writing_since = self._runtime.now()
            await self._downstream.write(data)

    async def _end(self) -> None:
        if self._flight.recording.is_complete:
            await self._downstream.end()
        else:
            self._downstream.break_off()

    def _with_cost(self, data: bytes) -> bytes:
        """The flight is over, and so the leader billed; a follower's part costs nothing."""
        if self._flight.leader is not self._x:
            self._x.bill = _share_of(self._flight)
        return data if self._x.bill is None else stream_cost.with_cost(self._x, data)


def _usage_filter(x: Exchange, flight: Flight) -> StreamTap | None:
    """What withholds usage that this client did not ask for, though it was asked for in the one call."""
    if x.api not in WITH_PARAMS or not x.streamed or x.wants_usage:
        return None
    asked = flight.leader.usage_asked or flight.leader.wants_usage
    return StreamTap(DIALECTS[x.api], choices=x.choices, withhold_usage=True) if asked else None


def _follower_headers(x: Exchange, runtime: Runtime, flight: Flight) -> list[tuple[str, str]]:
    kept = [(name, value) for name, value in flight.recording.headers if header_rules.is_kept(name)]
    target = flight.leader.target
    by = ("", "") if target is None else (target.provider.id, target.model)
    return [*kept, *own_headers(x, runtime, *by)]


def _share_of(flight: Flight) -> Bill | None:
    """A follower's part in the one answer: what it used, at no cost."""
    bill = flight.bill or flight.leader.bill
    return None if bill is None else Bill(bill.reported, bill.used, Charge(NanoUsd(0), PriceSource.FREE))


def _complete(x: Exchange, flight: Flight) -> None:
    """The follower's own end: what it used, and what it would have cost."""
    recording, leader = flight.recording, flight.leader
    x.commitment = Commitment.COMPLETE if recording.is_complete else Commitment.BROKEN
    x.failure = leader.failure if recording.is_complete else recording.failure or leader.failure
    x.bill = _share_of(flight)
    bill = flight.bill or leader.bill
    if bill is not None and recording.is_complete:
        x.saved_nanousd = bill.charge.cost_nanousd
    x.recalled = None if leader.target is None else labels_of(leader, leader.target)
