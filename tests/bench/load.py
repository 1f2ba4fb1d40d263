"""The clients, in a process of their own: raw protocols on keep-alive connections that check every answer.

Run as ``python -m tests.bench.load``: a job as a line of JSON on stdin, its result as a line of JSON on stdout.
While a paced job has all its streams open it also writes ``{"events_so_far": N}`` every 250 ms, so that the harness can
look at the gateway at that moment.
"""

import asyncio
import json
import re
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, cast

import uvloop

from .wire import ResponseDecoder, chat_request

PATIENCE_S: Final = 30.0  # how long past its planned end a job may run before it counts as hung
OPEN_INTERVAL_S: Final = 0.25
GOLDEN_RATIO: Final = 0.6180339887  # spreads starts, and so the phases of the streams, evenly for any number of them
STAMP: Final = re.compile(rb'"content":\s*"t(\d+)"')


@dataclass(frozen=True, slots=True)
class ClosedLoopJob:
    """``connections`` clients, each asking again as soon as it was answered. ``events`` is 0 for a JSON answer.

    ``fresh``: no kept answer will do.
    """

    port: int
    model_name: str
    connections: int
    duration_s: float
    events: int = 0
    fresh: bool = False


@dataclass(frozen=True, slots=True)
class ClosedLoopResult:
    """``first_p50_ms``: from sending a request to the first byte of its answer."""

    requests: int
    first_p50_ms: float


@dataclass(frozen=True, slots=True)
class PacedJob:
    """``streams`` streams of ``events`` contents each, opened over ``ramp_s``."""

    port: int
    model_name: str
    streams: int
    events: int
    duration_s: float
    ramp_s: float


@dataclass(frozen=True, slots=True)
class PacedResult:
    """``first``: from sending the request to the first content. ``event``: from the upstream's stamp to arrival."""

    events: int
    first_p50_ms: float
    event_p50_ms: float
    event_p99_ms: float


class Client(asyncio.Protocol):
    """A connection that sends one request at a time; ``finished`` ends with it, well or badly."""

    def __init__(self, request: bytes, events: int) -> None:
        self.finished: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._request = request
        self._events = events
        self._decoder = ResponseDecoder()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's does not inherit from it
        self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.finished.done():
            self.finished.set_exception(ConnectionError(f"the connection ended amid an answer: {exc or 'closed'}"))

    def _send(self) -> None:
        assert self._transport is not None
        self._decoder = ResponseDecoder()
        self._transport.write(self._request)

    def _finish(self, failure: str | None = None) -> None:
        assert self._transport is not None
        if not self.finished.done():
            if failure is None:
                self.finished.set_result(None)
            else:
                self.finished.set_exception(ValueError(failure))
        self._transport.close()

    def _flaw(self, body: bytes) -> str | None:
        """What is wrong with a complete answer, or nothing."""
        if self._decoder.status != 200:
            return f"expected status 200, got {self._decoder.status}: {body[:400]!r}"
        if self._events and not body.rstrip().endswith(b"data: [DONE]"):
            return f"expected a stream up to [DONE], got the end {body[-200:]!r}"
        if self._events and (arrived := body.count(b"data: ")) < self._events:
            return f"expected at least {self._events} events, got {arrived}"
        return None


class ClosedLoopClient(Client):
    def __init__(self, request: bytes, events: int, ends_at: float) -> None:
        super().__init__(request, events)
        self.requests = 0
        self.firsts_ns: list[int] = []
        self._ends_at = ends_at
        self._pieces: list[bytes] = []
        self._sent_ns = 0

    def _send(self) -> None:
        self._sent_ns = time.monotonic_ns()
        super()._send()

    def data_received(self, data: bytes) -> None:
        if not self._pieces:
            self.firsts_ns.append(time.monotonic_ns() - self._sent_ns)
        self._pieces.append(self._decoder.feed(data))
        if not self._decoder.complete:
            return
        flaw = self._flaw(b"".join(self._pieces))
        self._pieces.clear()
        self.requests += 1
        if flaw or time.monotonic() >= self._ends_at:
            self._finish(flaw)
        else:
            self._send()


class PacedClient(Client):
    def __init__(self, request: bytes, events: int, on_first: Callable[[], None]) -> None:
        super().__init__(request, events)
        self.first_ns = 0
        self.delays_ns: list[int] = []
        self._on_first = on_first
        self._sent_ns = 0
        self._pending = b""

    def _send(self) -> None:
        self._sent_ns = time.monotonic_ns()
        super()._send()

    def data_received(self, data: bytes) -> None:
        now_ns = time.monotonic_ns()
        self._pending += self._decoder.feed(data)
        events, boundary, rest = self._pending.rpartition(b"\n\n")
        stamps = STAMP.findall(events) if boundary else ()
        if stamps and not self.delays_ns:
            self.first_ns = now_ns - self._sent_ns
            self._on_first()
        self.delays_ns += [now_ns - int(stamp) for stamp in stamps]
        if self._decoder.complete:
            self._finish(self._flaw_of_stream())
        elif boundary:
            self._pending = rest

    def _flaw_of_stream(self) -> str | None:
        if self._decoder.status != 200:
            return self._flaw(self._pending)
        if len(self.delays_ns) != self._events:
            return f"expected {self._events} stamped contents, got {len(self.delays_ns)}"
        return None


async def run_closed_loop(job: ClosedLoopJob) -> ClosedLoopResult:
    loop = asyncio.get_running_loop()
    request = chat_request(job.port, job.model_name, stream=job.events > 0, fresh=job.fresh)
    ends_at = time.monotonic() + job.duration_s
    clients = [ClosedLoopClient(request, job.events, ends_at) for _ in range(job.connections)]

    async def run_one(client: ClosedLoopClient) -> None:
        await loop.create_connection(lambda: client, "127.0.0.1", job.port)
        await client.finished

    async with asyncio.timeout(job.duration_s + PATIENCE_S), asyncio.TaskGroup() as group:
        for client in clients:
            group.create_task(run_one(client))
    firsts_ns = [first_ns for client in clients for first_ns in client.firsts_ns]
    return ClosedLoopResult(sum(client.requests for client in clients), statistics.median(firsts_ns) / 1e6)


async def run_paced(job: PacedJob, write_line: Callable[[object], None]) -> PacedResult:
    loop = asyncio.get_running_loop()
    request = chat_request(job.port, job.model_name, stream=True)
    all_open = asyncio.Event()
    begun = 0

    def on_first() -> None:
        nonlocal begun
        begun += 1
        if begun == job.streams:
            all_open.set()

    clients = [PacedClient(request, job.events, on_first) for _ in range(job.streams)]

    async def run_one(client: PacedClient, starts_after_s: float) -> None:
        await asyncio.sleep(starts_after_s)
        await loop.create_connection(lambda: client, "127.0.0.1", job.port)
        await client.finished

    async def report_open() -> None:
        await all_open.wait()
        while not any(client.finished.done() for client in clients):
            write_line({"events_so_far": sum(len(client.delays_ns) for client in clients)})
            await asyncio.sleep(OPEN_INTERVAL_S)

    async with asyncio.timeout(job.ramp_s + job.duration_s + PATIENCE_S), asyncio.TaskGroup() as group:
        group.create_task(report_open())
        for index, client in enumerate(clients):
            group.create_task(run_one(client, job.ramp_s * (index * GOLDEN_RATIO % 1)))
    delays_ns = [delay_ns for client in clients for delay_ns in client.delays_ns]
    return PacedResult(
        events=len(delays_ns),
        first_p50_ms=statistics.median(client.first_ns for client in clients) / 1e6,
        event_p50_ms=percentile(delays_ns, 50) / 1e6,
        event_p99_ms=percentile(delays_ns, 99) / 1e6,
    )


def percentile(values: Sequence[int], percent: int) -> float:
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]


def _write_line(value: object) -> None:
    print(json.dumps(value), flush=True)


def main() -> None:
    for line in sys.stdin:
        fields: dict[str, Any] = json.loads(line)
        try:
            result: ClosedLoopResult | PacedResult
            if "streams" in fields:
                result = uvloop.run(run_paced(PacedJob(**fields), _write_line))
            else:
                result = uvloop.run(run_closed_loop(ClosedLoopJob(**fields)))
        except* (ValueError, OSError) as group:  # the first failure stands for the others, TimeoutError included
            _write_line({"failure": f"{group.exceptions[0]}" or "the job did not end in time"})
        else:
            _write_line(asdict(result))


if __name__ == "__main__":
    main()
