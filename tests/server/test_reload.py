"""Hot reload, on a whole Penstock and a real file: what is served changes whole, or not at all."""

import asyncio
import os
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import orjson
import pytest

from proxy.config.pricing import with_price_list
from proxy.config.resolve import blueprint, load
from proxy.core.breaker import PASS, Event, target_subject
from proxy.core.credential import NOTHING_SEALED
from proxy.core.routing import RoutingTable
from proxy.core.wrong_keys import WRONG_MAX
from proxy.edge.admin.shell import AdminKey
from proxy.ports import ConfigState
from proxy.server import serve
from proxy.server.reload import Reloader
from proxy.server.serve import Options, Service
from proxy.server.settings import Settings
from proxy.server.table_source import TableSource
from proxy.simulator.server import Simulator
from proxy.terms import TargetName
from tests.edge.doorway import KEY, ask
from tests.gateway import CHAT, Connection, Gateway, RecordingLog, send

WITH_KEY = {"x-api-key": KEY}


class Followed:
    """A gateway that runs on a file."""

    def __init__(self, gateway: Gateway, path: Path, head: str) -> None:
        self.gateway = gateway
        self.path = path
        self._head = head

    def write(self, text: str) -> None:
        """As an editor does that replaces the file."""
        draft = self.path.with_suffix(".draft")
        draft.write_text(self._head + text)
        draft.replace(self.path)

    async def reload(self, text: str) -> ConfigState:
        self.write(text)
        return await self.reloader.reload("the test asked")

    @property
    def reloader(self) -> Reloader:
        assert self.gateway.service.reloader is not None
        return self.gateway.service.reloader

    async def until(self, seen: Callable[[ConfigState], bool]) -> None:
        async with asyncio.timeout(5):
            while not seen(self.reloader.state):
                await asyncio.sleep(0.01)

    async def model(self) -> str:
        answer = await self.gateway.ask("voice")
        assert answer.status == 200
        return answer.headers["x-penstock-model"]

    async def ask_for_reload(self) -> tuple[int, dict[str, object]]:
        answer = await ask(self.gateway.port, "/admin/config/reload", WITH_KEY, method="POST")
        document: dict[str, object] = answer.json()
        return answer.status, document


def _head(upstream_url: str) -> str:
    return f'providers: {{sim: {{like: vllm, base_url: "{upstream_url}"}}}}\n'


@pytest.fixture
async def followed(
    tmp_path: Path, upstream: Simulator, upstream_url: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Followed]:
    monkeypatch.setattr(serve, "Reloader", partial(Reloader, look_s=0.02, still_s=0.02))
    path = tmp_path / "routes.yaml"
    log = RecordingLog()
    settings = Settings(data=tmp_path / "data")
    head = _head(upstream_url)
    path.write_text(f"{head}routes: {{voice: {{tiers: [sim/first]}}}}")

    environ = {"HOOK": "http://127.0.0.1:1/hook"}
    tables = TableSource(lambda: blueprint(path, environ), with_price_list, lambda _: NOTHING_SEALED)
    options = Options(path, port=0, drain_s=0.2)
    service = Service(options, settings, tables.table(), log, admin_key=AdminKey(KEY), tables=tables)
    made = Followed(Gateway(service, log, tmp_path / "data"), path, head)
    await service.start()
    yield made
    await service.stop()


async def test_a_change_of_the_file_is_served(followed: Followed) -> None:
    assert await followed.model() == "first"
    followed.write("routes: {voice: {tiers: [sim/second]}}")
    await followed.until(lambda state: state.reloads == 1)
    assert await followed.model() == "second"
    (event,) = [one for one in followed.gateway.log.events if one["message"] == "configuration: reloaded"]
    assert event["changes"] == ("route voice: served by sim/second, was sim/first",)


async def test_a_change_in_place_of_the_same_length_is_seen(followed: Followed) -> None:
    text = followed.path.read_text().replace("first", "third")
    with followed.path.open("r+") as opened:
        opened.write(text)
    await followed.until(lambda state: state.reloads == 1)
    assert await followed.model() == "third"


async def test_f105_a_broken_file_changes_nothing_and_is_told(followed: Followed) -> None:
    good = followed.reloader.state
    state = await followed.reload("routes:\n  voice: {tiers: [smi/second]}\n  other: {tires: []}\n")
    assert (state.sha256, state.reload_failed) == (good.sha256, True)
    assert await followed.model() == "first"
    status, answer = await followed.ask_for_reload()
    assert status == 400
    assert "routes.yaml:3:19" in orjson.dumps(answer).decode()
    shown = (await ask(followed.gateway.port, "/admin/config", WITH_KEY)).json()
    assert (shown["sha256"], shown["failed_at"] > 0, len(shown["problems"])) == (good.sha256, True, len(state.problems))
    assert "Did you mean" in " ".join(shown["problems"])
    events = [one for one in followed.gateway.log.events if "NOT reloaded" in str(one["message"])]
    assert events[-1]["problems"] == state.problems
    state = await followed.reload("routes: {voice: {tiers: [sim/second]}}")
    assert (state.problems, state.failed_at, state.reload_failed) == ((), None, False)
    assert await followed.model() == "second"


async def test_f105_a_file_that_vanishes_and_comes_back(followed: Followed) -> None:
    kept = followed.path.read_text()
    followed.path.unlink()
    await followed.until(lambda state: state.reload_failed)
    assert "No such file" in followed.reloader.state.problems[0]
    assert await followed.model() == "first"
    followed.path.write_text(kept)
    await followed.until(lambda state: not state.reload_failed)
    assert await followed.model() == "first"


async def test_the_answer_of_a_reload_says_what_changed(followed: Followed) -> None:
    followed.write("routes: {voice: {tiers: [sim/first]}, other: {tiers: [sim/x]}}")
    status, answer = await followed.ask_for_reload()
    assert (status, answer["changes"], answer["problems"]) == (200, ["route other: added"], [])


async def test_a_stream_keeps_the_table_that_it_began_with(followed: Followed) -> None:
    await followed.reload("routes: {voice: {tiers: ['sim/paced:12:50ms']}}")
    client = await Connection.open(followed.gateway.port)
    client.post(CHAT, orjson.dumps({"model": "voice", "stream": True, "messages": []}))
    await client.until(b'"content":"')
    state = await followed.reload("routes: {other: {tiers: [sim/second]}}")
    assert set(state.changes) == {"route voice: removed", "route other: added"}
    assert (await followed.gateway.ask("voice")).status == 404
    answer = await client.answer()
    assert (answer.status, answer.headers["x-penstock-model"]) == (200, "paced:12:50ms")
    assert answer.body.endswith(b"data: [DONE]\n\n")
    await client.close()


async def test_a_thousand_requests_during_twenty_reloads(followed: Followed) -> None:
    """None fails, and each is answered by one table: route and model are of the same edition."""
    await followed.reload(_edition(0))
    asked, done, seen = 1000, 0, Counter[str]()

    async def client() -> None:
        nonlocal done
        connection = await Connection.open(followed.gateway.port)
        body = orjson.dumps({"model": "voice", "messages": []})
        while done < asked:
            done += 1
            connection.post(CHAT, body)
            answer = await connection.answer()
            assert answer.status == 200, answer.body
            assert answer.json()["model"] == answer.headers["x-penstock-model"]
            seen[answer.headers["x-penstock-model"]] += 1
        await connection.close()

    async def reloads() -> None:
        for number in range(1, 21):
            target = asked * number // 22
            while done < target:
                await asyncio.sleep(0.002)
            assert not (await followed.reload(_edition(number))).problems

    async with asyncio.TaskGroup() as group:
        group.create_task(reloads())
        for _ in range(8):
            group.create_task(client())
    assert sum(seen.values()) >= asked
    assert len(seen) == 21, seen
    assert followed.reloader.state.reloads == 21
    assert not followed.gateway.log.bugs


def _edition(number: int) -> str:
    return f"routes: {{voice: {{tiers: [sim/edition-{number}]}}}}"


async def test_what_was_learned_outlives_a_reload(followed: Followed) -> None:
    before = followed.gateway.runtime
    subject = target_subject(TargetName("sim/first"))
    for _ in range(5):
        before.breakers.report(subject, PASS, Event.FAILURE, time.time())
    before.plain_targets.add(TargetName("sim/first"))
    await followed.reload("routes: {voice: {tiers: [sim/first]}, other: {tiers: [sim/x]}}")
    after = followed.gateway.runtime
    assert after is not before
    for name in ("breakers", "budgets", "books", "cache", "speeds", "output_sizes", "recalls", "plain_targets"):
        assert getattr(after, name) is getattr(before, name)
    for name in ("flights", "flying", "hedging", "ticker", "retry_budget", "rng", "upstream"):
        assert getattr(after, name) is getattr(before, name)
    assert (await followed.gateway.ask("voice")).status == 503
    followed.gateway.forgive()


async def test_what_a_table_says_beyond_routing_follows(followed: Followed) -> None:
    before = followed.gateway.runtime
    state = await followed.reload(
        """
routes: {voice: {tiers: [sim/first]}}
defaults: {breaker: {failures: 2}, retry: {budget: 0.5}}
cors: {origins: ["https://app.example.com"]}
ledger: {keep_days: 40}
alerts: [{to: webhook, url: env:HOOK}]
"""
    )
    assert not state.problems
    assert set(state.changes) >= {"breaker changed", "cors changed", "ledger.keep_days changed", "alerts changed"}
    runtime, stores = followed.gateway.runtime, followed.gateway.service._stores
    assert stores is not None
    assert runtime.breakers.policy.failures == 2
    assert runtime.retry_budget is not before.retry_budget
    assert len(stores.alerts._lines) == 1
    assert stores._retaining is not None
    body = orjson.dumps({"model": "voice", "messages": []})
    answer = await send(followed.gateway.port, CHAT, body, {"origin": "https://app.example.com"})
    assert answer.headers["access-control-allow-origin"] == "https://app.example.com"
    await followed.reload("routes: {voice: {tiers: [sim/first]}}")
    assert not stores.alerts._lines
    assert stores._retaining is None


async def test_access_follows_and_never_opens_to_a_network(followed: Followed) -> None:
    state = await followed.reload("routes: {voice: {tiers: [sim/first]}}\naccess: {mode: keys}")
    assert state.changes == ("access: keys, was open",)
    assert (await followed.gateway.ask("voice")).status == 401
    followed.gateway.service.options.host = "192.0.2.1"  # as if it listened there
    state = await followed.reload("routes: {voice: {tiers: [sim/first]}}\naccess: {mode: open}")
    assert "access is open" in state.problems[0]
    assert (await followed.gateway.ask("voice")).status == 401
    followed.gateway.service.options.host = "127.0.0.1"
    assert not (await followed.reloader.reload("once more")).problems
    assert (await followed.gateway.ask("voice")).status == 200


async def test_who_has_shown_wrong_keys_is_not_forgotten(followed: Followed) -> None:
    """Or a file that changes often would let a guesser fill the log."""
    await followed.reload("routes: {voice: {tiers: [sim/first]}}\naccess: {mode: keys}")
    shown = {"authorization": "Bearer psk-nobody"}
    body = orjson.dumps({"model": "voice", "messages": []})
    for _ in range(WRONG_MAX):
        assert (await send(followed.gateway.port, CHAT, body, shown)).status == 401
    await followed.reload("routes: {voice: {tiers: [sim/second]}}\naccess: {mode: keys}")
    assert (await send(followed.gateway.port, CHAT, body, shown)).status == 429


async def test_reading_leaves_the_loop_alone(followed: Followed) -> None:
    """A thread reads: meanwhile requests are answered."""
    read = followed.reloader._read

    def slowly() -> RoutingTable:
        time.sleep(0.3)
        return read()

    followed.reloader._read = slowly
    reloading = asyncio.create_task(followed.reload("routes: {voice: {tiers: [sim/second]}}"))
    await asyncio.sleep(0.05)
    assert await followed.model() == "first"
    assert not reloading.done()
    await reloading
    assert await followed.model() == "second"


async def test_without_a_file_there_is_nothing_to_reload(tmp_path: Path, upstream_url: str) -> None:
    table = replace(load(_file(tmp_path), os.environ), source=None)
    log = RecordingLog()
    service = Service(Options(tmp_path / "none", port=0, drain_s=0.1), Settings(data=tmp_path / "data"), table, log)
    service.admin_key = AdminKey(KEY)
    await service.start()
    try:
        answer = await ask(service.port, "/admin/config/reload", WITH_KEY, method="POST")
        assert (answer.status, "without a routes file" in answer.error["message"]) == (400, True)
        service.reload("SIGHUP")
        assert log.events[-1]["message"] == "there is no routes file to read again"
    finally:
        await service.stop()


def _file(tmp_path: Path) -> Path:
    path = tmp_path / "some.yaml"
    path.write_text("routes: {}")
    return path
