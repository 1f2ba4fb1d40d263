"""What an answer is made of before any API's form is put around it, where it is no text: pictures, sound, transcripts."""

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from proxy.simulator import media
from proxy.simulator.form import File

PIECE: Final = re.compile(r"\S+\s*|\s+")
FILLER: Final = ("Water ", "runs ", "down ", "the ", "penstock ", "and ", "turns ", "the ", "wheel. ")
PARTIAL_IMAGES: Final = 2  # where a client names no number
PARTIAL_IMAGES_MAX: Final = 3  # OpenAI's own bound, read 2026-11-21
_WORDS_MAX: Final = 200
_NOTHING: Final = "0 bytes"


@dataclass(frozen=True, slots=True)
class Material:
    """``pieces`` are what the content events hold, ``filler`` what a script that wants more of them repeats."""

    pieces: Sequence[str]
    filler: Sequence[str] = FILLER


def nothing(_fields: Mapping[str, Any], _files: Sequence[File]) -> Material:
    return Material(())


def pictures(fields: Mapping[str, Any], _files: Sequence[File]) -> Material:
    """Each piece is a partial image, in base64."""
    wanted = number(fields.get("partial_images"))
    count = PARTIAL_IMAGES if wanted is None else min(max(wanted, 0), PARTIAL_IMAGES_MAX)
    pieces = tuple(base64.b64encode(media.png(64, 64 * part, 255)).decode() for part in range(1, count + 1))
    return Material(pieces, pieces or (base64.b64encode(media.png(64, 64, 255)).decode(),))


def sound(fields: Mapping[str, Any], _files: Sequence[File]) -> Material:
    """A piece for each word of the input: bytes as Latin-1, or base64 where the stream is one of events."""
    said = fields.get("input")
    words = len(said.split()) if isinstance(said, str) else 1
    made = media.audio(str(fields.get("response_format"))).piece
    piece = base64.b64encode(made).decode() if in_events(fields) else made.decode("latin-1")
    return Material((piece,) * min(max(words, 1), _WORDS_MAX), (piece,))


def transcript(_fields: Mapping[str, Any], files: Sequence[File]) -> Material:
    """The text says how many bytes came and what their SHA-256 is, so that a test can see that they came whole."""
    heard = "; ".join(f"{file.filename}, {file.size} bytes, SHA-256 {file.sha256}" for file in files) or _NOTHING
    return Material(PIECE.findall(f"This is what Penstock's simulator heard: {heard}."))


def in_events(fields: Mapping[str, Any]) -> bool:
    """Whether speech is wanted as an event stream."""
    return fields.get("stream_format") == "sse"


def number(given: Any) -> int | None:
    """A whole number, as JSON has it or as the text that a form has."""
    if isinstance(given, str) and given.isascii() and given.isdecimal() and len(given) < 10:
        return int(given)
    return given if isinstance(given, int) and not isinstance(given, bool) else None


def is_true(given: Any) -> bool:
    return given is True or given == "true"
