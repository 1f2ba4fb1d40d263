"""Breakers in the life of real exchanges: what opens them, what never does, and what clients are told meanwhile."""

import asyncio
import time
from collections.abc import AsyncIterator

import orjson
import pytest

from proxy.core.breaker import PASS, Event, Subject
from proxy.simulator.server import Simulator
from tests.conftest import Start
from tests.edge.doorway import KEY
from tests.edge.doorway import ask as ask_admin
from tests.edge.recorder import Recorder, answer
from tests.gateway import CHAT, Connection, Gateway, get
from tests.stopwatch import Stopwatch

GOOD = answer(200, b'{"choices":[{"index":0,"finish_reason":"stop"}]}', "content-type: application/json")
WITH_KEY = {"x-api-key": KEY}
BUSY = answer(500, b'{"error":{"message":"boom"}}')


@pytest.fixture
async def recorder() -> AsyncIterator[Recorder]:
    recorder = Recorder(lambda _: GOOD)
    yield recorder
    await recorder.stop()


async def started(start: Start, recorder: Recorder, *, cooldown: str = "400ms", **options: object) -> Gateway:
    url = await recorder.start()
    return await start(
        f"""
providers: {{sim: {{like: openai, base_url: "{url}", api_key: env:K}}}}
defaults: {{breaker: {{failures: 5, cooldown: {cooldown}, successes: 2}}, retry: {{attempts: 1}}}}
routes: {{alone: {{tiers: [sim/m]}}, pair: {{tiers: [sim/m, sim/other]}}}}
""",
        environ={"K": "provider-key"},
        admin_key=KEY,
        **options,
    )


async def test_five_failures_open_and_two_successes_close(start: Start, recorder: Recorder) -> None:
    gateway = await started(start, recorder)
    recorder.answers = lambda _: BUSY
    for _ in range(5):
        assert (await gateway.ask("alone")).status == 502
    held = await gateway.ask("alone")
    assert (held.status, held.error["code"], held.headers["retry-after"]) == (503, "no_target_available", "1")
    assert held.headers["x-should-retry"] == "true"
    assert held.error["metadata"]["attempts"] == [{"target": "sim/m", "skipped": "it failed too often: server_error"}]
    assert len(recorder.received) == 5
    recorder.answers = lambda _: GOOD
    await asyncio.sleep(0.45)
    assert [(await gateway.ask("alone")).status for _ in range(3)] == [200, 200, 200]
    assert gateway.service._stores is not None
    assert {view.state.value for view in gateway.service._stores.breakers.snapshot(time.time())} <= {"closed"}


async def test_a_failed_probe_opens_again_and_only_one_goes_at_a_time(start: Start, recorder: Recorder) -> None:
    gateway = await started(start, recorder)
    recorder.answers = lambda _: BUSY
    for _ in range(5):
        await gateway.ask("alone")
    await asyncio.sleep(0.45)
    answers = await asyncio.gather(*(gateway.ask("alone") for _ in range(20)))
    assert sorted(one.status for one in answers) == [502] + [503] * 19
    assert len(recorder.received) == 6
    assert (await gateway.ask("alone")).status == 503


async def test_an_open_target_is_passed_over(start: Start, recorder: Recorder) -> None:
    gateway = await started(start, recorder, cooldown="30s")
    recorder.answers = lambda _: BUSY
    for _ in range(5):
        await gateway.ask("alone")
    recorder.answers = lambda _: GOOD
    recorder.received.clear()
    got = await gateway.ask("pair")
    assert (got.status, got.headers["x-penstock-attempts"], got.headers["x-penstock-model"]) == (200, "1", "other")


@pytest.mark.parametrize("status", [400, 404, 413, 422])
async def test_f110_the_clients_faults_never_open(start: Start, recorder: Recorder, status: int) -> None:
    gateway = await started(start, recorder)
    recorder.answers = lambda _: answer(status, b'{"error":{"message":"yours"}}')
    for _ in range(12):
        await gateway.ask("sim/m")
    recorder.answers = lambda _: GOOD
    assert (await gateway.ask("sim/m")).status == 200


async def test_f110_clients_that_leave_never_open(start: Start, upstream: Simulator, upstream_url: str) -> None:
    gateway = await start(f'providers: {{sim: {{like: vllm, base_url: "{upstream_url}"}}}}')
    for _ in range(8):
        client = await Connection.open(gateway.port)
        client.post(CHAT, orjson.dumps({"model": "sim/stall:2", "stream": True, "messages": []}))
        await client.until(b'"content":"')
        client.reset()
    await gateway.settled(8)
    assert gateway.service._stores is not None
    assert gateway.service._stores.breakers.snapshot(time.time()) == []


async def test_the_clients_own_deadline_never_opens(start: Start, upstream_url: str) -> None:
    gateway = await start(f'providers: {{sim: {{like: vllm, base_url: "{upstream_url}"}}}}')
    for _ in range(6):
        client = await Connection.open(gateway.port)
        client.post(CHAT, b'{"model":"sim/silent","messages":[]}', {"x-penstock-timeout": "50ms"})
        assert (await client.answer()).status == 504
        await client.close()
    assert gateway.service._stores is not None
    assert gateway.service._stores.breakers.snapshot(time.time()) == []


async def test_f109_a_probe_whose_client_leaves_gives_its_lease_back(start: Start, upstream_url: str) -> None:
    gateway = await start(
        f"""
providers: {{sim: {{like: vllm, base_url: "{upstream_url}"}}}}
defaults: {{breaker: {{failures: 1, cooldown: 100ms, successes: 1}}, retry: {{attempts: 1}}}}
"""
    )
    assert gateway.service._stores is not None
    breakers = gateway.service._stores.breakers
    model = "sim/stall:2"
    breakers.report(Subject(model), PASS, Event.FAILURE, time.time(), error="server_error")
    await asyncio.sleep(0.15)
    client = await Connection.open(gateway.port)
    client.post(CHAT, orjson.dumps({"model": model, "stream": True, "messages": []}))
    await client.until(b'"content":"')
    assert (await gateway.ask(model, stream=True)).status == 503, "the probe is under way"
    client.reset()
    await gateway.settled(2)
    await asyncio.sleep(0.3)  # others believe for a quarter of a second that it is still there
    again = await Connection.open(gateway.port)
    again.post(CHAT, orjson.dumps({"model": model, "stream": True, "messages": []}))
    await again.until(b'"content":"')
    again.reset()


async def test_f017_a_refused_credential_is_left_alone_with_all_its_targets(start: Start, recorder: Recorder) -> None:
    gateway = await started(start, recorder)
    recorder.answers = lambda _: answer(401, b'{"error":{"message":"Incorrect API key"}}')
    assert (await gateway.ask("alone")).error["code"] == "upstream_auth"
    got = await gateway.ask("sim/quite-another")
    assert (got.status, got.error["code"]) == (503, "no_target_available")
    assert "it refused the credential" in got.error["message"]
    assert len(recorder.received) == 1
    assert b"provider-key" not in got.raw
    health = await get(gateway.port, "/health")
    assert (health.status, health.json()["providers"]["sim"]["healthy"]) == (503, False)


async def test_f018_a_throttled_target_cools_down_for_all(start: Start, recorder: Recorder) -> None:
    gateway = await started(start, recorder)
    recorder.answers = lambda _: answer(429, b'{"error":{"message":"slow down"}}', "retry-after: 60")
    assert (await gateway.ask("alone")).status == 429
    held = await gateway.ask("alone")
    assert (held.status, held.error["code"]) == (429, "rate_limit_exceeded")
    assert 58 <= int(held.headers["retry-after"]) <= 60
    assert len(recorder.received) == 1
    recorder.answers = lambda _: GOOD
    assert (await gateway.ask("pair")).headers["x-penstock-model"] == "other"


async def test_a_short_cool_down_is_waited_for(start: Start, recorder: Recorder) -> None:
    gateway = await started(start, recorder)
    recorder.answers = lambda number: GOOD if number > 1 else answer(429, b"{}", "retry-after: 1")
    assert (await gateway.ask("alone")).status == 429, "one attempt is all that this configuration allows"
    watch = Stopwatch.patient()
    assert (await gateway.ask("alone")).status == 200
    assert watch.passed_s > 0.7
    assert watch.spent_s < 3


async def test_f022_a_503_with_a_long_retry_after_is_told_and_cools(start: Start, recorder: Recorder) -> None:
    gateway = await started(start, recorder, cooldown="30s")
    recorder.answers = lambda _: answer(503, b'{"error":{"message":"down"}}', "retry-after: 3600")
    first = await gateway.ask("alone")
    assert (first.status, first.headers["retry-after"], first.headers["x-should-retry"]) == (503, "3600", "false")
    held = await gateway.ask("alone")
    assert 25 <= int(held.headers["retry-after"]) <= 30, "no longer than an open circuit would hold"
    assert len(recorder.received) == 1


async def test_f111_with_every_target_open_the_answer_is_quick(start: Start, recorder: Recorder) -> None:
    gateway = await started(start, recorder, cooldown="30s")
    recorder.answers = lambda _: BUSY
    for _ in range(5):
        await gateway.ask("pair")
    took = []
    for _ in range(9):
        watch = Stopwatch()
        assert (await gateway.ask("pair")).status == 503
        took.append(watch.spent_s)
    assert sorted(took)[4] < 0.01
    records = await gateway.settled(14)
    assert records[-1]["attempts"] == 0
    assert records[-1]["held_back"] == ["sim/m", "sim/other"]


async def test_operators_see_and_reset(start: Start, recorder: Recorder) -> None:
    gateway = await started(start, recorder, cooldown="30s")
    recorder.answers = lambda _: BUSY
    for _ in range(5):
        await gateway.ask("alone")
    (told,) = (await ask_admin(gateway.port, "/admin/breakers", WITH_KEY)).json()["breakers"]
    assert (told["target"], told["state"], told["failures"], told["cause"]) == ("sim/m", "open", 5, "failures")
    assert told["last_error"] == "server_error"
    health = await get(gateway.port, "/health")
    assert health.json()["providers"]["sim"]["breaker"] == "open"
    assert (health.status, health.json()["status"]) == (200, "ok")
    wrong = await ask_admin(gateway.port, "/admin/breakers/reset", WITH_KEY, method="POST", body=b'{"target":"sim/n"}')
    assert (wrong.status, "Did you mean 'sim/m'?" in wrong.error["message"]) == (400, True)
    done = await ask_admin(gateway.port, "/admin/breakers/reset", WITH_KEY, method="POST", body=b'{"target":"sim/m"}')
    assert done.json() == {"reset": ["sim/m"]}
    recorder.answers = lambda _: GOOD
    assert (await gateway.ask("alone")).status == 200


async def test_the_probe_tells_health(start: Start, recorder: Recorder) -> None:
    gateway = await started(start, recorder, probe_every_s=0.05)

    async def becomes(status: int, word: str) -> dict[str, object]:
        async with asyncio.timeout(5):
            while True:
                health = await get(gateway.port, "/health")
                told: dict[str, object] = health.json()["providers"]["sim"]
                if (health.status, health.json()["status"]) == (status, word) and told["checked_at"]:
                    return told
                await asyncio.sleep(0.02)

    told = await becomes(200, "ok")
    assert (told["healthy"], told["last_error"]) == (True, None)
    assert recorder.received[0].line == "GET /v1/models HTTP/1.1"
    assert recorder.received[0].headers["authorization"] == "Bearer provider-key"
    recorder.answers = lambda _: BUSY
    told = await becomes(503, "down")
    assert (told["healthy"], told["last_error"]) == (False, "server_error")
    recorder.answers = lambda _: answer(404, b"{}")
    await becomes(200, "ok")
    assert (await get(gateway.port, "/health?strict=1")).status == 200


@pytest.mark.parametrize(
    "said",
    [
        {"message": "Invalid value: 'invalid api key'. Supported: 'text'.", "param": "response_format.type"},
        {"message": "Invalid value: 'invalid api key'. Supported: 'text'."},
        {"message": "Invalid value: 'unknown model'. Supported: 'text'.", "param": "response_format.type"},
        {"message": "Unknown name \"api key invalid\" at 'generation_config'"},
    ],
    ids=str,
)
async def test_what_a_client_wrote_quarantines_nothing(start: Start, recorder: Recorder, said: dict[str, str]) -> None:
    gateway = await started(start, recorder)
    body = orjson.dumps({"error": {"type": "invalid_request_error", "code": "invalid_value", **said}})
    recorder.answers = lambda _: answer(400, body, "content-type: application/json")
    got = await gateway.ask("alone")
    assert (got.status, got.body) == (400, body)
    recorder.answers = lambda _: GOOD
    assert (await gateway.ask("alone")).status == 200


async def test_a_key_without_a_scope_is_no_bad_key(start: Start, recorder: Recorder) -> None:
    gateway = await started(start, recorder)
    words = (
        b'{"error":{"message":"You have insufficient permissions for this operation. Missing scopes: model.request"}}'
    )
    recorder.answers = lambda _: answer(401, words)
    assert (await gateway.ask("alone")).error["code"] == "upstream_auth"
    recorder.answers = lambda _: GOOD
    assert (await gateway.ask("alone")).status == 200


@pytest.mark.parametrize("status", [401, 429, 500])
async def test_a_relayed_path_says_nothing_of_others(start: Start, recorder: Recorder, status: int) -> None:
    gateway = await started(start, recorder)
    recorder.answers = lambda _: answer(status, b'{"error":{"message":"Incorrect API key"}}', "retry-after: 60")
    for _ in range(6):
        client = await Connection.open(gateway.port)
        client.post("/v1/things", b"{}", {"x-penstock-provider": "sim"})
        assert (await client.answer()).status in (429, 502)
        await client.close()
    assert len(recorder.received) == 6
    recorder.answers = lambda _: GOOD
    assert (await gateway.ask("alone")).status == 200


async def test_a_slow_upload_is_the_clients(start: Start, recorder: Recorder) -> None:
    url = await recorder.start()
    gateway = await start(
        f"""
providers: {{sim: {{like: vllm, base_url: "{url}"}}}}
defaults:
  breaker: {{failures: 1}}
  timeouts: {{connect: 100ms, first_event: 300ms, idle: 300ms, silent: 300ms, total: 300ms}}
routes: {{ears: {{tiers: [sim/m]}}}}
"""
    )
    client = await Connection.open(gateway.port)
    named = b"--b\r\nContent-Disposition: form-data; name="
    head = named + b'"model"\r\n\r\nears\r\n' + named + b'"file"'
    client.writer.write(
        b"POST /v1/audio/transcriptions HTTP/1.1\r\nhost: x\r\ncontent-length: 9999\r\n"
        b"content-type: multipart/form-data; boundary=b\r\n\r\n" + head + b'; filename="a"\r\n\r\nslow'
    )
    got = await client.answer()
    assert (got.status, got.error["code"]) == (408, "request_timeout")
    assert got.error["metadata"]["attempts"][0]["ms"] > 0
    assert gateway.service._stores is not None
    assert gateway.service._stores.breakers.snapshot(time.time()) == []
    await client.close()
