"""What Claude Code and the Codex CLI send, byte for byte, through Penstock to an upstream that keeps what it gets.

Each `.http` file is one request: its head, an empty line, its body. Members, their order and the headers are those of
Claude Code 2.1 (code.claude.com/docs/en/llm-gateway-protocol and published captures) and of Codex 0.169 (captured with its
own CLI; github.com/openai/codex codex-rs/codex-api), both read 2026-11-21; the texts in them are made up. Each
`.sse` file is an answer in the API's own events.
"""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from tests.conftest import Start
from tests.core.streams import chunkings
from tests.gateway import Answer, Connection, Gateway
from tests.golden.replay import Framing, Received, Replay, Scripted

HERE: Final = Path(__file__).parent
CLIENTS_CREDENTIAL: Final = b"client-credential-of-nobody"
OURS: Final = {"ANTHROPIC_API_KEY": "upstream-credential-a", "OPENAI_API_KEY": "upstream-credential-o"}
# The names that must arrive with the client's own value, and those that Penstock sets. Nothing else may arrive.
_PASSED_ALWAYS: Final = frozenset({"accept", "user-agent", "content-type"})
_SET_BY_PENSTOCK: Final = frozenset({"host", "content-length", "accept-encoding"})
_MESSAGES: Final = _PASSED_ALWAYS | {"anthropic-version", "anthropic-beta", "anthropic-dangerous-direct-browser-access"}
# PRODUCT section 3: not on the list, so they stay here. Checked by name beside the list, so that a longer list shows.
_NEVER: Final = (
    "originator",
    "session_id",
    "session-id",
    "thread-id",
    "chatgpt-account-id",
    "x-app",
    "x-claude-code-session-id",
    "x-claude-code-agent-id",
    "x-codex-turn-metadata",
    "x-client-request-id",
    "x-stainless-retry-count",
    "x-stainless-timeout",
    "cookie",
)


@dataclass(frozen=True, slots=True)
class Shape:
    """One request as a client sends it, but for its content-length."""

    first: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def bytes(self) -> bytes:
        headers = dict(self.headers)
        if self.body:
            headers["content-length"] = str(len(self.body))
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        return f"{self.first}\r\n{lines}\r\n".encode() + self.body


def shape(name: str) -> Shape:
    head, _, body = (HERE / f"{name}.http").read_bytes().partition(b"\n\n")
    first, *lines = head.decode().splitlines()
    return Shape(first, dict(line.split(": ", 1) for line in lines), body.removesuffix(b"\n"))


@dataclass(frozen=True, slots=True)
class Trip:
    """Where one kind of request ends up: whose name stands in the body, whose path is asked, how the key is sent."""

    asked: bytes
    sent: bytes
    path: str
    passed: frozenset[str]
    credential: tuple[str, str]


_TO_ANTHROPIC: Final = ("x-api-key", OURS["ANTHROPIC_API_KEY"])
_TO_OPENAI: Final = ("authorization", f"Bearer {OURS['OPENAI_API_KEY']}")
_CODEX: Final = Trip(b"gpt-5.6", b"gpt-5.6-2026-09-01", "/v1/responses", _PASSED_ALWAYS, _TO_OPENAI)
SHAPES: Final[Mapping[str, Trip]] = {
    "claude-code-turn": Trip(
        b"claude-sonnet-5-5", b"claude-sonnet-5-5-20261001", "/v1/messages", _MESSAGES, _TO_ANTHROPIC
    ),
    "claude-code-helper-key": Trip(b"claude-haiku-5-5", b"claude-haiku-5-5", "/v1/messages", _MESSAGES, _TO_ANTHROPIC),
    "claude-code-count-tokens": Trip(
        b"claude-sonnet-5-5", b"claude-sonnet-5-5-20261001", "/v1/messages/count_tokens", _MESSAGES, _TO_ANTHROPIC
    ),
    "codex-turn": _CODEX,
    "codex-tool-output": Trip(_CODEX.asked, _CODEX.sent, _CODEX.path, _CODEX.passed | {"openai-beta"}, _TO_OPENAI),
}
STREAMED: Final = {
    "claude-code-turn": "claude-code-turn",
    "codex-turn": "codex-turn",
    "codex-tool-output": "codex-turn",
}
_JSON: Final = Scripted([b'{"id":"x","input_tokens":3}'], headers=[("Content-Type", "application/json")])


@pytest.fixture
async def upstream_of_bytes() -> AsyncIterator[Replay]:
    replay = await Replay().start()
    yield replay
    await replay.stop()


@pytest.fixture
async def before(start: Start, upstream_of_bytes: Replay) -> Gateway:
    origin = upstream_of_bytes.origin
    return await start(
        f"""
providers:
  anthropic: {{base_url: "{origin}/v1"}}
  openai: {{base_url: "{origin}/v1"}}
routes:
  general: {{tiers: [openai/gpt-5.6]}}
models:
  claude-sonnet-5-5: anthropic/claude-sonnet-5-5-20261001
  "claude-*": anthropic/*
  gpt-5.6: openai/gpt-5.6-2026-09-01
""",
        environ=OURS,
    )


async def _send(gateway: Gateway, request: bytes) -> Answer:
    connection = await Connection.open(gateway.port)
    connection.writer.write(request)
    try:
        return await connection.answer()
    finally:
        await connection.close()


async def _passed(name: str, gateway: Gateway, replay: Replay, answer: Scripted) -> tuple[Received, Answer]:
    gateway.forgive()
    replay.answer = answer
    answered = await _send(gateway, shape(name).bytes)
    (received,) = replay.received
    replay.received.clear()
    return received, answered


def _streamed(name: str) -> bytes:
    return (HERE / f"{STREAMED[name]}.sse").read_bytes()


def _stream(writes: list[bytes]) -> Scripted:
    return Scripted(writes, headers=[("Content-Type", "text/event-stream; charset=utf-8"), ("request-id", "req_up")])


def _answer(name: str) -> Scripted:
    return _stream([_streamed(name)]) if name in STREAMED else _JSON


@pytest.mark.parametrize("name", SHAPES)
async def test_the_body_arrives_as_it_was_but_for_the_model(
    name: str, before: Gateway, upstream_of_bytes: Replay
) -> None:
    wanted = SHAPES[name]
    received, answered = await _passed(name, before, upstream_of_bytes, _answer(name))
    asked, sent = b'"model":"%b"' % wanted.asked, b'"model":"%b"' % wanted.sent
    assert shape(name).body.count(asked) == 1, "the shape names its model in one place"
    assert received.body == shape(name).body.replace(asked, sent)
    assert received.path == wanted.path
    assert (answered.status, answered.end) == (200, "whole")


@pytest.mark.parametrize("name", SHAPES)
async def test_the_headers_that_must_arrive_do_and_no_others(
    name: str, before: Gateway, upstream_of_bytes: Replay
) -> None:
    wanted = SHAPES[name]
    received, _ = await _passed(name, before, upstream_of_bytes, _answer(name))
    arrived = dict(received.headers)
    assert len(arrived) == len(received.headers), "no header stands twice"
    given = shape(name).headers
    assert {one: arrived.get(one) for one in wanted.passed} == {one: given[one] for one in wanted.passed}
    credential_name, credential = wanted.credential
    assert arrived[credential_name] == credential
    assert set(arrived) == wanted.passed | _SET_BY_PENSTOCK | {credential_name}
    assert not set(_NEVER) & set(arrived)
    assert CLIENTS_CREDENTIAL in shape(name).bytes
    assert CLIENTS_CREDENTIAL not in received.head + received.body


def test_what_must_not_arrive_is_in_some_shape() -> None:
    sent = {header for name in SHAPES for header in shape(name).headers}
    assert set(_NEVER) - sent == {"cookie"}


@pytest.mark.parametrize("name", STREAMED)
async def test_the_stream_comes_back_byte_for_byte(name: str, before: Gateway, upstream_of_bytes: Replay) -> None:
    body = _streamed(name)
    for how, writes in chunkings(body):
        _, answered = await _passed(name, before, upstream_of_bytes, _stream(writes))
        assert (answered.body, answered.end) == (body, "whole"), how
        assert answered.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert answered.headers["request-id"] == "req_up"


@pytest.mark.parametrize("name", STREAMED)
async def test_its_usage_is_told(name: str, before: Gateway, upstream_of_bytes: Replay) -> None:
    await _passed(name, before, upstream_of_bytes, _answer(name))
    (record,) = await before.settled()
    assert record["outcome"] == "ok"
    assert (record["usage"]["input"], record["usage"]["output"]) == (20015, 41)
    assert record["usage"]["cached"] == 20000


@pytest.mark.parametrize("name", STREAMED)
async def test_a_stream_cut_at_any_event_is_no_answer(name: str, before: Gateway, upstream_of_bytes: Replay) -> None:
    """Before content it is an error in the API's own form; after, what came is followed by an error, and no end."""
    events = [event + b"\n\n" for event in _streamed(name).split(b"\n\n") if event]
    for count in range(1, len(events)):
        cut = Scripted(events[:count], headers=[("Content-Type", "text/event-stream")], framing=Framing.CLOSE)
        _, answered = await _passed(name, before, upstream_of_bytes, cut)
        if answered.end == "whole":
            assert answered.status == 502
            assert "upstream_incomplete" in answered.body.decode()
        else:
            assert answered.body.startswith(b"".join(events[:count]))
            assert answered.last_error["code"] == "upstream_incomplete"


REFUSALS: Final = {
    "a thinking block": "messages.1.content.0.thinking.signature: Field required",
    "a field of a beta": "context_management: Extra inputs are not permitted",
}


@pytest.mark.parametrize("message", REFUSALS.values(), ids=REFUSALS)
async def test_a_refusal_is_worded_as_it_was(message: str, before: Gateway, upstream_of_bytes: Replay) -> None:
    """Claude Code reads the words of a 400, and sends the request again without what was refused."""
    error = f'{{"type": "invalid_request_error", "message": "{message}"}}'
    body = f'{{"type": "error", "error": {error}, "request_id": "req_011"}}\n'.encode()
    refusal = Scripted([body], status=400, headers=[("Content-Type", "application/json")], framing=Framing.LENGTH)
    _, answered = await _passed("claude-code-turn", before, upstream_of_bytes, refusal)
    assert (answered.status, answered.body) == (400, body)


async def test_claude_code_finds_models(before: Gateway) -> None:
    """It keeps the names that begin with `claude` or `anthropic`; a redirect or a slow answer counts as none."""
    answered = await _send(before, shape("claude-code-models").bytes)
    assert answered.status == 200
    listed = [model["id"] for model in answered.json()["data"]]
    assert "claude-sonnet-5-5" in listed


async def test_claude_codes_probe_is_answered(before: Gateway) -> None:
    """`HEAD /` may be refused, but it has to be answered at once."""
    connection = await Connection.open(before.port)
    connection.writer.write(shape("claude-code-probe").bytes)
    head = await connection.until(b"\r\n\r\n")
    await connection.close()
    assert head.startswith(b"HTTP/1.1 404 ")


async def test_codex_is_told_that_there_is_no_websocket(before: Gateway, upstream_of_bytes: Replay) -> None:
    """Its own provider `openai` tries one first, and then asks over HTTP."""
    answered = await _send(before, shape("codex-websocket").bytes)
    assert (answered.status, answered.error["code"]) == (426, "upgrade_not_supported")
    assert upstream_of_bytes.received == []
