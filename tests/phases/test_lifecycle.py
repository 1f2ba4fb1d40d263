"""The life of an exchange over fake ports: cancelled at every await, it is settled once and holds nothing."""

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest

from proxy.config.resolve import parse
from proxy.core.bucket import TOKEN_UNIT
from proxy.core.failure import FailureKind
from proxy.core.limit_table import limited_subjects
from proxy.core.limiting import LimitLease, LimitSettlement, Taken
from proxy.core.principal import ANYBODY
from proxy.phases import lifecycle, watchdog
from proxy.phases.bill import tokens_of
from proxy.phases.breakers import Breakers
from proxy.phases.budgets import Budgets
from proxy.phases.exchange import Exchange
from proxy.phases.limits import Limiter
from proxy.phases.runtime import Runtime
from proxy.ports import Call, ClientGone, Fault
from proxy.stores.memory.breakers import MemoryBreakers
from proxy.stores.memory.budgets import MemoryBudgets
from proxy.stores.memory.cache import MemoryCache
from proxy.stores.memory.limits import MemoryLimits
from proxy.stores.sqlite.ledger import SqliteLedger
from proxy.terms import Api, ExchangeId
from tests.books import RecordingBooks
from tests.doors import open_to_all
from tests.gateway import RecordingLog
from tests.ledger import FakeLedger
from tests.money.stage import budget
from tests.phases.budget_stage import Shielded

EVENT = b'data: {"choices":[{"index":0,"delta":{"content":"a"},"finish_reason":null}]}\n\n'
FINISH = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}],"usage":{"prompt_tokens":3}}\n\n'
DONE = b"data: [DONE]\n\n"
JSON = b'{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":4}}'

Steps = list["bytes | Fault"]
STREAM: Steps = [b": keep-alive\n\n", EVENT, EVENT + EVENT, FINISH, DONE]
SCRIPTS: dict[str, tuple[bool, list[tuple[int, Steps] | Fault]]] = {
    "stream": (True, [(200, STREAM)]),
    "json": (False, [(200, [JSON])]),
    "refused, then a stream": (True, [Fault(FailureKind.CONNECT_FAILED, "refused"), (200, STREAM)]),
    "500, then json": (False, [(500, [b'{"error":{"message":"no"}}']), (200, [JSON])]),
    "cut after content": (True, [(200, [EVENT, Fault(FailureKind.TRUNCATED, "cut")])]),
    "empty, then a stream": (True, [(200, [b""]), (200, STREAM)]),
    "429 everywhere": (False, [(429, [b"{}"]), (429, [b"{}"])]),
    "stale, then fresh": (False, [Fault(FailureKind.STALE_CONNECTION, "gone"), (200, [JSON])]),
    "form": (False, [(200, [JSON])]),
    "form, 500, then json": (False, [(500, [b'{"error":{"message":"no"}}']), (200, [JSON])]),
}


FORM = (
    b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nsound\r\n--b\r\n'
    b'Content-Disposition: form-data; name="model"\r\n\r\nroute\r\n--b--\r\n'
)
FORM_TYPE = "multipart/form-data; boundary=b"


class FakeBody:
    """The form, seven bytes a read."""

    def __init__(self) -> None:
        self.closed = 0
        self.length = len(FORM)

    async def at(self, position: int) -> bytes:
        await asyncio.sleep(0)
        return FORM[position : position + 7]

    def close(self) -> None:
        self.closed += 1


class FakeReply:
    def __init__(self, status: int, steps: Steps, content_type: str) -> None:
        self.status = status
        self.headers: Mapping[str, str] = {"content-type": content_type}
        self.let_go = False
        self._steps = iter(steps)

    @property
    def header_pairs(self) -> Iterable[tuple[str, str]]:
        return self.headers.items()

    async def read(self) -> bytes | Fault:
        await asyncio.sleep(0)
        return next(self._steps, b"")

    def close(self) -> None:
        self.let_go = True

    def finish(self) -> None:
        self.let_go = True


class FakeUpstream:
    def __init__(self, answers: list[tuple[int, Steps] | Fault], *, streamed: bool) -> None:
        self.replies: list[FakeReply] = []
        self.calls: list[Call] = []
        self.received: list[bytes] = []
        self._answers = iter(answers)
        self._content_type = "text/event-stream" if streamed else "application/json"

    async def send(self, call: Call) -> FakeReply | Fault:
        self.calls.append(call)
        await asyncio.sleep(0)
        if not isinstance(call.body, bytes):
            self.received.append(b"".join([part async for part in call.body]))
        answer = next(self._answers)
        if isinstance(answer, Fault):
            return answer
        reply = FakeReply(*answer, self._content_type if answer[0] == 200 else "application/json")
        self.replies.append(reply)
        return reply


class FakeDownstream:
    def __init__(self, body: bytes, *, gone_at: int | None = None) -> None:
        self.headers: Mapping[str, str] = {}
        self.sent = b""
        self.ends: list[str] = []
        self._body = body
        self._gone_at = gone_at
        self.upload_body = FakeBody()

    async def body(self, bytes_max: int) -> bytes:
        await asyncio.sleep(0)
        return self._body

    gone = False
    peer = "127.0.0.1"

    def outlive(self) -> None:
        return

    def upload(self, bytes_max: int) -> FakeBody:
        return self.upload_body

    async def begin(self, status: int, headers: Iterable[tuple[str, str]]) -> None:
        await self.write(b"")

    async def write(self, data: bytes) -> None:
        await asyncio.sleep(0)
        if self._gone_at is not None:
            self._gone_at -= 1
            if self._gone_at < 0:
                raise ClientGone
        self.sent += data

    async def end(self) -> None:
        await self.write(b"")
        self.ends.append("end")

    def break_off(self) -> None:
        self.ends.append("break_off")

    def abort(self) -> None:
        self.ends.append("abort")

    async def answer(self, status: int, headers: Iterable[tuple[str, str]], body: bytes) -> None:
        await self.write(body)
        self.ends.append("answer")


def _now_ms() -> int:
    return time.monotonic_ns() // 1_000_000


class Suspending(MemoryLimits):
    """Waits as a store does that is somewhere else: before it is done, and before it is told."""

    async def take(self, lease: LimitLease) -> Taken:
        await asyncio.sleep(0)
        taken = await super().take(lease)
        await asyncio.sleep(0)
        return taken

    async def settle(self, settlements: Sequence[LimitSettlement]) -> None:
        await asyncio.sleep(0)
        await super().settle(settlements)
        await asyncio.sleep(0)


class Scene:
    """One exchange over fakes."""

    def __init__(self, script: str, *, gone_at: int | None = None) -> None:
        streamed, answers = SCRIPTS[script]
        table = parse(
            """
providers:
  a:
    like: vllm
    base_url: "http://127.0.0.1:1/v1"
    price: {m: {input: 1, output: 10, audio_minute: 0.01}}
    limits: {concurrency: 5, tpm: 1000000}
  b: {like: vllm, base_url: "http://127.0.0.1:2/v1", price: {m: {input: 2, output: 20, audio_minute: 0.01}}}
routes: {route: {tiers: [a/m, b/m]}}
limits: {rps: 1000, tpm: 1000000, concurrency: 5}
""",
            "routes.yaml",
            {},
        )
        table = budget()(table)
        self.log = RecordingLog()
        self.upstream = FakeUpstream(answers, streamed=streamed)
        body = orjson.dumps({"model": "route", "stream": streamed, "messages": []})
        self.downstream = FakeDownstream(body, gone_at=gone_at)
        self.breakers = Breakers(MemoryBreakers(time.monotonic), self.log, time.time)
        self.books = RecordingBooks()
        self.store = Shielded(MemoryBudgets(lambda: int(time.time() * 1000)))
        held = Budgets(self.store, FakeLedger(), on_alert=lambda _: None, log=self.log, wall=time.time, worker="test")
        self.cache = MemoryCache(time.monotonic)
        world = (table, self.upstream, self.log, time.monotonic, time.time, self.breakers)
        limits, door = Limiter(Suspending(_now_ms), log=self.log, worker="test"), open_to_all(self.log)
        ledger = SqliteLedger(Path("never opened"))
        self.runtime = Runtime(*world, held, self.books, ledger, self.cache, limits, door)
        self.is_form = script.startswith("form")
        api, path = (
            (Api.TRANSCRIPTIONS, "/v1/audio/transcriptions") if self.is_form else (Api.CHAT, "/v1/chat/completions")
        )
        given = {"content-type": FORM_TYPE} if self.is_form else {}
        x = ExchangeId("x")
        self.x = Exchange(x, x, api, "POST", path, given, time.monotonic(), int(time.time() * 1000))

    async def run(self) -> None:
        await lifecycle.run(self.x, self.runtime, self.downstream)

    def check(self) -> dict[str, Any]:
        (record,) = self.log.exchanges
        (row,) = self.books.rows
        assert (row.id, row.outcome) == ("x", record["outcome"])
        assert len(self.books.intents) == len(self.x.attempts)
        assert not self.log.bugs
        assert self.runtime.budgets.kept == self.runtime.limits.kept == 0
        assert all(reply.let_go for reply in self.upstream.replies)
        assert len(self.downstream.ends) <= 1
        assert not self.is_form or self.downstream.upload_body.closed or self.x.upload is None
        return record

    async def check_limits(self) -> None:
        """Nothing is under way, of nobody and nowhere, and no more tokens are gone than were used."""
        await self.runtime.limits.close()
        table = self.runtime.table.limits
        claims = (*limited_subjects(ANYBODY, table), *table.sent.values())
        _, standings = await self.runtime.limits.look(claims)
        used = sum(tokens_of(self.x, attempt) for attempt in self.x.attempts)
        for standing in standings:
            assert standing.running == 0
            assert standing.tokens_used <= used * TOKEN_UNIT

    async def check_budgets(self) -> None:
        """What was settled is what stands in the row, and nothing is held."""
        await self.runtime.budgets.close()
        await self.check_limits()
        (row,) = self.books.rows
        payers = self.runtime.table.budgets.payers()
        for book in await self.runtime.budgets.snapshot(payers, time.time()):
            assert (book["seen"], book["held_nanousd"]) in (("store", 0), ("ledger", 0))
            assert book["spent_nanousd"] == (row.cost_nanousd if row.attempts else 0)


OUTCOMES = {
    "stream": "ok",
    "json": "ok",
    "refused, then a stream": "ok",
    "500, then json": "ok",
    "cut after content": "partial",
    "empty, then a stream": "ok",
    "429 everywhere": "failed",
    "stale, then fresh": "ok",
    "form": "ok",
    "form, 500, then json": "ok",
}


@pytest.mark.parametrize("script", SCRIPTS)
async def test_it_runs_to_its_end(script: str) -> None:
    scene = Scene(script)
    await scene.run()
    record = scene.check()
    assert record["outcome"] == OUTCOMES[script]
    assert record["attempts"] == len(scene.upstream.calls)
    assert set(scene.upstream.received) <= {FORM.replace(b"route", b"m")}
    assert scene.downstream.ends == {"ok": ["end"] if scene.x.streamed else ["answer"]}.get(
        record["outcome"], ["break_off"] if record["outcome"] == "partial" else ["answer"]
    )


@pytest.mark.parametrize("script", SCRIPTS)
async def test_cancelled_at_every_await_it_is_settled_once(script: str) -> None:
    async def cancelled_after(turns: int) -> bool:
        scene = Scene(script)
        task = asyncio.create_task(scene.run())
        for _ in range(turns):
            await asyncio.sleep(0)
        over = task.done()
        task.cancel()
        await asyncio.wait([task])
        if turns:
            record = scene.check()
            assert over or record["outcome"] in ("client_cancelled", OUTCOMES[script])
            await scene.check_budgets()
        return over

    await _sweep(cancelled_after)


@pytest.mark.parametrize("script", SCRIPTS)
async def test_a_client_gone_at_every_write_is_settled_once(script: str) -> None:
    async def gone_at(writes: int) -> bool:
        scene = Scene(script, gone_at=writes)
        await scene.run()
        record = scene.check()
        await scene.check_budgets()
        return bool(record["outcome"] != "client_cancelled")

    await _sweep(gone_at, first=0)


async def test_a_client_gone_at_the_very_end_changes_nothing_of_the_bill() -> None:
    """The stream's last event has come, and with it the provider's last word."""
    rows = []
    for writes in range(20):
        scene = Scene("stream", gone_at=writes)
        await scene.run()
        if scene.check()["outcome"] == "ok":
            break
        rows.append(scene.books.rows[0])
    assert len(rows) > 3
    for row in rows[-2:]:  # gone as `[DONE]` was written, and as the stream was closed
        assert (row.outcome, row.estimated, row.input_tokens) == ("client_cancelled", False, 3)
    assert rows[1].estimated, "and before it there is none"


async def _sweep(at: Callable[[int], Any], *, first: int = 1) -> None:
    for step in range(first, 200):
        if await at(step):
            assert step > first, "nothing was swept"
            return
    raise AssertionError("the exchange never ended")


async def test_what_is_told_of_a_passed_bound_is_not_cancelled_by_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client is slow to take the refusal: several ticks pass while it is written."""
    monkeypatch.setattr(watchdog, "TICK_S", 0.01)
    scene = Scene("429 everywhere")
    scene.x.headers = {"x-penstock-timeout": "50ms"}

    async def never(_: Call) -> FakeReply:
        await asyncio.Event().wait()
        raise AssertionError

    async def slowly(status: int, headers: object, body: bytes) -> None:
        await asyncio.sleep(0.1)
        scene.downstream.ends.append(str(status))

    monkeypatch.setattr(scene.upstream, "send", never)
    monkeypatch.setattr(scene.downstream, "answer", slowly)
    await scene.run()
    assert scene.downstream.ends == ["504"]
    assert scene.log.exchanges[0]["code"] == "upstream_timeout"


async def test_a_bug_is_a_500_and_is_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene("json")

    def broken(*_: object) -> None:
        raise KeyError("a bug")

    monkeypatch.setattr(lifecycle, "plan", broken)
    await scene.run()
    assert isinstance(scene.log.bugs[0], KeyError)
    error = orjson.loads(scene.downstream.sent)["error"]
    assert (error["code"], "x" in error["message"]) == ("internal_error", True)
    assert "KeyError" not in error["message"]
    assert scene.log.exchanges[0]["status"] == 500
