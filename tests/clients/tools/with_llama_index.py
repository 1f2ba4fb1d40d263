"""What a program does with LlamaIndex, configured by OPENAI_API_BASE and OPENAI_API_KEY."""

from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

from llama_index.core.llms import ChatMessage
from llama_index.core.prompts import PromptTemplate
from llama_index.core.tools import FunctionTool
from llama_index.embeddings.openai import OpenAIEmbedding
from llama_index.llms.openai import OpenAI, OpenAIResponses
from llama_index.llms.openai_like import OpenAILike
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


def _like(name: str) -> OpenAILike:
    return OpenAILike(model=name, is_chat_model=True, is_function_calling_model=True)


def _texts(llm: Any) -> Iterator[str]:
    return (piece.delta or "" for piece in llm.stream_chat([ChatMessage(role="user", content=ASKED)]))


def chat(llm: Any) -> Facts:
    return {"text": llm.chat([ChatMessage(role="user", content=ASKED)]).message.content}


def stream(llm: Any) -> Facts:
    return streamed(chat(llm)["text"], _texts(llm))


def tools(llm: Any) -> Facts:
    answer = llm.chat_with_tools([FunctionTool.from_defaults(forecast)], user_msg=ASKED)
    return {"calls": [[one.tool_name, one.tool_kwargs] for one in llm.get_tool_calls_from_response(answer)]}


def called() -> Facts:
    done = _like("general").predict_and_call([FunctionTool.from_defaults(forecast)], user_msg=ASKED)
    return {"results": [done.response]}


def structured() -> Facts:
    return {"parsed": _like("general").structured_predict(Level, PromptTemplate(ASKED)).model_dump()}


def embeddings() -> Facts:
    vectors = OpenAIEmbedding(model_name="general").get_text_embedding_batch([ASKED, "Low."])
    return {"vectors": len(vectors), "size": len(vectors[0])}


SCENARIOS = {
    "example": lambda: shown("llama_index_chat.py"),
    "chat": lambda: chat(_like("general")),
    "chat stream": lambda: stream(_like("general")),
    "chat cut": lambda: cut(lambda: _texts(_like("sim/cut:3"))),
    "tools": lambda: tools(_like("general")),
    "called": called,
    "structured": structured,
    "embeddings": embeddings,
    "404": lambda: refused(lambda: chat(_like("generl"))),
    "chat known name": lambda: chat(OpenAI(model="gpt-4o-mini")),
    "name unknown to the class": lambda: refused(lambda: chat(OpenAI(model="general"))),
    "responses known name": lambda: chat(OpenAIResponses(model="gpt-4o-mini")),
}

if __name__ == "__main__":
    tell(version("llama-index-llms-openai"), SCENARIOS)
