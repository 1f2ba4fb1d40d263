"""POST /v1/audio/transcriptions and /v1/audio/translations. Source: platform.openai.com/docs/api-reference/audio and
openai-python 3.52 types, read 2026-11-21.

The text says how many bytes of which file came, and their hash.
"""

from collections.abc import Iterator
from typing import Any, Final

import orjson

from proxy.simulator.answers.received import received
from proxy.simulator.answers.stream import Stream, data
from proxy.simulator.ask import Ask, UsagePlace
from proxy.simulator.wire import JSON
from proxy.terms import Api

_BYTES_A_SECOND: Final = 16_000  # what is 128 kbit/s; enough to have a duration that grows
_PLAIN: Final = b"text/plain; charset=utf-8"
_TEXTS: Final = frozenset({"text", "srt", "vtt"})


def content_type(ask: Ask) -> bytes:
    return _PLAIN if ask.fields.get("response_format") in _TEXTS else JSON


def whole(ask: Ask) -> bytes:
    text, until = ask.text, _clock(_seconds(ask))
    match ask.fields.get("response_format"):
        case "text":
            return f"{text}\n".encode()
        case "srt":
            return f"1\n00:00:00,000 --> {until.replace('.', ',')}\n{text}\n\n".encode()
        case "vtt":
            return f"WEBVTT\n\n00:00:00.000 --> {until}\n{text}\n\n".encode()
        case "verbose_json":
            return orjson.dumps(_verbose(ask))
        case _:
            return orjson.dumps({"text": text, **_usage(ask), **received(ask)})


def stream(ask: Ask) -> Stream:
    done = {"type": "transcript.text.done", "text": ask.text, **_usage(ask), **received(ask)}
    return Stream((), _deltas(ask), (data(done),), ())


def _deltas(ask: Ask) -> Iterator[bytes]:
    for piece in ask.pieces:
        yield data({"type": "transcript.text.delta", "delta": piece})


def _verbose(ask: Ask) -> dict[str, Any]:
    seconds = _seconds(ask)
    segment = {
        "id": 0,
        "seek": 0,
        "start": 0.0,
        "end": seconds,
        "text": ask.text,
        "tokens": [50364, 50365],
        "temperature": 0.0,
        "avg_logprob": -0.25,
        "compression_ratio": 1.25,
        "no_speech_prob": 0.01,
    }
    answer = {"language": "english", "duration": seconds, "text": ask.text, "segments": [segment], **received(ask)}
    if ask.api is Api.TRANSLATIONS:
        return {"task": "translate", **answer}
    usage = {} if ask.usage_place is UsagePlace.NOWHERE else {"usage": {"type": "duration", "seconds": seconds}}
    return {"task": "transcribe", **answer, **usage}


def _usage(ask: Ask) -> dict[str, Any]:
    """A translation reports none."""
    if ask.api is Api.TRANSLATIONS or ask.usage_place is UsagePlace.NOWHERE:
        return {}
    usage = ask.usage
    details = {"audio_tokens": usage.input_tokens, "text_tokens": 0}
    return {
        "usage": {
            "type": "tokens",
            "input_tokens": usage.input_tokens,
            "input_token_details": details,
            "output_tokens": usage.output_tokens,
            "total_tokens": usage.input_tokens + usage.output_tokens,
        }
    }


def _seconds(ask: Ask) -> float:
    return round(max(sum(file.size for file in ask.files) / _BYTES_A_SECOND, 0.01), 2)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(int(minutes), 60)
    return f"{hours:02}:{minutes:02}:{rest:06.3f}"
