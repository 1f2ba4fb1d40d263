"""The door of the admin API: who is let in, what others are told, and what a request may say."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from proxy.core.wrong_keys import WRONG_MAX
from proxy.edge.admin.endpoint import Endpoint
from proxy.edge.admin.shell import AdminKey
from proxy.edge.admin.table import ENDPOINTS
from proxy.terms import Role
from tests.edge.doorway import KEY, OTHER, Door, Handlers, ask, open_door, request
from tests.gateway import Answer, Connection
from tests.stopwatch import Stopwatch

CARRIERS = [
    pytest.param(lambda key: {"authorization": f"Bearer {key}"}, id="authorization"),
    pytest.param(lambda key: {"x-api-key": key}, id="x-api-key"),
    pytest.param(lambda key: {"api-key": key}, id="api-key"),
]
WITH_KEY = {"x-api-key": KEY}


@pytest.fixture
async def door() -> AsyncIterator[Door]:
    async with open_door() as opened:
        yield opened


def is_refused(answer: Answer, status: int, code: str) -> str:
    """Checks what every refusal has in common; gives its message."""
    assert (answer.status, answer.error["code"]) == (status, code)
    assert set(answer.error) == {"message", "type", "param", "code", "metadata"}
    assert answer.headers["x-should-retry"] == "false"
    assert_sealed(answer)
    message: str = answer.error["message"]
    return message


def assert_sealed(answer: Answer) -> None:
    """The headers of every answer; and no key in any byte."""
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["server"] == "penstock"
    assert answer.headers["x-request-id"]
    assert "Authorization" in answer.headers["vary"]
    assert answer.headers["content-type"] == "application/json"
    assert not [name for name in answer.headers if name.startswith("access-control-")]
    assert KEY.encode() not in answer.raw
    assert OTHER.encode() not in answer.raw


# The table.


def test_the_table_is_the_one_that_was_agreed_on() -> None:
    """Change `admin_table.txt` with the table: who may do what is looked at twice."""
    lines = [f"{one.method:<6} {one.role.name.lower():<7} {one.path}" for one in ENDPOINTS]
    assert "\n".join([*lines, ""]) == (Path(__file__).parent / "admin_table.txt").read_text()


def test_no_row_hides_another() -> None:
    for number, one in enumerate(ENDPOINTS):
        assert one.path.startswith("/admin/") or one.path == "/metrics"
        assert one.role in (Role.VIEWER, Role.ADMIN)
        assert one.role is Role.ADMIN or one.method == "GET", "a viewer changes nothing"
        earlier = [
            each for each in ENDPOINTS[:number] if each.method == one.method and each.match(one.path) is not None
        ]
        assert not earlier, f"{one.path} is never reached"


def _served(handlers: Handlers) -> list[Endpoint]:
    """The table that is served, its handlers counted instead."""
    return [replace(endpoint, handler=handlers.take) for endpoint in ENDPOINTS]


@pytest.mark.parametrize("table", [_served, Handlers.table])
async def test_every_endpoint_asks_for_the_key_and_calls_nothing_without(
    table: Callable[[Handlers], Sequence[Endpoint]],
) -> None:
    strangers = [{}, {"x-api-key": ""}, {"authorization": "Bearer"}, {"cookie": f"x-api-key={KEY}"}]
    for endpoint in table(Handlers()):
        async with open_door(table=table) as door:  # each endpoint its own, so that wrong keys are below the limit
            path = endpoint.path.replace("{id}", "7")
            for headers in (*strangers, {"x-api-key": OTHER}, {"authorization": "Basic dXNlcjpw"}):
                answer = await ask(door.port, path, headers, method=endpoint.method, body=b'{"label":"x"}')
                is_refused(answer, 401, "invalid_api_key")
                assert answer.headers["www-authenticate"].startswith("Bearer")
            assert door.handlers.asked == []
            assert (await ask(door.port, path, WITH_KEY, method=endpoint.method)).status in (200, 500)
            assert len(door.handlers.asked) == 1


async def test_without_the_key_all_paths_and_methods_are_alike(door: Door) -> None:
    ways = [
        (method, path)
        for method in ("GET", "POST", "PUT", "OPTIONS", "TRACE")
        for path in (
            "/admin/things",
            "/admin/broken",
            "/admin",
            "/admin/nothing",
            "/admin/things/7?days=1",
            "/admin/../x",
        )
    ]
    bodies = {(await ask(door.port, path, method=method)).body for method, path in ways}
    assert len(bodies) == 1
    assert (await ask(door.port, "/admin/nothing", {"x-api-key": OTHER})).body in bodies
    assert door.handlers.asked == []


@pytest.mark.parametrize("carrier", CARRIERS)
async def test_the_key_is_taken_from_each_carrier(carrier: Any, door: Door) -> None:
    answer = await ask(door.port, "/admin/things", carrier(KEY))
    assert answer.status == 200
    assert_sealed(answer)
    near = [KEY[:-1], KEY + "x", KEY.upper(), KEY[::-1], f"{KEY} {KEY}", OTHER, "x"]
    for wrong in near:
        is_refused(await ask(door.port, "/admin/things", carrier(wrong)), 401, "invalid_api_key")
    assert len(door.handlers.asked) == 1


async def test_the_same_key_twice_is_one_and_two_keys_are_refused_alike(door: Door) -> None:
    same = await ask(door.port, "/admin/things", {"authorization": f"Bearer {KEY}", "x-api-key": KEY, "api-key": KEY})
    assert same.status == 200
    pairs = [(KEY, OTHER), (OTHER, KEY), (OTHER, "third")]
    bodies = set()
    for one, two in pairs:
        for headers in ({"authorization": f"Bearer {one}", "x-api-key": two}, {"x-api-key": one, "api-key": two}):
            answer = await ask(door.port, "/admin/things", headers)
            is_refused(answer, 400, "invalid_request")
            bodies.add(answer.body)
        twice = await ask(door.port, "/admin/things", [("x-api-key", one), ("x-api-key", two)])
        assert twice.status == 400
    assert len(bodies) == 1, "which of the two was right is not told"
    assert len(door.handlers.asked) == 1


@pytest.mark.parametrize("odd", ["k\u00e9y" * 9, "x" * 7000])
async def test_an_odd_key_is_a_wrong_one(odd: str, door: Door) -> None:
    is_refused(await ask(door.port, "/admin/things", {"x-api-key": odd}), 401, "invalid_api_key")


@pytest.mark.parametrize("odd", ["\udcff\udcfe" * 8, "\udcff"])
async def test_a_key_that_is_no_text_is_no_request(odd: str, door: Door) -> None:
    answer = await ask(door.port, "/admin/things", {"x-api-key": odd})
    assert (answer.status, answer.error["code"]) == (400, "invalid_request")
    assert door.handlers.asked == []


def test_the_door_keeps_a_digest_alone() -> None:
    keeper = AdminKey(KEY)
    assert [KEY in repr(getattr(keeper, name)) for name in AdminKey.__slots__] == [False]
    assert not hasattr(keeper, "__dict__")
    assert keeper.role_of(KEY) is Role.ADMIN
    assert keeper.role_of("") is None


async def test_without_an_admin_key_nobody_is_let_in() -> None:
    async with open_door(None) as door:
        for headers in ({}, WITH_KEY, {"x-api-key": ""}):
            told = is_refused(await ask(door.port, "/admin/things", headers), 503, "admin_unavailable")
            assert "PENSTOCK_ADMIN_KEY" in told
        assert door.handlers.asked == []


# Before the body, and before anything of it is asked for.


async def test_a_stranger_is_told_so_before_ten_gigabytes(door: Door) -> None:
    took = []
    for _ in range(3):
        connection = await Connection.open(door.port)
        watch = Stopwatch.patient()
        connection.writer.write(
            b"POST /admin/things HTTP/1.1\r\nhost: localhost\r\ncontent-length: 10000000000\r\n"
            b"expect: 100-continue\r\n\r\n"
        )
        answer = await connection.answer()
        took.append(watch.spent_s)
        await connection.close()
        is_refused(answer, 401, "invalid_api_key")
        assert b"100 Continue" not in answer.raw
        assert answer.headers["connection"] == "close"
    assert max(took) < 0.05


async def test_who_is_let_in_is_asked_for_the_body(door: Door) -> None:
    connection = await Connection.open(door.port)
    head = request("POST", "/admin/things", {**WITH_KEY, "expect": "100-continue", "content-length": "13"})
    connection.writer.write(head)
    await connection.until(b"HTTP/1.1 100 Continue\r\n\r\n")
    connection.writer.write(b'{"label":"x"}')
    await connection.until(b'{"steps":{},"query":{},"body":{"label":"x"}}')
    await connection.close()


# Host names.


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example", "penstock", "2130706433", "", "a, localhost"]
)
async def test_another_host_name_is_refused(host: str, door: Door) -> None:
    is_refused(await ask(door.port, "/admin/things", {**WITH_KEY, "host": host}), 421, "host_not_allowed")
    assert door.handlers.asked == []


@pytest.mark.parametrize("host", ["localhost:4020", "127.0.0.1", "[::1]:4020", "10.1.2.3", "Proxy.Example:443"])
async def test_a_host_name_of_ours_is_served(host: str) -> None:
    async with open_door(names=["PROXY.example"]) as door:
        assert (await ask(door.port, "/admin/things", {**WITH_KEY, "host": host})).status == 200


# Guessing.


async def test_a_thousand_wrong_keys_are_told_to_stop_and_stop_nobody_else(door: Door) -> None:
    connection = await Connection.open(door.port)
    statuses: list[int] = []
    began = time.process_time()
    for _ in range(20):
        connection.writer.write(b"".join(request("GET", "/admin/things", {"x-api-key": OTHER}) for _ in range(50)))
        statuses += [(await connection.answer()).status for _ in range(50)]
    cpu_s = time.process_time() - began
    assert statuses == [401] * WRONG_MAX + [429] * (1000 - WRONG_MAX)
    assert cpu_s / 1000 < 0.001, "with the client's own time"
    limited = await ask(door.port, "/admin/things", {"x-api-key": OTHER})
    is_refused(limited, 429, "rate_limit_exceeded")
    assert 0 < int(limited.headers["retry-after"]) <= 60
    await connection.close()

    assert (await ask(door.port, "/admin/things", WITH_KEY)).status == 200, "who has the key is not locked out"
    assert (await ask(door.port, "/admin/things")).status == 401
    neighbour = await asyncio.open_connection("127.0.0.1", door.port, local_addr=("127.0.0.2", 0))
    other = Connection(*neighbour)
    other.writer.write(request("GET", "/admin/things", {"x-api-key": OTHER}))
    assert (await other.answer()).status == 401
    await other.close()

    told = [event["message"] for event in door.log.events]
    assert told.count("wrong admin key") == WRONG_MAX + 1
    assert sum("too many" in str(message) for message in told) == 1
    assert OTHER not in str(door.log.events)


# Path and method.


async def test_an_unknown_path_is_told_the_nearest(door: Door) -> None:
    told = is_refused(await ask(door.port, "/admin/thinks", WITH_KEY), 404, "not_found")
    assert "Did you mean '/admin/things'?" in told
    told = is_refused(await ask(door.port, "/admin/zzzzzzzzzzzzzzz", WITH_KEY), 404, "not_found")
    assert "/admin/things/last" in told
    for path in ("/admin", "/admin/", "/admin/things/", "/admin//things", "/admin/things/7/8", "/admin/%74hings", "/x"):
        is_refused(await ask(door.port, path, WITH_KEY), 404, "not_found")
    assert door.handlers.asked == []


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("PUT", "/admin/things", "GET, HEAD, POST"),
        ("OPTIONS", "/admin/things", "GET, HEAD, POST"),
        ("HEAD", "/admin/broken", "POST"),
        ("POST", "/admin/things/last", "DELETE, GET, HEAD"),
        ("GET", "/admin/things/7", "DELETE"),
    ],
)
async def test_another_method_is_told_those_that_there_are(method: str, path: str, allow: str, door: Door) -> None:
    connection = await Connection.open(door.port)
    connection.writer.write(request(method, path, {**WITH_KEY, "origin": "https://evil.example"}))
    head = (await connection.until(b"\r\n\r\n")).lower()
    assert head.startswith(b"http/1.1 405 ")
    assert f"allow: {allow}\r\n".lower().encode() in head
    assert b"access-control" not in head
    await connection.close()
    assert door.handlers.asked == []


async def test_head_is_get_without_its_body(door: Door) -> None:
    connection = await Connection.open(door.port)
    connection.writer.write(request("HEAD", "/admin/things", WITH_KEY) + request("GET", "/admin/things", WITH_KEY))
    raw = await connection.until(b'"body":{}}')
    assert raw.count(b"HTTP/1.1 200 ") == 2
    assert raw.split(b"\r\n\r\n")[1].startswith(b"HTTP/1.1 200")
    await connection.close()


@pytest.mark.parametrize("path", ["/admin/things/\u00fc", "/admin/things?by=\u00fc", "/admin/things/\udcff"])
async def test_a_url_that_is_not_ascii_is_refused(path: str, door: Door) -> None:
    raw = request("GET", "PATH", WITH_KEY).replace(b"PATH", path.encode("utf-8", "surrogateescape"))
    connection = await Connection.open(door.port)
    connection.writer.write(raw)
    answer = await connection.answer()
    await connection.close()
    assert (answer.status, answer.error["code"]) == (400, "invalid_request")
    assert door.log.bugs == []


async def test_steps_of_a_path_are_decoded_and_named_ones_come_first(door: Door) -> None:
    answer = await ask(door.port, "/admin/things/a%2Fb%20c", WITH_KEY, method="DELETE")
    assert answer.json()["steps"] == {"id": "a/b c"}
    assert (await ask(door.port, "/admin/things/last", WITH_KEY)).json()["steps"] == {}
    is_refused(await ask(door.port, "/admin/things/", WITH_KEY, method="DELETE"), 404, "not_found")


async def test_a_role_that_is_too_low_is_told_which_it_takes() -> None:
    async with open_door(role=Role.VIEWER) as door:
        assert (await ask(door.port, "/admin/things", WITH_KEY)).status == 200
        for method, path in (("POST", "/admin/things"), ("DELETE", "/admin/things/7")):
            told = is_refused(await ask(door.port, path, WITH_KEY, method=method, body=b"{}"), 403, "role_not_allowed")
            assert "admin" in told
        assert len(door.handlers.asked) == 1
    async with open_door(role=Role.USER) as door:
        is_refused(await ask(door.port, "/admin/things", WITH_KEY), 403, "role_not_allowed")
        assert door.handlers.asked == []


# Query and body.


async def test_what_an_endpoint_knows_reaches_it(door: Door) -> None:
    answer = await ask(door.port, "/admin/things?days=7&by=a%20b", WITH_KEY)
    assert answer.json()["query"] == {"days": "7", "by": "a b"}
    body = orjson.dumps({"label": "x", "limit": {"rps": 5}})
    answer = await ask(door.port, "/admin/things", WITH_KEY, method="POST", body=body)
    assert answer.json()["body"] == {"label": "x", "limit": {"rps": 5}}
    assert [event for event in door.log.events if event["message"] == "admin act"] == [
        {"message": "admin act", "method": "POST", "endpoint": "/admin/things", "id": answer.headers["x-request-id"]}
    ]
    assert (await ask(door.port, "/admin/things", WITH_KEY, method="POST")).json()["body"] == {}


QUERIES = [
    ("?day=7", "Unknown query parameter 'day'. Did you mean 'days'?"),
    ("?role=admin", "'role'"),
    ("?days=1&days=2", "stands twice"),
    ("?days=1&x=1&y=2", "'x', 'y'"),
    ("?" + "&".join(f"a{number}=1" for number in range(20)), "and 12 more"),
]


@pytest.mark.parametrize(("query", "told"), QUERIES)
async def test_a_query_that_it_does_not_know_is_refused(query: str, told: str, door: Door) -> None:
    assert told in is_refused(await ask(door.port, "/admin/things" + query, WITH_KEY), 400, "invalid_request")
    assert door.handlers.asked == []


DEEP = b'{"label":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
BODIES = [
    (b"hello", 400, "not valid JSON"),
    (b"[]", 400, "JSON object"),
    (b"null", 400, "JSON object"),
    (b'"label"', 400, "JSON object"),
    (b'{"label":NaN}', 400, "not valid JSON"),
    (DEEP, 400, "not valid JSON"),
    (b'{"labl":"x"}', 400, "Unknown member 'labl'. Did you mean 'label'?"),
    (b'{"label":"x","zzz":1,"yyy":2}', 400, "Unknown member 'zzz', 'yyy'. Known: label, limit."),
    (b'{"LABEL":"x"}', 400, "'LABEL'"),
    (b'{"label":"' + b"x" * (1024 * 1024) + b'"}', 413, "1 MiB"),
]


@pytest.mark.parametrize(("body", "status", "told"), BODIES, ids=range(len(BODIES)))
async def test_a_body_that_is_none_is_refused(body: bytes, status: int, told: str, door: Door) -> None:
    answer = await ask(door.port, "/admin/things", WITH_KEY, method="POST", body=body)
    assert told in is_refused(answer, status, {400: "invalid_request", 413: "body_too_large"}[status])
    assert door.handlers.asked == []


async def test_a_body_of_one_mebibyte_is_read(door: Door) -> None:
    body = b'{"label":"'.ljust(1024 * 1024 - 2, b"x") + b'"}'
    assert (await ask(door.port, "/admin/things", WITH_KEY, method="POST", body=body)).status == 200


@pytest.mark.parametrize("name", ["role", "user_role", "allowed_routes", "tenant_id", "account", "__proto__", "\ud7ff"])
async def test_no_body_takes_a_member_that_the_endpoint_does_not_name(name: str, door: Door) -> None:
    for endpoint in (*door.handlers.table(),):
        body = orjson.dumps({name: "admin"})
        path = endpoint.path.replace("{id}", "7")
        answer = await ask(door.port, path, WITH_KEY, method=endpoint.method, body=body)
        assert f"'{name}'" in is_refused(answer, 400, "invalid_request")
        assert answer.error["param"] == name
    assert door.handlers.asked == []


async def test_a_form_is_no_body(door: Door) -> None:
    headers = {**WITH_KEY, "content-type": "application/x-www-form-urlencoded"}
    answer = await ask(door.port, "/admin/things", headers, method="POST", body=b"label=x")
    assert "content-type" in is_refused(answer, 400, "invalid_request")


# What goes wrong inside, and what is quoted.


async def test_a_bug_is_told_by_its_id_and_by_nothing_else(door: Door) -> None:
    answer = await ask(door.port, "/admin/broken", WITH_KEY, method="POST", body=b"{}")
    assert (answer.status, answer.error["code"]) == (500, "internal_error")
    assert answer.headers["x-request-id"] in answer.error["message"]
    assert answer.headers["cache-control"] == "no-store"
    for word in (b"RuntimeError", b"cellar", b"Traceback", b".py", KEY.encode()):
        assert word not in answer.raw
    assert [str(bug) for bug in door.log.bugs] == ["a bug in the cellar"]
    assert door.refused == []


async def test_a_request_id_is_echoed_unless_it_holds_the_key(door: Door) -> None:
    clean = await ask(door.port, "/admin/things", {**WITH_KEY, "x-request-id": "mine-1"})
    assert clean.headers["x-request-id"] == "mine-1"
    for odd in (KEY, f"id_{KEY}", "a b", "x" * 65):
        answer = await ask(door.port, "/admin/things", {**WITH_KEY, "x-request-id": odd})
        assert answer.headers["x-request-id"].startswith("req_")
    wrong = await ask(door.port, "/admin/things", {"x-api-key": OTHER, "x-request-id": OTHER})
    assert wrong.headers["x-request-id"].startswith("req_")
    assert OTHER not in str(door.log.events)


async def test_the_key_in_a_url_is_refused_and_quoted_nowhere(door: Door) -> None:
    for path in (f"/admin/things?key={KEY}", f"/admin/{KEY}", f"/admin/{'x' * 40}{KEY}", f"/admin/things/{KEY}"):
        assert "URL" in is_refused(await ask(door.port, path, WITH_KEY), 400, "invalid_request")
        is_refused(await ask(door.port, path), 401, "invalid_api_key")
    answer = await ask(door.port, "/admin/things", WITH_KEY, method="POST", body=orjson.dumps({KEY: KEY}))
    assert "[redacted]" in is_refused(answer, 400, "invalid_request")
    assert KEY not in str(door.log.events)
    assert door.handlers.asked == []


async def test_pipelined_requests_are_each_judged_by_their_own_key(door: Door) -> None:
    connection = await Connection.open(door.port)
    keys = [KEY, OTHER, KEY, None, KEY]
    for key in keys:
        connection.writer.write(request("GET", "/admin/things", {} if key is None else {"x-api-key": key}))
    assert [(await connection.answer()).status for _ in keys] == [200, 401, 200, 401, 200]
    await connection.close()
