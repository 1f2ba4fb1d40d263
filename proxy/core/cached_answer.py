"""An answer that is kept to be given again, and its bytes in a store that several processes share.

The bytes: magic, version, checksum; then, under the checksum, the body's coding, the lengths, a JSON header and the body.
The header holds the cache key, so that an entry which was moved or restored under another key is not taken for that key's:
the key is what keeps accounts apart. Nothing that is read is ever run, or made larger than it says it is.

The checksum finds what has rotted or was cut. It keeps nobody from writing entries who may write into the store: that one
is trusted, since budgets and limits stand in it too, and an HMAC would guard the cache alone.

Held by `tests/core/test_cached_answer.py`: what was encoded comes back; any cut, any flipped bit, any other bytes is None.
"""

import hashlib
import math
import struct
import zlib
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final, TypeVar

import orjson

from proxy.core import any_text
from proxy.core.cache_selector import Labels, labels_of, pack_labels
from proxy.core.usage import normalise
from proxy.terms import Api, CacheKey, Generation, NanoUsd, Usage

FORMAT: Final = 1
BODY_BYTES_MAX: Final = 16 * 1024 * 1024
# Below it zlib saves little, and costs 75 us for its tables alone.
COMPRESSED_FROM_BYTES: Final = 4096
_LEVEL: Final = 1  # a recorded stream becomes 16 to 45 times smaller; level 6 gains a tenth and takes twice as long
_HEADER_BYTES_MAX: Final = 1024 * 1024

_MAGIC: Final = b"PNSA"
_CHECKSUM_BYTES: Final = 16
_START: Final = struct.Struct(f">4sB{_CHECKSUM_BYTES}s")
_LENGTHS: Final = struct.Struct(">BII")  # the body's coding, bytes of the header, bytes of the body when inflated
_HEADER_AT: Final = _START.size + _LENGTHS.size
_PLAIN: Final = 0
_ZLIB: Final = 1

_Known = TypeVar("_Known", Api, "Form")
_APIS: Final = {api.value: api for api in Api}


class Form(Enum):
    """What the recorded bytes are: the events of a stream, or one JSON document."""

    STREAM = "stream"
    JSON = "json"


_FORMS: Final = {form.value: form for form in Form}


@dataclass(frozen=True, slots=True)
class CachedAnswer:
    """One complete answer.

    Shapes: ``headers`` are those that a replay repeats, the content type aside. ``body`` is what was relayed: events with
    their blank lines, or the document. ``usage`` is the raw usage object as JSON, None where none came; ``usage_asked``: it
    stands in an event of its own because somebody asked for it. ``reported`` is derived: that usage in Penstock's terms.
    Units: ``stored_at_s`` Unix seconds. ``cost_nanousd`` None: unpriced. ``generation``: in which it was asked for.
    """

    api: Api
    form: Form
    status: int
    content_type: str
    headers: tuple[tuple[str, str], ...]
    body: bytes
    usage: bytes | None
    usage_asked: bool
    cost_nanousd: NanoUsd | None
    labels: Labels
    stored_at_s: float
    ttl_s: float
    generation: Generation
    reported: Usage | None = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "reported", None if self.usage is None else _reported(self.usage))


def _reported(usage: bytes) -> Usage | None:
    """None for what is no usage object."""
    try:
        document = orjson.loads(usage)
    except orjson.JSONDecodeError:
        return None
    return normalise(document) if type(document) is dict else None


def encode(cache_key: CacheKey, answer: CachedAnswer) -> bytes:
    """Raises `ValueError` for a body of more than `BODY_BYTES_MAX`."""
    if len(answer.body) > BODY_BYTES_MAX:
        raise ValueError(f"a cached body has at most {BODY_BYTES_MAX} bytes, this one has {len(answer.body)}")
    header = orjson.dumps(
        {
            "key": any_text.packed(cache_key),
            "api": answer.api.value,
            "form": answer.form.value,
            "status": answer.status,
            "content_type": any_text.packed(answer.content_type),
            "headers": [[any_text.packed(name), any_text.packed(value)] for name, value in answer.headers],
            "usage": None if answer.usage is None else answer.usage.decode("latin-1"),
            "usage_asked": answer.usage_asked,
            "cost_nanousd": answer.cost_nanousd,
            "labels": orjson.Fragment(pack_labels(answer.labels)),
            "stored_at_s": answer.stored_at_s,
            "ttl_s": answer.ttl_s,
            "generation": answer.generation,
        }
    )
    coding, body = _deflated(answer.body)
    checked = _LENGTHS.pack(coding, len(header), len(answer.body)) + header + body
    return _START.pack(_MAGIC, FORMAT, _checksum(checked)) + checked


def body_bytes(blob: bytes) -> int:
    """How large an entry says that its body is when it is inflated; 0 where it is no entry."""
    return _LENGTHS.unpack_from(blob, _START.size)[2] if len(blob) >= _HEADER_AT else 0


def decode(blob: bytes, expected: CacheKey) -> CachedAnswer | None:
    """None: it is not what `encode` made of this key in this version."""
    if len(blob) < _HEADER_AT:
        return None
    magic, version, checksum = _START.unpack_from(blob)
    if magic != _MAGIC or version != FORMAT or checksum != _checksum(memoryview(blob)[_START.size :]):
        return None
    coding, header_bytes, inflated_bytes = _LENGTHS.unpack_from(blob, _START.size)
    body_at = _HEADER_AT + header_bytes
    if body_at > len(blob) or header_bytes > _HEADER_BYTES_MAX or inflated_bytes > BODY_BYTES_MAX:
        return None
    try:
        header = orjson.loads(memoryview(blob)[_HEADER_AT:body_at])
        if type(header) is not dict or _text(header.get("key")) != expected:
            return None
        return _answer(header, _inflated(coding, blob[body_at:], inflated_bytes))
    except (ValueError, zlib.error):
        return None


def _checksum(checked: bytes | memoryview) -> bytes:
    return hashlib.blake2b(checked, digest_size=_CHECKSUM_BYTES).digest()


def _deflated(body: bytes) -> tuple[int, bytes]:
    if len(body) >= COMPRESSED_FROM_BYTES:
        deflated = zlib.compress(body, _LEVEL)
        if len(deflated) < len(body):
            return _ZLIB, deflated
    return _PLAIN, body


def _inflated(coding: int, body: bytes, size: int) -> bytes:
    """Never grows beyond what the entry says. Raises `ValueError`, `zlib.error`."""
    if coding == _ZLIB:
        inflater = zlib.decompressobj()
        inflated = inflater.decompress(body, size + 1)
        whole = inflater.eof and not inflater.unused_data
    else:
        inflated, whole = body, coding == _PLAIN
    if not whole or len(inflated) != size:
        raise ValueError("the body is not as long as the entry says")
    return inflated


def _answer(header: dict[str, Any], body: bytes) -> CachedAnswer:
    """Raises `ValueError` for what has another type."""
    usage, cost = header.get("usage"), header.get("cost_nanousd")
    return CachedAnswer(
        api=_one_of(_APIS, header.get("api")),
        form=_one_of(_FORMS, header.get("form")),
        status=_whole(header.get("status")),
        content_type=_text(header.get("content_type")),
        headers=_pairs(header.get("headers")),
        body=body,
        usage=None if usage is None else _plain_text(usage).encode("latin-1"),
        usage_asked=_flag(header.get("usage_asked")),
        cost_nanousd=None if cost is None else NanoUsd(_whole(cost)),
        labels=labels_of(header.get("labels")),
        stored_at_s=_seconds(header.get("stored_at_s")),
        ttl_s=_seconds(header.get("ttl_s")),
        generation=Generation(_whole(header.get("generation"))),
    )


def _one_of(known: dict[str, _Known], value: object) -> _Known:
    found = known.get(value) if type(value) is str else None
    if found is None:
        raise ValueError("neither an API nor a form that is known")
    return found


def _plain_text(value: object) -> str:
    if type(value) is not str:
        raise ValueError("no text")
    return value


def _text(value: object) -> str:
    return any_text.unpacked(_plain_text(value))


def _whole(value: object) -> int:
    if type(value) is not int:
        raise ValueError("no whole number")
    return value


def _flag(value: object) -> bool:
    if type(value) is not bool:
        raise ValueError("neither true nor false")
    return value


def _seconds(value: object) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        raise ValueError("no number of seconds")
    return float(value)


def _pairs(value: object) -> tuple[tuple[str, str], ...]:
    if type(value) is not list:
        raise ValueError("no headers")
    return tuple(_pair(pair) for pair in value)


def _pair(value: object) -> tuple[str, str]:
    match value:
        case [str(name), str(content)]:
            return any_text.unpacked(name), any_text.unpacked(content)
    raise ValueError("no header")
