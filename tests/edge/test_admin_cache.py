"""`/admin/cache`, over a real gateway with a cache in its memory and in a real Valkey."""

import asyncio
from collections.abc import Callable
from typing import Any

import orjson
import pytest

from proxy.simulator.server import Simulator
from tests.conftest import Start
from tests.edge.doorway import KEY, ask, request
from tests.gateway import CHAT, Answer, Connection, Gateway, closed_port, send

WITH_KEY = {"x-api-key": KEY}
CONFIG = """
currency: {{code: CAD, per_usd: 2}}
providers: {{sim: {{like: vllm, base_url: "{url}", price: {{"*": {{input: 1000, output: 2000}}}}}}}}
routes:
  kept: {{tiers: [sim/gpt-small], cache: {{ttl: 1h}}}}
  paced: {{tiers: [sim/llama], cache: {{ttl: 2d, tool_calls: true, replay: paced}}}}
  plain: {{tiers: [sim/gpt-small]}}
  slow: {{tiers: ["sim/delay:30s"], cache: {{ttl: 1h}}}}
  cut: {{tiers: ["sim/cut:3"], cache: {{ttl: 1h}}}}
"""


@pytest.fixture(params=["memory", "redis"])
async def penstock(request: pytest.FixtureRequest, start: Start, upstream_url: str) -> Gateway:
    redis_url = request.getfixturevalue("valkey").url if request.param == "redis" else None
    return await start(CONFIG.format(url=upstream_url), admin_key=KEY, redis_url=redis_url)


@pytest.fixture
async def in_memory(start: Start, upstream_url: str) -> Gateway:
    return await start(CONFIG.format(url=upstream_url), admin_key=KEY)


def chat(model: str, question: str = "How high is the water?", **more: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": question}], **more}


async def state(penstock: Gateway, body: dict[str, Any], tags: str | None = None) -> str:
    """What the cache says of a client's request."""
    headers = None if tags is None else {"x-penstock-tags": tags}
    answer = await send(penstock.port, CHAT, orjson.dumps(body), headers)
    assert answer.status == 200, answer.body
    return answer.headers["x-penstock-cache"]


async def post(penstock: Gateway, path: str, body: object) -> Answer:
    return await ask(penstock.port, path, WITH_KEY, method="POST", body=orjson.dumps(body))


async def invalidate(penstock: Gateway, **members: Any) -> Any:
    answer = await post(penstock, "/admin/cache/invalidate", members)
    assert answer.status == 200, answer.body
    return answer.json()


async def warm(penstock: Gateway, *requests: object, **members: Any) -> Any:
    answer = await post(penstock, "/admin/cache/warm", {"requests": requests, **members})
    assert answer.status == 200, answer.body
    return answer.json()


async def shown(penstock: Gateway) -> Any:
    answer = await ask(penstock.port, "/admin/cache", WITH_KEY)
    assert answer.status == 200, answer.body
    return answer.json()


async def entries(penstock: Gateway, count: int) -> None:
    """Wait until so many answers are kept: it is done behind the answer."""
    async with asyncio.timeout(5):
        while (await penstock.runtime.cache.stats()).entries < count:
            await asyncio.sleep(0.005)


# What is told.


async def test_an_empty_cache(penstock: Gateway) -> None:
    told = await shown(penstock)
    assert told["where"] in ("memory", "redis")
    assert (told["entries"], told["bytes"], told["away"]) == (0, 0, None)
    assert told["bytes_max"] > 10**7
    assert [told[name] for name in ("hits", "coalesced", "misses", "refreshed", "bypassed")] == [0] * 5
    assert (told["hit_rate"], told["saved_nanousd"], told["saved"]) == (None, 0, 0.0)
    assert told["currency"] == {"code": "CAD", "per_usd": 2.0}
    assert told["routes"] == [
        {"route": "kept", "ttl_s": 3600.0, "tool_calls": False, "replay": "immediate"},
        {"route": "paced", "ttl_s": 172_800.0, "tool_calls": True, "replay": "paced"},
        {"route": "slow", "ttl_s": 3600.0, "tool_calls": False, "replay": "immediate"},
        {"route": "cut", "ttl_s": 3600.0, "tool_calls": False, "replay": "immediate"},
    ]


async def test_what_the_cache_does_is_counted(penstock: Gateway) -> None:
    assert await state(penstock, chat("kept")) == "miss"
    await entries(penstock, 1)
    assert [await state(penstock, chat("kept")) for _ in range(3)] == ["hit"] * 3
    assert await state(penstock, chat("plain")) == "off"
    assert await state(penstock, chat("kept", store=True)) == "bypass"
    rows = await penstock.booked(6)
    told = await shown(penstock)
    assert (told["entries"], told["hits"], told["misses"], told["bypassed"]) == (1, 3, 1, 1)
    assert 0 < told["bytes"] < 10_000
    assert told["hit_rate"] == 0.75
    assert told["saved_nanousd"] == 3 * rows[0].cost_nanousd > 0
    assert told["saved"] == pytest.approx(2 * told["saved_usd"])


# Invalidation.


async def _filled(penstock: Gateway) -> dict[str, tuple[dict[str, Any], str | None]]:
    """Four answers, each with its request and tags."""
    asked: dict[str, tuple[dict[str, Any], str | None]] = {
        "kept": (chat("kept"), None),
        "tagged": (chat("kept", "And now?"), "team=search,run=7"),
        "both": (chat("paced", "And now?"), "team=search"),
        "paced": (chat("paced"), None),
    }
    for body, tags in asked.values():
        assert await state(penstock, body, tags) == "miss"
    await entries(penstock, len(asked))
    return asked


@pytest.mark.parametrize(
    ("members", "dropped"),
    [
        ({"route": "kept"}, {"kept", "tagged"}),
        ({"tag": "team=search"}, {"tagged", "both"}),
        ({"tag": " team = search "}, {"tagged", "both"}),
        ({"tag": "team="}, set()),
        ({"tag": "team=sear"}, set()),
        ({"route": "kept", "tag": "team=search"}, {"tagged"}),
        ({"account": "default"}, {"kept", "tagged", "both", "paced"}),
        ({"account": "acme"}, set()),
        ({"account": "acme", "route": "kept"}, set()),
        ({"pattern": "gpt-*"}, {"kept", "tagged"}),
        ({"pattern": "sim/ll*"}, {"both", "paced"}),
        ({"pattern": "p*d", "tag": "team=search", "account": "default"}, {"both"}),
        ({"all": True}, {"kept", "tagged", "both", "paced"}),
    ],
)
async def test_what_is_invalidated_is_not_served_again(
    penstock: Gateway, members: dict[str, Any], dropped: set[str]
) -> None:
    asked = await _filled(penstock)
    told = await invalidate(penstock, **members)
    selector = {name: value for name, value in members.items() if name != "all"}
    if "tag" in selector:
        selector["tag"] = selector["tag"].replace(" ", "")
    assert told == {"invalidated": len(dropped), "selector": selector}
    found = {name: await state(penstock, body, tags) for name, (body, tags) in asked.items()}
    assert found == {name: "miss" if name in dropped else "hit" for name in asked}


async def test_a_route_that_is_gone_may_have_left_answers(in_memory: Gateway) -> None:
    told = await invalidate(in_memory, route="kpet")
    assert told == {
        "invalidated": 0,
        "selector": {"route": "kpet"},
        "hint": "There is no route 'kpet' now. Did you mean 'kept'?",
    }


@pytest.mark.parametrize(
    ("body", "why", "param"),
    [
        ({}, "Say which answers: account, pattern, route, tag, or all: true.", None),
        ({"all": False}, "'all' must be true and stand alone", "all"),
        ({"all": 1}, "'all' must be true and stand alone", "all"),
        ({"all": True, "route": "kept"}, "'all' must be true and stand alone", "all"),
        ({"route": ""}, "'route' must be a text of 1 to 512 characters", "route"),
        ({"route": None}, "'route' must be a text", "route"),
        ({"account": ["default"]}, "'account' must be a text", "account"),
        ({"pattern": "*" * 513}, "'pattern' must be a text", "pattern"),
        ({"tag": "search"}, "'tag' must be name=value", "tag"),
        ({"tag": "=search"}, "'tag' must be name=value", "tag"),
        ({"routes": "kept"}, "Unknown member 'routes'. Did you mean 'route'?", "routes"),
        ({"model": "gpt-small"}, "Unknown member 'model'", "model"),
        ([], "must be a JSON object", None),
    ],
)
async def test_what_selects_nothing_is_refused(in_memory: Gateway, body: object, why: str, param: str | None) -> None:
    assert await state(in_memory, chat("kept")) == "miss"
    await entries(in_memory, 1)
    answer = await post(in_memory, "/admin/cache/invalidate", body)
    assert (answer.status, answer.error["param"]) == (400, param)
    assert why in answer.error["message"]
    assert await state(in_memory, chat("kept")) == "hit"


async def test_a_store_that_is_away(start: Start, upstream_url: str) -> None:
    url = f"redis://:hunter2@127.0.0.1:{closed_port()}/0"
    penstock = await start(CONFIG.format(url=upstream_url), admin_key=KEY, redis_url=url)
    assert await state(penstock, chat("kept")) == "miss"
    told = await shown(penstock)
    assert (told["where"], told["entries"], told["bytes"], told["bytes_max"]) == ("redis", None, None, None)
    assert told["away"]
    assert told["misses"] == 1
    answer = await post(penstock, "/admin/cache/invalidate", {"all": True})
    assert (answer.status, answer.error["code"]) == (503, "store_unavailable")
    assert answer.error["message"].startswith("The cache's store cannot be reached: ")
    assert (answer.headers["retry-after"], answer.headers["x-should-retry"]) == ("5", "true")
    assert b"hunter2" not in answer.raw + orjson.dumps(told)
    assert penstock.log.bugs == []


# Warm-up.


async def test_a_warm_up_fills_the_cache(penstock: Gateway, upstream: Simulator) -> None:
    assert await state(penstock, chat("kept")) == "miss"
    await entries(penstock, 1)
    lines: list[dict[str, Any]] = [
        chat("kept"),
        chat("kept", "And now?"),
        chat("kept", "And then?", stream=True),
        {"custom_id": "3", "method": "POST", "url": "/v1/embeddings", "body": {"model": "kept", "input": "water"}},
        {"url": "/v1/responses", "body": {"model": "paced", "input": "How high is the water?"}},
    ]
    told = await warm(penstock, *lines, concurrency=2)
    assert told == {"requests": 5, "warmed": 4, "hit": 1, "not_kept": 0, "failed": 0, "reasons": []}
    await entries(penstock, 5)
    assert len(upstream.requests) == 5
    again = await warm(penstock, *lines)
    assert (again["warmed"], again["hit"]) == (0, 5)
    for body in lines[:3]:
        assert await state(penstock, body) == "hit"
    assert len(upstream.requests) == 5
    rows = await penstock.booked(14)
    assert sum(row.cache == "miss" and row.cost_nanousd > 0 for row in rows) == 5
    assert {row.outcome for row in rows} == {"ok"}
    assert penstock.log.bugs == []


async def test_the_same_request_twice_is_sent_once(in_memory: Gateway, upstream: Simulator) -> None:
    told = await warm(in_memory, *[chat("kept")] * 20, concurrency=8)
    assert (told["requests"], told["warmed"], told["hit"]) == (20, 1, 19)
    assert len(upstream.requests) == 1


async def test_what_is_not_in_the_cache_afterwards_is_said(in_memory: Gateway, upstream: Simulator) -> None:
    told = await warm(
        in_memory,
        chat("plain"),
        chat("kept", store=True),
        chat("kpet"),
        chat("cut", stream=True),
        {"model": "kept", "messages": [], "stream": "yes"},
        concurrency=1,
    )
    reasons = told.pop("reasons")
    assert told == {"requests": 5, "warmed": 0, "hit": 0, "not_kept": 2, "failed": 3}
    assert [(one["request"], one["status"], one["code"]) for one in reasons] == [
        (0, None, None), (1, 200, None), (2, 404, "model_not_found"), (3, 200, "upstream_incomplete"),
        (4, 400, "invalid_request"),
    ]  # fmt: skip
    for one, why in zip(
        reasons,
        (
            "cache: {ttl: 1h}",
            "x-penstock-cache: bypass",
            "Did you mean 'kept'",
            "before it was complete",
            "'stream' must be",
        ),
        strict=True,
    ):
        assert why in one["message"]
    assert [orjson.loads(one.body)["model"] for one in upstream.requests] == ["gpt-small", "cut:3"]


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ({}, "'requests' must be a list of 1 to 1000 requests."),
        ({"requests": []}, "'requests' must be a list of 1 to 1000 requests."),
        ({"requests": chat("kept")}, "'requests' must be a list"),
        ({"requests": [chat("kept")] * 1001}, "'requests' must be a list of 1 to 1000"),
        ({"requests": [chat("kept"), "x"]}, "requests[1]: expected an object"),
        ({"requests": [{"url": "/v1/chat", "body": {}}]}, "requests[0]: 'url' must be"),
        ({"requests": [chat("kept")], "concurrency": 0}, "'concurrency' must be a whole number from 1 to 32."),
        ({"requests": [chat("kept")], "concurrency": 33}, "'concurrency' must be"),
        ({"requests": [chat("kept")], "concurrency": True}, "'concurrency' must be"),
        ({"requests": [chat("kept")], "concurrency": 2.0}, "'concurrency' must be"),
        ({"request": [chat("kept")]}, "Did you mean 'requests'?"),
    ],
)
async def test_a_warm_up_that_is_none_sends_nothing(
    in_memory: Gateway, upstream: Simulator, body: object, why: str
) -> None:
    answer = await post(in_memory, "/admin/cache/warm", body)
    assert (answer.status, answer.error["code"]) == (400, "invalid_request")
    assert why in answer.error["message"]
    assert len(upstream.requests) == 0


async def _until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not holds():
            await asyncio.sleep(0.005)


async def test_a_warm_up_ends_with_who_asked_for_it(in_memory: Gateway, upstream: Simulator) -> None:
    penstock = in_memory
    connection = await Connection.open(penstock.port)
    body = orjson.dumps({"requests": [chat("slow", str(number)) for number in range(10)], "concurrency": 3})
    connection.writer.write(request("POST", "/admin/cache/warm", WITH_KEY, body))
    await _until(lambda: len(upstream.requests) == 3)
    await connection.close()
    rows = await penstock.booked(3)
    assert {(row.outcome, row.status) for row in rows} == {("client_cancelled", 499)}
    assert len(upstream.requests) == 3
    assert penstock.runtime.flights == {}
    assert penstock.log.bugs == []


async def test_where_nothing_can_be_written_down_nothing_is_sent(
    in_memory: Gateway, upstream: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(in_memory.runtime.books), "trouble", "no space left on device")
    told = await warm(in_memory, chat("kept"))
    assert (told["failed"], len(upstream.requests)) == (1, 0)
    assert told["reasons"][0]["message"]
