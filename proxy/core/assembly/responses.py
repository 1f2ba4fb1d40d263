"""Responses: the last event holds the answer whole."""

from typing import Any

from proxy.core.assembly.recorded import Unclear, dump, read
from proxy.terms import Api


def to_json(events: bytes) -> bytes:
    recorded = read(events, Api.RESPONSES)
    ends = [at for at, reading in enumerate(recorded.readings) if reading.terminal]
    if not ends:
        raise Unclear("it has no last event")
    answer = recorded.documents[ends[0]].get("response")
    if type(answer) is not dict:
        raise Unclear("its last event holds no response")
    if not answer.get("output"):
        answer["output"] = _output(recorded.documents)
    return dump(answer)


def _output(documents: list[dict[str, Any]]) -> list[Any]:
    """What was streamed, of an answer whose last event does not repeat it: its items, if each was told whole."""
    streamed: set[Any] = set()
    items: dict[Any, Any] = {}
    for document in documents:
        index = document.get("output_index")
        if type(index) is not int:
            continue
        streamed.add(index)
        if document.get("type") == "response.output_item.done":
            items[index] = document.get("item")
    if streamed > items.keys():
        raise Unclear("its last event does not repeat what was streamed")
    return [items[index] for index in sorted(items)]
