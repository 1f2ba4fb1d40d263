"""Small pictures and sounds, made here. What is PNG, WAV or MP3 is whole and valid; of the other audio formats only the
first bytes are what they should be.
"""

import math
import struct
import zlib
from dataclasses import dataclass
from functools import cache
from typing import Final

PIXELS: Final = 16  # a side
SAMPLE_HZ: Final = 24_000
SAMPLES_A_PIECE: Final = 480  # 20 ms
_TONE_HZ: Final = 440
_TONE_HEIGHT: Final = 8000
_WAV_HEAD_BYTES: Final = 44
# MPEG-1 layer III, 128 kbit/s, 44.1 kHz, stereo; all zeros behind the header are silence. 144 * 128000 / 44100 bytes.
_MP3_FRAME: Final = b"\xff\xfb\x90\x64" + bytes(413)


@dataclass(frozen=True, slots=True)
class Audio:
    """``opening`` stands once before everything, ``piece`` as often as wanted."""

    content_type: bytes
    piece: bytes
    opening: bytes = b""


def png(red: int, green: int, blue: int) -> bytes:
    """A small picture: this colour (0 to 255 each), darker towards the lower right."""
    rows = bytearray()
    for y in range(PIXELS):
        rows.append(0)  # no filter
        for x in range(PIXELS):
            light = 2 * PIXELS - x - y
            rows += bytes(part * light // (2 * PIXELS) for part in (red, green, blue))
    head = struct.pack(">IIBBBBB", PIXELS, PIXELS, 8, 2, 0, 0, 0)  # 8 bits, RGB
    chunks = (b"IHDR", head), (b"IDAT", zlib.compress(bytes(rows))), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(_png_chunk(kind, data) for kind, data in chunks)


def wav_head(data_bytes: int) -> bytes:
    """RIFF header of mono 16-bit samples."""
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, SAMPLE_HZ, SAMPLE_HZ * 2, 2, 16)
    sizes = struct.pack("<4sI4s", b"RIFF", _WAV_HEAD_BYTES - 8 + data_bytes, b"WAVE")
    return sizes + form + struct.pack("<4sI", b"data", data_bytes)


@cache
def audio(response_format: str) -> Audio:
    """What `response_format` asks for; MP3 where it is none of OpenAI's."""
    match response_format:
        case "wav":
            return Audio(b"audio/wav", _tone())
        case "pcm":
            return Audio(b"audio/pcm", _tone())
        case "opus":
            return Audio(b"audio/ogg", bytes(400), b"OggS")
        case "aac":
            return Audio(b"audio/aac", b"\xff\xf1" + bytes(398))
        case "flac":
            return Audio(b"audio/flac", bytes(400), b"fLaC")
        case _:
            return Audio(b"audio/mpeg", _MP3_FRAME)


def _tone() -> bytes:
    steps = (2 * math.pi * _TONE_HZ * at / SAMPLE_HZ for at in range(SAMPLES_A_PIECE))
    return b"".join(struct.pack("<h", int(_TONE_HEIGHT * math.sin(step))) for step in steps)


def _png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
