"""What becomes of a request's body as it comes: kept whole, or streamed through and counted.

A script may act while the body still comes: an *interruption* is asked after every piece, as soon as the model's name is
known, which says which script it is.
"""

import hashlib
import re
from collections.abc import Callable
from typing import Final, Protocol, TypeAlias

from proxy.simulator.form import FormReader
from proxy.simulator.reader import KEPT_BYTES_MAX, Request
from proxy.simulator.wire import Steps

# Given how many bytes of the body have come: the steps of an answer to begin at once, seconds to stop reading for, or
# None to go on.
Interruption: TypeAlias = Callable[[int], Steps | float | None]
# The interruption of the script that a model's name chooses, if it has one.
Interrupting: TypeAlias = Callable[[Request, str], Interruption | None]
Respond: TypeAlias = Callable[[Request], Steps]

_MODEL: Final = re.compile(rb'"model"\s*:\s*"([^"\\]{1,512})"')
_MODEL_BYTES_MAX: Final = 600


class Intake(Protocol):
    """Takes one request's body. The pieces of `take` are never empty."""

    def take(self, piece: bytes) -> Steps | float | None: ...

    def finish(self) -> Steps | None:
        """The body is over: the answer, or None where there is none to begin."""
        ...


class Whole:
    """The body is kept: JSON."""

    __slots__ = ("_body", "_interrupting", "_interruption", "_request", "_respond")

    def __init__(self, request: Request, respond: Respond, interrupting: Interrupting) -> None:
        self._request = request
        self._respond = respond
        self._interrupting = interrupting
        self._interruption: Interruption | None = None
        self._body = bytearray()

    def take(self, piece: bytes) -> Steps | float | None:
        self._body += piece
        self._request.body_bytes = len(self._body)
        if len(self._body) == self._request.length:
            return None  # it has come at once, as most do: its script plays when it is read
        new_from = max(0, len(self._body) - len(piece) - _MODEL_BYTES_MAX)
        if self._interruption is None and (found := _MODEL.search(self._body, new_from)) is not None:
            self._interruption = self._interrupting(self._request, found[1].decode(errors="replace"))
        return None if self._interruption is None else self._interruption(len(self._body))

    def finish(self) -> Steps:
        self._request.body = bytes(self._body)
        return self._respond(self._request)


class Streamed:
    """The body is hashed and counted, and only its head is kept; a form's fields and files are told apart."""

    __slots__ = ("_hash", "_head", "_interrupting", "_interruption", "_reader", "_request", "_respond")

    def __init__(
        self, request: Request, respond: Respond, interrupting: Interrupting, reader: FormReader | None
    ) -> None:
        self._request = request
        self._respond = respond
        self._interrupting = interrupting
        self._interruption: Interruption | None = None
        self._reader = reader
        self._hash = hashlib.sha256()
        self._head = bytearray()
        if reader is not None:
            request.form = reader.form

    def take(self, piece: bytes) -> Steps | float | None:
        request = self._request
        request.body_bytes += len(piece)
        self._hash.update(piece)
        if len(self._head) < KEPT_BYTES_MAX:
            self._head += piece[: KEPT_BYTES_MAX - len(self._head)]
            request.body = bytes(self._head)
        if self._reader is None:
            return None
        self._reader.feed(piece)
        if self._interruption is None and (model := self._reader.form.fields.get("model")):
            self._interruption = self._interrupting(request, model[0])
        return None if self._interruption is None else self._interruption(request.body_bytes)

    def finish(self) -> Steps:
        if self._reader is not None:
            self._reader.feed(b"")
        self._request.streamed(self._hash.hexdigest())
        return self._respond(self._request)


class Drained:
    """The answer has begun before the body was read: what still comes of it is counted and thrown away."""

    __slots__ = ("_request",)

    def __init__(self, request: Request) -> None:
        self._request = request

    def take(self, piece: bytes) -> None:
        self._request.body_bytes += len(piece)

    def finish(self) -> None:
        """There is no other answer to begin."""
