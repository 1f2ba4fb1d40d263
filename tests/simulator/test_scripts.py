"""Every script, row by row: how the connection ends, how many data events come whole, and a mark in the bytes."""

import gzip
import zlib
from collections import Counter
from dataclasses import dataclass
from typing import Any

import aiohttp
import orjson
import pytest

from proxy.simulator.scripts.table import SCRIPTS, split
from proxy.simulator.server import Simulator

from .client import ASKED, PATHS, ask, body_of, data_of, text_of

_ROLE = 1  # the chat stream's opening event
_DONE = b"data: [DONE]\n\n"


@dataclass(frozen=True, slots=True)
class Row:
    """``events``: data events of the chat stream; None: not counted. ``whole``: the body's framing came to its end."""

    end: str = "open"
    events: int | None = None
    whole: bool = False
    mark: bytes = b""
    silence: bool = False


STREAMS: dict[str, Row] = {
    # while the body comes; this one comes at once
    "early:413": Row(mark=b"HTTP/1.1 413 "),
    "early:401:close": Row("eof", mark=b"connection: close\r\n", silence=True),
    "drop-upload:10": Row("reset", 0),
    "drop-upload:10000": Row(whole=True, mark=_DONE),
    "stall-upload:10:1ms": Row(whole=True, mark=_DONE),
    # before any content
    "refuse": Row("reset", 0),
    "hangup": Row("eof", 0),
    "garbage": Row("eof", mark=b"SSH-2.0-OpenSSH"),
    "half-head": Row("eof", mark=b"HTTP/1.1 200 OK\r\nserver: penstock-simulator\r\ncontent-ty"),
    "silent": Row("open", 0, silence=True),
    "head-then-silence": Row("open", 0, mark=b"text/event-stream", silence=True),
    "head-then-fin": Row("open", 0, whole=True, mark=b"text/event-stream"),
    "head-then-cut": Row("eof", 0, mark=b"text/event-stream"),
    "big-header": Row(whole=True, mark=b"a" * 65536),
    "many-headers": Row(whole=True, mark=b"x-many-4999: a\r\n"),
    "cl-and-te": Row(whole=True, mark=b"content-length: "),
    "two-cl": Row(mark=b"\r\ncontent-length: ", silence=True),
    "wrong-length": Row("eof", mark=_DONE),
    "glued": Row(whole=False, mark=b"0\r\n\r\nHTTP/1.1 200 OK\r\n", silence=True),
    "early-hints": Row(whole=True, mark=b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\n"),
    "redirect:307:http://127.0.0.1:9/v1/x?y=z": Row(mark=b"HTTP/1.1 307 Temporary Redirect"),
    "html": Row(mark=b"text/html"),
    "empty-body": Row(mark=b"content-length: 0\r\n\r\n"),
    "not-json": Row(mark=b"application/json"),
    "error-first:429": Row("open", 1, whole=True, mark=b'"code":429'),
    "error-first:insufficient_quota": Row("open", 1, whole=True, mark=b'"code":"insufficient_quota"'),
    "error-in-200:500": Row(mark=b'{"error":{"message"'),
    "json-for-stream": Row(mark=b"content-type: application/json"),
    "keepalive:2": Row(whole=True, mark=b": keep-alive\n\n"),
    "reject-usage": Row(whole=True, mark=_DONE),
    # within the stream
    "cut:0": Row("eof", _ROLE),
    "cut:5": Row("eof", _ROLE + 5),
    "cut:200": Row("eof", _ROLE + 200),
    "reset:5": Row("reset", _ROLE + 5),
    "mid-event:5": Row("eof", _ROLE + 5),
    "mid-event:5:clean": Row("open", _ROLE + 5, whole=True),
    "clean-end:5": Row("open", _ROLE + 5, whole=True),
    "no-done": Row(whole=True, mark=b'"finish_reason":"stop"'),
    "no-blank": Row(whole=True, mark=b"data: [DONE]\n\r\n0\r\n\r\n"),
    "no-blank:finish": Row(whole=True, mark=b'"finish_reason":"stop"}]}\n\r\n0\r\n\r\n'),
    "tool-cut": Row("open", _ROLE + 2, whole=True, mark=b'"name":"lookup"'),
    "stall:5": Row("open", _ROLE + 5, silence=True),
    "drip:5": Row("open", _ROLE + 5, mark=b"1\r\nd\r\n1\r\na\r\n"),
    "after-done": Row(whole=True, mark=b'data: {"after":"done"}'),
    "after-done-reset": Row("reset", mark=_DONE),
    "after-done-silence": Row("open", mark=_DONE, silence=True),
    "bad-json:3": Row(whole=True, mark=b"data: upstream request timeout\n\n"),
    "error-event:3": Row("open", _ROLE + 3 + 2, whole=True, mark=b'data: {"error":{"message"'),
    "openrouter-error:3": Row("open", _ROLE + 3 + 2, whole=True, mark=b'"finish_reason":"error"'),
    "anthropic-error:3": Row("open", _ROLE + 3 + 1, whole=True, mark=b"event: error\n"),
    "n-cut:3": Row("eof", 2 * _ROLE + 2 * 3 + 1 + 1),
    # of unusual form
    "events:100": Row("open", _ROLE + 100 + 2, whole=True),
    "burst:100": Row("open", _ROLE + 100 + 2, whole=True),
    "paced:3:1ms": Row("open", _ROLE + 3 + 2, whole=True),
    "clock:3:1ms": Row("open", _ROLE + 3 + 2, whole=True),
    "slow:1ms": Row(whole=True, mark=_DONE),
    "delay:1ms": Row(whole=True, mark=_DONE),
    "split:3": Row(whole=True, mark=_DONE),
    "crlf": Row(whole=True, mark=b"data: [DONE]\r\n\r\n"),
    "cr": Row(whole=True, mark=b"data: [DONE]\r\r"),
    "bom": Row(whole=True, mark=b"\xef\xbb\xbfdata: "),
    "multiline": Row(whole=True, mark=b',\ndata: "'),
    "comments": Row(whole=True, mark=b": ping\n\ndata: [DONE]"),
    "gzip": Row(whole=True, mark=b"content-encoding: gzip"),
    "bad-gzip": Row(whole=True, mark=b"content-encoding: gzip"),
    "cut-gzip:2": Row("eof", mark=b"content-encoding: gzip"),
    "bomb:2": Row(whole=True, mark=b"content-encoding: gzip"),
    "big-event:1000": Row("open", _ROLE + 1 + 2, whole=True),
    "hostile-headers": Row(
        whole=True, mark=b"connection: x-secret\r\nx-secret: hop-by-hop\r\nx-latin: caf\xe9 \xff\r\n"
    ),
    "echo": Row(whole=True, mark=b'\\"stream\\":true'),
    "no-usage": Row(whole=True, mark=_DONE),
    "mistral-usage": Row(whole=True, mark=b'"finish_reason":"stop"}],"usage":{"prompt_tokens"'),
    "groq-usage": Row(whole=True, mark=b'"x_groq":{"id":"req_simulator","usage":{"prompt_tokens"'),
    "moonshot-usage": Row(whole=True, mark=b'"finish_reason":"stop","usage":{"prompt_tokens"'),
    "usage-every": Row(whole=True, mark=b'"completion_tokens":2,'),
    "tokens:7": Row(whole=True, mark=_DONE),
    "status:418:3": Row(mark=b"retry-after: 3\r\n"),
    "once:500:row": Row(mark=b"HTTP/1.1 500 Internal Server Error"),
    "400:context": Row(mark=b"context_length_exceeded"),
    "401": Row(mark=b"invalid_api_key"),
    "402": Row(mark=b"HTTP/1.1 402 "),
    "403:credential": Row(mark=b"invalid_api_key"),
    "404": Row(mark=b"model_not_found"),
    "413": Row(mark=b"Maximum content size limit"),
    "429:2": Row(mark=b"retry-after: 2\r\n"),
    "500": Row(mark=b"server_error"),
    "503:3600": Row(mark=b"retry-after: 3600\r\n"),
    "529": Row(mark=b"HTTP/1.1 529 "),
}


def test_every_script_has_a_row_and_the_other_way_round() -> None:
    assert {split(model)[0] for model in STREAMS} == set(SCRIPTS)


@pytest.mark.parametrize(("model", "row"), STREAMS.items(), ids=STREAMS)
async def test_streamed(base_url: str, model: str, row: Row) -> None:
    answer = await ask(base_url, "chat", f"sim/{model}", stream=True, silence=row.silence)
    assert answer.end == row.end
    assert answer.whole is row.whole
    assert row.mark in answer.raw
    if row.events is not None:
        assert len(data_of(answer.body)) == row.events
    assert answer.raw.startswith((b"HTTP/1.1 ", b"SSH-")) or not answer.raw


JSON_ENDS: dict[str, str] = {
    "refuse": "reset",
    "hangup": "eof",
    "cut": "eof",
    "reset": "reset",
    "mid-event": "eof",
    "stall": "open",
    "silent": "open",
    "head-then-cut": "eof",
    "head-then-silence": "open",
    "after-done-reset": "reset",
    "after-done-silence": "open",
    "n-cut": "eof",
    "garbage": "eof",
    "half-head": "eof",
    "wrong-length": "eof",
    "drip": "open",
    "drop-upload": "reset",
}
_HALF = {"cut", "reset", "mid-event", "stall", "n-cut"}


@pytest.mark.parametrize("api", ["chat", "embeddings"])
@pytest.mark.parametrize(("model", "end"), JSON_ENDS.items(), ids=JSON_ENDS)
async def test_a_fault_of_a_json_answer(base_url: str, api: str, model: str, end: str) -> None:
    answer = await ask(base_url, api, model, silence=end == "open" and model != "drip")
    assert answer.end == end
    if model in _HALF:
        announced = int(answer.head.partition(b"content-length: ")[2].split(b"\r\n")[0])
        assert len(answer.after_head) == announced // 2


@pytest.mark.parametrize("api", PATHS)
async def test_every_script_has_some_answer_for_every_api(base_url: str, api: str, simulator: Simulator) -> None:
    """Only that it does not fail by itself: an exception would close the connection and be logged."""
    slow = {
        "delay",
        "slow",
        "paced",
        "clock",
        "keepalive",
        "stall",
        "silent",
        "drip",
        "bomb",
        "many-headers",
        "two-cl",
        "glued",
        "stall-upload",
    }
    ends = Counter[str]()
    for name in sorted(SCRIPTS.keys() - slow - set(JSON_ENDS)):
        for stream in (False, True):
            answer = await ask(base_url, api, name, stream=stream)
            ends[answer.end] += 1
            assert answer.raw.startswith(b"HTTP/1.1 "), (name, stream)
    assert ends["open"] > 50


@pytest.mark.parametrize("model", ["crlf", "cr", "bom", "multiline", "comments", "split:1", "split:7", "keepalive:1"])
@pytest.mark.parametrize("api", ["chat", "responses", "messages"])
async def test_framings_say_the_same(base_url: str, api: str, model: str) -> None:
    odd = data_of((await ask(base_url, api, model, stream=True)).body)
    plain = data_of((await ask(base_url, api, "plain", stream=True)).body)
    assert len(odd) == len(plain)
    for left, right in zip(odd, plain, strict=True):
        if left != b"[DONE]":
            # ids and the model's name differ, as the requests do
            assert orjson.loads(left).keys() == orjson.loads(right).keys()
    assert text_of(b"".join(b"data: %b\n\n" % one.replace(b"\n", b"") for one in odd)) == text_of(
        b"".join(b"data: %b\n\n" % one for one in plain)
    )


@pytest.mark.parametrize("size", [300, 1000, 600 * 1024, 8 * 1024 * 1024])
async def test_a_big_event_has_exactly_its_size(base_url: str, size: int) -> None:
    answer = await ask(base_url, "chat", f"big-event:{size}", stream=True)
    sizes = [len(event) + 2 for event in answer.body.split(b"\n\n")]
    assert size in sizes


async def test_a_big_event_cannot_be_smaller_than_its_frame(base_url: str) -> None:
    assert (await ask(base_url, "chat", "big-event:10", stream=True)).status == 400


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("model", ["gzip", "bomb:3"])
async def test_what_is_compressed_unpacks(base_url: str, model: str, stream: bool) -> None:
    answer = await ask(base_url, "chat", model, stream=stream)
    plain = gzip.decompress(answer.body)  # checks length and checksum too
    if model == "bomb:3":
        assert plain.count(b"a" * 1024) >= 3 * 1024
        assert len(answer.body) < 20_000
    if stream:
        assert plain.endswith(_DONE)
    else:
        assert orjson.loads(plain)["object"] == "chat.completion"


@pytest.mark.parametrize(("model", "events"), [("bad-gzip", 0), ("bad-gzip:4", _ROLE + 4)])
async def test_what_is_corrupt_does_not_unpack(base_url: str, model: str, events: int) -> None:
    answer = await ask(base_url, "chat", model, stream=True)
    unpack = zlib.decompressobj(wbits=31)
    plain = b""
    with pytest.raises(zlib.error):  # noqa: PT012 - what was unpacked before the corrupt byte is looked at
        for at in range(len(answer.body)):
            plain += unpack.decompress(answer.body[at : at + 1])
    assert len(data_of(plain)) == events


@pytest.mark.parametrize(
    ("api", "name"), [("chat", "prompt_tokens"), ("completions", "prompt_tokens"), ("responses", "input_tokens")]
)
async def test_usage_where_it_is_asked_for(base_url: str, api: str, name: str) -> None:
    options: dict[str, Any] = {} if api == "responses" else {"stream_options": {"include_usage": True}}
    answer = await ask(base_url, api, "tokens:7:9", stream=True, **options)
    assert f'"{name}":7'.encode() in answer.body
    assert b'"total_tokens":16' in answer.body
    none = await ask(base_url, api, "no-usage", stream=True, **options)
    assert b'_tokens":' not in none.body.replace(b'"max_output_tokens":', b"")


@pytest.mark.parametrize("api", ["chat", "completions", "responses", "messages", "embeddings"])
async def test_usage_of_a_json_answer(base_url: str, api: str) -> None:
    usage = (await ask(base_url, api, "tokens:7:9")).json()["usage"]
    assert 7 in usage.values()
    assert not (await ask(base_url, api, "no-usage")).json().get("usage")


async def test_stream_options_are_refused_by_name(base_url: str) -> None:
    refused = await ask(base_url, "chat", "reject-usage", stream=True, stream_options={"include_usage": True})
    assert refused.status == 400
    assert refused.json()["error"]["param"] == "stream_options"


async def test_once_fails_once_for_each_key(base_url: str, simulator: Simulator) -> None:
    statuses = [
        (await ask(base_url, "chat", f"once:{key}")).status for key in ("500:a", "500:a", "429:b", "500:a", "500")
    ]
    assert statuses == [500, 200, 429, 200, 500]
    simulator.clear()
    assert (await ask(base_url, "chat", "once:500:a")).status == 500


async def test_echo_shows_what_arrived(base_url: str) -> None:
    async with (
        aiohttp.ClientSession() as session,
        session.post(base_url + "/chat/completions", data=body_of("chat", "echo"), headers={"X-Odd": "é"}) as answer,
    ):
        seen = await answer.json()
    assert seen["choices"][0]["message"]["content"].encode() == body_of("chat", "echo")
    assert seen["echo"]["path"] == "/v1/chat/completions"
    assert "X-Odd" in [name for name, _ in seen["echo"]["headers"]]


@pytest.mark.parametrize("code", [400, 401, 402, 403, 404, 429, 500, 503, 529])
async def test_errors_have_each_apis_form(base_url: str, code: int) -> None:
    assert set((await ask(base_url, "chat", str(code))).json()["error"]) == {"message", "type", "param", "code"}
    anthropic = (await ask(base_url, "messages", str(code))).json()
    assert (anthropic["type"], set(anthropic["error"])) == ("error", {"type", "message"})


@pytest.mark.parametrize(
    ("api", "mark"),
    [
        ("messages", b'event: error\ndata: {"type":"error","error":{'),
        ("responses", b'event: error\ndata: {"type":"error"'),
    ],
)
@pytest.mark.parametrize("model", ["error-event:2", "error-first:500", "openrouter-error:2", "anthropic-error:2"])
async def test_error_events_have_each_apis_form(base_url: str, api: str, mark: bytes, model: str) -> None:
    answer = await ask(base_url, api, model, stream=True)
    if model != "anthropic-error:2":
        assert mark in answer.body
    assert b"event: error\n" in answer.body
    assert b"[DONE]" not in answer.body
    assert answer.whole


async def test_the_redirect_goes_where_it_is_told(base_url: str) -> None:
    answer = await ask(base_url, "chat", "demo/redirect:308:http://127.0.0.1:9/v1/chat/completions")
    assert answer.status == 308
    assert b"location: http://127.0.0.1:9/v1/chat/completions\r\n" in answer.head


@pytest.mark.parametrize(
    ("model", "name", "args"),
    [
        ("gpt-4o", "gpt-4o", ()),
        ("cut:5", "cut", ("5",)),
        ("sim/paced:3:1ms", "paced", ("3", "1ms")),
        ("a/b/cut", "cut", ()),
        ("meta-llama/llama-3.3-70b:free", "llama-3.3-70b", ("free",)),
        ("x/redirect:302:http://h/a/b", "redirect", ("302", "http", "//h/a/b")),
    ],
)
def test_a_models_name_is_split(model: str, name: str, args: tuple[str, ...]) -> None:
    assert split(model) == (name, args)


@pytest.mark.parametrize("model", ["gpt-4o", "meta-llama/llama-3.3-70b:free", "cutter:5", "llama3.2:3b"])
async def test_any_other_name_gets_the_normal_answer(base_url: str, model: str) -> None:
    answer = (await ask(base_url, "chat", model)).json()
    assert answer["model"] == model
    assert "simulator" in answer["choices"][0]["message"]["content"]
    assert answer.keys() >= {"id", "object", "created", "choices", "usage"}
    assert ASKED["chat"]["messages"][0]["content"] in answer["choices"][0]["message"]["content"]
