"""Traces of a real gateway, as a real OTLP receiver on the loopback gets them."""

import asyncio
import gzip
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from proxy.telemetry.traces import Traces
from tests.conftest import Start
from tests.edge.recorder import Recorder
from tests.gateway import CHAT, Gateway, RecordingLog, closed_port, send

CLIENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
UNSAMPLED = CLIENT[:-2] + "00"
BODY = b'{"model":"%s","messages":[{"role":"user","content":"my grandmother\'s recipe"}]}'
OK = (
    b'{"choices":[{"message":{"content":"42"},"finish_reason":"stop"}],'
    b'"usage":{"prompt_tokens":7,"completion_tokens":9,"total_tokens":16}}'
)
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(OK), OK)
REFUSED = b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"


@dataclass
class Collector:
    """Takes what is exported."""

    paths: list[str] = field(default_factory=list)
    requests: list[ExportTraceServiceRequest] = field(default_factory=list)
    url: str = ""

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        raw = await request.read()
        if request.headers.get("content-encoding") == "gzip" and raw[:2] == b"\x1f\x8b":
            raw = gzip.decompress(raw)
        self.paths.append(request.path)
        self.requests.append(ExportTraceServiceRequest.FromString(raw))
        return web.Response(content_type="application/x-protobuf")

    @property
    def spans(self) -> list[Span]:
        return [
            span
            for request in self.requests
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]


@pytest.fixture
async def collector() -> AsyncIterator[Collector]:
    made = Collector()
    runner = web.ServerRunner(web.Server(made.handle))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield made
    await runner.cleanup()


@pytest.fixture
async def upstream() -> AsyncIterator[Recorder]:
    """Refuses the first request."""
    made = Recorder(lambda number: REFUSED if number == 1 else ANSWER)
    yield made
    await made.stop()


async def traced(start: Start, upstream: Recorder, endpoint: str | None) -> Gateway:
    config = f"""
    providers: {{sim: {{like: vllm, base_url: "{await upstream.start()}"}}}}
    routes: {{general: {{tiers: [sim/one, sim/two]}}}}
    """
    return await start(config, otlp_endpoint=endpoint)


async def stopped(penstock: Gateway) -> None:
    """Without holding up the loop, in which the collector is too."""
    tracer = penstock.service._tracer
    if tracer is not None:
        penstock.service._tracer = None
        await asyncio.to_thread(tracer.close)


def attributes(span: Span) -> dict[str, Any]:
    values = {one.key: one.value for one in span.attributes}
    return {key: getattr(value, str(value.WhichOneof("value"))) for key, value in values.items()}


async def test_an_exchange_is_a_span_and_each_attempt_one_below(
    start: Start, upstream: Recorder, collector: Collector
) -> None:
    penstock = await traced(start, upstream, collector.url)
    answer = await send(penstock.port, CHAT, BODY % b"general", {"traceparent": CLIENT, "x-request-id": "req-1"})
    assert answer.status == 200
    await penstock.booked()
    await stopped(penstock)
    assert set(collector.paths) == {"/v1/traces"}
    server, first, second = collector.spans
    assert {span.trace_id.hex() for span in collector.spans} == {CLIENT.split("-")[1]}
    assert server.kind == Span.SPAN_KIND_SERVER
    assert server.parent_span_id.hex() == CLIENT.split("-")[2]
    assert [(span.kind, span.parent_span_id) for span in (first, second)] == [
        (Span.SPAN_KIND_CLIENT, server.span_id)
    ] * 2
    assert [span.name for span in collector.spans] == ["POST chat", "chat one", "chat two"]
    assert [span.status.code for span in collector.spans] == [0, 2, 0]
    told = attributes(server)
    assert (told["penstock.route"], told["penstock.outcome"], told["penstock.attempts"]) == ("general", "ok", 2)
    assert (told["http.response.status_code"], told["penstock.request_id"]) == (200, "req-1")
    assert attributes(first)["error.type"] == "overloaded"
    assert attributes(first)["http.response.status_code"] == 503
    told = attributes(second)
    assert (told["gen_ai.operation.name"], told["gen_ai.request.model"]) == ("chat", "two")
    assert (told["gen_ai.usage.input_tokens"], told["gen_ai.usage.output_tokens"]) == (7, 9)
    assert server.start_time_unix_nano <= first.start_time_unix_nano <= first.end_time_unix_nano
    assert first.end_time_unix_nano <= second.start_time_unix_nano <= second.end_time_unix_nano
    assert second.end_time_unix_nano <= server.end_time_unix_nano
    assert b"grandmother" not in b"".join(one.SerializeToString() for one in collector.requests)
    resource = {one.key: one.value.string_value for one in collector.requests[0].resource_spans[0].resource.attributes}
    assert resource["service.name"] == "penstock"
    sent = [request.headers["traceparent"] for request in upstream.received]
    assert sent == [f"00-{span.trace_id.hex()}-{span.span_id.hex()}-01" for span in (first, second)]


async def test_a_request_without_a_trace_begins_one(start: Start, upstream: Recorder, collector: Collector) -> None:
    penstock = await traced(start, upstream, collector.url)
    for header in ({}, {"traceparent": "00-nonsense"}):
        await send(penstock.port, CHAT, BODY % b"general", header)
    assert (await send(penstock.port, CHAT, BODY % b"nothing")).status == 404
    await penstock.booked(3)
    await stopped(penstock)
    roots = [span for span in collector.spans if not span.parent_span_id]
    assert len({span.trace_id for span in roots}) == len(roots) == 3
    refused = next(span for span in roots if attributes(span)["penstock.outcome"] == "refused")
    assert refused.status.code == 0, "the client's own fault is no error of the server's"
    assert attributes(refused)["error.type"] == "model_not_found"


async def test_a_client_that_does_not_sample_is_believed(
    start: Start, upstream: Recorder, collector: Collector
) -> None:
    penstock = await traced(start, upstream, collector.url)
    await send(penstock.port, CHAT, BODY % b"general", {"traceparent": UNSAMPLED})
    await penstock.booked()
    await stopped(penstock)
    assert collector.spans == []
    for request in upstream.received:
        assert request.headers["traceparent"].startswith(CLIENT[:36])
        assert request.headers["traceparent"].endswith("-00")


async def test_without_tracing_the_client_s_passes_as_it_came(start: Start, upstream: Recorder) -> None:
    penstock = await traced(start, upstream, None)
    await send(penstock.port, CHAT, BODY % b"general", {"traceparent": CLIENT})
    assert {request.headers["traceparent"] for request in upstream.received} == {CLIENT}


async def test_a_collector_that_is_away_costs_spans_and_is_told_once(
    monkeypatch: pytest.MonkeyPatch, start: Start, upstream: Recorder, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    penstock = await traced(start, upstream, f"http://127.0.0.1:{closed_port()}")
    for _ in range(3):
        assert (await send(penstock.port, CHAT, BODY % b"general")).status == 200
    await penstock.booked(3)
    await stopped(penstock)
    await asyncio.sleep(0)
    told = [one for one in penstock.log.events if one["message"] == "traces: not delivered"]
    assert len(told) == 1
    assert capfd.readouterr().err == ""


async def test_what_waits_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    from proxy.telemetry import traces  # noqa: PLC0415 - to change its bound

    monkeypatch.setattr(traces, "EXCHANGES_MAX", 3)
    made = Traces(f"http://127.0.0.1:{closed_port()}", "1", RecordingLog(), random.Random(1))
    made.close()  # nobody takes them any more
    for _ in range(10):
        made.ended(list)
    assert made._queue.qsize() == 3
