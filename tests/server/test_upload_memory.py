"""An upload of 150 MiB through a process of its own: it passes, and the process does not grow."""

import asyncio
import hashlib
from pathlib import Path

import psutil
import pytest

from tests.server.process import config_file, serving

SIZE = 150 << 20
STEP = bytes(range(256)) * 1024  # 256 KiB
GROWTH_BYTES_MAX = 24 << 20
FIELD = b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\n%s\r\n'
FILE = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
END = b"--b--\r\n"
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"


class Sink:
    """An upstream that hashes what it gets and keeps nothing."""

    def __init__(self) -> None:
        self.digest = hashlib.sha256()
        self.bytes = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = int(head.split(b"content-length: ")[1].split(b"\r\n")[0])
        while self.bytes < length:
            part = await reader.read(1 << 18)
            if not part:
                break
            self.digest.update(part)
            self.bytes += len(part)
        writer.write(ANSWER)
        await writer.drain()
        writer.close()


@pytest.mark.parametrize("model_first", [True, False], ids=["model first", "file first"])
async def test_150_mib_with_flat_memory(tmp_path: Path, model_first: bool) -> None:
    sink = Sink()
    server = await asyncio.start_server(sink.serve, "127.0.0.1", 0, limit=1 << 19)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    config = config_file(
        tmp_path, f"providers: {{sim: {{like: vllm, base_url: '{url}'}}}}\nroutes: {{ears: {{tiers: [sim/other]}}}}\n"
    )
    with serving("--config", config) as (process, port, _):
        watched = psutil.Process(process.pid)
        before = most = watched.memory_info().rss
        parts = [FIELD % b"ears", FILE] if model_first else [FILE]
        ends = [b"\r\n" + END] if model_first else [b"\r\n" + FIELD % b"ears" + END]
        length = sum(map(len, [*parts, *ends])) + SIZE
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(
            b"POST /v1/audio/transcriptions HTTP/1.1\r\nhost: x\r\ncontent-type: multipart/form-data; boundary=b\r\n"
            + f"content-length: {length}\r\n\r\n".encode()
        )
        expected = hashlib.sha256(b"".join(parts).replace(b"ears", b"other"))
        writer.write(b"".join(parts))
        for number in range(SIZE // len(STEP)):
            writer.write(STEP)
            expected.update(STEP)
            await writer.drain()
            if number % 16 == 0:
                most = max(most, watched.memory_info().rss)
        writer.write(b"".join(ends))
        expected.update(b"".join(ends).replace(b"ears", b"other"))
        async with asyncio.timeout(60):
            head = await reader.readuntil(b"\r\n\r\n")
        most = max(most, watched.memory_info().rss)
        writer.close()
    server.close()
    await server.wait_closed()
    assert head.startswith(b"HTTP/1.1 200")
    assert sink.bytes == length + 1
    assert sink.digest.digest() == expected.digest()
    assert most - before < GROWTH_BYTES_MAX, f"it grew by {(most - before) >> 20} MiB"
