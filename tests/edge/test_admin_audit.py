"""S68 at the door: every act is in the audit log before it is done, and refused where that cannot be."""

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest

from proxy.core.audit import AuditEntry
from proxy.core.failure import Failure, FailureKind, Rejected
from proxy.core.principal import Principal
from proxy.edge.admin.endpoint import Ask, Endpoint
from proxy.edge.admin.table import ENDPOINTS
from proxy.ports import AuditLog
from proxy.server.audit import verified
from proxy.terms import AccountId, Role, VirtualKeyId
from tests.conftest import Start
from tests.edge.doorway import KEY, OTHER, Door, Handlers, ask, open_door
from tests.gateway import Connection

WITH_KEY = {"x-api-key": KEY}
BOUND, VIEWER = "psk-bound-Zq8vT1nB6yKd4wXs9LpRf2", "psk-viewer-Zq8vT1nB6yKd4wXs9LpRf"
PRINCIPALS = {
    BOUND: Principal(AccountId("acme"), Role.ADMIN, VirtualKeyId("vk_1")),
    VIEWER: Principal(AccountId("acme"), Role.VIEWER, VirtualKeyId("vk_2")),
}


class Acting(Handlers):
    """Handlers that look into the audit log when they are called."""

    def __init__(self, handlers: Handlers) -> None:
        super().__init__()
        self.asked = handlers.asked
        self.written_before: list[list[str]] = []

    async def take(self, ask: Ask) -> Mapping[str, object]:
        self.written_before.append([entry.act.outcome for entry in await ask.audit.read(0, 100)])
        return {**await super().take(ask), "label": "made", "secret": "hunter2 hunter2"}

    async def refuse(self, ask: Ask) -> Mapping[str, object]:
        raise Rejected(Failure(FailureKind.BAD_REQUEST, "no such thing"))

    async def wait(self, ask: Ask) -> Mapping[str, object]:
        self.asked.append(ask)
        await asyncio.sleep(30)
        return {}

    def table(self) -> tuple[Endpoint, ...]:
        known = frozenset({"label", "value"})
        return (
            Endpoint("GET", "/admin/things", Role.VIEWER, self.take, per_account=True),
            Endpoint("POST", "/admin/things", Role.ADMIN, self.take, known, recorded=frozenset({"label"})),
            Endpoint("PATCH", "/admin/things/{id}", Role.ADMIN, self.take, known, per_account=True),
            Endpoint("DELETE", "/admin/things/{id}", Role.ADMIN, self.refuse),
            Endpoint("POST", "/admin/broken", Role.ADMIN, self.fail),
            Endpoint("POST", "/admin/slow", Role.ADMIN, self.wait),
        )


def acting(handlers: Handlers) -> Sequence[Endpoint]:
    return Acting(handlers).table()


def acts(door: Door) -> list[AuditEntry]:
    """Without the first use of each key."""
    return [entry for entry in door.audit.entries if entry.act.outcome != "noted"]


async def test_s68_an_act_is_written_before_it_is_done_and_when_it_was() -> None:
    made: list[Acting] = []

    def table(handlers: Handlers) -> Sequence[Endpoint]:
        made.append(Acting(handlers))
        return made[0].table()

    async with open_door(table=table) as door:
        body = orjson.dumps({"label": "team a", "value": "hunter2 hunter2"})
        answer = await ask(door.port, "/admin/things", {**WITH_KEY, "x-request-id": "r1"}, method="POST", body=body)
        assert answer.status == 200
        assert [outcome for outcome in made[0].written_before[0] if outcome != "noted"] == ["begun"]
        begun, done = acts(door)
        assert (begun.act.outcome, done.act.outcome, done.act.begun) == ("begun", "done", begun.number)
        for entry in (begun, done):
            assert (entry.act.actor, entry.act.role, entry.act.act) == ("admin key", "admin", "POST /admin/things")
            assert (entry.act.request_id, entry.act.peer, entry.act.account) == ("r1", "127.0.0.1", None)
        assert orjson.loads(begun.act.changes) == {"label": "team a", "value": "(15 characters)"}
        assert orjson.loads(done.act.changes)["label"] == "made"
        assert "hunter2" not in repr(door.audit.entries)
        assert (await verified(door.audit))[1] == ()


async def test_s68_what_is_refused_after_the_key_is_written_too() -> None:
    async with open_door(table=acting, others=PRINCIPALS) as door:
        ways = [
            (VIEWER, "POST", "/admin/things", b"{}", 403, ("key:vk_2", "POST /admin/things", "", "acme")),
            (BOUND, "POST", "/admin/things", b"{}", 403, ("key:vk_1", "POST /admin/things", "", "acme")),
            (KEY, "POST", "/admin/things", b"{", 400, ("admin key", "POST /admin/things", "", None)),
            (KEY, "POST", "/admin/things", b'{"role":1}', 400, ("admin key", "POST /admin/things", "", None)),
            (KEY, "PATCH", "/admin/things/7?x=1", b"{}", 400, ("admin key", "PATCH /admin/things/{id}", "7", None)),
        ]
        for key, method, path, body, status, told in ways:
            before = len(acts(door))
            assert (await ask(door.port, path, {"x-api-key": key}, method=method, body=body)).status == status
            (entry,) = acts(door)[before:]
            assert entry.act.outcome == "refused"
            assert (entry.act.actor, entry.act.act, entry.act.subject, entry.act.account) == told
        assert door.handlers.asked == []


async def test_s68_an_act_that_fails_says_so() -> None:
    async with open_door(table=acting) as door:
        assert (await ask(door.port, "/admin/things/a%20b", WITH_KEY, method="DELETE")).status == 400
        assert (await ask(door.port, "/admin/broken", WITH_KEY, method="POST")).status == 500
        told = [(entry.act.outcome, entry.act.subject, entry.act.changes) for entry in acts(door)]
        assert told == [
            ("begun", "a b", "{}"),
            ("refused", "a b", '{"code":"invalid_request"}'),
            ("begun", "", "{}"),
            ("failed", "", '{"error":"RuntimeError"}'),
        ]
        connection = await Connection.open(door.port)
        connection.writer.write(
            b"POST /admin/slow HTTP/1.1\r\nhost: localhost\r\nx-api-key: " + KEY.encode() + b"\r\n\r\n"
        )
        async with asyncio.timeout(5):
            while len(acts(door)) < 5:
                await asyncio.sleep(0.005)
            await connection.close()
            while len(acts(door)) < 6:
                await asyncio.sleep(0.005)
        assert [entry.act.outcome for entry in acts(door)[4:]] == ["begun", "failed"]


async def test_s68_without_the_log_nothing_is_done_and_everything_is_read() -> None:
    async with open_door(table=acting) as door:
        door.audit.away = True
        answer = await ask(door.port, "/admin/things", WITH_KEY, method="POST", body=b"{}")
        assert (answer.status, answer.error["code"], answer.headers["retry-after"]) == (503, "store_unavailable", "5")
        assert answer.headers["x-should-retry"] == "true"
        assert door.handlers.asked == []
        assert (await ask(door.port, "/admin/things/7", WITH_KEY, method="DELETE", body=b"{")).status == 400
        door.audit.away = False
        assert (await ask(door.port, "/admin/things", WITH_KEY)).status == 200
        assert len(door.handlers.asked) == 1
        assert sum(event["message"] == "audit: an entry could not be written" for event in door.log.events) >= 1
        assert (await ask(door.port, "/admin/things", WITH_KEY, method="POST", body=b"{}")).status == 200


async def test_s68_a_log_that_does_not_answer_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.edge.admin.record.WRITE_S", 0.05)
    async with open_door(table=acting) as door:

        async def asleep(act: object) -> None:
            await asyncio.sleep(30)

        monkeypatch.setattr(door.audit, "append", asleep)
        answer = await ask(door.port, "/admin/things", WITH_KEY, method="POST", body=b"{}")
        assert answer.status == 503
        assert door.handlers.asked == []


async def test_s68_the_outcome_that_cannot_be_written_is_in_the_log_of_the_process() -> None:
    async def cut_off(ask: Ask) -> Mapping[str, object]:
        door.audit.away = True
        return {}

    def table(_: Handlers) -> Sequence[Endpoint]:
        return (Endpoint("POST", "/admin/things", Role.ADMIN, cut_off),)

    async with open_door(table=table) as door:
        assert (await ask(door.port, "/admin/things", WITH_KEY, method="POST")).status == 200
        unwritten = [event for event in door.log.events if event["message"] == "audit: an entry could not be written"]
        assert ("POST /admin/things", "done") in [(event["act"], event["outcome"]) for event in unwritten]


async def _noted(door: Door, count: int) -> list[tuple[str, str]]:
    async with asyncio.timeout(5):
        while len(door.audit.entries) < count:
            await asyncio.sleep(0.005)
    await asyncio.sleep(0.02)
    return [(entry.act.actor, entry.act.act) for entry in door.audit.entries]


async def test_s68_the_use_of_a_key_is_told_once_in_a_window_for_each_address() -> None:
    async with open_door(table=acting, others=PRINCIPALS) as door:
        for _ in range(5):
            assert (await ask(door.port, "/admin/things", WITH_KEY)).status == 200
            assert (await ask(door.port, "/admin/things", {"x-api-key": VIEWER})).status == 200
        assert sorted(await _noted(door, 2)) == [("admin key", "key used"), ("key:vk_2", "key used")]
        assert (await ask(door.port, "/admin/things", {**WITH_KEY, "host": "evil.example"})).status == 421
        assert (await ask(door.port, f"/admin/things?k={KEY}", WITH_KEY)).status == 400
        told = await _noted(door, 4)
        assert told[2:] == [("admin key", "key used at a foreign host"), ("admin key", "key sent in a URL")]
        assert KEY not in repr(door.audit.entries)


async def test_s68_wrong_keys_are_one_entry_a_window() -> None:
    async with open_door(table=acting) as door:
        for number in range(100):
            assert (await ask(door.port, "/admin/things", {"x-api-key": f"{OTHER}{number}"})).status in (401, 429)
        for _ in range(3):
            assert (await ask(door.port, "/admin/things")).status == 401
        assert await _noted(door, 1) == [("nobody", "wrong admin key")]
        (entry,) = door.audit.entries
        assert (entry.act.role, entry.act.peer) == ("", "127.0.0.1")
        assert OTHER not in repr(door.audit.entries)


async def test_s68_strangers_from_many_addresses_fill_no_log() -> None:
    async with open_door(table=acting) as door:
        for number in range(2, 120):
            streams = await asyncio.open_connection("127.0.0.1", door.port, local_addr=(f"127.0.0.{number}", 0))
            client = Connection(*streams)
            client.writer.write(
                b"GET /admin/x HTTP/1.1\r\nhost: localhost\r\nx-api-key: " + OTHER.encode() + b"\r\n\r\n"
            )
            assert (await client.answer()).status == 401
            await client.close()
        assert len(await _noted(door, 64)) == 64
        assert (await ask(door.port, "/admin/things", WITH_KEY)).status == 200
        assert (await _noted(door, 65))[-1] == ("admin key", "key used")


def test_s68_what_may_hold_a_secret_or_a_prompt_is_recorded_of_no_endpoint() -> None:
    for endpoint in ENDPOINTS:
        secret = {"requests", "value", "secret", "key", "api_key", "credential", "password", "reasons", "token"}
        assert not endpoint.recorded & secret, endpoint.path


# Over HTTP, on a real store.


async def _entries(port: int, query: str = "", status: int = 200) -> Any:
    answer = await ask(port, f"/admin/audit{query}", WITH_KEY)
    assert answer.status == status, answer.body
    return answer.json()


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
async def test_s68_a_gateway_writes_its_life_and_what_was_done(
    start: Start, kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    url = await request.getfixturevalue("postgres").new_database() if kind == "postgres" else None
    gateway = await start("routes: {}", admin_key=KEY, database_url=url, data=tmp_path)
    assert (await ask(gateway.port, "/admin/breakers/reset", WITH_KEY, method="POST", body=b"{}")).status == 200
    bad = await ask(gateway.port, "/admin/cache/invalidate", WITH_KEY, method="POST", body=b'{"route":7}')
    assert bad.status == 400
    async with asyncio.timeout(5):
        while len((told := await _entries(gateway.port))["entries"]) < 6:
            await asyncio.sleep(0.01)
    found = {(one["actor"], one["act"], one["outcome"]) for one in told["entries"]}
    assert found == {
        ("penstock", "started", "noted"),
        ("admin key", "key used", "noted"),
        ("admin key", "POST /admin/breakers/reset", "begun"),
        ("admin key", "POST /admin/breakers/reset", "done"),
        ("admin key", "POST /admin/cache/invalidate", "begun"),
        ("admin key", "POST /admin/cache/invalidate", "refused"),
    }
    assert told["head"]["number"] == 6
    assert told["entries"][0]["hash"] == told["head"]["hash"]
    assert [one["number"] for one in told["entries"]] == [6, 5, 4, 3, 2, 1]

    page = await _entries(gateway.port, "?limit=4")
    assert ([one["number"] for one in page["entries"]], page["after"]) == ([6, 5, 4, 3], "3")
    rest = await _entries(gateway.port, f"?limit=4&after={page['after']}")
    assert ([one["number"] for one in rest["entries"]], rest["after"]) == ([2, 1], None)
    started = (await _entries(gateway.port, "?actor=penstock"))["entries"]
    assert [one["act"] for one in started] == ["started"]
    assert started[0]["changes"]["port"] == gateway.port
    assert len((await _entries(gateway.port, "?act=POST%20/admin/cache/invalidate"))["entries"]) == 2
    assert (await _entries(gateway.port, "?subject=nothing"))["entries"] == []
    assert (await _entries(gateway.port, "?until=2020-01-01"))["entries"] == []
    for wrong in ("?limit=0", "?after=x", "?since=x", "?actor=", "?since=2026-01-02&until=2026-01-01", "?x=1"):
        await _entries(gateway.port, wrong, 400)

    assert gateway.service._stores is not None
    await gateway.stop()
    again = await start("routes: {}", admin_key=KEY, database_url=url, data=tmp_path)
    assert again.service._stores is not None
    log: AuditLog = again.service._stores.audit
    async with asyncio.timeout(5):
        while (await log.head()).number < 8:
            await asyncio.sleep(0.01)
    assert [entry.act.act for entry in (await log.read(6, 10))] == ["stopped", "started"]
    assert (await verified(log))[1] == ()
