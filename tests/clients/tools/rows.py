"""The tools, each with the one setting that points it at Penstock, and what each scenario of its script must show.

A row reads as in `tests.clients.expected`. "… cut": the provider's stream breaks off after some content; nobody may take
what came for the answer, so the tool has to raise.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.clients.expected import Logged, Row, at_least, holds, is_count, is_text
from tests.clients.install import node_packages, python_of
from tests.clients.stage import ROOT, Stage

HERE: Final = Path(__file__).parent
EXAMPLES: Final = ROOT / "docs" / "examples"
CONFIG: Final = """\
providers:
  sim: {{like: vllm, base_url: "{sim}"}}
defaults:
  timeouts: {{connect: 1s, first_event: 5s, idle: 500ms, silent: 900ms, total: 15s}}
routes:
  general: {{about: Whatever is asked, tiers: [sim/plain]}}
models:
  gpt-4o-mini: general
  "text-embedding-*": general
  "claude-*": general
"""


@dataclass(frozen=True, slots=True)
class Tool:
    """``environ``: all that its process knows of where Penstock is. ``example``: the file of `docs/examples` it runs."""

    name: str
    command: Callable[[], Sequence[str | Path]]
    environ: Callable[[Stage], Mapping[str, str]]
    rows: tuple[Row, ...]
    example: str


def _python(name: str) -> Callable[[], Sequence[str | Path]]:
    return lambda: [python_of(name), "-P", "-m", f"tests.clients.tools.with_{name.replace('-', '_')}"]


def _ai_sdk() -> Sequence[str | Path]:
    scripts = [HERE / "node" / "with_ai_sdk.mjs", EXAMPLES / "ai_sdk.mjs"]
    return ["node", node_packages("ai-sdk", HERE / "node", scripts) / "with_ai_sdk.mjs"]


def _openai_base_url(on: Stage) -> Mapping[str, str]:
    return {"OPENAI_BASE_URL": on.url, "OPENAI_API_KEY": "anything"}


def _openai_api_base(on: Stage) -> Mapping[str, str]:
    return {"OPENAI_API_BASE": on.url, "OPENAI_API_KEY": "anything"}


def _anthropic(on: Stage) -> Mapping[str, str]:
    return {"ANTHROPIC_BASE_URL": on.url.removesuffix("/v1"), "ANTHROPIC_API_KEY": "anything"}


def _penstock(on: Stage) -> Mapping[str, str]:
    return {"PENSTOCK_URL": on.url.removesuffix("/v1")}


def _llm(on: Stage) -> Mapping[str, str]:
    return {"PENSTOCK_BASE_URL": on.url, "LLM_USER_PATH": str(on.output.parent / "llm")}


# What a scenario shows ----------------------------------------------------------------------------------------------

_SAID: Final = holds("How high is the water?")
_STREAMED: Final = {"text_equals_whole": True, "pieces": at_least(10)}
_LEVEL: Final = {
    "river": is_text,
    "metres": lambda seen: isinstance(seen, int | float),
    "rising": lambda seen: isinstance(seen, bool),
}
_VECTORS: Final = {"vectors": 2, "size": at_least(2)}


def _called(seen: object) -> bool:
    """One call of `forecast`, with arguments of the right types."""
    match seen:
        case [["forecast", {"river": str(), "days": int()}]]:
            return True
        case _:
            return False


def _result(seen: object) -> bool:
    """The tool ran, and its result is what it was given."""
    return isinstance(seen, list) and len(seen) == 1 and holds("The ", " will stand at 2 m in ")(seen[0])


def _example(*more: str) -> Row:
    return Row("example", {"printed": holds("How high is the water?", *more)})


def _unknown(kind: str, scenario: str = "404", api: str = "chat") -> Row:
    """A name that Penstock does not know: the tool shows what Penstock says of it."""
    facts = {"error": {"class": kind, "message": holds("model 'generl' is not a route", "Did you mean 'general'?")}}
    return Row(scenario, facts, Logged("generl", api, "refused", "model_not_found", attempts=0))


def _cut(scenario: str, kind: str, script: str, api: str = "chat") -> Row:
    """What came before the cut has come, and then the tool raises, with Penstock's words; it does not ask again."""
    said = holds(f"sim/{script} ended its answer before it was complete.")
    return Row(scenario, {"pieces": at_least(1), "error": {"class": kind, "message": said}}, _broken(script, api))


def _broken(script: str, api: str, code: str = "upstream_incomplete") -> Logged:
    return Logged(f"sim/{script}", api, "partial", code)


# The tools ----------------------------------------------------------------------------------------------------------

_LANGCHAIN: Final = (
    _example("\n1536\n"),
    Row("chat", {"text": _SAID, "tokens": is_count}),
    Row("chat stream", _STREAMED),
    Row("chat stream usage", {"usages": lambda seen: len(seen) == 1 and seen[0] > 0}),
    _cut("chat cut", "APIError", "cut:3"),
    Row("tools", {"calls": _called}),
    Row("agent", {"results": _result, "text": _SAID, "last_is_answer": True}),
    Row("structured", {"parsed": _LEVEL}),
    Row("embeddings", _VECTORS),
    _unknown("OpenAIModelNotFoundError"),
    Row("api base wins", {"text": _SAID, "tokens": is_count}),
    Row("responses", {"text": _SAID, "tokens": is_count}),
    Row("responses stream", _STREAMED),
    _cut("responses cut", "APIError", "cut:4", "responses"),
    Row("responses agent", {"results": _result, "text": _SAID, "last_is_answer": True}),
)

_LLAMA_INDEX: Final = (
    _example("\n1536\n"),
    Row("chat", {"text": _SAID}),
    Row("chat stream", _STREAMED),
    _cut("chat cut", "APIError", "cut:3"),
    Row("tools", {"calls": _called}),
    Row("called", {"results": _result}),
    Row("structured", {"parsed": _LEVEL}),
    Row("embeddings", _VECTORS),
    _unknown("NotFoundError"),
    Row("chat known name", {"text": _SAID}, Logged("gpt-4o-mini", "chat", "ok", None)),
    # LlamaIndex's own refusal: its class for OpenAI has a table of names, so a route needs OpenAILike, or a name that
    # `models:` maps.
    Row("name unknown to the class", {"error": {"class": "ValueError", "message": holds("Unknown model 'general'")}}),
    Row("responses known name", {"text": _SAID}, Logged("gpt-4o-mini", "responses", "ok", None)),
)

_INSTRUCTOR: Final = (
    Row("example", {"printed": holds("river=", "metres=")}),
    Row("tools", {"parsed": _LEVEL}),
    Row("structured", {"parsed": _LEVEL}),
    Row("responses tools", {"parsed": _LEVEL}),
    Row("tools stream", {"parsed": _LEVEL, "pieces": at_least(2)}),
    Row(
        "tools cut",
        {
            "error": {
                "class": "InstructorRetryException",
                "message": holds("sim/tool-cut ended its stream before the answer was complete."),
            }
        },
        _broken("tool-cut", "chat"),
    ),
    _unknown("InstructorRetryException"),
)

_PYDANTIC_AI: Final = (
    _example(),
    *(
        row
        for api, script in (("chat", "cut:3"), ("responses", "cut:4"))
        for row in (
            Row(api, {"text": _SAID, "tokens": is_count}),
            Row(f"{api} stream", _STREAMED),
            _cut(f"{api} cut", "ModelAPIError", script, api),
            Row(f"{api} tools", {"calls": _called, "text": _SAID}),
            Row(f"{api} structured", {"parsed": _LEVEL}),
        )
    ),
    _unknown("ModelNotFoundError"),
)

_ANTHROPIC: Final = (
    _example(),
    Row("messages", {"text": _SAID, "tokens": is_count, "stop": "end_turn"}),
    Row("messages stream", _STREAMED),
    _cut("messages cut", "APIStatusError", "cut:3", "messages"),
    _cut("messages raw cut", "APIStatusError", "cut:4", "messages"),
    Row(
        "messages stall",
        {"pieces": at_least(1), "error": {"class": "APIStatusError", "message": holds("timeout_error", "sim/stall:3")}},
        _broken("stall:3", "messages", "upstream_timeout"),
    ),
    Row("tools", {"calls": _called, "stop": "tool_use", "text": _SAID}),
    Row("count", {"tokens": is_count}),
    Row("beta", {"text": _SAID, "tokens": is_count, "stop": "end_turn"}),
    Row("models", {"listed": lambda seen: seen[0] == "general"}),
    _unknown("NotFoundError", api="messages"),
)

_MISTRAL: Final = (
    _example(),
    Row("chat", {"text": _SAID, "tokens": is_count}),
    Row("chat stream", _STREAMED),
    # It knows no errors within a stream: it raises because the event is no chunk, and quotes some of it.
    Row(
        "chat cut",
        {
            "pieces": at_least(1),
            "error": {"class": "ResponseValidationError", "message": holds("{'error': {'message'")},
        },
        _broken("cut:3", "chat"),
    ),
    Row("tools", {"calls": lambda seen: seen[0][0] == "forecast" and '"river"' in seen[0][1]}),
    _unknown("SDKError"),
)

_LLM: Final = (
    _example(),
    Row("chat", {"text": _SAID}),
    Row("chat stream", _STREAMED),
    Row("structured", {"output": holds('"river":', '"metres":')}),
    Row("tools", {"calls": _called, "text": _SAID}),
    Row(
        "chat cut",
        {"pieces": at_least(1), "error": {"class": "APIError", "message": holds("sim/cut:3 ended its answer")}},
    ),
    Row("cut command", {"exit": 1, "output": holds("Water ", "Error: sim/cut:3 ended its answer before")}),
    Row(
        "404 command",
        {"exit": 1, "output": holds("model 'generl' is not a route", "Did you mean 'general'?")},
        Logged("generl", "chat", "refused", "model_not_found", attempts=0),
    ),
)


def _ai_sdk_rows(provider: str, api: str, script: str) -> tuple[Row, ...]:
    terminated = {"class": "AI_APICallError", "message": "Failed to process successful response"}
    said = f"sim/{script} ended its answer before it was complete."
    return (
        Row(provider, {"text": _SAID, "tokens": is_count, "finish": "stop"}),
        Row(f"{provider} stream", {**_STREAMED, "told": [], "error": None, "finish": "stop"}),
        # The words come to onError; the loop over the text then throws of the connection that was broken off.
        Row(
            f"{provider} cut",
            {
                "pieces": at_least(1),
                "told": [{"class": "AI_StreamProviderError", "message": said}],
                "error": terminated,
                "finish": terminated,
            },
            _broken(script, api),
        ),
        Row(f"{provider} tools", {"calls": _called, "steps": 2, "text": _SAID}),
        Row(f"{provider} structured", {"parsed": _LEVEL}),
        Row(
            f"{provider} 404",
            {"error": {"class": "AI_APICallError", "status": 404, "message": holds("Did you mean 'general'?")}},
        ),
    )


_AI_SDK: Final = (
    _example(),
    *_ai_sdk_rows("responses", "responses", "cut:3"),
    *_ai_sdk_rows("chat", "chat", "cut:4"),
    *_ai_sdk_rows("compatible", "chat", "cut:5"),
    Row("embeddings", {"size": at_least(2)}),
)

TOOLS: Final = (
    Tool("langchain", _python("langchain"), _openai_base_url, _LANGCHAIN, "langchain_chat.py"),
    Tool("llama-index", _python("llama-index"), _openai_api_base, _LLAMA_INDEX, "llama_index_chat.py"),
    Tool("instructor", _python("instructor"), _openai_base_url, _INSTRUCTOR, "instructor_level.py"),
    Tool("pydantic-ai", _python("pydantic-ai"), _openai_base_url, _PYDANTIC_AI, "pydantic_ai_agent.py"),
    Tool("anthropic", _python("anthropic"), _anthropic, _ANTHROPIC, "anthropic_messages.py"),
    Tool("mistral", _python("mistral"), _penstock, _MISTRAL, "mistral_chat.py"),
    Tool("llm", _python("llm"), _llm, _LLM, "extra-openai-models.yaml"),
    Tool("ai-sdk", _ai_sdk, _openai_base_url, _AI_SDK, "ai_sdk.mjs"),
)
