"""What a program does with anthropic-python, configured by ANTHROPIC_BASE_URL (without /v1) and ANTHROPIC_API_KEY."""

from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

from anthropic import Anthropic

from tests.clients.tools.telling import ASKED, Facts, cut, refused, shown, streamed, tell

MESSAGES: Any = [{"role": "user", "content": ASKED}]
TOOLS: Any = [
    {
        "name": "forecast",
        "description": "The water level of the coming days.",
        "input_schema": {
            "type": "object",
            "properties": {"river": {"type": "string"}, "days": {"type": "integer"}},
            "required": ["river", "days"],
        },
    }
]


def _ask(client: Anthropic, name: str = "claude-sonnet-5-5", **more: Any) -> Any:
    return client.messages.create(model=name, max_tokens=500, messages=MESSAGES, **more)


def _texts(client: Anthropic, name: str = "claude-sonnet-5-5") -> Iterator[str]:
    with client.messages.stream(model=name, max_tokens=500, messages=MESSAGES) as stream:
        yield from stream.text_stream


def _raw_texts(client: Anthropic, name: str) -> Iterator[str]:
    for event in _ask(client, name, stream=True):
        yield event.delta.text if event.type == "content_block_delta" else ""


def messages(client: Anthropic) -> Facts:
    answer = _ask(client)
    return {"text": answer.content[0].text, "tokens": answer.usage.output_tokens, "stop": answer.stop_reason}


def stream(client: Anthropic) -> Facts:
    return streamed(_ask(client).content[0].text, _texts(client))


def tools(client: Anthropic) -> Facts:
    """Called in a stream; then its result is sent, and an answer comes."""
    with client.messages.stream(model="claude-sonnet-5-5", max_tokens=500, messages=MESSAGES, tools=TOOLS) as opened:
        asked = opened.get_final_message()
    call = asked.content[0]
    result = {"type": "tool_result", "tool_use_id": call.id, "content": "2 m"}
    history = [*MESSAGES, {"role": "assistant", "content": asked.content}, {"role": "user", "content": [result]}]
    answer = client.messages.create(model="claude-sonnet-5-5", max_tokens=500, messages=history, tools=TOOLS)
    return {"calls": [[call.name, call.input]], "stop": asked.stop_reason, "text": answer.content[0].text}


def count(client: Anthropic) -> Facts:
    return {"tokens": client.messages.count_tokens(model="claude-sonnet-5-5", messages=MESSAGES).input_tokens}


def beta(client: Anthropic) -> Facts:
    """Its beta methods ask for `/v1/messages?beta=true`."""
    answer = client.beta.messages.create(
        model="claude-sonnet-5-5", max_tokens=500, messages=MESSAGES, betas=["context-management-2025-06-27"]
    )
    return {"text": answer.content[0].text, "tokens": answer.usage.output_tokens, "stop": answer.stop_reason}


def _scenarios(client: Anthropic) -> dict[str, Any]:
    return {
        "example": lambda: shown("anthropic_messages.py"),
        "messages": lambda: messages(client),
        "messages stream": lambda: stream(client),
        "messages cut": lambda: cut(lambda: _texts(client, "sim/cut:3")),
        "messages raw cut": lambda: cut(lambda: _raw_texts(client, "sim/cut:4")),
        "messages stall": lambda: cut(lambda: _texts(client, "sim/stall:3")),
        "tools": lambda: tools(client),
        "count": lambda: count(client),
        "beta": lambda: beta(client),
        "models": lambda: {"listed": [model.id for model in client.models.list()]},
        "404": lambda: refused(lambda: _ask(client, "generl")),
    }


if __name__ == "__main__":
    with Anthropic() as opened:
        tell(version("anthropic"), _scenarios(opened))
