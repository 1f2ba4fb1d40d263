"""What a program does with Pydantic AI, configured by OPENAI_BASE_URL and OPENAI_API_KEY."""

import asyncio
from collections.abc import Callable, Iterator
from importlib.metadata import version

from pydantic import BaseModel
from pydantic_ai import Agent

from tests.clients.tools.telling import ASKED, Facts, cut, refused, shown, streamed, tell


class Level(BaseModel):
    """The water level of a river."""

    river: str
    metres: float
    rising: bool


def chat(kind: str) -> Facts:
    done = Agent(f"{kind}:general").run_sync(ASKED)
    return {"text": done.output, "tokens": done.usage.total_tokens}


def _texts(name: str) -> Iterator[str]:
    """Each piece as it comes; what is raised between two of them is raised here."""

    async def gather() -> None:
        async with Agent(name).run_stream(ASKED) as answer:
            async for text in answer.stream_text(delta=True, debounce_by=None):
                texts.append(text)  # noqa: PERF401 - those before a failure count

    texts: list[str] = []
    raised: Exception | None = None
    try:
        asyncio.run(gather())
    except Exception as failed:  # noqa: BLE001 - raised again below
        raised = failed
    yield from texts
    if raised is not None:
        raise raised


def stream(kind: str) -> Facts:
    return streamed(chat(kind)["text"], _texts(f"{kind}:general"))


def tools(kind: str) -> Facts:
    """The loop whole: a tool is called, its result is sent, and an answer comes."""
    agent = Agent(f"{kind}:general")
    called: list[list[object]] = []

    def forecast(river: str, days: int) -> str:
        """The water level of the coming days."""
        called.append(["forecast", {"river": river, "days": days}])
        return "2 m"

    agent.tool_plain(forecast)
    text = agent.run_sync(ASKED).output
    return {"calls": called, "text": text}


def structured(kind: str) -> Facts:
    return {"parsed": Agent(f"{kind}:general", output_type=Level).run_sync(ASKED).output.model_dump()}


def _of(kind: str, prefix: str, script: str) -> dict[str, Callable[[], Facts]]:
    return {
        prefix: lambda: chat(kind),
        f"{prefix} stream": lambda: stream(kind),
        f"{prefix} cut": lambda: cut(lambda: _texts(f"{kind}:sim/{script}")),
        f"{prefix} tools": lambda: tools(kind),
        f"{prefix} structured": lambda: structured(kind),
    }


SCENARIOS = {
    "example": lambda: shown("pydantic_ai_agent.py"),
    **_of("openai-chat", "chat", "cut:3"),
    **_of("openai-responses", "responses", "cut:4"),
    "404": lambda: refused(lambda: Agent("openai-chat:generl").run_sync(ASKED)),
}

if __name__ == "__main__":
    tell(version("pydantic-ai-slim"), SCENARIOS)
