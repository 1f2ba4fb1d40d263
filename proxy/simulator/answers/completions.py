"""POST /v1/completions. Source: platform.openai.com/docs/api-reference/completions."""

from collections.abc import Iterator
from typing import Any

import orjson

from proxy.simulator.answers.chat import FINISH, usage_of
from proxy.simulator.answers.stream import CREATED_AT, DONE, Stream, data
from proxy.simulator.ask import Ask, UsagePlace


def whole(ask: Ask) -> bytes:
    choices = [_choice(index, ask.text, FINISH[ask.finish]) for index in range(ask.choices)]
    answer = {**_envelope(ask), "choices": choices}
    if ask.usage_place is not UsagePlace.NOWHERE:
        answer["usage"] = usage_of(ask)
    return orjson.dumps(answer)


def stream(ask: Ask) -> Stream:
    return Stream((), _content(ask), tuple(_closing(ask)), (DONE,))


def _content(ask: Ask) -> Iterator[bytes]:
    prefix = b"data: " + orjson.dumps(_envelope(ask))[:-1] + b',"choices":[{"text":'
    for piece in ask.pieces:
        for index in range(ask.choices):
            yield b'%b%b,"index":%d,"logprobs":null,"finish_reason":null}]}\n\n' % (prefix, orjson.dumps(piece), index)


def _closing(ask: Ask) -> Iterator[bytes]:
    for index in range(ask.choices):
        yield data({**_envelope(ask), "choices": [_choice(index, "", FINISH[ask.finish])]})
    if ask.include_usage and ask.usage_place is not UsagePlace.NOWHERE:
        yield data({**_envelope(ask), "choices": [], "usage": usage_of(ask)})


def _choice(index: int, text: str, finish: str | None) -> dict[str, Any]:
    return {"text": text, "index": index, "logprobs": None, "finish_reason": finish}


def _envelope(ask: Ask) -> dict[str, Any]:
    return {
        "id": f"cmpl-{ask.digest.decode()}",
        "object": "text_completion",
        "created": CREATED_AT,
        "model": ask.model,
    }
