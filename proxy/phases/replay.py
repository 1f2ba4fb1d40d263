"""An answer that is kept, given again: byte for byte, or in its other form."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from proxy.core.assembly import forms
from proxy.core.budget import usd
from proxy.core.cached_answer import CachedAnswer, Form
from proxy.core.cost import Charge
from proxy.core.ledger import CacheState
from proxy.phases import stream_cost
from proxy.phases.call import WITH_PARAMS
from proxy.phases.exchange import Bill, Exchange
from proxy.phases.giving import cut_short, is_broken, out_of_time, own_headers
from proxy.phases.runtime import Runtime
from proxy.phases.watchdog import Watchdog
from proxy.ports import Downstream
from proxy.terms import Commitment, NanoUsd, PriceSource, Usage

PACE_S: Final = 0.01  # between two events of a paced replay: a hundred tokens a second
_FREE: Final = Charge(NanoUsd(0), PriceSource.FREE)
_NOTHING_USED: Final = Usage(0, 0)


@dataclass(slots=True, unsafe_hash=True)  # not frozen, as `LedgerRow`
class Replay:
    """What an exchange gives a kept answer with. ``watchdog``: over its own task."""

    x: Exchange
    runtime: Runtime
    downstream: Downstream
    watchdog: Watchdog

    async def give(
        self, answer: CachedAnswer, state: CacheState = "hit", before: Callable[[], None] | None = None
    ) -> bool:
        """Give a kept answer. False: it has no form that this client asks for. Errors: `ClientGone`.

        ``before``: called when it is clear that it will be given, and nothing is written yet.
        """
        x, runtime = self.x, self.runtime
        streams = x.streamed and (answer.form is Form.STREAM or forms.has_stream(x.api))
        body = _body(x, answer, streams=streams)
        if body is None:
            return False
        if before is not None:
            before()
        now = runtime.now()
        x.cache, x.recalled = state, answer.labels
        x.status, x.first_event_at, x.commitment = answer.status, now, Commitment.CONTENT
        x.overhead_s = now - x.started
        x.bill = _bill(answer)
        x.saved_nanousd = answer.cost_nanousd or NanoUsd(0)
        if streams and stream_cost.is_asked(x):
            body = stream_cost.with_cost(x, body)
        content_type = "text/event-stream" if streams else "application/json"
        if streams is (answer.form is Form.STREAM):
            content_type = answer.content_type
        age_s = max(0, int(runtime.wall() - answer.stored_at_s))
        own = own_headers(x, runtime, answer.labels.provider, answer.labels.model)
        sent = [*answer.headers, ("content-type", content_type), *own, ("age", str(age_s))]
        x.relayed_bytes = len(body)
        if streams:
            await self._stream(answer.status, sent, body)
        else:
            sent.append(("x-penstock-cost-usd", usd(0)))
            await self._whole(answer.status, sent, body)
        return True

    async def _whole(self, status: int, sent: list[tuple[str, str]], body: bytes) -> None:
        x = self.x
        self.watchdog.writing_since = self.runtime.now()
        try:
            await self.downstream.answer(status, sent, body)
        except asyncio.CancelledError:
            kind = self.watchdog.claim()
            if kind is None:
                raise
            is_broken(x, out_of_time(kind))
            self.downstream.abort()
            return
        x.commitment = Commitment.COMPLETE

    async def _stream(self, status: int, sent: list[tuple[str, str]], body: bytes) -> None:
        x, runtime, watchdog = self.x, self.runtime, self.watchdog
        policy = x.plan.cache if x.plan is not None else None
        paced = policy is not None and policy.paced
        last, events = b"\n\n", 0
        watchdog.writing_since = runtime.now()
        try:
            await self.downstream.begin(status, sent)
            for last in _events(body) if paced else (body,):
                watchdog.writing_since = runtime.now()
                await self.downstream.write(last)
                events += 1
                watchdog.writing_since = 0.0
                if paced:
                    await asyncio.sleep(PACE_S)
            watchdog.writing_since = runtime.now()
            await self.downstream.end()
        except asyncio.CancelledError:
            kind = watchdog.claim()
            if kind is None:
                raise
            is_broken(x, failure := out_of_time(kind))
            await cut_short(x, runtime, failure, self.downstream, watchdog, last=last, events=events)
            return
        x.commitment = Commitment.COMPLETE


def _events(body: bytes) -> list[bytes]:
    """The events with their blank lines; what is behind the last one, whole or not, is one more."""
    parts = body.split(b"\n\n")
    return [*(part + b"\n\n" for part in parts[:-1]), *filter(None, parts[-1:])]


def _body(x: Exchange, answer: CachedAnswer, *, streams: bool) -> bytes | None:
    """The bytes for this client; None where the answer has no such form."""
    if x.streamed and not streams:
        return None
    if answer.form is Form.STREAM and _lacks_usage(x, answer):
        return None
    if not streams:
        return answer.body if answer.form is Form.JSON else forms.to_json(x.api, answer.body)
    if answer.form is Form.JSON:
        return forms.to_stream(x.api, answer.body, include_usage=x.wants_usage)
    return answer.body if x.wants_usage or not answer.usage_asked else forms.without_usage(x.api, answer.body)


def _lacks_usage(x: Exchange, answer: CachedAnswer) -> bool:
    """Whether the provider would have told this client of usage, and was kept from it by the one who asked."""
    wants = x.wants_usage or not x.streamed
    return wants and x.api in WITH_PARAMS and answer.usage is None and not answer.usage_asked


def _bill(answer: CachedAnswer) -> Bill:
    return Bill(answer.reported, answer.reported or _NOTHING_USED, _FREE)
