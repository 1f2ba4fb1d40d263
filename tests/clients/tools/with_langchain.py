"""What a program does with LangChain. OPENAI_BASE_URL and OPENAI_API_KEY configure it; one scenario adds OPENAI_API_BASE."""

import os
from collections.abc import Iterator
from importlib.metadata import version

from langchain.agents import create_agent
from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.tools import StructuredTool
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from pydantic import BaseModel

from tests.clients.tools.telling import ASKED, Facts, cut, refused, shown, streamed, tell


class Level(BaseModel):
    """The water level of a river."""

    river: str
    metres: float
    rising: bool


def forecast(river: str, days: int) -> str:
    """The water level of the coming days."""
    return f"The {river} will stand at 2 m in {days} days."


FORECAST = StructuredTool.from_function(forecast)


def _texts(model: ChatOpenAI) -> Iterator[str]:
    return (chunk.text for chunk in model.stream(ASKED))


def chat(model: ChatOpenAI) -> Facts:
    answer = model.invoke(ASKED)
    return {"text": answer.text, "tokens": answer.usage_metadata["total_tokens"]}


def stream(model: ChatOpenAI) -> Facts:
    return streamed(model.invoke(ASKED).text, _texts(model))


def stream_usage() -> Facts:
    chunks = list(ChatOpenAI(model="general", stream_usage=True).stream(ASKED))
    return {"usages": [chunk.usage_metadata["total_tokens"] for chunk in chunks if chunk.usage_metadata]}


def tools() -> Facts:
    answer = ChatOpenAI(model="general").bind_tools([FORECAST]).invoke(ASKED)
    return {"calls": [[call["name"], call["args"]] for call in answer.tool_calls]}


def agent(model: ChatOpenAI) -> Facts:
    """The loop whole: a tool is called, its result is sent, and an answer comes."""
    messages = create_agent(model, [FORECAST]).invoke({"messages": [("user", ASKED)]})["messages"]
    results = [message.text for message in messages if isinstance(message, ToolMessage)]
    return {"results": results, "text": messages[-1].text, "last_is_answer": isinstance(messages[-1], AIMessage)}


def structured(model: ChatOpenAI) -> Facts:
    return {"parsed": model.with_structured_output(Level).invoke(ASKED).model_dump()}


def embeddings() -> Facts:
    vectors = OpenAIEmbeddings(model="general", check_embedding_ctx_length=False).embed_documents([ASKED, "Low."])
    return {"vectors": len(vectors), "size": len(vectors[0])}


def api_base_wins() -> Facts:
    right = os.environ["OPENAI_BASE_URL"]
    os.environ |= {"OPENAI_API_BASE": right, "OPENAI_BASE_URL": "http://127.0.0.1:9/v1"}
    try:
        return chat(ChatOpenAI(model="general"))
    finally:
        del os.environ["OPENAI_API_BASE"]
        os.environ["OPENAI_BASE_URL"] = right


def _responses(name: str) -> ChatOpenAI:
    return ChatOpenAI(model=name, use_responses_api=True)


SCENARIOS = {
    "example": lambda: shown("langchain_chat.py"),
    "chat": lambda: chat(ChatOpenAI(model="general")),
    "chat stream": lambda: stream(ChatOpenAI(model="general")),
    "chat stream usage": stream_usage,
    "chat cut": lambda: cut(lambda: _texts(ChatOpenAI(model="sim/cut:3"))),
    "tools": tools,
    "agent": lambda: agent(ChatOpenAI(model="general")),
    "structured": lambda: structured(ChatOpenAI(model="general")),
    "embeddings": embeddings,
    "404": lambda: refused(lambda: ChatOpenAI(model="generl").invoke(ASKED)),
    "api base wins": api_base_wins,
    "responses": lambda: chat(_responses("general")),
    "responses stream": lambda: stream(_responses("general")),
    "responses cut": lambda: cut(lambda: _texts(_responses("sim/cut:4"))),
    "responses agent": lambda: agent(_responses("general")),
}

if __name__ == "__main__":
    tell(version("langchain-openai"), SCENARIOS)
