"""`/admin/keys`, over a real gateway with its keys in SQLite and in PostgreSQL."""

import asyncio
import time
from collections.abc import Awaitable
from typing import Any

import orjson
import pytest

from proxy.core import virtual_key
from proxy.core.principal import Principal
from proxy.core.virtual_key import Malformed, parse
from proxy.edge.admin import keys
from proxy.edge.admin.table import ENDPOINTS
from proxy.phases.key_ring import KeyRing
from tests.conftest import Start
from tests.edge.doorway import KEY, ask
from tests.gateway import Answer, Gateway
from tests.postgres import Postgres

PEPPER = "Vn3rT8yLq1ZpW6sKx0BhD5mJc7GfU2aE"
CONFIG = "accounts: {poor: {budgets: {daily: 1}}}"
DAY_S = 24 * 3600


@pytest.fixture(params=["sqlite", "postgres"])
async def penstock(request: pytest.FixtureRequest, start: Start) -> Gateway:
    url = None
    if request.param == "postgres":
        server: Postgres = request.getfixturevalue("postgres")
        url = await server.new_database()
    return await start(CONFIG, admin_key=KEY, pepper=PEPPER, database_url=url)


@pytest.fixture
async def plain(start: Start) -> Gateway:
    return await start(CONFIG, admin_key=KEY, pepper=PEPPER)


async def call(penstock: Gateway, method: str, path: str, body: object = None, key: str = KEY) -> Answer:
    raw = None if body is None else orjson.dumps(body)
    return await ask(penstock.port, f"/admin/keys{path}", {"x-api-key": key}, method=method, body=raw)


async def told(answer: Awaitable[Answer]) -> Any:
    found = await answer
    assert found.status == 200, found.body
    return found.json()


async def create(penstock: Gateway, key: str = KEY, **fields: Any) -> Any:
    return await told(call(penstock, "POST", "", {"name": "one", **fields}, key))


async def refused(answer: Awaitable[Answer], status: int, *words: str) -> None:
    found = await answer
    assert found.status == status, found.body
    for word in words:
        assert word in found.error["message"], found.body


def ring(penstock: Gateway) -> KeyRing:
    assert penstock.runtime.keys is not None
    return penstock.runtime.keys


async def test_s08_a_key_is_shown_once(penstock: Gateway) -> None:
    made = await create(penstock)
    secret, key = made["secret"], made["key"]
    presented = parse(secret)
    assert not isinstance(presented, Malformed)
    assert isinstance(ring(penstock).verify(secret), Principal), "at once"
    assert (key["prefix"], key["last4"], key["id"]) == (secret[:16], secret[-4:], presented.id)
    for answer in (
        await call(penstock, "GET", ""),
        await call(penstock, "GET", f"/{key['id']}"),
        await call(penstock, "GET", f"/psk-{key['id']}"),
        await call(penstock, "PATCH", f"/{key['id']}", {"name": "two"}),
        await call(penstock, "DELETE", f"/{key['id']}"),
    ):
        assert answer.status == 200
        body = answer.body.decode()
        assert "secret" not in answer.json()
        assert not any(presented.secret[at : at + 6] in body for at in range(len(presented.secret) - 6))
        assert (key["prefix"] in body, secret[-4:] in body) == (True, True)
    assert secret not in str(penstock.log.events)


async def test_a_key_with_everything_is_told_as_it_was_asked_for(penstock: Gateway) -> None:
    later = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + DAY_S))
    asked: dict[str, Any] = {
        "name": "search, nightly",
        "account": "acme",
        "role": "viewer",
        "routes": ["voice", "openai/*"],
        "limits": {"rps": 2.5, "burst": 10, "tpm": 1000, "concurrency": 3},
        "budgets": {
            "daily": 0.1,
            "monthly": "2.000000001",
            "alert_at": 0.5,
            "timezone": "Europe/Paris",
            "when_away": "closed",
        },
        "expires_at": later,
        "tags": {"team": "search"},
        "cache": "key",
        "passthrough": False,
    }
    made = (await create(penstock, **asked))["key"]
    rest = {name: made[name] for name in made if name not in asked}
    budgets = {**asked["budgets"], "monthly": 2.000000001}
    assert {name: made[name] for name in asked} == {**asked, "budgets": budgets}
    assert rest["created_by"] == "admin key"
    assert (rest["state"], rest["revoked_at"], rest["old_secret_until"]) == ("active", None, None)
    shown = await told(call(penstock, "GET", f"/{made['id']}"))
    assert shown["key"] == made
    kept = await ring(penstock).store.get(made["id"])
    assert kept is not None
    assert kept.record is not None
    assert (kept.record.budgets.daily_nanousd, kept.record.budgets.monthly_nanousd) == (10**8, 2 * 10**9 + 1), "exactly"


async def test_what_is_changed_and_what_stays(penstock: Gateway) -> None:
    made = (await create(penstock, routes=["voice"], tags={"a": "b"}))["key"]
    changed = (await told(call(penstock, "PATCH", f"/{made['id']}", {"routes": None, "limits": {"rps": 1}})))["key"]
    assert changed == {**made, "routes": None, "limits": {"rps": 1, "burst": None, "tpm": None, "concurrency": None}}
    again = (await told(call(penstock, "PATCH", f"/{made['id']}", {"limits": None, "role": "viewer"})))["key"]
    assert again == {**made, "routes": None, "role": "viewer"}
    await refused(call(penstock, "PATCH", f"/{made['id']}", {}), 400, "Say what to change")
    await refused(call(penstock, "PATCH", f"/{made['id']}"), 400, "Say what to change")


async def test_a_revoked_key_is_revoked_for_ever(penstock: Gateway) -> None:
    made = await create(penstock)
    path = f"/{made['key']['id']}"
    gone = (await told(call(penstock, "DELETE", path)))["key"]
    assert gone["state"] == "revoked"
    assert not isinstance(ring(penstock).verify(made["secret"]), Principal), "at once"
    assert (await told(call(penstock, "DELETE", path)))["key"] == gone
    await refused(call(penstock, "PATCH", path, {"name": "x"}), 400, "revoked, for ever")
    await refused(call(penstock, "POST", f"{path}/rotate"), 400, "revoked, for ever")


async def test_a_key_is_rotated(penstock: Gateway) -> None:
    made = await create(penstock)
    path = f"/{made['key']['id']}/rotate"
    graced = await told(call(penstock, "POST", path, {"grace_s": 600}))
    verify = ring(penstock).verify
    assert graced["key"]["id"] == made["key"]["id"]
    assert graced["key"]["old_secret_until"] is not None
    assert isinstance(verify(made["secret"]), Principal)
    assert isinstance(verify(graced["secret"]), Principal)
    last = await told(call(penstock, "POST", path))
    assert [isinstance(verify(one["secret"]), Principal) for one in (made, graced, last)] == [False, False, True]
    for wrong in (-1, 1.5, True, "1h", 10**9):
        await refused(call(penstock, "POST", path, {"grace_s": wrong}), 400, "grace_s")


async def test_s09_a_revocation_reaches_another_instance_within_a_second(postgres: Postgres, start: Start) -> None:
    url = await postgres.new_database()
    here, there = [await start(CONFIG, admin_key=KEY, pepper=PEPPER, database_url=url) for _ in range(2)]
    made = await create(here)
    async with asyncio.timeout(1):
        while not isinstance(ring(there).verify(made["secret"]), Principal):
            await asyncio.sleep(0.01)
    await told(call(here, "DELETE", f"/{made['key']['id']}"))
    async with asyncio.timeout(1):
        while isinstance(ring(there).verify(made["secret"]), Principal):
            await asyncio.sleep(0.01)


async def test_lists_and_pages(penstock: Gateway) -> None:
    made = [
        (await create(penstock, name=f"n{at}", account="acme" if at % 2 else "beta"))["key"]["id"] for at in range(5)
    ]
    await told(call(penstock, "DELETE", f"/{made[1]}"))
    found, after = list[str](), ""
    while True:
        page = await told(call(penstock, "GET", f"?limit=2{after}"))
        found += [one["id"] for one in page["keys"]]
        if page["next"] is None:
            break
        after = f"&after={page['next']}"
    assert sorted(found) == sorted(made)

    async def ids(query: str) -> set[str]:
        return {one["id"] for one in (await told(call(penstock, "GET", query)))["keys"]}

    assert await ids("?account=acme") == {made[1], made[3]}
    assert await ids("?account=acme&state=active") == {made[3]}
    assert await ids("?state=revoked&limit=1") == {made[1]}
    assert await ids("?state=expired") == set()
    assert await ids("?account=nobody") == set()
    for wrong in ("?limit=0", "?limit=x", "?state=good", "?after=x", "?account=", "?more=1"):
        await refused(call(penstock, "GET", wrong), 400)


WRONG: tuple[tuple[str, object], ...] = (
    ("name", ""), ("name", None), ("name", 5), ("name", "x" * 101), ("name", "a\nb"), ("account", "a b"),
    ("account", None), ("account", "x" * 65), ("account", "../x"), ("role", "king"), ("role", None), ("role", 3),
    ("role", ["admin"]), ("routes", []), ("routes", "voice"), ("routes", ["a*b*"]), ("routes", [""]),
    ("routes", [5]), ("routes", ["a\0"]), ("routes", ["a"] * 101), ("limits", 5), ("limits", {"rps": 0}),
    ("limits", {"rps": True}), ("limits", {"rps": 0.0001}), ("limits", {"tpm": 10**10}),
    ("limits", {"rps": 1, "burst": 10**6}), ("limits", {"rps": "1"}), ("limits", {"burst": 1.5}), ("limits", {"tpm": -1}),
    ("limits", {"more": 1}), ("limits", {"burst": 5}), ("budgets", 5), ("budgets", {"daily": -1}),
    ("budgets", {"daily": "x"}), ("budgets", {"daily": 10**8}), ("budgets", {"daily": 1e-12}),
    ("budgets", {"weekly": 1}), ("budgets", {"alert_at": 0}), ("budgets", {"timezone": "Mars/Base"}),
    ("budgets", {"timezone": "../../etc/passwd"}), ("budgets", {"when_away": "maybe"}),
    ("budgets", {"daily": 2, "monthly": 1}), ("budgets", {"daily": True}), ("expires_at", "soon"), ("expires_at", 5),
    ("expires_at", "2020-01-01"), ("expires_at", True), ("expires_at", 1e300), ("tags", []), ("tags", {"a": 1}),
    ("tags", {"a=b": "c"}), ("tags", {"a": "x\ny"}), ("tags", {str(at): "" for at in range(9)}), ("cache", "all"),
    ("cache", None), ("cache", []), ("passthrough", "yes"), ("passthrough", None),
)  # fmt: skip


async def test_s12_every_value_is_checked(plain: Gateway) -> None:
    made = (await create(plain))["key"]
    for name, value in WRONG:
        answers = [await call(plain, "POST", "", {"name": "one", name: value})]
        if name != "account":
            answers.append(await call(plain, "PATCH", f"/{made['id']}", {name: value}))
        for answer in answers:
            assert answer.status == 400, (name, value, answer.body)
            assert name in answer.error["message"], (name, value, answer.body)
    assert (await told(call(plain, "GET", f"/{made['id']}")))["key"] == made
    assert len((await told(call(plain, "GET", "")))["keys"]) == 1
    await refused(call(plain, "POST", "", {}), 400, "'name' is missing")


SMUGGLED = (
    *("user_role", "allowed_routes", "tenant_id", "id", "secret", "digest", "hash", "kid", "created_by", "revoked_at"),
    "__proto__",
)


@pytest.mark.parametrize("name", SMUGGLED)
async def test_s12_what_is_not_to_be_set_is_refused_by_name(plain: Gateway, name: str) -> None:
    made = (await create(plain))["key"]
    one = f"/{made['id']}"
    for method, path, body in (
        ("POST", "", {"name": "x"}),
        ("PATCH", one, {}),
        ("POST", f"{one}/rotate", {}),
        ("DELETE", one, {}),
    ):
        await refused(call(plain, method, path, {**body, name: "admin"}), 400, f"'{name}'")
    await refused(call(plain, "PATCH", one, {"account": "other"}), 400, "'account'")
    assert (await told(call(plain, "GET", one)))["key"] == made


async def test_a_key_under_a_budget_does_not_pass_through(plain: Gateway) -> None:
    await refused(call(plain, "POST", "", {"name": "x", "passthrough": True, "budgets": {"daily": 1}}), 400, "budget")
    await refused(call(plain, "POST", "", {"name": "x", "passthrough": True, "account": "poor"}), 400, "budget")
    made = (await create(plain, passthrough=True))["key"]
    await refused(call(plain, "PATCH", f"/{made['id']}", {"budgets": {"daily": 1}}), 400, "budget")
    both = {"budgets": {"daily": 1}, "passthrough": False}
    assert (await told(call(plain, "PATCH", f"/{made['id']}", both)))["key"]["passthrough"] is False


# Virtual keys at the door.


def object_routes(key_id: str) -> list[tuple[str, str, object]]:
    """Every endpoint of one key, as the table has them."""
    bodies: dict[tuple[str, str], object] = {("PATCH", ""): {"name": "mine"}}
    return [
        (one.method, tail.replace("{id}", key_id), bodies.get((one.method, tail.partition("{id}")[2])))
        for one in ENDPOINTS
        if (tail := one.path.removeprefix("/admin/keys")) != one.path and "{id}" in tail
    ]


async def test_s13_a_key_of_one_account_sees_nothing_of_another(penstock: Gateway) -> None:
    """The sweep: every endpoint of one key, and the list. What is another's is answered as what is not there."""
    mine = await create(penstock, account="acme", role="admin")
    others = await create(penstock, account="beta")
    before = await told(call(penstock, "GET", f"/{others['key']['id']}"))
    swept = object_routes(others["key"]["id"])
    assert len(swept) == 4
    for method, path, body in swept:
        answer = await call(penstock, method, path, body, mine["secret"])
        nowhere = await call(
            penstock, method, path.replace(others["key"]["id"], virtual_key.make().id), body, mine["secret"]
        )
        assert (answer.status, answer.error["code"]) == (404, "key_not_found")
        assert answer.error == {**nowhere.error, "metadata": answer.error["metadata"]}
    seen = await told(call(penstock, "GET", "", key=mine["secret"]))
    assert [one["id"] for one in seen["keys"]] == [mine["key"]["id"]]
    for query in ("?account=beta", f"?after=9999999999-{'z' * 12}&account=beta"):
        assert (await told(call(penstock, "GET", query, key=mine["secret"])))["keys"] == []
    await refused(call(penstock, "POST", "", {"name": "x", "account": "beta"}, mine["secret"]), 403, "'account'")
    assert await told(call(penstock, "GET", f"/{others['key']['id']}")) == before
    own = await create(penstock, mine["secret"])
    assert (own["key"]["account"], own["key"]["created_by"]) == ("acme", mine["key"]["id"])


async def test_s11_no_role_makes_a_stronger_key(plain: Gateway) -> None:
    later = int(time.time()) + DAY_S
    bound: dict[str, Any] = {"account": "acme", "routes": ["voice"], "expires_at": later, "budgets": {"daily": 5}}
    admin, viewer, user = [await create(plain, role=role, **bound) for role in ("admin", "viewer", "user")]
    free = await create(plain, account="acme")
    body = {"name": "x", **bound}
    for weak, status in ((viewer, 403), (user, 403)):
        for method, path, asked in (("POST", "", body), *object_routes(free["key"]["id"])):
            if method != "GET":
                await refused(call(plain, method, path, asked, weak["secret"]), status, "takes the role admin")
    assert (await call(plain, "GET", "", key=viewer["secret"])).status == 200
    assert (await call(plain, "GET", "", key=user["secret"])).status == 403
    assert (await call(plain, "POST", "", body, admin["secret"])).status == 200
    more: tuple[tuple[str, object], ...] = (
        ("routes", None), ("routes", ["voice", "draft"]), ("routes", ["*"]), ("expires_at", None),
        ("expires_at", later + 1), ("budgets", None), ("budgets", {"daily": 6}), ("passthrough", True),
        ("account", "beta"), ("limits", {"rps": 100}),
    )  # fmt: skip
    for name, value in more:
        extra = {"budgets": None} if name == "passthrough" else {}
        answer = await call(plain, "POST", "", {**body, **extra, name: value}, admin["secret"])
        assert (answer.status, answer.error["code"]) == (403, "role_not_allowed"), (name, value, answer.body)
        if name != "account":
            changed = await call(plain, "PATCH", f"/{user['key']['id']}", {**extra, name: value}, admin["secret"])
            assert changed.status == 403, (name, value)
    for method, path, asked in object_routes(free["key"]["id"]):
        if method != "GET":
            await refused(call(plain, method, path, asked, admin["secret"]), 403, "goes beyond its own")
    assert (await told(call(plain, "POST", f"/{user['key']['id']}/rotate", key=admin["secret"])))["secret"]


async def test_virtual_keys_reach_nothing_that_is_of_all_accounts(plain: Gateway) -> None:
    """Where nobody keeps them to their account they are not let in."""
    admin = await create(plain, role="admin")
    for one in ENDPOINTS:
        if not one.per_account:
            path = one.path.replace("{id}", "x")
            answer = await ask(plain.port, path, {"x-api-key": admin["secret"]}, method=one.method)
            assert (answer.status, answer.error["code"]) == (403, "role_not_allowed"), one.path


async def test_a_revoked_admin_is_not_let_in(plain: Gateway) -> None:
    admin = await create(plain, role="admin")
    await told(call(plain, "DELETE", f"/{admin['key']['id']}"))
    for presented in (admin["secret"], virtual_key.make().text, "nonsense"):
        answer = await call(plain, "GET", "", key=presented)
        assert (answer.status, answer.error["code"]) == (401, "invalid_api_key")


async def test_of_changes_at_once_none_is_lost(penstock: Gateway) -> None:
    made = (await create(penstock))["key"]
    fields: tuple[dict[str, object], ...] = ({"name": "n"}, {"routes": ["r"]}, {"tags": {"a": "b"}}, {"cache": "key"})
    answers = await asyncio.gather(*(call(penstock, "PATCH", f"/{made['id']}", one) for one in fields))
    assert [one.status for one in answers] == [200] * 4
    shown = (await told(call(penstock, "GET", f"/{made['id']}")))["key"]
    assert shown == {**made, "name": "n", "routes": ["r"], "tags": {"a": "b"}, "cache": "key"}


async def test_there_may_be_so_many_keys_and_no_more(plain: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "KEYS_MAX", 2)
    for _ in range(2):
        await create(plain)
    await refused(call(plain, "POST", "", {"name": "x"}), 400, "no more can be made")


async def test_unknown_keys(plain: Gateway) -> None:
    for key_id in ("x", virtual_key.make().id, "%00", "%ED%A0%80", "' OR 1", virtual_key.make().text):
        for method, path, body in object_routes(key_id.replace(" ", "%20").replace("'", "%27")):
            answer = await call(plain, method, path, body)
            assert (answer.status, answer.error["code"]) == (404, "key_not_found"), answer.body


async def test_without_a_store(start: Start, postgres: Postgres, tmp_path: Any) -> None:
    none = await start(CONFIG, admin_key=KEY)
    await refused(call(none, "GET", ""), 503, "keeps no virtual keys")
    away = await start(CONFIG, admin_key=KEY, pepper=PEPPER, database_url=f"postgresql://x@/x?host={tmp_path}")
    for method, path, body in (("GET", "", None), ("POST", "", {"name": "x"}), *object_routes(virtual_key.make().id)):
        answer = await call(away, method, path, body)
        assert (answer.status, answer.error["code"], answer.headers["retry-after"]) == (503, "store_unavailable", "5")
