"""A warm-up by itself: what a request may be, how many run at once, and what is counted."""

import asyncio
from typing import Any

import orjson
import pytest

from proxy.edge.warm_request import WarmRequest, read
from proxy.edge.warm_up import REASONS_MAX, Answered, Tally, warm_up
from proxy.terms import Api

CHAT: dict[str, Any] = {"model": "simple", "messages": [{"role": "user", "content": "Hello"}]}


def requests(*models: str) -> list[tuple[int, WarmRequest]]:
    found = [read({"model": model, "messages": []}) for model in models]
    return [(place, one) for place, one in enumerate(found, start=1) if isinstance(one, WarmRequest)]


@pytest.mark.parametrize(
    ("value", "path", "api", "body"),
    [
        (CHAT, "/v1/chat/completions", Api.CHAT, CHAT),
        ({"url": "/v1/chat/completions", "body": CHAT}, "/v1/chat/completions", Api.CHAT, CHAT),
        (
            {"custom_id": "7", "method": "POST", "url": "/v1/responses", "body": {"model": "simple", "input": "x"}},
            "/v1/responses",
            Api.RESPONSES,
            {"model": "simple", "input": "x"},
        ),
        ({"url": "/v1/embeddings", "body": {"model": "simple", "input": "x"}}, "/v1/embeddings", Api.EMBEDDINGS, None),
        ({"url": "/v1/messages", "body": {"model": "simple"}}, "/v1/messages", Api.MESSAGES, {"model": "simple"}),
    ],
)
def test_what_a_request_is(value: object, path: str, api: Api, body: dict[str, Any] | None) -> None:
    found = read(value)
    assert isinstance(found, WarmRequest)
    assert (found.path, found.api, found.model) == (path, api, "simple")
    assert body is None or orjson.loads(found.body) == body


def test_a_model_that_is_none_is_the_servers_to_refuse() -> None:
    bodies: tuple[dict[str, Any], ...] = ({"messages": []}, {"model": 5, "messages": []})
    for body in bodies:
        found = read(body)
        assert isinstance(found, WarmRequest)
        assert found.model is None


DEEP: Any = []
for _ in range(300):
    DEEP = [DEEP]


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ([CHAT], "expected an object: a chat body, or"),
        ("x", "expected an object"),
        (None, "expected an object"),
        ({"url": "/v1/chat/completions"}, "'body' must be an object, got None"),
        ({"url": "/v1/chat/completions", "body": "{}"}, "'body' must be an object, got '{}'"),
        ({"body": CHAT}, "'url' must be the path of an API that takes JSON"),
        ({"url": "/v1/chat/completion", "body": CHAT}, "Did you mean '/v1/chat/completions'?"),
        ({"url": "/v1/audio/transcriptions", "body": CHAT}, "'url' must be the path of an API that takes JSON"),
        ({"url": "https://api.openai.com/v1/chat/completions", "body": CHAT}, "'url' must be the path"),
        ({"url": ["x"], "body": CHAT}, "got ['x']"),
        ({"url": "/v1/files", "body": CHAT}, "'url' must be the path"),
        ({"url": "/v1/responses", "body": CHAT, "method": "GET"}, "'method' must be POST, got 'GET'"),
        ({"url": "/v1/responses", "body": CHAT, "metod": "POST"}, "unknown member 'metod' beside 'url' and 'body'"),
        ({"url": "x" * 5000, "body": CHAT}, "x..."),
        ({"model": "simple", "messages": DEEP}, "it is nested too deeply"),
    ],
)
def test_what_is_none(value: object, why: str) -> None:
    found = read(value)
    assert isinstance(found, str)
    assert why in found
    assert len(found) < 300


async def test_no_more_run_at_once_than_asked_for() -> None:
    running = most = 0
    steps: list[None] = []

    async def send(_: WarmRequest) -> Answered:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1
        return Answered(200, "miss")

    many = requests(*(f"m{number}" for number in range(50)))
    tally = await warm_up(many, send, concurrency=7, advance=lambda: steps.append(None))
    assert (most, running, len(steps)) == (7, 0, 50)
    assert tally.is_clean
    assert tally.document("line") == {
        "requests": 50, "warmed": 50, "hit": 0, "not_kept": 0, "failed": 0, "reasons": []
    }  # fmt: skip


async def test_what_an_answer_says_is_counted() -> None:
    answers = {
        "a": Answered(200, "miss"),
        "b": Answered(200, "refresh"),
        "c": Answered(200, "hit"),
        "d": Answered(200, "semantic"),
        "e": Answered(200, "coalesced"),
        "f": Answered(200, "bypass"),
        "g": Answered(404, failed="No such model.", code="model_not_found"),
    }

    async def send(request: WarmRequest) -> Answered:
        return answers[request.model or ""]

    tally = await warm_up(requests(*answers), send, concurrency=1)
    assert not tally.is_clean
    assert tally.document("line") == {
        "requests": 7, "warmed": 2, "hit": 3, "not_kept": 1, "failed": 1,
        "reasons": [
            {"line": 6, "status": 200, "code": None,
             "message": "Its answer is none that may be kept (x-penstock-cache: bypass)."},
            {"line": 7, "status": 404, "code": "model_not_found", "message": "No such model."},
        ],
    }  # fmt: skip


async def test_no_more_is_paid_for_where_nothing_is_kept() -> None:
    sent: list[str | None] = []

    async def send(request: WarmRequest) -> Answered:
        sent.append(request.model)
        return Answered(200, "off" if request.model == "plain" else "miss")

    tally = await warm_up(requests("plain", "kept", "plain", "plain", "kept"), send, concurrency=1)
    assert sent == ["plain", "kept", "kept"]
    told = tally.document("line")
    assert (told["warmed"], told["not_kept"]) == (2, 3)
    assert [(one["line"], one["status"]) for one in told["reasons"]] == [(1, 200), (3, None), (4, None)]
    assert "cache: {ttl: 1h}" in told["reasons"][0]["message"]


def test_only_the_first_reasons_are_kept() -> None:
    tally = Tally()
    for place in range(100):
        tally.add(place, Answered(500, failed="x"))
    told = tally.document("request")
    assert (told["failed"], len(told["reasons"])) == (100, REASONS_MAX)


async def test_what_is_under_way_is_cancelled_with_it() -> None:
    cancelled: list[str | None] = []

    async def send(request: WarmRequest) -> Answered:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(request.model)
            raise
        return Answered(200, "miss")

    task = asyncio.create_task(warm_up(requests("a", "b", "c"), send, concurrency=2))
    for _ in range(5):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert sorted(map(str, cancelled)) == ["a", "b"]
