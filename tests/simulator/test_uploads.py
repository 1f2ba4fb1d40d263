"""Uploads: streamed through with flat memory, kept as their head and hash, and broken off while they come."""

import asyncio
import hashlib
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from proxy.simulator.form import PARTS_MAX, FormReader
from proxy.simulator.reader import KEPT_BYTES_MAX
from proxy.simulator.server import Simulator
from tests.core.streams import chunkings

from .client import FILE, PATHS, Answer, body_of, form_of, opened, read, request_of

Begin = Callable[[str, int], Awaitable[asyncio.StreamReader]]

_RUN = (sys.executable, "-W", "error", "-c", "from proxy.cli.simulate import command; command()", "--port", "0")
_MIB = 1024 * 1024
_GROWTH_KIB_MAX = 12 * 1024  # a read of the socket is 256 KiB, and is copied a few times
_WITHIN_S = 2.0
_CONTENT_TYPE = "multipart/form-data; boundary=a-boundary-of-the-tests"


async def _until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(_WITHIN_S):
        while not holds():
            await asyncio.sleep(0.001)


def _head_and_tail(model: str, size: int, *, chunked: bool = False) -> tuple[bytes, bytes]:
    """A transcription request around a file of `size` bytes, which is still to be put between the two."""
    whole = request_of(PATHS["transcriptions"], form_of("transcriptions", model, file=b"MARK"))
    head, blank, body = whole.partition(b"\r\n\r\n")
    before, _, after = body.partition(b"MARK")
    length = len(before) + size + len(after)
    fields = [line for line in head.split(b"\r\n") if not line.startswith(b"content-length")]
    fields.append(b"transfer-encoding: chunked" if chunked else b"content-length: %d" % length)
    return b"\r\n".join(fields) + blank, before + b"|" + after


async def _sent(base_url: str, model: str, pieces: list[bytes], *, chunked: bool = False) -> Answer:
    reader, writer = await opened(base_url)
    head, around = _head_and_tail(model, sum(map(len, pieces)), chunked=chunked)
    before, _, after = around.partition(b"|")
    writer.write(head)
    for data in (before, *pieces, after):
        writer.write(b"%x\r\n%b\r\n" % (len(data), data) if chunked else data)
        await writer.drain()
    writer.write(b"0\r\n\r\n" if chunked else b"")
    try:
        return await read(reader)
    finally:
        writer.close()


# The form.


def test_a_form_is_read_in_any_chunking() -> None:
    for way, chunks in chunkings(form_of("transcriptions", "m", prompt="é🌊")):
        reader = FormReader(_CONTENT_TYPE)
        for data in [*filter(None, chunks), b""]:
            reader.feed(data)
        assert reader.form.problem is None, way
        assert reader.form.fields == {"model": ["m"], "prompt": ["é🌊"]}, way
        (file,) = reader.form.files
        assert (file.name, file.filename, file.content_type) == ("file", "weir.bin", "application/x-weir"), way
        assert (file.size, file.sha256) == (len(FILE), hashlib.sha256(FILE).hexdigest()), way


def test_a_form_has_a_bounded_number_of_parts() -> None:
    reader = FormReader("multipart/form-data; boundary=b")
    reader.feed(b'--b\r\ncontent-disposition: form-data; name="a"\r\n\r\n\r\n' * (PARTS_MAX + 1))
    assert reader.form.problem is not None


# What is kept of it.


@pytest.mark.parametrize("chunked", [False, True])
async def test_an_upload_comes_whole(base_url: str, simulator: Simulator, chunked: bool) -> None:
    pieces = [bytes([at % 256]) * 70_001 for at in range(40)]
    file = b"".join(pieces)
    answer = await _sent(base_url, "whisper-1", pieces, chunked=chunked)
    (told,) = answer.json()["received"]
    assert (told["bytes"], told["sha256"]) == (len(file), hashlib.sha256(file).hexdigest())
    (request,) = simulator.requests
    body = form_of("transcriptions", "whisper-1", file=file)
    assert (request.body_bytes, request.body_sha256) == (len(body), hashlib.sha256(body).hexdigest())
    assert request.body == body[:KEPT_BYTES_MAX]
    assert request.whole
    assert request.form is not None
    assert [one.size for one in request.form.files] == [len(file)]


async def test_a_large_upload_takes_no_memory() -> None:
    """150 MiB through a simulator in a process of its own, whose high-water mark is looked at."""
    block, blocks = bytes(range(256)) * (_MIB // 256), 150
    with subprocess.Popen(_RUN, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            url = (await asyncio.to_thread(process.stdout.readline)).strip()
            await _sent(url, "any", [block])  # what is imported and allocated once
            before = _high_water_kib(process.pid)
            answer = await _sent(url, "any", [block] * blocks)
            grown = _high_water_kib(process.pid) - before
        finally:
            process.terminate()
    (told,) = answer.json()["received"]
    assert (told["bytes"], told["sha256"]) == (blocks * _MIB, hashlib.sha256(block * blocks).hexdigest())
    assert grown < _GROWTH_KIB_MAX


def _high_water_kib(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))


async def test_an_upload_that_is_given_up_is_told_from_a_whole_one(base_url: str, simulator: Simulator) -> None:
    _, writer = await opened(base_url)
    head, around = _head_and_tail("whisper-1", 1_000_000)
    writer.write(head + around.partition(b"|")[0] + b"a" * 5000)
    await _until(lambda: bool(simulator.requests) and simulator.requests[0].body_bytes > 5000)
    request = simulator.requests[0]
    assert not request.whole
    writer.close()
    await _until(lambda: request.disconnected_at is not None)
    assert (request.whole, request.finished) == (False, False)


# Interrupted.


@pytest.fixture
async def uploading(base_url: str) -> AsyncIterator[Begin]:
    """Begins an upload of 10 MB, of which only as much is sent as is asked for."""
    writers: list[asyncio.StreamWriter] = []

    async def begin(model: str, size: int) -> asyncio.StreamReader:
        reader, writer = await opened(base_url)
        writers.append(writer)
        head, around = _head_and_tail(model, 10_000_000)
        writer.write(head + around.partition(b"|")[0] + b"a" * size)
        return reader

    yield begin
    for writer in writers:
        writer.close()


@pytest.mark.parametrize("status", [401, 413, 500])
async def test_an_error_comes_before_the_body_is_read(uploading: Begin, status: int) -> None:
    reader = await uploading(f"early:{status}", 1000)
    answer = await read(reader)
    assert (answer.status, answer.end) == (status, "open")
    assert answer.json()["error"]["message"]


@pytest.mark.parametrize("sent", [1000, 9_000_000])
async def test_an_early_answer_may_close_the_connection(uploading: Begin, sent: int) -> None:
    reader = await uploading("early:413:close", sent)
    answer = await read(reader, silence=True)
    assert answer.status == 413
    assert answer.end in {"eof", "reset"}
    assert b"connection: close\r\n" in answer.head


async def test_behind_an_early_answer_the_rest_is_read_and_the_next_request_served(
    base_url: str, simulator: Simulator
) -> None:
    reader, writer = await opened(base_url)
    head, around = _head_and_tail("early:401", 3_000_000)
    before, _, after = around.partition(b"|")
    writer.write(head + before)
    assert (await read(reader)).status == 401
    assert not simulator.requests[0].whole
    for _ in range(30):
        writer.write(b"a" * 100_000)
        await writer.drain()
    writer.write(after + request_of(PATHS["chat"], body_of("chat", "any")))
    assert (await read(reader)).status == 200
    first, second = simulator.requests
    assert first.body_bytes == len(before) + 3_000_000 + len(after)
    assert (first.whole, second.whole) == (True, True)
    writer.close()


@pytest.mark.parametrize("api", ["chat", "images"])
async def test_an_early_answer_to_json_comes_when_the_model_is_known(base_url: str, api: str) -> None:
    reader, writer = await opened(base_url)
    body = body_of(api, "early:413", filler="a" * 1_000_000)
    head, _, _ = request_of(PATHS[api], body).partition(b"\r\n\r\n")
    writer.write(head + b"\r\n\r\n" + body[:10])
    await asyncio.sleep(0.01)
    writer.write(body[10:500])
    assert (await read(reader)).status == 413
    writer.close()


async def test_an_upload_is_dropped_where_it_is_told(uploading: Begin, simulator: Simulator) -> None:
    reader = await uploading("drop-upload:100000", 50_000)
    assert (await read(reader, silence=True)).end == "open"
    reader = await uploading("drop-upload:100000", 200_000)
    assert (await read(reader)).end == "reset"
    assert simulator.requests[-1].body_bytes >= 100_000


async def test_a_stalled_upload_is_felt_and_goes_on(base_url: str, simulator: Simulator) -> None:
    reader, writer = await opened(base_url)
    size = 40_000_000  # more than the kernel buffers on both sides
    head, around = _head_and_tail("stall-upload:1000000:300ms", size)
    before, _, after = around.partition(b"|")
    writer.write(head + before)
    loop = asyncio.get_running_loop()
    began, longest = loop.time(), 0.0
    for _ in range(size // 100_000):
        writer.write(b"a" * 100_000)
        await writer.drain()
        longest, began = max(longest, loop.time() - began), loop.time()
    writer.write(after)
    answer = await read(reader)
    assert answer.json()["received"][0]["bytes"] == size
    assert 0.2 < longest < 2.0
    assert simulator.requests[0].whole
    writer.close()


async def test_a_wrong_argument_is_told_when_the_body_has_been_read(base_url: str) -> None:
    for model in ("early:200", "early:413:slam", "drop-upload:x", "stall-upload:5:soon"):
        answer = await _sent(base_url, model, [b"a" * 10_000])
        assert (answer.status, "It is written" in answer.json()["error"]["message"]) == (400, True), model


async def test_stop_ends_what_is_held() -> None:
    simulator = Simulator(record=1)
    url = await simulator.start()
    _, writer = await opened(url)
    head, around = _head_and_tail("stall-upload:0", 1_000_000)
    writer.write(head + around)
    await _until(lambda: bool(simulator.requests) and simulator.requests[0].body_bytes > 0)
    await simulator.stop()
    assert simulator.connections_open == 0
    writer.close()
