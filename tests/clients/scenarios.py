"""What a program does with openai-python, once for each scenario. Runs under openai 1 and 3, in a process of its own.

Prints one JSON line per scenario: its name and what the program saw. Nothing is judged here; `expected` does that. The
SDK is configured by OPENAI_BASE_URL and OPENAI_API_KEY alone. `node/scenarios.mjs` is the same for openai-node.
"""

import asyncio
import json
import sys
import time
import traceback
from collections.abc import Callable, Iterable
from typing import Any, Final

import openai
from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel

Facts = dict[str, Any]

ASKED: Final = "How high is the water?"
MESSAGES: Final[Any] = [{"role": "user", "content": ASKED}]
TOOLS: Final[Any] = [
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
BROKEN: Final = ("cut:3", "reset:3", "mid-event:3", "clean-end:3", "stall:3", "error-event:3", "bad-json:3")
FORMS: Final = ("mistral", "fastapi", "gemini", "text", "html")


class Level(BaseModel):
    river: str
    metres: float
    rising: bool


# Streams ------------------------------------------------------------------------------------------------------------


def _open(client: OpenAI, api: str, model: str) -> Any:
    match api:
        case "chat":
            return client.chat.completions.create(model=model, messages=MESSAGES, stream=True)
        case "completions":
            return client.completions.create(model=model, prompt=ASKED, stream=True)
        case _:
            return client.responses.create(model=model, input=ASKED, stream=True)


def _text(api: str, event: Any) -> str:
    match api:
        case "chat":
            return (event.choices[0].delta.content or "") if event.choices else ""
        case "completions":
            return str(event.choices[0].text or "") if event.choices else ""
        case _:
            return str(event.delta) if event.type == "response.output_text.delta" else ""


def _finish(event: Any) -> Any:
    return event.choices[0].finish_reason if event.choices else None


def _broken(client: OpenAI, api: str, model: str) -> Facts:
    """Read to the end, or to what is raised instead of it."""
    pieces = 0
    error: Facts | None = None
    try:
        for event in _open(client, api, model):
            pieces += 1 if _text(api, event) else 0
    except Exception as raised:  # noqa: BLE001 - whatever a program would see
        error = _error(raised)
    return {"pieces": pieces, "error": error}


def _leave(client: OpenAI, api: str, model: str) -> Facts:
    stream = _open(client, api, model)
    for event in stream:
        if _text(api, event):
            break
    left = time.time()
    stream.close()
    return {"left": left}


# Errors -------------------------------------------------------------------------------------------------------------


def _error(raised: Exception) -> Facts:
    facts: Facts = {
        "class": type(raised).__name__,
        "message": str(raised),
        "code": getattr(raised, "code", None),
        "status": getattr(raised, "status_code", None),
        "request_id": getattr(raised, "request_id", None),
    }
    if isinstance(raised, openai.APIStatusError):
        facts["retry_after"] = raised.response.headers.get("retry-after")
    return facts


def _refused(ask: Callable[[], object]) -> Facts:
    try:
        ask()
    except Exception as raised:  # noqa: BLE001 - whatever a program would see
        return {"error": _error(raised)}
    return {"error": None}


def _ask(client: OpenAI, model: str, **more: Any) -> Any:
    return client.chat.completions.create(model=model, messages=MESSAGES, **more)


# Scenarios ----------------------------------------------------------------------------------------------------------


def chat(client: OpenAI, model: str = "chat") -> Facts:
    answer = _ask(client, model)
    return {
        "text": answer.choices[0].message.content,
        "finish": answer.choices[0].finish_reason,
        "model": answer.model,
        "tokens": answer.usage.total_tokens,
        "request_id": answer._request_id,
    }


def chat_stream(client: OpenAI, **more: Any) -> Facts:
    whole = _ask(client, "chat").choices[0].message.content
    chunks = list(_ask(client, "chat", stream=True, **more))
    return {
        "text_equals_whole": "".join(_text("chat", chunk) for chunk in chunks) == whole,
        "finish": [reason for chunk in chunks if (reason := _finish(chunk))],
        "without_choices": sum(not chunk.choices for chunk in chunks),
        "usages": [chunk.usage.total_tokens for chunk in chunks if chunk.usage],
    }


def tools(client: OpenAI) -> Facts:
    arguments, names, finish = "", [], []
    for chunk in _ask(client, "chat", stream=True, tools=TOOLS):
        for call in (chunk.choices[0].delta.tool_calls or []) if chunk.choices else []:
            names += [call.function.name] if call.function.name else []
            arguments += call.function.arguments or ""
        finish += [_finish(chunk)] if _finish(chunk) else []
    whole = _ask(client, "chat", tools=TOOLS).choices[0].message.tool_calls[0].function
    return {
        "names": names,
        "arguments": json.loads(arguments),
        "equals_whole": arguments == whole.arguments,
        "finish": finish,
    }


def structured(client: OpenAI) -> Facts:
    answer = client.chat.completions.parse(model="chat", messages=MESSAGES, response_format=Level)
    parsed = answer.choices[0].message.parsed
    return {"parsed": parsed.model_dump() if parsed is not None else None}


def embeddings(client: OpenAI) -> Facts:
    packed = client.embeddings.create(model="chat", input=[ASKED, "Low."])  # the SDK asks for base64, and unpacks it
    floats = client.embeddings.create(model="chat", input=[ASKED, "Low."], encoding_format="float")
    pairs = list(zip(packed.data[0].embedding, floats.data[0].embedding, strict=True))
    return {
        "vectors": [len(packed.data), len(floats.data)],
        "size": len(pairs),
        "equal": all(abs(one - other) < 1e-6 for one, other in pairs),
        "tokens": packed.usage.total_tokens,
    }


def responses(client: OpenAI) -> Facts:
    answer = client.responses.create(model="chat", input=ASKED)
    usage = answer.usage
    return {"text": answer.output_text, "status": answer.status, "tokens": usage.total_tokens if usage else None}


def responses_stream(client: OpenAI) -> Facts:
    whole = client.responses.create(model="chat", input=ASKED).output_text
    events = list(_open(client, "responses", "chat"))
    last = events[-1]
    return {
        "text_equals_whole": "".join(_text("responses", event) for event in events) == whole,
        "first": events[0].type,
        "last": last.type,
        "tokens": last.response.usage.total_tokens,
        "final_text_equals_whole": last.response.output_text == whole,
    }


def completions(client: OpenAI) -> Facts:
    whole = client.completions.create(model="chat", prompt=ASKED)
    chunks = list(_open(client, "completions", "chat"))
    return {
        "text": whole.choices[0].text,
        "tokens": whole.usage.total_tokens if whole.usage else None,
        "text_equals_whole": "".join(_text("completions", chunk) for chunk in chunks) == whole.choices[0].text,
        "finish": [reason for chunk in chunks if (reason := _finish(chunk))],
    }


def models(client: OpenAI) -> Facts:
    listed = [model.id for model in client.models.list()]
    one = client.models.retrieve("chat")
    target = client.models.retrieve("sim/plain")
    return {"listed": listed, "retrieved": [one.id, one.object, target.id]}


def headers(client: OpenAI) -> Facts:
    raw = client.chat.completions.with_raw_response.create(model="chat", messages=MESSAGES)
    shown = {name: value for name, value in raw.headers.items() if name.startswith("x-penstock-")}
    streamed = client.chat.completions.with_raw_response.create(model="chat", messages=MESSAGES, stream=True)
    pieces = sum(bool(_text("chat", chunk)) for chunk in streamed.parse())
    return {
        "shown": shown,
        "request_id": raw.headers.get("x-request-id"),
        "parsed_id_is_the_same": raw.parse()._request_id == raw.headers.get("x-request-id"),
        "stream_route": streamed.headers.get("x-penstock-route"),
        "stream_id": streamed.headers.get("x-request-id"),
        "stream_pieces": pieces,
    }


def rate_limited(client: OpenAI) -> Facts:
    return _refused(lambda: _ask(client.with_options(max_retries=0), "sim/429:30"))


def retried(client: OpenAI) -> Facts:
    """The SDK sends again what Penstock says may be sent again."""
    return chat(client, "sim/once:429:retried")


async def _async_stream(client: AsyncOpenAI, model: str) -> tuple[str, Facts | None]:
    text = ""
    try:
        async for chunk in await client.chat.completions.create(model=model, messages=MESSAGES, stream=True):
            text += _text("chat", chunk)
    except Exception as raised:  # noqa: BLE001 - whatever a program would see
        return text, _error(raised)
    return text, None


def async_streams(_client: OpenAI) -> Facts:
    async def both() -> Facts:
        async with AsyncOpenAI() as client:
            text, error = await _async_stream(client, "chat")
            cut_text, cut_error = await _async_stream(client, "sim/cut:4")
        return {
            "text": text,
            "error": error,
            "cut_pieces": len(cut_text.split()),
            "cut_error": cut_error,
        }

    return asyncio.run(both())


SCENARIOS: Final[dict[str, Callable[[OpenAI], Facts]]] = {
    "chat": chat,
    "chat direct target": lambda client: chat(client, "sim/plain"),
    "chat known name": lambda client: chat(client, "gpt-4o-mini"),
    "chat after fallback": lambda client: chat(client, "fallback"),
    "chat stream": chat_stream,
    "chat stream usage": lambda client: chat_stream(client, stream_options={"include_usage": True}),
    "tools": tools,
    "structured": structured,
    "embeddings": embeddings,
    "responses": responses,
    "responses stream": responses_stream,
    "completions": completions,
    "models": models,
    "headers": headers,
    "400": lambda client: _refused(lambda: _ask(client, "sim/400")),
    "401 upstream": lambda client: _refused(lambda: _ask(client, "sim/401")),
    "404": lambda client: _refused(lambda: _ask(client, "chta")),
    "404 retrieve": lambda client: _refused(lambda: client.models.retrieve("nobody")),
    "429": rate_limited,
    "429 retried": retried,
    "502": lambda client: _refused(lambda: _ask(client, "raw/garbage")),
    "502 stream": lambda client: _refused(lambda: list(_ask(client, "sim/head-then-fin", stream=True))),
    "503": lambda client: _refused(lambda: _ask(client, "raw/status:503")),
    "504": lambda client: _refused(lambda: _ask(client, "late")),
    "invalid body": lambda client: _refused(lambda: _ask(client, "chat", extra_body={"n": 1000})),
    "async": async_streams,
}
for _api in ("chat", "completions", "responses"):
    SCENARIOS |= {f"{fault} {_api}": lambda client, a=_api, m=f"sim/{fault}": _broken(client, a, m) for fault in BROKEN}  # type: ignore[misc] # bound now
    SCENARIOS[f"left {_api}"] = lambda client, a=_api: _leave(client, a, "sim/paced:100:50ms")  # type: ignore[misc] # bound now
SCENARIOS |= {f"form {form}": lambda client, m=f"raw/{form}": _refused(lambda: _ask(client, m)) for form in FORMS}  # type: ignore[misc] # bound now


def main(names: Iterable[str]) -> None:
    print(json.dumps({"sdk": "openai-python", "version": openai.__version__}), flush=True)
    with OpenAI() as client:
        for name in names or SCENARIOS:
            try:
                facts = SCENARIOS[name](client)
            except Exception:  # noqa: BLE001 - told, and judged where the others are
                facts = {"crash": traceback.format_exc()}
            print(json.dumps({"scenario": name, **facts}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
