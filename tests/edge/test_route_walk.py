"""S01, S02, S14: every path, every method, every caller, on both ports; and who may what is a file that was agreed on."""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from proxy.core.principal import Principal
from proxy.edge import paths
from proxy.edge.admin.endpoint import Endpoint, matching
from proxy.edge.admin.table import ENDPOINTS
from proxy.providers.catalogue import PATHS
from proxy.terms import AccountId, Role, VirtualKeyId
from tests.conftest import Start
from tests.edge.doorway import KEY, OTHER, Door, Handlers, ask, open_door, request
from tests.gateway import Connection, Gateway

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND")
USER, VIEWER, ADMIN = (f"psk-{role}-Zq8vT1nB6yKd4wXs9LpRf2Jm" for role in ("user", "viewer", "admin"))
BOUND = {
    key: Principal(AccountId("acme"), role, VirtualKeyId(f"vk_{role.name.lower()}"))
    for key, role in ((USER, Role.USER), (VIEWER, Role.VIEWER), (ADMIN, Role.ADMIN))
}
SURFACE = [
    *sorted(f"/v1{path}" for path in PATHS.values()),
    "/v1/models",
    "/v1/anything/else",
    paths.HEALTH,
    *sorted(paths.LIVE),
    *sorted(paths.READY),
]


def _counted(handlers: Handlers) -> Sequence[Endpoint]:
    """The table that is served, its handlers counted instead."""
    return [replace(endpoint, handler=handlers.take) for endpoint in ENDPOINTS]


@pytest.fixture
async def door() -> AsyncIterator[Door]:
    async with open_door(table=_counted, others=BOUND) as opened:
        yield opened


def _path(endpoint: Endpoint) -> str:
    return "/".join("7" if step.startswith("{") else step for step in endpoint.path.split("/"))


ADMIN_PATHS = list(dict.fromkeys(_path(endpoint) for endpoint in ENDPOINTS))


def test_s02_who_may_what_is_as_it_was_agreed_on() -> None:
    """Change `routes_table.txt` with the tables: who may do what is looked at twice."""
    lines = []
    for path in SURFACE:
        role = paths.role_of(path)
        lines.append(
            f"{'/'.join(paths.allowed(path)) or 'passed':<9} {'public' if role is None else role.name.lower():<7} {path}"
        )
    for one in ENDPOINTS:
        bound = "" if one.per_account else "  (no account's key)"
        lines.append(f"{one.method:<9} {one.role.name.lower():<7} {one.path}{bound}")
    assert "\n".join([*lines, ""]) == (Path(__file__).parent / "routes_table.txt").read_text()


def test_s02_only_health_is_public() -> None:
    known = (
        *SURFACE,
        *ADMIN_PATHS,
        "/",
        "/metrics",
        "/dashboard",
        "/health/",
        "/health/livex",
        "/Health",
        "/v1/health",
        "",
    )
    public = {path for path in known if paths.role_of(path) is None}
    assert public == {paths.HEALTH, *paths.LIVE, *paths.READY}


def _expected(method: str, path: str, key: str) -> int:
    """By the table alone, said once more in a few lines."""
    found = [endpoint for endpoint, _ in matching(ENDPOINTS, path)]
    endpoint = next((one for one in found if one.method == ("GET" if method == "HEAD" else method)), None)
    if not found:
        return 404
    if endpoint is None:
        return 405
    if key == KEY:
        return 200
    if BOUND[key].role < endpoint.role or not endpoint.per_account:
        return 403
    return 200


async def status(port: int, method: str, path: str, headers: Mapping[str, str]) -> int:
    """Of an answer whose body, if it has one (HEAD's has none), is not waited for."""
    connection = await Connection.open(port)
    connection.writer.write(request(method, path, headers))
    head = await connection.until(b"\r\n\r\n")
    await connection.close()
    return int(head.split(b" ", 2)[1])


@pytest.mark.parametrize("path", [*ADMIN_PATHS, "/admin", "/admin/", "/admin/nothing", "/admin/ledger/7/8"])
async def test_s01_s14_every_method_of_a_path_for_every_caller(path: str, door: Door) -> None:
    for method in METHODS:
        for headers in ({}, {"x-api-key": ""}, {"cookie": f"key={KEY}"}):
            assert await status(door.port, method, path, headers) == 401
        assert door.handlers.asked == []
    strangers = [OTHER, KEY[:-1], f"{KEY}x", USER.upper()]
    for wrong in strangers:
        for method in ("GET", "POST", "DELETE"):
            assert (await ask(door.port, path, {"x-api-key": wrong}, method=method)).status == 401
    assert door.handlers.asked == []
    for key in (USER, VIEWER, ADMIN, KEY):
        for method in METHODS:
            door.handlers.asked.clear()
            got = await status(door.port, method, path, {"authorization": f"Bearer {key}"})
            assert got == _expected(method, path, key), (method, path, key)
            assert len(door.handlers.asked) == (got == 200), (method, path, key)
            for asked in door.handlers.asked:
                assert asked.account == (None if key == KEY else "acme")
                assert asked.actor == ("admin key" if key == KEY else f"key:{BOUND[key].virtual_key}")


@pytest.fixture
async def moved(start: Start) -> Gateway:
    return await start("routes: {}", admin_key=KEY, admin_port=0)


async def test_s14_a_port_of_its_own_has_the_admin_api_and_the_other_has_not(moved: Gateway) -> None:
    other = moved.service.admin_port
    assert other != moved.port
    for path in (*ADMIN_PATHS, "/admin", "/admin/nothing"):
        for headers in ({}, {"x-api-key": OTHER}, {"x-api-key": KEY}):
            for method in ("GET", "POST", "DELETE"):
                here = await ask(moved.port, path, headers, method=method)
                assert (here.status, here.error["code"]) == (404, "not_found"), (method, path)
                if "x-api-key" not in headers:
                    assert (await ask(other, path, headers, method=method)).status == 401
    assert (await ask(other, "/admin/breakers", {"x-api-key": KEY})).status == 200
    for path in SURFACE:
        assert (await ask(other, path)).status == 401, "nothing else is served there, health neither"
        assert (await ask(other, path, {"x-api-key": KEY})).status == 404


async def test_s01_health_needs_no_key_on_the_port_of_requests(moved: Gateway) -> None:
    for path in (*paths.LIVE, *paths.READY):
        assert (await ask(moved.port, path)).status == 200
    assert (await ask(moved.port, paths.HEALTH)).json()["status"] == "unconfigured"
