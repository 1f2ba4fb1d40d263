"""Spans on their way to an OTLP collector, by HTTP.

The SDK is used for what is standard: its sampler, its batches and its exporter, each with their `OTEL_*` variables. Spans
are not kept open in it: they are made when an exchange is over, in a thread of ours, and handed to its batches, whose queue
is bounded and which have a thread of their own. A collector that is away costs spans, and a line in the log a minute.

Imported only where traces are wanted: the packages are those of the extra `otel`.
"""

import asyncio
import logging
import queue
import random
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import Decision
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, set_span_in_context
from opentelemetry.trace import SpanKind as OtelKind
from opentelemetry.trace.status import Status, StatusCode

from proxy.core import redact
from proxy.core.trace import Parent, SpanKind, TraceContext, TraceSpan, parent_of
from proxy.ports import ExchangeLog

EXCHANGES_MAX: Final = 2048  # that wait for their spans to be made
CLOSE_S: Final = 2.0  # for the last spans when the process ends
TOLD_EVERY_S: Final = 60.0

_KINDS: Final = {SpanKind.SERVER: OtelKind.SERVER, SpanKind.CLIENT: OtelKind.CLIENT}
_SAMPLED: Final = TraceFlags(TraceFlags.SAMPLED)


class Traces:
    """A `Tracer`. Made in the event loop; `close` after the last exchange."""

    def __init__(self, endpoint: str, version: str, log: ExchangeLog, rng: random.Random) -> None:
        named = Resource({"service.name": "penstock", "service.version": version})
        resource = named.merge(OTELResourceDetector().detect())
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._processor = BatchSpanProcessor(OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces"))
        self._scope = InstrumentationScope("penstock", version)
        self._rng = rng
        self._complaints = _Complaints(log, asyncio.get_running_loop())
        self._logger = logging.getLogger("opentelemetry")
        self._logger.addHandler(self._complaints)
        self._queue: queue.SimpleQueue[Callable[[], Sequence[TraceSpan]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._make, name="traces", daemon=True)
        self._thread.start()

    def begin(self, traceparent: str | None) -> TraceContext:
        parent = parent_of(traceparent)
        trace_id = self._rng.getrandbits(128) or 1 if parent is None else parent.trace_id
        above = None if parent is None else set_span_in_context(NonRecordingSpan(_context(parent)))
        sampled = (
            self._provider.sampler.should_sample(above, trace_id, "exchange").decision is Decision.RECORD_AND_SAMPLE
        )
        return TraceContext(trace_id, self.span_id(), None if parent is None else parent.span_id, sampled)

    def span_id(self) -> int:
        return self._rng.getrandbits(64) or 1

    def ended(self, tell: Callable[[], Sequence[TraceSpan]]) -> None:
        if self._queue.qsize() < EXCHANGES_MAX:
            self._queue.put(tell)

    def close(self) -> None:
        self._queue.put(None)
        self._thread.join(CLOSE_S)
        self._logger.removeHandler(self._complaints)

    def _make(self) -> None:
        while (tell := self._queue.get()) is not None:
            for span in tell():
                self._processor.on_end(self._made(span))
        self._processor.shutdown()  # type: ignore[no-untyped-call]  # the SDK's own has no annotation

    def _made(self, span: TraceSpan) -> ReadableSpan:
        context = SpanContext(span.trace_id, span.span_id, is_remote=False, trace_flags=_SAMPLED)
        parent = (
            None
            if span.parent_id is None
            else SpanContext(span.trace_id, span.parent_id, is_remote=span.remote, trace_flags=_SAMPLED)
        )
        return ReadableSpan(
            name=span.name,
            context=context,
            parent=parent,
            resource=self._provider.resource,
            attributes=span.attributes,
            kind=_KINDS[span.kind],
            status=Status(StatusCode.UNSET) if span.error is None else Status(StatusCode.ERROR, span.error),
            start_time=span.began_ns,
            end_time=span.ended_ns,
            instrumentation_scope=self._scope,
        )


def _context(parent: Parent) -> SpanContext:
    flags = _SAMPLED if parent.sampled else TraceFlags(TraceFlags.DEFAULT)
    return SpanContext(parent.trace_id, parent.span_id, is_remote=True, trace_flags=flags)


class _Complaints(logging.Handler):
    """What the SDK says of a collector that is away goes to our log, not to standard error, and not for every batch."""

    def __init__(self, log: ExchangeLog, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(logging.WARNING)
        self._log = log
        self._loop = loop
        self._told_at = float("-inf")

    def emit(self, record: logging.LogRecord) -> None:
        if time.monotonic() - self._told_at < TOLD_EVERY_S or self._loop.is_closed():
            return
        self._told_at = time.monotonic()
        self._loop.call_soon_threadsafe(self._tell, redact.text(record.getMessage()[:300]))

    def _tell(self, said: str) -> None:
        self._log.event("traces: not delivered", error=said)
