"""Keep-alive, cancellation, pace and back-pressure on real sockets, with both event loops."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import uvloop

from proxy.simulator.server import Simulator

from .client import PATHS, ask, body_of, data_of, opened, read, request_of, reset, text_of

_WITHIN_S = 1.0


async def _until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(_WITHIN_S):
        while not holds():
            await asyncio.sleep(0.001)


@pytest.mark.parametrize("stream", [True, False])
async def test_a_connection_serves_many_requests(base_url: str, simulator: Simulator, stream: bool) -> None:
    reader, writer = await opened(base_url)
    for _ in range(3):
        writer.write(request_of(PATHS["chat"], body_of("chat", "any", stream=stream)))
        assert (await read(reader)).status == 200
    assert simulator.connections_open == 1
    assert simulator.served == 3
    writer.close()
    await _until(lambda: simulator.connections_open == 0)


async def test_requests_that_come_together_are_answered_in_order(base_url: str) -> None:
    reader, writer = await opened(base_url)
    for number in range(300):
        said = [{"role": "user", "content": f"no. {number}."}]
        writer.write(request_of(PATHS["chat"], body_of("chat", "any", messages=said)))
    answers = (await read(reader, silence=True)).raw
    places = [answers.find(f"no. {number}.".encode()) for number in range(300)]
    assert places == sorted(places)
    assert places[0] > 0
    writer.close()


async def test_a_connection_closes_where_the_client_asks(base_url: str, simulator: Simulator) -> None:
    reader, writer = await opened(base_url)
    writer.write(b"GET /v1/models HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
    assert (await read(reader, silence=True)).end == "eof"
    assert simulator.requests[0].disconnected_at is None
    writer.close()


async def test_what_is_no_http_is_refused(base_url: str) -> None:
    reader, writer = await opened(base_url)
    writer.write(b'nonsense "quoted" \\\r\n\r\n')
    answer = await read(reader, silence=True)
    assert (answer.status, answer.end) == (400, "eof")
    assert answer.json()["error"]["code"] == "bad_request"
    writer.close()


async def test_the_body_is_sent_for(base_url: str) -> None:
    body = body_of("chat", "any")
    reader, writer = await opened(base_url)
    head, _, _ = request_of(PATHS["chat"], body).partition(b"\r\n\r\n")
    writer.write(head + b"\r\nexpect: 100-continue\r\n\r\n")
    assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    writer.write(body)
    assert (await read(reader)).status == 200
    writer.close()


@pytest.mark.parametrize(
    "model", ["silent", "stall:2", "paced:1000:20ms", "after-done-silence", "head-then-silence", "drip:1"]
)
@pytest.mark.parametrize("leave", ["fin", "rst"])
async def test_a_client_that_leaves_is_noticed(base_url: str, simulator: Simulator, model: str, leave: str) -> None:
    _, writer = await opened(base_url)
    writer.write(request_of(PATHS["chat"], body_of("chat", model, stream=True)))
    await _until(lambda: len(simulator.requests) == 1)
    request = simulator.requests[0]
    left_at = asyncio.get_running_loop().time()
    if leave == "rst":
        reset(writer)
    else:
        writer.close()
    await _until(lambda: request.disconnected_at is not None)
    assert left_at <= (request.disconnected_at or 0.0) < left_at + _WITHIN_S
    assert not request.finished
    await _until(lambda: simulator.connections_open == 0)


async def test_a_finished_answer_is_told_from_an_unfinished_one(base_url: str, simulator: Simulator) -> None:
    await ask(base_url, "chat", "any", stream=True)
    await ask(base_url, "chat", "cut:1", stream=True)
    answered, cut = simulator.requests
    assert answered.finished
    assert cut.finished
    await _until(lambda: answered.disconnected_at is not None)
    assert cut.disconnected_at is None  # the simulator itself closed it


async def test_what_arrived_is_recorded(base_url: str, simulator: Simulator) -> None:
    body = body_of("chat", "any")
    await ask(base_url, "chat", "any")
    request = simulator.requests[0]
    assert (request.method, request.path, request.body) == ("POST", "/v1/chat/completions", body)
    assert ("content-type", "application/json") in request.headers
    assert request.header("host") == "test"
    simulator.clear()
    assert len(simulator.requests) == simulator.served == 0


async def test_nothing_is_recorded_by_default() -> None:
    simulator = Simulator()
    url = await simulator.start()
    await ask(url, "chat", "any")
    assert (len(simulator.requests), simulator.served) == (0, 1)
    await simulator.stop()


async def test_stop_ends_what_is_being_answered() -> None:
    simulator = Simulator(record=1)
    reader, writer = await opened(await simulator.start())
    writer.write(request_of(PATHS["chat"], body_of("chat", "silent")))
    await _until(lambda: len(simulator.requests) == 1)
    await simulator.stop()
    await simulator.stop()
    assert simulator.connections_open == 0
    assert (await read(reader)).end in {"eof", "reset"}
    writer.close()


async def test_a_port_can_be_had_again_and_a_taken_one_is_an_error() -> None:
    first = Simulator()
    url = await first.start()
    port = int(url.rpartition(":")[2].removesuffix("/v1"))
    with pytest.raises(OSError, match="address already in use"):
        await Simulator(port=port).start()
    with pytest.raises(RuntimeError):
        await first.start()
    await first.stop()
    second = Simulator(port=port)
    assert await second.start() == url
    await second.stop()


@pytest.mark.parametrize(("model", "least_s"), [("paced:6:20ms", 0.1), ("clock:6:20ms", 0.1), ("delay:100ms", 0.1)])
async def test_pace(base_url: str, model: str, least_s: float) -> None:
    for stream in (True, False):
        started = time.monotonic()
        answer = await ask(base_url, "chat", model, stream=stream)
        assert least_s <= time.monotonic() - started < least_s + 0.5
        assert answer.status == 200


async def test_paced_events_do_not_drift(base_url: str) -> None:
    reader, writer = await opened(base_url)
    writer.write(request_of(PATHS["chat"], body_of("chat", "clock:11:20ms", stream=True)))
    answer = await read(reader)
    made = [int(one) for one in text_of(answer.body).split()]
    assert len(made) == 11
    assert 0.19 < (made[-1] - made[0]) / 1e9 < 0.3
    writer.close()


async def test_slow_keeps_the_text(base_url: str) -> None:
    slow = await ask(base_url, "chat", "slow:1ms", stream=True)
    fast = await ask(base_url, "chat", "any", stream=True)
    assert text_of(slow.body) == text_of(fast.body)


async def test_a_reader_that_does_not_read_holds_the_stream_back(base_url: str, simulator: Simulator) -> None:
    reader, writer = await opened(base_url)
    writer.transport.pause_reading()  # type: ignore[attr-defined] # a stream's transport reads and writes
    writer.write(request_of(PATHS["chat"], body_of("chat", "events:200000", stream=True)))
    await _until(lambda: any(connection._paused for connection in simulator._connections))
    assert [request.finished for request in simulator.requests] == [False]
    writer.transport.resume_reading()  # type: ignore[attr-defined] # as above
    answer = await read(reader)
    assert answer.raw.count(b'"content":"') == 1 + 200_000
    assert [request.finished for request in simulator.requests] == [True]
    writer.close()


async def test_events_are_a_write_each_and_a_burst_is_one(base_url: str) -> None:
    events, burst = [await ask(base_url, "chat", f"{name}:100", stream=True) for name in ("events", "burst")]
    assert text_of(events.body) == text_of(burst.body)
    assert len(data_of(events.body)) == len(data_of(burst.body)) == 103


@pytest.fixture(params=["asyncio", "uvloop"])
async def looped(request: pytest.FixtureRequest) -> AsyncIterator[Callable[[str], Any]]:
    """Asks a simulator that runs on this kind of loop in another thread."""
    factory = asyncio.new_event_loop if request.param == "asyncio" else uvloop.new_event_loop
    stopped = asyncio.Event()
    started: asyncio.Future[tuple[asyncio.AbstractEventLoop, str]] = asyncio.get_running_loop().create_future()
    own = asyncio.get_running_loop()

    async def serve() -> None:
        simulator = Simulator()
        url = await simulator.start()
        own.call_soon_threadsafe(started.set_result, (asyncio.get_running_loop(), url))
        await stopped.wait()
        await simulator.stop()

    def run() -> None:
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(serve())

    thread = asyncio.create_task(asyncio.to_thread(run))
    loop, url = await started
    yield lambda model: ask(url, "chat", model, stream=True)
    loop.call_soon_threadsafe(stopped.set)
    await thread


async def test_resets_and_ends_are_the_same_on_every_loop(looped: Callable[[str], Any]) -> None:
    for model, end, count in (
        ("refuse", "reset", 0),
        ("hangup", "eof", 0),
        ("reset:5", "reset", 6),
        ("cut:5", "eof", 6),
    ):
        answer = await looped(model)
        assert (answer.end, len(data_of(answer.body))) == (end, count), model
    assert (await looped("any")).whole
    assert (await looped("split:7")).whole
