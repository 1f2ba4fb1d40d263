"""Completions: `choices[].text` in pieces to `choices[].text` whole, and back. The lists of logprobs follow each other."""

from functools import partial
from typing import Any, Final

from proxy.core.assembly import choices
from proxy.core.assembly.gather import Last, Members, Text, as_state
from proxy.core.assembly.recorded import Unclear, dump, read, read_body
from proxy.terms import Api

_FORM: Final = "text_completion"
_logprobs: Final = partial(Members, {}, as_state)
_new_choice: Final = partial(
    Members, {"text": Text, "finish_reason": Last, "logprobs": _logprobs}, as_state, frozenset({"usage"})
)


def to_json(events: bytes) -> bytes:
    recorded = read(events, Api.COMPLETIONS)
    answer, answer["choices"] = choices.join(recorded, _FORM, _new_choice)
    for choice in answer["choices"]:
        choice.setdefault("text", "")
    choices.add_usage(answer, recorded)
    return dump(answer)


def to_stream(body: bytes, *, include_usage: bool) -> bytes:
    return choices.split(read_body(body), _FORM, _chunks, include_usage=include_usage)


def _chunks(choice: dict[str, Any], position: int) -> list[dict[str, Any]]:
    text = choice.get("text")
    if type(text) is not str:
        raise Unclear("a choice has no text")
    index = choices.index_of(choice, position)
    nothing = {"logprobs": None} if "logprobs" in choice else {}
    chunks = [
        {"index": index, "text": piece, **nothing, "finish_reason": None} for piece in choices.pieces(text) or [""]
    ]
    beside = {name: value for name, value in choice.items() if name not in chunks[0] or name == "logprobs"}
    chunks[0] |= beside
    return [*chunks, {"index": index, "text": "", **nothing, "finish_reason": choice["finish_reason"]}]
