"""Files, batches, stored responses, and paths that nobody knows."""

import hashlib

import aiohttp
import openai
import pytest

from proxy.simulator.server import Simulator

LINES = b'{"custom_id":"1","method":"POST","url":"/v1/chat/completions","body":{}}\n' * 1000


def _client(base_url: str) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=base_url, api_key="any", max_retries=0)


async def test_a_file_is_listed_told_and_forgotten(base_url: str, simulator: Simulator) -> None:
    async with _client(base_url) as client:
        made = await client.files.create(file=("lines.jsonl", LINES), purpose="batch")
        other = await client.files.create(file=("b.txt", b"b"), purpose="user_data")
        listed = await client.files.list()
        told = await client.files.retrieve(made.id)
        content = await client.files.content(made.id)
        gone = await client.files.delete(made.id)
        with pytest.raises(openai.NotFoundError, match="No such File object"):
            await client.files.retrieve(made.id)
        left = await client.files.list()
    assert (made.bytes, made.filename, made.purpose, made.status) == (len(LINES), "lines.jsonl", "batch", "processed")
    assert [file.id for file in listed.data] == [other.id, made.id]
    assert told == made
    assert hashlib.sha256(LINES).hexdigest() in content.text
    assert (gone.id, gone.deleted) == (made.id, True)
    assert [file.id for file in left.data] == [other.id]
    simulator.clear()
    async with _client(base_url) as client:
        assert (await client.files.list()).data == []


async def test_a_batch_is_done_when_it_is_next_asked_about(base_url: str) -> None:
    async with _client(base_url) as client:
        begun = await client.batches.create(
            completion_window="24h", endpoint="/v1/chat/completions", input_file_id="file-1", metadata={"a": "b"}
        )
        done = await client.batches.retrieve(begun.id)
        again = await client.batches.retrieve(begun.id)
        cancelled = await client.batches.cancel(begun.id)
        listed = await client.batches.list()
    assert (begun.status, done.status, again.status) == ("validating", "completed", "completed")
    assert (begun.input_file_id, begun.metadata, done.output_file_id) == ("file-1", {"a": "b"}, f"file-{begun.id}")
    assert cancelled.status == "cancelling"
    assert [batch.id for batch in listed.data] == [begun.id]


async def test_any_response_is_stored(base_url: str) -> None:
    async with _client(base_url) as client:
        told = await client.responses.retrieve("resp_68a1")
        streamed = [event async for event in await client.responses.retrieve("resp_68a1", stream=True)]
        cancelled = await client.responses.cancel("resp_68a1")
        items = await client.responses.input_items.list("resp_68a1")
        await client.responses.delete("resp_68a1")
    assert told.id == cancelled.id == "resp_68a1"
    assert told.status == "completed"
    assert "Penstock's simulator" in told.output_text
    last = streamed[-1]
    assert last.type == "response.completed"
    assert (last.response.id, last.response.output_text) == ("resp_68a1", told.output_text)
    assert items.data == []


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE"])
async def test_an_unknown_path_is_echoed(base_url: str, method: str) -> None:
    body = b"" if method == "GET" else b"\x00\xff" * 100_000
    url = base_url + "/vector_stores/vs_1/search?limit=3&after=a"
    async with aiohttp.ClientSession() as session, session.request(method, url, data=body or None) as answer:
        assert answer.status == 200
        told = await answer.json()
    assert (told["method"], told["path"], told["query"]) == (method, "/v1/vector_stores/vs_1/search", "limit=3&after=a")
    assert (told["body_bytes"], told["body_sha256"]) == (len(body), hashlib.sha256(body).hexdigest())


@pytest.mark.parametrize(
    ("path", "status"), [("/v1/anything", 200), ("/v1/files", 200), ("/v1/chat/completions", 405), ("/v1/models", 405)]
)
async def test_head_has_no_body(base_url: str, path: str, status: int) -> None:
    async with aiohttp.ClientSession() as session, session.head(base_url.removesuffix("/v1") + path) as answer:
        assert answer.status == status
        assert await answer.read() == b""


@pytest.mark.parametrize(("script", "status"), [("429:9", 429), ("500", 500), ("once:503:echo", 503), ("echo", 200)])
async def test_an_unknown_path_takes_its_script_from_the_query(base_url: str, script: str, status: int) -> None:
    url = f"{base_url}/fine_tuning/jobs?script={script}"
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        assert answer.status == status
        assert (answer.headers.get("retry-after") == "9") is (script == "429:9")
        await answer.read()


async def test_a_cut_in_an_echo(base_url: str) -> None:
    async with aiohttp.ClientSession() as session, session.get(f"{base_url}/evals?script=cut") as answer:
        assert answer.status == 200
        with pytest.raises(aiohttp.ClientPayloadError):
            await answer.read()
