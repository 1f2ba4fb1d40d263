"""What a program does with Mistral's SDK. No variable sets its server: the program reads PENSTOCK_URL (without /v1)."""

import os
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

from mistralai.client import Mistral

from tests.clients.tools.telling import ASKED, Facts, cut, refused, shown, streamed, tell

MESSAGES: Any = [{"role": "user", "content": ASKED}]
TOOLS: Any = [
    {
        "type": "function",
        "function": {
            "name": "forecast",
            "description": "The water level of the coming days.",
            "parameters": {
                "type": "object",
                "properties": {"river": {"type": "string"}, "days": {"type": "integer"}},
                "required": ["river", "days"],
            },
        },
    }
]


def _texts(client: Mistral, name: str) -> Iterator[str]:
    for event in client.chat.stream(model=name, messages=MESSAGES):
        yield event.data.choices[0].delta.content or "" if event.data.choices else ""


def chat(client: Mistral) -> Facts:
    answer = client.chat.complete(model="general", messages=MESSAGES)
    return {"text": answer.choices[0].message.content, "tokens": answer.usage.total_tokens}


def tools(client: Mistral) -> Facts:
    calls = client.chat.complete(model="general", messages=MESSAGES, tools=TOOLS).choices[0].message.tool_calls
    return {"calls": [[call.function.name, call.function.arguments] for call in calls]}


def _scenarios(client: Mistral) -> dict[str, Any]:
    return {
        "example": lambda: shown("mistral_chat.py"),
        "chat": lambda: chat(client),
        "chat stream": lambda: streamed(chat(client)["text"], _texts(client, "general")),
        "chat cut": lambda: cut(lambda: _texts(client, "sim/cut:3")),
        "tools": lambda: tools(client),
        "404": lambda: refused(lambda: client.chat.complete(model="generl", messages=MESSAGES)),
    }


if __name__ == "__main__":
    with Mistral(server_url=os.environ["PENSTOCK_URL"], api_key="anything") as opened:
        tell(version("mistralai"), _scenarios(opened))
