"""POST /v1/audio/speech. Source: platform.openai.com/docs/api-reference/audio/createSpeech and speech-audio-delta-event,
read 2026-11-21.

The sound is the same tone for every word, in the format asked for; or events, where `stream_format` is `sse`.
"""

from collections.abc import Iterator
from typing import Any

from proxy.simulator import media
from proxy.simulator.answers.stream import Stream, data
from proxy.simulator.ask import Ask, UsagePlace


def whole(ask: Ask) -> bytes:
    return b"".join(stream(ask).events())


def content_type(ask: Ask) -> bytes:
    return _audio(ask).content_type


def stream(ask: Ask) -> Stream:
    if ask.binary:
        return Stream((), _sound(ask), (), ())
    return Stream((), _events(ask), (_done(ask),), ())


def _sound(ask: Ask) -> Iterator[bytes]:
    """A write for each piece, the first one with what a file of the format begins with."""
    pieces = [piece.encode("latin-1", errors="replace") for piece in ask.pieces]
    opening = _audio(ask).opening
    if ask.fields.get("response_format") == "wav":
        opening = media.wav_head(sum(map(len, pieces)))
    for piece in pieces:
        yield opening + piece
        opening = b""


def _events(ask: Ask) -> Iterator[bytes]:
    for piece in ask.pieces:
        yield data({"type": "speech.audio.delta", "audio": piece})


def _done(ask: Ask) -> bytes:
    fields: dict[str, Any] = {"type": "speech.audio.done"}
    if ask.usage_place is not UsagePlace.NOWHERE:
        usage = ask.usage
        fields["usage"] = {
            "input_tokens": usage.input_tokens,
            "output_tokens": usage.output_tokens,
            "total_tokens": usage.input_tokens + usage.output_tokens,
        }
    return data(fields)


def _audio(ask: Ask) -> media.Audio:
    return media.audio(str(ask.fields.get("response_format")))
