"""The Messages API over plain HTTP: its streams, and its own envelope for errors, before content and after."""

import http.client
import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.clients.stage import Stage, stage

pytestmark = pytest.mark.clients

ASKED = "How high is the water?"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with stage(tmp_path_factory.mktemp("messages")) as on:
        yield on


def _post(on: Stage, model: str, *, stream: bool = False) -> tuple[http.client.HTTPResponse, bytes, bool]:
    """The answer, its body, and whether that came to its end."""
    where = urlsplit(on.url)
    assert where.hostname is not None
    connection = http.client.HTTPConnection(where.hostname, where.port, timeout=10)
    body = {"model": model, "max_tokens": 500, "stream": stream, "messages": [{"role": "user", "content": ASKED}]}
    headers = {"content-type": "application/json", "x-api-key": "anything", "anthropic-version": "2023-06-01"}
    try:
        connection.request("POST", "/v1/messages", json.dumps(body), headers)
        answer = connection.getresponse()
        try:
            return answer, answer.read(), True
        except http.client.IncompleteRead as cut:
            return answer, cut.partial, False
    finally:
        connection.close()


def _events(body: bytes) -> list[tuple[str, Any]]:
    events = []
    for block in body.decode().split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.splitlines())
        if lines:
            events.append((lines["event"], json.loads(lines["data"])))
    return events


def _text(events: list[tuple[str, Any]]) -> str:
    return "".join(data["delta"]["text"] for name, data in events if name == "content_block_delta")


def test_a_stream_says_what_the_whole_answer_says(served: Stage) -> None:
    _, body, _ = _post(served, "chat")
    whole = json.loads(body)
    answer, streamed, complete = _post(served, "chat", stream=True)
    events = _events(streamed)
    assert (answer.status, complete) == (200, True)
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["x-penstock-route"] == "chat"
    assert _text(events) == whole["content"][0]["text"]
    assert ASKED in _text(events)
    assert [events[0][0], events[-1][0]] == ["message_start", "message_stop"]
    assert served.logged(answer.headers["x-request-id"])["usage"]["output"] == whole["usage"]["output_tokens"]


@pytest.mark.parametrize(
    ("model", "status", "kind", "says"),
    [
        ("chta", 404, "not_found_error", "Did you mean 'chat'?"),
        ("sim/400", 400, "invalid_request_error", "Invalid value for 'temperature'."),
        ("raw/mistral", 422, "invalid_request_error", "Too many stop words."),
        ("raw/html", 502, "api_error", "nginx is sad"),
        ("sim/429:30", 429, "rate_limit_error", "ate limit"),
        ("raw/status:503", 503, "overloaded_error", "This is a 503."),
        ("late", 504, "timeout_error", "raw/silent"),
    ],
)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_an_error_has_the_envelope(
    model: str, status: int, kind: str, says: str, *, stream: bool, served: Stage
) -> None:
    answer, body, _ = _post(served, model, stream=stream)
    told = json.loads(body)
    assert (answer.status, told["type"], told["error"]["type"]) == (status, "error", kind)
    assert says in told["error"]["message"]
    assert answer.headers["x-should-retry"] == ("true" if status == 429 else "false")


@pytest.mark.parametrize(
    ("script", "code"),
    [
        ("cut:3", "upstream_incomplete"),
        ("reset:3", "upstream_incomplete"),
        ("mid-event:3", "upstream_incomplete"),
        ("clean-end:3", "upstream_incomplete"),
        ("stall:3", "upstream_timeout"),
        ("error-event:3", "upstream_error"),
        ("bad-json:3", "upstream_protocol"),
    ],
)
def test_a_broken_stream_ends_with_an_error_and_without_an_end(script: str, code: str, served: Stage) -> None:
    answer, body, complete = _post(served, f"sim/{script}", stream=True)
    events = _events(body)
    assert (answer.status, complete) == (200, False)
    assert _text(events)
    name, data = events[-1]
    assert (name, data["type"], data["error"]["code"]) == ("error", "error", code)
    assert f"sim/{script}" in data["error"]["message"]
    assert "message_stop" not in [name for name, _ in events]
    assert served.logged(answer.headers["x-request-id"])["outcome"] == "partial"
