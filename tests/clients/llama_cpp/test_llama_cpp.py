"""A real inference server behind Penstock: llama.cpp's, with a model of random weights, asked with openai-python.

Everything that the catalogue says of `llama.cpp` is asked here: each of its APIs, where usage stands, how errors look.
"""

import asyncio
import json
import signal
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from subprocess import Popen
from typing import Any, Final

import openai
import pytest
from openai import AsyncOpenAI

from proxy.providers.rows import CATALOGUE
from proxy.terms import ProviderId
from tests.clients.install import python_of
from tests.clients.stage import child, printed
from tests.conftest import Start
from tests.gateway import Gateway

pytestmark = [pytest.mark.clients, pytest.mark.large]

MESSAGES: Final[Any] = [{"role": "user", "content": "How high is the water?"}]
ASKED: Final = {"max_tokens": 12, "temperature": 0, "messages": MESSAGES}
IDLE_S: Final = 1.0  # PRODUCT: a client that leaves cancels its upstream within a second
LONG: Final = 20_000  # tokens: seconds of work


@dataclass(frozen=True, slots=True)
class Server:
    url: str
    popen: Popen[bytes]

    def answer(self, path: str, **body: Any) -> Any:
        """What it says when it is asked without Penstock."""
        data = json.dumps({"model": "any", **body}).encode() if body else None
        request = urllib.request.Request(f"{self.url}{path}", data, {"content-type": "application/json"})  # noqa: S310
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 - the URL is our own child's
            return json.load(answer)


@contextmanager
def running(folder: Path) -> Iterator[Server]:
    command: list[str | Path] = [python_of("llama-cpp"), Path(__file__).with_name("serve.py"), folder]
    with child(command, folder / "llama-server.txt") as popen:
        yield Server(printed(popen, folder / "llama-server.txt", "http://"), popen)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(tmp_path_factory.mktemp("llama-cpp")) as one:
        yield one


def _config(server: Server) -> str:
    return f"""
providers:
  llama.cpp: {{base_url: "{server.url}/v1"}}
defaults:
  timeouts: {{connect: 1s, first_event: 5s, idle: 5s, silent: 5s, total: 20s}}
routes:
  local: {{tiers: [llama.cpp/random]}}
"""


@pytest.fixture
async def gateway(start: Start, server: Server) -> Gateway:
    return await start(_config(server))


@pytest.fixture
async def client(gateway: Gateway) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=gateway.url, api_key="anything", max_retries=0) as opened:
        yield opened


async def test_chat(server: Server, gateway: Gateway, client: AsyncOpenAI) -> None:
    direct = server.answer("/v1/chat/completions", **ASKED)
    answer = await client.chat.completions.create(model="local", **ASKED)
    assert answer.choices[0].message.content == direct["choices"][0]["message"]["content"]
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage is not None
    (record,) = await gateway.settled()
    assert (record["usage"]["input"], record["usage"]["output"]) == (answer.usage.prompt_tokens, 12)
    assert record["target"] == "llama.cpp/random"


@pytest.mark.parametrize("asked", [False, True], ids=["usage not asked", "usage asked"])
async def test_chat_stream(asked: bool, server: Server, gateway: Gateway, client: AsyncOpenAI) -> None:
    """Penstock learns the usage in any case, and the client sees it if it asked."""
    direct = server.answer("/v1/chat/completions", **ASKED)
    more: dict[str, Any] = {"stream_options": {"include_usage": True}} if asked else {}
    stream = await client.chat.completions.create(model="local", stream=True, **ASKED, **more)
    chunks = [chunk async for chunk in stream]
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == direct["choices"][0]["message"]["content"]
    usages = [chunk.usage.completion_tokens for chunk in chunks if chunk.usage]
    assert usages == ([12] if asked else [])
    (record,) = await gateway.settled()
    assert (record["outcome"], record["usage"]["output"]) == ("ok", 12)


async def test_two_choices_in_one_stream(gateway: Gateway, client: AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(model="local", stream=True, n=2, **ASKED)
    finished = {choice.index async for chunk in stream for choice in chunk.choices if choice.finish_reason}
    assert finished == {0, 1}
    (record,) = await gateway.settled()
    assert record["outcome"] == "ok"


async def test_completions(server: Server, gateway: Gateway, client: AsyncOpenAI) -> None:
    asked = {"prompt": "The river", "max_tokens": 12, "temperature": 0}
    direct = server.answer("/v1/completions", **asked)["choices"][0]["text"]
    whole = await client.completions.create(model="local", **asked)  # type: ignore[call-overload] # one dict for both
    assert whole.choices[0].text == direct
    stream = await client.completions.create(model="local", stream=True, **asked)  # type: ignore[call-overload]
    assert "".join([chunk.choices[0].text async for chunk in stream if chunk.choices]) == direct
    for record in await gateway.settled(2):
        assert (record["api"], record["usage"]["output"]) == ("completions", 12)


async def test_embeddings(server: Server, gateway: Gateway, client: AsyncOpenAI) -> None:
    """The SDK asks for base64, and unpacks it."""
    direct = server.answer("/v1/embeddings", input=["water", "wheel"])["data"]
    answer = await client.embeddings.create(model="local", input=["water", "wheel"])
    for one, other in zip(answer.data, direct, strict=True):
        assert one.embedding == pytest.approx(other["embedding"], abs=1e-6)
    (record,) = await gateway.settled()
    assert record["usage"]["input"] == answer.usage.prompt_tokens > 0


async def test_responses(gateway: Gateway, client: AsyncOpenAI) -> None:
    stream = await client.responses.create(
        model="local", input="How high is the water?", max_output_tokens=12, temperature=0, stream=True
    )
    events = [event async for event in stream]
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    last = events[-1]
    assert last.type == "response.completed"
    assert last.response.output_text == text != ""
    (record,) = await gateway.settled()
    assert (record["api"], record["outcome"], record["usage"]["output"]) == ("responses", "ok", 12)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_messages(stream: bool, gateway: Gateway) -> None:
    answer = await gateway.ask("local", path="/v1/messages", stream=stream, temperature=0)
    assert (answer.status, answer.end) == (200, "whole")
    if stream:
        assert answer.events[-1] == b'event: message_stop\ndata: {"type":"message_stop"}\n\n'
    (record,) = await gateway.settled()
    assert (record["api"], record["outcome"], record["usage"]["output"]) == ("messages", "ok", 100)


async def test_tokens_are_counted(server: Server, gateway: Gateway) -> None:
    direct = server.answer("/v1/messages/count_tokens", messages=MESSAGES)
    answer = await gateway.ask("local", path="/v1/messages/count_tokens")
    assert answer.json() == direct


def test_every_api_of_the_catalogue_is_asked_here() -> None:
    apis = {api.value for api in CATALOGUE[ProviderId("llama.cpp")].paths}
    assert apis == {"chat", "completions", "embeddings", "responses", "messages", "count_tokens"}


async def test_its_own_error_comes_as_it_is(gateway: Gateway, client: AsyncOpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="Expected 'messages' to be an array") as raised:
        await client.chat.completions.create(model="local", messages="no")  # type: ignore[arg-type] # wrong
    assert raised.value.body == {
        "code": 400,
        "message": "Expected 'messages' to be an array",
        "type": "invalid_request_error",
    }
    (record,) = await gateway.settled()
    assert (record["outcome"], record["attempts"]) == ("refused", 1)


async def test_a_prompt_that_is_too_long(gateway: Gateway, client: AsyncOpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="exceeds the available context size"):
        await client.chat.completions.create(model="local", messages=[{"role": "user", "content": "water " * 6_000}])
    (record,) = await gateway.settled()
    assert (record["code"], record["attempts"]) == ("context_length_exceeded", 1)


async def test_a_client_that_leaves_stops_the_generation(server: Server, gateway: Gateway, client: AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(
        model="local", messages=MESSAGES, max_tokens=LONG, temperature=0, stream=True
    )
    async for chunk in stream:
        if chunk.choices and chunk.choices[0].delta.content:
            break
    assert _generating(server)
    await stream.close()
    async with asyncio.timeout(IDLE_S):
        while _generating(server):
            await asyncio.sleep(0.01)
    (record,) = await gateway.settled()
    assert record["outcome"] == "client_cancelled"


async def test_a_server_that_dies_within_an_answer(start: Start, tmp_path: Path) -> None:
    with running(tmp_path) as server:
        gateway = await start(_config(server))
        async with AsyncOpenAI(base_url=gateway.url, api_key="anything", max_retries=0) as client:
            stream = await client.chat.completions.create(
                model="local", messages=MESSAGES, max_tokens=LONG, temperature=0, stream=True
            )
            async for chunk in stream:
                if chunk.choices[0].delta.content:
                    break
            server.popen.send_signal(signal.SIGKILL)
            with pytest.raises(openai.APIError, match=r"^llama\.cpp/random ended its answer before it was complete"):
                [chunk async for chunk in stream]
        (record,) = await gateway.settled()
        assert (record["outcome"], record["code"]) == ("partial", "upstream_incomplete")


def _generating(server: Server) -> bool:
    return any(slot["is_processing"] for slot in server.answer("/slots"))
