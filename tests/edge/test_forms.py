"""Multipart requests on real sockets: only the model changes, the rest streams through, and a next target gets it whole."""

import asyncio
import gzip
import tempfile
from collections.abc import AsyncIterator, Callable

import pytest

from tests.conftest import Start
from tests.edge.recorder import OK, Recorder, answer
from tests.gateway import Connection, Gateway, send

PATH = "/v1/audio/transcriptions"
TYPE = {"content-type": "multipart/form-data; boundary=----pipe"}
SOUND = bytes(range(256)) * 40


def form(*parts: tuple[str, bytes], boundary: str = "----pipe") -> bytes:
    body = b""
    for name, value in parts:
        file = '; filename="a.wav"\r\nContent-Type: audio/wav' if name == "file" else ""
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n'
        body += head.encode() + value + b"\r\n"
    return body + f"--{boundary}--\r\n".encode()


MODEL, FILE, LANGUAGE = ("model", b"ears"), ("file", SOUND), ("language", b"en")
SENT = ("model", b"whisper/large:v3")


@pytest.fixture
async def recorder() -> AsyncIterator[Recorder]:
    recorder = Recorder()
    yield recorder
    await recorder.stop()


async def started(start: Start, *recorders: Recorder) -> Gateway:
    urls = [await one.start() for one in recorders]
    providers = "".join(f'  p{number}: {{like: vllm, base_url: "{url}"}}\n' for number, url in enumerate(urls))
    tiers = ", ".join(f"p{number}/whisper/large:v3" for number in range(len(urls)))
    return await start(f"providers:\n{providers}routes:\n  ears: {{tiers: [{tiers}]}}\ndefault_route: ears\n")


@pytest.mark.parametrize(
    "parts",
    [(MODEL, FILE, LANGUAGE), (FILE, MODEL, LANGUAGE), (FILE, LANGUAGE, MODEL)],
    ids=["first", "second", "last"],
)
@pytest.mark.parametrize("path", [PATH, "/audio/transcriptions", "/v1/audio/translations"])
async def test_only_the_model_changes_wherever_it_stands(
    start: Start, recorder: Recorder, parts: tuple[tuple[str, bytes], ...], path: str
) -> None:
    gateway = await started(start, recorder)
    got = await send(gateway.port, path, form(*parts), {**TYPE, "authorization": "Bearer secret", "cookie": "a=b"})
    assert (got.status, got.json()) == (200, {"text": "pipe"})
    (received,) = recorder.received
    assert received.body == form(*(SENT if one is MODEL else one for one in parts))
    assert received.line == f"POST {path if path.startswith('/v1') else '/v1' + path} HTTP/1.1"
    assert received.headers["content-type"] == TYPE["content-type"]
    assert received.headers["content-length"] == str(len(received.body))
    assert not {"authorization", "cookie"} & received.headers.keys()
    (record,) = await gateway.settled()
    assert (record["route"], record["target"], record["outcome"]) == ("ears", "p0/whisper/large:v3", "ok")
    assert record["request_bytes"] == len(form(*parts))


async def test_a_form_without_a_model_goes_to_the_default_route(start: Start, recorder: Recorder) -> None:
    gateway = await started(start, recorder)
    assert (await send(gateway.port, PATH, form(FILE), TYPE)).status == 200
    assert recorder.received[0].body == form(SENT, FILE)


async def test_a_chunked_form_stays_chunked_and_whole(start: Start, recorder: Recorder) -> None:
    gateway = await started(start, recorder)
    body = form(MODEL, FILE)
    connection = await Connection.open(gateway.port)
    head = (
        f"POST {PATH} HTTP/1.1\r\nhost: x\r\ncontent-type: {TYPE['content-type']}\r\ntransfer-encoding: chunked\r\n\r\n"
    )
    connection.writer.write(head.encode())
    for start_at in range(0, len(body), 777):
        part = body[start_at : start_at + 777]
        connection.writer.write(f"{len(part):x}\r\n".encode() + part + b"\r\n")
        await connection.writer.drain()
    connection.writer.write(b"0\r\n\r\n")
    assert (await connection.answer()).status == 200
    await connection.close()
    assert recorder.received[0].body == form(SENT, FILE)


@pytest.mark.parametrize("coding", ["gzip", "x-gzip"])
async def test_a_compressed_form_arrives_plain(start: Start, recorder: Recorder, coding: str) -> None:
    gateway = await started(start, recorder)
    body = gzip.compress(form(MODEL, FILE)[:5000]) + gzip.compress(form(MODEL, FILE)[5000:])
    assert (await send(gateway.port, PATH, body, {**TYPE, "content-encoding": coding})).status == 200
    assert recorder.received[0].body == form(SENT, FILE)
    assert "content-encoding" not in recorder.received[0].headers


async def test_the_upload_is_passed_on_while_it_comes(start: Start, recorder: Recorder) -> None:
    gateway = await started(start, recorder)
    body = form(MODEL, ("file", SOUND * 20))
    connection = await Connection.open(gateway.port)
    head = f"POST {PATH} HTTP/1.1\r\nhost: x\r\ncontent-type: {TYPE['content-type']}\r\ncontent-length: {len(body)}\r\n\r\n"
    connection.writer.write(head.encode() + body[:100_000])
    async with asyncio.timeout(5):
        await recorder.arrived.wait()
    connection.writer.write(body[100_000:])
    assert (await connection.answer()).status == 200
    await connection.close()


@pytest.mark.parametrize("size", [len(SOUND), 3 * 1024 * 1024], ids=["in memory", "in a file"])
@pytest.mark.parametrize("first", [lambda _: answer(500, b"{}"), lambda _: answer(429, b"{}")], ids=["500", "429"])
async def test_the_next_target_gets_it_whole(start: Start, size: int, first: Callable[[int], bytes]) -> None:
    one, other = Recorder(first), Recorder()
    gateway = await started(start, one, other)
    file = ("file", (SOUND * (size // len(SOUND) + 1))[:size])
    got = await send(gateway.port, PATH, form(MODEL, file, LANGUAGE), TYPE)
    assert (got.status, got.headers["x-penstock-attempts"], got.headers["x-penstock-provider"]) == (200, "2", "p1")
    assert one.received[0].body == other.received[0].body == form(SENT, file, LANGUAGE)
    await one.stop()
    await other.stop()


async def test_a_target_that_answers_before_it_has_read(start: Start) -> None:
    """The second target still gets every byte, those included that were on their way to the first."""
    one, other = Recorder(lambda _: answer(401, b'{"error":{"message":"bad key"}}'), early=True), Recorder()
    gateway = await started(start, one, other)
    file = ("file", SOUND * 100)
    for _ in range(5):
        got = await send(gateway.port, PATH, form(MODEL, file), TYPE)
        assert (got.status, got.headers["x-penstock-provider"]) == (200, "p1")
    assert {received.body for received in other.received} == {form(SENT, file)}
    await one.stop()
    await other.stop()


async def test_without_room_for_a_file_an_upload_is_sent_once(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_room() -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", no_room)
    one, other = Recorder(lambda number: answer(500, b"{}") if number > 1 else OK), Recorder()
    gateway = await started(start, one, other)
    body = form(MODEL, ("file", SOUND * 200))
    assert (await send(gateway.port, PATH, body, TYPE)).status == 200
    assert one.received[0].body == form(SENT, ("file", SOUND * 200))
    got = await send(gateway.port, PATH, body, TYPE)
    assert (got.status, got.error["code"]) == (503, "overloaded")
    assert "no room to keep it" in got.error["message"]
    await one.stop()
    await other.stop()


BAD = [
    (form(MODEL, FILE, MODEL), TYPE, 400, "invalid_request", "stands twice"),
    (form(MODEL, FILE)[:-9], TYPE, 400, "invalid_request", "is cut"),
    (b"junk" + form(MODEL, FILE), TYPE, 400, "invalid_request", "does not begin"),
    (form(MODEL, FILE), {"content-type": "multipart/form-data"}, 400, "invalid_request", "one boundary"),
    (form(MODEL, FILE), {"content-type": "text/plain"}, 400, "invalid_request", "multipart/form-data"),
    (form(("model", b"nobody"), FILE), TYPE, 404, "model_not_found", "nobody"),
    (form(("model", b"m" * 600), FILE), TYPE, 400, "invalid_request", "512"),
    (form(MODEL, FILE), {**TYPE, "content-encoding": "br"}, 415, "unsupported_encoding", "br"),
    (gzip.compress(form(MODEL, FILE))[:-9], {**TYPE, "content-encoding": "gzip"}, 400, "invalid_request", "is cut"),
    (form(MODEL, FILE), {**TYPE, "sec-fetch-site": "cross-site"}, 403, "origin_not_allowed", "cors.origins"),
]


@pytest.mark.parametrize("row", BAD, ids=[row[4] for row in BAD])
async def test_a_bad_form_is_the_clients_and_the_next_request_is_served(
    start: Start, recorder: Recorder, row: tuple[bytes, dict[str, str], int, str, str]
) -> None:
    gateway = await started(start, recorder)
    body, headers, status, code, words = row
    got = await send(gateway.port, PATH, body, headers)
    assert (got.status, got.error["code"]) == (status, code)
    assert words in got.error["message"]
    assert got.headers["x-should-retry"] == "false"
    assert (await send(gateway.port, PATH, form(MODEL, FILE), TYPE)).status == 200
    await gateway.settled(2)


async def test_a_large_form_is_refused_by_its_length(start: Start, recorder: Recorder) -> None:
    gateway = await started(start, recorder)
    connection = await Connection.open(gateway.port)
    head = f"POST {PATH} HTTP/1.1\r\nhost: x\r\ncontent-type: {TYPE['content-type']}\r\ncontent-length: {201 << 20}\r\n\r\n"
    connection.writer.write(head.encode())
    got = await connection.answer()
    assert (got.status, got.error["code"]) == (413, "body_too_large")
    assert "200 MiB" in got.error["message"]
    assert not recorder.received
    await connection.close()


async def test_a_client_that_leaves_while_it_sends_ends_the_call(start: Start, recorder: Recorder) -> None:
    gateway = await started(start, recorder)
    body = form(MODEL, ("file", SOUND * 20))
    connection = await Connection.open(gateway.port)
    head = f"POST {PATH} HTTP/1.1\r\nhost: x\r\ncontent-type: {TYPE['content-type']}\r\ncontent-length: {len(body)}\r\n\r\n"
    connection.writer.write(head.encode() + body[:100_000])
    async with asyncio.timeout(5):
        await recorder.arrived.wait()
    connection.reset()
    (record,) = await gateway.settled()
    assert (record["status"], record["outcome"]) == (499, "client_cancelled")


async def test_image_edits_take_json_too(start: Start, recorder: Recorder) -> None:
    url = await recorder.start()
    gateway = await start(
        f'providers: {{sim: {{like: openai, base_url: "{url}", api_key: env:K}}}}\nroutes: {{draw: {{tiers: [sim/m]}}}}',
        environ={"K": "provider-key"},
    )
    got = await send(gateway.port, "/v1/images/edits", b'{"model":"draw","prompt":"a dam"}')
    assert got.status == 200
    assert recorder.received[0].body == b'{"model":"m","prompt":"a dam"}'
    assert recorder.received[0].headers["authorization"] == "Bearer provider-key"


TEXT = answer(200, b"The water is high.", "content-type: text/plain")
EVENTS = (
    b'data: {"type":"transcript.text.delta","delta":"High."}\n\n'
    b'data: {"type":"transcript.text.done","text":"High."}\n\n'
)


@pytest.mark.parametrize(
    ("sent", "body"),
    [
        (TEXT, b"The water is high."),
        (answer(200, EVENTS, "content-type: text/event-stream"), EVENTS),
        (answer(200, EVENTS + b"data: [DONE]\n\n", "content-type: text/event-stream"), EVENTS + b"data: [DONE]\n\n"),
    ],
    ids=["text", "events", "events and [DONE]"],
)
async def test_answers_of_every_form_pass(start: Start, sent: bytes, body: bytes) -> None:
    recorder = Recorder(lambda _: sent)
    gateway = await started(start, recorder)
    got = await send(gateway.port, PATH, form(MODEL, FILE), TYPE)
    assert (got.status, got.end, got.body) == (200, "whole", body)
    (record,) = await gateway.settled()
    assert record["outcome"] == "ok"
    await recorder.stop()


CUT_TEXT = b"HTTP/1.1 200 X\r\ncontent-type: text/plain\r\ntransfer-encoding: chunked\r\n\r\n5\r\nThe w\r\n"
CUT_EVENTS = CUT_TEXT.replace(b"text/plain", b"text/event-stream").replace(b"5\r\nThe w\r\n", b"") + (
    f"{len(EVENTS[:57]):x}\r\n".encode() + EVENTS[:57] + b"\r\n"
)


@pytest.mark.parametrize("sent", [CUT_TEXT, CUT_EVENTS], ids=["text", "events"])
async def test_a_cut_is_never_an_end(start: Start, sent: bytes) -> None:
    recorder = Recorder(lambda _: sent, early=True)
    gateway = await started(start, recorder)
    got = await send(gateway.port, PATH, form(MODEL, FILE), TYPE)
    assert (got.status, got.end) == (200, "eof")
    (record,) = await gateway.settled()
    assert (record["outcome"], record["code"]) == ("partial", "upstream_incomplete")
    if sent is CUT_EVENTS:
        assert got.last_error["code"] == "upstream_incomplete"
    else:
        assert got.body == b"The w"
    await recorder.stop()


async def test_an_empty_answer_is_none(start: Start) -> None:
    recorder = Recorder(lambda _: answer(200, b"", "content-type: text/plain"))
    gateway = await started(start, recorder)
    got = await send(gateway.port, PATH, form(MODEL, FILE), TYPE)
    assert (got.status, got.error["code"]) == (502, "upstream_protocol")
    await recorder.stop()
