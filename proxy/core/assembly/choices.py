"""What chat and completions share: choices by index, the members around them, where usage stands."""

from collections.abc import Callable, Mapping
from typing import Any, Final

from proxy.core import usage
from proxy.core.assembly.gather import Members
from proxy.core.assembly.recorded import DONE_EVENT, Recorded, Unclear, event

PIECE_CHARS: Final = 4096  # of a text in one event: some readers of streams stop at lines of 64 KiB

_FIRST: Final = ("id", "created", "model")  # told with every chunk, though empty in Azure's first
_EVERYWHERE: Final = ("id", "object", "created", "model", "system_fingerprint", "service_tier")
_ASIDE: Final = ("choices", "usage", "object", "obfuscation")  # the last is padding, a random text in every event


def join(
    recorded: Recorded, form: str, new_choice: Callable[[], Members]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The members around the choices of a recorded stream, and the choices in their order.

    Raises `Unclear` where a choice has not finished: JSON has no word for that.
    """
    seen: set[int] = set()
    finished: set[int] = set()
    for reading in recorded.readings:
        seen.update(reading.seen)
        finished.update(reading.finished)
    if not seen or seen > finished:
        raise Unclear("not every choice has finished")
    choices: dict[int, Members] = {}
    for document in recorded.documents:
        for choice in objects(document.get("choices")):
            index = choice.get("index")
            index = index if type(index) is int else 0
            if index not in choices:
                choices[index] = new_choice()
            choices[index].add({**choice, "index": index})
    return _around(recorded, form), [choices[index].value() for index in sorted(choices)]


def _around(recorded: Recorded, form: str) -> dict[str, Any]:
    around: dict[str, Any] = {"id": None, "object": form, "created": None, "model": None}
    for document in recorded.documents:
        for name, value in document.items():
            if name in _ASIDE:
                continue
            if name in _FIRST:
                around[name] = around[name] or value
            elif name not in around or (value is not None and value != ""):
                around[name] = value
    for name in _FIRST:
        if around[name] is None:
            del around[name]
    return around


def add_usage(answer: dict[str, Any], recorded: Recorded) -> None:
    """Put usage where a JSON answer has it, wherever the stream had it."""
    figures = [reading.figures for reading in recorded.readings if reading.figures is not None]
    told = [document["usage"] for document in recorded.documents if document.get("usage") is not None]
    if figures or told:
        answer["usage"] = (figures or told)[-1]
    x_groq = answer.get("x_groq")
    if type(x_groq) is dict and x_groq.get("usage") == answer.get("usage"):
        answer["x_groq"] = {name: value for name, value in x_groq.items() if name != "usage"}


def split(
    document: dict[str, Any],
    form: str,
    chunks_of: Callable[[dict[str, Any], int], list[dict[str, Any]]],
    *,
    include_usage: bool,
) -> bytes:
    """A JSON answer as events. ``chunks_of``: the choices of the chunks that a choice makes up.

    What stands around the choices and is not told everywhere is told in the first chunk, where SDKs look for it.
    """
    choices = objects(document.get("choices"))
    if not choices or len(choices) != len(document["choices"]):
        raise Unclear("it has no choices")
    around = {**{name: document[name] for name in document if name in _EVERYWHERE}, "object": form}
    rest = {name: value for name, value in document.items() if name not in _EVERYWHERE and name not in _ASIDE}
    events: list[bytes] = []
    for position, choice in enumerate(choices):
        if not choice.get("finish_reason"):
            raise Unclear("not every choice has finished")
        for chunk in chunks_of(choice, position):
            events.append(event({**around, **rest, "choices": [chunk]}))
            rest = {}
    if include_usage and usage.find(document) is not None:
        events.append(event({**around, "choices": [], "usage": usage.find(document)}))
    return b"".join((*events, DONE_EVENT))


def index_of(choice: Mapping[str, Any], position: int) -> int:
    index = choice.get("index")
    return index if type(index) is int else position


def pieces(text: str) -> list[str]:
    return [text[at : at + PIECE_CHARS] for at in range(0, len(text), PIECE_CHARS)]


def objects(value: object) -> list[dict[str, Any]]:
    """The objects of what should be a list of them."""
    return [item for item in value if type(item) is dict] if type(value) is list else []
