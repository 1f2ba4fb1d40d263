"""Chat: `choices[].delta` to `choices[].message`, and back.

As the SDKs assemble it: text is joined, calls of tools by their index, the last of what is told anew counts. `text` beside a
delta (Together) repeats it and is left out, and so is `message` (Perplexity). A call's `index` stands in streams alone.

Source: openai-python 3.52, `lib/streaming`; recorded answers of some twenty providers (read 2026-11-21).
"""

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, Final

from proxy.core.assembly import choices
from proxy.core.assembly.gather import (
    Base64,
    Details,
    Gatherer,
    Id,
    Items,
    Last,
    Members,
    Name,
    Parts,
    Text,
    as_delta,
    as_state,
)
from proxy.core.assembly.recorded import Unclear, dump, read, read_body
from proxy.terms import Api

_Named = Mapping[str, Callable[[], Gatherer]]

_FUNCTION: Final[_Named] = MappingProxyType({"name": Name, "arguments": Text, "input": Text})
_function: Final = partial(Members, _FUNCTION, as_state)
_CALL: Final[_Named] = MappingProxyType({"id": Id, "type": Last, "function": _function, "custom": _function})
_AUDIO: Final[_Named] = MappingProxyType({"id": Id, "data": Base64, "transcript": Text, "expires_at": Last})
_LOGPROBS: Final[_Named] = MappingProxyType({"content": Items, "refusal": Items})
_BESIDE: Final = frozenset({"text", "message", "usage"})
_TEXTS: Final = ("content", "refusal")


class Calls:
    """Calls of tools, by their index; of one that comes without, its id tells that it is a new one."""

    __slots__ = ("_calls",)

    def __init__(self) -> None:
        self._calls: dict[int, Members] = {}

    def add(self, piece: Any) -> None:
        if type(piece) is not list:
            raise Unclear("tool_calls are no list")
        for call in piece:
            if type(call) is not dict:
                raise Unclear("a call of a tool is no object")
            index = self._index(call)
            if index not in self._calls:
                self._calls[index] = Members(_CALL, as_state, frozenset({"index"}))
            self._calls[index].add(call)

    def value(self) -> list[dict[str, Any]]:
        return [_whole_call(self._calls[index].value()) for index in sorted(self._calls)]

    def _index(self, call: dict[str, Any]) -> int:
        index = call.get("index")
        if type(index) is int:
            return index
        last = max(self._calls, default=-1)
        return last + 1 if call.get("id") or last < 0 else last


def _whole_call(call: dict[str, Any]) -> dict[str, Any]:
    function = call.get("function")
    if function is not None:
        call.setdefault("type", "function")
        function["arguments"] = function.get("arguments") or ""  # null where there are none (OpenRouter)
    return call


_MESSAGE: Final[_Named] = MappingProxyType(
    {
        "role": Last,
        "content": Parts,
        "refusal": Text,
        "tool_calls": Calls,
        "function_call": _function,
        "audio": partial(Members, _AUDIO, as_state),
        "reasoning_details": Details,
        "channel": Last,  # Groq names it with every delta
    }
)
_CHOICE: Final[_Named] = MappingProxyType(
    {
        "delta": partial(Members, _MESSAGE, as_delta, frozenset({"token_id"})),
        "logprobs": partial(Members, _LOGPROBS, as_state),
        "finish_reason": Last,
    }
)


def to_json(events: bytes) -> bytes:
    recorded = read(events, Api.CHAT)
    for document in recorded.documents:
        _check(document)
    answer, joined = choices.join(recorded, "chat.completion", partial(Members, _CHOICE, as_state, _BESIDE))
    answer["choices"] = [_whole(choice) for choice in joined]
    choices.add_usage(answer, recorded)
    return dump(answer)


def to_stream(body: bytes, *, include_usage: bool) -> bytes:
    return choices.split(read_body(body), "chat.completion.chunk", _chunks, include_usage=include_usage)


def _check(document: dict[str, Any]) -> None:
    for choice in choices.objects(document.get("choices")):
        if choice.get("message") and type(choice.get("delta")) is not dict:
            raise Unclear("a choice has a message instead of a delta")


def _whole(choice: dict[str, Any]) -> dict[str, Any]:
    """A choice with its message where JSON has it."""
    delta = choice.pop("delta", None) or {}
    message = {"role": "assistant", "content": None, **delta}
    message["role"] = message["role"] or "assistant"
    index = choice.pop("index")
    return {"index": index, "message": message, **choice}


def _chunks(choice: dict[str, Any], position: int) -> list[dict[str, Any]]:
    message = choice.get("message")
    if type(message) is not dict:
        raise Unclear("a choice has no message")
    index = choices.index_of(choice, position)
    beside = {
        name: value for name, value in choice.items() if name not in ("index", "message", "logprobs", "finish_reason")
    }
    deltas = [_opening(message), *_deltas(message)]
    chunks: list[dict[str, Any]] = [{"index": index, "delta": delta} for delta in deltas]
    chunks.append({"index": index, "delta": {}})
    chunks[0] |= beside
    if "logprobs" in choice:
        told = next((at for at, delta in enumerate(deltas) if any(delta.get(name) for name in _TEXTS)), -1)
        for chunk in chunks:
            chunk["logprobs"] = None
        chunks[told]["logprobs"] = choice["logprobs"]
    for chunk in chunks:
        chunk["finish_reason"] = None
    chunks[-1]["finish_reason"] = choice["finish_reason"]
    return chunks


def _opening(message: dict[str, Any]) -> dict[str, Any]:
    """The first delta: the role, and all that is empty."""
    empty = {name: value for name, value in message.items() if value is None or value in ("", [], {})}
    opening = {"role": message.get("role") or "assistant", **{name: empty[name] for name in empty if name != "role"}}
    if type(message.get("content")) is str:
        opening["content"] = ""
    return opening


def _deltas(message: dict[str, Any]) -> list[dict[str, Any]]:
    """The others: reasoning and what else there is, then the text, then the calls, each text in pieces."""
    order = [name for name in message if name not in ("role", "content", "tool_calls")]
    deltas: list[dict[str, Any]] = []
    for name in (*order, "content", "tool_calls"):
        value = message.get(name)
        if type(value) is str:
            deltas += [{name: piece} for piece in choices.pieces(value)]
        elif name == "tool_calls" and type(value) is list:
            for index, call in enumerate(value):
                deltas += [{name: [piece]} for piece in _call_pieces(call, index)]
        elif value is not None and value not in ([], {}):
            deltas.append({name: value})
    return deltas


def _call_pieces(call: Any, index: int) -> list[dict[str, Any]]:
    if type(call) is not dict:
        raise Unclear("a call of a tool is no object")
    function = call.get("function")
    arguments = function.get("arguments") if type(function) is dict else None
    if type(arguments) is not str or type(function) is not dict:
        return [{**call, "index": index}]
    first, *others = choices.pieces(arguments) or [""]
    head = {**call, "index": index, "function": {**function, "arguments": first}}
    return [head, *({"index": index, "function": {"arguments": piece}} for piece in others)]
