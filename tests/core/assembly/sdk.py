"""openai-python over canned bytes: the client itself parses them, and its own accumulator assembles the chunks."""

from typing import Any, Final

import httpx2
from openai import OpenAI
from openai.lib.streaming.chat import ChatCompletionStreamState

_ASKED: Final[dict[str, Any]] = {"model": "m", "messages": [{"role": "user", "content": "?"}]}


def _client(body: bytes, content_type: str) -> OpenAI:
    transport = httpx2.MockTransport(
        lambda _: httpx2.Response(200, content=body, headers={"content-type": content_type})
    )
    return OpenAI(
        api_key="-", base_url="http://127.0.0.1/v1", max_retries=0, http_client=httpx2.Client(transport=transport)
    )


def chat_of_stream(events: bytes) -> dict[str, Any]:
    """What the SDK makes of a stream, as its own types dump it."""
    state: ChatCompletionStreamState[None] = ChatCompletionStreamState()
    with _client(events, "text/event-stream") as client:
        for chunk in client.chat.completions.create(**_ASKED, stream=True):
            state.handle_chunk(chunk)
    return state.current_completion_snapshot.to_dict(mode="json")


def chat_of_json(body: bytes) -> dict[str, Any]:
    with _client(body, "application/json") as client:
        found: dict[str, Any] = client.chat.completions.create(**_ASKED).to_dict(mode="json")
    return found


def completions_of_stream(events: bytes) -> list[dict[str, Any]]:
    """The chunks: the SDK has nothing that assembles them."""
    with _client(events, "text/event-stream") as client:
        stream = client.completions.create(model="m", prompt="?", stream=True)
        return [chunk.to_dict(mode="json") for chunk in stream]


def completion_of_json(body: bytes) -> dict[str, Any]:
    with _client(body, "application/json") as client:
        return client.completions.create(model="m", prompt="?").to_dict(mode="json")
