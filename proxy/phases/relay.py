"""Phase 7, relay: carry the bytes, and know how it ended.

The hot loop: one read, one write. Nothing in it decodes, logs or counts beyond local names; the tap looks at bytes, and
decodes only an event that carries a marker.
"""

import asyncio
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

from proxy.core import error_body, headers, usage
from proxy.core.budget import usd
from proxy.core.commitment import PlainTap, StreamTap
from proxy.core.failure import Failure, FailureKind
from proxy.core.routing import Target
from proxy.phases import stream_cost
from proxy.phases.admit import limit_headers
from proxy.phases.bill import bill
from proxy.phases.booking import cost_of
from proxy.phases.exchange import Exchange
from proxy.phases.judge import Opening, stream_failure, wire_failure
from proxy.phases.runtime import Runtime
from proxy.phases.watchdog import Watchdog
from proxy.ports import Fault, Outlet, Reply
from proxy.terms import Api, Commitment

LAST_WORDS_S: Final = 0.1


@dataclass(slots=True)
class Relay:
    """One answer on its way to the client."""

    x: Exchange
    runtime: Runtime
    opening: Opening
    downstream: Outlet
    watchdog: Watchdog

    async def run(self) -> None:
        """Send the answer that has begun. Raises `ClientGone`; whatever happens, the upstream's reply is let go of."""
        x, opening = self.x, self.opening
        now = self.runtime.now()
        if x.outlives:
            self.downstream.outlive()
        x.target = opening.target
        x.status = opening.reply.status
        x.first_event_at = now
        x.commitment = Commitment.CONTENT
        x.overhead_s = now - x.started - x.upstream_wait_s
        if usage.COST_HEADER in opening.reply.headers:
            x.reported_cost = usage.cost_in_headers(opening.reply.headers)
        if opening.tap is None:
            x.bill = bill(x, whole=True)
        sent = [
            *headers.to_client(opening.reply.header_pairs, opening.target.provider.secrets),
            *_own_headers(x, opening.target),
        ]
        if "content-type" not in opening.reply.headers and x.api is not Api.PASSTHROUGH:
            sent.append(("content-type", "application/json" if opening.tap is None else "text/event-stream"))
        if isinstance(opening.tap, PlainTap) and "content-encoding" not in opening.reply.headers:
            sent += _length(opening.reply)
        self.watchdog.relay(now)
        self.watchdog.writing_since = now
        try:
            if opening.tap is None:
                await self._send_whole(sent)
            else:
                await self._send_stream(opening.tap, sent)
        finally:
            if x.commitment is Commitment.COMPLETE:
                opening.reply.finish()
            else:
                opening.reply.close()

    async def _send_whole(self, sent: list[tuple[str, str]]) -> None:
        self.x.relayed_bytes = len(self.opening.held)
        try:
            await self.downstream.answer(self.x.status, sent, self.opening.held)
        except asyncio.CancelledError:
            if self.watchdog.claim() is None:
                raise
            self._give_up_on_client()
            return
        self.x.commitment = Commitment.COMPLETE

    async def _send_stream(self, tap: StreamTap | PlainTap, sent: list[tuple[str, str]]) -> None:
        try:
            await self.downstream.begin(self.x.status, sent)
            failure = await self._carry(tap)
        except asyncio.CancelledError:
            kind = self.watchdog.claim()
            if kind is None:
                raise
            if kind is FailureKind.CLIENT_STALLED:
                self._give_up_on_client()
                return
            failure = None if tap.complete else _out_of_time(self.opening.target, kind)
        finally:
            self.x.figures, self.x.data_events = tap.figures, tap.data_events
            self.x.answer_whole = tap.done or tap.ending  # whatever the client or the connection did then
        if failure is None:
            self.x.answer_whole = True
            await self.downstream.end()
            self.x.commitment = Commitment.COMPLETE
            if tap.failed:  # the API's own ending says so, and the client has it
                self.x.failure = stream_failure(self.runtime, self.opening.target, tap)
        else:
            await self._break_off(tap, failure)

    async def _carry(self, tap: StreamTap | PlainTap) -> Failure | None:
        """Relay until the stream ends; None where it ended well."""
        watchdog, opening = self.watchdog, self.opening
        read, feed, write, now = opening.reply.read, tap.feed, self.downstream.write, self.runtime.now
        data = opening.held
        ended = opening.ended
        events = tap.data_events
        relayed = 0
        fault: Fault | None = None
        tells_cost = isinstance(tap, StreamTap) and not self.x.is_recorded and stream_cost.is_asked(self.x)
        try:
            while True:
                if tells_cost and (tap.done or ended) and tap.complete and tap.on_boundary:
                    tells_cost = False
                    self.x.figures, self.x.data_events, self.x.relayed_bytes = tap.figures, events, relayed
                    data = stream_cost.with_cost(self.x, data)
                if data:
                    relayed += len(data)
                    watchdog.writing_since = now()
                    await write(data)
                    watchdog.writing_since = 0.0
                if ended or tap.done or tap.fault is not None:
                    break
                chunk = await (self._last_words() if tap.ending else read())
                if isinstance(chunk, Fault):
                    fault = chunk
                    ended, data = True, tap.finish(clean=False)
                    continue
                at = watchdog.last_byte_at = now()
                if chunk:
                    data = feed(chunk)
                else:
                    ended, data = True, tap.finish(clean=True)
                if tap.data_events != events:
                    events = tap.data_events
                    watchdog.last_event_at = at
        finally:
            self.x.relayed_bytes = relayed
        if tap.complete:
            return None
        if fault is not None:
            return wire_failure(opening.target, fault)
        return stream_failure(self.runtime, opening.target, tap)

    async def _last_words(self) -> bytes | Fault:
        """What comes behind an API's own last event: its `[DONE]` and the end, if they come at once."""
        try:
            async with asyncio.timeout(LAST_WORDS_S):
                return await self.opening.reply.read()
        except TimeoutError:
            return b""

    async def _break_off(self, tap: StreamTap | PlainTap, failure: Failure) -> None:
        """STREAM-ERR: tell the client in the stream, and end the connection so that it notices even if it does not read."""
        self.opening.reply.close()
        self.x.failure = failure
        self.x.attempts[-1].failure = failure
        self.x.commitment = Commitment.BROKEN
        if tap.on_boundary:
            self.watchdog.writing_since = self.runtime.now()
            await self.downstream.write(error_body.event(failure, self.x.api, tap.data_events))
        self.downstream.break_off()

    def _give_up_on_client(self) -> None:
        self.x.commitment = Commitment.BROKEN
        self.x.failure = Failure(
            FailureKind.CLIENT_STALLED, "The client took no bytes for too long.", target=self.opening.target.name
        )
        self.downstream.abort()


# Everything that a header value may hold; model names of other alphabets are percent-encoded.
_SHOWN_AS_THEY_ARE: Final = "".join(chr(code) for code in range(0x21, 0x7F))


def _length(reply: Reply) -> list[tuple[str, str]]:
    """Of bytes that pass as they are: only by their length an HTTP/1.0 client can tell a cut from the end."""
    length = reply.headers.get("content-length", "")
    return [("content-length", length)] if length.isascii() and length.isdecimal() else []


def _out_of_time(target: Target, kind: FailureKind) -> Failure:
    if kind is FailureKind.SHUTTING_DOWN:
        return Failure(kind, "Penstock is shutting down; the answer is incomplete.", target=target.name)
    what = "sent nothing for too long" if kind is FailureKind.STALLED else "took longer than the request may take"
    return Failure(kind, f"{target.name} {what}; the answer is incomplete.", target=target.name)


def _own_headers(x: Exchange, target: Target) -> list[tuple[str, str]]:
    route = x.plan.route if x.plan is not None else None
    own = [
        ("server", "penstock"),
        ("x-request-id", x.id),
        ("x-penstock-provider", target.provider.id),
        ("x-penstock-model", target.model if target.model.isascii() else quote(target.model, safe=_SHOWN_AS_THEY_ARE)),
        ("x-penstock-attempts", str(len(x.attempts))),
        ("x-penstock-cache", x.cache),
        ("x-penstock-overhead-ms", f"{(x.overhead_s or 0.0) * 1000:.2f}"),
    ]
    if route is not None:
        own.append(("x-penstock-route", route))
    cap = x.attempts[-1].quote.output_cap
    if cap is not None:
        own.append(("x-penstock-output-cap", str(cap)))
    if x.bill is not None:
        own.append(("x-penstock-cost-usd", usd(cost_of(x))))
    return own if x.limits is None else own + limit_headers(x)
